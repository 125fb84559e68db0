"""How long an evaluation takes, metric by metric, on DESED's public evaluation set (692 recordings).

Presence maps are made up: noise, and more where reference events are. CPU time stands beside the time on the
clock, which other work on the machine lengthens.

    python bench/evaluate.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from htsat_sed.annotations import read_durations, read_events
from htsat_sed.detection.events import PostProcessing
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.counting import collar_counts, intersection_counts, segment_counts
from htsat_sed.evaluation.evaluate import evaluate_strong, score_events, score_psds
from htsat_sed.evaluation.psds import detections
from htsat_sed.evaluation.report import Settings
from htsat_sed.evaluation.tables import Pair, pair

FOLDER = Path(__file__).parents[1] / "tests" / "data" / "desed_public_eval"


def made_up(events: Pair, durations: dict[str, float]) -> dict[str, PresenceMap]:
    """Presence maps that a fair detector could have made."""
    rng = np.random.default_rng(0)
    step, maps = 0.3125, {}
    for name, own in zip(events.recordings, events.reference, strict=True):
        noise = rng.normal(-2.5, 1.0, (int(np.ceil(durations[name] / step)), len(events.labels)))
        logits = (noise + np.roll(noise, 1, axis=0)) / np.sqrt(2.0)
        for event in own:
            first, last = int(event.onset / step), int(np.ceil(event.offset / step))
            logits[first:last, events.labels.index(event.label)] += 2.5
        scores = (1.0 / (1.0 + np.exp(-logits))).astype(np.float32)
        maps[name] = PresenceMap(scores, events.labels, step, durations[name])
    return maps


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--repeats", type=int, default=5)
    repeats = arguments.parse_args().repeats
    logging.getLogger("htsat_sed").addHandler(logging.NullHandler())
    reference, estimated = (read_events(FOLDER / name) for name in ("reference.tsv", "htsat_single.tsv"))
    durations = read_durations(FOLDER / "durations.tsv")
    events = pair(reference, estimated, durations=durations)
    maps = made_up(events, durations)
    steps: dict[str, Callable[[], object]] = {
        "read and pair": lambda: pair(
            read_events(FOLDER / "reference.tsv"), read_events(FOLDER / "htsat_single.tsv")
        ),
        "intersection": lambda: intersection_counts(events),
        "collar": lambda: collar_counts(events),
        "segment": lambda: segment_counts(events),
        "all F1, no bootstrap": lambda: score_events(events, Settings()),
        "PSDS 1 and 2, exact": lambda: score_psds(events, maps, Settings(), PostProcessing()),
        "the same, 50 thresholds": lambda: score_psds(
            events, maps, Settings(psds_thresholds=50), PostProcessing()
        ),
        "all, no maps": lambda: evaluate_strong(reference, estimated),
        "all, no bootstrap": lambda: evaluate_strong(reference, estimated, maps=maps),
        "all, and details": lambda: evaluate_strong(reference, estimated, maps=maps, details=True),
        "all, bootstrap 1000": lambda: evaluate_strong(
            reference, estimated, maps=maps, settings=Settings(bootstrap=1000)
        ),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            start, cpu = time.perf_counter(), time.process_time()
            step()
            seconds[name].append((time.perf_counter() - start, time.process_time() - cpu))
    print(f"{len(events.recordings)} recordings, medians of {repeats} turns")
    print(f"{len(detections(events, maps).onset)} different detections at all thresholds")
    for name, values in seconds.items():
        clock, cpu = (statistics.median(each) for each in zip(*values, strict=True))
        print(f"{name:24s} {clock:6.2f} s on the clock, {cpu:5.2f} s CPU")


if __name__ == "__main__":
    main()
