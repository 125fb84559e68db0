"""Counts of one class at all thresholds, exactly, for any of the other values of post-processing.

A recording of T tokens has at most T different scores a class, so that its events change at no more than T
thresholds. Counting true and false positives between those, for each recording once, gives the F1 of all
thresholds at once: the counts of a set of recordings are sums of step functions. Of boxes between change
points, thresholds change events only where they pass the score of a box.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from htsat_sed.detection.change_points import find_boxes, step_filter_tokens
from htsat_sed.detection.event_arrays import EventRules, find_event_arrays
from htsat_sed.detection.events import PostProcessing, median_filter_tokens, smooth
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.counting import COUNTERS, References, wanted
from htsat_sed.evaluation.counts import Counts, Floats
from htsat_sed.evaluation.report import Settings
from htsat_sed.evaluation.tables import Pair

MetricName = Literal["intersection", "collar", "segment"]

_CELLS = 4_000_000  # tokens x columns at a time


@dataclass(frozen=True)
class Choice:
    """Values for one class, as of `PostProcessing`; `low_share` times the threshold is the low one."""

    threshold: float = 0.5
    low_share: float = 1.0
    median_filter: float = 0.0
    min_gap: float = 0.0
    min_event: float = 0.0
    step_filter: float = 0.0
    merge_absolute: float = 0.0
    merge_relative: float = 0.0
    edge_level: float = 0.0

    @classmethod
    def of(cls, rules: PostProcessing, label: str) -> Choice:
        """The values that hold for a class."""
        own = rules.of(label)
        low = own.threshold if own.threshold_low is None else own.threshold_low
        return cls(
            threshold=own.threshold,
            low_share=low / own.threshold if own.threshold > 0.0 else 1.0,
            median_filter=own.median_filter,
            min_gap=own.min_gap,
            min_event=own.min_event,
            step_filter=own.step_filter,
            merge_absolute=own.merge_absolute,
            merge_relative=own.merge_relative,
            edge_level=own.edge_level,
        )

    def values(self) -> dict[str, float]:
        """As `PostProcessing` names them; all, so that nothing from a lower layer remains."""
        return {
            "threshold": self.threshold,
            "threshold_low": self.low_share * self.threshold,
            "median_filter": self.median_filter,
            "min_gap": self.min_gap,
            "min_event": self.min_event,
            "step_filter": self.step_filter,
            "merge_absolute": self.merge_absolute,
            "merge_relative": self.merge_relative,
            "edge_level": self.edge_level,
        }


class _Steps(NamedTuple):
    """Where the counts of recordings change with the threshold: n places, ascending.

    Attributes:
        threshold: (n,) counts hold from here to the next place of the recording.
        tp: (n,) by how much true positives change.
        fp: (n,) by how much false positives change.
        recording: (n,) of which recording.
    """

    threshold: Floats
    tp: Floats
    fp: Floats
    recording: NDArray[np.int64]


class ThresholdCurves:
    """Counts of one class as functions of the threshold, for any of the other values.

    Every pair of a recording and a threshold is a column; the events of all columns are found and counted
    together. What was computed is kept, since a search comes back to the same values.

    Args:
        events: the reference of R recordings; the estimated events play no part.
        maps: recording -> presence map; one that lacks the class has scores of 0.
        label: the class.
        metric: what counts.
        settings: its parameters.
    """

    def __init__(
        self,
        events: Pair,
        maps: Mapping[str, PresenceMap],
        label: str,
        metric: MetricName,
        settings: Settings,
    ) -> None:
        self._maps = [maps[name] for name in events.recordings]
        self._scores = [
            m.scores[:, m.labels.index(label)] if label in m.labels else np.zeros(len(m.scores), np.float32)
            for m in self._maps
        ]
        self._durations = np.array([m.duration for m in self._maps])
        spans = [[(e.onset, e.offset) for e in own if e.label == label] for own in events.reference]
        self._reference = References(
            np.array([span for own in spans for span in own]).reshape(-1, 2),
            np.array([len(own) for own in spans]),
        )
        self._count = COUNTERS[metric]
        self._settings = settings
        self._wanted = wanted(metric, self._reference, settings)
        self._smooth: dict[float, list[NDArray[np.float32]]] = {}
        self._steps: dict[Choice, _Steps] = {}

    def counts(self, choice: Choice) -> Counts:
        """(R,) counts for one choice."""
        recordings = len(self._maps)
        tp, fp = self._at(choice, np.full(recordings, choice.threshold), np.ones(recordings, np.int64))
        return Counts(tp, fp, self._wanted - tp)

    def f1(self, choice: Choice, among: NDArray[np.bool_]) -> float:
        """F1 of one choice over some of the recordings, a mask (R,); 0 where there is nothing to count."""
        counts = self.counts(choice)
        tp, fp, fn = (float(part[among].sum()) for part in (counts.tp, counts.fp, counts.fn))
        return 2.0 * tp / max(1.0, 2.0 * tp + fp + fn)

    def best_threshold(self, choice: Choice, among: NDArray[np.bool_]) -> tuple[Choice, float]:
        """The choice with the threshold that has the highest F1 over some of the recordings, and that F1.

        Between two scores that occur all thresholds are alike: the middle is taken, of the highest such
        interval among equals.
        """
        threshold, values, _ = self.steps(choice, among)
        best = len(values) - 1 - int(np.argmax(values[::-1]))
        return replace(choice, threshold=between(threshold, best)), float(values[best])

    def steps(self, choice: Choice, among: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
        """F1 and false positives as functions of the threshold, over some of the recordings.

        Returns:
            Thresholds from which on values hold, ascending from 0; F1; false positives: (n,) each.
        """
        threshold, tp, fp, recording = self._changes(choice)
        kept = among[recording]
        threshold, tp, fp = threshold[kept], np.cumsum(tp[kept]), np.cumsum(fp[kept])
        last = np.flatnonzero(np.append(np.diff(threshold) > 0.0, True))
        threshold, tp, fp = threshold[last], tp[last], fp[last]
        return threshold, 2.0 * tp / np.maximum(1.0, tp + fp + self._wanted[among].sum()), fp

    def _changes(self, choice: Choice) -> _Steps:
        """The steps of all recordings, for any threshold of the choice."""
        choice = replace(choice, threshold=0.0)
        if choice not in self._steps:
            compared = self._compared(choice)
            every = np.arange(len(compared))
            scores = np.concatenate(compared).astype(np.float64)
            owners = np.repeat(every, [len(own) for own in compared])
            lows = [scores / choice.low_share] if 0.0 < choice.low_share < 1.0 else []
            threshold = np.concatenate([np.zeros(len(every)), scores, *lows]).clip(0.0, 1.0)
            recording = np.concatenate([every, owners, *[owners] * len(lows)])
            order = np.lexsort((threshold, recording))
            threshold, recording = threshold[order], recording[order]
            new = np.append(True, (np.diff(threshold) > 0.0) | (np.diff(recording) > 0))
            threshold, recording = threshold[new], recording[new]

            first = np.append(True, np.diff(recording) > 0)
            upper = np.where(np.append(first[1:], True), 1.0, np.append(threshold[1:], 1.0))
            tp, fp = self._at(choice, (threshold + upper) / 2.0, np.bincount(recording))
            rises = [np.where(first, v, np.diff(v, prepend=0.0)) for v in (tp, fp)]
            order = np.argsort(threshold, kind="stable")
            self._steps[choice] = _Steps(*(v[order] for v in (threshold, *rises, recording)))
        return self._steps[choice]

    def _smoothed(self, choice: Choice) -> list[NDArray[np.float32]]:
        """Scores of each recording after the median filter."""
        if choice.median_filter not in self._smooth:
            self._smooth[choice.median_filter] = [
                smooth(s[:, None], widths=[median_filter_tokens(choice.median_filter, m.token_seconds)])[:, 0]
                if len(s)
                else s
                for s, m in zip(self._scores, self._maps, strict=True)
            ]
        return self._smooth[choice.median_filter]

    def _compared(self, choice: Choice) -> list[NDArray[np.float32]]:
        """What thresholds are compared with, of each recording: scores of tokens, or of boxes."""
        smoothed = self._smoothed(choice)
        if not choice.step_filter:
            return smoothed
        scores = [np.zeros(0, np.float32)] * len(smoothed)
        for step, some in self._alike(smoothed, np.ones(len(smoothed), np.int64)):
            rules = _rules(choice, np.zeros(len(some)), step)
            boxes = find_boxes(
                np.stack([smoothed[i] for i in some], axis=1),
                sides=rules.sides,
                merge_absolute=rules.merge_absolute,
                merge_relative=rules.merge_relative,
            )
            for k, i in enumerate(some):
                scores[i] = boxes.score[boxes.column == k]
        return scores

    def _at(self, choice: Choice, thresholds: Floats, numbers: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Counts of each recording at each of its thresholds.

        Args:
            choice: the other values.
            thresholds: (n,), recording after recording.
            numbers: (R,) thresholds of each recording.

        Returns:
            True and false positives, (n,) each.
        """
        smoothed = self._smoothed(choice)
        first = np.append(0, np.cumsum(numbers))
        tp, fp = np.zeros(first[-1]), np.zeros(first[-1])
        for step, some in self._alike(smoothed, numbers):
            recording = np.repeat(some, numbers[some])
            place = np.concatenate([np.arange(first[i], first[i + 1]) for i in some])
            spans = find_event_arrays(
                np.repeat(np.stack([smoothed[i] for i in some], axis=1), numbers[some], axis=1),
                _rules(choice, thresholds[place], step),
                token_seconds=step,
                duration=self._durations[recording],
            )
            tp[place], fp[place] = self._count(spans, recording, self._reference, self._settings)
        return tp, fp

    def _alike(
        self, smoothed: Sequence[NDArray[np.float32]], numbers: NDArray[np.int64]
    ) -> Iterator[tuple[float, list[int]]]:
        """Recordings with as many tokens of one duration, as many as memory allows, with that duration."""
        shapes = [(len(s), m.token_seconds) for s, m in zip(smoothed, self._maps, strict=True)]
        for tokens, step in sorted(set(shapes)):
            group = [i for i, shape in enumerate(shapes) if shape == (tokens, step)]
            size = max(1, _CELLS // max(1, tokens * int(numbers[group].max())))
            for k in range(0, len(group) if tokens else 0, size):
                yield step, group[k : k + size]


def between(thresholds: Floats, place: int) -> float:
    """A threshold between one that occurs and the next, or 1."""
    lower, upper = float(thresholds[place]), float(np.append(thresholds, 1.0)[place + 1])
    middle = (lower + upper) / 2.0
    # Between neighbouring float32 there is no middle; the threshold is exclusive.
    return middle if np.float32(middle) < upper else lower


def _rules(choice: Choice, thresholds: Floats, token_seconds: float) -> EventRules:
    """One choice with many thresholds."""
    sides = step_filter_tokens(choice.step_filter, token_seconds) if choice.step_filter else 0

    def every(value: float) -> Floats:
        return np.full(len(thresholds), value)

    return EventRules(
        high=thresholds,
        low=choice.low_share * thresholds,
        min_gap=every(choice.min_gap),
        min_event=every(choice.min_event),
        sides=np.full(len(thresholds), sides),
        merge_absolute=every(choice.merge_absolute),
        merge_relative=every(choice.merge_relative),
        edge_level=every(choice.edge_level),
    )
