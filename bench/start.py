"""How long each runtime takes until the first score, and OpenVINO with a compiled model read from a file.

python bench/start.py [--repeats 7]
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from htsat_sed import load_checkpoint
from htsat_sed.model.catalogue import resolve_checkpoint
from htsat_sed.model.core import core_input
from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.model.runtime import Execution, Inference


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--repeats", type=int, default=7)
    repeats = arguments.parse_args().repeats
    torch.set_num_threads(1)
    models = {"bundled": load_checkpoint(resolve_checkpoint()), "full size": HTSAT(HTSATConfig()).eval()}
    print(f"one window, one thread, processor time, medians of {repeats}")
    for name, model in models.items():
        with tempfile.TemporaryDirectory() as folder:
            for way, turn in ways(model, Path(folder)).items():
                taken = []
                for _ in range(repeats + 1):
                    start = time.process_time()
                    turn()
                    taken.append(time.process_time() - start)
                print(f"{name:10s} {way:28s} {statistics.median(taken[1:]):.2f} s")


def ways(model: HTSAT, folder: Path) -> dict[str, Callable[[], object]]:
    waveform = 0.1 * torch.randn(1, model.config.window_samples)
    cpu = torch.device("cpu")

    def fresh(runtime: str) -> object:
        return Inference(model, cpu, Execution(runtime=runtime)).presence_scores(waveform)  # type: ignore[arg-type]

    found: dict[str, Callable[[], object]] = {"torch": lambda: fresh("torch")}
    if importlib.util.find_spec("onnxruntime"):
        found["onnx"] = lambda: fresh("onnx")
    if importlib.util.find_spec("openvino"):
        import openvino

        from htsat_sed.model.openvino_core import openvino_graph

        found["openvino"] = lambda: fresh("openvino")
        core = openvino.Core()
        one_thread = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1", "NUM_STREAMS": "1"}
        compiled = core.compile_model(openvino_graph(model), "CPU", one_thread)
        path = folder / "compiled.blob"
        path.write_bytes(compiled.export_model().getvalue())

        def read_back() -> object:
            again = core.import_model(path.read_bytes(), "CPU", one_thread)
            return again(core_input(model, waveform).detach().numpy())

        found[f"openvino, read back {path.stat().st_size / 1e6:3.0f} MB"] = read_back
    return found


if __name__ == "__main__":
    main()
