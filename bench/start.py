"""How long each runtime takes until the first score; OpenVINO in the first process and in later ones.

python bench/start.py [--repeats 7]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from htsat_sed import load_checkpoint
from htsat_sed.model.catalogue import resolve_checkpoint
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
        os.environ["HTSAT_SED_HOME"] = str(folder)

        def compiled() -> object:
            shutil.rmtree(folder / "compiled", ignore_errors=True)
            return fresh("openvino")

        compiled()
        size = sum(blob.stat().st_size for blob in (folder / "compiled").iterdir())
        found["openvino, compiled and kept"] = compiled
        found[f"openvino, read back {size / 1e6:3.0f} MB"] = lambda: fresh("openvino")
    return found


if __name__ == "__main__":
    main()
