"""How much memory `htsat-sed detect` takes, by length of the recording.

Writes a WAV (RF64, 44.1 kHz, 16 bits, mono) of digital silence for each length, as a sparse file that takes
hardly any room on the disk, with noise in it for 10 s of each of the first ten minutes and of every ten
minutes after; detects events in it, presence maps kept with --scores; and prints the peak resident memory of
that process as the system tells it.

    python bench/memory.py [--checkpoint FILE] [--minutes 10 60 1440] [--rate 44100]
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import tempfile
import time
from itertools import chain, takewhile
from pathlib import Path

import numpy as np

NOISE_SECONDS = 10
# Often enough at first that whole batches pass the model in the shortest recording too.
OFTEN = range(0, 600, 60)
SELDOM = range(600, 10**9, 600)


def write_sparse(path: Path, seconds: int, rate: int) -> None:
    """Write silence with stretches of noise; what is silent is a hole in the file."""
    rng = np.random.default_rng(0)
    noise = (3000 * rng.standard_normal(NOISE_SECONDS * rate)).clip(-32768, 32767).astype("<i2").tobytes()
    size = 2 * rate * seconds
    header = struct.pack(
        "<4sI4s4sIQQQI", b"RF64", 0xFFFFFFFF, b"WAVE", b"ds64", 28, size + 72, size, size // 2, 0
    )
    header += struct.pack("<4sIHHIIHH4sI", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", 0xFFFFFFFF)
    with path.open("wb") as file:
        file.write(header)
        for start in takewhile(lambda start: start < seconds, chain(OFTEN, SELDOM)):
            file.seek(len(header) + 2 * rate * start)
            file.write(noise)
        file.truncate(len(header) + size)


def peak(arguments: list[str]) -> tuple[float, float]:
    """MiB that a command held at most, and the seconds that it took."""
    start = time.perf_counter()
    command = [sys.executable, "-c", "from htsat_sed.cli import main; main()", *arguments]
    process = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"htsat-sed {' '.join(arguments)} failed")
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_maxrss * unit / 2**20, time.perf_counter() - start


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--checkpoint", help="instead of the bundled one")
    arguments.add_argument("--minutes", type=int, nargs="+", default=[10, 60, 1440])
    arguments.add_argument("--rate", type=int, default=44_100)
    given = arguments.parse_args()

    first: float | None = None
    print(f"{'minutes':>8}  {'peak MiB':>8}  {'of the first':>12}  {'seconds':>8}")
    for minutes in given.minutes:
        with tempfile.TemporaryDirectory() as folder:
            recording = Path(folder) / "recording.wav"
            write_sparse(recording, 60 * minutes, given.rate)
            detect = ["detect", str(recording), "-o", f"{folder}/events.tsv", "--scores", f"{folder}/scores"]
            if given.checkpoint:
                detect += ["--checkpoint", given.checkpoint]
            held, seconds = peak(detect)
        first = held if first is None else first
        print(f"{minutes:8d}  {held:8.0f}  {held / first:12.3f}  {seconds:8.1f}", flush=True)


if __name__ == "__main__":
    main()
