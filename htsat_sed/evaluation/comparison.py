"""Whether one system is better than another: differences of all figures, with intervals and p.

Every figure of two systems is computed from the same resamplings of the recordings (paired bootstrap), so
that what is hard for both does not widen the interval of the difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from htsat_sed.errors import UsageError
from htsat_sed.evaluation.counts import Floats
from htsat_sed.evaluation.report import Report, Score, Settings, score_of
from htsat_sed.evaluation.resampling import Resampling

MAIN = ("f1", "psds", "ap")
"""Figures of classes that stand in tables; all others stand in JSON and CSV."""


@dataclass(frozen=True)
class Difference:
    """A figure of two systems.

    Attributes:
        metric: name of the metric.
        label: class; ``*`` for an average.
        figure: name of the figure.
        system: the other system.
        first: the figure of the first system.
        other: the figure of the other one.
        difference: other less first, with its interval.
        p: how likely a difference as far from 0 is by chance; see `Resampling.p_value`.
    """

    metric: str
    label: str
    figure: str
    system: str
    first: Score
    other: Score
    difference: Score
    p: float | None


@dataclass(frozen=True)
class Comparison:
    """Several systems on the same recordings.

    Attributes:
        reports: name of a system -> its evaluation; the others are compared with the first.
        differences: of each other system, metric by metric, averages before classes.
        samples: resamplings of the recordings.
    """

    reports: Mapping[str, Report]
    differences: tuple[Difference, ...]
    samples: int

    @property
    def systems(self) -> tuple[str, ...]:
        """Names of the systems."""
        return tuple(self.reports)

    def of(self, metric: str, *, classes: bool) -> list[list[Difference]]:
        """Differences of one metric, those of all systems together for a figure or a class.

        Args:
            metric: its name.
            classes: the main figure of each class, rather than the averages.
        """
        rows: dict[tuple[str, str], list[Difference]] = {}
        for each in self.differences:
            main = each.label != "*" and each.figure in MAIN
            if each.metric == metric and (main if classes else each.label == "*"):
                rows.setdefault((each.label, each.figure), []).append(each)
        return list(rows.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "systems": {name: report.to_dict() for name, report in self.reports.items()},
            "differences": [asdict(each) for each in self.differences],
        }


def compare(reports: Mapping[str, Report], settings: Settings) -> Comparison:
    """Compare systems, the others with the first.

    Args:
        reports: name of a system -> its evaluation with a bootstrap, of the same recordings.
        settings: those of the evaluations.

    Raises:
        UsageError: fewer than two systems, no bootstrap, or other recordings.
    """
    first, *others = reports
    if not others or settings.bootstrap == 0:
        raise UsageError("wanted at least two systems, and a bootstrap")
    if len({report.recordings for report in reports.values()}) > 1:
        numbers = ", ".join(f"{name} {report.recordings}" for name, report in reports.items())
        raise UsageError(f"wanted the same recordings for all systems, got {numbers}")
    found = [
        each for other in others for each in _differences(reports[first], reports[other], other, settings)
    ]
    return Comparison(reports, tuple(found), settings.bootstrap)


def _differences(first: Report, other: Report, name: str, settings: Settings) -> Iterator[Difference]:
    draws = Resampling.of(1, settings)  # the number of samples is all that is needed
    own = {metric.name: metric for metric in other.metrics}
    for metric in first.metrics:
        if metric.name not in own:
            continue
        theirs = own[metric.name]
        for (label, figure), values in metric.drawn.items():
            if (label, figure) in theirs.drawn:
                with np.errstate(invalid="ignore"):  # an infinite d-prime less another
                    less: Floats = theirs.drawn[label, figure] - values
                yield Difference(
                    metric.name,
                    label,
                    figure,
                    name,
                    score_of(metric, label, figure),
                    score_of(theirs, label, figure),
                    draws.score(less),
                    draws.p_value(less),
                )


def names_of(paths: Sequence[str]) -> list[str]:
    """Short names of systems: the last part of each path, or the whole path where two are alike."""
    from pathlib import PurePath

    short = [PurePath(path).stem for path in paths]
    return [name if short.count(name) == 1 else path for name, path in zip(short, paths, strict=True)]
