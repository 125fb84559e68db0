"""Thresholds with a target precision, from verdicts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from htsat_sed.annotations.reviews import Reviewed, read_review
from htsat_sed.detection.events import Event, PostProcessing, read_post_processing
from htsat_sed.errors import AnnotationError
from htsat_sed.evaluation.reviewed import FEWEST, _fitted, _Prior, precision_thresholds

HEADER = "filename,onset,offset,event_label,score,verdict,detected_onset,detected_offset,detected_label,heard"


def chance(score: float) -> float:
    """How often events of a score are truly right, in these tests."""
    return 1.0 / (1.0 + np.exp(-2.0 * (np.log(score / (1.0 - score)) - 0.5)))


def drawn(count: int, *, heard: int, seed: int, by_band: bool = False) -> list[Reviewed]:
    """Events of one class, most of low scores, of which some were heard: at random, or as many a band."""
    rng = np.random.default_rng(seed)
    scores = 0.3 + 0.69 * rng.beta(1.0, 2.0, count)
    chosen = rng.permutation(count)[:heard]
    if by_band:
        bands = [np.flatnonzero((scores * 10).astype(int) == band) for band in range(3, 10)]
        chosen = np.concatenate([rng.permutation(own)[: heard // 7] for own in bands])
    right = rng.random(count) < [chance(s) for s in scores]
    verdicts = ["right" if each else "wrong" for each in right]
    return [
        Reviewed("a", Event(float(i), i + 0.5, "Dog", float(s)), verdicts[i] if i in set(chosen) else "")
        for i, s in enumerate(scores)
    ]


def precision_of(events: list[Reviewed], threshold: float) -> float:
    """The true precision above a threshold."""
    return float(np.mean([chance(e.detected.score) for e in events if e.detected.score > threshold]))


@pytest.mark.parametrize("by_band", [False, True])
def test_threshold_has_the_precision(by_band: bool) -> None:
    inside = 0
    for seed in range(20):
        events = drawn(2000, heard=140, seed=seed, by_band=by_band)
        (found,) = precision_thresholds(events, 0.8, seed=seed)
        assert found.threshold is not None
        assert found.precision >= 0.8
        low, high = found.interval
        inside += low <= precision_of(events, found.threshold) <= high
        assert found.kept == sum(e.detected.score > found.threshold for e in events)
    assert inside >= 17  # of 20 intervals of 95 %


def test_regression_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=80)
    right = rng.random(80) < 1.0 / (1.0 + np.exp(-(0.3 + 1.4 * x)))
    design = np.stack([np.ones(80), x], axis=1)
    prior = _Prior(0.0, 1.0, np.zeros(2), np.diag([25.0, 6.25]))
    best, _ = _fitted(design, right.astype(float), prior)
    # Standard deviations 5 and 2.5 of the coefficients, as one strength.
    other = LogisticRegression(fit_intercept=False, C=1.0, tol=1e-10).fit(design * [5.0, 2.5], right)
    np.testing.assert_allclose(best, other.coef_[0] * [5.0, 2.5], atol=1e-5)


def test_scores_that_mean_nothing_do_not_lower_the_threshold() -> None:
    """Where low scores are right more often, precision is taken as the same throughout."""
    events = [
        Reviewed("a", Event(float(i), i + 0.5, "Dog", 0.5 + 0.01 * i), "right" if i < 30 else "wrong")
        for i in range(40)
    ]
    (found,) = precision_thresholds(events, 0.7)
    assert (found.threshold, found.kept) == (pytest.approx(0.495, abs=0.01), 40)
    assert found.precision == pytest.approx(0.75, abs=0.02)
    (found,) = precision_thresholds(events, 0.9)
    assert (found.threshold, found.kept) == (1.0, 0)


def test_too_few_verdicts_give_no_threshold_but_what_to_hear() -> None:
    events = drawn(100, heard=FEWEST - 1, seed=0)
    (found,) = precision_thresholds(events, 0.9)
    assert (found.threshold, found.too_few) == (None, True)
    assert len(found.following) == 1
    unsure = [Reviewed(e.recording, e.detected, "unsure") for e in events]
    (found,) = precision_thresholds(unsure, 0.9)
    assert (found.heard, found.following) == (0, ())


def test_few_verdicts_lean_on_those_of_other_classes() -> None:
    """Five verdicts that are all right do not say that every event is, if other classes say otherwise."""
    many = drawn(500, heard=300, seed=3)
    few = [
        Reviewed("b", Event(float(i), i + 0.5, "Purr", 0.35 + 0.1 * i), "right" if i < 5 else "")
        for i in range(6)
    ]
    alone = precision_thresholds(few, 0.9)[0]
    together = precision_thresholds([*many, *few], 0.9)[1]
    assert alone.label == together.label == "Purr"
    assert alone.kept == 6
    assert together.kept < 6
    assert together.too_few


def test_other_label_is_wrong() -> None:
    events = [
        Reviewed("a", Event(float(i), i + 0.5, "Dog", 0.9), "other" if i % 2 else "right") for i in range(40)
    ]
    (found,) = precision_thresholds(events, 0.4)
    assert found.precision == pytest.approx(0.5, abs=0.01)


def table(path: Path, events: list[Reviewed]) -> Path:
    lines = [
        f"{e.recording},,,,{e.detected.score:.4f},{e.verdict},{e.detected.onset:.3f},{e.detected.offset:.3f},"
        f"{e.detected.label},"
        for e in events
    ]
    path.write_text("\n".join([HEADER, *lines, "a,,,,,listened,0,9,,", "a,1,2,Dog,,missed,,,,", ""]), "utf-8")
    return path


def test_review_tables_are_read(tmp_path: Path) -> None:
    events = drawn(5, heard=2, seed=0)
    path = table(tmp_path / "review.csv", events)
    assert [(e.recording, e.verdict) for e in read_review(path)] == [(e.recording, e.verdict) for e in events]
    path.write_text(f"{HEADER}\na,,,,0.5,perhaps,1,2,Dog,\n", "utf-8")
    with pytest.raises(AnnotationError, match=r"review.csv: line 2: .*perhaps"):
        read_review(path)


def test_tune_takes_a_review(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    review = table(tmp_path / "review.csv", drawn(500, heard=200, seed=1))
    few = [
        Reviewed("b", Event(1.0, 2.0, "Purr", 0.7), "right"),
        Reviewed("b", Event(3.0, 4.0, "Purr", 0.8), ""),
    ]
    with review.open("a") as file:
        file.writelines(
            f"b,,,,{e.detected.score},{e.verdict},{e.detected.onset},{e.detected.offset},Purr,\n" for e in few
        )
    out, following = tmp_path / "tuned.toml", tmp_path / "next.csv"
    code, shown, err = run("tune", "--reviewed", review, "--precision", 0.8, "-o", out, "--next", following)
    assert code == 0
    assert "too few verdicts" in shown
    assert "review next: Purr: b 0:03.00 (0.80)" in err
    assert f"{following}: 1 event to review next" in err
    rules = PostProcessing().override(read_post_processing(out))
    assert set(rules.classes) == {"Dog"}
    own = rules.of("Dog")
    assert own.threshold_low is not None
    assert own.threshold_low <= own.threshold
    assert "b,3.000,4.000,Purr,0.8000" in following.read_text(encoding="utf-8")


def test_thresholds_hold_for_presence_scores_before_calibration(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """With a slope of 2 and no offset, the odds of an event score are the square of a presence score's."""
    events = [
        Reviewed("a", Event(float(i), i + 0.5, "Dog", score), verdict)
        for i in range(60)
        for score, verdict in [(0.9, "right") if i % 2 else (0.2, "wrong")]
    ]
    (tmp_path / "before.toml").write_text("threshold = 0.5\nscore_slope = 2.0\n")
    review, out = table(tmp_path / "review.csv", events), tmp_path / "tuned.toml"
    run("tune", "--reviewed", review, "-o", out, "--post-processing", tmp_path / "before.toml")
    own = PostProcessing().override(read_post_processing(out)).of("Dog")
    (calibrated,) = re.findall(r"# ([0-9.]+) in calibrated scores", out.read_text())
    assert 0.2 < float(calibrated) < 0.9
    odds = own.threshold / (1.0 - own.threshold)
    assert odds**2 == pytest.approx(float(calibrated) / (1.0 - float(calibrated)), rel=1e-3)
    assert own.threshold_low == 0.5


def test_a_class_whose_events_are_all_right_keeps_its_threshold(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    events = [Reviewed("a", Event(float(i), i + 0.5, "Dog", 0.95), "right") for i in range(30)]
    (tmp_path / "before.toml").write_text("threshold = 0.6\n")
    review, out = table(tmp_path / "review.csv", events), tmp_path / "tuned.toml"
    before = ("--post-processing", tmp_path / "before.toml")
    code, printed, _ = run("tune", "--reviewed", review, "-o", out, *before)
    assert code == 0
    assert PostProcessing().override(read_post_processing(out)).of("Dog").threshold == 0.6
    assert "not raised" in printed


def test_without_events_to_review_next_the_reason_is_given(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    review = table(tmp_path / "review.csv", [Reviewed("a", Event(0.0, 0.5, "Dog", 0.95), "right")])
    code, _, err = run("tune", "--reviewed", review, "--next", tmp_path / "next.csv")
    assert code == 0
    assert "all events of the classes with too few verdicts have one: make the page with a lower" in " ".join(
        err.split()
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--precision", "0.9"],
        ["reference.tsv", "--reviewed", "review.csv"],
        ["--reviewed", "review.csv", "--scores", "maps"],
        ["reference.tsv", "--scores", "maps", "--next", "next.csv"],
    ],
)
def test_review_and_reference_exclude_each_other(
    run: Callable[..., tuple[int, str, str]], arguments: list[str]
) -> None:
    code, _, _ = run("tune", *arguments)
    assert code == 2
