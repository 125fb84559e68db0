"""Presence maps, and stitching overlapping windows to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from htsat_sed.errors import UsageError


@dataclass(frozen=True)
class PresenceMap:
    """Presence scores of each class in each token of a recording.

    Attributes:
        scores: (T, K) float32 scores in [0, 1]. Row t covers the time [t, t + 1) * `token_seconds`; the last
            row ends at `duration`.
        labels: K class names, in the order of the columns.
        token_seconds: duration of a token, seconds.
        duration: duration of the recording, seconds; T = ceil(duration / token_seconds).
    """

    scores: NDArray[np.float32]
    labels: tuple[str, ...]
    token_seconds: float
    duration: float

    def __post_init__(self) -> None:
        """Check shapes and values.

        Raises:
            ValueError: `scores` is not (T, K) for K labels, or a duration is not positive.
        """
        if self.scores.ndim != 2 or self.scores.shape[1] != len(self.labels):
            raise UsageError(
                f"wanted scores of shape (T, {len(self.labels)}), a column per label, got {self.scores.shape}"
            )
        if not (self.token_seconds > 0.0 and self.duration >= 0.0):
            raise UsageError(
                f"wanted token_seconds > 0 and duration >= 0, got {self.token_seconds} and {self.duration}"
            )


def token_weights(tokens: int) -> NDArray[np.float32]:
    """Compute triangular weights of the tokens of a window, for overlapping windows.

    The middle of a window has the most context and the highest weight. Token t of n has the weight
    min(t + 1/2, n - t - 1/2), which is never 0.

    Args:
        tokens: tokens n of a window.

    Returns:
        (n,) float32, positive.
    """
    t = np.arange(tokens) + 0.5
    weights: NDArray[np.float32] = np.minimum(t, tokens - t).astype(np.float32)
    return weights


class Stitcher:
    """Stitches the scores of consecutive windows to rows of one map, window by window.

    Rows of overlapping windows are means weighted by `token_weights`; other rows do not change. Memory holds
    one window.

    Args:
        tokens: tokens n of a window.
        hop: tokens between the starts of two windows, 1 to n.
        shifts: number of shifted windows that each window is the mean of. If above 1, windows have
            n * `shifts` + `shifts` - 1 rows.

    Raises:
        ValueError: `hop` is out of range.
    """

    def __init__(self, tokens: int, hop: int, shifts: int = 1) -> None:
        if not 1 <= hop <= tokens:
            raise UsageError(f"wanted a hop of 1 to {tokens} tokens, got {hop}")
        self._tokens, self._hop = tokens * shifts + shifts - 1, hop * shifts
        self._weights = token_weights(tokens)
        if shifts > 1:
            own = _shift_weights(tokens, hop, shifts)
            self._weights = np.sum(
                [np.pad(own, (shift, shifts - 1 - shift)) for shift in range(shifts)],
                axis=0,
                dtype=np.float32,
            )
        self._sums: NDArray[np.float32] | None = None  # weighted sums of the open rows
        self._total = np.zeros(self._tokens, np.float32)
        self._open = 0  # rows that later windows may change

    def add(self, scores: NDArray[np.float32] | None, classes: int = 0) -> NDArray[np.float32]:
        """Add the next window.

        Args:
            scores: (n, K) scores; None for a skipped window. Rows that no other window covers score 0.
            classes: number of classes K; needed only if the first window is skipped.

        Returns:
            The (hop, K) rows that are now final.
        """
        hop = self._hop
        if scores is not None and hop == self._tokens:
            return scores
        if self._sums is None:
            self._sums = np.zeros((self._tokens, classes if scores is None else scores.shape[1]), np.float32)
        if scores is not None:
            self._sums += self._weights[:, None] * scores
            self._total += self._weights
        final = self._mean(self._sums[:hop], self._total[:hop])
        self._sums = np.concatenate([self._sums[hop:], np.zeros_like(self._sums[:hop])])
        self._total = np.concatenate([self._total[hop:], np.zeros_like(self._total[:hop])])
        self._open = self._tokens - hop
        return final

    def rest(self) -> NDArray[np.float32] | None:
        """Return the (n - hop, K) rows after the final ones, from the windows so far; None if none remain."""
        if self._sums is None or not self._open:
            return None
        return self._mean(self._sums[: self._open], self._total[: self._open])

    @staticmethod
    def _mean(sums: NDArray[np.float32], total: NDArray[np.float32]) -> NDArray[np.float32]:
        means: NDArray[np.float32] = sums / np.where(total > 0.0, total, np.float32(1.0))[:, None]
        return means


def stitch(
    windows: Iterable[NDArray[np.float32]], *, hop: int, shifts: int = 1
) -> Iterator[NDArray[np.float32]]:
    """Stitch the scores of consecutive windows to rows of one map, see `Stitcher`.

    With shifts, a row has the duration 1 / `shifts` of a token, and is the mean of the tokens that cover it.

    Args:
        windows: (n, K) scores of each window, in order. Positions are `hop` tokens apart. Each position has
            `shifts` windows; window i starts i / `shifts` tokens after the position.
        hop: tokens between two positions, 1 to n.
        shifts: windows per position.

    Yields:
        Blocks of final rows, (hop * shifts, K) each, then the remaining rows.
    """
    stitcher: Stitcher | None = None
    for scores in windows if shifts == 1 else _places(windows, hop, shifts):
        if stitcher is None:
            stitcher = Stitcher((len(scores) + 1) // shifts - 1, hop, shifts)
        yield stitcher.add(scores)
    rest = None if stitcher is None else stitcher.rest()
    if rest is not None:
        yield rest


def _shift_weights(tokens: int, hop: int, shifts: int) -> NDArray[np.float32]:
    """Compute the weight of each row of a shifted window."""
    of_token = token_weights(tokens) if hop < tokens else np.ones(tokens, np.float32)
    return np.repeat(of_token, shifts)


def _places(windows: Iterable[NDArray[np.float32]], hop: int, shifts: int) -> Iterator[NDArray[np.float32]]:
    """Yield the weighted mean of the shifted windows of each position, (n * shifts + shifts - 1, K)."""
    each = iter(windows)
    while group := list(islice(each, shifts)):
        weights = _shift_weights(len(group[0]), hop, shifts)[:, None]
        sums = np.zeros((len(weights) + shifts - 1, group[0].shape[1]), np.float32)
        total = np.zeros((len(sums), 1), np.float32)
        for shift, scores in enumerate(group):
            sums[shift : shift + len(weights)] += weights * np.repeat(scores, shifts, axis=0)
            total[shift : shift + len(weights)] += weights
        yield sums / total
