"""How long tuning takes: 10 classes, 692 recordings (DESED's public evaluation set), five folds, one thread.

Presence maps are made up as in evaluate.py. CPU time stands beside the time on the clock, which other work on
the machine lengthens.

    python bench/tune.py [--metric collar] [--method both]
"""

from __future__ import annotations

import argparse
import logging
import time

from evaluate import FOLDER, made_up

from htsat_sed.annotations import read_durations, read_events
from htsat_sed.evaluation.tables import pair
from htsat_sed.evaluation.tuning import tune


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--metric", action="append", choices=("intersection", "collar", "segment"))
    arguments.add_argument("--method", action="append", choices=("threshold", "change-points", "both"))
    given = arguments.parse_args()
    logging.getLogger("htsat_sed").addHandler(logging.NullHandler())
    durations = read_durations(FOLDER / "durations.tsv")
    events = pair(read_events(FOLDER / "reference.tsv"), {}, durations=durations)
    maps = made_up(events, durations)
    print(f"{len(events.recordings)} recordings, {len(events.labels)} classes")
    for metric in given.metric or ["intersection"]:
        for method in given.method or ["threshold"]:
            start, cpu = time.perf_counter(), time.process_time()
            macro = tune(events, maps, metric=metric, method=method).macro()
            took = f"{time.perf_counter() - start:6.1f} s ({time.process_time() - cpu:.1f} s CPU)"
            figures = ", ".join(f"{name.replace('_', ' ')} {v:.4f}" for name, v in macro._asdict().items())
            print(f"{metric:12s} {method:13s} {took}   macro F1 {figures}", flush=True)


if __name__ == "__main__":
    main()
