"""How long a fresh process takes until its first events, and each runtime until its first score.

python bench/start.py [--repeats 7]
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from htsat_sed import load_checkpoint
from htsat_sed.model.catalogue import resolve_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.model.runtime import Execution, Inference

EXAMPLE = Path(__file__).parents[1] / "examples" / "home.flac"
FIRST = f"""
import soundfile
from htsat_sed import Detector
samples, rate = soundfile.read({str(EXAMPLE)!r}, dtype="float32")
assert Detector("home").detect(samples, sample_rate=rate)
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--repeats", type=int, default=7)
    repeats = arguments.parse_args().repeats
    print(f"fresh process, all threads, processor time, medians of {repeats}")
    for what, code in (("import torch", "import torch"), ("first events of an array", FIRST)):
        print(f"{what:25s} {statistics.median(fresh_process(code) for _ in range(repeats)):.2f} s")
    torch.set_num_threads(1)
    models = {"bundled": load_checkpoint(resolve_checkpoint()), "full size": HTSAT(HTSATConfig()).eval()}
    print(f"one window, one thread, processor time, medians of {repeats}")
    for name, model in models.items():
        for runtime, turn in ways(model).items():
            taken = []
            for _ in range(repeats + 1):
                start = time.process_time()
                turn()
                taken.append(time.process_time() - start)
            print(f"{name:10s} {runtime:10s} {statistics.median(taken[1:]):.2f} s")


def fresh_process(code: str) -> float:
    """Return the processor time, in seconds, that a new Python process has used when some code has run."""
    timed = f"{code}\nimport time; print(time.process_time())"
    return float(subprocess.run([sys.executable, "-c", timed], check=True, stdout=subprocess.PIPE).stdout)


def ways(model: HTSAT) -> dict[str, Callable[[], object]]:
    waveform = 0.1 * torch.randn(1, model.config.window_samples)
    cpu = torch.device("cpu")

    def fresh(runtime: str) -> object:
        return Inference(model, cpu, Execution(runtime=runtime)).presence_scores(waveform)  # type: ignore[arg-type]

    found: dict[str, Callable[[], object]] = {"torch": lambda: fresh("torch")}
    if importlib.util.find_spec("onnxruntime"):
        found["onnx"] = lambda: fresh("onnx")
    if importlib.util.find_spec("openvino"):
        found["openvino"] = lambda: fresh("openvino")
    return found


if __name__ == "__main__":
    main()
