"""Counts of one class for thousands of operating points at once, for tuning.

A column is one recording with one threshold. The counts are those of `intersection` and `sed_eval_counts`,
which the tests hold them to; these need no tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from htsat_sed.detection.spans import Spans
from htsat_sed.evaluation.counts import Floats
from htsat_sed.evaluation.report import Settings

Ints = NDArray[np.int64]
ColumnCounter = Callable[[Spans, Ints, "References", Settings], tuple[Floats, Floats]]


class References(NamedTuple):
    """Reference events of one class.

    Attributes:
        spans: (n, 2) onsets and offsets in seconds, recording after recording.
        number: (R,) events of each recording.
    """

    spans: Floats
    number: Ints


class _Pairs(NamedTuple):
    """Every estimated event with every reference event of its recording.

    Attributes:
        estimated: (P,) which estimated event.
        reference: (P,) which reference event.
        slot: (P,) which reference event of which column: column * width + place in its recording.
        width: the most reference events of a recording.
    """

    estimated: Ints
    reference: Ints
    slot: Ints
    width: int


def _pairs(spans: Spans, recording: Ints, references: References) -> _Pairs:
    number = references.number[recording[spans.column]]
    estimated = np.repeat(np.arange(len(number)), number)
    place = np.arange(len(estimated)) - np.repeat(np.cumsum(number) - number, number)
    first = np.cumsum(references.number) - references.number
    width = max(1, int(references.number.max(initial=0)))
    column = spans.column[estimated]
    return _Pairs(estimated, first[recording[column]] + place, column * width + place, width)


def intersection(
    spans: Spans, recording: Ints, references: References, settings: Settings
) -> tuple[Floats, Floats]:
    """True and false positives of each column; see `htsat_sed.evaluation.intersection`."""
    pairs, columns = _pairs(spans, recording, references), len(recording)
    onset, offset = references.spans[pairs.reference].T
    starts, ends = spans.onset[pairs.estimated], spans.offset[pairs.estimated]
    shared = np.minimum(ends, offset) - np.maximum(starts, onset)
    touching = shared > 0.0
    estimated, slot, shared = pairs.estimated[touching], pairs.slot[touching], shared[touching]
    part, cover = shared / (ends - starts)[touching], shared / (offset - onset)[touching]

    precision = _sums(estimated, part, len(spans.column))
    met = (precision >= settings.dtc) & (precision > 0.0)
    counts = met[estimated]
    coverage = _sums(slot[counts], cover[counts], columns * pairs.width)
    found = (coverage >= settings.gtc) & (coverage > 0.0)
    tp = found.reshape(columns, pairs.width).sum(axis=1)
    return tp.astype(float), np.bincount(spans.column[~met], minlength=columns).astype(float)


def _sums(group: Ints, values: Floats, groups: int) -> Floats:
    """Sums of the values of each group."""
    # By pandas, as in psds_eval: alike to the last bit, so that what just meets a criterion does so there.
    sums = np.zeros(groups)
    found = pd.Series(values).groupby(group, sort=False).sum()
    sums[found.index.to_numpy()] = found.to_numpy()
    return sums


def collar(
    spans: Spans, recording: Ints, references: References, settings: Settings
) -> tuple[Floats, Floats]:
    """True and false positives of each column; see `htsat_sed.evaluation.sed_eval_counts`."""
    pairs, columns = _pairs(spans, recording, references), len(recording)
    onset, offset = references.spans[pairs.reference].T
    allowed = np.maximum(settings.offset_collar, settings.offset_share * (offset - onset))
    hit = np.abs(spans.onset[pairs.estimated] - onset) <= settings.onset_collar
    hit &= np.abs(spans.offset[pairs.estimated] - offset) <= allowed
    every = np.bincount(spans.column, minlength=columns).astype(float)
    if not hit.any():
        return np.zeros(columns), every
    # No pair joins two columns, so that one matching serves them all.
    graph = csr_matrix(
        (np.ones(hit.sum(), bool), (pairs.estimated[hit], pairs.slot[hit])),
        shape=(len(spans.column), columns * pairs.width),
    )
    matched = maximum_bipartite_matching(graph, perm_type="column") >= 0
    tp = np.bincount(spans.column[matched], minlength=columns).astype(float)
    return tp, every - tp


def segment(
    spans: Spans, recording: Ints, references: References, settings: Settings
) -> tuple[Floats, Floats]:
    """True and false positives of each column, in cells; see `htsat_sed.evaluation.sed_eval_counts`."""
    last = max(spans.offset.max(initial=0.0), references.spans[:, 1].max(initial=0.0))
    cells = int(np.ceil(last / settings.segment)) + 1
    estimated = _cells(spans.column, spans.onset, spans.offset, (len(recording), cells), settings.segment)
    reference = _reference_cells(references, cells, settings.segment)[recording]
    tp: Floats = (estimated & reference).sum(axis=1).astype(float)
    fp: Floats = (estimated & ~reference).sum(axis=1).astype(float)
    return tp, fp


def wanted(metric: str, references: References, settings: Settings) -> Floats:
    """What each recording has to find, (R,): events, or cells for ``segment``."""
    if metric != "segment":
        return references.number.astype(float)
    cells = int(np.ceil(references.spans[:, 1].max(initial=0.0) / settings.segment)) + 1
    active: Floats = _reference_cells(references, cells, settings.segment).sum(axis=1).astype(float)
    return active


def _reference_cells(references: References, cells: int, resolution: float) -> NDArray[np.bool_]:
    row = np.repeat(np.arange(len(references.number)), references.number)
    onset, offset = references.spans.T
    return _cells(row, onset, offset, (len(references.number), cells), resolution)


def _cells(
    row: Ints, onset: Floats, offset: Floats, shape: tuple[int, int], resolution: float
) -> NDArray[np.bool_]:
    """Which cells events reach into."""
    change = np.zeros((shape[0], shape[1] + 1))
    np.add.at(change, (row, np.floor(onset / resolution).astype(int)), 1.0)
    np.add.at(change, (row, np.ceil(offset / resolution).astype(int)), -1.0)
    return np.asarray(change.cumsum(axis=1)[:, :-1] > 0.0)


COUNTERS: Mapping[str, ColumnCounter] = {"intersection": intersection, "collar": collar, "segment": segment}
