"""Streams of OpenVINO: windows side by side, no two streams made at once, and nothing left on the disk."""

import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.model.runtime import Execution, Inference

pytest.importorskip("openvino")

from htsat_sed.model import openvino_core

CPU = torch.device("cpu")
TINY = HTSATConfig(classes=3, embed_dim=8, depths=(1, 1, 1, 1), heads=(1, 1, 1, 1))


@pytest.fixture
def four_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("threads", "batch_size", "streams", "threads_of_each"),
    [(1, 8, 1, 1), (2, 8, 2, 1), (4, 1, 1, 4), (12, 8, 6, 2), (16, 8, 8, 2), (11, 8, 5, 2), (64, 64, 8, 8)],
)
def test_streams_share_the_threads(threads: int, batch_size: int, streams: int, threads_of_each: int) -> None:
    assert openvino_core._shares(threads, batch_size) == (streams, threads_of_each)


class Compiler:
    """Stands for OpenVINO's `Core`: counts graphs that are compiled at once, and streams that compute at once."""

    def __init__(self) -> None:
        self.settings: list[dict[str, str]] = []
        self.compiling = self.most_compiling = 0
        self.all_compute = threading.Barrier(4, timeout=60)

    def compile_model(self, graph: object, device: str, settings: dict[str, str]) -> object:
        self.settings.append(settings)
        self.compiling += 1
        self.most_compiling = max(self.most_compiling, self.compiling)
        time.sleep(0.01)  # others get their chance
        self.compiling -= 1
        return types.SimpleNamespace(
            create_infer_request=lambda: types.SimpleNamespace(infer=lambda *a, **k: self.infer(*a, **k))
        )

    def infer(self, inputs: dict[int, np.ndarray], share_inputs: bool) -> list[np.ndarray]:
        self.all_compute.wait()
        return [inputs[0][:, :1, :3] + 1]


def test_streams_are_compiled_one_after_another(monkeypatch: pytest.MonkeyPatch, four_threads: None) -> None:
    compiler = Compiler()
    monkeypatch.setattr(openvino_core.openvino, "Core", lambda: compiler)
    core = openvino_core.openvino_core(object(), 8)
    compiler.infer = lambda inputs, share_inputs: [inputs[0][:, :1, :3] + 1]  # type: ignore[method-assign]
    core(torch.randn(openvino_core._ALONE, 1024, 64))
    assert len(compiler.settings) == 1  # a short recording does not need the others
    del compiler.infer
    logmel = torch.randn(4, 1024, 64)
    assert torch.equal(core(logmel), logmel[:, :1, :3] + 1)  # in order; the barrier wants all four at once
    assert (len(compiler.settings), compiler.most_compiling) == (4, 1)
    assert torch.equal(core(logmel), logmel[:, :1, :3] + 1)
    assert len(compiler.settings) == 4
    for settings in compiler.settings:
        assert (settings["NUM_STREAMS"], settings["INFERENCE_NUM_THREADS"]) == ("1", "1")
        assert settings["INFERENCE_PRECISION_HINT"] == "f32"


def test_every_stream_computes_what_torch_does(
    four_threads: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTSAT_SED_HOME", str(tmp_path / "home"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = HTSAT(TINY).eval()
        waveform = 0.1 * torch.randn(1, TINY.window_samples)
    expected = Inference(model, CPU, Execution(runtime="torch")).presence_scores(waveform)
    found = Inference(model, CPU, Execution(runtime="openvino"))
    scores = found.presence_scores(waveform.expand(16, -1))
    assert torch.equal(scores, scores[:1].expand_as(scores))
    torch.testing.assert_close(scores[:1], expected, rtol=0, atol=1e-4)
    assert list(tmp_path.iterdir()) == []  # nothing is kept for later processes
