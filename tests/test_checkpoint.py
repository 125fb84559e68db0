from __future__ import annotations

import json
import os
import sys
import types
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from rule_made import golden, golden_config, golden_recording, official_state, write_lightning
from torch import Tensor

from htsat_sed.errors import CheckpointError
from htsat_sed.labels import audioset_labels
from htsat_sed.model.checkpoint import (
    average_checkpoints,
    load_checkpoint,
    load_encoder,
    read_info,
    save_checkpoint,
)
from htsat_sed.model.htsat import HTSAT, HTSATConfig

TINY = HTSATConfig(embed_dim=16, depths=(1, 2, 1, 1), heads=(1, 2, 2, 4), classes=4)
Official = Callable[[str], Path]


@pytest.fixture(scope="module")
def tiny_state() -> dict[str, Tensor]:
    return official_state(TINY, seed=7)


def tiny_model(seed: int = 0) -> HTSAT:
    torch.manual_seed(seed)
    return HTSAT(TINY, ("Dog", "Cat", "Rain", "Speech, male")).eval()


def same_weights(a: HTSAT, b: HTSAT) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[key], theirs[key]) for key in ours)


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


# Official files


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
    with pytest.raises(ValueError, match=r"wanted 4 labels, one a class of .*a\.ckpt, got 1"):
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
    with pytest.raises(CheckpointError, match="its mel matrix is that of no usual sample rate"):
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


# CLAP


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
    with pytest.raises(CheckpointError, match="is a CLAP model as transformers saves it"):
        load_checkpoint(tmp_path / "clap.bin")


def test_every_checkpoint_has_an_encoder(tiny_state: dict[str, Tensor], tmp_path: Path):
    write_lightning(tmp_path / "a.ckpt", tiny_state)
    save_checkpoint(tmp_path / "a.safetensors", load_checkpoint(tmp_path / "a.ckpt"))
    theirs, ours = load_encoder(tmp_path / "a.ckpt"), load_encoder(tmp_path / "a.safetensors")
    assert theirs[:3] == ours[:3]
    assert theirs.arrays.keys() == ours.arrays.keys()
    assert all(torch.equal(theirs.arrays[key], ours.arrays[key]) for key in ours.arrays)


# Pickle


class Malice:
    """Would make a folder when unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_refused_and_never_run(tiny_state: dict[str, Tensor], tmp_path: Path, zipped: bool):
    harmed = tmp_path / "harmed"
    content = {"state_dict": tiny_state, "hyper_parameters": Malice(harmed)}
    torch.save(content, tmp_path / "evil.ckpt", _use_new_zipfile_serialization=zipped)
    wanted = "refused: its pickle names .*mkdir, which may be code" if zipped else "pickle is never executed"
    with pytest.raises(CheckpointError, match=wanted):
        load_checkpoint(tmp_path / "evil.ckpt")
    assert not harmed.exists()


@pytest.mark.parametrize("function", [eval, exec, getattr, __import__])
def test_builtin_functions_are_refused(tiny_state: dict[str, Tensor], tmp_path: Path, function: object):
    torch.save({"state_dict": tiny_state, "hyper_parameters": function}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="refused: its pickle names builtins"):
        load_checkpoint(tmp_path / "evil.ckpt")


def test_what_trainers_leave_in_a_file_does_no_harm(
    tiny_state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Trainers of 2021 keyed the states of callbacks by their class.
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    callback = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = callback  # type: ignore[attr-defined]
    content = {
        "state_dict": tiny_state,
        "callbacks": {callback: {"best_model_score": torch.tensor(0.4)}, "instance": callback()},
        "hyper_parameters": Namespace(path=Path("x"), values=defaultdict(list, a=[1], b=np.float32(2.0))),
        "dtype": np.dtype("float64"),
    }
    with monkeypatch.context() as patch:
        for name in ("pytorch_lightning", "pytorch_lightning.callbacks", module.__name__):
            patch.setitem(sys.modules, name, module)
        torch.save(content, tmp_path / "a.ckpt")
    loaded = set(sys.modules)
    assert load_checkpoint(tmp_path / "a.ckpt").config == TINY
    assert not any(name.startswith("pytorch_lightning") for name in set(sys.modules) - loaded)


# Files of other kinds


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "is no checkpoint: neither safetensors nor a PyTorch file"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "is no checkpoint"),
        (b"<html>", "is no checkpoint"),
        (b"PK\x03\x04" + bytes(100), "cannot be read as a PyTorch checkpoint"),
        (b"\x80\x02" + bytes(100), "cannot be read as a PyTorch checkpoint"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{" + bytes(20), "is a broken safetensors file"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes, reason: str):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path):
    with pytest.raises(CheckpointError, match="cannot be read: No such file or directory"):
        load_checkpoint(tmp_path / "none")
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"conv_block1.conv1.weight": torch.zeros(64, 1, 3, 3)}, "is not an HTS-AT: holds conv_block1.conv1"),
        ({"model": {f"module.v.{i}": torch.zeros(1) for i in range(5)}}, r"holds module.v.0, .* and 2 more"),
        ([1, 2], "holds a list, wanted a state dict"),
        ({"epoch": 3}, "holds no arrays"),
        (torch.zeros(3), "holds a Tensor, wanted a state dict"),
        (torch.nn.Linear(2, 2), "holds a pickled object, wanted a state dict"),
    ],
)
def test_torch_files_of_other_models(tmp_path: Path, content: object, reason: str):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(tmp_path / "other.pt")


@pytest.mark.parametrize("kind", ["a.ckpt", "a.safetensors"])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_truncated_files(tiny_state: dict[str, Tensor], tmp_path: Path, kind: str, share: float):
    write_lightning(tmp_path / "a.ckpt", tiny_state)
    save_checkpoint(tmp_path / "a.safetensors", tiny_model())
    path = tmp_path / kind
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"cannot be read as a PyTorch checkpoint|broken safetensors"):
        load_checkpoint(path)


# Our own files


def test_a_checkpoint_is_what_was_saved(tmp_path: Path):
    model = tiny_model()
    post_processing = {"threshold": 0.3, "classes": {"Dog": {"median_filter": 0.9}}}
    provenance = {"data": ["ESC-10", "Küche"], "metrics": {"macro F1": 0.5}}
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, model, post_processing=post_processing, provenance=provenance)
    again = load_checkpoint(path)
    assert again.config == TINY
    assert again.labels == model.labels
    assert again.post_processing == post_processing
    assert again.provenance == provenance
    assert not again.training
    assert same_weights(again, model)

    save_checkpoint(tmp_path / "b.safetensors", again)
    assert (tmp_path / "b.safetensors").read_bytes() == path.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_half_precision_halves_the_matrices_and_spares_the_vectors(tmp_path: Path):
    model = tiny_model()
    model.bn0.running_var.fill_(1e5)  # beyond float16
    save_checkpoint(tmp_path / "a.safetensors", model, dtype=torch.float16)
    assert read_info(tmp_path / "a.safetensors").dtype == "float16"
    with safetensors.safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert file.get_tensor("tscam_conv.weight").dtype == torch.float16
        assert file.get_tensor("tscam_conv.bias").dtype == torch.float32
    again = load_checkpoint(tmp_path / "a.safetensors").state_dict()
    assert {array.dtype for array in again.values()} == {torch.float32, torch.int64}
    for key, array in model.state_dict().items():
        wanted = array.half().float() if array.ndim > 1 else array
        assert torch.equal(again[key], wanted), key


def test_the_description_is_read_without_the_weights(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    model = tiny_model()
    save_checkpoint(path, model, provenance={"data": "none"})
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    content[start:] = b"\xff" * (len(content) - start)  # NaN throughout
    path.write_bytes(content)
    info = read_info(path)
    assert info.kind == "htsat-sed"
    assert info.config == TINY
    assert info.provenance == {"data": "none"}
    assert info.post_processing is None
    assert info.dtype == "float32"
    assert info.parameters == sum(parameter.numel() for parameter in model.parameters())
    with pytest.raises(CheckpointError, match="holds NaN or infinity"):
        load_checkpoint(path)


def test_what_the_file_says_is_not_to_be_contradicted(tmp_path: Path):
    save_checkpoint(tmp_path / "a.safetensors", tiny_model())
    agreeing = {"sample_rate": 32_000, "hop_length": 320, "loss": "clip_bce"}
    assert load_checkpoint(tmp_path / "a.safetensors", **agreeing).config == TINY
    with pytest.raises(ValueError, match="sample_rate 16000 contradicts the checkpoint, which says 32000"):
        load_checkpoint(tmp_path / "a.safetensors", sample_rate=16_000)
    with pytest.raises(ValueError, match="labels contradict"):
        read_info(tmp_path / "a.safetensors", labels=["a", "b", "c", "d"])


def test_weights_that_diverged_are_not_saved(tmp_path: Path):
    model = tiny_model()
    with torch.no_grad():
        model.tscam_conv.weight[0, 0, 0, 0] = 1e6
    save_checkpoint(tmp_path / "a.safetensors", model)
    with pytest.raises(ValueError, match=r"the range of torch\.float16, got tscam_conv\.weight beyond"):
        save_checkpoint(tmp_path / "b.safetensors", model, dtype=torch.float16)
    with torch.no_grad():
        model.tscam_conv.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="wanted finite weights"):
        save_checkpoint(tmp_path / "b.safetensors", model)
    assert not (tmp_path / "b.safetensors").exists()


def test_what_cannot_be_saved(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON can hold"):
        save_checkpoint(tmp_path / "a.safetensors", tiny_model(), provenance={"path": tmp_path})
    with pytest.raises(ValueError, match="JSON can hold"):
        save_checkpoint(tmp_path / "a.safetensors", tiny_model(), post_processing={"threshold": float("nan")})
    with pytest.raises(ValueError, match=r"wanted dtype torch.float32 or torch.float16, got torch.bfloat16"):
        save_checkpoint(tmp_path / "a.safetensors", tiny_model(), dtype=torch.bfloat16)
    with pytest.raises(CheckpointError, match="cannot be written: No such file or directory"):
        save_checkpoint(tmp_path / "none" / "a.safetensors", tiny_model())
    assert list(tmp_path.iterdir()) == []


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the description of one of our files."""
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["htsat_sed"])
    change(header)
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, {"htsat_sed": json.dumps(header)})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda h: h.update(format=2), "has format 2, wanted 1: made by another version"),
        (lambda h: h.pop("labels"), "its description is broken: 'labels'"),
        (lambda h: h["labels"].pop(), "wanted 4 distinct labels"),
        (lambda h: h.update(labels=["a", "a", "b", "c"]), "wanted 4 distinct labels"),
        (lambda h: h["config"].update(colour="red"), "its description is broken: .*colour"),
        (lambda h: h["config"].update(classes="4"), "its description is broken"),
        (lambda h: h["config"].update(hop_length=320.0), "wanted hop_length to be like 320"),
        (lambda h: h["config"].update(heads=[3, 2, 2, 4]), "wanted heads of four stages"),
        (lambda h: h["config"].update(embed_dim=32), "backbone.* has shape"),
        (lambda h: h["config"].update(depths=[1, 1, 1, 1]), "holds unknown backbone.layers.1.blocks.1"),
        (lambda h: h.update(post_processing=0.5), "wanted post_processing and provenance to be tables"),
        (lambda h: h.update(config=[]), "its description is broken"),
    ],
)
def test_broken_descriptions(tmp_path: Path, change: Callable[[dict[str, Any]], object], reason: str):
    save_checkpoint(tmp_path / "a.safetensors", tiny_model())
    rewrite(tmp_path / "a.safetensors", change)
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(tmp_path / "a.safetensors")


def test_safetensors_of_others(tmp_path: Path):
    safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="not of htsat-sed: it lacks the metadata entry 'htsat_sed'"):
        load_checkpoint(tmp_path / "a.safetensors")


# Averages


def test_the_average_is_the_mean_of_parameters_and_statistics(tmp_path: Path):
    values = {"a": (1.0, 10.0, 7), "b": (2.0, 20.0, 8), "c": (6.0, 60.0, 9)}
    paths = []
    for name, (weight, mean, count) in values.items():
        model = tiny_model()
        torch.nn.init.constant_(model.tscam_conv.weight, weight)
        model.bn0.running_mean.fill_(mean)
        model.bn0.num_batches_tracked.fill_(count)
        paths.append(tmp_path / f"{name}.safetensors")
        save_checkpoint(paths[-1], model, post_processing={"threshold": 0.4}, provenance={"name": name})
    average = average_checkpoints(paths)
    assert (average.tscam_conv.weight == 3.0).all()
    assert (average.bn0.running_mean == 30.0).all()
    assert average.bn0.num_batches_tracked == 0
    assert average.labels == model.labels
    assert average.post_processing == {"threshold": 0.4}
    assert average.provenance == {}
    assert not average.training


def test_an_average_of_one_model_with_itself_is_that_model(tmp_path: Path):
    save_checkpoint(tmp_path / "a.safetensors", tiny_model())
    assert same_weights(average_checkpoints([tmp_path / "a.safetensors"] * 3), tiny_model())


def test_only_like_models_average(tmp_path: Path):
    paths = [tmp_path / f"{name}.safetensors" for name in "abcd"]
    save_checkpoint(paths[0], tiny_model(), post_processing={"threshold": 0.4})
    save_checkpoint(paths[1], tiny_model(), post_processing={"threshold": 0.5})
    save_checkpoint(paths[2], HTSAT(replace(TINY, hop_length=160), tiny_model().labels))
    save_checkpoint(paths[3], HTSAT(TINY))
    assert average_checkpoints(paths[:2]).post_processing is None
    with pytest.raises(CheckpointError, match=f"{paths[2]}: has hop_length 160, {paths[0]} has 320"):
        average_checkpoints([paths[0], paths[2]])
    with pytest.raises(CheckpointError, match=f"{paths[3]}: has other labels than {paths[0]}"):
        average_checkpoints([paths[0], paths[3]])
    with pytest.raises(ValueError, match="wanted at least two checkpoints to average, got 1"):
        average_checkpoints(paths[:1])
