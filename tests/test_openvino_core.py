"""Compiled graphs on the disk: read back they give the same scores, and what is damaged is compiled anew."""

import hashlib
from pathlib import Path

import pytest
import torch

from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.model.runtime import Execution, Inference

pytest.importorskip("openvino")

from htsat_sed.model import openvino_graph
from htsat_sed.model.openvino_core import KEPT

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


def test_those_used_last_stay(folder: Path) -> None:
    for seed in range(KEPT):
        scores(tiny(seed))
    before = set(folder.iterdir())
    oldest = min(before, key=lambda path: path.stat().st_mtime_ns)
    scores(tiny(KEPT))
    after = set(folder.iterdir())
    assert len(after) == KEPT
    assert before - after == {oldest}


def test_no_place_to_keep_it_is_no_error(folder: Path) -> None:
    folder.write_text("not a folder")
    assert scores(tiny()).shape == (2, 32, 3)
    assert folder.read_text() == "not a folder"
