"""Exact counts of one class at all thresholds, for any other values of post-processing.

The events of a recording change at few thresholds (`class_scores`). True and false positives are counted once
per recording between these. The counts of a set of recordings are then sums of step functions, which yield
the F1 of all thresholds at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.class_scores import Choice, ClassScores, Thresholds, middles
from htsat_sed.evaluation.counting import COUNTERS, References, wanted
from htsat_sed.evaluation.counts import Counts, Floats
from htsat_sed.evaluation.report import Settings
from htsat_sed.evaluation.tables import Pair

MetricName = Literal["intersection", "collar", "segment"]


class _Steps(NamedTuple):
    """Changes of counts with the threshold, in ascending order.

    Attributes:
        threshold: (n,) counts are constant up to the next threshold of the recording.
        tp: (n,) change of true positives.
        fp: (n,) change of false positives.
        recording: (n,) index of the recording.
    """

    threshold: Floats
    tp: Floats
    fp: Floats
    recording: NDArray[np.int64]


class ThresholdCurves:
    """Counts of one class as functions of the threshold, for any of the other values.

    Each pair of a recording and a threshold is a column; the events of all columns are found and counted
    together. Results are cached, since a search revisits values.

    Args:
        events: the reference of R recordings; estimated events are not used.
        maps: recording -> presence map; scores are 0 where it lacks the class.
        label: the class.
        metric: counts to use.
        settings: parameters of the metric.
    """

    def __init__(
        self,
        events: Pair,
        maps: Mapping[str, PresenceMap],
        label: str,
        metric: MetricName,
        settings: Settings,
    ) -> None:
        self._scores = ClassScores(events.recordings, maps, label)
        spans = [[(e.onset, e.offset) for e in own if e.label == label] for own in events.reference]
        self._reference = References(
            np.array([span for own in spans for span in own]).reshape(-1, 2),
            np.array([len(own) for own in spans]),
        )
        self._count = COUNTERS[metric]
        self._settings = settings
        self._wanted = wanted(metric, self._reference, settings)
        self._steps: dict[Choice, _Steps] = {}

    def counts(self, choice: Choice) -> Counts:
        """Counts (R,) for one choice."""
        recordings = len(self._scores)
        one = Thresholds(np.full(recordings, choice.threshold), np.ones(recordings, np.int64))
        tp, fp = self._at(choice, one)
        return Counts(tp, fp, self._wanted - tp)

    def f1(self, choice: Choice, among: NDArray[np.bool_]) -> float:
        """F1 of one choice over the recordings of a mask (R,); 0 without counts."""
        counts = self.counts(choice)
        tp, fp, fn = (float(part[among].sum()) for part in (counts.tp, counts.fp, counts.fn))
        return 2.0 * tp / max(1.0, 2.0 * tp + fp + fn)

    def best_threshold(self, choice: Choice, among: NDArray[np.bool_]) -> tuple[Choice, float]:
        """The choice with the threshold of the highest F1 over some of the recordings, and this F1.

        All thresholds between two adjacent scores are equivalent. The middle of the interval is returned, and
        of equal intervals the highest.
        """
        threshold, values, _ = self.steps(choice, among)
        best = len(values) - 1 - int(np.argmax(values[::-1]))
        return replace(choice, threshold=between(threshold, best)), float(values[best])

    def steps(self, choice: Choice, among: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
        """F1 and false positives as functions of the threshold, over some of the recordings.

        Returns:
            Lower ends of the intervals of thresholds, ascending from 0; F1; false positives: (n,) each.
        """
        threshold, tp, fp, recording = self._changes(choice)
        kept = among[recording]
        threshold, tp, fp = threshold[kept], np.cumsum(tp[kept]), np.cumsum(fp[kept])
        last = np.flatnonzero(np.append(np.diff(threshold) > 0.0, True))
        threshold, tp, fp = threshold[last], tp[last], fp[last]
        return threshold, 2.0 * tp / np.maximum(1.0, tp + fp + self._wanted[among].sum()), fp

    def _changes(self, choice: Choice) -> _Steps:
        """The steps of all recordings; the threshold of the choice is ignored."""
        choice = replace(choice, threshold=0.0)
        if choice not in self._steps:
            at = self._scores.thresholds(choice)
            threshold, recording = at.value, at.recording
            first = np.append(True, np.diff(recording) > 0)
            upper = np.minimum(at.next, 1.0)
            tp, fp = self._at(choice, at._replace(value=(threshold + upper) / 2.0))
            rises = [np.where(first, v, np.diff(v, prepend=0.0)) for v in (tp, fp)]
            order = np.argsort(threshold, kind="stable")
            self._steps[choice] = _Steps(*(v[order] for v in (threshold, *rises, recording)))
        return self._steps[choice]

    def _at(self, choice: Choice, at: Thresholds) -> tuple[Floats, Floats]:
        """True and false positives at every threshold, (n,) each."""
        recording = at.recording
        tp, fp = np.zeros(len(recording)), np.zeros(len(recording))
        for place, spans in self._scores.spans(choice, at):
            tp[place], fp[place] = self._count(spans, recording[place], self._reference, self._settings)
        return tp, fp


def between(thresholds: Floats, place: int) -> float:
    """A threshold between the one at an index and the next, or 1."""
    lower, upper = thresholds[place : place + 1], np.append(thresholds, 1.0)[place + 1 : place + 2]
    return float(middles(lower, upper)[0])
