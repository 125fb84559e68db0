"""Comparison of figures with sed_eval, psds_eval, sed_scores_eval and scikit-learn.

These libraries are in the extra `reference`, since they need older releases of other libraries.
`docs/evaluation.md` lists figures that only this package defines.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from htsat_sed.detection.events import Event, PostProcessing
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.errors import UsageError
from htsat_sed.evaluation.clip import ClipScores
from htsat_sed.evaluation.psds import (
    SCENARIO_1,
    SCENARIO_2,
    Lives,
    Scenario,
    detections,
    known_durations,
    thresholds,
)
from htsat_sed.evaluation.report import Compared, Metric, Settings
from htsat_sed.evaluation.tables import Pair
from htsat_sed.libraries import load


def require() -> None:
    """Check that the other implementations can be used.

    Raises:
        UsageError: one is not installed, or does not run beside this pandas.
        LibraryError: one cannot be loaded.
    """
    for library in ("sed_eval", "psds_eval", "sed_scores_eval", "sklearn"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # dcase_util imports pkg_resources, which is deprecated
            load(library, purpose="the check", extra="reference")
    if int(pd.__version__.partition(".")[0]) >= 3:
        raise UsageError(
            f"the check needs pandas below 3 for psds_eval, got {pd.__version__}: "
            "pip install 'htsat-sed[reference]'"
        )


def check_strong(
    events: Pair,
    maps: Mapping[str, PresenceMap],
    clips: ClipScores | None,
    metrics: Sequence[Metric],
    settings: Settings,
    post_processing: PostProcessing,
) -> tuple[Compared, ...]:
    """Compare figures of strong labels.

    Args:
        events: scored events, with known durations.
        maps: recording -> presence map, for PSDS; the events found in them are not checked.
        clips: clip scores with weak labels, for the clip-level metrics; None if there are none.
        metrics: metrics to check.
        settings: parameters of the metrics.
        post_processing: post-processing at every threshold of a PSDS.
    """
    by_sed_eval = {
        "collar": _collars(events, settings, offset=True),
        "onset": _collars(events, settings, offset=False),
        "segment": _segments(events, settings),
    }
    found = [*_compared(metrics, "intersection", "psds_eval", _by_psds_eval(events, settings))]
    for name, metric in by_sed_eval.items():
        found += _compared(metrics, name, "sed_eval", _by_sed_eval(metric, events))
    if maps and len(events.labels) > 1:  # psds_eval has no cross-trigger rate for a single class
        count = settings.psds_thresholds
        lives = detections(events, maps, count=count, post_processing=post_processing)
        for name, scenario in (("psds1", SCENARIO_1), ("psds2", SCENARIO_2)):
            library, theirs = (
                ("psds_eval", _psds(events, lives, scenario, count))
                if count
                else ("sed_scores_eval", _exact_psds(events, lives, scenario))
            )
            found += _compared(metrics, name, library, theirs)
    return (*found, *(check_clips(clips, metrics) if clips is not None else ()))


def check_clips(clips: ClipScores, metrics: Sequence[Metric]) -> tuple[Compared, ...]:
    """Compare average precision and AUC.

    Args:
        clips: clip scores with weak labels.
        metrics: metrics to check.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    figures: dict[tuple[str, str], float] = {}
    for key, mean, score in (("ap", "map", average_precision_score), ("auc", "auc", roc_auc_score)):
        values = [score(y, s) for y, s in zip(clips.present.T, clips.scores.T, strict=True)]
        figures |= {(label, key): value for label, value in zip(clips.labels, values, strict=True)}
        figures["*", mean] = float(np.mean(values))
        figures["*", f"micro_{key}"] = score(clips.present.ravel(), clips.scores.ravel())
    return _compared(metrics, "clip", "scikit-learn", figures)


def _compared(
    metrics: Sequence[Metric], name: str, library: str, theirs: Mapping[tuple[str, str], float]
) -> tuple[Compared, ...]:
    """Pair the figures of a library with those of the metric of that name."""
    metric = next(each for each in metrics if each.name == name)
    ours = {("*", figure): score.value for figure, score in metric.headline.items()}
    ours |= {(label, figure): v for label, own in metric.classes.items() for figure, v in own.items()}
    return tuple(
        Compared(name, label, figure, library, ours[label, figure], None if np.isnan(v) else float(v))
        for (label, figure), v in theirs.items()
    )


def _psds(events: Pair, found: Lives, scenario: Scenario, count: int) -> dict[tuple[str, str], float]:
    """PSDS by psds_eval, of detections at `count` thresholds."""
    criteria = {"dtc": scenario.dtc, "gtc": scenario.gtc, "cttc": scenario.cttc}
    evaluator = _evaluator(events, known_durations(events), **criteria)
    table = pd.DataFrame(
        {
            "filename": found.recording,
            "onset": found.onset,
            "offset": found.offset,
            "event_label": np.array(events.labels, object)[found.label],
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for threshold in thresholds(count):
            evaluator.add_operating_point(table[(found.low <= threshold) & (threshold < found.high)])
        value = evaluator.psds(scenario.alpha_ct, scenario.alpha_st, scenario.max_efpr).value
    return {("*", "psds"): float(value)}


def _exact_psds(events: Pair, found: Lives, scenario: Scenario) -> dict[tuple[str, str], float]:
    """PSDS by sed_scores_eval's counting and curves, from the detections at all thresholds."""
    from sed_scores_eval.intersection_based import psds

    crossed = scenario.alpha_ct > 0.0
    value, by_class, *_ = psds(
        None,
        {str(i): _apart(own) for i, own in enumerate(events.reference)},
        {str(i): seconds for i, seconds in enumerate(known_durations(events))},
        deltas=_deltas(events, found, scenario, crossed=crossed),
        dtc_threshold=scenario.dtc,
        gtc_threshold=scenario.gtc,
        cttc_threshold=scenario.cttc if crossed else None,
        alpha_ct=scenario.alpha_ct,
        alpha_st=scenario.alpha_st,
        max_efpr=scenario.max_efpr,
    )
    return {("*", "psds"): value, **{(label, "psds"): by_class[label] for label in events.labels}}


def _apart(events: Sequence[Event]) -> list[tuple[float, float, str]]:
    """Events as sed_scores_eval requires them: those of a class do not touch."""
    ends: dict[str, float] = {}
    rows = []
    for event in events:
        onset = event.onset + (1e-9 if ends.get(event.label) == event.onset else 0.0)
        rows.append((onset, event.offset, event.label))
        ends[event.label] = event.offset
    return rows


def _deltas(events: Pair, found: Lives, scenario: Scenario, *, crossed: bool) -> dict[str, dict[str, Any]]:
    """Changes of sed_scores_eval's counts at each threshold, by recording and class."""
    from sed_scores_eval.base_modules.statistics import _deltas_from_intermediate_statistics
    from sed_scores_eval.intersection_based.intermediate_statistics import statistics_fn

    places: dict[tuple[int, int], list[int]] = {}
    for place, key in enumerate(zip(found.recording.tolist(), found.label.tolist(), strict=True)):
        places.setdefault(key, []).append(place)
    deltas: dict[str, dict[str, Any]] = {}
    for i, reference in enumerate(events.reference):
        spans = {
            label: np.array([(e.onset, e.offset) for e in reference if e.label == label]).reshape(-1, 2).T
            for label in events.labels
        }
        for k, label in enumerate(events.labels):
            own = places.get((i, k), [])
            low, high = found.low[own], found.high[own]
            at = np.unique(np.append(high, low[low > -np.inf])) if own else np.ones(1)
            there = (low < at[:, None]) & (at[:, None] <= high)
            others = {other: span for other, span in spans.items() if other != label}
            counts = statistics_fn(
                detection_onset_times=np.where(there, found.onset[own], 0.0),
                detection_offset_times=np.where(there, found.offset[own], 0.0),
                target_onset_times=spans[label][0],
                target_offset_times=spans[label][1],
                other_onset_times={other: span[0] for other, span in others.items()},
                other_offset_times={other: span[1] for other, span in others.items()},
                dtc_threshold=scenario.dtc,
                gtc_threshold=scenario.gtc,
                cttc_threshold=scenario.cttc if crossed else None,
            )
            deltas.setdefault(str(i), {})[label] = _deltas_from_intermediate_statistics(at, counts)
    return deltas


def _collars(events: Pair, settings: Settings, *, offset: bool) -> Any:
    from sed_eval.sound_event import EventBasedMetrics

    class TwoCollars(EventBasedMetrics):  # type: ignore[misc]
        """sed_eval's metric with a separate collar for offsets."""

        def validate_offset(
            self, reference_event: Any, estimated_event: Any, t_collar: float, percentage_of_length: float
        ) -> bool:
            validate = EventBasedMetrics.validate_offset
            return bool(
                validate(reference_event, estimated_event, settings.offset_collar, percentage_of_length)
            )

    return TwoCollars(
        event_label_list=_numbers(events),
        t_collar=settings.onset_collar,
        percentage_of_length=settings.offset_share,
        evaluate_offset=offset,
        event_matching_type="optimal",
    )


def _segments(events: Pair, settings: Settings) -> Any:
    from sed_eval.sound_event import SegmentBasedMetrics

    return SegmentBasedMetrics(event_label_list=_numbers(events), time_resolution=settings.segment)


def _numbers(events: Pair) -> list[str]:
    """Class numbers as labels, since dcase_util strips whitespace from labels."""
    return [str(k) for k in range(len(events.labels))]


def _by_sed_eval(metric: Any, events: Pair) -> dict[tuple[str, str], float]:
    from dcase_util.containers import MetaDataContainer

    place = {label: str(k) for k, label in enumerate(events.labels)}

    def container(own: Iterable[Event]) -> Any:
        rows = [{"onset": e.onset, "offset": e.offset, "event_label": place[e.label]} for e in own]
        return MetaDataContainer(rows)

    for reference, estimated in zip(events.reference, events.estimated, strict=True):
        if reference or estimated:
            metric.evaluate(container(reference), container(estimated))
    found: dict[tuple[str, str], float] = {}
    by_class = metric.results_class_wise_metrics()
    for label, number in place.items():
        rates = by_class[number]["f_measure"]
        # NaN for a class that was never estimated; ours is 0.
        found[label, "f1"] = float(np.nan_to_num(rates["f_measure"]))
        found[label, "precision"], found[label, "recall"] = rates["precision"], rates["recall"]
        for name, theirs in (("tp", "Ntp"), ("fp", "Nfp"), ("fn", "Nfn")):
            found[label, name] = metric.class_wise[number][theirs]
    found["*", "macro_f1"] = float(np.mean([found[label, "f1"] for label in events.labels]))
    overall = metric.results_overall_metrics()["f_measure"]
    found["*", "micro_f1"] = float(np.nan_to_num(overall["f_measure"]))
    found["*", "micro_precision"], found["*", "micro_recall"] = overall["precision"], overall["recall"]
    return found


def _by_psds_eval(events: Pair, settings: Settings) -> dict[tuple[str, str], float]:
    # Events past the end of a recording count as false positives.
    ends = known_durations(replace(events, durations=(None,) * len(events.durations)))
    evaluator = _evaluator(events, ends, dtc=settings.dtc, gtc=settings.gtc, cttc=settings.cttc)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, by_class = evaluator.compute_macro_f_score(_table(events.estimated))
    # NaN, and excluded from the mean, for a class without a hit; ours is 0.
    found = {(label, "f1"): float(np.nan_to_num(by_class[label])) for label in events.labels}
    found["*", "macro_f1"] = float(np.mean(list(found.values())))
    return found


def _evaluator(events: Pair, durations: Sequence[float], *, dtc: float, gtc: float, cttc: float) -> Any:
    """psds_eval with the reference; recordings are named by their index."""
    from psds_eval import PSDSEval

    return PSDSEval(
        dtc_threshold=dtc,
        gtc_threshold=gtc,
        cttc_threshold=cttc,
        ground_truth=_table(events.reference),
        metadata=pd.DataFrame({"filename": range(len(durations)), "duration": durations}),
    )


def _table(events: Sequence[Sequence[Event]]) -> pd.DataFrame:
    """The events of each recording as a table for psds_eval."""
    rows = [(i, e.onset, e.offset, e.label) for i, own in enumerate(events) for e in own]
    table = pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"])
    kinds: dict[str, Any] = {"filename": np.int64, "onset": float, "offset": float, "event_label": object}
    return table.astype(kinds)
