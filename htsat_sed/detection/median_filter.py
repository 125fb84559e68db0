"""Median filter of presence maps over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from htsat_sed.detection.event_arrays import SLACK


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
    of_class = np.asarray(widths)
    for width in set(widths) - {1}:
        columns = of_class == width
        smoothed[:, columns] = median_filter(scores[:, columns], size=(width, 1), mode="reflect")
    return smoothed
