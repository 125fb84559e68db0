"""The best F1 within a limit of false alarms.

For each class, `Front` keeps the Pareto-optimal choices: no other choice has a higher F1 at no more false
alarms. `shared_limit` then divides one limit among the classes: it starts from the choices with the fewest
false alarms and allows more where they gain the most F1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from htsat_sed.annotations.negatives import Negative
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.errors import UsageError
from htsat_sed.evaluation.class_scores import Choice
from htsat_sed.evaluation.report import Settings
from htsat_sed.evaluation.tables import Pair
from htsat_sed.evaluation.threshold_curves import ThresholdCurves, between


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Limit of false alarms for tuning.

    Attributes:
        maps: presence maps of negatives, at least one.
        table: classes that may occur in them; a recording not in it contains no class.
        per_hour: false alarms of all classes per hour of negatives.
    """

    maps: Mapping[str, PresenceMap]
    table: Mapping[str, Negative]
    per_hour: float

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: there are no negatives, or the limit is below 0.
        """
        if not self.maps:
            raise UsageError("wanted at least one negative, got none")
        if not self.per_hour >= 0.0:
            raise UsageError(f"wanted at least 0 false alarms per hour, got {self.per_hour}")

    @property
    def names(self) -> tuple[str, ...]:
        """The negatives, sorted."""
        return tuple(sorted(self.maps))

    def events(self, among: NDArray[np.bool_]) -> float:
        """Number of false alarms allowed in the negatives selected by a mask over `names`."""
        pairs = zip(self.names, among, strict=True)
        return self.per_hour * sum(self.maps[name].duration for name, kept in pairs if kept) / 3600.0


class Point(NamedTuple):
    """A choice, its false alarms and its F1."""

    false_alarms: float
    f1: float
    choice: Choice


class Front:
    """The Pareto-optimal choices for one class.

    Args:
        curves: F1 of the class.
        among: mask of the recordings to use.
        silence: false alarms of the class.
        quiet: mask of the negatives to use.
    """

    def __init__(
        self,
        curves: ThresholdCurves,
        among: NDArray[np.bool_],
        silence: ThresholdCurves,
        quiet: NDArray[np.bool_],
    ) -> None:
        self._curves, self._among = curves, among
        self._silence, self._quiet = silence, quiet
        self._points: list[Point] = []

    @property
    def points(self) -> list[Point]:
        """The choices by ascending false alarms and F1; the first has no false alarms."""
        kept: list[Point] = []
        for point in sorted(self._points, key=lambda p: (p.false_alarms, -p.f1)):
            if not kept or point.f1 > kept[-1].f1:
                kept.append(point)
        return kept

    def add(self, choice: Choice) -> None:
        """Add a choice with its own threshold."""
        fp = float(self._silence.counts(choice).fp[self._quiet].sum()) if self._quiet.any() else 0.0
        self._points.append(Point(fp, self._curves.f1(choice, self._among), choice))

    def best(self, choice: Choice, *, false_alarms: float) -> tuple[Choice, float]:
        """Add a choice with every threshold.

        Returns:
            The choice with the threshold of the highest F1 within `false_alarms`, and this F1.
        """
        own, f1, _ = self._curves.steps(choice, self._among)
        quiet, _, fp = self._silence.steps(choice, self._quiet) if self._quiet.any() else (own, f1, 0.0 * own)
        grid = np.union1d(own, quiet)
        f1 = f1[np.searchsorted(own, grid, side="right") - 1]
        fp = fp[np.searchsorted(quiet, grid, side="right") - 1]
        # Of equal points the highest threshold comes first.
        order = np.lexsort((-np.arange(len(grid)), -f1, fp))
        rising = np.append(True, np.diff(np.maximum.accumulate(f1[order])) > 0.0)
        points = [
            Point(float(fp[i]), float(f1[i]), replace(choice, threshold=between(grid, int(i))))
            for i in order[rising]
        ]
        self._points += points
        allowed = [point for point in points if point.false_alarms <= false_alarms]
        return (allowed[-1].choice, allowed[-1].f1) if allowed else (choice, -1.0)


def silence_curves(limit: Limit, label: str, settings: Settings) -> tuple[ThresholdCurves, NDArray[np.int64]]:
    """False alarms of a class as functions of the threshold, and the indices of the negatives counted."""
    names = limit.names
    sounding = [
        limit.table[n].possible | limit.table[n].present if n in limit.table else frozenset() for n in names
    ]
    counted = np.flatnonzero([label not in own for own in sounding])
    kept = tuple(names[i] for i in counted)
    nothing = ((),) * len(kept)
    quiet = Pair(kept, (label,), nothing, nothing, (None,) * len(kept))
    return ThresholdCurves(quiet, limit.maps, label, "intersection", settings), counted


def shared_limit(fronts: Sequence[Sequence[Point]], false_alarms: float) -> list[Choice]:
    """Choose a point of each class for a high sum of F1 within a limit of false alarms.

    Args:
        fronts: points of each class, by ascending false alarms and F1.
        false_alarms: limit for all classes. The first point of a class is allowed even if it exceeds it.
    """
    chosen = [0] * len(fronts)
    left = false_alarms - sum(front[0].false_alarms for front in fronts)
    while True:
        steps = [
            ((to.f1 - front[at].f1) / (to.false_alarms - front[at].false_alarms), -k, place)
            for k, (front, at) in enumerate(zip(fronts, chosen, strict=True))
            for place, to in enumerate(front[at + 1 :], start=at + 1)
            if to.false_alarms - front[at].false_alarms <= left
        ]
        if not steps:
            return [front[at].choice for front, at in zip(fronts, chosen, strict=True)]
        _, k, place = max(steps)
        front = fronts[-k]
        left -= front[place].false_alarms - front[chosen[-k]].false_alarms
        chosen[-k] = place
