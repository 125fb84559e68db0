"""Counts by recording and class, and the F1, precision and recall that follow from their sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Counts:
    """True and false positives, and false negatives.

    Attributes:
        tp: (R, K) counts by recording and class.
        fp: (R, K).
        fn: (R, K); tp + fn is the number of reference events or segments.
    """

    tp: Floats
    fp: Floats
    fn: Floats

    def resampled(self, weights: Floats) -> Counts:
        """Sums over recordings, each counted as often as it was drawn: (N, R) weights give (N, K) counts."""
        return Counts(weights @ self.tp, weights @ self.fp, weights @ self.fn)

    def total(self) -> Counts:
        """Sums over all recordings, (1, K)."""
        return self.resampled(np.ones((1, len(self.tp))))


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient, NaN where there is nothing to divide by."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 0.0, numerator / denominator, np.nan)


def f1(counts: Counts) -> Floats:
    """2 tp / (2 tp + fp + fn) of each entry; 0 where there are only errors, NaN where there is nothing."""
    return ratio(2.0 * counts.tp, 2.0 * counts.tp + counts.fp + counts.fn)


def macro_f1(counts: Counts) -> Floats:
    """Mean F1 over the classes that have reference events: (N, K) counts to (N,)."""
    has_reference = counts.tp + counts.fn > 0.0
    values = np.where(has_reference, f1(counts), 0.0)
    return ratio(values.sum(axis=-1), has_reference.sum(axis=-1))


def micro_f1(counts: Counts) -> Floats:
    """F1 of the counts summed over classes: (N, K) to (N,)."""
    return f1(Counts(counts.tp.sum(-1), counts.fp.sum(-1), counts.fn.sum(-1)))


def bootstrap_weights(recordings: int, *, samples: int, seed: int) -> Floats:
    """How often each recording is drawn when as many as there are are drawn with replacement.

    Returns:
        (samples, recordings); the same for the same arguments, so that all metrics see the same draws.
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(recordings, np.full(recordings, 1.0 / recordings), size=samples).astype(np.float64)


def interval(values: Floats, level: float = 0.95) -> tuple[float, float] | None:
    """Percentile interval of bootstrapped values; None if none of them is defined."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)
