"""Metrics beyond F1 and PSDS: hand-worked cases; `test_reference` compares with other implementations."""

import numpy as np
import pytest

from htsat_sed.detection.events import Event, PostProcessing
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.counts import Counts, f_beta
from htsat_sed.evaluation.details import best_threshold, collar_errors, confusion, segment_errors
from htsat_sed.evaluation.evaluate import evaluate_strong
from htsat_sed.evaluation.report import Metric, Report, Settings
from htsat_sed.evaluation.tables import Pair, pair

REFERENCE = {
    "a": [Event(0.0, 2.0, "Dog"), Event(3.0, 4.0, "Cat"), Event(6.0, 8.0, "Dog")],
    "b": [Event(0.0, 1.0, "Cat")],
}
ESTIMATED = {"a": [Event(0.1, 2.1, "Dog"), Event(3.0, 4.1, "Dog"), Event(6.5, 9.5, "Dog")]}


def compared() -> Pair:
    return pair(REFERENCE, ESTIMATED, durations={"a": 10.0, "b": 10.0})


def metrics(report: Report) -> dict[str, Metric]:
    return {metric.name: metric for metric in report.metrics}


def test_hand_worked_errors() -> None:
    # Seconds 0, 1: hits. 2: the dog is too long. 3: a dog for a cat. 4: the dog. 6, 7: hits. 8, 9: too long; b: missed.
    segments = segment_errors(compared(), 1.0)
    assert (segments.parts.sum(axis=0).tolist(), segments.reference.sum()) == ([1.0, 1.0, 4.0], 6.0)
    # The second dog stands for the cat; the third begins too late.
    collars = collar_errors(compared(), Settings())
    assert (collars.parts.sum(axis=0).tolist(), collars.reference.sum()) == ([1.0, 2.0, 1.0], 4.0)
    assert collars.rates(np.ones((1, 2)))[0] == pytest.approx([0.25, 0.5, 0.25])


def test_hand_worked_times_and_false_positives() -> None:
    found = metrics(evaluate_strong(REFERENCE, ESTIMATED, durations={"a": 1800.0, "b": 1800.0}, details=True))
    dog = found["times"].classes["Dog"]
    assert dog["events"] == 2.0
    assert (dog["delay"], dog["delay_size"]) == (pytest.approx(0.3), pytest.approx(0.3))
    assert dog["duration_error"] == pytest.approx((0.0 + 1.0) / 2)
    assert found["times"].classes["Cat"]["delay"] is None
    assert found["false_positives"].headline["per_hour"].value == pytest.approx(1.0)
    assert found["collar_errors"].classes["Cat"]["error_rate"] == 1.0
    assert "ranked_segments" not in found


def test_what_was_detected_instead() -> None:
    assert confusion(compared(), Settings()) == {("Cat", "Dog"): (1, 2)}
    report = evaluate_strong(REFERENCE, ESTIMATED, details=True)
    assert metrics(report)["confusion_by_pair"].classes == {"Cat as Dog": {"events": 1.0, "share": 0.5}}
    assert "false_positives" not in metrics(report)


def test_f_beta_weighs_recall() -> None:
    counts = Counts(*(np.array([[value]]) for value in (6.0, 2.0, 4.0)))
    precision, recall = 6 / 8, 6 / 10
    expected = 5 * precision * recall / (4 * precision + recall)
    assert f_beta(counts, 2.0)[0, 0] == pytest.approx(expected)
    found = metrics(evaluate_strong(REFERENCE, ESTIMATED, settings=Settings(beta=2.0)))["intersection"]
    assert found.classes["Dog"]["f_beta"] == pytest.approx(5 * 2 / (5 * 2 + 4 * 0 + 1))
    assert found.headline["macro_f_beta"].value == pytest.approx(5 / 11 / 1 * 2 / 2)


def test_best_threshold_of_a_ranking() -> None:
    present = np.array([True, False, True, True, False])
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.1])
    threshold, value = best_threshold(present, scores)
    assert (threshold, value) == (pytest.approx(0.35), pytest.approx(2 * 3 / (4 + 3)))


def test_segments_of_maps() -> None:
    scores = np.float32([[0.9, 0.1], [0.2, 0.1], [0.1, 0.6], [0.1, 0.2]])
    maps = {name: PresenceMap(scores, ("Dog", "Cat"), 2.5, 10.0) for name in REFERENCE}
    report = evaluate_strong(
        REFERENCE, maps=maps, details=True, post_processing=PostProcessing(threshold=0.5)
    )
    ranked = metrics(report)["ranked_segments"]
    # Second 2 is of the first token, too, and second 4 of the second: ties are broken by nothing.
    assert list(ranked.classes) == ["Cat", "Dog"]
    assert ranked.classes["Dog"]["best_threshold"] == pytest.approx(0.55)
    assert ranked.classes["Dog"]["best_f1"] == pytest.approx(2 * 2 / (6 + 4))
    best = metrics(report)["best_thresholds"]
    assert best.classes["Dog"]["best_f1"] == pytest.approx(2 / (2 + 1 + 1))
