"""Search among made-up stretches, and whether another clip of the same source is found first.

    python bench/search.py [--stretches 1000000] [--clips FOLDER TABLE]

The table has the columns filename and source, separated by tabs; the folder holds the clips.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from htsat_sed.archive.nearest import Query, open_prepared, search
from htsat_sed.archive.store import Archive, Embedded, Kind
from htsat_sed.detection.detector import Detector

DIMENSIONS = 384


def made_up(stretches: int) -> None:
    rng = np.random.default_rng(0)
    kind = Kind(model="0" * 16, checkpoints=("home",), window=2.5, hop=2.5, dimensions=DIMENSIONS)
    each = 10_000
    starts = [2.5 * i for i in range(each)]
    ends = [start + 2.5 for start in starts]
    with tempfile.TemporaryDirectory() as folder:
        recordings = (
            Embedded(
                f"{i}.wav",
                f"/{i}.wav",
                (1, 1),
                starts,
                ends,
                rng.standard_normal((each, DIMENSIONS), np.float32).astype(np.float16),
            )
            for i in range(stretches // each)
        )
        Archive(folder).add(kind, recordings)
        begun = time.perf_counter()
        open_prepared(Archive(folder))
        print(f"prepared once      {time.perf_counter() - begun:6.2f} s for {stretches} stretches")
        for turn in range(3):
            begun, cpu = time.perf_counter(), time.process_time()
            archive = Archive(folder)
            prepared, index = open_prepared(archive), archive.index()
            opened, opened_cpu = time.perf_counter() - begun, time.process_time() - cpu
            begun, cpu = time.perf_counter(), time.process_time()
            search(prepared, index, [Query(rng.standard_normal(DIMENSIONS, np.float32), "", 0, 0)], count=20)
            found, found_cpu = time.perf_counter() - begun, time.process_time() - cpu
            print(
                f"turn {turn + 1}: opened in {opened:.2f} s ({opened_cpu:.2f} s of processor time), "
                f"searched in {found:.2f} s ({found_cpu:.2f} s)"
            )


def same_source(folder: Path, table: Path) -> None:
    with table.open(encoding="utf-8") as file:
        source = {row["filename"]: row["source"] for row in csv.DictReader(file, delimiter="\t")}
    detector = Detector("home", fill_batches=True)
    kind = Kind(model="0" * 16, checkpoints=("home",), window=2.5, hop=2.5, dimensions=DIMENSIONS)
    clips: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as place:
        archived: list[Embedded] = []
        for path, found in detector.all_embeddings([folder / name for name in source], window=2.5):
            if isinstance(found, Exception):
                raise found
            name = Path(path).name
            vectors = found.vectors.astype(np.float16)
            archived.append(
                Embedded(name, f"/{name}", (1, 1), found.starts.tolist(), found.ends.tolist(), vectors)
            )
            clips[name] = found.vectors.mean(axis=0)
        Archive(place).add(kind, archived)
        archive = Archive(place)
        prepared, index = open_prepared(archive), archive.index()
        count = Counter(source.values())
        ranks: list[int] = []
        for name, vector in clips.items():
            if count[source[name]] < 2:
                continue
            query = Query(vector, f"/{name}", 0.0, float("inf"))
            hits = search(prepared, index, [query], count=len(clips), per_recording=1)
            same = (source[index.filenames[hit.recording]] == source[name] for hit in hits)
            ranks.append(next(rank for rank, is_same in enumerate(same, 1) if is_same))
    reciprocal = float(np.mean(1.0 / np.array(ranks)))
    first = float(np.mean(np.array(ranks) == 1))
    print(
        f"another clip of the source among {len(clips)} clips, {len(ranks)} queries: mean reciprocal rank "
        f"{reciprocal:.3f}, first in {first:.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stretches", type=int, default=1_000_000)
    parser.add_argument("--clips", nargs=2, type=Path, metavar=("FOLDER", "TABLE"))
    arguments = parser.parse_args()
    if arguments.clips:
        same_source(*arguments.clips)
    made_up(arguments.stretches)


if __name__ == "__main__":
    main()
