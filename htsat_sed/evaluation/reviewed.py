"""Thresholds that mean precision, from events that somebody listened to.

The chance that an event is right comes from a logistic regression of the verdicts on the logit of the score,
class by class. It never falls with the score. Weak normal priors keep the coefficients finite where all
verdicts agree. The precision above a threshold is the mean of that chance over all detected events above it,
heard or not. A sample with as many events of each score band therefore does not bias it, although low scores
are more frequent in it than among all events.

The interval is that of the regression: of draws from the normal approximation of its posterior. Precision
counted in other recordings also varies by chance.

Sources: S. Wood and S. Kahl, *Guidelines for appropriate use of BirdNET scores and other detector outputs*,
Journal of Ornithology 165, 2024 (logistic regression on logits of scores); A. Gelman et al., *A weakly
informative default prior distribution for logistic and other regression models*, Annals of Applied
Statistics 2, 2008.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from htsat_sed.annotations.reviews import Reviewed
from htsat_sed.errors import UsageError

FEWEST = 10  # verdicts of a class, below which nothing is fitted
WIDEST = 0.2  # width of an interval above which more should be heard
NEXT = 5  # events of a class to hear next

_PRIOR = np.array([5.0, 2.5])  # standard deviations of intercept and slope, for standardised logits
_DRAWS = 4000
_BELOW = 0.01  # from the lowest score to a threshold that keeps all events
_EXTREME = 1e-4  # scores closer to 0 or 1 count as this close


@dataclass(frozen=True)
class ClassThreshold:
    """The lowest threshold of a class with the wanted precision.

    Attributes:
        label: class.
        right: events heard that were right.
        heard: events heard that were right, wrong or of another label.
        events: all of them, heard or not.
        threshold: exclusive, as `PostProcessing` has it; None where too few were heard; 1, which no event
            exceeds, where no threshold has the precision.
        precision: above the threshold, as estimated; NaN without one, or above all scores.
        interval: 95 % interval of that.
        kept: events above the threshold.
        following: events to hear next, those that tell most first.
    """

    label: str
    right: int
    heard: int
    events: int
    threshold: float | None
    precision: float
    interval: tuple[float, float]
    kept: int
    following: tuple[Reviewed, ...]

    @property
    def too_few(self) -> bool:
        """Whether more should be heard: nothing could be fitted, or the interval is wide."""
        low, high = self.interval
        return self.threshold is None or not high - low <= WIDEST


def precision_thresholds(
    reviewed: Sequence[Reviewed], precision: float, *, seed: int = 0
) -> list[ClassThreshold]:
    """For each class, the lowest threshold above which events are right as often as wanted.

    Args:
        reviewed: detected events; those without verdict, and unsure ones, count as events alone.
        precision: wanted part of events that are right, more than 0 and less than 1.
        seed: of the draws that make the interval.

    Raises:
        ValueError: `precision` is out of range.
    """
    if not 0.0 < precision < 1.0:
        raise UsageError(f"wanted a precision of more than 0 and less than 1, got {precision}")
    labels = sorted({each.detected.label for each in reviewed})
    own = {label: [each for each in reviewed if each.detected.label == label] for label in labels}
    return [_of_class(label, own[label], precision, seed) for label in labels]


def _of_class(label: str, own: Sequence[Reviewed], precision: float, seed: int) -> ClassThreshold:
    scores = np.array([each.detected.score for each in own])
    heard = np.array([each.verdict not in ("", "unsure") for each in own])
    right = np.array([each.verdict == "right" for each in own])
    counts = (int(right.sum()), int(heard.sum()), len(own))
    if heard.sum() < FEWEST:
        following = _spread(own, heard)
        return ClassThreshold(label, *counts, None, float("nan"), (float("nan"), float("nan")), 0, following)
    draws = _chances(scores, right[heard], heard, seed=seed)
    order = np.argsort(-scores, kind="stable")
    above = np.cumsum(draws[:, order], axis=1) / np.arange(1, len(own) + 1)  # of the n highest
    ordered = scores[order]
    last = np.append(ordered[:-1] > ordered[1:], True)  # equal scores are kept or dropped together
    reached = np.flatnonzero((above[0] >= precision) & last)
    following = _nearest(own, heard, float(ordered[reached[-1]]) if len(reached) else 1.0)
    if len(reached) == 0:
        return ClassThreshold(label, *counts, 1.0, float("nan"), _interval(above[1:, 0]), 0, following)
    kept = int(reached[-1]) + 1
    # Nobody has heard what lies below all events.
    next_lower = float(ordered[kept]) if kept < len(own) else max(0.0, float(ordered[-1]) - _BELOW)
    threshold = _between(next_lower, float(ordered[kept - 1]))
    return ClassThreshold(
        label, *counts, threshold, float(above[0, kept - 1]), _interval(above[1:, kept - 1]), kept, following
    )


def _chances(
    scores: NDArray[np.float64], right: NDArray[np.bool_], heard: NDArray[np.bool_], *, seed: int
) -> NDArray[np.float64]:
    """The chance of each event to be right, (1 + draws, n): the estimate, then draws from the posterior."""
    inner = scores.clip(_EXTREME, 1.0 - _EXTREME)
    logits = np.log(inner / (1.0 - inner))
    middle, spread = logits[heard].mean(), logits[heard].std()
    x = (logits - middle) / (2.0 * spread if spread > 1e-6 else 1.0)
    design = np.stack([np.ones_like(x), x], axis=1)
    best, covariance = _fitted(design[heard], right.astype(float))
    drawn = np.random.default_rng(seed).multivariate_normal(best, covariance, _DRAWS, method="cholesky")
    coefficients = np.concatenate([best[None], drawn])
    coefficients[:, 1] = coefficients[:, 1].clip(min=0.0)
    chances: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-(coefficients @ design.T)))
    return chances


def _fitted(
    design: NDArray[np.float64], right: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intercept and slope, at least 0, of the highest posterior density, and their covariance; by Newton."""
    for slope in (True, False):
        prior = np.diag(1.0 / np.where([True, slope], _PRIOR, 1e-6) ** 2)
        best = np.zeros(2)
        for _ in range(100):
            chance = 1.0 / (1.0 + np.exp(-(design @ best)))
            curvature = (design * (chance * (1.0 - chance))[:, None]).T @ design + prior
            step = np.linalg.solve(curvature, design.T @ (right - chance) - prior @ best)
            best = best + step
            if np.abs(step).max() < 1e-10:
                break
        if best[1] >= 0.0:
            break
    return best, np.linalg.inv(curvature).astype(np.float64)


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _between(lower: float, upper: float) -> float:
    """A threshold that the upper score exceeds and the lower one does not, with few digits."""
    for digits in range(2, 8):
        threshold = round((lower + upper) / 2.0, digits)
        if lower <= threshold < upper:
            return threshold
    return lower


def _nearest(own: Sequence[Reviewed], heard: NDArray[np.bool_], threshold: float) -> tuple[Reviewed, ...]:
    """Events not heard whose scores are nearest to a threshold."""
    left = [each for each, done in zip(own, heard, strict=True) if not (done or each.verdict)]
    return tuple(sorted(left, key=lambda each: abs(each.detected.score - threshold))[:NEXT])


def _spread(own: Sequence[Reviewed], heard: NDArray[np.bool_]) -> tuple[Reviewed, ...]:
    """Events not heard, of scores that are spread evenly over the ranks of all of them."""
    left = [each for each, done in zip(own, heard, strict=True) if not (done or each.verdict)]
    left.sort(key=lambda each: each.detected.score)
    count = min(len(left), FEWEST - int(heard.sum()))
    return tuple(left[round((i + 0.5) / count * len(left) - 0.5)] for i in range(count))
