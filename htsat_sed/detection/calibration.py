"""Calibration of scores to the probability that an event, or a label of a clip, is correct.

Platt scaling: the logit of the probability is the logit of the score times a slope, plus an offset. The order
of scores within a class does not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from htsat_sed.post_processing import PostProcessing

_CLOSEST = 1e-7  # minimum distance from 0 and 1, about the precision of float32 scores


class Calibration(NamedTuple):
    """Slope and offset of each of K columns of scores.

    Attributes:
        slope: (K,) factors of the logit, above 0.
        offset: (K,) offsets, added to the scaled logit.
    """

    slope: NDArray[np.float64]
    offset: NDArray[np.float64]

    def of(self, columns: NDArray[np.int64]) -> Calibration:
        """Select the calibration of (n,) columns."""
        return Calibration(self.slope[columns], self.offset[columns])

    def apply(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Calibrate scores (..., K) in [0, 1]; columns with slope 1 and offset 0 do not change."""
        changed = (self.slope != 1.0) | (self.offset != 0.0)
        if not changed.any():
            return scores
        calibrated = np.exp(-np.logaddexp(0.0, -(self.slope * logits(scores) + self.offset)))
        return np.where(changed, calibrated, scores).astype(np.float32)


def logits(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute the logits of scores in [0, 1]; scores of 0 and 1 give large finite values."""
    p = scores.astype(np.float64).clip(_CLOSEST, 1.0 - _CLOSEST)
    found: NDArray[np.float64] = np.log(p) - np.log1p(-p)
    return found


def event_calibration(rules: Sequence[PostProcessing]) -> Calibration:
    """Return the calibration of event scores, from the post-processing of each class."""
    return Calibration(
        np.array([rule.score_slope for rule in rules]), np.array([rule.score_offset for rule in rules])
    )


def clip_calibration(rules: Sequence[PostProcessing]) -> Calibration:
    """Return the calibration of clip-level scores, from the post-processing of each class."""
    return Calibration(
        np.array([rule.clip_slope for rule in rules]), np.array([rule.clip_offset for rule in rules])
    )
