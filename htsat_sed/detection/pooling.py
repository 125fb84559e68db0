"""Pooling token embeddings over the segments of a recording, token by token."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Embeddings of segments of one recording.

    Attributes:
        vectors: (n, D) float32 embeddings; 0 for segments of digital silence.
        starts: (n,) starts of the segments, seconds.
        ends: (n,) ends of the segments, seconds.
        duration: duration of the recording, seconds.
    """

    vectors: NDArray[np.float32]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    duration: float


class Pooling:
    """Averages the tokens of each segment; memory holds the tokens of one segment.

    Args:
        token_seconds: duration of a token, seconds.
        window: duration of a segment in seconds, rounded to whole tokens; infinite for one segment.
        hop: time between the starts of two segments in seconds, rounded to whole tokens.
        start: start of the first segment in seconds, rounded down to a token.
        end: end of the last segment in seconds, rounded up to a token.
    """

    def __init__(
        self, token_seconds: float, *, window: float, hop: float, start: float = 0.0, end: float = math.inf
    ) -> None:
        self._step = token_seconds
        self._window: float = math.inf if math.isinf(window) else max(1, round(window / token_seconds))
        self._hop = math.inf if math.isinf(hop) else max(1, round(hop / token_seconds))
        self._first = math.floor(start / token_seconds)
        self._last = math.inf if math.isinf(end) else math.ceil(end / token_seconds)
        self._seen = 0  # tokens received
        self._open: list[tuple[int, NDArray[np.float64], int]] = []  # first token, sum and number of tokens
        self._done: list[tuple[int, NDArray[np.float64], int]] = []
        self._tail: deque[NDArray[np.float32]] = deque(maxlen=0 if math.isinf(window) else int(self._window))

    def add(self, rows: NDArray[np.float32]) -> None:
        """Add the embeddings of the next n tokens, (n, D)."""
        for row in rows:
            if self._first <= self._seen < self._last:
                if self._seen == self._first or (self._seen - self._first) % self._hop == 0:
                    self._open.append((self._seen, np.zeros(len(row)), 0))
                self._open = [(first, total + row, count + 1) for first, total, count in self._open]
                self._done += [each for each in self._open if each[2] == self._window]
                self._open = [each for each in self._open if each[2] < self._window]
                self._tail.append(row)
            self._seen += 1

    def finish(self, duration: float) -> Embeddings:
        """Return the embeddings of all segments.

        If the last segment does not end with the recording, a further one does, which overlaps more with the
        previous segment.

        Args:
            duration: duration of the recording, seconds.
        """
        end = min(self._seen, self._last)
        found = self._done or self._open[:1]
        if self._done and self._done[-1][0] + self._done[-1][2] < end:
            count = len(self._tail)
            found = [*found, (int(end) - count, np.sum(self._tail, axis=0, dtype=np.float64), count)]
        return Embeddings(
            np.array([(total / count) for _, total, count in found], np.float32),
            np.array([first for first, _, _ in found], np.float64) * self._step,
            np.minimum([(first + count) * self._step for first, _, count in found], duration),
            duration,
        )
