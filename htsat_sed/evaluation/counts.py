"""Counts by recording and class, and the F1, precision and recall of their sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from htsat_sed.detection.events import Event

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
        """Weighted sums over recordings: (N, R) weights yield (N, K) counts."""
        return Counts(weights @ self.tp, weights @ self.fp, weights @ self.fn)

    def total(self) -> Counts:
        """Sums over all recordings, (1, K)."""
        return self.resampled(np.ones((1, len(self.tp))))

    def figures(self, weights: Floats) -> tuple[Floats, Floats]:
        """Macro F1 (N,) and F1 of each class (N, K), for (N, R) weights of the recordings."""
        drawn = self.resampled(weights)
        return macro_f1(drawn), f1(drawn)

    def by_fold(self, others: Sequence[Counts], fold_of: NDArray[np.int64]) -> Counts:
        """Combine counts of several folds, these first: each recording has the counts of its fold; (R, K)."""
        every = (self, *others)
        return Counts(
            *(
                np.stack([getattr(every[fold], part)[i] for i, fold in enumerate(fold_of)])
                for part in ("tp", "fp", "fn")
            )
        )


def event_numbers(events: Sequence[Sequence[Event]], labels: Sequence[str]) -> Floats:
    """Number of events by recording and label, (R, K)."""
    return _summed(events, labels, lambda event: 1.0)


def event_seconds(events: Sequence[Sequence[Event]], labels: Sequence[str]) -> Floats:
    """Seconds of events by recording and label, (R, K)."""
    return _summed(events, labels, lambda event: event.offset - event.onset)


def _summed(
    events: Sequence[Sequence[Event]], labels: Sequence[str], value: Callable[[Event], float]
) -> Floats:
    column = {label: k for k, label in enumerate(labels)}
    sums = np.zeros((len(events), len(labels)))
    for i, own in enumerate(events):
        for event in own:
            sums[i, column[event.label]] += value(event)
    return sums


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient; NaN where the denominator is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 0.0, numerator / denominator, np.nan)


def f1(counts: Counts) -> Floats:
    """2 tp / (2 tp + fp + fn); NaN where all counts are 0."""
    return ratio(2.0 * counts.tp, 2.0 * counts.tp + counts.fp + counts.fn)


def macro(counts: Counts, values: Floats) -> Floats:
    """Mean over the classes with reference events, (N, K) to (N,); undefined values count as 0."""
    kept = (counts.tp + counts.fn > 0.0) & ~np.isnan(values)
    return ratio(np.where(kept, values, 0.0).sum(axis=-1), (counts.tp + counts.fn > 0.0).sum(axis=-1))


def macro_f1(counts: Counts) -> Floats:
    """Mean F1 over the classes with reference events, (N, K) to (N,)."""
    return macro(counts, f1(counts))


def micro_f1(counts: Counts) -> Floats:
    """F1 of the counts summed over classes, (N, K) to (N,)."""
    return f1(Counts(counts.tp.sum(-1), counts.fp.sum(-1), counts.fn.sum(-1)))


def mean_of_defined(values: Floats) -> Floats:
    """Mean over classes of the defined values, (N, K) to (N,)."""
    kept = ~np.isnan(values)
    return ratio(np.where(kept, values, 0.0).sum(axis=1), kept.sum(axis=1))


def f_beta(counts: Counts, beta: float) -> Floats:
    """(1 + b^2) tp / ((1 + b^2) tp + b^2 fn + fp): recall weighs b times as much as precision."""
    more = beta**2
    return ratio((1.0 + more) * counts.tp, (1.0 + more) * counts.tp + more * counts.fn + counts.fp)
