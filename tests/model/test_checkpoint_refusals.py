"""Files that are no checkpoints, broken or malicious."""

from __future__ import annotations

import os
import sys
import types
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rule_made import write_lightning
from tiny import TINY, tiny_model
from torch import Tensor

from htsat_sed.errors import CheckpointError
from htsat_sed.model.checkpoint import (
    load_checkpoint,
    save_checkpoint,
)


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
    with pytest.raises(CheckpointError, match=r"refused: its pickle names .*mkdir, which may be code"):
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


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "is not a checkpoint: neither safetensors nor a PyTorch file"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "is not a checkpoint"),
        (b"<html>", "is not a checkpoint"),
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
