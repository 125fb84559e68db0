"""Presence maps, and how the maps of overlapping windows become one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
            raise ValueError(
                f"wanted scores of shape (T, {len(self.labels)}), one column a label, got {self.scores.shape}"
            )
        if not (self.token_seconds > 0.0 and self.duration >= 0.0):
            raise ValueError(
                f"wanted token_seconds > 0 and duration >= 0, got {self.token_seconds} and {self.duration}"
            )
