"""Metrics against sed_eval, psds_eval and scikit-learn, called directly and by `evaluate --check`."""

import json
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from htsat_sed.annotations import read_events, write_events, write_presence_map
from htsat_sed.detection.events import Event, PostProcessing, find_events
from htsat_sed.detection.median_filter import median_filter_tokens, smooth
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.errors import UsageError
from htsat_sed.evaluation import counting
from htsat_sed.evaluation.check import require
from htsat_sed.evaluation.clip import ranking
from htsat_sed.evaluation.counting import collar_counts, intersection_counts, segment_counts
from htsat_sed.evaluation.counts import Counts, f1, macro_f1, micro_f1
from htsat_sed.evaluation.details import best_threshold, collar_errors, segment_errors, segment_scores
from htsat_sed.evaluation.evaluate import evaluate_strong, evaluate_weak
from htsat_sed.evaluation.psds import (
    SCENARIO_1,
    SCENARIO_2,
    Scenario,
    detections,
    operating_points,
    psds_areas,
    psds_curve,
    thresholds,
)
from htsat_sed.evaluation.report import Settings
from htsat_sed.evaluation.tables import Pair, pair
from htsat_sed.libraries import LibraryError

try:
    require()
except (UsageError, LibraryError) as error:
    pytest.skip(str(error), allow_module_level=True)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from dcase_util.containers import MetaDataContainer
    from psds_eval import PSDSEval
    from sed_eval.sound_event import EventBasedMetrics, SegmentBasedMetrics
    from sed_scores_eval import segment_based
    from sed_scores_eval.base_modules.scores import create_score_dataframe
    from sed_scores_eval.intersection_based import postprocessing_independent_psds, psds
    from sklearn.metrics import average_precision_score, roc_auc_score

DESED = Path(__file__).parents[1] / "data" / "desed_public_eval"
LABELS = ("Cat", "Dog", "Rain")
Run = Callable[..., tuple[int, str, str]]


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
@given(tables(), tables(), st.sampled_from([0.5, 1.0]))
def test_segment_errors_are_those_of_sed_eval(
    reference: dict[str, list[Event]], estimated: dict[str, list[Event]], resolution: float
) -> None:
    events = compared(reference, estimated)
    metric = SegmentBasedMetrics(event_label_list=list(events.labels), time_resolution=resolution)
    feed(metric, events)
    ours = segment_errors(events, resolution).rates(np.ones((1, len(events.recordings))))[0]
    assert ours == pytest.approx(rates(metric), abs=1e-9)


def test_collar_errors_are_those_of_sed_eval() -> None:
    events = pair(read_events(DESED / "reference.tsv"), read_events(DESED / "htsat_single.tsv"))
    metric = EventBasedMetrics(
        event_label_list=list(events.labels),
        t_collar=0.2,
        percentage_of_length=0.2,
        event_matching_type="optimal",
    )
    feed(metric, events)
    errors = collar_errors(events, Settings())
    assert errors.rates(np.ones((1, len(events.recordings))))[0] == pytest.approx(rates(metric), abs=1e-9)


def rates(metric: EventBasedMetrics | SegmentBasedMetrics) -> list[float]:
    found = metric.results_overall_metrics()["error_rate"]
    return [found[f"{name}_rate"] for name in ("substitution", "deletion", "insertion")]


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


smoothing_and_edges = st.sampled_from([(0.0, 0.0), (0.9, 0.0), (0.9, 0.6)])
scenarios = st.sampled_from([SCENARIO_1, SCENARIO_2])


@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(presence(), scenarios, smoothing_and_edges)
def test_approximated_psds_is_that_of_psds_eval(
    made: tuple[dict[str, list[Event]], dict[str, PresenceMap]],
    scenario: Scenario,
    smoothing_and_edges: tuple[float, float],
) -> None:
    reference, maps = made
    events = compared(reference, {})
    median_filter, edge_level = smoothing_and_edges
    rules = PostProcessing(median_filter=median_filter, min_gap=0.5, edge_level=edge_level)
    found = detections(events, maps, count=6, post_processing=rules)
    points = [operating_points(events, found, scenario)]
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
    assert psds_areas(points).overall[0] == pytest.approx(expected.value, abs=1e-9)
    between = np.linspace(0.123, 99.9, 57)  # no rate of theirs or ours
    ours, of_psds_eval = (
        y[np.searchsorted(x, between) - 1]
        for x, y in (psds_curve(points), (expected.plt.xp, expected.plt.yp))
    )
    np.testing.assert_allclose(ours, of_psds_eval, atol=1e-9)
    # Every recording twice: the same rates.
    twice = psds_areas(points, np.full((1, len(events.recordings)), 2.0)).overall
    assert twice[0] == pytest.approx(expected.value, abs=1e-9)


def score_frames(
    events: Pair, maps: dict[str, PresenceMap], median_filter: float = 0.0
) -> tuple[dict[str, pd.DataFrame], dict[str, list[list[object]]], dict[str, float]]:
    """Smoothed scores, reference and durations as sed_scores_eval takes them."""
    frames = {}
    for name in events.recordings:
        made = maps[name]
        width = median_filter_tokens(median_filter, made.token_seconds)
        scores = smooth(made.scores, widths=[width] * len(made.labels))
        times = np.minimum(np.arange(len(scores) + 1) * made.token_seconds, made.duration)
        columns = scores[:, [made.labels.index(label) for label in events.labels]]
        frames[name] = create_score_dataframe(columns, times, list(events.labels))
    truth = [[[e.onset, e.offset, e.label] for e in own] for own in events.reference]
    return frames, dict(zip(events.recordings, truth, strict=True)), dict.fromkeys(events.recordings, 10.0)


def processed(
    frames: dict[str, pd.DataFrame], scores: dict[str, pd.DataFrame], lazy: bool
) -> dict[str, pd.DataFrame]:
    return frames


def parameters(scenario: Scenario) -> dict[str, float | None]:
    return {
        "dtc_threshold": scenario.dtc,
        "gtc_threshold": scenario.gtc,
        "cttc_threshold": scenario.cttc if scenario.alpha_ct else None,
        "alpha_ct": scenario.alpha_ct,
        "alpha_st": scenario.alpha_st,
        "max_efpr": scenario.max_efpr,
    }


def with_all_classes(
    made: tuple[dict[str, list[Event]], dict[str, PresenceMap]],
) -> tuple[Pair, dict[str, PresenceMap]]:
    reference, maps = made
    silent = PresenceMap(np.full((32, len(LABELS)), 0.5, np.float32), LABELS, 0.3125, 10.0)
    return compared(reference, {}), {"all.wav": silent, **maps}


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    presence(),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.sampled_from([0.1, 0.5, 0.7]),
    st.sampled_from([0.1, 0.7]),
    st.sampled_from([20.0, 100.0, 1000.0]),
    st.sampled_from([0.0, 0.9]),
)
def test_exact_psds_is_that_of_sed_scores_eval(
    made: tuple[dict[str, list[Event]], dict[str, PresenceMap]],
    alpha: float,
    dtc: float,
    gtc: float,
    max_efpr: float,
    median_filter: float,
) -> None:
    events, maps = with_all_classes(made)
    scenario = Scenario(dtc=dtc, gtc=gtc, cttc=0.3, alpha_ct=alpha, alpha_st=1.0 - alpha, max_efpr=max_efpr)
    found = detections(events, maps, post_processing=PostProcessing(median_filter=median_filter))
    areas = psds_areas([operating_points(events, found, scenario)])
    value, by_class, *_ = psds(*score_frames(events, maps, median_filter), **parameters(scenario))
    assert areas.overall[0] == pytest.approx(value, abs=1e-6)
    assert areas.by_class[0] == pytest.approx([by_class[label] for label in events.labels], abs=1e-6)


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(presence(), st.sampled_from([0.5, 1.0]))
def test_ranked_segments_are_those_of_sed_scores_eval_and_sklearn(
    made: tuple[dict[str, list[Event]], dict[str, PresenceMap]], resolution: float
) -> None:
    events, maps = with_all_classes(made)
    present, scores, recording = segment_scores(events, maps, resolution)
    frames = score_frames(events, maps)
    given = {"segment_length": resolution}
    area, _ = segment_based.auroc(*frames, max_fpr=0.1, **given)
    best, *_ = segment_based.best_fscore(*frames, **given)
    every = np.ones((len(events.recordings), 1))
    for k, label in enumerate(events.labels):
        y, s = present[:, k].astype(float), scores[:, k]
        ap, auc, low = ranking(y, s, recording, every, limit=0.1)
        assert low[0] == pytest.approx(area[label], abs=1e-6)
        assert best_threshold(present[:, k], s)[1] == pytest.approx(best[label], abs=1e-6)
        assert ap[0] == pytest.approx(average_precision_score(y, s), abs=1e-9)
        assert auc[0] == pytest.approx(roc_auc_score(y, s), abs=1e-9)


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(presence(), scenarios)
def test_post_processing_independent_psds_is_that_of_sed_scores_eval(
    made: tuple[dict[str, list[Event]], dict[str, PresenceMap]], scenario: Scenario
) -> None:
    events, maps = with_all_classes(made)
    filters = (0.0, 0.9, 2.2)
    points = [
        operating_points(
            events, detections(events, maps, post_processing=PostProcessing(median_filter=each)), scenario
        )
        for each in filters
    ]
    frames = [score_frames(events, maps, each) for each in filters]
    value, by_class, *_ = postprocessing_independent_psds(
        *frames[0],
        postprocessing_functions=[partial(processed, own) for own, *_ in frames],
        **parameters(scenario),
    )
    areas = psds_areas(points)
    assert areas.overall[0] == pytest.approx(value, abs=1e-6)
    assert areas.by_class[0] == pytest.approx([by_class[label] for label in events.labels], abs=1e-6)


@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(presence(), st.sampled_from([None, ["Dog", "Rain"]]), st.sampled_from([0, 5]))
def test_check_agrees_on_all_metrics(
    made: tuple[dict[str, list[Event]], dict[str, PresenceMap]], labels: list[str] | None, count: int
) -> None:
    reference, maps = made
    reference = {"all.wav": [Event(0.0, 1.0, label) for label in LABELS], "none.wav": [], **reference}
    asked = Settings(psds_thresholds=count, onset_collar=0.3, offset_collar=0.1, segment=0.5, dtc=0.3)
    durations = dict.fromkeys(reference, 10.0)
    report = evaluate_strong(
        reference,
        maps=maps,
        durations=durations,
        labels=labels,
        settings=asked,
        post_processing=PostProcessing(threshold_low=0.3, min_gap=0.5),
        check=True,
    )
    library = "psds_eval" if count else "sed_scores_eval"
    found = {(each.metric, each.library) for each in report.compared}
    assert found == {
        ("intersection", "psds_eval"),
        ("collar", "sed_eval"),
        ("onset", "sed_eval"),
        ("segment", "sed_eval"),
        ("psds1", library),
        ("psds2", library),
        ("clip", "scikit-learn"),
    }
    assert report.largest_difference < 1e-9


def test_check_of_nothing_estimated_and_of_clip_scores() -> None:
    report = evaluate_strong({"a": [Event(0.0, 1.0, "Dog")], "b": []}, {}, check=True)
    assert report.largest_difference == 0.0
    assert json.dumps(report.to_dict(), allow_nan=False)
    weak = {"a": {"Dog"}, "b": {"Cat"}, "c": {"Dog", "Cat"}, "d": set()}
    scores = {"a": {"Dog": 0.9, "Cat": 0.3}, "b": {"Dog": 0.9, "Cat": 0.2}, "c": {"Cat": 0.3}}
    report = evaluate_weak(weak, scores, check=True)
    assert {each.figure for each in report.compared} == {"ap", "auc", "map", "micro_ap", "micro_auc"}
    assert report.largest_difference < 1e-12


def test_check_prints_both_and_fails_on_a_difference(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = {
        "a.wav": [Event(0.0, 2.5, "Dog"), Event(2.5, 3.75, "Cat")],
        "b.wav": [Event(1.0, 2.0, "Dog")],
    }
    scores = np.float32([[0.9, 0.1], [0.8, 0.1], [0.1, 0.7], [0.1, 0.2]])
    (tmp_path / "maps").mkdir()
    presence_map = PresenceMap(scores, ("Dog", "Cat"), 1.25, 5.0)
    write_presence_map(tmp_path / "maps" / "a.wav.npz", presence_map, filename="a.wav")
    write_events(tmp_path / "reference.tsv", reference, "tsv")
    asked = ("evaluate", tmp_path / "reference.tsv", "--scores", tmp_path / "maps", "--check")
    code, out, _ = run(*asked, "--json", tmp_path / "found.json")
    assert code == 0
    rows = [line.split() for line in out.partition("check by other implementations")[2].splitlines()]
    assert ["psds2", "PSDS", "sed_scores_eval", *["0.5000"] * 2] in [row[:5] for row in rows]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["check"]["largest_difference"] < 1e-9
    assert len(found["check"]["figures"]) > 30
    assert {"sed-eval", "psds-eval", "sed-scores-eval", "scikit-learn"} <= found["versions"].keys()

    monkeypatch.setattr(
        counting, "_segments", lambda group, onset, offset, size: (onset // size, offset // size)
    )
    code, out, err = run(*asked)
    assert code == 1
    assert "error: " in err
    assert "reference.tsv: figures differ from those of other implementations by up to " in err


def test_check_without_the_libraries(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sed_eval", None)
    code, out, err = run("evaluate", tmp_path / "no.tsv", tmp_path / "no.tsv", "--check")
    assert (code, out) == (2, "")
    assert err == "error: the check needs sed_eval: pip install 'htsat-sed[reference]'\n"
