"""Calibration of scores against the rule that made the outcomes, and scikit-learn where it is installed."""

from __future__ import annotations

import numpy as np
import pytest

from htsat_sed.evaluation.reliability import Outcome
from htsat_sed.evaluation.score_calibration import calibrate_scores, outcomes_of_clips


def made(slope: float, offset: float, label: str, number: int, seed: int) -> list[list[Outcome]]:
    """Recordings of ten events, right with the chance that slope and offset give their scores."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(1.0, 2.0, number)
    right = rng.random(number) < 1.0 / (1.0 + np.exp(-slope * logits - offset))
    scores = 1.0 / (1.0 + np.exp(-logits))
    outcomes = [Outcome(float(s), bool(r), label) for s, r in zip(scores, right, strict=True)]
    return [outcomes[i : i + 10] for i in range(0, number, 10)]


def test_values_are_those_that_made_the_outcomes() -> None:
    outcomes = made(0.5, -1.0, "Dog", 6000, 0) + made(0.8, 0.5, "Cat", 6000, 1)
    found = calibrate_scores(outcomes, ("Cat", "Dog", "Bird"))
    slope, offset = found.calibration
    assert slope[:2] == pytest.approx([0.8, 0.5], abs=0.06)
    assert offset[:2] == pytest.approx([0.5, -1.0], abs=0.12)
    # A class without data has the values of all.
    assert 0.5 < slope[2] < 0.8
    assert -1.0 < offset[2] < 0.5
    lowered = calibrate_scores(outcomes, ("Cat", "Dog", "Bird"), lower=0.25)
    np.testing.assert_allclose(lowered.calibration.offset, offset - 0.25, atol=1e-6)
    # Held out, shares and scores agree.
    held_out = [each for own in found.held_out for each in own]
    assert len(held_out) == 12_000
    high = [each.right for each in held_out if 0.8 <= each.score < 0.9]
    assert len(high) > 500
    assert 0.8 <= np.mean(high) <= 0.9


def test_a_class_with_few_events_stays_near_the_others() -> None:
    many, few = made(0.5, -1.0, "Dog", 4000, 0), [[Outcome(0.9, True, "Cat")], [Outcome(0.6, True, "Cat")]]
    slope, offset = calibrate_scores(many + few, ("Dog", "Cat")).calibration
    assert offset[0] < offset[1] < offset[0] + 1.0
    assert slope[1] == pytest.approx(slope[0], abs=0.15)


def test_nothing_to_fit_on_leaves_scores_alone() -> None:
    slope, offset = calibrate_scores([[], []], ("Dog",)).calibration
    assert (slope.tolist(), offset.tolist()) == ([1.0], [0.0])


def test_values_of_one_class_are_those_of_a_logistic_regression() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    outcomes = made(0.6, -0.5, "Dog", 20_000, 3)
    scores = np.array([each.score for own in outcomes for each in own])
    right = [each.right for own in outcomes for each in own]
    wanted = linear_model.LogisticRegression(C=np.inf).fit(np.log(scores / (1 - scores))[:, None], right)
    slope, offset = calibrate_scores(outcomes, ("Dog",)).calibration
    assert slope[0] == pytest.approx(wanted.coef_[0, 0], rel=0.01)
    assert offset[0] == pytest.approx(wanted.intercept_[0], abs=0.01)


def test_clip_scores_are_right_where_the_class_is_present() -> None:
    scores = {"b": np.array([0.25, 0.75]), "a": np.array([1.0, 0.0])}
    found = outcomes_of_clips(scores, {"b": ["Dog"]}, {"a": ["Cat"]}, ("Cat", "Dog"))
    assert found == [[(0.0, False, "Dog")], [(0.25, False, "Cat"), (0.75, True, "Dog")]]
