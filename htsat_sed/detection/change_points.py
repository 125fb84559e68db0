"""Events between change points, whose onsets and offsets do not depend on the threshold.

A threshold on the scores of tokens determines both whether there is an event and its duration, so quiet
events become too short. This method first finds candidates, bounded by changes of the scores. Each candidate
has one score, and only this score is compared with the threshold.

1. A step filter computes, at each boundary between tokens, the mean score of some tokens after it minus that
   of as many tokens before it. Scores beyond the ends of the recording count as 0.
2. The steepest boundary of each run of positive values is an onset, that of each run of negative values an
   offset. Onsets and offsets alternate; they bound the candidates and the gaps between them. The score of a
   candidate or a gap is the mean score of its tokens.
3. A gap is closed if its score is close to the lower of its two neighbours: the neighbours become one
   candidate, whose score is the mean of all its tokens, including the gap. This is repeated until no gap
   closes.

Source: Ebbers, Germain, Wichern and Le Roux, *Sound Event Bounding Boxes*, Interspeech 2024
(arXiv 2406.04212): change-detection-based boxes, with a step filter and an absolute and a relative
threshold for merging. This implementation differs in details: silence beyond the ends, one change point for
each run of one sign, and all gaps of a round closing at once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_FLAT = 1e-6  # smaller changes of a score are rounding errors
_CELLS = 4_000_000  # tokens x columns per block


class Boxes(NamedTuple):
    """Candidates of many columns as arrays, ordered by column and start.

    Attributes:
        column: (n,) column of the scores.
        start: (n,) first token.
        end: (n,) token after the last one.
        score: (n,) mean score of the tokens.
    """

    column: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    score: NDArray[np.float32]

    def where(self, chosen: NDArray[Any]) -> Boxes:
        """Select boxes by a mask or by indices."""
        return Boxes(self.column[chosen], self.start[chosen], self.end[chosen], self.score[chosen])

    def and_those(self, other: Boxes) -> Boxes:
        """Concatenate with other boxes."""
        return Boxes(
            np.concatenate([self.column, other.column]),
            np.concatenate([self.start, other.start]),
            np.concatenate([self.end, other.end]),
            np.concatenate([self.score, other.score]),
        )

    def in_order(self) -> Boxes:
        """Sort by column, then start."""
        return self.where(np.lexsort((self.start, self.column)))


def step_filter_tokens(seconds: float, token_seconds: float) -> int:
    """Compute the tokens on each side of a step filter: half of `seconds`, rounded, at least 1."""
    return max(1, int(np.floor(seconds / 2.0 / token_seconds + 0.5)))


def find_boxes(
    scores: NDArray[np.float32],
    *,
    sides: NDArray[np.int64],
    merge_absolute: NDArray[np.float64],
    merge_relative: NDArray[np.float64],
) -> Boxes:
    """Find the candidates of every column, each with its own parameters.

    Args:
        scores: (T, K) in [0, 1], T at least 1.
        sides: (K,) tokens on each side of the step filter, at least 1.
        merge_absolute: (K,) a gap closes if it drops by less than this.
        merge_relative: (K,) a gap closes if it drops by less than this fraction of the lower neighbour.

    Returns:
        Candidates, which never touch within a column; a column without changes has none.
    """
    tokens, classes = scores.shape
    size = max(1, _CELLS // (tokens + 1))
    parts = [
        _boxes(scores[:, k : k + size], sides[k : k + size], merge_absolute[k:], merge_relative[k:])
        for k in range(0, max(1, classes), size)
    ]
    return Boxes(
        np.concatenate([part.column + k * size for k, part in enumerate(parts)]),
        np.concatenate([part.start for part in parts]),
        np.concatenate([part.end for part in parts]),
        np.concatenate([part.score for part in parts]),
    )


def _boxes(
    scores: NDArray[np.float32],
    sides: NDArray[np.int64],
    merge_absolute: NDArray[np.float64],
    merge_relative: NDArray[np.float64],
) -> Boxes:
    tokens, classes = scores.shape
    total = np.zeros((classes, tokens + 1))
    np.cumsum(scores.T, axis=1, out=total[:, 1:])
    column, start, end = _candidates(total, sides)

    def mean(of: NDArray[np.int64], first: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.float64]:
        means: NDArray[np.float64] = (total[of, stop] - total[of, first]) / (stop - first)
        return means

    while True:
        score = mean(column, start, end)
        lower = np.minimum(score[:-1], score[1:])
        with_next = np.flatnonzero(column[:-1] == column[1:])
        drop = lower[with_next] - mean(column[with_next], end[with_next], start[with_next + 1])
        of = column[with_next]
        least = np.maximum(merge_absolute[of], merge_relative[of] * lower[with_next])
        closing = with_next[drop < least - _FLAT]
        if len(closing) == 0:
            return Boxes(column, start, end, score.clip(0.0, 1.0).astype(np.float32))
        end = np.delete(end, closing)
        start, column = np.delete(start, closing + 1), np.delete(column, closing + 1)


def _candidates(
    total: NDArray[np.float64], sides: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Find the columns, starts and ends of candidates before merging, from (K, T + 1) cumulative sums."""
    classes, boundaries = total.shape
    at = np.arange(boundaries)
    row = np.arange(classes)[:, None]
    after = total[row, np.minimum(at + sides[:, None], boundaries - 1)] - total
    before = total - total[row, np.maximum(at - sides[:, None], 0)]
    change = ((after - before) / sides[:, None]).ravel()

    # Runs of one sign; flat parts within a run do not end it.
    moving = np.flatnonzero(np.abs(change) > _FLAT)
    if len(moving) == 0:
        return (np.zeros(0, np.int64),) * 3
    rising, column = change[moving] > 0.0, moving // boundaries
    new = np.append(True, (rising[1:] != rising[:-1]) | (column[1:] != column[:-1]))
    first = np.flatnonzero(new)
    steepness = np.abs(change[moving])
    steepest = steepness >= np.repeat(
        np.maximum.reduceat(steepness, first) - _FLAT, np.diff(np.append(first, len(moving)))
    )
    stretch = np.cumsum(new) - 1
    # An event shorter than one side of the filter causes a plateau; its inner edge is the event's boundary.
    onset, offset = np.zeros(len(first), np.int64), np.zeros(len(first), np.int64)
    onset[stretch[steepest]] = moving[steepest]  # with repeated indices, the last value is kept
    offset[stretch[steepest][::-1]] = moving[steepest][::-1]

    is_rise, of = rising[first], column[first]
    # Ignored flat slopes may leave a run without its partner.
    paired = np.flatnonzero(is_rise[:-1] & ~is_rise[1:] & (of[:-1] == of[1:]))
    base = of[paired] * boundaries
    return of[paired], onset[paired] - base, offset[paired + 1] - base
