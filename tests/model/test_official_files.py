"""Files of the official code, and of CLAP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rule_made import golden, golden_config, golden_recording, official_state, write_lightning
from tiny import TINY, same_weights
from torch import Tensor

from htsat_sed.errors import CheckpointError
from htsat_sed.labels import audioset_labels
from htsat_sed.model.checkpoint import (
    load_checkpoint,
    load_encoder,
    read_info,
    save_checkpoint,
)
from htsat_sed.model.htsat import HTSAT, HTSATConfig

Official = Callable[[str], Path]


def deviations(model: HTSAT, name: str) -> dict[str, float]:
    """Largest deviation of a model from each array of a golden."""
    g = golden(name)
    waveform = torch.from_numpy(golden_recording(name))[None]
    with torch.inference_mode():
        logmel = model.frontend(waveform)
        out = model(waveform)
    clipwise = out.clip_logits if g["loss"] == "clip_ce" else out.clip_logits.sigmoid()
    found = {
        "logmel": logmel,
        "presence": out.presence_logits.sigmoid(),
        "clipwise": clipwise,
        "latent": out.embedding,
    }
    return {key: float(np.abs(value[0].numpy() - g[key]).max()) for key, value in found.items()}


@pytest.mark.parametrize("name", ["small_ce", "audioset_10s"])
def test_an_official_file_computes_what_the_official_code_does(
    official_checkpoint: Official, tmp_path: Path, name: str
):
    config = golden_config(name)
    model = load_checkpoint(official_checkpoint(name), loss=config.loss)
    assert model.config == config
    assert not model.training
    found = deviations(model, name)
    assert found.pop("logmel") < 0.01
    assert max(found.values()) < 2e-4

    save_checkpoint(tmp_path / "ours.safetensors", model)
    again = load_checkpoint(tmp_path / "ours.safetensors")
    assert again.config == config
    assert again.labels == model.labels
    assert same_weights(again, model)


def test_the_labels_of_527_classes_are_those_of_audioset(official_checkpoint: Official):
    info = read_info(official_checkpoint("audioset_10s"))
    assert info.kind == "official"
    assert info.labels == audioset_labels()
    assert info.parameters == 29_963_431
    assert info.config == HTSATConfig()


def test_other_labels_are_given_or_numbered(tiny_state: dict[str, Tensor], tmp_path: Path):
    write_lightning(tmp_path / "a.ckpt", tiny_state)
    assert load_checkpoint(tmp_path / "a.ckpt").labels == ("class_000", "class_001", "class_002", "class_003")
    assert load_checkpoint(tmp_path / "a.ckpt", labels=["a", "b", "c", "d"]).labels == ("a", "b", "c", "d")
    with pytest.raises(ValueError, match=r"wanted 4 labels, one per class of .*a\.ckpt, got 1"):
        load_checkpoint(tmp_path / "a.ckpt", labels=["a"])
    with pytest.raises(ValueError, match="distinct"):
        load_checkpoint(tmp_path / "a.ckpt", labels=["a", "b", "c", "a"])


@pytest.mark.parametrize(
    ("sample_rate", "hop_length"), [(32_000, 320), (16_000, 160), (44_100, 441), (48_000, 480)]
)
def test_the_mel_matrix_tells_the_sample_rate(tmp_path: Path, sample_rate: int, hop_length: int):
    config = replace(TINY, sample_rate=sample_rate, hop_length=hop_length)
    write_lightning(tmp_path / "a.ckpt", official_state(config, seed=1))
    assert read_info(tmp_path / "a.ckpt").config == config


def test_options_state_what_the_arrays_do_not(
    tiny_state: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "a.ckpt"
    write_lightning(path, tiny_state)
    assert read_info(path, hop_length=500, loss="clip_ce").config == replace(
        TINY, hop_length=500, loss="clip_ce"
    )
    assert caplog.messages == []
    assert read_info(path, sample_rate=16_000).config == replace(TINY, sample_rate=16_000, hop_length=160)
    assert caplog.messages == [f"{path}: read as a 16000 Hz model, but its mel matrix is that of 32000 Hz"]

    del tiny_state["sed_model.logmel_extractor.melW"]
    write_lightning(path, tiny_state)
    assert read_info(path).config == TINY
    assert read_info(path, sample_rate=16_000).config.hop_length == 160


def test_a_mel_matrix_of_no_usual_rate(tiny_state: dict[str, Tensor], tmp_path: Path):
    state = tiny_state | {"sed_model.logmel_extractor.melW": torch.ones(513, 64)}
    write_lightning(tmp_path / "a.ckpt", state)
    with pytest.raises(CheckpointError, match="its mel matrix matches no usual sample rate"):
        read_info(tmp_path / "a.ckpt")
    assert read_info(tmp_path / "a.ckpt", sample_rate=32_000).config == TINY


def test_fifty_classes_are_single_label(tmp_path: Path):
    write_lightning(tmp_path / "a.ckpt", official_state(replace(TINY, classes=50), seed=1))
    assert read_info(tmp_path / "a.ckpt").config.loss == "clip_ce"
    assert read_info(tmp_path / "a.ckpt", loss="clip_bce").config.loss == "clip_bce"


def test_an_averaged_official_file_holds_floating_point_alone(tiny_state: dict[str, Tensor], tmp_path: Path):
    torch.save({"state_dict": {key: array.float() for key, array in tiny_state.items()}}, tmp_path / "a.ckpt")
    torch.save({"state_dict": tiny_state}, tmp_path / "b.ckpt")
    a, b = load_checkpoint(tmp_path / "a.ckpt"), load_checkpoint(tmp_path / "b.ckpt")
    assert same_weights(a, b)
    assert a.bn0.num_batches_tracked == 100_000


def test_a_bare_state_dict_without_derived_arrays_will_do(tiny_state: dict[str, Tensor], tmp_path: Path):
    learned = {
        key.removeprefix("sed_model."): array
        for key, array in tiny_state.items()
        if not any(part in key for part in ("extractor", "head", "mask", "index", "num_batches"))
    }
    torch.save(learned, tmp_path / "bare.pt")
    write_lightning(tmp_path / "a.ckpt", tiny_state)
    bare, full = load_checkpoint(tmp_path / "bare.pt"), load_checkpoint(tmp_path / "a.ckpt")
    assert bare.config == full.config
    assert torch.equal(bare.tscam_conv.weight, full.tscam_conv.weight)


def test_files_of_old_torch_will_do(tiny_state: dict[str, Tensor], tmp_path: Path):
    torch.save({"state_dict": tiny_state}, tmp_path / "a.ckpt", _use_new_zipfile_serialization=False)
    assert load_checkpoint(tmp_path / "a.ckpt").config == TINY


def test_loading_leaves_the_random_state_alone(tiny_state: dict[str, Tensor], tmp_path: Path):
    write_lightning(tmp_path / "a.ckpt", tiny_state)
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    load_checkpoint(tmp_path / "a.ckpt")
    assert torch.rand(1) == wanted


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sed_model.layers.4.norm.weight": torch.zeros(3)}, "holds unknown backbone.layers.4.norm.weight"),
        ({"loss_func.weight": torch.zeros(3)}, "holds unknown arrays: loss_func.weight"),
        ({"sed_model.norm.bias": None}, "lacks backbone.norm.bias"),
        ({"sed_model.norm.bias": torch.zeros(3)}, r"backbone.norm.bias has shape \(3,\), wanted \(128,\)"),
        ({"sed_model.head.bias": torch.zeros(3)}, r"head.bias has shape \(3,\), wanted \(4,\)"),
        (
            {"sed_model.layers.1.blocks.1.attn_mask": torch.zeros(4, 64, 64)},
            r"attn_mask has shape \(4, 64, 64\), wanted \(16, 64, 64\)",
        ),
        ({"sed_model.norm.bias": torch.full((128,), torch.nan)}, "backbone.norm.bias holds NaN or infinity"),
        ({"sed_model.tscam_conv.weight": None}, "without token-semantic head"),
        ({"sed_model.bn0.weight": None, "sed_model.bn0.bias": None}, "lacks bn0.weight, bn0.bias"),
        (
            {"sed_model.tscam_conv.weight": torch.zeros(4, 99, 2, 3)},
            r"tscam_conv.weight has shape \(4, 99, 2",
        ),
        (
            {f"sed_model.layers.{i}.blocks.0.attn.relative_position_bias_table": None for i in range(4)},
            "is not an HTS-AT of a known shape: wanted depths of four stages",
        ),
    ],
)
def test_official_files_with_other_arrays(
    tiny_state: dict[str, Tensor], tmp_path: Path, change: dict[str, Tensor | None], reason: str
):
    state = {key: array for key, array in (tiny_state | change).items() if array is not None}
    write_lightning(tmp_path / "a.ckpt", state)
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(tmp_path / "a.ckpt")


def test_an_ensemble_of_the_official_code_is_not_one_model(tiny_state: dict[str, Tensor], tmp_path: Path):
    state = {key.replace("sed_model.", "sed_models.0."): array for key, array in tiny_state.items()}
    write_lightning(tmp_path / "a.ckpt", state)
    with pytest.raises(CheckpointError, match=r"the unknown prefix 'sed_models\.0\.', not 'sed_model\.'"):
        load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("prefix", "container", "name"),
    [
        ("module.audio_branch.", "state_dict", "LAION CLAP"),
        ("audio_encoder.base.htsat.", "model", "Microsoft CLAP"),
    ],
)
def test_clap_has_no_head_but_an_encoder(
    tiny_state: dict[str, Tensor], tmp_path: Path, prefix: str, container: str, name: str
):
    state = {key.replace("sed_model.", prefix): array for key, array in tiny_state.items()}
    state["module.text_branch.embeddings.weight"] = torch.zeros(5, 3)
    torch.save({"epoch": np.int64(3), container: state}, tmp_path / "clap.pt")
    with pytest.raises(CheckpointError, match=f"is a {name} model: it has no trained detection head"):
        load_checkpoint(tmp_path / "clap.pt")
    with pytest.raises(CheckpointError, match=f"is a {name} model"):
        read_info(tmp_path / "clap.pt")

    encoder = load_encoder(tmp_path / "clap.pt")
    assert (encoder.embed_dim, encoder.depths, encoder.heads) == (16, TINY.depths, TINY.heads)
    model = HTSAT(replace(TINY, classes=9))
    missing, unexpected = model.load_state_dict(encoder.arrays, strict=False)
    assert missing == ["tscam_conv.weight", "tscam_conv.bias"]
    assert unexpected == []
    assert torch.equal(model.backbone.norm.weight, state[f"{prefix}norm.weight"])


def test_clap_of_transformers(tmp_path: Path):
    torch.save({"audio_model.audio_encoder.norm.weight": torch.zeros(3)}, tmp_path / "clap.bin")
    with pytest.raises(CheckpointError, match="is a CLAP model in the format of transformers"):
        load_checkpoint(tmp_path / "clap.bin")


def test_every_checkpoint_has_an_encoder(tiny_state: dict[str, Tensor], tmp_path: Path):
    write_lightning(tmp_path / "a.ckpt", tiny_state)
    save_checkpoint(tmp_path / "a.safetensors", load_checkpoint(tmp_path / "a.ckpt"))
    theirs, ours = load_encoder(tmp_path / "a.ckpt"), load_encoder(tmp_path / "a.safetensors")
    assert theirs[:3] == ours[:3]
    assert theirs.arrays.keys() == ours.arrays.keys()
    assert all(torch.equal(theirs.arrays[key], ours.arrays[key]) for key in ours.arrays)
