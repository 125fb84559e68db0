"""Metrics: hand-worked cases, and published figures."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap

from htsat_sed.annotations import read_durations, read_events
from htsat_sed.detection.events import Event
from htsat_sed.evaluation.bootstrap import Resampling, bca_interval
from htsat_sed.evaluation.counting import collar_counts, intersection_counts, segment_counts
from htsat_sed.evaluation.counts import macro_f1
from htsat_sed.evaluation.evaluate import evaluate_strong, score_events
from htsat_sed.evaluation.report import Settings
from htsat_sed.evaluation.tables import pair

DESED = Path(__file__).parents[1] / "data" / "desed_public_eval"


@pytest.mark.parametrize(
    ("detections", "expected"),
    [
        ("htsat_single", {"intersection": 48.42, "collar": 6.76, "segment": 69.80}),
        ("htsat_ensemble", {"intersection": 50.67, "collar": 8.02, "segment": 70.64}),
    ],
)
def test_published_detections(detections: str, expected: dict[str, float]) -> None:
    events = pair(
        read_events(DESED / "reference.tsv"),
        read_events(DESED / f"{detections}.tsv"),
        durations=read_durations(DESED / "durations.tsv"),
    )
    found = {metric.name: metric.headline["macro_f1"].value for metric in score_events(events, Settings())}
    assert {name: round(100 * (found[name] or 0.0), 2) for name in expected} == expected


def test_hand_worked_counts() -> None:
    events = pair(
        {"a": [Event(0.0, 2.0, "Dog"), Event(5.0, 6.0, "Dog")], "b": [Event(1.0, 2.0, "Cat")]},
        {"a": [Event(0.1, 2.35, "Dog"), Event(5.5, 6.0, "Dog")], "b": [Event(3.0, 4.0, "Dog")]},
    )
    # Offset 2.35 is within 20 % of 2 s; the second misses its onset by 500 ms but covers half the event.
    collar = collar_counts(events).total()
    assert (collar.tp.tolist(), collar.fp.tolist(), collar.fn.tolist()) == ([[0, 1]], [[0, 2]], [[1, 1]])
    intersection = intersection_counts(events).total()
    assert (intersection.tp.tolist(), intersection.fp.tolist()) == ([[0, 2]], [[0, 1]])
    assert macro_f1(intersection)[0] == pytest.approx((0.0 + 4 / 5) / 2)
    assert macro_f1(collar_counts(events, onset_collar=0.6, offset_collar=0.1, offset_share=0.0).total())[
        0
    ] == pytest.approx((0 + 2 / 5) / 2)


def test_rules_of_pairing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        events = pair(
            {"a": [Event(0, 2, "Dog"), Event(1, 3, "Dog"), Event(3, 4, "Dog")], "quiet": []},
            {"a": [Event(0, 1, "Bird"), Event(9, 11, "Dog")], "elsewhere": []},
            durations={"a": 10.0},
            labels=["Dog", "Cat"],
        )
    assert events.recordings == ("a", "quiet")
    assert events.reference == ((Event(0, 3, "Dog"), Event(3, 4, "Dog")), ())
    assert events.estimated == ((Event(9, 11, "Dog"),), ())
    assert events.silent == ("Cat",)
    assert list(events.remarks) == [
        "1 recording without reference: left out",
        "1 recording without estimates: scored as without estimated events",
        "1 estimated event of classes without reference events (Bird): left out",
        "1 reference event overlapping another of the same class: merged",
        "1 estimated event past the end of a recording: scored unchanged",
    ]
    assert [record.getMessage() for record in caplog.records] == list(events.remarks)


@pytest.mark.parametrize(
    ("reference", "estimated", "message"),
    [
        ({"a": []}, {}, "at least one event of the scored classes, got none"),
        (
            {"a.wav": [Event(0, 1, "Dog")]},
            {"b.wav": []},
            "the reference has 'a.wav', the estimates 'b.wav'",
        ),
    ],
)
def test_tables_that_cannot_be_paired(
    reference: dict[str, list[Event]], estimated: dict[str, list[Event]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pair(reference, estimated)


def test_nothing_estimated() -> None:
    report = evaluate_strong({"a": [Event(0.0, 1.0, "Dog")], "b": []}, {}, settings=Settings(bootstrap=20))
    for metric in report.metrics:
        figures = metric.classes["Dog"]
        assert (figures["f1"], figures["precision"], figures["recall"]) == (0.0, None, 0.0)
        assert metric.headline["macro_precision"].value == 0.0
        assert metric.headline["micro_precision"].value is None
    json.dumps(report.to_dict(), allow_nan=False)


def test_listed_recording_that_the_reference_lacks_has_no_events(caplog: pytest.LogCaptureFixture) -> None:
    reference = {"a": [Event(0.0, 1.0, "Dog")]}
    estimated = {"a": [Event(0.0, 1.0, "Dog")], "b": [Event(0.0, 1.0, "Dog")], "c": [Event(0.0, 1.0, "Dog")]}
    with caplog.at_level(logging.WARNING):
        report = evaluate_strong(reference, estimated, durations={"a": 2.0, "b": 2.0, "elsewhere": 2.0})
    assert report.recordings == 2
    assert report.metrics[0].classes["Dog"]["fp"] == 1.0
    assert list(report.remarks) == [
        "1 recording with a duration but not in the reference: scored as without events",
        "1 recording without reference: left out",
    ]


def test_event_past_the_end_is_a_false_positive() -> None:
    found = {"a": [Event(11.0, 12.0, "Dog")]}
    events = pair({"a": [Event(0.0, 1.0, "Dog")]}, found, durations={"a": 10.0})
    for counts in (intersection_counts(events), collar_counts(events), segment_counts(events)):
        assert counts.fp.tolist() == [[1.0]]


def test_intervals_hold_the_value_and_repeat() -> None:
    events = pair(read_events(DESED / "reference.tsv"), read_events(DESED / "htsat_single.tsv"))
    once, twice = (score_events(events, Settings(bootstrap=50, seed=1)) for _ in range(2))
    assert once == twice
    score = once[0].headline["macro_f1"]
    assert score.low is not None
    assert score.low < (score.value or 0.0) < (score.high or 0.0) < score.low + 0.1
    speech = once[0].intervals["Speech"]["f1"]
    assert (speech[0] or 0.0) < (once[0].classes["Speech"]["f1"] or 0.0) < (speech[1] or 0.0)
    draws = Resampling.of(5, Settings(bootstrap=3))
    assert draws.weights.sum(axis=1).tolist() == [5, 5, 5, 5, 4, 4, 4, 4, 4]
    assert draws.score(np.full(9, np.nan)).value is None


def test_bca_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(1).exponential(size=40)
    draws = Resampling.of(40, Settings(bootstrap=20_000))
    means = draws.weights @ values / draws.weights.sum(axis=1)
    low, high = bca_interval(float(means[0]), means[1:20_001], means[20_001:])
    theirs = bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", random_state=np.random.default_rng(2)
    ).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.03)
    # A value that no sample reaches is inside all the same.
    assert bca_interval(1.0, np.full(10, 0.9), np.full(4, 1.0)) == (0.9, 1.0)


@pytest.mark.parametrize(
    "wrong", [{"dtc": 1.5}, {"onset_collar": 0.0}, {"psds_thresholds": -1}, {"seed": -1}]
)
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="wanted"):
        Settings(**wrong)  # type: ignore[arg-type]
