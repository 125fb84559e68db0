"""Tuning of post-processing: for each class, the values with the best F1.

The threshold is searched exactly (`threshold_curves`). The other values (median filter, gap, shortest event,
hysteresis) are chosen from a few candidates in turn, each with its best threshold, until none improves. Boxes
between change points are searched in the same way, with step filter and merging instead of median filter and
hysteresis. The previous values remain unless others are better. `edge_level` is not tuned, since most metrics
hardly depend on the precision of edges and would choose it at random.

With a limit of false alarms in negatives, the search is the same, but choices are compared by F1 and false
alarms; the classes then share the limit, see `false_alarm_limit`.

Held-out figures come from cross-validation over recordings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from htsat_sed.detection.events import PostProcessing, find_events
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.errors import UsageError
from htsat_sed.evaluation.bootstrap import Resampling
from htsat_sed.evaluation.class_scores import Choice, ClassScores
from htsat_sed.evaluation.counts import Counts, Floats
from htsat_sed.evaluation.false_alarm_limit import Front, Limit, Point, shared_limit, silence_curves
from htsat_sed.evaluation.false_alarms import FalseAlarms, count_false_alarms
from htsat_sed.evaluation.psds import (
    SCENARIOS,
    OperatingPoints,
    Scenario,
    class_lives,
    detections,
    operating_points,
)
from htsat_sed.evaluation.report import Settings
from htsat_sed.evaluation.tables import Pair, Remarks, of_labels, some
from htsat_sed.evaluation.threshold_curves import MetricName, ThresholdCurves

PsdsName = Literal["psds1", "psds2"]
Method = Literal["threshold", "change-points", "both", "threshold-alone"]

# Candidates, in seconds or as a share of the threshold.
MEDIAN_FILTERS = (0.0, 0.9, 1.5, 2.2, 3.4, 5.9)
MIN_GAPS = (0.0, 0.5, 1.0, 2.0)
MIN_EVENTS = (0.0, 0.4, 0.8, 1.5)
LOW_SHARES = (1.0, 0.75, 0.5, 0.25)
STEP_FILTERS = (0.7, 1.3, 1.9, 2.5, 3.8)
MERGES_ABSOLUTE = (0.0, 0.05, 0.1, 0.2, 0.35)
MERGES_RELATIVE = (0.0, 0.2, 0.4, 0.6, 0.8)


class Outcome(Protocol):
    """Result of a post-processing: counts, or operating points of a PSDS."""

    def figures(self, weights: Floats) -> tuple[Floats, Floats]:
        """An average (N,) and a figure of each class (N, K), for (N, R) weights of the recordings."""

    def by_fold(self, others: Sequence[Self], fold_of: NDArray[np.int64]) -> Self:
        """Combine outcomes of several folds, this one first: each recording has the outcome of its fold."""


class Worth(NamedTuple):
    """Effect of tuning: three F1 in [0, 1], NaN without counts.

    Attributes:
        before: with the previous values.
        fitted: with the tuned values, on the recordings used for tuning.
        held_out: with tuned values, on recordings not used for tuning.
    """

    before: float
    fitted: float
    held_out: float


@dataclass(frozen=True, eq=False)
class Tuning:
    """Result of tuning.

    Attributes:
        labels: K classes.
        start: the previous values.
        choices: values of each class, chosen on all R recordings.
        fold_of: (R,) fold of each recording, 0 to F - 1.
        before: counts (R, K), or operating points, with the previous values.
        fitted: the same with `choices`.
        crossed: the same for each of F folds, with values chosen on the other folds.
        left_out: classes of the reference that no presence map has.
        false_alarms: false alarms in negatives with the previous values, with `choices`, and held out; None
            without a limit.
    """

    labels: tuple[str, ...]
    start: PostProcessing
    choices: tuple[Choice, ...]
    fold_of: NDArray[np.int64]
    before: Outcome
    fitted: Outcome
    crossed: tuple[Outcome, ...]
    left_out: tuple[str, ...] = ()
    false_alarms: tuple[FalseAlarms, FalseAlarms, FalseAlarms] | None = None

    def post_processing(self) -> PostProcessing:
        """The chosen values, merged into the previous ones."""
        return _rules_of(self.labels, self.choices, self.start)

    @property
    def held_out(self) -> Outcome:
        """Outcome of each recording with values chosen on the other folds."""
        first, *others = self.crossed
        return first.by_fold(others, self.fold_of)

    def _of_all(self) -> list[tuple[Floats, Floats]]:
        every = np.ones((1, len(self.fold_of)))
        return [each.figures(every) for each in (self.before, self.fitted, self.held_out)]

    def macro(self) -> Worth:
        """Macro F1, or PSDS, over all recordings."""
        return Worth(*(float(overall[0]) for overall, _ in self._of_all()))

    def by_class(self) -> dict[str, Worth]:
        """F1, or the area under the PSD-ROC, of each class."""
        values = np.concatenate([of_class for _, of_class in self._of_all()])
        return {label: Worth(*values[:, k].tolist()) for k, label in enumerate(self.labels)}

    def by_fold(self) -> list[Worth]:
        """Macro F1 of each fold: `before` and `held_out` on the fold, `fitted` on the other folds."""
        found = []
        for fold, outcome in enumerate(self.crossed):
            here = (self.fold_of == fold)[None, :].astype(float)
            weighted = ((self.before, here), (outcome, 1.0 - here), (outcome, here))
            found.append(Worth(*(float(each.figures(weights)[0][0]) for each, weights in weighted)))
        return found

    def gain(self, *, samples: int = 1000, seed: int = 0) -> tuple[float, float, float]:
        """Held-out gain of `macro`, and its 95 % interval over resamplings of the recordings.

        Args:
            samples: number of resamplings.
            seed: random seed.
        """
        draws = Resampling.of(len(self.fold_of), Settings(bootstrap=samples, seed=seed))
        after, before = (each.figures(draws.weights)[0] for each in (self.held_out, self.before))
        gain = draws.score(after - before)
        return tuple(float("nan") if v is None else v for v in (gain.value, gain.low, gain.high))  # type: ignore[return-value]


def tune(
    events: Pair,
    maps: Mapping[str, PresenceMap],
    *,
    metric: MetricName | PsdsName = "intersection",
    settings: Settings | None = None,
    method: Method = "threshold",
    before: PostProcessing | None = None,
    folds: int = 5,
    seed: int = 0,
    limit: Limit | None = None,
    progress: Callable[[], object] | None = None,
) -> Tuning:
    """Choose post-processing for every class.

    Args:
        events: the reference (estimated events are not used); classes that no map has are left out, with a
            warning.
        maps: recording -> presence map, for all recordings.
        metric: metric whose F1 is maximised, or the scenario of the PSDS that is maximised for each class. A
            PSDS does not depend on the threshold, which is chosen for the highest F1 by its criteria.
        settings: parameters of the metrics.
        method: search runs above a threshold, boxes between change points, or both and keep the better; or
            only the threshold, with the other previous values.
        before: the previous values. They are candidates too, unchanged and with the best threshold, so that
            on the recordings used for tuning the result is never worse.
        folds: number of folds of the cross-validation, at least 2.
        seed: random seed of the folds.
        limit: limit of false alarms in negatives; previous values that exceed it are not candidates.
        progress: called after each class.

    Raises:
        ValueError: too few folds or recordings, a recording without a map, or no class that a map has.
    """
    labels, left_out = _labels(events, maps, folds)
    start, settings = before or PostProcessing(), settings or Settings()
    fold_of, masks = _folds(len(events.recordings), folds, seed)
    quiet_fold_of, quiet = _folds(0 if limit is None else len(limit.maps), folds, seed)
    if metric == "psds1" or metric == "psds2":
        if limit is not None or method == "threshold-alone":
            raise UsageError(
                "PSDS does not depend on the threshold: give another method, and no limit of false alarms"
            )
        seconds = tuple(maps[name].duration for name in events.recordings)
        own_events = replace(of_labels(events, labels), durations=seconds)
        return _tuned_psds(
            own_events, maps, SCENARIOS[metric], method, start, fold_of, masks, left_out, progress
        )
    found: list[list[Choice]] = []  # of all recordings and without each fold, class by class
    fronts: list[list[list[Point]]] = []
    for label in labels:
        curves = ThresholdCurves(events, maps, label, metric, settings)
        old = Choice.of(start, label)
        if limit is None:
            found.append([_search(curves, among, method, old) for among in masks])
        else:
            silence, counted = silence_curves(limit, label, settings)
            own = [Front(curves, among, silence, q[counted]) for among, q in zip(masks, quiet, strict=True)]
            fronts.append([_explored(front, method, old) for front in own])
        if progress is not None:
            progress()
    if limit is not None:
        by_mask = zip(zip(*fronts, strict=True), quiet, strict=True)
        shared = [shared_limit(own, limit.events(q)) for own, q in by_mask]
        found = [list(own) for own in zip(*shared, strict=True)]
    columns = []
    for label, choices in zip(labels, found, strict=True):
        curves = ThresholdCurves(events, maps, label, metric, settings)
        columns.append([curves.counts(choice) for choice in (Choice.of(start, label), *choices)])
    untuned, fitted, *crossed = (_beside(own) for own in zip(*columns, strict=True))
    chosen = tuple(own[0] for own in found)
    tuning = Tuning(labels, start, chosen, fold_of, untuned, fitted, tuple(crossed), left_out)
    if limit is None:
        return tuning
    rules = [start, *(_rules_of(labels, own, start) for own in zip(*found, strict=True))]
    return replace(tuning, false_alarms=_false_alarms(limit, rules, quiet_fold_of, labels))


class _PsdsCurves:
    """Areas under the PSD-ROC of one class, for any values of post-processing.

    Args:
        events: the reference.
        maps: recording -> presence map, for all recordings.
        label: the class.
        scenario: parameters of the PSDS.
    """

    def __init__(self, events: Pair, maps: Mapping[str, PresenceMap], label: str, scenario: Scenario) -> None:
        self._events, self._scenario, self._place = events, scenario, events.labels.index(label)
        self._scores = ClassScores(events.recordings, maps, label)
        settings = Settings(dtc=scenario.dtc, gtc=scenario.gtc)
        self._thresholds = ThresholdCurves(events, maps, label, "intersection", settings)
        self._points: dict[Choice, OperatingPoints] = {}

    def f1(self, choice: Choice, among: NDArray[np.bool_]) -> float:
        """The area over the recordings of a mask (R,); 0 without reference events."""
        choice = replace(choice, threshold=0.5)
        if choice not in self._points:
            lives = class_lives(self._scores, choice)
            lives = lives._replace(label=lives.label + self._place)
            self._points[choice] = operating_points(self._events, lives, self._scenario)
        curve = self._points[choice].curves(among.astype(float)).get(self._place)
        return 0.0 if curve is None else curve.area(self._scenario.max_efpr)

    def best_threshold(self, choice: Choice, among: NDArray[np.bool_]) -> tuple[Choice, float]:
        """The unchanged choice and its area, which covers all thresholds."""
        return choice, self.f1(choice, among)

    def best(self, method: Method, among: NDArray[np.bool_], before: Choice) -> Choice:
        """The choice with the largest area, and the threshold with the highest F1 by the scenario's criteria.

        The previous values remain if nothing has a larger area.
        """
        found = _search(self, among, method, before)
        return found if found == before else self._thresholds.best_threshold(found, among)[0]


def _tuned_psds(
    events: Pair,
    maps: Mapping[str, PresenceMap],
    scenario: Scenario,
    method: Method,
    start: PostProcessing,
    fold_of: NDArray[np.int64],
    masks: Sequence[NDArray[np.bool_]],
    left_out: tuple[str, ...],
    progress: Callable[[], object] | None,
) -> Tuning:
    """Choose filters and gaps for the largest area of each class; arguments as for `tune`."""
    found = []
    for label in events.labels:
        curves = _PsdsCurves(events, maps, label, scenario)
        found.append([curves.best(method, among, Choice.of(start, label)) for among in masks])
        if progress is not None:
            progress()
    rules = [start, *(_rules_of(events.labels, own, start) for own in zip(*found, strict=True))]
    before, fitted, *crossed = (
        operating_points(events, detections(events, maps, post_processing=each), scenario) for each in rules
    )
    chosen = tuple(own[0] for own in found)
    return Tuning(events.labels, start, chosen, fold_of, before, fitted, tuple(crossed), left_out)


def _labels(
    events: Pair, maps: Mapping[str, PresenceMap], folds: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes to tune, and those of the reference that no map has.

    Raises:
        ValueError: as for `tune`.
    """
    missing = [name for name in events.recordings if name not in maps]
    if missing:
        raise UsageError(f"wanted a presence map of every recording, {missing[0]!r} has none")
    if len(events.recordings) < 2:
        raise UsageError("the cross-validation needs labels of at least 2 recordings, got 1")
    if not 2 <= folds <= len(events.recordings):
        raise UsageError(f"wanted 2 to {len(events.recordings)} folds, the number of recordings; got {folds}")
    heard = {label for name in events.recordings for label in maps[name].labels}
    labels = tuple(label for label in events.labels if label in heard)
    left_out = tuple(label for label in events.labels if label not in heard)
    if not labels:
        raise UsageError(
            f"reference and presence maps have no class in common: the reference has {some(left_out)}, the "
            f"presence maps {some(heard)}"
        )
    Remarks().add(
        left_out, "label", f"of the reference not in the presence maps ({some(left_out)}): left out"
    )
    return labels, left_out


def _folds(number: int, folds: int, seed: int) -> tuple[NDArray[np.int64], list[NDArray[np.bool_]]]:
    """The fold of each recording, and masks of all recordings and of those outside each fold."""
    fold_of = np.random.default_rng(seed).permutation(number) % folds
    return fold_of, [np.ones(number, bool), *(fold_of != fold for fold in range(folds))]


def _rules_of(labels: Sequence[str], choices: Sequence[Choice], start: PostProcessing) -> PostProcessing:
    classes = {label: choice.values() for label, choice in zip(labels, choices, strict=True)}
    return start.override({"classes": classes})


def _false_alarms(
    limit: Limit, rules: Sequence[PostProcessing], fold_of: NDArray[np.int64], labels: Sequence[str]
) -> tuple[FalseAlarms, FalseAlarms, FalseAlarms]:
    """False alarms before, fitted and held out, from the rules before, fitted and for each fold."""
    durations = {name: each.duration for name, each in limit.maps.items()}
    before, fitted, *others = rules
    chosen = {
        "before": dict.fromkeys(limit.names, before),
        "fitted": dict.fromkeys(limit.names, fitted),
        "held out": {name: others[fold] for name, fold in zip(limit.names, fold_of, strict=True)},
    }
    first, second, third = (
        count_false_alarms(
            {name: find_events(limit.maps[name], own[name]) for name in limit.names},
            durations,
            limit.table,
            labels,
        )
        for own in chosen.values()
    )
    return first, second, third


def _beside(counts: Sequence[Counts]) -> Counts:
    """Stack (R,) counts of K classes to (R, K)."""
    return Counts(*(np.stack([getattr(c, part) for c in counts], axis=1) for part in ("tp", "fp", "fn")))


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
_BETTER = 1e-9  # minimum improvement of F1

# Plain runs come first, so that ties go to the simpler method.
_SEARCHES: Mapping[Method, Sequence[tuple[Choice, _Candidates]]] = {
    "threshold": ((Choice(), _THRESHOLD),),
    "change-points": ((Choice(step_filter=STEP_FILTERS[1]), _CHANGE_POINTS),),
    "threshold-alone": (),  # the previous values with another threshold
    "both": ((Choice(), _THRESHOLD), (Choice(step_filter=STEP_FILTERS[1]), _CHANGE_POINTS)),
}


def _search(
    curves: ThresholdCurves | _PsdsCurves, among: NDArray[np.bool_], method: Method, before: Choice
) -> Choice:
    """The best of the previous values, these with the best threshold, and the results of the searches."""

    def best_threshold(choice: Choice) -> tuple[Choice, float]:
        return curves.best_threshold(choice, among)

    candidates = [(before, curves.f1(before, among)), best_threshold(before)]
    for first, values in _SEARCHES[method]:
        candidates.append(_climb(best_threshold, replace(first, edge_level=before.edge_level), values))
    best, value = candidates[0]
    for choice, reached in candidates[1:]:
        if reached > value + _BETTER:
            best, value = choice, reached
    return best


def _explored(front: Front, method: Method, before: Choice) -> list[Point]:
    """Pareto-optimal points of a search for the best F1 and a search without false alarms."""
    front.add(before)
    for false_alarms in (math.inf, 0.0):
        best_threshold = partial(front.best, false_alarms=false_alarms)
        best_threshold(before)
        for first, values in _SEARCHES[method]:
            _climb(best_threshold, replace(first, edge_level=before.edge_level), values)
    return front.points


def _climb(
    best_threshold: Callable[[Choice], tuple[Choice, float]], first: Choice, candidates: _Candidates
) -> tuple[Choice, float]:
    """Coordinate ascent: vary one value at a time, with its best threshold, until nothing improves."""
    best, value = best_threshold(first)
    improved = True
    while improved:
        improved = False
        for name, values in candidates:
            for candidate in values:
                tried, reached = best_threshold(replace(best, **{name: candidate}))
                if reached > value + _BETTER:
                    best, value, improved = tried, reached, True
    return best, value
