"""How long an evaluation takes, metric by metric, on DESED's public evaluation set (692 recordings).

python bench/evaluate.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from htsat_sed.annotations import read_events
from htsat_sed.evaluation.intersection import intersection_counts
from htsat_sed.evaluation.report import Settings, evaluate_events
from htsat_sed.evaluation.sed_eval_counts import collar_counts, segment_counts
from htsat_sed.evaluation.tables import pair

FOLDER = Path(__file__).parents[1] / "tests" / "data" / "desed_public_eval"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--repeats", type=int, default=5)
    repeats = arguments.parse_args().repeats
    logging.getLogger("htsat_sed").addHandler(logging.NullHandler())
    reference, estimated = (read_events(FOLDER / name) for name in ("reference.tsv", "htsat_single.tsv"))
    events = pair(reference, estimated)
    steps: dict[str, Callable[[], object]] = {
        "read and pair": lambda: pair(
            read_events(FOLDER / "reference.tsv"), read_events(FOLDER / "htsat_single.tsv")
        ),
        "intersection": lambda: intersection_counts(events),
        "collar": lambda: collar_counts(events),
        "segment": lambda: segment_counts(events),
        "all, no bootstrap": lambda: evaluate_events(events, Settings()),
        "all, bootstrap 1000": lambda: evaluate_events(events, Settings(bootstrap=1000)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    print(f"{len(events.recordings)} recordings, medians of {repeats} turns")
    for name, values in seconds.items():
        print(f"{name:20s} {statistics.median(values):.2f} s")


if __name__ == "__main__":
    main()
