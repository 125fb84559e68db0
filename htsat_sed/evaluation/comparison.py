"""Comparison of systems: differences of all figures, with intervals and p-values.

The figures of two systems are computed from the same resamplings of the recordings (paired bootstrap), so
recordings that are hard for both do not widen the interval of the difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from htsat_sed.errors import UsageError
from htsat_sed.evaluation.bootstrap import Resampling
from htsat_sed.evaluation.counts import Floats
from htsat_sed.evaluation.report import Report, Score, Settings, score_of

MAIN = ("f1", "psds", "ap")
"""Figures of classes shown in tables; JSON and CSV have all figures."""


@dataclass(frozen=True)
class Difference:
    """A figure of two systems.

    Attributes:
        metric: name of the metric.
        label: class; ``*`` for an average.
        figure: name of the figure.
        system: the other system.
        first: the figure of the first system.
        other: the figure of the other system.
        difference: other minus first, with its interval.
        p: p-value of the difference; see `Resampling.p_value`.
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
        differences: differences of each other system, by metric, averages before classes.
        samples: number of resamplings of the recordings.
    """

    reports: Mapping[str, Report]
    differences: tuple[Difference, ...]
    samples: int

    @property
    def systems(self) -> tuple[str, ...]:
        """Names of the systems."""
        return tuple(self.reports)

    def of(self, metric: str, *, classes: bool) -> list[list[Difference]]:
        """Differences of one metric, grouped by figure or class.

        Args:
            metric: name of the metric.
            classes: whether to return the main figure of each class instead of the averages.
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
    """Compare systems with the first one.

    Args:
        reports: name of a system -> its evaluation with a bootstrap, of the same recordings.
        settings: settings of the evaluations.

    Raises:
        UsageError: fewer than two systems, no bootstrap, or different recordings.
    """
    first, *others = reports
    if not others or settings.bootstrap == 0:
        raise UsageError("wanted at least two systems, and a bootstrap")
    if len({report.recordings for report in reports.values()}) > 1:
        numbers = ", ".join(f"{name} {report.recordings}" for name, report in reports.items())
        raise UsageError(f"all systems must have the same recordings, got {numbers}")
    found = [
        each for other in others for each in _differences(reports[first], reports[other], other, settings)
    ]
    return Comparison(reports, tuple(found), settings.bootstrap)


def _differences(first: Report, other: Report, name: str, settings: Settings) -> Iterator[Difference]:
    draws = Resampling.of(1, settings)  # only the number of samples is used
    own = {metric.name: metric for metric in other.metrics}
    for metric in first.metrics:
        if metric.name not in own:
            continue
        theirs = own[metric.name]
        for (label, figure), values in metric.drawn.items():
            if (label, figure) in theirs.drawn:
                with np.errstate(invalid="ignore"):  # difference of infinite d-primes
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
    """Short names of systems: the stem of each path, or the whole path where stems coincide."""
    from pathlib import PurePath

    short = [PurePath(path).stem for path in paths]
    return [name if short.count(name) == 1 else path for name, path in zip(short, paths, strict=True)]
