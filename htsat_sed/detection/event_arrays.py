"""Finding events in many columns of scores at once: the steps after the median filter, vectorised.

`htsat_sed.detection.events` describes the steps. The columns can be the classes of a recording, or many
recordings and thresholds of one class.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from htsat_sed.detection.change_points import Boxes, find_boxes
from htsat_sed.detection.edges import find_edges, reach_of

SLACK = 1e-9  # rounding tolerance of durations, seconds


class EventArrays(NamedTuple):
    """Events of many columns as arrays, ordered by column and onset.

    Attributes:
        column: (n,) column of the scores.
        onset: (n,) onsets, seconds.
        offset: (n,) offsets, seconds.
        peak: (n,) highest score in the event, or the mean score of a box between change points.
    """

    column: NDArray[np.int64]
    onset: NDArray[np.float64]
    offset: NDArray[np.float64]
    peak: NDArray[np.float32]


class EventRules(NamedTuple):
    """Values of `PostProcessing` for each of K columns, without the median filter.

    Attributes:
        high: (K,) thresholds, exclusive.
        low: (K,) low thresholds of the hysteresis, exclusive.
        min_gap: (K,) shortest gaps, seconds.
        min_event: (K,) shortest events, seconds.
        sides: (K,) tokens on each side of the step filter; 0 for no step filter.
        merge_absolute: (K,) see `PostProcessing`.
        merge_relative: (K,) see `PostProcessing`.
        edge_level: (K,) fraction of its mean score at which an event begins and ends; 0 for whole tokens.
    """

    high: NDArray[np.float64]
    low: NDArray[np.float64]
    min_gap: NDArray[np.float64]
    min_event: NDArray[np.float64]
    sides: NDArray[np.int64]
    merge_absolute: NDArray[np.float64]
    merge_relative: NDArray[np.float64]
    edge_level: NDArray[np.float64]


def find_event_arrays(
    scores: NDArray[np.float32],
    rules: EventRules,
    *,
    token_seconds: float,
    duration: float | NDArray[np.float64],
) -> EventArrays:
    """Find the events of every column of smoothed scores, each with its own rules.

    Args:
        scores: (T, K) smoothed scores in [0, 1], T at least 1.
        rules: rules of the K columns.
        token_seconds: duration of a token, seconds.
        duration: duration of the recording in seconds, or (K,) that of each column.

    Returns:
        Events, ordered by column and onset.
    """
    runs, boxes = _runs(scores, rules), _boxes(scores, rules)
    found = runs.and_those(boxes).in_order() if len(boxes.column) else runs
    found = close_gaps(found, rules, token_seconds)
    edges = find_edges(scores, found, level=rules.edge_level, reach=reach_of(token_seconds))
    end = np.broadcast_to(duration, (scores.shape[1],))
    return in_seconds(found, edges, rules, token_seconds=token_seconds, duration=end)


def close_gaps(found: Boxes, rules: EventRules, token_seconds: float) -> Boxes:
    """Merge neighbours in a column that are less than `min_gap` apart; their score is the maximum.

    Args:
        found: disjoint runs or boxes, ordered by column and start.
        rules: rules of the columns.
        token_seconds: duration of a token, seconds.
    """
    column, starts, ends, peaks = found
    if len(column) == 0:
        return found
    gap = (starts[1:] - ends[:-1]) * token_seconds
    apart = (column[1:] != column[:-1]) | (gap >= rules.min_gap[column[1:]] - SLACK)
    first, last = np.append(True, apart), np.append(apart, True)
    peaks = np.maximum.reduceat(peaks, np.flatnonzero(first))
    return Boxes(column[first], starts[first], ends[last], peaks)


def in_seconds(
    found: Boxes,
    edges: tuple[NDArray[np.float64], NDArray[np.float64]],
    rules: EventRules,
    *,
    token_seconds: float,
    duration: NDArray[np.float64],
) -> EventArrays:
    """Convert tokens to seconds, truncate at the end of the recording, and drop events below `min_event`.

    Args:
        found: n runs or boxes after gaps were closed.
        edges: (n,) onsets and (n,) offsets, tokens.
        rules: rules of the K columns.
        token_seconds: duration of a token, seconds.
        duration: (K,) duration of the recording of each column, seconds.
    """
    column, peaks = found.column, found.score
    end = duration[column]
    onsets = edges[0] * token_seconds
    # An onset that was moved past the end of the recording is restored to its token.
    onsets = np.where(onsets < end, onsets, found.start * token_seconds)
    offsets = np.minimum(edges[1] * token_seconds, end)
    kept = (offsets - onsets >= rules.min_event[column] - SLACK) & (offsets > onsets)
    return EventArrays(column[kept], onsets[kept], offsets[kept], peaks[kept])


def _runs(scores: NDArray[np.float32], rules: EventRules) -> Boxes:
    """Find runs above the low threshold whose highest score exceeds the high one."""
    found = find_runs(scores, np.where(rules.sides == 0, rules.low, np.inf))
    kept = found.score > rules.high.astype(np.float32)[found.column]
    return found.where(kept)


def find_runs(scores: NDArray[np.float32], low: NDArray[np.float64]) -> Boxes:
    """Find the maximal runs of tokens above a threshold in each column; their score is the highest inside.

    Args:
        scores: (T, K) scores.
        low: (K,) thresholds, exclusive.

    Returns:
        Runs, ordered by column and start.
    """
    tokens, classes = scores.shape
    # All columns in one sequence, with a silent token after each, so that no run crosses columns.
    line = np.zeros((classes, tokens + 1), np.float32)
    line[:, :tokens] = scores.T
    above = np.zeros((classes, tokens + 1), bool)
    above[:, :tokens] = (scores > low.astype(np.float32)).T
    edges = np.flatnonzero(np.diff(above.ravel(), prepend=False))
    starts, ends = edges[::2], edges[1::2]
    column = starts // (tokens + 1)
    base = column * (tokens + 1)
    return Boxes(column, starts - base, ends - base, _peaks(line.ravel(), starts, ends))


def _boxes(scores: NDArray[np.float32], rules: EventRules) -> Boxes:
    """Find boxes between change points with a score above the high threshold."""
    own = np.flatnonzero(rules.sides)
    found = find_boxes(
        scores[:, own],
        sides=rules.sides[own],
        merge_absolute=rules.merge_absolute[own],
        merge_relative=rules.merge_relative[own],
    )
    found = found._replace(column=own[found.column])
    return found.where(found.score > rules.high.astype(np.float32)[found.column])


def _peaks(
    line: NDArray[np.float32], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the maximum of each half-open, ordered, disjoint run; the sequence extends beyond the last."""
    if len(starts) == 0:
        return np.zeros(0, np.float32)
    return np.maximum.reduceat(line, np.stack([starts, ends], axis=1).ravel())[::2]
