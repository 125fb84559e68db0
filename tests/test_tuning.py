"""Tuning: counts against the metrics' own, exactness, laws, and the command."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from htsat_sed.annotations import write_events, write_presence_map
from htsat_sed.cli import main
from htsat_sed.detection.events import Event, PostProcessing, find_events, read_post_processing
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.counts import f1
from htsat_sed.evaluation.intersection import intersection_counts
from htsat_sed.evaluation.report import Settings
from htsat_sed.evaluation.sed_eval_counts import collar_counts, segment_counts
from htsat_sed.evaluation.tables import Pair, pair
from htsat_sed.evaluation.tuning import Choice, _Curves, tune

STEP = 0.3125
LABELS = ("Cat", "Dog")


def example(
    seed: int, recordings: int = 10, tokens: int = 16
) -> tuple[dict[str, list[Event]], dict[str, PresenceMap]]:
    """Events on the token grid, and maps that hear them through noise."""
    rng = np.random.default_rng(seed)
    reference: dict[str, list[Event]] = {}
    maps: dict[str, PresenceMap] = {}
    for i in range(recordings):
        name = f"{i}.wav"
        active = rng.random((tokens, 2)) < 0.25
        active |= np.roll(active, 1, axis=0)
        truth = PresenceMap(active.astype(np.float32), LABELS, STEP, tokens * STEP)
        reference[name] = find_events(truth, PostProcessing())
        scores = (0.5 * active + rng.random((tokens, 2)) * 0.6).clip(0, 1).round(2)
        maps[name] = PresenceMap(scores.astype(np.float32), LABELS, STEP, tokens * STEP)
    reference["0.wav"] = [Event(0.0, STEP, label) for label in LABELS]
    return reference, maps


def detected(reference: dict[str, list[Event]], maps: dict[str, PresenceMap], choice: Choice) -> Pair:
    rules = PostProcessing(**choice.values())
    return pair(reference, {name: find_events(presence, rules) for name, presence in maps.items()})


choices = st.builds(
    Choice,
    st.floats(0.05, 0.95),
    st.sampled_from([1.0, 0.5]),
    st.sampled_from([0.0, 0.9]),
    st.sampled_from([0.0, 0.5]),
    st.sampled_from([0.0, 0.5]),
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1000), choices, st.sampled_from(["intersection", "collar", "segment"]))
def test_counts_are_those_of_the_metrics(seed: int, choice: Choice, metric: str) -> None:
    reference, maps = example(seed, recordings=4)
    events = detected(reference, maps, choice)
    theirs = {"intersection": intersection_counts, "collar": collar_counts, "segment": segment_counts}[
        metric
    ](events)
    for k, label in enumerate(events.labels):
        ours = _Curves(events, maps, label, metric, Settings()).counts(choice)  # type: ignore[arg-type]
        np.testing.assert_allclose(ours.tp, theirs.tp[:, k])
        np.testing.assert_allclose(ours.fp, theirs.fp[:, k])
        np.testing.assert_allclose(ours.fn, theirs.fn[:, k])


@pytest.mark.parametrize("metric", ["intersection", "collar"])
@pytest.mark.parametrize("low_share", [1.0, 0.5])
def test_the_best_threshold_is_the_best_of_all(metric: str, low_share: float) -> None:
    reference, maps = example(5)
    events = pair(reference, {})
    everything = np.ones(len(events.recordings), bool)
    for label in events.labels:
        curves = _Curves(events, maps, label, metric, Settings())  # type: ignore[arg-type]
        choice = Choice(low_share=low_share, min_gap=0.5)
        threshold, value = curves.best_threshold(choice, everything)
        tried = [
            _f1(curves, Choice(float(t), low_share, min_gap=0.5)) for t in np.linspace(0.0005, 0.9995, 1000)
        ]
        assert value == pytest.approx(max(tried), abs=1e-9)
        assert _f1(curves, Choice(threshold, low_share, min_gap=0.5)) == pytest.approx(value, abs=1e-9)


def _f1(curves: _Curves, choice: Choice) -> float:
    counts = curves.counts(choice)
    tp, fp, fn = counts.tp.sum(), counts.fp.sum(), counts.fn.sum()
    return float(2 * tp / (2 * tp + fp + fn))


@settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1000))
def test_fitting_never_loses(seed: int) -> None:
    reference, maps = example(seed)
    found = tune(pair(reference, {}), maps, folds=2)
    for untuned, fitted, _ in found.by_class().values():
        assert fitted >= untuned - 1e-9
    again = tune(pair(reference, {}), maps, folds=2)
    assert again.choices == found.choices
    # What is fitted is what detection with these values scores.
    events = pair(
        reference, {name: find_events(presence, found.post_processing()) for name, presence in maps.items()}
    )
    scored = f1(intersection_counts(events).total())[0]
    np.testing.assert_allclose(scored, f1(found.fitted.total())[0], atol=1e-9)


def test_held_out_values_do_not_know_their_recordings() -> None:
    # Noise alone: what fits the recordings it was chosen on must not seem to fit the others as well.
    rng = np.random.default_rng(0)
    reference, maps = example(0, recordings=30)
    maps = {
        name: PresenceMap(rng.random(m.scores.shape).astype(np.float32), LABELS, STEP, m.duration)
        for name, m in maps.items()
    }
    _, fitted, held_out = tune(pair(reference, {}), maps, folds=5).macro()
    assert held_out < fitted


@pytest.mark.parametrize(("folds", "message"), [(1, "wanted 2 to 10 folds"), (11, "wanted 2 to 10 folds")])
def test_impossible_folds(folds: int, message: str) -> None:
    reference, maps = example(0)
    with pytest.raises(ValueError, match=message):
        tune(pair(reference, {}), maps, folds=folds)
    with pytest.raises(ValueError, match=r"a presence map of every recording, got none of '0\.wav'"):
        tune(pair(reference, {}), {})


def test_command_writes_values_that_detect_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, maps = example(3)
    write_events(tmp_path / "reference.tsv", reference, "tsv")
    (tmp_path / "maps").mkdir()
    for name, presence in maps.items():
        write_presence_map(tmp_path / "maps" / f"{name}.npz", presence, filename=name)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["htsat-sed", "tune", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    arguments = (tmp_path / "reference.tsv", "--scores", tmp_path / "maps", "-o", tmp_path / "tuned.toml")
    code, out, _ = run(*arguments)
    assert code == 0
    assert out.startswith("intersection macro F1: ")
    assert "% held out (5 folds)" in out
    written = (tmp_path / "tuned.toml").read_bytes()
    rules = PostProcessing().override(read_post_processing(tmp_path / "tuned.toml"))
    events = pair(reference, {name: find_events(presence, rules) for name, presence in maps.items()})
    fitted = 100 * f1(intersection_counts(events).total())[0].mean()
    assert f"{fitted:.2f} % on the recordings tuned on" in out
    assert run(*arguments)[1] == out
    assert (tmp_path / "tuned.toml").read_bytes() == written

    assert run(tmp_path / "reference.tsv")[0] == 2
    assert run(*arguments, "--metric", "f1")[0] == 2
    (tmp_path / "maps" / "3.wav.npz").unlink()
    code, _, err = run(*arguments)
    assert code == 1
    assert "1 of its recordings have no presence map; left out" in err


def test_command_tunes_boxes_between_change_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, maps = example(3)
    write_events(tmp_path / "reference.tsv", reference, "tsv")
    (tmp_path / "maps").mkdir()
    for name, presence in maps.items():
        write_presence_map(tmp_path / "maps" / f"{name}.npz", presence, filename=name)
    command = f"htsat-sed tune {tmp_path}/reference.tsv --scores {tmp_path}/maps -o {tmp_path}/boxes.toml"
    monkeypatch.setattr(sys, "argv", [*command.split(), "--method", "change-points"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    rules = PostProcessing().override(read_post_processing(tmp_path / "boxes.toml"))
    events = pair(reference, {name: find_events(presence, rules) for name, presence in maps.items()})
    fitted = 100 * f1(intersection_counts(events).total())[0].mean()
    assert f"{fitted:.2f} % on the recordings tuned on" in capsys.readouterr().out
