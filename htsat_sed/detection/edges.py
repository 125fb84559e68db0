"""Refining the onsets and offsets of events to positions between tokens.

Thresholds select tokens of 0.3125 s. The model is trained with the fraction of a token that an event covers,
so an intermediate score of a token indicates where in the token the event begins. Scores are interpolated
linearly between the centres of tokens. An event begins and ends where they cross its level, a fraction of its
mean score. The result hardly depends on the confidence of the model in the whole event.

If the inner token at a boundary reaches the level, the crossing is searched outwards, otherwise inwards. A
boundary moves by at most `REACH` tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from htsat_sed.detection.change_points import Boxes

REACH = 4  # most tokens that a boundary moves
_TOKEN = 0.3125  # duration of a token without shifts, to which `REACH` refers, seconds
_PART = 256  # least tokens per stored array; the overhead of shorter arrays would exceed their content
APART = 0.5  # minimum distance of two events, tokens


def reach_of(token_seconds: float) -> int:
    """Return the most tokens that a boundary moves, for tokens of any duration."""
    return max(REACH, round(REACH * _TOKEN / token_seconds))


def long_ago(reach: int) -> int:
    """Return the number of a token that is too early to affect any event."""
    return -2 * (reach + 1)


def find_edges(
    scores: NDArray[np.float32],
    found: Boxes,
    *,
    level: NDArray[np.float64],
    reach: int = REACH,
    first: int = 0,
    before: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Refine the onsets and offsets of events.

    Args:
        scores: (T, K) smoothed scores of tokens `first` to `first` + T, which extend `reach` + 1 tokens
            beyond all events, or to the ends of the recording.
        found: n disjoint events, ordered by column and start, in tokens of the recording.
        level: (K,) fraction of its mean score at which an event begins and ends, below 1; 0 for whole tokens.
        reach: see `reach_of`.
        first: token of the first row.
        before: (K,) end of the last event before these; None if there is none.

    Returns:
        Onsets and offsets, (n,) each, in tokens; onset < offset, and events of a column are at least half a
        token apart.
    """
    column, start, end, _ = found
    onset, offset = start.astype(np.float64), end.astype(np.float64)
    moved = np.flatnonzero(level[column] > 0.0)
    if len(moved) == 0:
        return onset, offset
    of, begins, ends = column[moved], start[moved] - first, end[moved] - first
    wanted = level[of] * _means(scores, of, begins, ends)
    # Moves are independent of `first`, to the last bit.
    onset[moved] += _moves(scores, of, begins, wanted, reach)
    offset[moved] -= _moves(scores[::-1], of, len(scores) - ends, wanted, reach)
    onset, offset = np.maximum(onset, 0.0), np.minimum(offset, first + len(scores))

    last_end = np.full(len(level), long_ago(reach)) if before is None else before
    new = np.append(True, column[1:] != column[:-1])
    room = (start - np.where(new, last_end[column], np.append(0, end[:-1]))) / 2.0 - APART / 2.0
    onset = np.maximum(onset, start - room)
    inner = np.flatnonzero(~new)
    offset[inner - 1] = np.minimum(offset[inner - 1], end[inner - 1] + room[inner])
    return onset, offset


def _means(
    scores: NDArray[np.float32], column: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Compute the mean score of each run of tokens; runs are ordered by column and start, and disjoint."""
    tokens = len(scores)
    own, row = np.unique(column, return_inverse=True)
    line = np.zeros(len(own) * tokens + 1)  # reduceat needs a value after the last run
    line[:-1] = np.nan_to_num(scores[:, own].T).ravel()
    bounds = np.stack([start, end], axis=1) + (row * tokens)[:, None]
    means: NDArray[np.float64] = np.add.reduceat(line, bounds.ravel())[::2] / (end - start)
    return means


def _moves(
    scores: NDArray[np.float32],
    column: NDArray[np.int64],
    start: NDArray[np.int64],
    level: NDArray[np.float64],
    reach: int,
) -> NDArray[np.float64]:
    """Compute how many tokens a start moves to where scores cross a level; the limit if they do not."""
    place = start[:, None] + np.arange(-reach - 1, reach + 1)
    near = np.nan_to_num(scores[place.clip(0, len(scores) - 1), column[:, None]].astype(np.float64))
    above = near >= level[:, None]
    steps = np.arange(-reach, reach + 1)  # from the start to the boundary after each token except the last
    outwards = above[:, reach + 1]
    rises = ~above[:, :-1] & above[:, 1:] & ((steps <= 0) == outwards[:, None])
    nearest = np.where(rises, np.abs(steps), reach + 1).argmin(axis=1)
    one = np.arange(len(start))
    lower, upper = near[one, nearest], near[one, nearest + 1]
    height = (level - lower) / np.where(upper > lower, upper - lower, 1.0)
    found = np.where(rises[one, nearest], steps[nearest] - 0.5 + height, np.where(outwards, -reach, reach))
    moves: NDArray[np.float64] = found.clip(-reach, reach)
    return moves


class EdgeScores:
    """Smoothed scores of a stream that are still needed to refine events.

    The scores of a column begin shortly before its first unfinished event. For a column without one, only the
    last `reach` + 1 and the newest rows are kept.

    Args:
        columns: number of columns K.
        reach: most tokens that a boundary moves, see `reach_of`.
    """

    def __init__(self, columns: int, reach: int) -> None:
        self._reach = reach
        self._end = 0  # token after the last
        # The rows added last, and those that edges need before them.
        self._latest = np.zeros((0, columns), np.float32)
        self._kept: dict[int, list[NDArray[np.float32]]] = {}  # column -> parts that end with the last token

    def add(self, rows: NDArray[np.float32]) -> None:
        """Append rows, (n, K)."""
        self._end += len(rows)
        self._latest = np.concatenate([self._latest[-self._reach - 1 :], rows])
        for column, parts in self._kept.items():
            new = rows[:, column].copy()
            if len(parts[-1]) < _PART:
                new = np.concatenate([parts.pop(), new])
            parts.append(new)

    def of(self, columns: Sequence[int]) -> Iterator[tuple[list[int], NDArray[np.float32], int]]:
        """Yield the stored scores of columns, given in ascending order, grouped by number of rows.

        Yields:
            k of the columns, their scores (n, k), and the token of the first row.
        """
        alike: dict[int, list[int]] = {}
        for column in columns:
            rows = sum(map(len, self._kept[column])) if column in self._kept else len(self._latest)
            alike.setdefault(rows, []).append(column)
        for rows, some in alike.items():
            scores = [
                np.concatenate(self._kept[column]) if column in self._kept else self._latest[:, column]
                for column in some
            ]
            yield some, np.stack(scores, axis=1), self._end - rows

    def keep(self, starts: Mapping[int, int]) -> None:
        """Discard scores that are no longer needed.

        Args:
            starts: maps each column with an unfinished event to the start of the first one.
        """
        kept = {}
        for column, start in starts.items():
            parts = self._kept.get(column) or [self._latest[:, column].copy()]
            tokens = sum(map(len, parts))
            while len(parts) > 1 and self._end - tokens + len(parts[0]) < start - self._reach:
                tokens -= len(parts.pop(0))
            kept[column] = parts
        self._kept = kept
