"""Compiled graphs on the disk: read back they give the same scores, and what is damaged is compiled anew."""

import hashlib
import os
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from htsat_sed.errors import HtsatSedError
from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.model.runtime import Execution, Inference

pytest.importorskip("openvino")

from htsat_sed.model import openvino_core, openvino_graph

CPU = torch.device("cpu")
TINY = HTSATConfig(classes=3, embed_dim=8, depths=(1, 1, 1, 1), heads=(1, 1, 1, 1))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HTSAT_SED_HOME", str(tmp_path))
    return tmp_path / "compiled"


def tiny(seed: int = 0) -> HTSAT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return HTSAT(TINY).eval()


def scores(model: HTSAT, *, batch_size: int = 1) -> torch.Tensor:
    waveforms = 0.1 * torch.randn(2, TINY.window_samples, generator=torch.Generator().manual_seed(1))
    found = Inference(model, CPU, Execution(runtime="openvino"), batch_size=batch_size)
    return found.presence_scores(waveforms)


def test_a_model_is_compiled_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = scores(tiny())
    (kept,) = folder.iterdir()
    drawn = openvino_graph.openvino_graph
    monkeypatch.setattr(openvino_graph, "openvino_graph", lambda model: pytest.fail("drawn again"))
    assert torch.equal(scores(tiny()), first)
    assert list(folder.iterdir()) == [kept]
    monkeypatch.setattr(openvino_graph, "openvino_graph", drawn)
    assert not torch.equal(scores(tiny(seed=1)), first)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "changed"])
def test_a_damaged_one_is_compiled_anew(folder: Path, damage: str) -> None:
    first = scores(tiny())
    (kept,) = folder.iterdir()
    whole = kept.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    kept.write_bytes({"cut": whole[:middle], "empty": b"", "changed": flipped}[damage])
    assert torch.equal(scores(tiny()), first)
    anew = kept.read_bytes()
    assert anew[:32] == hashlib.sha256(anew[32:]).digest()


def test_those_used_last_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Path] = []
    for seed in range(3):
        scores(tiny(seed))
        (new,) = set(folder.iterdir()) - set(kept)
        kept.append(new)
        os.utime(new, (seed, seed))
    scores(tiny(0))  # read back: used last
    monkeypatch.setattr(openvino_core, "ROOM", int(3.5 * kept[0].stat().st_size))
    (folder / ".killed.part").touch()
    os.utime(folder / ".killed.part", (0, 0))
    scores(tiny(3))
    assert {path for path in kept if path.exists()} == {kept[0], kept[2]}
    assert len(list(folder.iterdir())) == 3


def test_a_cache_for_reading_alone_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = scores(tiny())

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(openvino_core.os, "utime", refuse)
    monkeypatch.setattr(openvino_graph, "openvino_graph", lambda model: pytest.fail("drawn again"))
    assert torch.equal(scores(tiny()), first)


@pytest.mark.parametrize("lacking", ["folder", "home", "sources"])
def test_no_place_to_keep_it_is_no_error(folder: Path, lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError if lacking == "home" else OSError

    if lacking == "folder":
        folder.write_text("not a folder")
    elif lacking == "home":
        monkeypatch.setattr(openvino_core, "checkpoint_folder", refuse)
    else:
        monkeypatch.setattr(openvino_core.inspect, "getsource", refuse)
    assert scores(tiny()).shape == (2, 32, 3)
    assert not folder.is_dir()


class Stream:
    """A graph of which every other request computes something else."""

    def __init__(self, errors: list[float]) -> None:
        self._errors = errors

    def input(self, _: int) -> types.SimpleNamespace:
        return types.SimpleNamespace(shape=[1, 4])

    def create_infer_request(self) -> types.SimpleNamespace:
        self._errors.append(self._errors.pop(0))
        data = np.ones(3) + self._errors[0]
        return types.SimpleNamespace(
            start_async=lambda inputs, share_inputs: None,
            wait=lambda: None,
            get_output_tensor=lambda place: types.SimpleNamespace(data=data),
        )


def test_a_graph_whose_streams_differ_is_made_anew() -> None:
    right = Stream([0.0])
    graphs = iter([Stream([0.0, 1e-7]), Stream([0.5, 0.0]), right])
    assert openvino_core._sound(lambda: next(graphs), 2) is right
    with pytest.raises(HtsatSedError, match="does not compute the same twice"):
        openvino_core._sound(lambda: Stream([0.0, 0.5]), 2)
