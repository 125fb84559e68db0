"""All metrics of one comparison, as a report that can be printed, saved and reproduced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from htsat_sed.detection.events import PostProcessing
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.clip import ClipScores, d_prime
from htsat_sed.evaluation.counts import (
    Counts,
    Floats,
    bootstrap_weights,
    f1,
    interval,
    macro_f1,
    micro_f1,
    ratio,
)
from htsat_sed.evaluation.intersection import intersection_counts
from htsat_sed.evaluation.psds import SCENARIO_1, SCENARIO_2, Scenario, operating_points
from htsat_sed.evaluation.sed_eval_counts import collar_counts, segment_counts
from htsat_sed.evaluation.tables import Pair

LIBRARIES = ("htsat-sed", "sed-eval", "psds-eval", "scikit-learn", "numpy", "pandas")


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
        psds_thresholds: thresholds that approximate the PSD-ROC.
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
    psds_thresholds: int = 50
    bootstrap: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no metric can work with.

        Raises:
            ValueError: naming the parameter, what was wanted and what was given.
        """
        for name in ("onset_collar", "offset_collar", "segment"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"wanted {name} of more than 0 s, got {getattr(self, name)}")
        for name in ("offset_share", "dtc", "gtc", "cttc"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"wanted {name} in [0, 1], got {getattr(self, name)}")
        if self.psds_thresholds < 1 or self.bootstrap < 0:
            raise ValueError("wanted psds_thresholds of at least 1 and bootstrap of at least 0")


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
    """

    name: str
    title: str
    parameters: Mapping[str, Any]
    headline: Mapping[str, Score]
    classes: Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True)
class Report:
    """Everything that one evaluation found.

    Attributes:
        recordings: number of recordings.
        metrics: in the order they are shown.
        left_out: classes that were asked for but have no reference event; no macro average has them.
        psd_rocs: name of a PSDS -> effective false positives per hour, and effective true positive ratios.
    """

    recordings: int
    metrics: tuple[Metric, ...]
    left_out: tuple[str, ...]
    psd_rocs: Mapping[str, tuple[Floats, Floats]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the versions of what computed them."""
        return {
            "recordings": self.recordings,
            "classes_without_reference": list(self.left_out),
            "metrics": [asdict(metric) for metric in self.metrics],
            "versions": {name: version(name) for name in LIBRARIES},
        }


def evaluate_events(events: Pair, settings: Settings) -> list[Metric]:
    """Collar-based (with and without offsets), segment-based and intersection-based F1.

    Args:
        events: what to compare; see `htsat_sed.evaluation.tables.pair`.
        settings: parameters.
    """
    s = settings
    collar = {
        "onset_collar": s.onset_collar,
        "offset_collar": s.offset_collar,
        "offset_share": s.offset_share,
    }
    criteria = {"dtc": s.dtc, "gtc": s.gtc, "cttc": s.cttc}
    offset = f"offset {_ms(s.offset_collar)} or {s.offset_share:.0%}"
    counted: list[tuple[str, str, dict[str, Any], Counts]] = [
        (
            "intersection",
            f"intersection-based F1 (DTC {s.dtc:g}, GTC {s.gtc:g}, CTTC {s.cttc:g})",
            criteria,
            intersection_counts(events, **criteria),
        ),
        (
            "collar",
            f"collar-based F1 (onset {_ms(s.onset_collar)}, {offset})",
            collar,
            collar_counts(
                events,
                onset_collar=s.onset_collar,
                offset_collar=s.offset_collar,
                offset_share=s.offset_share,
            ),
        ),
        (
            "onset",
            f"collar-based F1, onsets only ({_ms(s.onset_collar)})",
            {"onset_collar": s.onset_collar},
            collar_counts(events, onset_collar=s.onset_collar, offset=False),
        ),
        (
            "segment",
            f"segment-based F1 ({s.segment:g} s)",
            {"segment": s.segment},
            segment_counts(events, resolution=s.segment),
        ),
    ]
    weights = _weights(len(events.recordings), settings)
    return [
        Metric(name, title, parameters, _headline(counts, weights), _by_class(counts, events.labels))
        for name, title, parameters, counts in counted
    ]


def evaluate_psds(
    events: Pair, maps: Mapping[str, PresenceMap], settings: Settings, post_processing: PostProcessing
) -> tuple[list[Metric], dict[str, tuple[Floats, Floats]]]:
    """PSDS of both scenarios, and their PSD-ROCs.

    Args:
        events: the reference.
        maps: recording -> presence map.
        settings: parameters.
        post_processing: what goes with every threshold.
    """
    metrics: list[Metric] = []
    rocs: dict[str, tuple[Floats, Floats]] = {}
    weights = _weights(len(events.recordings), settings)
    for name, scenario in (("psds1", SCENARIO_1), ("psds2", SCENARIO_2)):
        points = operating_points(
            events, maps, scenario, count=settings.psds_thresholds, post_processing=post_processing
        )
        parameters = asdict(scenario) | {"thresholds": settings.psds_thresholds}
        score = _score(points.value, None if weights is None else points.resampled(weights))
        metrics.append(Metric(name, _psds_title(name, scenario, settings), parameters, {"psds": score}, {}))
        rocs[name] = points.curve
    return metrics, rocs


def evaluate_clips(clips: ClipScores, settings: Settings) -> Metric:
    """Clip-level mean average precision, AUC and d-prime.

    Args:
        clips: scores beside weak labels.
        settings: bootstrap and seed.
    """
    precision, auc = clips.average_precision(), clips.auc()
    weights = _weights(len(clips.present), settings)
    drawn: dict[str, Floats] = {}
    if weights is not None:
        drawn["map"] = np.array([_mean(clips.average_precision(w)) for w in weights])
        drawn["auc"] = np.array([_mean(clips.auc(w)) for w in weights])
        drawn["d_prime"] = d_prime(drawn["auc"])
    means = {"map": _mean(precision), "auc": _mean(auc), "d_prime": float(d_prime(np.array([_mean(auc)]))[0])}
    headline = {name: _score(value, drawn.get(name)) for name, value in means.items()}
    separation = d_prime(auc)
    classes = {
        label: {
            "recordings": float(clips.present[:, k].sum()),
            "ap": _defined(precision[k]),
            "auc": _defined(auc[k]),
            "d_prime": _defined(separation[k]),
        }
        for k, label in enumerate(clips.labels)
    }
    return Metric("clip", "clip-level mAP, AUC and d-prime", {}, headline, classes)


def _headline(counts: Counts, weights: Floats | None) -> dict[str, Score]:
    total = counts.total()
    drawn = None if weights is None else counts.resampled(weights)
    summed = Counts(total.tp.sum(-1), total.fp.sum(-1), total.fn.sum(-1))
    return {
        "macro_f1": _score(macro_f1(total)[0], None if drawn is None else macro_f1(drawn)),
        "micro_f1": _score(micro_f1(total)[0], None if drawn is None else micro_f1(drawn)),
        "micro_precision": _score(ratio(summed.tp, summed.tp + summed.fp)[0], None),
        "micro_recall": _score(ratio(summed.tp, summed.tp + summed.fn)[0], None),
    }


def _by_class(counts: Counts, labels: tuple[str, ...]) -> dict[str, dict[str, float | None]]:
    total = counts.total()
    tp, fp, fn = total.tp[0], total.fp[0], total.fn[0]
    figures = {
        "f1": f1(total)[0],
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "reference": tp + fn,
        "tp": tp,
        "fp": fp,
        "fn": fn,
    }
    return {
        label: {name: _defined(values[k]) for name, values in figures.items()}
        for k, label in enumerate(labels)
    }


def _weights(recordings: int, settings: Settings) -> Floats | None:
    if settings.bootstrap == 0:
        return None
    return bootstrap_weights(recordings, samples=settings.bootstrap, seed=settings.seed)


def _score(value: float, drawn: Floats | None) -> Score:
    found = None if drawn is None else interval(drawn)
    return Score(_defined(value), *(found or (None, None)))


def _mean(values: Floats) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _defined(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:g} ms"


def _psds_title(name: str, s: Scenario, settings: Settings) -> str:
    return (
        f"PSDS scenario {name[-1]} (DTC {s.dtc:g}, GTC {s.gtc:g}, CTTC {s.cttc:g}, alpha_CT {s.alpha_ct:g}, "
        f"alpha_ST {s.alpha_st:g}, {settings.psds_thresholds} thresholds)"
    )
