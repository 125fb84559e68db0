"""What a run over an archive costs beside decoding and the model: lists, shards, journals, merging.

    python bench/scale.py --recordings 10000 100000 1000000 --shards 40

Nothing is decoded and no model runs. Sizes of recordings are drawn from a log-normal distribution, and each
recording has three events. Each number of recordings has a process of its own, and so its own peak memory.
All columns grow with the number of recordings, dividing with n log n: more follow by proportion.

Columns: recordings; seconds and peak MB to divide them into shards, sizes known; seconds to ask the disk for
the sizes (of 2 000 files here); MB of the file of one shard; seconds to read the journal of one shard when it
goes on; seconds to read all shards side by side, as merge does; peak MB of all this.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

EVENTS = 3
STATS = 2_000  # files that are asked for their size


def measure(number: int, shards: int) -> dict[str, float]:
    """All figures for so many recordings."""
    from htsat_sed.runs import shards as module
    from htsat_sed.runs.journal import Journal, Stamp, stamp
    from htsat_sed.runs.recordings import Recording
    from htsat_sed.runs.shards import Done, Header, Shard, ShardFile, merged, part_of, write_shard

    rng = random.Random(1)
    figures: dict[str, float] = {"recordings": number}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(STATS):
            (folder / str(i)).touch()
        begin = time.perf_counter()
        for i in range(STATS):
            stamp(folder / str(i))
        figures["sizes_s"] = (time.perf_counter() - begin) * number / STATS

        sizes = [int(rng.lognormvariate(14, 1)) for _ in range(number)]

        def known(path: object) -> Stamp:
            return Stamp(sizes[int(str(path)[-14:-5])], 0)

        module.stamp = known  # type: ignore[assignment]
        recordings = [
            Recording(f"/archive/2024/{i // 1000:06d}/{i:09d}.flac", f"2024/{i // 1000:06d}/{i:09d}.flac")
            for i in range(number)
        ]
        begin = time.perf_counter()
        part = part_of(recordings, Shard(1, shards))
        figures["divide_s"] = time.perf_counter() - begin
        figures["divide_mb"] = peak()

        result = {"duration": 10.0, "events": [[0.312, 1.25, "Speech", 0.93]] * EVENTS}
        paths = [folder / f"{i}.shard" for i in range(shards)]
        for i, path in enumerate(paths):  # dealt out in turn: the order does not matter here
            header = Header(Shard(i + 1, shards), number, part.names_sha256, {}, {}, [])
            own = (
                Done(place, recordings[place].name, stamp=Stamp(1, 2), result=result)
                for place in range(i, number, shards)
            )
            write_shard(path, header, own)
        figures["shard_mb"] = paths[0].stat().st_size / 1e6

        with Journal(folder / "a.journal", {}) as journal:
            for place in range(0, number, shards):
                journal.add(recordings[place].name, Stamp(1, 2), result)
        begin = time.perf_counter()
        Journal(folder / "a.journal", {}).close()
        figures["resume_s"] = time.perf_counter() - begin

        recordings.clear()
        sizes.clear()
        begin = time.perf_counter()
        with ExitStack() as stack:
            count = sum(1 for _ in merged([ShardFile(path, stack) for path in paths]))
        assert count == number
        figures["merge_s"] = time.perf_counter() - begin
        figures["peak_mb"] = peak()
    return figures


def peak() -> float:
    """Peak memory of this process, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.shards)))
        return
    columns = ("recordings", "divide_s", "divide_mb", "sizes_s", "shard_mb", "resume_s", "merge_s", "peak_mb")
    print("".join(f"{column:>12}" for column in columns))
    for number in given.recordings:
        command = [sys.executable, __file__, "--one", str(number), "--shards", str(given.shards)]
        figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print("".join(f"{figures[column]:>12.1f}" for column in columns), flush=True)


if __name__ == "__main__":
    main()
