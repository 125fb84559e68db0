"""What an evaluation was asked for and what it found, as plain values that can be saved and reproduced."""

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
TOLERANCE = 1e-9  # by which two implementations may differ through rounding
LEVEL = 0.95  # of the intervals

UNDEFINED = {
    "precision": "nothing was estimated",
    "micro_precision": "nothing was estimated",
    "d_prime": "the AUC is 0 or 1",
}
"""Why a figure that can be undefined is null."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Parameters of the metrics.

    Attributes:
        onset_collar: seconds.
        offset_collar: seconds.
        offset_share: part of a reference event's duration; the larger of this and the collar counts.
        segment: seconds a segment.
        dtc: detection tolerance criterion of the intersection-based F1.
        gtc: ground truth criterion.
        cttc: cross-trigger tolerance criterion.
        psds_thresholds: thresholds that approximate the PSD-ROC; 0 for all scores that occur, exactly.
        pi_psds: also the PSDS that is independent of post-processing: the best median filter at each rate.
        beta: how many times recall weighs as much as precision in a further F-measure; 1 for F1 alone.
        bootstrap: resamplings of the recordings for the intervals; 0 for no intervals.
        seed: of the resampling.
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
        """Refuse what no metric can work with.

        Raises:
            ValueError: naming the parameter, what was wanted and what was given.
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
        value: the figure; None where it is not defined.
        low: lower end of the 95 % interval over recordings; None without bootstrap.
        high: upper end.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: short name, as in JSON.
        title: what it is, with its parameters.
        parameters: name -> value.
        headline: name of a figure -> the figure.
        classes: class -> name of a figure -> its value; None where it is not defined.
        totals: name of a count -> its sum over the classes.
        left_out: classes that the metric is not defined for.
        intervals: class -> name of a figure -> its 95 % interval, with a bootstrap.
        drawn: class, or ``*``, and name of a figure -> its values for all rows of the resampling; not saved.
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
    """One figure, as CSV has it; None where it is not defined."""

    metric: str
    label: str
    figure: str
    value: float | None
    low: float | None = None
    high: float | None = None


class Compared(NamedTuple):
    """A figure by two implementations; None where it is not defined.

    Attributes:
        metric: name of the metric.
        label: class; ``*`` for an average.
        figure: name of the figure.
        library: what computed `theirs`.
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
        """Absolute difference; infinite where only one of the values is defined."""
        if self.ours is None or self.theirs is None:
            return 0.0 if self.ours == self.theirs else inf
        return abs(self.ours - self.theirs)


@dataclass(frozen=True)
class Report:
    """Everything that one evaluation found.

    Attributes:
        recordings: number of recordings.
        metrics: in the order they are shown.
        left_out: classes that were asked for but have no reference event; no average has them.
        psd_rocs: name of a PSDS -> effective false positives per hour, and effective true positive ratios.
        remarks: what the rules for labels that do not fit met, a line for each.
        compared: figures beside those of other implementations, if that was asked for.
    """

    recordings: int
    metrics: tuple[Metric, ...]
    left_out: tuple[str, ...] = ()
    psd_rocs: Mapping[str, tuple[Floats, Floats]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    compared: tuple[Compared, ...] = ()

    @property
    def largest_difference(self) -> float:
        """Of figures and those of other implementations; infinite where only one is defined."""
        return max((each.difference for each in self.compared), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the versions of what computed them; no value is NaN."""
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
        """Every figure: headlines and totals under the class ``*``, then those of each class."""
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
    """The value, None where it is not a number or infinite."""
    return float(value) if isfinite(value) else None
