"""Further metrics: error rates, timing errors, false positives per hour, ranked segments, confusion.

Sources: Mesaros, Heittola and Virtanen, *Metrics for Polyphonic Sound Event Detection*, Applied Sciences
6(6), 2016, for error rates; DCASE 2023 task 4 B and DCASE 2024 task 4 (MAESTRO) for ranked segments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from htsat_sed.detection.events import Event, PostProcessing
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.bootstrap import Resampling
from htsat_sed.evaluation.class_scores import Choice, Ints
from htsat_sed.evaluation.clip import ranking
from htsat_sed.evaluation.counting import criterion, event_columns, intersection_counts, overlaps
from htsat_sed.evaluation.counts import Counts, Floats, mean_of_defined, ratio
from htsat_sed.evaluation.report import Metric, Score, Settings, defined
from htsat_sed.evaluation.tables import Pair
from htsat_sed.evaluation.threshold_curves import ThresholdCurves

Mask = NDArray[np.bool_]

LOW_FPR = 0.1  # limit of MAESTRO's partial AUC
_SLACK = 1e-6  # of a token or segment, for coinciding edges

Maps = Mapping[str, PresenceMap]


def detail_metrics(
    events: Pair, maps: Maps, counts: Mapping[str, Counts], settings: Settings, rules: PostProcessing
) -> list[Metric]:
    """Compute all further metrics.

    Args:
        events: reference and estimated events.
        maps: recording -> presence map; empty to omit metrics of scores.
        counts: counts of events by ``collar`` and of segments by ``segment``.
        settings: parameters.
        rules: post-processing at the best thresholds.
    """
    draws = Resampling.of(len(events.recordings), settings)
    found = [
        _errors("segment", segment_errors(events, settings.segment), counts["segment"], events, draws),
        _errors("collar", collar_errors(events, settings), counts["collar"], events, draws),
        _times(events, settings, draws),
    ]
    if None not in events.durations:
        found.append(_false_positives(events, settings, draws))
    if confused := confusion(events, settings):
        found.append(_confusion(confused))
    if maps:
        found += [_segments(events, maps, settings, draws), _best_thresholds(events, maps, settings, rules)]
    return found


class Errors:
    """Errors summed over classes, by recording.

    Args:
        substitutions: (R,) a wrong class was detected.
        deletions: (R,) nothing was detected.
        insertions: (R,) nothing was present.
        reference: (R,) number of reference events or active segments.
    """

    def __init__(
        self, substitutions: Floats, deletions: Floats, insertions: Floats, reference: Floats
    ) -> None:
        self.parts = np.stack([substitutions, deletions, insertions], axis=1)
        self.reference = reference

    def rates(self, weights: Floats) -> Floats:
        """Substitutions, deletions and insertions relative to the reference, (N, 3)."""
        return ratio(weights @ self.parts, (weights @ self.reference)[:, None])


def segment_errors(events: Pair, resolution: float) -> Errors:
    """Errors in segments, as sed_eval counts them.

    In each segment, pairs of a missed and a wrong class are substitutions; the rest are deletions or
    insertions.

    Args:
        events: reference and estimated events.
        resolution: duration of a segment, seconds.
    """
    rows = []
    for sides in zip(events.reference, events.estimated, strict=True):
        last = max((e.offset for own in sides for e in own), default=0.0)
        reference, estimated = (
            activity(own, events.labels, resolution, int(np.ceil(last / resolution))) for own in sides
        )
        there, found = reference.sum(axis=1), estimated.sum(axis=1)
        hits = (reference & estimated).sum(axis=1)
        substituted = np.minimum(there, found) - hits
        missed, more = np.maximum(there - found, 0), np.maximum(found - there, 0)
        rows.append([part.sum() for part in (substituted, missed, more, there)])
    return Errors(*np.array(rows, float).reshape(-1, 4).T)


def activity(events: Sequence[Event], labels: Sequence[str], resolution: float, segments: int) -> Mask:
    """Whether each class is active in each segment: (segments, K) bool."""
    place = {label: k for k, label in enumerate(labels)}
    active = np.zeros((segments, len(labels)), bool)
    for event in events:
        first, stop = np.floor(event.onset / resolution), np.ceil(event.offset / resolution)
        active[int(first) : int(stop), place[event.label]] = True
    return active


def collar_errors(events: Pair, settings: Settings) -> Errors:
    """Errors of events, as sed_eval counts them.

    Events are matched within their class, with as many pairs as possible. Then, in the order of events, a
    missed event and an unmatched event of another class within its collars form a substitution.
    """
    rows = []
    for reference, estimated in zip(events.reference, events.estimated, strict=True):
        near = _within_collars(reference, estimated, settings)
        same = np.array([[r.label == e.label for e in estimated] for r in reference], bool).reshape(
            near.shape
        )
        # Reference event of each estimated event, or -1.
        partner = maximum_bipartite_matching(csr_matrix(near & same.reshape(near.shape)), perm_type="row")
        missed = np.setdiff1d(np.arange(len(reference)), partner)
        free = partner < 0
        wrong, substituted = int(free.sum()), 0
        for event in missed:
            if (fitting := np.flatnonzero(near[event] & free)).size:
                free[fitting[0]] = False
                substituted += 1
        rows.append((substituted, len(missed) - substituted, wrong - substituted, len(reference)))
    return Errors(*np.array(rows, float).reshape(-1, 4).T)


def _within_collars(reference: Sequence[Event], estimated: Sequence[Event], s: Settings) -> Mask:
    """Whether estimated events (columns) match reference events (rows), regardless of class."""
    theirs = np.array([(e.onset, e.offset) for e in reference]).reshape(-1, 2)
    ours = np.array([(e.onset, e.offset) for e in estimated]).reshape(-1, 2)
    apart = np.abs(theirs[:, None] - ours)
    allowed = np.maximum(s.offset_collar, s.offset_share * (theirs[:, 1] - theirs[:, 0]))
    near: Mask = (apart[..., 0] <= s.onset_collar) & (apart[..., 1] <= allowed[:, None])
    return near


def _errors(kind: str, errors: Errors, counts: Counts, events: Pair, draws: Resampling) -> Metric:
    """Error rates: overall, with substitutions, and by class."""
    rates, drawn = errors.rates(draws.weights), counts.resampled(draws.weights)
    present = drawn.tp + drawn.fn
    deletions, insertions = ratio(drawn.fn, present), ratio(drawn.fp, present)
    of_class = deletions + insertions
    title = "segment-based" if kind == "segment" else "collar-based"
    return draws.metric(
        f"{kind}_errors",
        f"{title} error rate: errors relative to the reference",
        {},
        {
            "error_rate": rates.sum(axis=1),
            "substitution_rate": rates[:, 0],
            "deletion_rate": rates[:, 1],
            "insertion_rate": rates[:, 2],
            "macro_error_rate": mean_of_defined(of_class),
        },
        labels=events.labels,
        by_class={"error_rate": of_class, "deletion_rate": deletions, "insertion_rate": insertions},
    )


def _times(events: Pair, settings: Settings, draws: Resampling) -> Metric:
    """Delays and duration errors of found events."""
    estimated, references = event_columns(events)
    every = np.arange(len(references.number))
    shared = overlaps(estimated.onset, estimated.offset, every[estimated.column], references)
    met = criterion(shared.estimated, shared.part, settings.dtc, len(estimated.column))
    shared = shared.where(met[shared.estimated])
    count = len(references.spans)
    covered = np.bincount(shared.reference, shared.cover, count)
    begin, end = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(begin, shared.reference, estimated.onset[shared.estimated])
    np.maximum.at(end, shared.reference, estimated.offset[shared.estimated])
    hit = np.flatnonzero((covered >= settings.gtc) & (covered > 0.0))
    onset, offset = references.spans[hit].T
    late, longer = begin[hit] - onset, (end[hit] - begin[hit]) - (offset - onset)
    values = {
        "delay": late,
        "delay_size": np.abs(late),
        "duration_error": longer,
        "duration_error_size": np.abs(longer),
    }
    shape = len(events.recordings), len(events.labels)
    row, size = references.row[hit], shape[0] * shape[1]
    number = draws.weights @ np.bincount(row, minlength=size).reshape(shape)
    total = {
        name: draws.weights @ np.bincount(row, each, size).reshape(shape) for name, each in values.items()
    }
    return draws.metric(
        "times",
        f"delay and excess duration of found events, seconds (DTC {settings.dtc:g}, GTC {settings.gtc:g})",
        {"dtc": settings.dtc, "gtc": settings.gtc},
        {name: ratio(each.sum(axis=1), number.sum(axis=1)) for name, each in total.items()},
        labels=events.labels,
        by_class={name: ratio(each, number) for name, each in total.items()},
        numbers={"events": number[0]},
    )


def _false_positives(events: Pair, settings: Settings, draws: Resampling) -> Metric:
    """False positives per hour of recording."""
    counts = intersection_counts(events, dtc=settings.dtc, gtc=settings.gtc).resampled(draws.weights)
    hours = (draws.weights @ np.array(events.durations, float) / 3600.0)[:, None]
    rates = ratio(counts.fp, np.broadcast_to(hours, counts.fp.shape))
    return draws.metric(
        "false_positives",
        f"false positives per hour of recording (DTC {settings.dtc:g})",
        {"dtc": settings.dtc, "hours": float(hours[0, 0])},
        {"per_hour": rates.sum(axis=1)},
        labels=events.labels,
        by_class={"per_hour": rates},
    )


def confusion(events: Pair, settings: Settings) -> dict[tuple[str, str], tuple[int, int]]:
    """Classes detected instead of missed events.

    For a missed reference event, the other class whose estimated events overlap it longest counts, if they
    cover a fraction of it given by the ground truth criterion.

    Returns:
        (class, other class) -> number of confusions, and number of missed events of the class; most frequent
        first.
    """
    missed: Counter[str] = Counter()
    instead: Counter[tuple[str, str]] = Counter()
    for reference, estimated in zip(events.reference, events.estimated, strict=True):
        for event in reference:
            covered: dict[str, float] = {}
            for other in estimated:
                shared = min(other.offset, event.offset) - max(other.onset, event.onset)
                if shared > 0.0:
                    covered[other.label] = covered.get(other.label, 0.0) + shared
            length = event.offset - event.onset
            if covered.pop(event.label, 0.0) >= settings.gtc * length:
                continue
            missed[event.label] += 1
            if covered and max(covered.values()) >= settings.gtc * length:
                instead[event.label, min(covered, key=lambda label: (-covered[label], label))] += 1
    ordered = sorted(instead, key=lambda pair: (-instead[pair], pair))
    return {pair: (instead[pair], missed[pair[0]]) for pair in ordered}


def _confusion(confused: Mapping[tuple[str, str], tuple[int, int]]) -> Metric:
    classes: dict[str, dict[str, float | None]] = {
        f"{label} as {other}": {"events": float(number), "share": number / missed}
        for (label, other), (number, missed) in confused.items()
    }
    title = "classes detected instead of missed events, with their share of the class's missed events"
    return Metric("confusion_by_pair", title, {}, {}, classes)


def _segments(events: Pair, maps: Maps, settings: Settings, draws: Resampling) -> Metric:
    """Metrics of the ranked segments of all recordings, by class."""
    present, scores, recording = segment_scores(events, maps, settings.segment)
    kept: Mask = np.any(present, axis=0) & ~np.all(present, axis=0)
    labels = tuple(events.labels[k] for k in np.flatnonzero(kept))
    columns = [
        ranking(present[:, k].astype(float), scores[:, k], recording, draws.weights.T, limit=LOW_FPR)
        for k in np.flatnonzero(kept)
    ]
    shape = len(draws.weights), 0
    ap, auc, low = (
        (np.stack(values, axis=1) for values in zip(*columns, strict=True))
        if columns
        else (np.zeros(shape),) * 3
    )
    best = [best_threshold(present[:, k], scores[:, k]) for k in np.flatnonzero(kept)]
    return draws.metric(
        "ranked_segments",
        f"segments of {settings.segment:g} s ranked by score: average precision, AUC, AUC below an FPR of "
        f"{LOW_FPR:g}, and the threshold with the highest F1",
        {"segment": settings.segment, "low_fpr": LOW_FPR},
        {
            "map": mean_of_defined(ap),
            "auc": mean_of_defined(auc),
            "low_auc": mean_of_defined(low),
            "best_f1": _without_interval(best, len(draws.weights)),
        },
        labels=labels,
        by_class={"ap": ap, "auc": auc, "low_auc": low},
        numbers={
            "best_threshold": np.array([threshold for threshold, _ in best]),
            "best_f1": np.array([value for _, value in best]),
        },
        left_out=tuple(label for label in events.labels if label not in labels),
    )


def _without_interval(best: Sequence[tuple[float, float]], rows: int) -> Floats:
    """Mean best F1 without interval, since thresholds are not optimised for each resampling."""
    values = np.full(rows, np.nan)
    values[0] = np.mean([value for _, value in best]) if best else np.nan
    return values


def segment_scores(events: Pair, maps: Maps, resolution: float) -> tuple[Mask, Floats, Ints]:
    """Presence and score of each class in each segment, (n, K) each, and the index of the recording, (n,).

    The score of a segment is the highest of the tokens that overlap it; 0 without a presence map.
    """
    present, scores, recording = [], [], []
    for i, (name, own) in enumerate(zip(events.recordings, events.reference, strict=True)):
        made = maps.get(name)
        duration = events.durations[i] or max((e.offset for e in own), default=0.0)
        segments = int(np.ceil(duration / resolution - _SLACK))
        active = activity(own, events.labels, resolution, segments)
        values = np.zeros(active.shape)
        if made is not None and len(made.scores):
            known = [k for k, label in enumerate(events.labels) if label in made.labels]
            tokens = made.scores[:, [made.labels.index(events.labels[k]) for k in known]]
            edges = np.arange(segments + 1) * resolution / made.token_seconds
            first = np.minimum(np.floor(edges[:-1] + _SLACK).astype(int), len(tokens) - 1)
            stop = np.clip(np.ceil(edges[1:] - _SLACK).astype(int), first + 1, len(tokens))
            for segment in range(segments):
                values[segment, known] = tokens[first[segment] : stop[segment]].max(axis=0)
        present.append(active)
        scores.append(values)
        recording.append(np.full(segments, i))
    return np.concatenate(present), np.concatenate(scores), np.concatenate(recording)


def best_threshold(present: Mask, scores: Floats) -> tuple[float, float]:
    """The threshold, exclusive, with the highest F1 of a ranking, and this F1.

    Args:
        present: (n,).
        scores: (n,).
    """
    order = np.argsort(-scores, kind="stable")
    hits, found = np.cumsum(present[order]), np.arange(1, len(order) + 1)
    ends = np.append(np.diff(scores[order]) != 0.0, True)
    values = (2.0 * hits / (found + present.sum()))[ends]
    best = int(np.argmax(values))
    at = scores[order][ends]
    below = float(at[best + 1]) if best + 1 < len(at) else 0.0
    return (float(at[best]) + below) / 2.0, float(values[best])


def _best_thresholds(events: Pair, maps: Maps, settings: Settings, rules: PostProcessing) -> Metric:
    """The highest intersection-based F1 by one threshold per class, with other values unchanged."""
    of = [i for i, name in enumerate(events.recordings) if name in maps]
    mapped = replace(
        events,
        recordings=tuple(events.recordings[i] for i in of),
        reference=tuple(events.reference[i] for i in of),
    )
    classes: dict[str, dict[str, float | None]] = {}
    for label in events.labels:
        curves = ThresholdCurves(mapped, maps, label, "intersection", settings)
        choice, value = curves.best_threshold(Choice.of(rules, label), np.ones(len(of), bool))
        classes[label] = {"best_threshold": choice.threshold, "best_f1": value}
    macro = float(np.mean([own["best_f1"] or 0.0 for own in classes.values()]))
    return Metric(
        "best_thresholds",
        "highest intersection-based F1 by one threshold per class, chosen on the same recordings",
        {"dtc": settings.dtc, "gtc": settings.gtc},
        {"macro_best_f1": Score(defined(macro))},
        classes,
    )
