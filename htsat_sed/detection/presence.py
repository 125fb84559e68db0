"""Presence maps, and how the maps of overlapping windows become one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from htsat_sed.errors import UsageError


@dataclass(frozen=True)
class PresenceMap:
    """How present each class is in each token of a recording.

    Attributes:
        scores: (T, K) float32 in [0, 1]. Row t covers the seconds [t, t + 1) * `token_seconds`, the
            last row cut at `duration`.
        labels: K class names, in the order of the columns.
        token_seconds: duration of a token.
        duration: of the recording, seconds; T = ceil(duration / token_seconds).
    """

    scores: NDArray[np.float32]
    labels: tuple[str, ...]
    token_seconds: float
    duration: float

    def __post_init__(self) -> None:
        """Refuse scores that do not fit the labels.

        Raises:
            ValueError: `scores` is not (T, K) for K labels, or a duration is not positive.
        """
        if self.scores.ndim != 2 or self.scores.shape[1] != len(self.labels):
            raise UsageError(
                f"wanted scores of shape (T, {len(self.labels)}), one column a label, got {self.scores.shape}"
            )
        if not (self.token_seconds > 0.0 and self.duration >= 0.0):
            raise UsageError(
                f"wanted token_seconds > 0 and duration >= 0, got {self.token_seconds} and {self.duration}"
            )


def token_weights(tokens: int) -> NDArray[np.float32]:
    """Weight of each token of a window where windows overlap: a triangle over the window.

    The middle of a window sees most context and counts most: token t of n weighs
    min(t + 1/2, n - t - 1/2), which is never zero.

    Args:
        tokens: n, tokens a window.

    Returns:
        (n,) float32, positive.
    """
    t = np.arange(tokens) + 0.5
    weights: NDArray[np.float32] = np.minimum(t, tokens - t).astype(np.float32)
    return weights


def stitch(windows: Iterable[NDArray[np.float32]], *, hop: int) -> Iterator[NDArray[np.float32]]:
    """Join the scores of consecutive windows into rows of one map, as they come.

    Where windows overlap, a row is their mean weighted by `token_weights`; where they do not, the
    scores pass unchanged. Holds one window at a time.

    Args:
        windows: (n, K) scores of each window, in order, each `hop` tokens after the one before.
        hop: tokens between the starts of two windows, 1 to n.

    Yields:
        Blocks of finished rows, (hop, K) each, then the (n - hop, K) rows that only the last window
        and its predecessors reach.
    """
    pending: NDArray[np.float32] | None = None  # weighted sums of the rows still open
    for scores in windows:
        n = len(scores)
        if not 1 <= hop <= n:
            raise UsageError(f"wanted a hop of 1 to {n} tokens, got {hop}")
        if hop == n:
            yield scores
            continue
        weights = token_weights(n)
        if pending is None:
            pending = np.zeros_like(scores)
            total = np.zeros(n, np.float32)
        pending += weights[:, None] * scores
        total += weights
        yield pending[:hop] / total[:hop, None]
        pending = np.concatenate([pending[hop:], np.zeros_like(pending[:hop])])
        total = np.concatenate([total[hop:], np.zeros_like(total[:hop])])
    if pending is not None:
        reached = total > 0.0
        yield pending[reached] / total[reached, None]
