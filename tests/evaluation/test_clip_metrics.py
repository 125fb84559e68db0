"""Clip-level metrics against scikit-learn, and hand-worked cases."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.clip import clip_scores, d_prime, scores_of_map
from htsat_sed.evaluation.evaluate import evaluate_weak, score_clips
from htsat_sed.evaluation.report import Settings

LABELS = ("Cat", "Dog", "Rain")


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1 << 16), st.integers(2, 20), st.integers(1, 6))
def test_clip_metrics_are_those_of_scikit_learn(seed: int, recordings: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    weak = {f"{i:02}": {label for label in LABELS if rng.random() < 0.5} for i in range(recordings)}
    weak |= {"some": {"Cat", "Rain"}, "none": set()}
    scores = {name: {label: rng.integers(levels + 1) / levels for label in LABELS} for name in weak}
    clips = clip_scores(weak, scores)
    weights = rng.integers(0, 3, (2, len(weak))).astype(float)
    weights[:, -2:] = 1.0  # both kinds of Cat and Rain
    figures = clips.figures(weights)
    for k, label in enumerate(clips.labels):
        if label == "Dog":
            continue
        truth = [float(label in weak[name]) for name in sorted(weak)]
        values = [scores[name][label] for name in sorted(weak)]
        for drawn in range(2):
            expected = [
                metric(truth, values, sample_weight=weights[drawn])
                for metric in (average_precision_score, roc_auc_score)
            ]
            assert [figures.ap[drawn, k], figures.auc[drawn, k]] == pytest.approx(expected, abs=1e-12)
    everything = clips.present.ravel(), clips.scores.ravel()
    for drawn in range(2):
        repeated = np.repeat(weights[drawn], len(clips.labels))
        expected = [
            metric(*everything, sample_weight=repeated) for metric in (average_precision_score, roc_auc_score)
        ]
        assert [figures.micro_ap[drawn], figures.micro_auc[drawn]] == pytest.approx(expected, abs=1e-12)


def test_resampling_without_both_kinds_has_no_clip_figures() -> None:
    clips = clip_scores({"a": {"Dog"}, "b": set()}, {"a": {"Dog": 0.5}, "b": {"Dog": 0.5}})
    figures = clips.figures(np.float64([[1, 1], [0, 2], [2, 0]]))
    np.testing.assert_array_equal(figures.auc, [[0.5], [np.nan], [np.nan]])
    np.testing.assert_array_equal(figures.ap, [[0.5], [np.nan], [1.0]])


def test_d_prime() -> None:
    # AUC 0.76025 lies where two unit normals are one standard deviation apart
    assert d_prime(np.array([0.5, 0.7602499389])).tolist() == pytest.approx([0.0, 1.0], abs=1e-6)


def test_perfect_clip_scores_have_no_d_prime() -> None:
    report = evaluate_weak({"a": {"Dog"}, "b": set()}, {"a": {"Dog": 0.9}, "b": {"Dog": 0.1}})
    headline = report.metrics[0].headline
    assert (headline["auc"].value, headline["d_prime"].value) == (1.0, None)
    assert report.to_dict()["null_because"]["d_prime"] == "the AUC is 0 or 1"


def test_clip_intervals() -> None:
    rng = np.random.default_rng(0)
    weak = {f"{i}": {"Dog"} if i % 2 else set() for i in range(40)}
    scores = {name: {"Dog": float(0.2 * bool(own) + rng.random())} for name, own in weak.items()}
    clips = clip_scores(weak, scores)
    for score in score_clips(clips, Settings(bootstrap=50)).headline.values():
        assert score.low is not None
        assert score.low < (score.value or 0.0) < (score.high or 0.0)


def test_clip_scores_of_a_map_and_classes_without_both_kinds() -> None:
    presence = PresenceMap(np.float32([[0.1, 0.5], [0.75, 0.25]]), ("Dog", "Cat"), 0.3125, 0.6)
    assert scores_of_map(presence) == {"Dog": 0.75, "Cat": 0.5}
    clips = clip_scores({"a": {"Dog"}, "b": {"Dog", "Cat"}}, {"a": {"Dog": 0.1}, "c": {}})
    assert (clips.labels, clips.left_out) == (("Cat",), ("Dog",))
    assert list(clips.remarks) == [
        "1 recording with clip scores only: left out",
        "1 recording without clip scores: scored as 0",
        "1 label without clip scores (Cat): scored as 0",
    ]
    with pytest.raises(ValueError, match="wanted a class that some recordings have and others lack"):
        clip_scores({"a": {"Dog"}}, {})
