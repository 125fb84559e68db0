"""Thresholds and calibration chosen on held-out scores, worked out by hand."""

from pathlib import Path

import numpy as np
import pytest

from htsat_sed.detection.calibration import event_calibration
from htsat_sed.detection.events import Event
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.training.collection import Labelled
from htsat_sed.training.held_out import HeldOut, Scored, alarms_per_hour, choose_post_processing

STEP = 0.3125


def scored(score: float, *, label: str = "A") -> Scored:
    """Ten seconds with a run of tokens 8 to 15 of one score, and 0.01 elsewhere."""
    presence = np.full((32, 1), 0.01, np.float32)
    presence[8:16] = score
    return Scored(PresenceMap(presence, (label,), STEP, 10.0), np.array([score], np.float32))


def negative(name: str) -> Labelled:
    return Labelled(
        path=Path(name),
        label="",
        source=name,
        onset=0.0,
        offset=10.0,
        duration=10.0,
        rate=32_000,
        digest=name,
    )


def held_out(*, negatives: tuple[float, ...] = (), distractors: tuple[float, ...] = ()) -> HeldOut:
    """Nine events with a score of 0.9, one of 0.6, and none in two soundscapes."""
    scores = [0.9] * 9 + [0.6] + [0.01] * 2
    event = [Event(8 * STEP, 16 * STEP, "A")]
    return HeldOut(
        events={f"s{i:02d}": event if score > 0.5 else [] for i, score in enumerate(scores)},
        soundscapes={f"s{i:02d}": scored(score) for i, score in enumerate(scores)},
        clips=[],
        negatives=[(negative(f"n{i}"), scored(score)) for i, score in enumerate(negatives)],
        distractors={f"d{i}": scored(score) for i, score in enumerate(distractors)},
    )


def threshold(given: HeldOut, *, caution: float = 0.0, false_alarms: float = 10.0) -> float:
    rules, _ = choose_post_processing(
        given, ("A",), precision=0.75, false_alarms=false_alarms, caution=caution, seed=0
    )
    return rules.of("A").threshold


def test_without_caution_all_events_are_found() -> None:
    assert 0.01 < threshold(held_out()) < 0.6


def test_caution_gives_up_some_f1_for_a_higher_threshold() -> None:
    # Without the event of 0.6, F1 is 18 / 19 = 0.947; without those of 0.9 it is 0.
    assert threshold(held_out(), caution=0.04) < 0.6
    assert 0.6 < threshold(held_out(), caution=0.06) < 0.9
    assert 0.6 < threshold(held_out(), caution=0.9) < 0.9


def test_negatives_decide_in_place_of_caution() -> None:
    assert 0.3 < threshold(held_out(negatives=(0.3,) * 5), caution=0.9, false_alarms=0.0) < 0.6
    assert 0.6 < threshold(held_out(negatives=(0.7,) * 5), false_alarms=0.0) < 0.9


def test_distractors_count_as_false_alarms() -> None:
    assert 0.7 < threshold(held_out(distractors=(0.7,) * 5), false_alarms=0.0) < 0.9


def test_scores_are_calibrated_by_what_was_right() -> None:
    # 10 events are right; 30 false alarms of the same scores, which no threshold can tell apart, are wrong.
    given = held_out(negatives=(0.9,) * 30)
    rules, _ = choose_post_processing(
        given, ("A",), precision=0.75, false_alarms=20_000.0, caution=0.0, seed=0
    )
    calibrated = event_calibration([rules.of("A")]).apply(np.array([[0.9]], np.float32))
    assert calibrated[0, 0] < 0.6
    right, _ = choose_post_processing(
        held_out(), ("A",), precision=0.75, false_alarms=10.0, caution=0.0, seed=0
    )
    assert event_calibration([right.of("A")]).apply(np.array([[0.9]], np.float32))[0, 0] > 0.9
    assert rules.of("A").clip_offset < right.of("A").clip_offset


def test_alarms_are_counted_by_the_hour() -> None:
    rules, _ = choose_post_processing(
        held_out(), ("A",), precision=0.75, false_alarms=10.0, caution=0.0, seed=0
    )
    assert alarms_per_hour([scored(0.9), scored(0.01)], rules) == pytest.approx(180.0)
    assert alarms_per_hour([], rules) is None
