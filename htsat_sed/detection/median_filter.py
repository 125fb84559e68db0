"""Median filter of presence maps over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from htsat_sed.detection.event_arrays import SLACK

_BLOCK = 1 << 22  # scores that are partitioned at a time, to limit memory


def median_filter_tokens(seconds: float, token_seconds: float) -> int:
    """Compute the width of a median filter: the odd number of tokens nearest to `seconds`, halves upwards."""
    return max(1, 2 * int(np.floor(seconds / token_seconds / 2.0 + SLACK)) + 1) if seconds > 0.0 else 1


def smooth(scores: NDArray[np.float32], *, widths: Sequence[int]) -> NDArray[np.float32]:
    """Median-filter each class over time; scores are mirrored at both ends.

    Args:
        scores: (T, K) scores.
        widths: K odd widths, tokens.

    Returns:
        (T, K) smoothed scores.
    """
    smoothed = scores.copy()
    if not len(scores):
        return smoothed
    for width in set(widths) - {1}:
        columns = np.flatnonzero(np.asarray(widths) == width)
        mirrored = np.pad(scores[:, columns], ((width // 2, width // 2), (0, 0)), mode="symmetric")
        around = sliding_window_view(mirrored, width, axis=0)
        rows = max(1, _BLOCK // (len(columns) * width))
        for first in range(0, len(scores), rows):
            part = np.partition(around[first : first + rows], width // 2, axis=-1)
            smoothed[first : first + rows, columns] = part[..., width // 2]
    return smoothed
