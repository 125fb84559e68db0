"""Calibration of scores by a slope and offset per class (Platt scaling).

A logistic regression of right or wrong on the logit of the score, for all classes at once. A Gaussian prior
holds the values of a class near common values, which a class without data keeps.

Source: J. Platt, Probabilistic outputs for support vector machines, 1999.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from htsat_sed.detection.calibration import Calibration, logits
from htsat_sed.evaluation.counts import Floats
from htsat_sed.evaluation.reliability import Outcome, Outcomes

# Standard deviations of the priors.
_SLOPE_SPREAD = 0.3  # logarithm of a class's slope, around the common one
_OFFSET_SPREAD = 0.7  # a class's offset, around the common one
_COMMON_SPREAD = 1.0  # logarithm of the common slope, around 0
_LOG_SLOPES = (-3.0, 3.0)


@dataclass(frozen=True, eq=False)
class Calibrated:
    """Fitted calibration with cross-validated outcomes.

    Attributes:
        calibration: calibration of K classes, fitted on all recordings.
        held_out: outcomes with scores calibrated by a fit on other recordings.
    """

    calibration: Calibration
    held_out: list[list[Outcome]]


def calibrate_scores(
    outcomes: Outcomes, labels: Sequence[str], *, lower: float = 0.0, folds: int = 5, seed: int = 0
) -> Calibrated:
    """Fit slope and offset of each class.

    Args:
        outcomes: raw scores and whether they were right, by recording.
        labels: K classes; outcomes of others are ignored.
        lower: subtracted from all logits, except for `held_out`.
        folds: number of folds of the cross-validation over recordings.
        seed: random seed of the folds.
    """
    column = {label: k for k, label in enumerate(labels)}
    known = [[outcome for outcome in own if outcome.label in column] for own in outcomes]
    fold_of = np.arange(len(known)) % folds
    np.random.default_rng(seed).shuffle(fold_of)
    recording = np.array([i for i, own in enumerate(known) for _ in own], np.int64)
    columns = np.array([column[each.label] for own in known for each in own], np.int64)
    scores = np.array([each.score for own in known for each in own], np.float32)
    right = np.array([each.right for own in known for each in own], np.float64)
    held_out: list[list[Outcome]] = [[] for _ in known]
    for fold in range(folds):
        here = fold_of[recording] == fold
        fitted = _fit(columns[~here], scores[~here], right[~here], len(labels))
        for i, k, score, good in zip(
            recording[here].tolist(),
            columns[here].tolist(),
            fitted.of(columns[here]).apply(scores[here]).tolist(),
            right[here].tolist(),
            strict=True,
        ):
            held_out[i].append(Outcome(score, bool(good), labels[k]))
    slope, offset = _fit(columns, scores, right, len(labels))
    return Calibrated(Calibration(slope, offset - lower), held_out)


def outcomes_of_clips(
    scores: Mapping[str, Floats | NDArray[np.float32]],
    present: Mapping[str, Iterable[str]],
    possible: Mapping[str, Iterable[str]],
    labels: Sequence[str],
) -> list[list[Outcome]]:
    """Each clip-level score, and whether its class is present, by recording.

    Args:
        scores: recording -> (K,) scores.
        present: recording -> its classes.
        possible: recording -> classes to ignore because they may occur in it.
        labels: K classes.
    """
    found = []
    for name in sorted(scores):
        own, unclear = set(present.get(name, ())), set(possible.get(name, ()))
        found.append(
            [
                Outcome(score, label in own, label)
                for score, label in zip(scores[name].tolist(), labels, strict=True)
                if label not in unclear
            ]
        )
    return found


def _fit(columns: NDArray[np.int64], scores: NDArray[np.float32], right: Floats, classes: int) -> Calibration:
    """The most probable slopes and offsets."""
    x = logits(scores)

    def parts(values: Floats) -> tuple[Floats, Floats]:
        moved = values[2:].reshape(2, classes)
        return np.exp((values[0] + moved[0]).clip(*_LOG_SLOPES)), values[1] + moved[1]

    def cost(values: Floats) -> tuple[float, Floats]:
        slope, offset = parts(values)
        z = slope[columns] * x + offset[columns]
        wrong = expit(z) - right
        moved = values[2:].reshape(2, classes) / np.array([[_SLOPE_SPREAD], [_OFFSET_SPREAD]])
        common = values[0] / _COMMON_SPREAD
        of_slope = np.bincount(columns, wrong * x * slope[columns], classes)
        of_offset = np.bincount(columns, wrong, classes)
        prior = moved / np.array([[_SLOPE_SPREAD], [_OFFSET_SPREAD]])
        gradient = np.concatenate(
            [
                [of_slope.sum() + common / _COMMON_SPREAD, of_offset.sum()],
                of_slope + prior[0],
                of_offset + prior[1],
            ]
        )
        loss = np.logaddexp(0.0, z) - right * z
        return float(loss.sum() + (moved**2).sum() / 2.0 + common**2 / 2.0), gradient

    found = minimize(cost, np.zeros(2 + 2 * classes), jac=True, method="L-BFGS-B")
    return Calibration(*parts(found.x))
