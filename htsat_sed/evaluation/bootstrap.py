"""Resampling of recordings: intervals of figures, and of differences between systems.

A figure is computed at once for all recordings, for bootstrap samples of them, and for all but one group of
them (jackknife). These yield its value, its interval (bias-corrected and accelerated, BCa) and, for a
difference, its p-value. All metrics and systems use the same samples.

Source: Efron and Tibshirani, *An Introduction to the Bootstrap*, Chapman and Hall 1993, chapters 14 and 16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from htsat_sed.evaluation.counts import Floats
from htsat_sed.evaluation.report import LEVEL, Metric, Score, Settings, defined

GROUPS = 200  # maximum number of groups of recordings for the jackknife


@dataclass(frozen=True, eq=False)
class Resampling:
    """Weights of the recordings in each resampling.

    Attributes:
        weights: (N, R): ones; then S bootstrap samples; then samples without one group each. N is 1 without a
            bootstrap.
        samples: S, 0 without a bootstrap.
    """

    weights: Floats
    samples: int

    @classmethod
    def of(cls, recordings: int, settings: Settings) -> Resampling:
        """The resampling for bootstrap and seed of the settings; equal for equal arguments."""
        every = np.ones((1, recordings))
        if settings.bootstrap == 0:
            return cls(every, 0)
        rng = np.random.default_rng(settings.seed)
        share = np.full(recordings, 1.0 / recordings)
        drawn = rng.multinomial(recordings, share, size=settings.bootstrap).astype(np.float64)
        group = np.arange(recordings) * min(GROUPS, recordings) // recordings
        without = (np.unique(group)[:, None] != group).astype(np.float64)
        return cls(np.concatenate([every, drawn, without]), settings.bootstrap)

    def score(self, values: Floats) -> Score:
        """A figure with its interval, which contains it.

        Args:
            values: (N,) the figure for each row of the weights; NaN if undefined.
        """
        value = float(values[0])
        if not (self.samples and np.isfinite(value)):
            return Score(defined(value))
        drawn = values[1 : self.samples + 1]
        drawn, without = drawn[np.isfinite(drawn)], values[self.samples + 1 :]
        if not len(drawn):
            return Score(value)
        low, high = bca_interval(value, drawn, without[np.isfinite(without)])
        return Score(value, low, high)

    def p_value(self, differences: Floats) -> float | None:
        """Two-sided p-value of a difference, by inverting the percentile interval.

        Args:
            differences: (N,) the difference for each row of the weights.

        Returns:
            At least 2 / (S + 1); None without a bootstrap.
        """
        drawn = differences[1 : self.samples + 1]
        drawn = drawn[np.isfinite(drawn)]
        if not len(drawn):
            return None
        if not differences.any():
            return 1.0
        fewer = min(int((drawn <= 0.0).sum()), int((drawn >= 0.0).sum()))
        return min(1.0, 2.0 * (fewer + 1) / (len(drawn) + 1))

    def metric(
        self,
        name: str,
        title: str,
        parameters: Mapping[str, Any],
        headline: Mapping[str, Floats],
        *,
        labels: Sequence[str] = (),
        by_class: Mapping[str, Floats] | None = None,
        numbers: Mapping[str, Floats] | None = None,
        totals: Mapping[str, float] | None = None,
        left_out: tuple[str, ...] = (),
    ) -> Metric:
        """Make a metric with intervals.

        Args:
            name: name of the metric.
            title: description.
            parameters: name -> value.
            headline: figure -> (N,) values.
            labels: K classes.
            by_class: figure -> (N, K) values.
            numbers: count -> (K,), without interval.
            totals: count -> sum over the classes.
            left_out: classes for which the metric is undefined.
        """
        scores = {
            label: {key: self.score(values[:, k]) for key, values in (by_class or {}).items()}
            for k, label in enumerate(labels)
        }
        classes = {
            label: {key: each.value for key, each in scores[label].items()}
            | {key: defined(values[k]) for key, values in (numbers or {}).items()}
            for k, label in enumerate(labels)
        }
        intervals = {
            label: {
                key: (s.low, s.high) for key, s in own.items() if s.low is not None and s.high is not None
            }
            for label, own in scores.items()
        }
        drawn = {("*", key): values for key, values in headline.items()}
        for k, label in enumerate(labels):
            drawn |= {(label, key): values[:, k] for key, values in (by_class or {}).items()}
        return Metric(
            name,
            title,
            parameters,
            {key: self.score(values) for key, values in headline.items()},
            classes,
            totals or {},
            left_out,
            {label: own for label, own in intervals.items() if own},
            drawn,
        )


def bca_interval(value: float, drawn: Floats, without: Floats, level: float = LEVEL) -> tuple[float, float]:
    """Bias-corrected and accelerated interval, widened if necessary to contain the value.

    Args:
        value: the figure.
        drawn: (S,) values of bootstrap samples, finite.
        without: (G,) values without one group of recordings each, finite.
        level: confidence level.
    """
    below = ((drawn < value).mean() + (drawn <= value).mean()) / 2.0
    least = 0.5 / len(drawn)
    bias = ndtri(np.clip(below, least, 1.0 - least))
    apart = without.mean() - without if len(without) else np.zeros(1)
    spread = (apart**2).sum()
    acceleration = (apart**3).sum() / (6.0 * spread**1.5) if spread > 0.0 else 0.0
    tails = bias + ndtri(np.array([(1.0 - level) / 2.0, (1.0 + level) / 2.0]))
    low, high = np.quantile(drawn, ndtr(bias + tails / (1.0 - acceleration * tails)))
    return min(float(low), value), max(float(high), value)
