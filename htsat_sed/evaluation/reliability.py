"""Reliability: how often events with a given score are right.

An event is right if at least a fraction `dtc` of it lies in reference events of its class, as for the
intersection-based precision. Events in negatives are wrong, or ignored if their class may occur there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from htsat_sed.annotations.negatives import Negative
from htsat_sed.detection.events import Event
from htsat_sed.evaluation.bootstrap import Resampling
from htsat_sed.evaluation.counts import Floats
from htsat_sed.evaluation.report import Metric, Settings
from htsat_sed.evaluation.tables import Pair

BINS = 10


class Outcome(NamedTuple):
    """The score of an event or of a class in a clip, and whether it is right."""

    score: float
    right: bool
    label: str


Outcomes = Sequence[Sequence[Outcome]]


def outcomes_of_pair(events: Pair, *, dtc: float) -> list[list[Outcome]]:
    """Score of each estimated event, and whether it is right, by recording.

    Args:
        events: reference and estimated events, those of one class in one recording disjoint.
        dtc: minimum fraction of an event in reference events of its class.
    """
    found: list[list[Outcome]] = []
    for reference, estimated in zip(events.reference, events.estimated, strict=True):
        found.append([])
        for event in estimated:
            inside = sum(
                max(0.0, min(event.offset, other.offset) - max(event.onset, other.onset))
                for other in reference
                if other.label == event.label
            )
            part = inside / (event.offset - event.onset)
            found[-1].append(Outcome(event.score, part >= dtc and part > 0.0, event.label))
    return found


def outcomes_of_negatives(
    estimated: Mapping[str, Sequence[Event]],
    negatives: Mapping[str, Negative],
    labels: Sequence[str],
) -> list[list[Outcome]]:
    """Score of each false alarm, by recording; see `false_alarms`."""
    found: list[list[Outcome]] = []
    for name, events in sorted(estimated.items()):
        own = negatives.get(name, Negative(frozenset()))
        silent = set(labels) - own.possible - own.present
        found.append([Outcome(e.score, False, e.label) for e in events if e.label in silent])
    return found


def score_reliability(outcomes: Outcomes, settings: Settings) -> Metric:
    """Share of right events in ten intervals of the score, and the calibration error of scores.

    Args:
        outcomes: score of each event, and whether it is right, by recording.
        settings: bootstrap and seed.
    """
    shape = len(outcomes), BINS
    number, right, total = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for i, own in enumerate(outcomes):
        for score, good, _ in own:
            k = min(int(score * BINS), BINS - 1)
            number[i, k] += 1.0
            right[i, k] += good
            total[i, k] += score
    draws = Resampling.of(len(outcomes), settings)
    error = _error(*(draws.weights @ each for each in (number, right, total)))
    sums = [each.sum(axis=0, keepdims=True) for each in (number, right, total)]
    classes: dict[str, dict[str, float | None]] = {}
    for k in range(BINS):
        events, hits, scores = (float(each[0, k]) for each in sums)
        if events:
            name = f"{k / BINS:.1f} to {(k + 1) / BINS:.1f}"
            classes[name] = {"events": events, "mean_score": scores / events, "right_share": hits / events}
    return Metric(
        "reliability_by_score",
        f"reliability: share of events that are right, by score (DTC {settings.dtc:g})",
        {"dtc": settings.dtc, "bins": BINS},
        {"calibration_error": draws.score(error)},
        classes,
    )


def _error(number: Floats, right: Floats, total: Floats) -> Floats:
    """Mean difference of score and share of right events over events, (S, BINS) to (S,)."""
    with np.errstate(invalid="ignore"):
        error: Floats = np.abs(right - total).sum(axis=1) / number.sum(axis=1)
    return error
