"""Counts of true and false positives: intersection-based, collar-based and segment-based.

A column is a unit that is counted separately: one class of one recording, or one recording at one threshold.
All columns are counted at once. The counts equal those of psds_eval and sed_eval;
`htsat_sed.evaluation.check` and the tests compare them.

Sources: Bilen et al., *A Framework for the Robust Evaluation of Sound Event Detection*, ICASSP 2020 (arXiv
1910.08440); Mesaros, Heittola and Virtanen, *Metrics for Polyphonic Sound Event Detection*, Applied Sciences
6(6), 2016.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from htsat_sed.detection.event_arrays import EventArrays
from htsat_sed.detection.events import Event
from htsat_sed.evaluation.counts import Counts, Floats
from htsat_sed.evaluation.report import Settings
from htsat_sed.evaluation.tables import Pair

Ints = NDArray[np.int64]
ColumnCounter = Callable[[EventArrays, Ints, "References", Settings], tuple[Floats, Floats]]


class References(NamedTuple):
    """Reference events by row; each column is compared with one row.

    Attributes:
        spans: (n, 2) onsets and offsets in seconds; ordered and disjoint within a row.
        number: (R,) events of each row.
    """

    spans: Floats
    number: Ints

    @property
    def row(self) -> Ints:
        """Row of each event, (n,)."""
        return np.repeat(np.arange(len(self.number)), self.number)


def intersection_counts(events: Pair, *, dtc: float = 0.5, gtc: float = 0.5) -> Counts:
    """Intersection-based counts; see `intersection`.

    Args:
        events: reference and estimated events.
        dtc: detection tolerance criterion, 0 to 1.
        gtc: ground truth criterion, 0 to 1.
    """
    estimated, references = event_columns(events)
    found = intersection(estimated, np.arange(len(references.number)), references, Settings(dtc=dtc, gtc=gtc))
    return _by_recording(found, references.number.astype(float), events)


def collar_counts(
    events: Pair,
    *,
    onset_collar: float = 0.2,
    offset_collar: float = 0.2,
    offset_share: float = 0.2,
    offset: bool = True,
) -> Counts:
    """Collar-based (event-based) counts; see `collar`.

    Args:
        events: reference and estimated events.
        onset_collar: seconds, more than 0.
        offset_collar: seconds, more than 0.
        offset_share: fraction of the reference event's duration, 0 to 1.
        offset: whether offsets have to match.
    """
    estimated, references = event_columns(events)
    allowed = offset_collar if offset else np.inf
    every = np.arange(len(references.number))
    found = _matched(estimated, every, references, onset_collar, allowed, offset_share)
    return _by_recording(found, references.number.astype(float), events)


def segment_counts(events: Pair, *, resolution: float = 1.0) -> Counts:
    """Segment-based counts; see `segment`.

    Args:
        events: reference and estimated events.
        resolution: duration of a segment in seconds, more than 0.
    """
    estimated, references = event_columns(events)
    settings = Settings(segment=resolution)
    found = segment(estimated, np.arange(len(references.number)), references, settings)
    return _by_recording(found, wanted("segment", references, settings), events)


def event_columns(events: Pair) -> tuple[EventArrays, References]:
    """Estimated and reference events, with one column and one row for each class of each recording."""
    size = len(events.recordings) * len(events.labels)
    column, spans = stacked(events.estimated, events.labels)
    row, reference = stacked(events.reference, events.labels)
    estimated = EventArrays(column, spans[:, 0], spans[:, 1], np.zeros(len(column), np.float32))
    return estimated, References(reference, np.bincount(row, minlength=size))


def stacked(events: Sequence[Sequence[Event]], labels: Sequence[str]) -> tuple[Ints, Floats]:
    """Events ordered by recording, class and onset: recording * K + class (n,), onsets and offsets (n, 2)."""
    place = {label: k for k, label in enumerate(labels)}
    rows = sorted(
        (i * len(labels) + place[e.label], e.onset, e.offset) for i, own in enumerate(events) for e in own
    )
    return np.array([row[0] for row in rows], np.int64), np.array([row[1:] for row in rows], float).reshape(
        -1, 2
    )


def _by_recording(found: tuple[Floats, Floats], present: Floats, events: Pair) -> Counts:
    shape = (len(events.recordings), len(events.labels))
    tp, fp = (values.reshape(shape) for values in found)
    return Counts(tp, fp, present.reshape(shape) - tp)


def intersection(
    spans: EventArrays, row: Ints, references: References, settings: Settings
) -> tuple[Floats, Floats]:
    """True and false positives of each column.

    An estimated event meets the detection tolerance criterion (DTC) if at least that fraction of it lies in
    reference events. A reference event is a true positive if estimated events that meet the DTC cover at
    least a fraction of it given by the ground truth criterion (GTC). An estimated event that fails the DTC is
    a false positive.

    Args:
        spans: estimated events.
        row: (C,) row of each column.
        references: reference events.
        settings: the criteria.

    Returns:
        (C,) each.
    """
    shared = overlaps(spans.onset, spans.offset, row[spans.column], references)
    met = criterion(shared.estimated, shared.part, settings.dtc, len(spans.column))
    counts = met[shared.estimated]
    # A reference event is compared with all columns of its row.
    estimated, reference = shared.estimated[counts], shared.reference[counts]
    each = spans.column[estimated] * len(references.spans) + reference
    coverage = sums(each, shared.cover[counts])
    found = coverage.index.to_numpy()[coverage.to_numpy() >= settings.gtc] // max(1, len(references.spans))
    tp, fp = (np.bincount(column, minlength=len(row)).astype(float) for column in (found, spans.column[~met]))
    return tp, fp


def collar(
    spans: EventArrays, row: Ints, references: References, settings: Settings
) -> tuple[Floats, Floats]:
    """True and false positives of each column.

    An estimated event matches a reference event if their onsets differ by at most `onset_collar`, and their
    offsets by at most the larger of `offset_collar` and `offset_share` of the reference event's duration. The
    matching has the largest possible number of pairs. Arguments as for `intersection`.
    """
    s = settings
    return _matched(spans, row, references, s.onset_collar, s.offset_collar, s.offset_share)


def _matched(
    spans: EventArrays,
    row: Ints,
    references: References,
    onset_collar: float,
    offset_collar: float,
    offset_share: float,
) -> tuple[Floats, Floats]:
    begin, end = spans.onset - onset_collar, spans.onset + onset_collar
    estimated, reference = _near(begin, end, row[spans.column], references)
    onset, offset = references.spans[reference].T
    allowed = np.maximum(offset_collar, offset_share * (offset - onset))
    hit = np.abs(spans.onset[estimated] - onset) <= onset_collar
    hit &= np.abs(spans.offset[estimated] - offset) <= allowed
    every = np.bincount(spans.column, minlength=len(row)).astype(float)
    if not hit.any():
        return np.zeros(len(row)), every
    estimated, reference = estimated[hit], reference[hit]
    # A reference event is matched in every column of its row. Pairs stay within a column, so one matching
    # serves all columns.
    each = spans.column[estimated] * len(references.spans) + reference
    slots, slot = np.unique(each, return_inverse=True)
    graph = csr_matrix((np.ones(len(slot), bool), (estimated, slot)), shape=(len(spans.column), len(slots)))
    matched = maximum_bipartite_matching(graph, perm_type="column") >= 0
    tp = np.bincount(spans.column[matched], minlength=len(row)).astype(float)
    return tp, every - tp


def segment(
    spans: EventArrays, row: Ints, references: References, settings: Settings
) -> tuple[Floats, Floats]:
    """True and false positives of each column, in segments of `segment` seconds from 0.

    An event is active in every segment that it overlaps. Arguments as for `intersection`.
    """
    begin, end = _segments(spans.column, spans.onset, spans.offset, settings.segment)
    active = References(_reference_segments(references, settings.segment), references.number)
    shared = overlaps(begin, end, row[spans.column], active)
    column = spans.column[shared.estimated]
    tp: Floats = np.bincount(column, shared.length, minlength=len(row)).astype(float)
    return tp, np.bincount(spans.column, end - begin, minlength=len(row)) - tp


def wanted(metric: str, references: References, settings: Settings) -> Floats:
    """Number of reference events, or of active segments for ``segment``, in each row, (R,)."""
    if metric != "segment":
        return references.number.astype(float)
    number = np.diff(_reference_segments(references, settings.segment), axis=1)[:, 0]
    return np.bincount(references.row, number, minlength=len(references.number)).astype(float)


def _reference_segments(references: References, resolution: float) -> Floats:
    onset, offset = references.spans.T
    return np.stack(_segments(references.row, onset, offset, resolution), axis=1)


def _segments(group: Ints, onset: Floats, offset: Floats, resolution: float) -> tuple[Floats, Floats]:
    """Segments of each event, half-open, without those of earlier events in its group."""
    begin, end = np.floor(onset / resolution), np.ceil(offset / resolution)
    before = np.where(group[1:] == group[:-1], end[:-1], 0.0)
    return np.maximum(begin, np.append(0.0, before)[: len(begin)]), end


class Overlaps(NamedTuple):
    """Pairs of an estimated event and a reference event of its row that overlap.

    Attributes:
        estimated: (P,) index of the estimated event.
        reference: (P,) index of the reference event.
        length: (P,) duration of the overlap, more than 0.
        part: (P,) the overlap as a fraction of the estimated event.
        cover: (P,) the overlap as a fraction of the reference event.
    """

    estimated: Ints
    reference: Ints
    length: Floats
    part: Floats
    cover: Floats

    def where(self, kept: NDArray[np.bool_]) -> Overlaps:
        """The pairs selected by a mask."""
        return Overlaps._make(values[kept] for values in self)


def overlaps(onset: Floats, offset: Floats, row: Ints, references: References) -> Overlaps:
    """Overlaps of estimated events (n,) with the reference events of their rows."""
    estimated, reference = _near(onset, offset, row, references)
    starts, ends = references.spans[reference].T
    length = np.minimum(offset[estimated], ends) - np.maximum(onset[estimated], starts)
    kept = length > 0.0
    estimated, reference, length = estimated[kept], reference[kept], length[kept]
    part = length / (offset - onset)[estimated]
    return Overlaps(estimated, reference, length, part, length / (ends - starts)[kept])


def _near(begin: Floats, end: Floats, row: Ints, references: References) -> tuple[Ints, Ints]:
    """Pair time spans with the reference events of their rows that overlap them, and possibly a few more.

    Args:
        begin: (n,) seconds.
        end: (n,) seconds.
        row: (n,).
        references: R rows.

    Returns:
        Indices of spans and of reference events, (P,) each, ordered.
    """
    # All rows follow each other on one time axis; `slack` covers its rounding errors.
    latest = max(end.max(initial=0.0), references.spans.max(initial=0.0), -begin.min(initial=0.0))
    stride = 4.0 * (latest + 1.0)
    slack = 4.0 * np.spacing(stride * (len(references.number) + 1))
    onset, offset = (references.row * stride + edge for edge in references.spans.T)
    first = np.searchsorted(offset, row * stride + begin - slack)
    number = np.maximum(np.searchsorted(onset, row * stride + end + slack) - first, 0)
    stretch = np.repeat(np.arange(len(row)), number)
    place = np.arange(len(stretch)) - np.repeat(np.cumsum(number) - number, number)
    return stretch, first[stretch] + place


def criterion(group: Ints, parts: Floats, least: float, groups: int) -> NDArray[np.bool_]:
    """Whether the parts of each group sum to at least `least` and more than 0, (groups,)."""
    met = np.zeros(groups, bool)
    total = sums(group, parts)
    met[total.index.to_numpy()] = total.to_numpy() >= least
    return met


def sums(group: Ints, values: Floats) -> pd.Series[float]:
    """Sums of the values of each non-empty group."""
    # By pandas, as in psds_eval, so that rounding at a criterion is identical.
    return pd.Series(values).groupby(group, sort=False).sum()


COUNTERS: Mapping[str, ColumnCounter] = {"intersection": intersection, "collar": collar, "segment": segment}
