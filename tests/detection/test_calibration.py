"""Calibrated scores: worked out by hand, and what they leave alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, logit

from htsat_sed.detection.calibration import Calibration, clip_calibration
from htsat_sed.detection.events import find_events
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.post_processing import RAW_SCORES, PostProcessing

DOG = {"score_slope": 2.0, "clip_offset": float(np.log(3.0))}


def test_the_logit_is_scaled_and_moved() -> None:
    calibration = Calibration(np.array([2.0, 1.0, 0.5]), np.array([0.0, np.log(3.0), 0.0]))
    # Odds of 4 squared; of 1, tripled; of 4, their square root.
    found = calibration.apply(np.array([0.8, 0.5, 0.8], np.float32))
    np.testing.assert_allclose(found, [16 / 17, 0.75, 2 / 3], rtol=1e-6)
    assert found.dtype == np.float32
    assert clip_calibration([PostProcessing(), PostProcessing(**DOG)]).offset.tolist() == [0.0, np.log(3.0)]


@pytest.mark.parametrize(("slope", "offset"), [(2.0, -2.0), (0.1, 3.0), (100.0, 100.0)])
def test_calibration_is_exact_for_the_lowest_and_highest_scores(slope: float, offset: float) -> None:
    scores = np.geomspace(1e-6, 0.5, 40, dtype=np.float32)
    scores = np.concatenate([scores, 1.0 - scores])
    found = Calibration(np.array([slope]), np.array([offset])).apply(scores[:, None])[:, 0]
    wanted = expit(slope * logit(scores.astype(np.float64)) + offset)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-40)


@given(
    arrays(np.float32, (6, 2), elements=st.floats(0, 1, width=32)),
    st.floats(0.01, 100.0),
    st.floats(-100.0, 100.0),
)
def test_the_order_stays_and_the_other_class_passes(scores: np.ndarray, slope: float, offset: float) -> None:
    found = Calibration(np.array([slope, 1.0]), np.array([offset, 0.0])).apply(scores)
    assert (found[:, 1] == scores[:, 1]).all()
    assert ((found >= 0.0) & (found <= 1.0)).all()
    assert (np.diff(found[np.argsort(scores[:, 0]), 0]) >= 0.0).all()


def test_events_stay_and_their_scores_change() -> None:
    scores = np.array([[0.8, 0.6], [0.8, 0.0], [0.0, 0.6]], np.float32)
    presence = PresenceMap(scores, ("Dog", "Cat"), 1.0, 3.0)
    calibrated = PostProcessing(classes={"Dog": DOG})
    raw = find_events(presence, calibrated.override(RAW_SCORES))
    assert raw == find_events(presence, PostProcessing())
    found = find_events(presence, calibrated)
    assert [(e.onset, e.offset, e.label) for e in found] == [(e.onset, e.offset, e.label) for e in raw]
    assert [e.score for e in found if e.label == "Dog"] == [pytest.approx(16 / 17)]
    assert [e for e in found if e.label == "Cat"] == [e for e in raw if e.label == "Cat"]
