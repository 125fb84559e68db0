"""Polyphonic sound detection score (PSDS) from presence maps.

Detections are counted recording by recording; the curve and its area follow from the sums, so that a
resampling of the recordings needs no counting. The tests compare them with psds_eval's.

Source: Bilen et al., *A Framework for the Robust Evaluation of Sound Event Detection*, ICASSP 2020; the
scenarios are those of DCASE task 4 since 2021.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from htsat_sed.detection.event_arrays import find_event_arrays
from htsat_sed.detection.events import PostProcessing, event_rules, median_filter_tokens, smooth
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.counting import Ints, References, criterion, overlaps, stacked, sums
from htsat_sed.evaluation.counts import Floats, event_numbers, event_seconds, ratio
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

_CELLS = 4_000_000  # numbers held at a time


class Detections(NamedTuple):
    """Events found at several thresholds; those of one threshold, recording and class ordered and disjoint.

    Attributes:
        threshold: (n,) place of the threshold.
        recording: (n,) place of the recording.
        label: (n,) place of the class.
        onset: (n,) seconds.
        offset: (n,) seconds.
    """

    threshold: Ints
    recording: Ints
    label: Ints
    onset: Floats
    offset: Floats


@dataclass(frozen=True, eq=False)
class OperatingPoints:
    """What a PSDS is made of: counts at N thresholds of R recordings and K classes.

    Attributes:
        scenario: the parameters.
        thresholds: N.
        tp: (R, N K) true positives, sparse.
        fp: (R, N K) false positives, sparse.
        ct: (R, N K K) cross-triggers, estimated by reference class, sparse.
        reference: (R, K) reference events.
        active: (R, K) seconds in which a class is active.
        durations: (R,) seconds.
    """

    scenario: Scenario
    thresholds: int
    tp: csr_matrix
    fp: csr_matrix
    ct: csr_matrix
    reference: Floats
    active: Floats
    durations: Floats

    @property
    def value(self) -> float:
        """PSDS of all recordings; NaN if there are no seconds to count in."""
        return float(self.resampled(np.ones((1, len(self.durations))))[0])

    @property
    def curve(self) -> tuple[Floats, Floats]:
        """PSD-ROC of all recordings: effective false positives per hour, effective true positive ratios.

        The ratio holds from its rate to the next; the first rate is 0.
        """
        ((rate, tpr),) = self._rates(np.ones((1, len(self.durations))))
        return _curve(rate, tpr, self.scenario)

    def resampled(self, weights: Floats) -> Floats:
        """PSDS of each resampling of the recordings: (samples, R) weights to (samples,)."""
        return np.array(
            [_area(*_curve(rate, tpr, self.scenario), self.scenario) for rate, tpr in self._rates(weights)]
        )

    def _rates(self, weights: Floats) -> Iterator[tuple[Floats, Floats]]:
        """(N, K) effective false positives per hour and true positive ratios of each resampling.

        A class whose events a resampling has all lost is left out of it.
        """
        n, k = self.thresholds, self.reference.shape[1]
        crossed = self.scenario.alpha_ct > 0.0 and k > 1
        size = max(1, _CELLS // (n * k * (k if crossed else 1)))
        for some in (weights[i : i + size] for i in range(0, len(weights), size)):
            hours = (some @ self.durations / 3600.0)[:, None, None]
            number = some @ self.reference
            tpr = ratio((self.tp.T @ some.T).T.reshape(-1, n, k), number[:, None, :])
            rate = ratio((self.fp.T @ some.T).T.reshape(-1, n, k), hours)
            if crossed:
                triggers = (self.ct.T @ some.T).T.reshape(-1, n, k, k)
                rate += self.scenario.alpha_ct * _mean_trigger_rate(triggers, some @ self.active / 3600.0)
            for i, heard in enumerate(number > 0.0):
                yield rate[i][:, heard], tpr[i][:, heard]


def _mean_trigger_rate(triggers: Floats, hours: Floats) -> Floats:
    """Cross-triggers per hour of the other classes, mean over those that occur.

    Args:
        triggers: (S, N, K, K), estimated by reference class; none of a class with itself.
        hours: (S, K) in which a reference class is active.

    Returns:
        (S, N, K).
    """
    occurs = hours > 0.0
    others = np.maximum(1, occurs.sum(axis=1, keepdims=True) - occurs)
    per_hour = np.where(occurs, 1.0 / np.where(occurs, hours, 1.0), 0.0)
    mean: Floats = np.einsum("snkj,sj->snk", triggers, per_hour) / others[:, None, :]
    return mean


def _curve(rate: Floats, tpr: Floats, scenario: Scenario) -> tuple[Floats, Floats]:
    """PSD-ROC of operating points (N, K): the best ratio of each class at most at a rate, joined."""
    x = np.unique(np.append(rate.ravel(), 0.0))
    steps = np.zeros((max(1, tpr.shape[1]), len(x)))
    for k in range(tpr.shape[1]):
        np.maximum.at(steps[k], np.searchsorted(x, rate[:, k]), tpr[:, k])
    steps = np.maximum.accumulate(steps, axis=1)
    return x, np.maximum(steps.mean(axis=0) - scenario.alpha_st * steps.std(axis=0), 0.0)


def _area(x: Floats, y: Floats, scenario: Scenario) -> float:
    """Area under a PSD-ROC up to the highest rate, as a part of the area under 1."""
    if np.isnan(x).any():
        return float("nan")
    kept = x < scenario.max_efpr
    widths = np.diff(np.append(x[kept], scenario.max_efpr))
    return float((y[kept] * widths).sum() / scenario.max_efpr)


def thresholds(count: int) -> Floats:
    """Thresholds in the middle of `count` equal parts of [0, 1]."""
    return (np.arange(count) + 0.5) / count


def detections(
    events: Pair,
    maps: Mapping[str, PresenceMap],
    *,
    count: int = 50,
    post_processing: PostProcessing | None = None,
) -> Detections:
    """Detect with many thresholds.

    Args:
        events: names the recordings and classes; its events play no part.
        maps: recording -> presence map; a recording without one has no detections.
        count: how many thresholds, see `thresholds`.
        post_processing: what goes with every threshold: median filter, gaps, shortest events; and
            hysteresis, whose low threshold keeps its share of the high one.
    """
    rules = post_processing or PostProcessing()
    found = [
        _detections(i, maps[name], events.labels, rules, thresholds(count))
        for i, name in enumerate(events.recordings)
        if name in maps
    ]
    columns = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    return Detections(*(columns or [np.zeros(0, np.int64)] * 3 + [np.zeros(0)] * 2))


def _detections(
    recording: int, found: PresenceMap, wanted: Sequence[str], rules: PostProcessing, at: Floats
) -> tuple[Any, ...]:
    """Places of thresholds, recordings and labels; onsets and offsets: of the events of one map."""
    labels = [label for label in wanted if label in found.labels]
    tokens, classes = len(found.scores), len(labels)
    parts = []
    if tokens and classes:
        own = [rules.of(label) for label in labels]
        widths = [median_filter_tokens(rule.median_filter, found.token_seconds) for rule in own]
        scores = smooth(found.scores[:, [found.labels.index(label) for label in labels]], widths=widths)
        given = event_rules(own, found.token_seconds)
        share = np.where(given.high > 0.0, given.low / np.where(given.high > 0.0, given.high, 1.0), 1.0)
        size = max(1, _CELLS // (tokens * classes))
        for first in range(0, len(at), size):
            some = at[first : first + size]
            high = np.repeat(some, classes)
            tiled = given._replace(**{name: np.tile(v, len(some)) for name, v in given._asdict().items()})
            tiled = tiled._replace(high=high, low=high * np.tile(share, len(some)))
            spans = find_event_arrays(
                np.tile(scores, len(some)),
                tiled,
                token_seconds=found.token_seconds,
                duration=found.duration,
            )
            place, column = np.divmod(spans.column, classes)
            label_places = np.array([wanted.index(label) for label in labels])
            parts.append((first + place, label_places[column], spans.onset, spans.offset))
    place, label, onset, offset = (
        (np.concatenate(values) for values in zip(*parts, strict=True))
        if parts
        else [np.zeros(0, np.int64)] * 4
    )
    return place, np.full(len(place), recording), label, onset.astype(float), offset.astype(float)


def operating_points(
    events: Pair, found: Detections, scenario: Scenario, *, count: int = 50
) -> OperatingPoints:
    """Count detections at every threshold.

    True positives are counted as in `htsat_sed.evaluation.counting.intersection`. A detection that fails the
    DTC is a false positive. It is also a cross-trigger of each other class whose reference events contain at
    least the cross-trigger tolerance criterion's (CTTC) part of it.

    Args:
        events: the reference, with durations as far as known.
        found: from `detections`.
        scenario: parameters of the PSDS.
        count: number of thresholds.
    """
    durations, k = np.array(known_durations(events)), len(events.labels)
    size = len(durations)
    row, spans = stacked(events.reference, events.labels)
    references = References(spans, np.bincount(row, minlength=size * k))
    shared = overlaps(found.onset, found.offset, found.recording * k + found.label, references)
    met = criterion(shared.estimated, shared.part, scenario.dtc, len(found.onset))
    counts = met[shared.estimated]
    each = found.threshold[shared.estimated[counts]] * len(row) + shared.reference[counts]
    coverage = sums(each, shared.cover[counts])
    hits = coverage.index.to_numpy()[coverage.to_numpy() >= scenario.gtc]
    threshold, reference = np.divmod(hits, max(1, len(row)))
    recording, label = np.divmod(row[reference], k)
    tp = _sparse(recording, (threshold, label), (size, count, k))
    # What begins after the end of its recording is no false positive.
    failed = np.flatnonzero(~met & (found.onset < durations[found.recording]))
    fp = _sparse(found.recording[failed], (found.threshold[failed], found.label[failed]), (size, count, k))
    crossed = _cross_triggers(found, np.flatnonzero(~met), references, scenario.cttc, k)
    return OperatingPoints(
        scenario,
        count,
        tp,
        fp,
        _sparse(crossed[0], crossed[1:], (size, count, k, k)),
        event_numbers(events.reference, events.labels),
        event_seconds(events.reference, events.labels),
        durations,
    )


def known_durations(events: Pair) -> list[float]:
    """Seconds of each recording; one whose duration is not known counts as ending with its last event."""
    rows = zip(events.durations, events.reference, events.estimated, strict=True)
    return [
        max((e.offset for e in (*reference, *estimated)), default=0.0) if known is None else known
        for known, reference, estimated in rows
    ]


def _cross_triggers(
    found: Detections, failed: Ints, references: References, cttc: float, classes: int
) -> tuple[Ints, Ints, Ints, Ints]:
    """Recording, threshold, class and reference class of each cross-trigger among failed detections."""
    rows = np.flatnonzero(references.number)
    number = np.bincount(rows // classes, minlength=len(references.number) // classes)
    first = np.cumsum(number) - number
    # Every failed detection with every class that its recording has.
    recording = found.recording[failed]
    each = np.repeat(np.arange(len(failed)), number[recording])
    begin = np.cumsum(number[recording]) - number[recording]
    row = rows[np.arange(len(each)) - begin[each] + first[recording[each]]]
    place, other = failed[each], row % classes
    apart = other != found.label[place]
    place, other, row = place[apart], other[apart], row[apart]
    shared = overlaps(found.onset[place], found.offset[place], row, references)
    met = criterion(shared.estimated, shared.part, cttc, len(place))
    place, other = place[met], other[met]
    return found.recording[place], found.threshold[place], found.label[place], other


def _sparse(recording: Ints, places: tuple[Ints, ...], shape: tuple[int, ...]) -> csr_matrix:
    """How often each recording (rows), and threshold and classes (columns), occur.

    Args:
        recording: (n,).
        places: (n,) each: threshold and classes.
        shape: recordings, thresholds, classes.
    """
    column = np.ravel_multi_index(places, shape[1:])
    size = shape[0], int(np.prod(shape[1:]))
    return csr_matrix((np.ones(len(recording)), (recording, column)), shape=size)
