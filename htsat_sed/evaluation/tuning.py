"""Post-processing that fits: for each class, the values that give the best F1.

A recording of T tokens has at most T different scores a class, so that its events change at no more than T
thresholds. Counting true and false positives between those, for each recording once, gives the F1 of all
thresholds at once and exactly: the counts of a set of recordings are sums of step functions. The other
values (median filter, gap, shortest event, hysteresis) are chosen from a few candidates, one after the other,
each time with the best threshold, until none of them improves. Boxes between change points are searched in
the same way, with their step filter and merging in place of median filter and hysteresis; there, thresholds
change events only where they pass the score of a box.

What is printed as held out comes from cross-validation over recordings: chosen on the other folds, counted
on this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from htsat_sed.detection.change_points import find_boxes, step_filter_tokens
from htsat_sed.detection.events import PostProcessing, SpanRules, find_spans, median_filter_tokens, smooth
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.column_counts import COUNTERS, References, wanted
from htsat_sed.evaluation.counts import Counts, Floats, f1, macro_f1
from htsat_sed.evaluation.report import Settings
from htsat_sed.evaluation.tables import Pair

MetricName = Literal["intersection", "collar", "segment"]
Method = Literal["threshold", "change-points", "both"]

# Candidates, in seconds or as a share of the threshold.
MEDIAN_FILTERS = (0.0, 0.9, 1.5, 2.2, 3.4, 5.9)
MIN_GAPS = (0.0, 0.5, 1.0, 2.0)
MIN_EVENTS = (0.0, 0.4, 0.8, 1.5)
LOW_SHARES = (1.0, 0.75, 0.5, 0.25)
STEP_FILTERS = (0.7, 1.3, 1.9, 2.5, 3.8)
MERGES_ABSOLUTE = (0.0, 0.05, 0.1, 0.2, 0.35)
MERGES_RELATIVE = (0.0, 0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class Choice:
    """Values for one class; `low_share` times the threshold is the low one."""

    threshold: float = 0.5
    low_share: float = 1.0
    median_filter: float = 0.0
    min_gap: float = 0.0
    min_event: float = 0.0
    step_filter: float = 0.0
    merge_absolute: float = 0.0
    merge_relative: float = 0.0

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
        }


@dataclass(frozen=True, eq=False)
class Tuning:
    """What was chosen, and what it is worth.

    Attributes:
        labels: K classes.
        start: the values before.
        choices: values for each, chosen on all recordings.
        untuned: (R, K) counts before.
        fitted: counts with `choices`: on the recordings they were chosen on.
        held_out: counts of each recording with values chosen on the other folds.
    """

    labels: tuple[str, ...]
    start: PostProcessing
    choices: tuple[Choice, ...]
    untuned: Counts
    fitted: Counts
    held_out: Counts

    def post_processing(self) -> PostProcessing:
        """The chosen values, over those before."""
        classes = {label: c.values() for label, c in zip(self.labels, self.choices, strict=True)}
        return self.start.override({"classes": classes})

    def macro(self) -> tuple[float, float, float]:
        """Macro F1 untuned, fitted and held out."""
        values = (macro_f1(counts.total())[0] for counts in (self.untuned, self.fitted, self.held_out))
        untuned, fitted, held_out = (float(value) for value in values)
        return untuned, fitted, held_out

    def by_class(self) -> dict[str, tuple[float, float, float]]:
        """F1 of each class, untuned, fitted and held out."""
        values = [f1(counts.total())[0].tolist() for counts in (self.untuned, self.fitted, self.held_out)]
        return {label: (values[0][k], values[1][k], values[2][k]) for k, label in enumerate(self.labels)}


def tune(
    events: Pair,
    maps: Mapping[str, PresenceMap],
    *,
    metric: MetricName = "intersection",
    settings: Settings | None = None,
    method: Method = "threshold",
    start: PostProcessing | None = None,
    folds: int = 5,
    seed: int = 0,
    progress: Callable[[], object] | None = None,
) -> Tuning:
    """Choose post-processing for every class.

    Args:
        events: the reference (its estimated events play no part).
        maps: recording -> presence map, one for each recording.
        metric: whose F1 is to be highest.
        settings: parameters of the metrics.
        method: search runs above a threshold, boxes between change points, or both and keep the better.
        start: the values before; they are a candidate too, with the best threshold, so that on the recordings
            it was fitted on the choice is never worse than they are.
        folds: of the cross-validation, at least 2.
        seed: of the folds.
        progress: called after each class.

    Raises:
        ValueError: too few folds or recordings, or a recording without map.
    """
    missing = [name for name in events.recordings if name not in maps]
    if missing:
        raise ValueError(f"wanted a presence map of every recording, got none of {missing[0]!r}")
    if not 2 <= folds <= len(events.recordings):
        raise ValueError(f"wanted 2 to {len(events.recordings)} folds (recordings), got {folds}")
    fold_of = np.random.default_rng(seed).permutation(len(events.recordings)) % folds
    everything = np.ones(len(events.recordings), bool)
    before = start or PostProcessing()
    choices: list[Choice] = []
    columns: dict[str, list[Counts]] = {"untuned": [], "fitted": [], "held_out": []}
    for label in events.labels:
        curves = _Curves(events, maps, label, metric, settings or Settings())
        old = _choice(before.of(label))
        columns["untuned"].append(curves.counts(old))
        best = _search(curves, everything, method, old)
        choices.append(best)
        columns["fitted"].append(curves.counts(best))
        held_out = columns["fitted"][-1]
        tp, fp = held_out.tp.copy(), held_out.fp.copy()
        for fold in range(folds):
            here = fold_of == fold
            of_fold = curves.counts(_search(curves, ~here, method, old))
            tp[here], fp[here] = of_fold.tp[here], of_fold.fp[here]
        columns["held_out"].append(Counts(tp, fp, held_out.tp + held_out.fn - tp))
        if progress is not None:
            progress()
    joined = {
        name: Counts(*(np.stack([getattr(c, part) for c in own], axis=1) for part in ("tp", "fp", "fn")))
        for name, own in columns.items()
    }
    return Tuning(
        events.labels, before, tuple(choices), joined["untuned"], joined["fitted"], joined["held_out"]
    )


class _Curves:
    """Counts of one class as functions of the threshold, for any of the other values.

    Every pair of a recording and a threshold is a column; the events of all columns are found and counted
    together.
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
        spans = [[(e.onset, e.offset) for e in own if e.label == label] for own in events.reference]
        self._reference = References(
            np.array([span for own in spans for span in own]).reshape(-1, 2),
            np.array([len(own) for own in spans]),
        )
        self._count = COUNTERS[metric]
        self._settings = settings
        self._wanted = wanted(metric, self._reference, settings)
        self._smooth: dict[float, list[NDArray[np.float32]]] = {}
        self._steps: dict[Choice, tuple[Floats, Floats, Floats, NDArray[np.int64]]] = {}

    def counts(self, choice: Choice) -> Counts:
        """(R,) counts for one choice."""
        tp, fp = self._at(choice, [np.array([choice.threshold])] * len(self._maps))
        return Counts(tp, fp, self._wanted - tp)

    def best_threshold(self, choice: Choice, among: NDArray[np.bool_]) -> tuple[float, float]:
        """The threshold with the highest F1 over some of the recordings, and that F1.

        Between two scores that occur all thresholds are alike: the middle is taken, of the highest such
        interval among equals.
        """
        where, tp, fp, recording = self._changes(choice)
        kept = among[recording]
        where, tp, fp = where[kept], np.cumsum(tp[kept]), np.cumsum(fp[kept])
        last = np.flatnonzero(np.append(np.diff(where) > 0.0, True))
        where, tp, fp = where[last], tp[last], fp[last]
        values = 2.0 * tp / np.maximum(1.0, tp + fp + self._wanted[among].sum())
        best = len(values) - 1 - int(np.argmax(values[::-1]))
        upper = where[best + 1] if best + 1 < len(where) else 1.0
        middle = (where[best] + upper) / 2.0
        # Between neighbouring float32 there is no middle; the threshold is exclusive.
        middle = middle if np.float32(middle) < upper else where[best]
        return float(middle), float(values[best])

    def _changes(self, choice: Choice) -> tuple[Floats, Floats, Floats, NDArray[np.int64]]:
        """Thresholds at which counts change, by how much, and in which recording; ascending."""
        choice = replace(choice, threshold=0.0)
        if choice not in self._steps:
            where, between = [], []
            for scores in self._compared(choice):
                found = np.unique(scores).astype(np.float64)
                low = found / choice.low_share if choice.low_share > 0.0 else found[:0]
                at = np.unique(np.concatenate([[0.0], found, low]).clip(0.0, 1.0))
                where.append(at)
                between.append(np.append((at[:-1] + at[1:]) / 2.0, 1.0))
            tp, fp = self._at(choice, between)
            first = np.concatenate([np.arange(len(at)) == 0 for at in where])
            recording = np.repeat(np.arange(len(where)), [len(at) for at in where])
            rises = [np.where(first, v, np.diff(v, prepend=0.0)) for v in (tp, fp)]
            joined = np.concatenate(where)
            order = np.argsort(joined, kind="stable")
            self._steps[choice] = joined[order], rises[0][order], rises[1][order], recording[order]
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
        for step, some in self._alike(smoothed, [1] * len(smoothed)):
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

    def _at(self, choice: Choice, thresholds: Sequence[Floats]) -> tuple[Floats, Floats]:
        """Counts of each recording at each of its thresholds, one after the other."""
        smoothed = self._smoothed(choice)
        first = np.concatenate([[0], np.cumsum([len(own) for own in thresholds])])
        tp, fp = np.zeros(first[-1]), np.zeros(first[-1])
        for step, some in self._alike(smoothed, [len(own) for own in thresholds]):
            numbers = [len(thresholds[i]) for i in some]
            recording = np.repeat(some, numbers)
            spans = find_spans(
                np.repeat(np.stack([smoothed[i] for i in some], axis=1), numbers, axis=1),
                _rules(choice, np.concatenate([thresholds[i] for i in some]), step),
                token_seconds=step,
                duration=np.array([self._maps[i].duration for i in recording]),
            )
            counted = self._count(spans, recording, self._reference, self._settings)
            place = np.concatenate([np.arange(first[i], first[i + 1]) for i in some])
            tp[place], fp[place] = counted
        return tp, fp

    def _alike(
        self, smoothed: Sequence[NDArray[np.float32]], numbers: Sequence[int]
    ) -> Iterator[tuple[float, list[int]]]:
        """Recordings with as many tokens of one duration, as many as memory allows, with that duration."""
        shapes = [(len(s), m.token_seconds) for s, m in zip(smoothed, self._maps, strict=True)]
        for tokens, step in sorted(set(shapes)):
            group = [i for i, shape in enumerate(shapes) if shape == (tokens, step)]
            size = max(1, _CELLS // max(1, tokens * max(numbers[i] for i in group)))
            for k in range(0, len(group) if tokens else 0, size):
                yield step, group[k : k + size]


def _rules(choice: Choice, thresholds: Floats, token_seconds: float) -> SpanRules:
    """One choice with many thresholds."""
    sides = step_filter_tokens(choice.step_filter, token_seconds) if choice.step_filter else 0

    def every(value: float) -> Floats:
        return np.full(len(thresholds), value)

    return SpanRules(
        high=thresholds,
        low=choice.low_share * thresholds,
        min_gap=every(choice.min_gap),
        min_event=every(choice.min_event),
        sides=np.full(len(thresholds), sides),
        merge_absolute=every(choice.merge_absolute),
        merge_relative=every(choice.merge_relative),
    )


_CELLS = 4_000_000  # tokens x columns at a time


_Candidates = Sequence[tuple[str, tuple[float, ...]]]
_THRESHOLD: _Candidates = (
    ("median_filter", MEDIAN_FILTERS),
    ("min_gap", MIN_GAPS),
    ("low_share", LOW_SHARES),
    ("min_event", MIN_EVENTS),
)
_CHANGE_POINTS: _Candidates = (
    ("step_filter", STEP_FILTERS),
    ("merge_relative", MERGES_RELATIVE),
    ("merge_absolute", MERGES_ABSOLUTE),
    ("min_event", MIN_EVENTS),
)
# Plain runs come first: among equals the simpler one stays.
_SEARCHES: Mapping[Method, Sequence[tuple[Choice, _Candidates]]] = {
    "threshold": ((Choice(), _THRESHOLD),),
    "change-points": ((Choice(step_filter=STEP_FILTERS[1]), _CHANGE_POINTS),),
    "both": ((Choice(), _THRESHOLD), (Choice(step_filter=STEP_FILTERS[1]), _CHANGE_POINTS)),
}


def _search(curves: _Curves, among: NDArray[np.bool_], method: Method, before: Choice) -> Choice:
    """The best of the searches and of the values before, each with its best threshold."""
    found = [_climb(curves, among, first, candidates) for first, candidates in _SEARCHES[method]]
    threshold, value = curves.best_threshold(before, among)
    found.append((replace(before, threshold=threshold), value))
    best = found[0]
    for other in found[1:]:
        best = other if other[1] > best[1] + 1e-9 else best
    return best[0]


def _climb(
    curves: _Curves, among: NDArray[np.bool_], first: Choice, candidates: _Candidates
) -> tuple[Choice, float]:
    """Choose one value after the other, each with its best threshold, until nothing improves."""
    threshold, value = curves.best_threshold(first, among)
    best = replace(first, threshold=threshold)
    improved = True
    while improved:
        improved = False
        for name, values in candidates:
            for candidate in values:
                tried = replace(best, **{name: candidate})
                threshold, reached = curves.best_threshold(tried, among)
                if reached > value + 1e-9:
                    best, value, improved = replace(tried, threshold=threshold), reached, True
    return best, value


def _choice(rule: PostProcessing) -> Choice:
    low = rule.threshold if rule.threshold_low is None else rule.threshold_low
    return Choice(
        threshold=rule.threshold,
        low_share=low / rule.threshold if rule.threshold > 0.0 else 1.0,
        median_filter=rule.median_filter,
        min_gap=rule.min_gap,
        min_event=rule.min_event,
        step_filter=rule.step_filter,
        merge_absolute=rule.merge_absolute,
        merge_relative=rule.merge_relative,
    )
