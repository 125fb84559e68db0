"""Polyphonic sound detection score (PSDS) from presence maps, with psds_eval.

Source: Bilen et al., *A Framework for the Robust Evaluation of Sound Event Detection*, ICASSP 2020; the
scenarios are those of DCASE task 4 since 2021.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from htsat_sed.detection.events import PostProcessing, find_events
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.counts import Floats, ratio
from htsat_sed.evaluation.intersection import CountedEvents, frame, label_matrix, psds_evaluator
from htsat_sed.evaluation.tables import Pair


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Parameters of a PSDS.

    Attributes:
        dtc: detection tolerance criterion.
        gtc: ground truth criterion.
        cttc: cross-trigger tolerance criterion.
        alpha_ct: cost of cross-triggers.
        alpha_st: cost of instability across classes.
        max_efpr: highest effective false positive rate, per hour.
    """

    dtc: float
    gtc: float
    cttc: float
    alpha_ct: float
    alpha_st: float
    max_efpr: float = 100.0


SCENARIO_1 = Scenario(dtc=0.7, gtc=0.7, cttc=0.3, alpha_ct=0.0, alpha_st=1.0)
SCENARIO_2 = Scenario(dtc=0.1, gtc=0.1, cttc=0.3, alpha_ct=0.5, alpha_st=1.0)


@dataclass(frozen=True, eq=False)
class OperatingPoints:
    """What a PSDS is made of, by recording.

    Attributes:
        scenario: the parameters.
        tp: (N, R, K) true positives of each threshold, recording and class.
        fp: (N, R, K) false positives.
        ct: (N, R, K, K) cross-triggers, estimated by reference class; (N, R, 0, 0) where they cost nothing.
        reference: (R, K) reference events.
        active: (R, K) seconds in which a class is active.
        durations: (R,) seconds.
        value: the PSDS of all recordings, by psds_eval.
        curve: PSD-ROC: effective false positive rates per hour, and effective true positive ratios.
    """

    scenario: Scenario
    tp: Floats
    fp: Floats
    ct: Floats
    reference: Floats
    active: Floats
    durations: Floats
    value: float
    curve: tuple[Floats, Floats]

    def resampled(self, weights: Floats) -> Floats:
        """PSDS of each resampling of the recordings: (samples, R) weights to (samples,)."""
        return np.array([self._psds(each) for each in weights])

    def _psds(self, weights: Floats) -> float:
        """PSDS of weighted recordings, by the definition; equal weights give `value`."""
        hours = weights @ self.durations / 3600.0
        tpr = ratio(np.einsum("r,nrk->nk", weights, self.tp), weights @ self.reference)
        rate = np.einsum("r,nrk->nk", weights, self.fp) / hours
        if self.scenario.alpha_ct > 0.0 and self.ct.shape[-1] > 1:
            active = weights @ self.active / 3600.0
            triggered = ratio(np.einsum("r,nrkj->nkj", weights, self.ct), active)
            triggered[:, np.arange(len(active)), np.arange(len(active))] = np.nan
            rate = rate + self.scenario.alpha_ct * _mean_of_defined(triggered)
        heard = ~np.isnan(tpr).any(axis=0)  # a resampling may have lost all events of a class
        if not heard.any():
            return float("nan")
        return _area(rate[:, heard], tpr[:, heard], self.scenario)


def _mean_of_defined(values: Floats) -> Floats:
    """Mean along the last axis, of what is not NaN; 0 where nothing is defined."""
    defined = ~np.isnan(values)
    total: Floats = np.where(defined, values, 0.0).sum(axis=-1) / np.maximum(1, defined.sum(axis=-1))
    return total


def _area(rate: Floats, tpr: Floats, scenario: Scenario) -> float:
    """Normalised area under the PSD-ROC of operating points (N, K)."""
    x = np.unique(np.append(rate.ravel(), 0.0))
    steps = np.zeros((tpr.shape[1], len(x)))
    for k in range(tpr.shape[1]):
        np.maximum.at(steps[k], np.searchsorted(x, rate[:, k]), tpr[:, k])
    steps = np.maximum.accumulate(steps, axis=1)
    y = np.maximum(steps.mean(axis=0) - scenario.alpha_st * steps.std(axis=0), 0.0)
    kept = x < scenario.max_efpr
    widths = np.diff(np.append(x[kept], scenario.max_efpr))
    return float((y[kept] * widths).sum() / scenario.max_efpr)


def thresholds(count: int) -> Floats:
    """Thresholds in the middle of `count` equal parts of [0, 1]."""
    return (np.arange(count) + 0.5) / count


def operating_points(
    events: Pair,
    maps: Mapping[str, PresenceMap],
    scenario: Scenario,
    *,
    count: int = 50,
    post_processing: PostProcessing | None = None,
) -> OperatingPoints:
    """Detect with many thresholds and count.

    Args:
        events: the reference (its estimated events play no part); durations come from the maps.
        maps: recording -> presence map; a recording without one counts as without detections.
        scenario: parameters of the PSDS.
        count: thresholds that approximate the curve, see `thresholds`.
        post_processing: median filter, gaps and shortest events that go with every threshold.
    """
    rules = post_processing or PostProcessing()
    durations = {name: m.duration for name, m in maps.items()}
    known = {
        name: seconds for name, seconds in zip(events.recordings, events.durations, strict=True) if seconds
    }
    events = Pair(
        events.recordings,
        events.labels,
        events.reference,
        tuple(() for _ in events.recordings),
        tuple(durations.get(name, known.get(name)) for name in events.recordings),
    )
    evaluator = psds_evaluator(events, dtc=scenario.dtc, gtc=scenario.gtc, cttc=scenario.cttc)
    tp, fp, ct = [], [], []
    for threshold in thresholds(count):
        at = rules.override({"threshold": float(threshold)})
        found = [
            [e for e in find_events(maps[name], at) if e.label in events.labels] if name in maps else []
            for name in events.recordings
        ]
        table = frame(events.recordings, found)
        with warnings.catch_warnings():
            # Two thresholds without a score between them; the first one stands for both.
            warnings.filterwarnings("error", message="A similar operating point exists")
            try:
                evaluator.add_operating_point(table)
            except UserWarning:
                continue
        counted = evaluator.counted
        tp.append(label_matrix(counted.found, events))
        fp.append(label_matrix(counted.failed, events))
        ct.append(_cross_triggers(counted, events, wanted=scenario.alpha_ct > 0.0))
    with warnings.catch_warnings():
        # A class pair that never cross-triggers has no rate; numpy 2 warns of a conversion in psds_eval.
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        score = evaluator.psds(
            alpha_ct=scenario.alpha_ct, alpha_st=scenario.alpha_st, max_efpr=scenario.max_efpr
        )
    active = np.zeros((len(events.recordings), len(events.labels)))
    reference = np.zeros_like(active)
    for i, own in enumerate(events.reference):
        for event in own:
            active[i, events.labels.index(event.label)] += event.offset - event.onset
            reference[i, events.labels.index(event.label)] += 1
    return OperatingPoints(
        scenario,
        np.stack(tp),
        np.stack(fp),
        np.stack(ct),
        reference,
        active,
        evaluator.metadata.set_index("filename").duration[list(events.recordings)].to_numpy(float),
        float(score.value),
        (np.asarray(score.plt.xp), np.asarray(score.plt.yp)),
    )


def _cross_triggers(counted: CountedEvents, events: Pair, *, wanted: bool) -> Floats:
    """Cross-triggers by recording, estimated and reference class."""
    side = len(events.labels) if wanted else 0
    matrix = np.zeros((len(events.recordings), side, side))
    if wanted:
        row = {name: i for i, name in enumerate(events.recordings)}
        column = {label: i for i, label in enumerate(events.labels)}
        sizes: dict[tuple[str, str, str], int] = counted.crossed.to_dict()  # type: ignore[assignment]
        for (name, estimated, reference), size in sizes.items():
            matrix[row[name], column[estimated], column[reference]] = size
    return matrix
