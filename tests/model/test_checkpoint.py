"""Checkpoint files of our own: saved, read, described, averaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from tiny import TINY, same_weights, tiny_model

from htsat_sed.errors import CheckpointError
from htsat_sed.model.checkpoint import (
    average_checkpoints,
    load_checkpoint,
    read_info,
    save_checkpoint,
)
from htsat_sed.model.htsat import HTSAT


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
        (lambda h: h["labels"].pop(), "wanted (4 labels|distinct labels)"),
        (lambda h: h.update(labels=["a", "a", "b", "c"]), "wanted (4 labels|distinct labels)"),
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


def test_a_name_is_as_good_as_a_file() -> None:
    assert "Speech" in load_checkpoint("home").labels


def test_a_file_that_is_called_like_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("home").write_text("x")
    for path in ("./home", Path("home"), Path("./home")):
        with pytest.raises(CheckpointError, match="home: "):
            load_checkpoint(path)
