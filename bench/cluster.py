"""What --ray costs: time beside one process on the same cores, and memory of the driver for long manifests.

    python bench/cluster.py --recordings 2000 --seconds 10 --turns 3 --manifest 1000000

Time: noise as FLAC (32 kHz), `htsat-sed detect -o` in one process with all cores, and with `--ray local` with
a worker a core, in turns; the lowest of each. "start" is a run of two recordings: imports, model, Ray.
"overhead" is that of the whole run, "without start" that of what remains if the start is taken off both.

Memory: names of a list go through the run, its journal and workers that answer at once, without decoding
or a model. Peak resident memory of the driver, torch included, and recordings a second.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 32_000


def write_recordings(folder: Path, count: int, seconds: float) -> None:
    """Noise, the same in all."""
    folder.mkdir()
    noise = 0.1 * np.random.default_rng(0).standard_normal(round(seconds * RATE))
    soundfile.write(folder / "0.flac", noise, RATE)
    data = (folder / "0.flac").read_bytes()
    for i in range(1, count):
        (folder / f"{i}.flac").write_bytes(data)


def timed(folder: Path, out: Path, *more: object) -> float:
    """Seconds of a run."""
    command = [sys.executable, "-m", "htsat_sed", "detect", folder, "-o", out, "--restart", "--quiet", *more]
    begin = time.perf_counter()
    subprocess.run([str(each) for each in command], check=True)
    return time.perf_counter() - begin


def measure_time(count: int, seconds: float, turns: int) -> None:
    """Print the time of one process and of workers."""
    cores = len(os.sched_getaffinity(0))
    ways: dict[str, tuple[object, ...]] = {
        "one process": ("--threads", cores),
        "--ray local": ("--ray", "local", "--threads", 1),
    }
    took: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_recordings(folder / "few", 2, seconds)
        write_recordings(folder / "all", count, seconds)
        for _ in range(turns):
            for way, more in ways.items():
                for which in ("few", "all"):
                    out = folder / f"{which} {way}.csv"
                    took.setdefault((way, which), []).append(timed(folder / which, out, *more))
        same = len({(folder / f"all {way}.csv").read_bytes() for way in ways}) == 1
    one, ray = (min(took[way, "all"]) for way in ways)
    start_one, start_ray = (min(took[way, "few"]) for way in ways)
    print(f"{count} recordings of {seconds:g} s, {cores} cores, {turns} turns")
    print(f"one process    {one:8.1f} s, of which start {start_one:5.1f} s")
    print(f"--ray local    {ray:8.1f} s, of which start {start_ray:5.1f} s")
    print(f"overhead       {ray / one - 1:8.1%}")
    print(f"without start  {(ray - start_ray) / (one - start_one) - 1:8.1%}")
    print(f"same bytes     {'yes' if same else 'no'}")


class _Silent:
    """Shows nothing of a run."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None

    def __enter__(self) -> object:
        return self

    def __exit__(self, *_: object) -> None: ...


def measure_memory(rows: int) -> None:
    """Print the peak memory of a driver."""
    from htsat_sed import Detector
    from htsat_sed.runs.journal import Journal
    from htsat_sed.runs.ray import RayWorkers
    from htsat_sed.runs.recordings import find_all
    from htsat_sed.runs.run import Run

    def score(_: Detector, paths: Iterable[str], **__: object) -> Iterator[tuple[str, Any]]:
        found = {"duration": 10.0, "events": [[0.312, 1.25, "Speech", 0.93]] * 3}
        return ((path, found) for path in paths)

    detector = Detector("home", device="cpu", deferred=True)  # as with --ray
    print(f"driver before the manifest: {peak():.0f} MB")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = (f"2024/{i // 1000:06d}/{i:09d}.flac\n" for i in range(rows))
        (folder / "list.txt").write_text("".join(lines))
        recordings, _ = find_all([f"@{folder / 'list.txt'}"])
        print(f"{rows} names listed: {peak():.0f} MB", flush=True)
        display: Any = _Silent()
        begin = time.perf_counter()
        workers = RayWorkers[Any]("local", detector, score)
        journal = Journal(folder / "a.journal", {})
        with workers, Run(recordings, [], display=display, journal=journal) as run:
            found = run.through(
                lambda paths, progress: workers.results(paths, progress=progress, defective=run.defective)
            )
            for recording, result in found:
                run.note(recording, result)
            rate = run.done / (time.perf_counter() - begin)
            assert run.done == rows
    print(
        f"{rows} recordings through the driver: peak {peak():.0f} MB, {rate:.0f} recordings/s, start included"
    )


def peak() -> float:
    """Peak memory of this process, MB; without that of its parent, which getrusage counts."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"^VmHWM:\s*(\d+)", status, re.MULTILINE)[1]) / 1000


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=2_000, help="0 for no times")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--manifest", type=int, default=1_000_000, help="0 for no memory")
    given = parser.parse_args()
    if given.recordings:
        measure_time(given.recordings, given.seconds, given.turns)
    if given.manifest:
        measure_memory(given.manifest)


if __name__ == "__main__":
    main()
