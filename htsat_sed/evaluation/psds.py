"""Polyphonic sound detection score (PSDS) from presence maps, exact over all scores that occur.

The events of a recording change only at its scores. A detection therefore exists between two thresholds, and
counts are sums of steps: hits, false positives and cross-triggers begin or end at a threshold. Steps are kept
by recording, so that resamplings of the recordings only weight them.

Sums of times are rounded to microseconds before comparison with a criterion, as in sed_scores_eval, so that
exact matches do not depend on rounding errors. Tests compare with sed_scores_eval and psds_eval.

Sources: Bilen et al., *A Framework for the Robust Evaluation of Sound Event Detection*, ICASSP 2020; Ebbers,
Serizel and Haeb-Umbach, *Threshold-Independent Evaluation of Sound Event Detection Scores*, ICASSP 2022; and
*Post-Processing Independent Evaluation of Sound Event Detection Systems*, DCASE 2023. The scenarios are those
of DCASE task 4 since 2021.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from htsat_sed.detection.events import PostProcessing
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.class_scores import Choice, ClassScores, Ints, Thresholds, middles
from htsat_sed.evaluation.counting import Overlaps, References, overlaps, stacked
from htsat_sed.evaluation.counts import Floats, event_numbers, event_seconds
from htsat_sed.evaluation.tables import Pair

Mask = NDArray[np.bool_]

_FAR = 3.0  # multiple of the highest rate beyond which only guards are evaluated
DECIMALS = 6  # of seconds, in comparisons with a criterion
# Seconds of the median filters of post-processing independent PSDS, those of sed_scores_eval's own tests.
PI_MEDIAN_FILTERS = tuple(k / 5 for k in range(11))


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
SCENARIOS = {"psds1": SCENARIO_1, "psds2": SCENARIO_2}


class Lives(NamedTuple):
    """Detections with the range of thresholds in which they exist, grouped by class.

    Attributes:
        recording: (n,) index of the recording.
        label: (n,) index of the class.
        onset: (n,) seconds.
        offset: (n,) seconds.
        low: (n,) lower end, inclusive; minus infinity if the detection exists at the lowest threshold.
        high: (n,) upper end, exclusive.
    """

    recording: Ints
    label: Ints
    onset: Floats
    offset: Floats
    low: Floats
    high: Floats


class _Steps(NamedTuple):
    """Changes of counts as the threshold falls.

    Attributes:
        threshold: (m,) value at which the change occurs.
        recording: (m,) index of the recording.
        label: (m,) index of the class.
        kind: (m,) -1 for found reference events; the class for false positives; another class for
            cross-triggers with it.
        change: (m,) amount.
    """

    threshold: Floats
    recording: Ints
    label: Ints
    kind: Ints
    change: Floats

    def where(self, chosen: Mask | Ints) -> _Steps:
        """The steps selected by a mask or by indices."""
        return _Steps._make(values[chosen] for values in self)

    def sorted(self) -> _Steps:
        """The steps ordered by class and descending threshold."""
        return self.where(np.lexsort((-self.threshold, self.label)))


class Curve(NamedTuple):
    """Step function: the highest true positive ratio up to each rate.

    Attributes:
        rate: (n,) effective false positives per hour, ascending from 0.
        ratio: (n,) true positive ratio.
    """

    rate: Floats
    ratio: Floats

    def area(self, limit: float) -> float:
        """Mean ratio up to a rate; NaN if a rate is NaN."""
        if np.isnan(self.rate).any():
            return float("nan")
        kept = self.rate < limit
        widths = np.diff(np.append(self.rate[kept], limit))
        return float((self.ratio[kept] * widths).sum() / limit)


@dataclass(frozen=True, eq=False)
class OperatingPoints:
    """Counts of R recordings and K classes at all thresholds.

    Attributes:
        scenario: parameters of the PSDS.
        steps: changes of the counts, ordered.
        reference: (R, K) reference events.
        active: (R, K) seconds of reference events.
        durations: (R,) seconds.
    """

    scenario: Scenario
    steps: _Steps
    reference: Floats
    active: Floats
    durations: Floats

    @cached_property
    def _ends(self) -> Ints:
        """The last step at each threshold of each class, (G,)."""
        return np.flatnonzero(_ends(self.steps.threshold, self.steps.label))

    def _counted(self, w: Floats) -> tuple[Floats, Floats]:
        """Found reference events and effective false positives per hour at each threshold, (G,) each."""
        hours, active = w @ self.durations / 3600.0, w @ self.active / 3600.0
        s, label = self.steps, self.steps.label[self._ends]
        counted = s.change * w[s.recording]
        hit, false = s.kind < 0, s.kind == s.label
        sums = [np.cumsum(counted * hit), np.cumsum(counted * false)]
        if self.scenario.alpha_ct > 0.0 and len(active) > 1:
            occurs = active > 0.0
            others = np.maximum(1, occurs.sum() - occurs)
            cost = self.scenario.alpha_ct * np.where(occurs, 1.0 / np.where(occurs, active, 1.0), 0.0)
            sums.append(np.cumsum(np.where(hit | false, 0.0, counted * cost[s.kind] / others[s.label])))
        # Sums run on across classes: subtract the sum before each class.
        first = np.searchsorted(label, label)
        found, wrong, *crossed = (each[self._ends] - np.append(0.0, each[self._ends])[first] for each in sums)
        with np.errstate(divide="ignore", invalid="ignore"):
            rate: Floats = wrong / hours
        return found, rate + crossed[0] if crossed else rate

    @cached_property
    def _short(self) -> tuple[OperatingPoints, Mask]:
        """The points without thresholds of far too many false positives, and a mask (G,) of guards.

        Changes at a dropped threshold are moved to the next one kept. The first of adjacent dropped
        thresholds is kept as a guard: if its rate is low enough in a resampling, those of the others may be
        as well.
        """
        s, ends = self.steps, self._ends
        label, threshold = s.label[ends], s.threshold[ends]
        far = self._counted(np.ones(len(self.durations)))[1] > _FAR * self.scenario.max_efpr
        guard = far & ~(np.append(False, far[:-1]) & np.append(False, label[1:] == label[:-1]))
        kept = np.flatnonzero(~far | guard)
        group = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=-1))
        later = np.searchsorted(kept, group)
        there = later < len(kept)
        place = kept[np.minimum(later, len(kept) - 1)]
        there &= label[place] == s.label
        place, recording, kind = place[there], s.recording[there], s.kind[there]
        kinds, recordings = self.reference.shape[1] + 1, len(self.durations)
        key, which = np.unique((place * recordings + recording) * kinds + kind + 1, return_inverse=True)
        rest, kind = np.divmod(key, kinds)
        place, recording = np.divmod(rest, recordings)
        change = np.bincount(which, s.change[there], len(key)).astype(float)
        steps = _Steps(threshold[place], recording, label[place], kind - 1, change)
        return replace(self, steps=steps), guard[kept]

    def curves(self, weights: Floats | None = None) -> dict[int, Curve]:
        """PSD-ROC of each class with reference events, for (R,) weights of the recordings."""
        w = np.ones(len(self.durations)) if weights is None else weights
        points: OperatingPoints = self
        found, rate = None, np.zeros(0)
        if weights is not None and len(self._ends):
            points, guards = self._short
            found, rate = points._counted(w)
            if (rate[guards] <= self.scenario.max_efpr).any():
                points, found = self, None
        if found is None:
            found, rate = points._counted(w)
        number, label = w @ self.reference, points.steps.label[points._ends]
        of = {}
        for k in np.flatnonzero(number > 0.0).tolist():
            own = slice(*np.searchsorted(label, (k, k + 1)))
            of[k] = _curve(rate[own], found[own] / number[k], self.scenario)
        return of

    def figures(self, weights: Floats) -> tuple[Floats, Floats]:
        """PSDS (N,) and the area of each class (N, K), for (N, R) weights of the recordings."""
        areas = psds_areas([self], weights)
        return areas.overall, areas.by_class

    def by_fold(self, others: Sequence[OperatingPoints], fold_of: Ints) -> OperatingPoints:
        """Combine points of several folds, these first: each recording has the steps of its fold."""
        every = [each.steps for each in (self, *others)]
        kept = [each.where(fold_of[each.recording] == fold) for fold, each in enumerate(every)]
        return replace(self, steps=_Steps(*(np.concatenate(v) for v in zip(*kept, strict=True))).sorted())


def _curve(rate: Floats, ratio: Floats, scenario: Scenario) -> Curve:
    """The step function of operating points, up to the highest rate."""
    kept = ~(rate > scenario.max_efpr)
    rate, ratio = np.append(0.0, rate[kept].clip(min=0.0)), np.append(0.0, ratio[kept])
    order = np.lexsort((ratio, rate))
    rate, ratio = rate[order], np.maximum.accumulate(ratio[order])
    rises = np.append(True, np.diff(ratio) > 0.0)
    rate, ratio = rate[rises], ratio[rises]
    last = np.append(np.diff(rate) > 0.0, True)
    return Curve(rate[last], ratio[last])


def joined(curves: Sequence[Curve], scenario: Scenario) -> Curve:
    """The curve of all classes: their mean minus the weighted standard deviation, at least 0."""
    if not curves:
        return Curve(np.zeros(1), np.zeros(1))
    rate = np.unique(np.concatenate([curve.rate for curve in curves]))
    steps = np.stack([c.ratio[np.searchsorted(c.rate, rate, side="right") - 1] for c in curves])
    return Curve(rate, np.maximum(steps.mean(axis=0) - scenario.alpha_st * steps.std(axis=0), 0.0))


def best_of(curves: Sequence[Mapping[int, Curve]], scenario: Scenario) -> dict[int, Curve]:
    """The highest ratio at each rate among several post-processings, by class."""
    if len(curves) == 1:
        return dict(curves[0])
    rates = {label: np.concatenate([own[label].rate for own in curves]) for label in curves[0]}
    ratios = {label: np.concatenate([own[label].ratio for own in curves]) for label in curves[0]}
    return {label: _curve(rates[label], ratios[label], scenario) for label in curves[0]}


class Areas(NamedTuple):
    """PSDS of S resamplings.

    Attributes:
        overall: (S,) of all classes.
        by_class: (S, K) areas under the curves of single classes; NaN without reference events.
    """

    overall: Floats
    by_class: Floats


def psds_areas(points: Sequence[OperatingPoints], weights: Floats | None = None) -> Areas:
    """PSDS, or for several post-processings the post-processing independent PSDS (piPSDS).

    Args:
        points: operating points of each post-processing, for the same recordings and classes.
        weights: (S, R), number of times each recording counts; None for once.
    """
    scenario, (recordings, classes) = points[0].scenario, points[0].reference.shape
    drawn = np.ones((1, recordings)) if weights is None else weights
    overall, by_class = np.zeros(len(drawn)), np.full((len(drawn), classes), np.nan)
    for i, own in enumerate(drawn):
        curves = best_of([each.curves(own) for each in points], scenario)
        overall[i] = joined(list(curves.values()), scenario).area(scenario.max_efpr)
        for label, curve in curves.items():
            by_class[i, label] = curve.area(scenario.max_efpr)
    return Areas(overall, by_class)


def psds_curve(points: Sequence[OperatingPoints]) -> Curve:
    """PSD-ROC of all recordings and classes; arguments as for `psds_areas`."""
    scenario = points[0].scenario
    return joined(list(best_of([each.curves() for each in points], scenario).values()), scenario)


def thresholds(count: int) -> Floats:
    """Midpoints of `count` equal parts of [0, 1]."""
    return (np.arange(count) + 0.5) / count


def detections(
    events: Pair,
    maps: Mapping[str, PresenceMap],
    *,
    count: int = 0,
    post_processing: PostProcessing | None = None,
) -> Lives:
    """Detect events at all thresholds that make a difference, or at a few.

    Args:
        events: provides recordings and classes; its events are not used.
        maps: recording -> presence map; without one, or where it lacks a class, there are no detections.
        count: number of thresholds, see `thresholds`; 0 for all.
        post_processing: post-processing at every threshold: median filter, gaps, shortest events; and
            hysteresis, whose low threshold is a fixed share of the threshold.
    """
    rules = post_processing or PostProcessing()
    found = []
    for k, label in enumerate(events.labels):
        of = [i for i, name in enumerate(events.recordings) if name in maps and label in maps[name].labels]
        if of:
            scores = ClassScores([events.recordings[i] for i in of], maps, label)
            lives = class_lives(scores, Choice.of(rules, label), count=count)
            found.append(lives._replace(recording=np.array(of)[lives.recording], label=lives.label + k))
    return Lives(*(np.concatenate(parts) for parts in zip(*found, strict=True))) if found else _NOTHING


_NOTHING = Lives(np.zeros(0, np.int64), np.zeros(0, np.int64), *(np.zeros(0) for _ in range(4)))


def class_lives(scores: ClassScores, choice: Choice, *, count: int = 0) -> Lives:
    """Detections of one class, with index 0, at all thresholds or at `count`."""
    if count:
        at = Thresholds(np.tile(thresholds(count), len(scores)), np.full(len(scores), count))
        inside = at
    else:
        at = scores.thresholds(choice, least=-1.0)  # so that scores of 0 are exceeded as well
        inside = at._replace(value=middles(at.value, np.minimum(at.next, 1.0)))
    places, spans = [], []
    for place, some in scores.spans(choice, inside):
        places.append(place[some.column])
        spans.append(np.stack([some.onset, some.offset]))
    if not places:
        return _NOTHING
    place, (onset, offset) = np.concatenate(places), np.concatenate(spans, axis=1)
    recording = at.recording[place]
    # Merge detections that exist at adjacent thresholds.
    order = np.lexsort((place, offset, onset, recording))
    place, onset, offset, recording = place[order], onset[order], offset[order], recording[order]
    last = _ends(recording, onset, offset, place - np.arange(len(place)))
    new = np.append(True, last[:-1])[: len(last)]
    lowest = np.append(True, at.recording[1:] != at.recording[:-1])[place[new]]
    low = np.where(lowest, -np.inf, at.value[place[new]])
    label = np.zeros(int(new.sum()), np.int64)
    return Lives(recording[new], label, onset[new], offset[new], low, at.next[place[last]])


def _ends(*columns: Ints | Floats) -> Mask:
    """Mask (n,) of the last rows in runs of equal rows."""
    ends = np.ones(len(columns[0]), bool)
    ends[:-1] = False
    for values in columns:
        ends[:-1] |= values[1:] != values[:-1]
    return ends


def operating_points(events: Pair, found: Lives, scenario: Scenario) -> OperatingPoints:
    """Count detections at every threshold.

    Detections that meet the DTC count towards the reference events that they overlap. A reference event is
    found if such detections cover a fraction of it given by the GTC. A detection that fails the DTC is a
    false positive. It is also a cross-trigger of each other class whose reference events cover a fraction of
    it given by the cross-trigger tolerance criterion (CTTC).

    Args:
        events: the reference, with known durations.
        found: from `detections`.
        scenario: parameters of the PSDS.
    """
    k = len(events.labels)
    row, spans = stacked(events.reference, events.labels)
    references = References(spans, np.bincount(row, minlength=len(events.recordings) * k))
    shared = overlaps(found.onset, found.offset, found.recording * k + found.label, references)
    length = found.offset - found.onset
    inside = np.bincount(shared.estimated, shared.length, len(length)).astype(float)
    met = _meets(inside, scenario.dtc * length)
    counts = met[shared.estimated]
    hits = _hits(found, shared.where(counts), references, k, scenario.gtc)
    failed = np.flatnonzero(~met)
    crossing = other = np.zeros(0, np.int64)
    if scenario.alpha_ct > 0.0:
        crossing, other = _cross_triggers(found, failed, references, scenario.cttc, k)
    wrong, kind = np.append(failed, crossing), np.append(found.label[failed], other)
    recording, label = found.recording[wrong], found.label[wrong]
    begins = _Steps(found.high[wrong], recording, label, kind, np.ones(len(wrong)))
    ends = begins._replace(threshold=found.low[wrong], change=-begins.change)
    ends = ends.where(ends.threshold > -np.inf)
    parts = zip(hits, begins, ends, strict=True)
    return OperatingPoints(
        scenario,
        _Steps(*(np.concatenate(values) for values in parts)).sorted(),
        event_numbers(events.reference, events.labels),
        event_seconds(events.reference, events.labels),
        np.array(known_durations(events)),
    )


def _meets(seconds: Floats, least: Floats) -> Mask:
    """Whether times are more than 0 and at least `least`, to a microsecond."""
    rounded = np.round(seconds, DECIMALS)
    met: Mask = (rounded >= np.round(least, DECIMALS)) & (rounded > 0.0)
    return met


def _hits(found: Lives, shared: Overlaps, references: References, classes: int, gtc: float) -> _Steps:
    """Steps at which reference events become found, or cease to be, as the threshold falls.

    Args:
        found: detections.
        shared: overlaps of detections that meet the DTC.
        references: reference events.
        classes: K.
        gtc: ground truth criterion.
    """
    low, high = found.low[shared.estimated], found.high[shared.estimated]
    ending = low > -np.inf
    event = np.append(shared.reference, shared.reference[ending])
    threshold = np.append(high, low[ending])
    order = np.lexsort((-threshold, event))
    event, threshold = event[order], threshold[order]
    covered = np.cumsum(np.append(shared.length, -shared.length[ending])[order])
    ends = _ends(event, threshold)
    event, threshold, covered = event[ends], threshold[ends], covered[ends]
    first = np.append(True, _ends(event)[:-1])[: len(event)]
    # Sums run on across events: subtract the sum before the first row of each.
    reached = np.append(0.0, covered[:-1])[: len(covered)]
    covered = covered - reached[first][np.cumsum(first) - 1]
    onset, offset = references.spans[event].T
    hit = _meets(covered, gtc * (offset - onset)).astype(float)
    change = np.where(first, hit, np.diff(hit, prepend=0.0))
    kept = change != 0.0
    recording, label = np.divmod(references.row[event[kept]], classes)
    return _Steps(threshold[kept], recording, label, np.full(len(label), -1), change[kept])


def _cross_triggers(
    found: Lives, failed: Ints, references: References, cttc: float, classes: int
) -> tuple[Ints, Ints]:
    """Index and reference class of each cross-trigger among failed detections."""
    rows = np.flatnonzero(references.number)
    number = np.bincount(rows // classes, minlength=len(references.number) // classes)
    first = np.cumsum(number) - number
    # Pair failed detections with all classes of their recordings.
    recording = found.recording[failed]
    each = np.repeat(np.arange(len(failed)), number[recording])
    begin = np.cumsum(number[recording]) - number[recording]
    row = rows[np.arange(len(each)) - begin[each] + first[recording[each]]]
    place, other = failed[each], row % classes
    apart = other != found.label[place]
    place, other, row = place[apart], other[apart], row[apart]
    shared = overlaps(found.onset[place], found.offset[place], row, references)
    inside = np.bincount(shared.estimated, shared.length, len(place)).astype(float)
    met = _meets(inside, cttc * (found.offset - found.onset)[place])
    return place[met], other[met]


def known_durations(events: Pair) -> list[float]:
    """Duration of each recording in seconds; if unknown, the end of its last event."""
    rows = zip(events.durations, events.reference, events.estimated, strict=True)
    return [
        max((e.offset for e in (*reference, *estimated)), default=0.0) if known is None else known
        for known, reference, estimated in rows
    ]
