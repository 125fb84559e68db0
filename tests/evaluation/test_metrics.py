"""Metrics against sed_eval and psds_eval called directly, hand-worked cases, and published figures."""

import json
import logging
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from htsat_sed.annotations import read_durations, read_events
from htsat_sed.detection.events import Event, PostProcessing, find_events
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.counts import Counts, bootstrap_weights, f1, interval, macro_f1, micro_f1
from htsat_sed.evaluation.evaluate import evaluate_strong, score_events
from htsat_sed.evaluation.intersection import intersection_counts
from htsat_sed.evaluation.psds import (
    SCENARIO_1,
    SCENARIO_2,
    Scenario,
    detections,
    operating_points,
    thresholds,
)
from htsat_sed.evaluation.report import Settings
from htsat_sed.evaluation.sed_eval_counts import MetaDataContainer, collar_counts, segment_counts
from htsat_sed.evaluation.tables import Pair, pair

DESED = Path(__file__).parents[1] / "data" / "desed_public_eval"


LABELS = ("Cat", "Dog", "Rain")


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from psds_eval import PSDSEval
    from sed_eval.sound_event import EventBasedMetrics, SegmentBasedMetrics


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


# Events on a grid of 50 ms, so that collars and criteria are met exactly, too.
@st.composite
def tables(draw: st.DrawFn) -> dict[str, list[Event]]:
    def events() -> list[Event]:
        found: list[Event] = []
        for label in LABELS:
            edges = sorted(draw(st.sets(st.integers(0, 200), max_size=6)))
            found += [Event(a / 20, b / 20, label) for a, b in zip(edges[::2], edges[1::2], strict=False)]
        return sorted(found)

    return {f"{i}.wav": events() for i in range(draw(st.integers(1, 4)))}


def compared(reference: dict[str, list[Event]], estimated: dict[str, list[Event]]) -> Pair:
    return pair(
        {"all.wav": [Event(0.0, 1.0, label) for label in LABELS], **reference},
        estimated,
        durations=dict.fromkeys(["all.wav", *reference], 10.0),
    )


many = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])


@many
@given(tables(), tables(), st.sampled_from([0.1, 0.2, 0.5]), st.booleans())
def test_collar_counts_are_those_of_sed_eval(
    reference: dict[str, list[Event]], estimated: dict[str, list[Event]], collar: float, offset: bool
) -> None:
    events = compared(reference, estimated)
    metric = EventBasedMetrics(
        event_label_list=list(events.labels),
        t_collar=collar,
        percentage_of_length=0.2,
        evaluate_offset=offset,
        event_matching_type="optimal",
    )
    feed(metric, events)
    counts = collar_counts(events, onset_collar=collar, offset_collar=collar, offset=offset)
    compare(metric, counts, events)


@many
@given(tables(), tables(), st.sampled_from([0.5, 1.0]))
def test_segment_counts_are_those_of_sed_eval(
    reference: dict[str, list[Event]], estimated: dict[str, list[Event]], resolution: float
) -> None:
    events = compared(reference, estimated)
    metric = SegmentBasedMetrics(event_label_list=list(events.labels), time_resolution=resolution)
    feed(metric, events)
    compare(metric, segment_counts(events, resolution=resolution), events)


def feed(metric: EventBasedMetrics | SegmentBasedMetrics, events: Pair) -> None:
    for reference, estimated in zip(events.reference, events.estimated, strict=True):
        metric.evaluate(container(reference), container(estimated))


def container(events: tuple[Event, ...]) -> MetaDataContainer:
    return MetaDataContainer([{"onset": e.onset, "offset": e.offset, "event_label": e.label} for e in events])


def compare(metric: EventBasedMetrics | SegmentBasedMetrics, counts: Counts, events: Pair) -> None:
    total = counts.total()
    by_class = metric.results_class_wise_metrics()
    theirs = []
    for k, label in enumerate(events.labels):
        of_class = metric.class_wise[label]
        ours = total.tp[0, k], total.fp[0, k], total.fn[0, k]
        assert ours == (of_class["Ntp"], of_class["Nfp"], of_class["Nfn"])
        # sed_eval has NaN for a class that was never estimated; here it is 0.
        value = by_class[label]["f_measure"]["f_measure"]
        theirs.append(0.0 if np.isnan(value) else value)
        assert f1(total)[0, k] == pytest.approx(theirs[-1], abs=1e-9)
    assert macro_f1(total)[0] == pytest.approx(np.mean(theirs), abs=1e-9)
    overall = metric.results_overall_metrics()["f_measure"]["f_measure"]
    assert micro_f1(total)[0] == pytest.approx(0.0 if np.isnan(overall) else overall, abs=1e-9)


@many
@given(tables(), tables(), st.sampled_from([0.1, 0.5, 0.7]), st.sampled_from([0.1, 0.5, 0.7]))
def test_intersection_f1_is_that_of_psds_eval(
    reference: dict[str, list[Event]], estimated: dict[str, list[Event]], dtc: float, gtc: float
) -> None:
    events = compared(reference, estimated)
    theirs = PSDSEval(
        dtc_threshold=dtc,
        gtc_threshold=gtc,
        cttc_threshold=0.3,
        ground_truth=table(events.recordings, events.reference),
        metadata=pd.DataFrame({"filename": events.recordings, "duration": 10.0}),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        _, by_class = theirs.compute_macro_f_score(table(events.recordings, events.estimated))
    total = intersection_counts(events, dtc=dtc, gtc=gtc).total()
    # psds_eval has NaN for a class without a hit, and leaves it out of its mean; here it is 0.
    expected = [0.0 if np.isnan(by_class[label]) else by_class[label] for label in events.labels]
    np.testing.assert_allclose(f1(total)[0], expected, atol=1e-9)
    assert macro_f1(total)[0] == pytest.approx(np.mean(expected), abs=1e-9)


def table(recordings: tuple[str, ...], events: tuple[tuple[Event, ...], ...]) -> pd.DataFrame:
    rows = [
        (name, e.onset, e.offset, e.label) for name, own in zip(recordings, events, strict=True) for e in own
    ]
    frame = pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"])
    return frame.astype({"onset": float, "offset": float})


@st.composite
def presence(draw: st.DrawFn) -> tuple[dict[str, list[Event]], dict[str, PresenceMap]]:
    """Reference events and maps of a few steps of score, that rise where the events are."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    reference = draw(tables())
    maps = {}
    for name, own in reference.items():
        scores = rng.integers(0, 8, (32, len(LABELS)))
        for event in own:
            scores[round(3.2 * event.onset) : round(3.2 * event.offset), LABELS.index(event.label)] += 4
        maps[name] = PresenceMap((scores / 11).clip(0, 1).astype(np.float32), LABELS, 0.3125, 10.0)
    return reference, maps


@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(
    presence(),
    st.sampled_from([SCENARIO_1, SCENARIO_2]),
    st.sampled_from([(0.0, 0.0), (0.9, 0.0), (0.9, 0.6)]),
)
def test_psds_is_that_of_psds_eval(
    made: tuple[dict[str, list[Event]], dict[str, PresenceMap]],
    scenario: Scenario,
    smoothing_and_edges: tuple[float, float],
) -> None:
    reference, maps = made
    events = compared(reference, {})
    median_filter, edge_level = smoothing_and_edges
    rules = PostProcessing(median_filter=median_filter, min_gap=0.5, edge_level=edge_level)
    found = detections(events, maps, count=6, post_processing=rules)
    points = operating_points(events, found, scenario, count=6)
    theirs = PSDSEval(
        dtc_threshold=scenario.dtc,
        gtc_threshold=scenario.gtc,
        cttc_threshold=scenario.cttc,
        ground_truth=table(events.recordings, events.reference),
        metadata=pd.DataFrame({"filename": events.recordings, "duration": 10.0}),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for threshold in thresholds(6):
            at = rules.override({"threshold": threshold})
            rows = tuple(
                tuple(find_events(maps[name], at)) if name in maps else () for name in events.recordings
            )
            theirs.add_operating_point(table(events.recordings, rows))
        expected = theirs.psds(scenario.alpha_ct, scenario.alpha_st, scenario.max_efpr)
    assert points.value == pytest.approx(expected.value, abs=1e-9)
    between = np.linspace(0.123, 999.9, 57)  # no rate of theirs or ours
    ours, of_psds_eval = (
        y[np.searchsorted(x, between) - 1] for x, y in (points.curve, (expected.plt.xp, expected.plt.yp))
    )
    np.testing.assert_allclose(ours, of_psds_eval, atol=1e-9)
    # Every recording twice: the same rates.
    twice = points.resampled(np.full((1, len(events.recordings)), 2.0))
    assert twice[0] == pytest.approx(points.value, abs=1e-9)


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
        found = detections(events, {new: maps[old] for new, old in names.items()}, count=9)
        return float(operating_points(events, found, SCENARIO_2, count=9).resampled(np.array([weights]))[0])

    same = {name: name for name in reference}
    assert psds(same, [2, 0, 1]) == pytest.approx(psds({"a": "a", "a2": "a", "c": "c"}, [1, 1, 1]), abs=1e-12)
    # Without the other class no cross-trigger is left, and no instability across classes.
    assert psds(same, [0, 1, 0]) == pytest.approx(psds({"b": "b"}, [1]), abs=1e-12)
    assert psds(same, [0, 1, 0]) > 0.0


def test_hand_worked_psds() -> None:
    """One class; two thresholds, at 0.25 and 0.75.

    At 0.75 one of two events is found, without false positives; at 0.25 both, with one false positive in
    20 s, 180 an hour. Up to 100 an hour the ratio stays 1/2.
    """
    maps = {
        "a": PresenceMap(np.float32([[0.9], [0.0], [0.5], [0.5]]), ("Dog",), 2.5, 10.0),
        "b": PresenceMap(np.float32([[0.0], [0.0], [0.5], [0.5]]), ("Dog",), 2.5, 10.0),
    }
    reference = {"a": [Event(0.0, 2.5, "Dog"), Event(5.0, 10.0, "Dog")], "b": []}
    events = pair(reference, {}, durations={"a": 10.0, "b": 10.0})
    points = operating_points(events, detections(events, maps, count=2), SCENARIO_1, count=2)
    assert points.value == pytest.approx(0.5)
    assert [values.tolist() for values in points.curve] == [[0.0, 180.0], [0.5, 1.0]]


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
    assert found[["threshold", "onset", "offset"]].to_numpy().tolist() == [[0, 0.0, 5.0], [1, 1.0, 4.0]]


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
        "1 recording only estimated: left out",
        "1 recording only in the reference: scored as without estimated events",
        "1 estimated event of classes without reference events (Bird): left out",
        "1 reference event overlapping another of the same class: joined",
        "1 estimated event past the end of a recording: counted all the same",
    ]
    assert [record.getMessage() for record in caplog.records] == list(events.remarks)


@pytest.mark.parametrize(
    ("reference", "estimated", "message"),
    [
        ({"a": []}, {}, "at least one event of the classes to be scored, got none"),
        (
            {"a.wav": [Event(0, 1, "Dog")]},
            {"b.wav": []},
            "the reference has 'a.wav', the other side 'b.wav'",
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
        "1 recording only estimated: left out",
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
    assert interval(np.array([np.nan])) is None
    assert bootstrap_weights(5, samples=3, seed=0).sum(axis=1).tolist() == [5, 5, 5]


def test_thresholds_lie_in_the_middle_of_equal_parts() -> None:
    assert thresholds(4).tolist() == [0.125, 0.375, 0.625, 0.875]


@pytest.mark.parametrize("wrong", [{"dtc": 1.5}, {"onset_collar": 0.0}, {"psds_thresholds": 0}, {"seed": -1}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="wanted"):
        Settings(**wrong)  # type: ignore[arg-type]
