"""Thresholds for a target precision, from reviewed events.

The probability that an event is right comes from a logistic regression of the verdicts on the logit of the
score, and does not decrease with the score. All classes are fitted together first, with weak normal priors
that keep the coefficients finite if all verdicts agree. Each class then deviates from this fit according to
its own verdicts, so that a class with few verdicts stays close to the others. The precision above a threshold
is the mean probability of all detected events above it, reviewed or not. A sample with equal numbers of
events per score band is therefore unbiased, although low scores are less frequent in it than among all
events.

The interval covers the uncertainty of the regression: draws from the normal approximation of its posterior.
Precision counted in other recordings has additional sampling variation.

Sources: S. Wood and S. Kahl, *Guidelines for appropriate use of BirdNET scores and other detector outputs*,
Journal of Ornithology 165, 2024 (logistic regression on logits of scores); A. Gelman et al., *A weakly
informative default prior distribution for logistic and other regression models*, Annals of Applied
Statistics 2, 2008.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from htsat_sed.annotations.reviews import Reviewed
from htsat_sed.errors import UsageError

FEWEST = 5  # minimum number of verdicts of a class
WIDEST = 0.2  # width of an interval above which more events should be reviewed
NEXT = 5  # number of events of a class to review next

# Standard deviations of intercept and slope, for standardised logits.
_PRIOR = np.array([5.0, 2.5])  # of all classes, around 0
_DEVIATION = np.array([1.5, 0.75])  # of a class, around the fit of all
_FIXED = 1e12  # weight of a prior that fixes a coefficient
_DRAWS = 4000
_BELOW = 0.01  # distance below the lowest score of a threshold that keeps all events
_EXTREME = 1e-4  # scores are clipped to this distance from 0 and 1


@dataclass(frozen=True)
class ClassThreshold:
    """The lowest threshold of a class with the target precision.

    Attributes:
        label: class.
        right: number of reviewed events that are right.
        heard: number of reviewed events that are right, wrong or of another label.
        events: number of all events, reviewed or not.
        threshold: exclusive, as in `PostProcessing`; None if too few events were reviewed; 1, which no event
            exceeds, if no threshold has the precision.
        precision: estimated precision above the threshold; NaN without a threshold, or above all scores.
        interval: 95 % interval of the precision.
        kept: number of events above the threshold.
        following: events to review next, the most informative first.
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
        """Whether more events should be reviewed: there is no threshold, or its interval is wide."""
        low, high = self.interval
        return self.threshold is None or not high - low <= WIDEST


def precision_thresholds(
    reviewed: Sequence[Reviewed], precision: float, *, seed: int = 0
) -> list[ClassThreshold]:
    """For each class, the lowest threshold with the target precision.

    Args:
        reviewed: detected events; those without a verdict or with ``unsure`` do not enter the fit.
        precision: target precision, more than 0 and less than 1.
        seed: random seed of the interval.

    Raises:
        ValueError: `precision` is out of range.
    """
    if not 0.0 < precision < 1.0:
        raise UsageError(f"wanted a precision of more than 0 and less than 1, got {precision}")
    labels = sorted({each.detected.label for each in reviewed})
    own = {label: [each for each in reviewed if each.detected.label == label] for label in labels}
    prior = _Prior.of_all(reviewed)
    return [_of_class(label, own[label], precision, prior, seed) for label in labels]


def _is_heard(reviewed: Reviewed) -> bool:
    return reviewed.verdict not in ("", "unsure")


@dataclass(frozen=True, eq=False)
class _Prior:
    """Prior of a class from the verdicts on all classes.

    Attributes:
        middle: centre of the standardised logits.
        scale: scale of the standardised logits.
        mean: (2,) mean of intercept and slope.
        covariance: (2, 2) covariance of intercept and slope.
    """

    middle: float
    scale: float
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @classmethod
    def of_all(cls, reviewed: Sequence[Reviewed]) -> _Prior:
        """Fit the prior to all reviewed events."""
        heard = [each for each in reviewed if _is_heard(each)]
        weak = cls(0.0, 1.0, np.zeros(2), np.diag(_PRIOR**2))
        if not heard:
            return weak
        logits = weak.design([each.detected.score for each in heard])[:, 1]
        spread = float(logits.std())
        weak = replace(weak, middle=float(logits.mean()), scale=2.0 * spread if spread > 1e-6 else 1.0)
        if len({each.detected.label for each in heard}) == 1:
            return weak
        design = weak.design([each.detected.score for each in heard])
        right = np.array([each.verdict == "right" for each in heard], float)
        mean, covariance = _fitted(design, right, weak)
        return replace(weak, mean=mean, covariance=covariance + np.diag(_DEVIATION**2))

    def design(self, scores: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Design matrix (n, 2): 1 and the standardised logit of each score."""
        inner = np.asarray(scores).clip(_EXTREME, 1.0 - _EXTREME)
        logits = (np.log(inner / (1.0 - inner)) - self.middle) / self.scale
        return np.stack([np.ones_like(logits), logits], axis=1)


def _of_class(
    label: str, own: Sequence[Reviewed], precision: float, prior: _Prior, seed: int
) -> ClassThreshold:
    scores = np.array([each.detected.score for each in own])
    heard = np.array([_is_heard(each) for each in own])
    right = np.array([each.verdict == "right" for each in own])
    counts = (int(right.sum()), int(heard.sum()), len(own))
    if heard.sum() < FEWEST:
        following = _spread(own, heard)
        return ClassThreshold(label, *counts, None, float("nan"), (float("nan"), float("nan")), 0, following)
    draws = _chances(prior.design(scores), right[heard], heard, prior, seed=seed)
    order = np.argsort(-scores, kind="stable")
    above = np.cumsum(draws[:, order], axis=1) / np.arange(1, len(own) + 1)  # of the n highest
    ordered = scores[order]
    last = np.append(ordered[:-1] > ordered[1:], True)  # equal scores are kept or dropped together
    reached = np.flatnonzero((above[0] >= precision) & last)
    following = _nearest(own, heard, float(ordered[reached[-1]]) if len(reached) else 1.0)
    if len(reached) == 0:
        return ClassThreshold(label, *counts, 1.0, float("nan"), _interval(above[1:, 0]), 0, following)
    kept = int(reached[-1]) + 1
    # No events were detected below the lowest score.
    next_lower = float(ordered[kept]) if kept < len(own) else max(0.0, float(ordered[-1]) - _BELOW)
    threshold = _between(next_lower, float(ordered[kept - 1]))
    return ClassThreshold(
        label, *counts, threshold, float(above[0, kept - 1]), _interval(above[1:, kept - 1]), kept, following
    )


def _chances(
    design: NDArray[np.float64],
    right: NDArray[np.bool_],
    heard: NDArray[np.bool_],
    prior: _Prior,
    *,
    seed: int,
) -> NDArray[np.float64]:
    """Probability of each event to be right, (1 + draws, n): the estimate, then posterior draws."""
    best, covariance = _fitted(design[heard], right.astype(float), prior)
    drawn = np.random.default_rng(seed).multivariate_normal(best, covariance, _DRAWS, method="cholesky")
    coefficients = np.concatenate([best[None], drawn])
    coefficients[:, 1] = coefficients[:, 1].clip(min=0.0)
    chances: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-(coefficients @ design.T)))
    return chances


def _fitted(
    design: NDArray[np.float64], right: NDArray[np.float64], prior: _Prior
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Posterior mode of intercept and slope (at least 0) by Newton's method, and their covariance."""
    mean, weight = prior.mean, np.linalg.inv(prior.covariance)
    for _ in range(2):
        best = mean
        for _ in range(100):
            chance = 1.0 / (1.0 + np.exp(-(design @ best)))
            curvature = (design * (chance * (1.0 - chance))[:, None]).T @ design + weight
            step = np.linalg.solve(curvature, design.T @ (right - chance) - weight @ (best - mean))
            best = best + step
            if np.abs(step).max() < 1e-10:
                break
        if best[1] >= 0.0:
            break
        mean, weight = np.array([mean[0], 0.0]), weight + np.diag([0.0, _FIXED])
    return best.clip(min=[-np.inf, 0.0]), np.linalg.inv(curvature).astype(np.float64)


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _between(lower: float, upper: float) -> float:
    """A threshold below the upper and not below the lower score, with few digits."""
    for digits in range(2, 8):
        threshold = round((lower + upper) / 2.0, digits)
        if lower <= threshold < upper:
            return threshold
    return lower


def _nearest(own: Sequence[Reviewed], heard: NDArray[np.bool_], threshold: float) -> tuple[Reviewed, ...]:
    """Unreviewed events with scores nearest to a threshold."""
    left = [each for each, done in zip(own, heard, strict=True) if not (done or each.verdict)]
    return tuple(sorted(left, key=lambda each: abs(each.detected.score - threshold))[:NEXT])


def _spread(own: Sequence[Reviewed], heard: NDArray[np.bool_]) -> tuple[Reviewed, ...]:
    """Unreviewed events, evenly spread over the ranks of their scores."""
    left = [each for each, done in zip(own, heard, strict=True) if not (done or each.verdict)]
    left.sort(key=lambda each: each.detected.score)
    count = min(len(left), FEWEST - int(heard.sum()))
    return tuple(left[round((i + 0.5) / count * len(left) - 0.5)] for i in range(count))
