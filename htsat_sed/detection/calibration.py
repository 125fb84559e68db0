"""Calibrated scores: estimated probabilities that an event, or a label of a clip, is right.

The logit of a score times a slope plus an offset is the logit of that probability (Platt scaling). The order
of scores within a class does not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from htsat_sed.post_processing import PostProcessing

_CLOSEST = 1e-7  # minimum distance from 0 and 1, about the precision of float32 scores


class Calibration(NamedTuple):
    """Slope and offset of each of K columns of scores.

    Attributes:
        slope: (K,) above 0.
        offset: (K,), added to the logit.
    """

    slope: NDArray[np.float64]
    offset: NDArray[np.float64]

    def of(self, columns: NDArray[np.int64]) -> Calibration:
        """The calibration of some columns."""
        return Calibration(self.slope[columns], self.offset[columns])

    def apply(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Calibrate scores (..., K) in [0, 1]; those with slope 1 and offset 0 pass unchanged."""
        changed = (self.slope != 1.0) | (self.offset != 0.0)
        if not changed.any():
            return scores
        calibrated = expit(self.slope * logits(scores) + self.offset)
        return np.where(changed, calibrated, scores).astype(np.float32)


def logits(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Finite logits of scores in [0, 1]."""
    found: NDArray[np.float64] = logit(scores.astype(np.float64).clip(_CLOSEST, 1.0 - _CLOSEST))
    return found


def event_calibration(rules: Sequence[PostProcessing]) -> Calibration:
    """Calibration of event scores, from the post-processing of each class."""
    return Calibration(
        np.array([rule.score_slope for rule in rules]), np.array([rule.score_offset for rule in rules])
    )


def clip_calibration(rules: Sequence[PostProcessing]) -> Calibration:
    """Calibration of clip-level scores, from the post-processing of each class."""
    return Calibration(
        np.array([rule.clip_slope for rule in rules]), np.array([rule.clip_offset for rule in rules])
    )
