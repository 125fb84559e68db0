"""Whether every fresh process computes the same: OpenVINO's scores against torch's, in many processes.

OpenVINO's own streams, which this package no longer uses, had wrong scores in one of 40 to 150 processes.
Each process compiles the model and computes eight windows of noise from two threads at once, three times
over. What is off by more than 1e-4 is listed.

    python bench/streams.py [--processes 200] [--jobs 1] [--threads 2] [--checkpoint NAME]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from htsat_sed import Execution, load_checkpoint
from htsat_sed.model.catalogue import resolve_checkpoint
from htsat_sed.model.runtime import Inference

TOLERANCE = 1e-4
TURNS = 3


def scores(runtime: str, checkpoint: str | None) -> np.ndarray:
    """(TURNS, 8, 32, K): as in the pipeline, each thread has half of a batch."""
    model = load_checkpoint(resolve_checkpoint(checkpoint)).eval()
    noise = torch.Generator().manual_seed(0)
    batch = 0.1 * torch.randn(8, model.config.window_samples, generator=noise)
    computed = Inference(model, torch.device("cpu"), Execution(runtime=runtime))  # type: ignore[arg-type]
    turns = []
    with ThreadPoolExecutor(2) as threads:
        for _ in range(TURNS if runtime == "openvino" else 1):
            turns.append(torch.cat(list(threads.map(computed.presence_scores, batch.chunk(2)))).numpy())
    return np.stack(turns)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--processes", type=int, default=200)
    arguments.add_argument("--jobs", type=int, default=1, help="processes at once")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--checkpoint", default=None)
    arguments.add_argument("--against", default=None, help=argparse.SUPPRESS)  # in a process of the bench
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    if given.against is not None:
        print(np.abs(scores("openvino", given.checkpoint) - np.load(given.against)).max())
        return
    differences = []
    with tempfile.TemporaryDirectory() as folder:
        expected = Path(folder) / "expected.npy"
        np.save(expected, scores("torch", given.checkpoint))
        command = [sys.executable, __file__, "--against", expected, "--threads", str(given.threads)]
        command += ["--checkpoint", given.checkpoint] if given.checkpoint else []

        def difference(_: int) -> float:
            return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)

        with ThreadPoolExecutor(given.jobs) as jobs:
            for process, found in enumerate(jobs.map(difference, range(given.processes)), 1):
                differences.append(found)
                if not found <= TOLERANCE or process % 20 == 0:
                    print(f"process {process}: off by {found:.2g}", flush=True)
    off = sum(not each <= TOLERANCE for each in differences)
    print(
        f"{given.processes} processes, {given.threads} threads: {off} off by more than {TOLERANCE:g}; "
        f"largest difference {max(differences):.2g}"
    )


if __name__ == "__main__":
    main()
