"""False alarms in negatives: recordings without the classes.

An event in a negative is a false alarm unless the table of negatives lists its class as possible or present.
Rates are per hour of recording. Rate and share of time of a class exclude the recordings in which it may
occur. The overall rate counts the false alarms of all classes, the overall share of time the seconds that at
least one of them covers; both refer to all recordings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from htsat_sed.annotations.negatives import Negative
from htsat_sed.detection.events import Event
from htsat_sed.errors import UsageError, counted
from htsat_sed.evaluation.bootstrap import Resampling
from htsat_sed.evaluation.counts import Floats, ratio
from htsat_sed.evaluation.report import Metric, Settings

HOUR = 3600.0
MOST = 20


@dataclass(frozen=True, eq=False)
class FalseAlarms:
    """False alarms by recording and class.

    Attributes:
        recordings: R names.
        labels: K classes.
        durations: (R,) seconds.
        counted: (R, K) bool, whether events of the class are false alarms in the recording.
        events: (R, K) number of false alarms.
        seconds: (R, K) seconds of false alarms.
        covered: (R,) seconds with at least one false alarm.
    """

    recordings: tuple[str, ...]
    labels: tuple[str, ...]
    durations: Floats
    counted: NDArray[np.bool_]
    events: Floats
    seconds: Floats
    covered: Floats

    def overall(self, weights: Floats | None = None) -> tuple[Floats, Floats]:
        """False alarms per hour and their share of time, (S,) each for (S, R) weights, by default 1."""
        weights = np.ones((1, len(self.recordings))) if weights is None else weights
        seconds = weights @ self.durations
        return HOUR * ratio(weights @ self.events.sum(axis=1), seconds), ratio(
            weights @ self.covered, seconds
        )

    def by_class(self) -> tuple[Floats, Floats]:
        """False alarms per hour and their share of time for each class, (K,); NaN without recordings."""
        seconds = self.durations @ self.counted
        return HOUR * ratio(self.events.sum(axis=0), seconds), ratio(self.seconds.sum(axis=0), seconds)

    def of(self, kept: NDArray[np.bool_]) -> FalseAlarms:
        """False alarms of the recordings selected by a mask (R,)."""
        return FalseAlarms(
            tuple(name for name, keep in zip(self.recordings, kept, strict=True) if keep),
            self.labels,
            self.durations[kept],
            self.counted[kept],
            self.events[kept],
            self.seconds[kept],
            self.covered[kept],
        )


def count_false_alarms(
    estimated: Mapping[str, Sequence[Event]],
    durations: Mapping[str, float],
    negatives: Mapping[str, Negative],
    labels: Sequence[str],
) -> FalseAlarms:
    """Count false alarms.

    Args:
        estimated: recording -> events; those of other classes are ignored.
        durations: recording -> seconds, for the same recordings.
        negatives: classes that may occur in them; a recording not in it contains no class.
        labels: classes.

    Raises:
        UsageError: there are no recordings.
    """
    if not estimated:
        raise UsageError("wanted at least one negative, got none")
    names, column = tuple(sorted(estimated)), {label: k for k, label in enumerate(labels)}
    shape = len(names), len(labels)
    counted, events, seconds = np.ones(shape, bool), np.zeros(shape), np.zeros(shape)
    covered = np.zeros(len(names))
    for i, name in enumerate(names):
        if name in negatives:
            sounding = negatives[name].possible | negatives[name].present
            counted[i] = [label not in sounding for label in labels]
        false = [e for e in estimated[name] if e.label in column and counted[i, column[e.label]]]
        for event in false:
            events[i, column[event.label]] += 1.0
            seconds[i, column[event.label]] += event.offset - event.onset
        covered[i] = covered_seconds(false)
    lengths = np.array([durations[name] for name in names])
    return FalseAlarms(names, tuple(labels), lengths, counted, events, seconds, covered)


def covered_seconds(events: Sequence[Event]) -> float:
    """Seconds covered by at least one event."""
    total, end = 0.0, 0.0
    for event in sorted(events):
        total += max(0.0, event.offset - max(end, event.onset))
        end = max(end, event.offset)
    return total


def score_false_alarms(
    estimated: Mapping[str, Sequence[Event]],
    durations: Mapping[str, float],
    negatives: Mapping[str, Negative],
    labels: Sequence[str],
    settings: Settings,
) -> list[Metric]:
    """False alarms by class, kind of recording and recording; and the found share of present classes.

    Args:
        estimated: recording -> events.
        durations: recording -> seconds, for the same recordings.
        negatives: classes that may occur in them.
        labels: classes of the detector.
        settings: bootstrap and seed.

    Raises:
        UsageError: there are no recordings.
    """
    found = count_false_alarms(estimated, durations, negatives, labels)
    metrics = [_metric("false_alarms", "false alarms", found, settings, _by_class(found))]
    kinds = [negatives[name].kind if name in negatives else "" for name in found.recordings]
    if any(kinds):
        parts = {kind: found.of(np.array(kinds) == kind) for kind in sorted(set(kinds))}
        by_kind = {kind or "other": _figures(part) for kind, part in parts.items()}
        metrics.append(Metric("false_alarms_by_kind", "false alarms by kind of recording", {}, {}, by_kind))
    if found.events.any():
        metrics.append(_most(found))
    present = {name: negatives[name].present for name in found.recordings if name in negatives}
    if any(present.values()):
        metrics.append(_found(estimated, durations, present))
    return metrics


def _metric(
    name: str,
    title: str,
    found: FalseAlarms,
    settings: Settings,
    classes: Mapping[str, Mapping[str, float | None]],
) -> Metric:
    hours = float(found.durations.sum() / HOUR)
    draws = Resampling.of(len(found.recordings), settings)
    figures = zip(("per_hour", "time"), found.overall(draws.weights), strict=True)
    headline = {key: draws.score(values) for key, values in figures}
    title = f"{title} in {counted(len(found.recordings), 'negative')}, {hours:.2f} h"
    return Metric(name, title, {"recordings": len(found.recordings), "hours": hours}, headline, classes)


def _by_class(found: FalseAlarms) -> dict[str, dict[str, float | None]]:
    rates, shares = found.by_class()
    return {
        label: {
            "false_alarms": float(found.events[:, k].sum()),
            "per_hour": float(rates[k]) if np.isfinite(rates[k]) else None,
            "time": float(shares[k]) if np.isfinite(shares[k]) else None,
        }
        for k, label in enumerate(found.labels)
    }


def _figures(found: FalseAlarms) -> dict[str, float | None]:
    (rate,), (share,) = found.overall()
    return {
        "recordings": float(len(found.recordings)),
        "seconds": float(found.durations.sum()),
        "false_alarms": float(found.events.sum()),
        "per_hour": float(rate),
        "time": float(share),
    }


def _most(found: FalseAlarms) -> Metric:
    """The recordings with the most seconds of false alarms."""
    order = np.lexsort((np.arange(len(found.covered)), -found.covered))[:MOST]
    classes = {
        found.recordings[i]: {
            "seconds": float(found.covered[i]),
            "false_alarms": float(found.events[i].sum()),
            "time": float(found.covered[i] / found.durations[i]),
        }
        for i in order
        if found.events[i].any()
    }
    title = f"negatives with the most seconds of false alarms, at most {MOST}"
    return Metric("false_alarms_by_recording", title, {}, {}, classes)


def _found(
    estimated: Mapping[str, Sequence[Event]],
    durations: Mapping[str, float],
    present: Mapping[str, frozenset[str]],
) -> Metric:
    """Found share of time of classes that sound throughout a negative."""
    classes: dict[str, dict[str, float | None]] = {}
    for label in sorted(set().union(*present.values())):
        names = [name for name, own in present.items() if label in own]
        there = sum(durations[name] for name in names)
        hit = sum(covered_seconds([e for e in estimated[name] if e.label == label]) for name in names)
        classes[label] = {"recordings": float(len(names)), "seconds": there, "found_time": hit / there}
    title = "classes that sound throughout a negative: found share of their time"
    return Metric("present", title, {}, {}, classes)
