"""Scores of one class in many recordings, and its events at any thresholds.

A recording of T tokens has at most T different scores per class, so its events change at no more than T
thresholds. With boxes between change points, they change only at the scores of boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from htsat_sed.detection.change_points import find_boxes, step_filter_tokens
from htsat_sed.detection.event_arrays import EventArrays, EventRules, find_event_arrays
from htsat_sed.detection.events import PostProcessing
from htsat_sed.detection.median_filter import median_filter_tokens, smooth
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.counts import Floats

Ints = NDArray[np.int64]

_CELLS = 4_000_000  # tokens x columns at a time


@dataclass(frozen=True)
class Choice:
    """Post-processing of one class; the low threshold is `low_share` times the threshold."""

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
        """The post-processing of a class."""
        own = rules.of(label)
        low = own.threshold if own.threshold_low is None else own.threshold_low
        same = {each.name: getattr(own, each.name) for each in fields(cls) if each.name != "low_share"}
        return cls(**same, low_share=low / own.threshold if own.threshold > 0.0 else 1.0)

    def values(self) -> dict[str, float]:
        """All values by their names in `PostProcessing`, so that none of a lower layer remains."""
        others = asdict(self)
        threshold, low_share = others.pop("threshold"), others.pop("low_share")
        return {"threshold": threshold, "threshold_low": low_share * threshold, **others}


class Thresholds(NamedTuple):
    """Thresholds at which the events of recordings change, recording by recording.

    Attributes:
        value: (n,) ascending within a recording; events are constant up to the next value, or 1.
        number: (R,) number of thresholds of each recording.
    """

    value: Floats
    number: Ints

    @property
    def recording(self) -> Ints:
        """Index of the recording of each threshold, (n,)."""
        return np.repeat(np.arange(len(self.number)), self.number)

    @property
    def next(self) -> Floats:
        """Next threshold of the same recording, (n,); infinity after the last."""
        above = np.append(self.value[1:], np.inf)
        above[np.cumsum(self.number) - 1] = np.inf
        return above


class ClassScores:
    """Scores of one class in R recordings.

    Smoothed scores are cached, since a search revisits values.

    Args:
        recordings: names.
        maps: recording -> presence map; scores are 0 where it lacks the class.
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
            least: first threshold of every recording.
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
        """Events at every threshold, in batches of recordings that fit in memory.

        Args:
            choice: the other values.
            at: thresholds, exclusive.

        Yields:
            Indices of some thresholds, and the events at these; each index is a column of the events.
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
        """Scores of each recording to which thresholds apply: of tokens, or of boxes."""
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
        """Batches of recordings with equal numbers and durations of tokens, with the duration of a token."""
        shapes = [(len(s), m.token_seconds) for s, m in zip(smoothed, self._maps, strict=True)]
        for tokens, step in sorted(set(shapes)):
            group = [i for i, shape in enumerate(shapes) if shape == (tokens, step)]
            size = max(1, _CELLS // max(1, tokens * int(numbers[group].max())))
            for k in range(0, len(group) if tokens else 0, size):
                yield step, group[k : k + size]


def middles(lower: Floats, upper: Floats) -> Floats:
    """A threshold in each interval: the middle if float32 values allow it, else the lower end."""
    middle = (lower + upper) / 2.0
    # Neighbouring float32 values have no middle; thresholds are exclusive.
    return np.where(middle.astype(np.float32) < upper, middle, lower)


def _rules(choice: Choice, thresholds: Floats, token_seconds: float) -> EventRules:
    """The rules of one choice with many thresholds."""
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
