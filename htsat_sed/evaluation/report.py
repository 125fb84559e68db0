"""Settings and results of an evaluation, as plain values that can be saved and reproduced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from math import inf, isfinite
from typing import Any, NamedTuple

from htsat_sed.errors import UsageError
from htsat_sed.evaluation.counts import Floats

LIBRARIES = ("htsat-sed", "numpy", "scipy", "pandas")
REFERENCES = ("sed-eval", "psds-eval", "sed-scores-eval", "scikit-learn")
TOLERANCE = 1e-9  # allowed rounding difference of two implementations
LEVEL = 0.95  # confidence level of the intervals

UNDEFINED = {
    "precision": "nothing was estimated",
    "micro_precision": "nothing was estimated",
    "d_prime": "the AUC is 0 or 1",
}
"""Reasons why figures are null."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Parameters of the metrics.

    Attributes:
        onset_collar: seconds.
        offset_collar: seconds.
        offset_share: fraction of a reference event's duration; the larger of this and the collar applies.
        segment: duration of a segment, seconds.
        dtc: detection tolerance criterion of the intersection-based F1.
        gtc: ground truth criterion.
        cttc: cross-trigger tolerance criterion.
        psds_thresholds: number of thresholds that approximate the PSD-ROC; 0 for the exact one.
        pi_psds: also compute post-processing independent PSDS, with the best median filter at each rate.
        beta: weight of recall relative to precision in a further F-measure; 1 for F1 alone.
        bootstrap: number of resamplings of the recordings for intervals; 0 for none.
        seed: random seed of the resampling.
    """

    onset_collar: float = 0.2
    offset_collar: float = 0.2
    offset_share: float = 0.2
    segment: float = 1.0
    dtc: float = 0.5
    gtc: float = 0.5
    cttc: float = 0.3
    psds_thresholds: int = 0
    pi_psds: bool = False
    beta: float = 1.0
    bootstrap: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: a parameter is out of range.
        """
        for name in ("onset_collar", "offset_collar", "segment", "beta"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise UsageError(f"wanted {name} of more than 0, got {getattr(self, name)}")
        for name in ("offset_share", "dtc", "gtc", "cttc"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"wanted {name} in [0, 1], got {getattr(self, name)}")
        for name, least in (("psds_thresholds", 0), ("bootstrap", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"wanted {name} of at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True)
class Score:
    """A figure with its interval.

    Attributes:
        value: the figure; None if undefined.
        low: lower end of the 95 % interval over recordings; None without bootstrap.
        high: upper end; None without bootstrap.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: short name, as in JSON.
        title: description with parameters.
        parameters: name -> value.
        headline: name of a figure -> the figure.
        classes: class -> name of a figure -> its value; None if undefined.
        totals: name of a count -> its sum over the classes.
        left_out: classes for which the metric is undefined.
        intervals: class -> name of a figure -> its 95 % interval; empty without a bootstrap.
        drawn: (class or ``*``, name of a figure) -> its values for all rows of the resampling; not saved.
    """

    name: str
    title: str
    parameters: Mapping[str, Any]
    headline: Mapping[str, Score]
    classes: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    totals: Mapping[str, float] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    intervals: Mapping[str, Mapping[str, tuple[float | None, float | None]]] = field(default_factory=dict)
    drawn: Mapping[tuple[str, str], Floats] = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {key: value for key, value in asdict(replace(self, drawn={})).items() if key != "drawn"}


class Row(NamedTuple):
    """One figure as a row of CSV; None if undefined."""

    metric: str
    label: str
    figure: str
    value: float | None
    low: float | None = None
    high: float | None = None


class Compared(NamedTuple):
    """A figure by two implementations; None if undefined.

    Attributes:
        metric: name of the metric.
        label: class; ``*`` for an average.
        figure: name of the figure.
        library: library of `theirs`.
        ours: value of this package.
        theirs: value of the library.
    """

    metric: str
    label: str
    figure: str
    library: str
    ours: float | None
    theirs: float | None

    @property
    def difference(self) -> float:
        """Absolute difference; infinite if only one of the values is defined."""
        if self.ours is None or self.theirs is None:
            return 0.0 if self.ours == self.theirs else inf
        return abs(self.ours - self.theirs)


@dataclass(frozen=True)
class Report:
    """Results of an evaluation.

    Attributes:
        recordings: number of recordings.
        metrics: metrics in the order of display.
        left_out: requested classes without reference events; no average includes them.
        psd_rocs: name of a PSDS -> effective false positives per hour, and effective true positive ratios.
        remarks: messages about labels that do not match.
        compared: figures with those of other implementations; empty without a check.
    """

    recordings: int
    metrics: tuple[Metric, ...]
    left_out: tuple[str, ...] = ()
    psd_rocs: Mapping[str, tuple[Floats, Floats]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    compared: tuple[Compared, ...] = ()

    @property
    def largest_difference(self) -> float:
        """Largest difference from other implementations; infinite if only one figure is defined."""
        return max((each.difference for each in self.compared), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without NaN, with the versions of the libraries."""
        rocs = {
            name: {"efpr_per_hour": rate.tolist(), "etpr": ratio.tolist()}
            for name, (rate, ratio) in self.psd_rocs.items()
        }
        libraries = LIBRARIES + (REFERENCES if self.compared else ())
        found: dict[str, Any] = {
            "recordings": self.recordings,
            "classes_without_reference": list(self.left_out),
            "remarks": list(self.remarks),
            "metrics": [metric.to_dict() for metric in self.metrics],
            "null_because": UNDEFINED,
            "psd_roc": rocs,
            "versions": {name: version(name) for name in libraries},
        }
        if self.compared:
            largest = self.largest_difference
            found["check"] = {
                "largest_difference": largest if isfinite(largest) else None,
                "figures": [each._asdict() for each in self.compared],
            }
        return found

    def rows(self) -> Iterator[Row]:
        """All figures: headlines and totals as class ``*``, then those of each class."""
        for metric in self.metrics:
            for name, score in metric.headline.items():
                yield Row(metric.name, "*", name, score.value, score.low, score.high)
            for name, value in metric.totals.items():
                yield Row(metric.name, "*", name, value)
            for label, figures in metric.classes.items():
                for name, own in figures.items():
                    low, high = metric.intervals.get(label, {}).get(name, (None, None))
                    yield Row(metric.name, label, name, own, low, high)


def score_of(metric: Metric, label: str, figure: str) -> Score:
    """A figure of a class, or of the headline (``*``), with its interval."""
    if label == "*":
        return metric.headline[figure]
    low, high = metric.intervals.get(label, {}).get(figure, (None, None))
    return Score(metric.classes[label][figure], low, high)


def defined(value: float) -> float | None:
    """The value; None if NaN or infinite."""
    return float(value) if isfinite(value) else None
