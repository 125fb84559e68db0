"""Scores of one class in many recordings, and its events at any thresholds.

A recording of T tokens has at most T different scores a class, so that its events change at no more than T
thresholds. Of boxes between change points, thresholds change events only where they pass the score of a box.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from htsat_sed.detection.change_points import find_boxes, step_filter_tokens
from htsat_sed.detection.event_arrays import EventArrays, EventRules, find_event_arrays
from htsat_sed.detection.events import PostProcessing, median_filter_tokens, smooth
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.counts import Floats

Ints = NDArray[np.int64]

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


class Thresholds(NamedTuple):
    """Thresholds between which the events of a recording do not change, recording after recording.

    Attributes:
        value: (n,) of each recording ascending; events hold from here to the next value, or to 1.
        number: (R,) thresholds of each recording.
    """

    value: Floats
    number: Ints

    @property
    def recording(self) -> Ints:
        """Place of the recording of each threshold, (n,)."""
        return np.repeat(np.arange(len(self.number)), self.number)

    @property
    def next(self) -> Floats:
        """Where the events of each threshold cease to hold, (n,); infinity after a recording's last."""
        above = np.append(self.value[1:], np.inf)
        above[np.cumsum(self.number) - 1] = np.inf
        return above


class ClassScores:
    """Scores of one class in R recordings.

    What was smoothed is kept, since a search comes back to the same values.

    Args:
        recordings: names.
        maps: recording -> presence map; one that lacks the class has scores of 0.
        label: the class.
    """

    def __init__(self, recordings: Sequence[str], maps: Mapping[str, PresenceMap], label: str) -> None:
        self._maps = [maps[name] for name in recordings]
        self._scores = [
            m.scores[:, m.labels.index(label)] if label in m.labels else np.zeros(len(m.scores), np.float32)
            for m in self._maps
        ]
        self._durations = np.array([m.duration for m in self._maps])
        self._smooth: dict[float, list[NDArray[np.float32]]] = {}

    def __len__(self) -> int:
        """Number of recordings."""
        return len(self._maps)

    def thresholds(self, choice: Choice, *, least: float = 0.0) -> Thresholds:
        """All thresholds at which events change.

        Args:
            choice: the other values.
            least: the first threshold of every recording.
        """
        compared = self._compared(choice)
        every = np.arange(len(compared))
        scores = np.concatenate(compared).astype(np.float64)
        owners = np.repeat(every, [len(own) for own in compared])
        lows = [scores / choice.low_share] if 0.0 < choice.low_share < 1.0 else []
        threshold = np.concatenate([np.full(len(every), least), scores, *lows]).clip(least, 1.0)
        recording = np.concatenate([every, owners, *[owners] * len(lows)])
        order = np.lexsort((threshold, recording))
        threshold, recording = threshold[order], recording[order]
        new = np.append(True, (np.diff(threshold) > 0.0) | (np.diff(recording) > 0))
        return Thresholds(threshold[new], np.bincount(recording[new], minlength=len(every)))

    def spans(self, choice: Choice, at: Thresholds) -> Iterator[tuple[Ints, EventArrays]]:
        """Events at every threshold, of as many recordings at a time as memory allows.

        Args:
            choice: the other values.
            at: thresholds, exclusive.

        Yields:
            Places of some thresholds, and the events there; a column of these is one of those places.
        """
        smoothed, first = self._smoothed(choice), np.append(0, np.cumsum(at.number))
        for step, some in self._alike(smoothed, at.number):
            recording = np.repeat(some, at.number[some])
            place = np.concatenate([np.arange(first[i], first[i + 1]) for i in some])
            spans = find_event_arrays(
                np.repeat(np.stack([smoothed[i] for i in some], axis=1), at.number[some], axis=1),
                _rules(choice, at.value[place], step),
                token_seconds=step,
                duration=self._durations[recording],
            )
            yield place, spans

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


def middles(lower: Floats, upper: Floats) -> Floats:
    """A threshold in each interval, the middle where there is one between float32."""
    middle = (lower + upper) / 2.0
    # Between neighbouring float32 there is no middle; the threshold is exclusive.
    return np.where(middle.astype(np.float32) < upper, middle, lower)


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
