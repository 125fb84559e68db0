"""PSDS: hand-worked cases and laws; `test_reference` compares with other implementations."""

import numpy as np
import pytest

from htsat_sed.detection.events import Event, PostProcessing
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.bootstrap import Resampling
from htsat_sed.evaluation.evaluate import evaluate_strong
from htsat_sed.evaluation.psds import (
    PI_MEDIAN_FILTERS,
    SCENARIO_1,
    SCENARIO_2,
    SCENARIOS,
    Scenario,
    detections,
    operating_points,
    psds_areas,
    psds_curve,
    thresholds,
)
from htsat_sed.evaluation.report import Settings
from htsat_sed.evaluation.tables import pair


def test_resampled_psds_is_that_of_the_recordings_drawn() -> None:
    reference = {
        "a": [Event(0.0, 2.5, "Dog"), Event(5.0, 7.5, "Cat")],
        "b": [Event(2.5, 5.0, "Dog")],
        "c": [Event(5.0, 10.0, "Cat")],
    }
    rng = np.random.default_rng(4)
    maps = {n: PresenceMap(rng.random((8, 2), np.float32), ("Cat", "Dog"), 1.25, 10.0) for n in reference}

    def psds(names: dict[str, str], weights: list[float]) -> float:
        """Of recordings under new names, so that one can be there twice."""
        events = pair(
            {new: reference[old] for new, old in names.items()}, {}, durations=dict.fromkeys(names, 10.0)
        )
        found = detections(events, {new: maps[old] for new, old in names.items()})
        scenario = Scenario(dtc=0.1, gtc=0.1, cttc=0.3, alpha_ct=0.5, alpha_st=1.0, max_efpr=2000.0)
        return float(psds_areas([operating_points(events, found, scenario)], np.array([weights])).overall[0])

    same = {name: name for name in reference}
    assert psds(same, [2, 0, 1]) == pytest.approx(psds({"a": "a", "a2": "a", "c": "c"}, [1, 1, 1]), abs=1e-12)
    # Without the other class no cross-trigger is left, and no instability across classes.
    assert psds(same, [0, 1, 0]) == pytest.approx(psds({"b": "b"}, [1]), abs=1e-12)
    assert psds(same, [0, 1, 0]) > 0.0


def dogs() -> tuple[dict[str, list[Event]], dict[str, PresenceMap]]:
    maps = {
        "a": PresenceMap(np.float32([[0.9], [0.0], [0.5], [0.5]]), ("Dog",), 2.5, 10.0),
        "b": PresenceMap(np.float32([[0.0], [0.0], [0.5], [0.3]]), ("Dog",), 2.5, 10.0),
    }
    return {"a": [Event(0.0, 2.5, "Dog"), Event(5.0, 10.0, "Dog")], "b": []}, maps


def test_hand_worked_psds() -> None:
    """One class. Below 0.9 one of two events is found, below 0.5 both.

    Then there is a false positive, too, in 20 s: 180 an hour.
    """
    reference, maps = dogs()
    events = pair(reference, {}, durations={"a": 10.0, "b": 10.0})
    for count in (0, 2):
        points = [operating_points(events, detections(events, maps, count=count), SCENARIO_1)]
        assert psds_areas(points).overall[0] == pytest.approx(0.5)
        assert [values.tolist() for values in psds_curve(points)] == [[0.0], [0.5]]
    wider = Scenario(dtc=0.7, gtc=0.7, cttc=0.3, alpha_ct=0.0, alpha_st=1.0, max_efpr=360.0)
    points = [operating_points(events, detections(events, maps), wider)]
    assert [values.tolist() for values in psds_curve(points)] == [[0.0, 180.0], [0.5, 1.0]]
    assert psds_areas(points).overall[0] == pytest.approx(0.75)


def test_a_detection_is_there_between_two_thresholds() -> None:
    reference, maps = dogs()
    events = pair(reference, {}, durations={"a": 10.0, "b": 10.0})
    found = detections(events, maps)
    rows = zip(found.recording, found.onset, found.offset, found.low, found.high, strict=True)
    assert sorted((int(i), on, off, round(low, 6), round(high, 6)) for i, on, off, low, high in rows) == [
        (0, 0.0, 2.5, 0.0, 0.9),
        (0, 0.0, 10.0, -np.inf, 0.0),
        (0, 5.0, 10.0, 0.0, 0.5),
        (1, 0.0, 10.0, -np.inf, 0.0),
        (1, 5.0, 7.5, 0.3, 0.5),
        (1, 5.0, 10.0, 0.0, 0.3),
    ]


def test_low_threshold_keeps_its_share() -> None:
    scores = np.float32([[0.2], [0.45], [0.9], [0.45], [0.2]])
    events = pair({"a": [Event(0.0, 5.0, "Dog")]}, {}, durations={"a": 5.0})
    found = detections(
        events,
        {"a": PresenceMap(scores, ("Dog",), 1.0, 5.0)},
        count=2,
        post_processing=PostProcessing(threshold=0.6, threshold_low=0.3),
    )
    # 0.25 with 0.125, and 0.75 with 0.375.
    rows = zip(found.low, found.high, found.onset, found.offset, strict=True)
    assert list(rows) == [(-np.inf, 0.75, 0.0, 5.0), (0.75, np.inf, 1.0, 4.0)]


def test_boxes_between_change_points_have_one_threshold_each() -> None:
    scores = np.full((32, 1), 0.1, np.float32)
    scores[4:12], scores[20:28] = 0.8, 0.4
    events = pair({"a": [Event(1.25, 3.75, "Dog")]}, {}, durations={"a": 10.0})
    maps = {"a": PresenceMap(scores, ("Dog",), 0.3125, 10.0)}
    found = detections(events, maps, post_processing=PostProcessing(step_filter=1.3))
    assert found.high == pytest.approx([0.8, 0.4], abs=1e-6)
    assert psds_areas([operating_points(events, found, SCENARIO_2)]).overall.tolist() == [1.0]


def test_a_recording_without_map_has_no_detections() -> None:
    reference, maps = dogs()
    events = pair(reference, {}, durations={"a": 10.0, "b": 10.0})
    found = detections(events, {"b": maps["b"]})
    assert set(found.recording.tolist()) == {1}
    assert psds_areas([operating_points(events, found, SCENARIO_1)]).overall.tolist() == [0.0]
    assert psds_areas([operating_points(events, detections(events, {}), SCENARIO_1)]).overall.tolist() == [
        0.0
    ]


def test_thresholds_lie_in_the_middle_of_equal_parts() -> None:
    assert thresholds(4).tolist() == [0.125, 0.375, 0.625, 0.875]


def test_post_processing_independent_psds_is_the_best_of_all_median_filters() -> None:
    reference, maps = dogs()
    report = evaluate_strong(
        reference,
        maps=maps,
        settings=Settings(pi_psds=True),
        post_processing=PostProcessing(median_filter=9.0),
    )
    found = {m.name: m.headline["psds"].value for m in report.metrics if "psds" in m.name}
    assert list(found) == ["psds1", "psds2", "pi_psds1", "pi_psds2"]
    events = pair(reference, {}, durations={"a": 10.0, "b": 10.0})
    for name, scenario in (("pi_psds1", SCENARIO_1), ("pi_psds2", SCENARIO_2)):
        rules = [PostProcessing(median_filter=seconds) for seconds in PI_MEDIAN_FILTERS]
        points = [
            operating_points(events, detections(events, maps, post_processing=r), scenario) for r in rules
        ]
        assert found[name] == psds_areas(points).overall[0]
        assert (found[name] or 0.0) >= max(psds_areas([each]).overall[0] for each in points)


@pytest.mark.parametrize("far", [1.0, 3.0])
def test_resampling_leaves_out_no_threshold_that_counts(far: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    labels, names = ("Cat", "Dog"), [str(i) for i in range(40)]
    maps = {name: PresenceMap(rng.random((32, 2), np.float32), labels, 0.3125, 10.0) for name in names}
    reference = {n: [Event(float(k), k + 2.0, labels[k % 2])] for k, n in enumerate(names) if k < 8} | {
        name: [] for name in names[8:]
    }
    events = pair(reference, {}, durations=dict.fromkeys(names, 10.0))
    found = detections(events, maps)
    weights = Resampling.of(40, Settings(bootstrap=30)).weights
    areas = []
    for factor in (far, np.inf):
        monkeypatch.setattr("htsat_sed.evaluation.psds._FAR", factor)
        areas.append([psds_areas([operating_points(events, found, s)], weights) for s in SCENARIOS.values()])
    for ours, of_all in zip(*areas, strict=True):
        np.testing.assert_allclose(ours.overall, of_all.overall, atol=1e-12)
        np.testing.assert_allclose(ours.by_class, of_all.by_class, atol=1e-12)
