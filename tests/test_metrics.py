"""Metrics against sed_eval and psds_eval called directly, hand-worked cases, and published figures."""

import logging
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from htsat_sed.annotations import read_durations, read_events
from htsat_sed.detection.events import Event, PostProcessing
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.clip import clip_scores, d_prime, scores_of_map
from htsat_sed.evaluation.counts import bootstrap_weights, f1, interval, macro_f1, micro_f1
from htsat_sed.evaluation.intersection import intersection_counts
from htsat_sed.evaluation.psds import SCENARIO_1, SCENARIO_2, operating_points, thresholds
from htsat_sed.evaluation.report import Settings, evaluate_clips, evaluate_events
from htsat_sed.evaluation.sed_eval_counts import MetaDataContainer, collar_counts, segment_counts
from htsat_sed.evaluation.tables import Pair, pair

DESED = Path(__file__).parent / "data" / "desed_public_eval"
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
    found = {metric.name: metric.headline["macro_f1"].value for metric in evaluate_events(events, Settings())}
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


def feed(metric: object, events: Pair) -> None:
    for reference, estimated in zip(events.reference, events.estimated, strict=True):
        metric.evaluate(container(reference), container(estimated))  # type: ignore[attr-defined]


def container(events: tuple[Event, ...]) -> MetaDataContainer:
    return MetaDataContainer([{"onset": e.onset, "offset": e.offset, "event_label": e.label} for e in events])


def compare(metric: object, counts: object, events: Pair) -> None:
    values = f1(counts.total())[0]  # type: ignore[attr-defined]
    for k, label in enumerate(events.labels):
        theirs = metric.results_class_wise_metrics()[label]["f_measure"]["f_measure"]  # type: ignore[attr-defined]
        if not np.isnan(theirs):
            assert values[k] == pytest.approx(theirs, abs=1e-9)
    theirs = metric.results_overall_metrics()["f_measure"]["f_measure"]  # type: ignore[attr-defined]
    if not np.isnan(theirs):
        assert micro_f1(counts.total())[0] == pytest.approx(theirs, abs=1e-9)  # type: ignore[attr-defined]


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
    values = f1(intersection_counts(events, dtc=dtc, gtc=gtc).total())[0]
    for k, label in enumerate(events.labels):
        # psds_eval has NaN for a class without a hit, and leaves it out of its mean; here it is 0.
        expected = 0.0 if np.isnan(by_class[label]) else by_class[label]
        assert values[k] == pytest.approx(expected, abs=1e-9)


def table(recordings: tuple[str, ...], events: tuple[tuple[Event, ...], ...]) -> pd.DataFrame:
    rows = [
        (name, e.onset, e.offset, e.label) for name, own in zip(recordings, events, strict=True) for e in own
    ]
    frame = pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"])
    return frame.astype({"onset": float, "offset": float})


@pytest.mark.parametrize("scenario", [SCENARIO_1, SCENARIO_2])
def test_bootstrapped_psds_with_equal_weights_is_that_of_psds_eval(scenario: object) -> None:
    rng = np.random.default_rng(3)
    reference = {
        f"{i}.wav": sorted(
            Event(float(a), float(a + d), LABELS[k])
            for k, a, d in zip(
                rng.permutation(3)[:2], rng.uniform(0, 6, 2), rng.uniform(0.5, 4, 2), strict=True
            )
        )
        for i in range(12)
    }
    maps = {}
    for name, own in reference.items():
        scores = rng.beta(1, 4, (32, 3))
        for event in own:
            scores[int(event.onset / 0.3125) : int(event.offset / 0.3125) + 1, LABELS.index(event.label)] += (
                0.4
            )
        maps[name] = PresenceMap(scores.clip(0, 1).astype(np.float32), LABELS, 0.3125, 10.0)
    events = pair(reference, {})
    points = operating_points(
        events, maps, scenario, count=20, post_processing=PostProcessing(median_filter=0.9)
    )  # type: ignore[arg-type]
    assert 0.01 < points.value < 0.95
    drawn = points.resampled(np.stack([np.ones(12), np.full(12, 2.0)]))
    np.testing.assert_allclose(drawn, points.value, atol=1e-9)


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
    assert [record.getMessage() for record in caplog.records] == [
        "1 recordings are estimated but not in the reference; left out",
        "1 recordings are in the reference alone; scored as without estimated events",
        "1 estimated events are of classes without reference events (Bird); left out",
        "1 reference events are overlapping another of the same class; joined with it",
        "1 estimated events are past the end of their recording; counted as they stand",
    ]
    with pytest.raises(ValueError, match="at least one event of the classes to be scored, got none"):
        pair({"a": []}, {})


def test_intervals_hold_the_value_and_repeat() -> None:
    events = pair(read_events(DESED / "reference.tsv"), read_events(DESED / "htsat_single.tsv"))
    once, twice = (evaluate_events(events, Settings(bootstrap=200, seed=1)) for _ in range(2))
    assert once == twice
    score = once[0].headline["macro_f1"]
    assert score.low is not None
    assert score.low < (score.value or 0.0) < (score.high or 0.0) < score.low + 0.1
    assert interval(np.array([np.nan])) is None
    assert bootstrap_weights(5, samples=3, seed=0).sum(axis=1).tolist() == [5, 5, 5]


def test_clip_metrics_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    weak = {f"{i}": {label for label in LABELS if rng.random() < 0.4} for i in range(30)}
    scores = {name: {label: float(rng.random()) for label in LABELS} for name in weak}
    clips = clip_scores(weak, scores)
    for k, label in enumerate(LABELS):
        truth = [float(label in weak[name]) for name in sorted(weak)]
        values = [scores[name][label] for name in sorted(weak)]
        assert clips.average_precision()[k] == pytest.approx(average_precision_score(truth, values), abs=1e-9)
        assert clips.auc()[k] == pytest.approx(roc_auc_score(truth, values), abs=1e-9)
    found = evaluate_clips(clips, Settings(bootstrap=20))
    assert found.headline["map"].value == pytest.approx(clips.average_precision().mean())
    # AUC 0.76025 lies where two unit normals are one standard deviation apart
    assert d_prime(np.array([0.5, 0.7602499389])).tolist() == pytest.approx([0.0, 1.0], abs=1e-6)


def test_clip_scores_of_a_map_and_classes_without_both_kinds() -> None:
    presence = PresenceMap(np.float32([[0.1, 0.5], [0.75, 0.25]]), ("Dog", "Cat"), 0.3125, 0.6)
    assert scores_of_map(presence) == {"Dog": 0.75, "Cat": 0.5}
    clips = clip_scores({"a": {"Dog"}, "b": {"Dog", "Cat"}}, {"a": {"Dog": 0.1}})
    assert (clips.labels, clips.left_out) == (("Cat",), ("Dog",))
    with pytest.raises(ValueError, match="wanted a class that some recordings have and others lack"):
        clip_scores({"a": {"Dog"}}, {})


def test_thresholds_lie_in_the_middle_of_equal_parts() -> None:
    assert thresholds(4).tolist() == [0.125, 0.375, 0.625, 0.875]


@pytest.mark.parametrize("wrong", [{"dtc": 1.5}, {"onset_collar": 0.0}, {"psds_thresholds": 0}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="wanted"):
        Settings(**wrong)  # type: ignore[arg-type]
