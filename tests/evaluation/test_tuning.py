"""Tuning: counts against the metrics' own, exactness, laws, and the command."""

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from htsat_sed.annotations import read_events, write_events, write_presence_map
from htsat_sed.cli import main
from htsat_sed.detection.events import Event, PostProcessing, find_events, read_post_processing
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.class_scores import Choice
from htsat_sed.evaluation.counting import collar_counts, intersection_counts, segment_counts
from htsat_sed.evaluation.counts import f1
from htsat_sed.evaluation.false_alarm_limit import Limit
from htsat_sed.evaluation.psds import SCENARIOS, Areas, detections, operating_points, psds_areas
from htsat_sed.evaluation.report import Settings
from htsat_sed.evaluation.tables import Pair, pair
from htsat_sed.evaluation.threshold_curves import ThresholdCurves
from htsat_sed.evaluation.tuning import tune
from htsat_sed.model.checkpoint import load_checkpoint, read_info, save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig

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
    edge_level=st.sampled_from([0.0, 0.5]),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1000), choices, st.sampled_from(["intersection", "collar", "segment"]))
def test_counts_are_those_of_the_metrics(seed: int, choice: Choice, metric: str) -> None:
    reference, maps = example(seed, recordings=4)
    events = detected(reference, maps, choice)
    theirs = {"intersection": intersection_counts, "collar": collar_counts, "segment": segment_counts}[
        metric
    ](events)
    for k, label in enumerate(events.labels):
        ours = ThresholdCurves(events, maps, label, metric, Settings()).counts(choice)  # type: ignore[arg-type]
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
        curves = ThresholdCurves(events, maps, label, metric, Settings())  # type: ignore[arg-type]
        choice = Choice(low_share=low_share, min_gap=0.5)
        best, value = curves.best_threshold(choice, everything)
        tried = [
            curves.f1(Choice(float(t), low_share, min_gap=0.5), everything)
            for t in np.linspace(0.0005, 0.9995, 1000)
        ]
        assert value == pytest.approx(max(tried), abs=1e-9)
        assert best == Choice(best.threshold, low_share, min_gap=0.5)
        assert curves.f1(best, everything) == pytest.approx(value, abs=1e-9)


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, 1000),
    choices,
    st.sampled_from(["intersection", "collar", "segment"]),
    st.sampled_from(["threshold", "change-points"]),
)
def test_fitting_never_loses(seed: int, choice: Choice, metric: str, method: str) -> None:
    reference, maps = example(seed, recordings=6, tokens=12)
    before = PostProcessing(threshold=0.3, classes={"Dog": choice.values()})
    found, again = (
        tune(pair(reference, {}), maps, metric=metric, method=method, before=before, folds=2)  # type: ignore[arg-type]
        for _ in range(2)
    )
    for worth in (*found.by_class().values(), found.macro()):
        assert worth.fitted >= worth.before
    assert again.choices == found.choices
    assert found.choices[found.labels.index("Dog")].edge_level == choice.edge_level

    # Before and fitted are what detection with these values scores.
    count = {"intersection": intersection_counts, "collar": collar_counts, "segment": segment_counts}[metric]
    for rules, counts in ((before, found.before), (found.post_processing(), found.fitted)):
        events = pair(reference, {name: find_events(each, rules) for name, each in maps.items()})
        np.testing.assert_allclose(count(events).total().tp, counts.total().tp, atol=1e-9)
        np.testing.assert_allclose(count(events).total().fp, counts.total().fp, atol=1e-9)


def test_the_threshold_alone() -> None:
    reference, maps = example(5)
    before = PostProcessing(threshold=0.05, min_gap=0.5, median_filter=0.9, edge_level=0.3)
    found = tune(pair(reference, {}), maps, method="threshold-alone", before=before, folds=2)
    for label, choice in zip(found.labels, found.choices, strict=True):
        assert choice.threshold != 0.05
        assert replace(choice, threshold=0.05) == Choice.of(before, label)
    assert found.macro().fitted > found.macro().before


@pytest.mark.parametrize("metric", ["psds1", "psds2"])
def test_the_exact_psds_is_what_tuning_maximises(metric: str) -> None:
    reference, maps = example(3, recordings=8)
    events = pair(reference, {})
    before = PostProcessing(threshold=0.4, classes={"Dog": {"median_filter": 1.5}})
    found, again = (
        tune(events, maps, metric=metric, before=before, folds=2)  # type: ignore[arg-type]
        for _ in range(2)
    )
    assert found.choices == again.choices
    scenario = SCENARIOS[metric]
    events = pair(reference, {}, durations={name: each.duration for name, each in maps.items()})

    def areas(rules: PostProcessing) -> Areas:
        return psds_areas(
            [operating_points(events, detections(events, maps, post_processing=rules), scenario)]
        )

    old, new = areas(before), areas(found.post_processing())
    assert found.macro()[:2] == (pytest.approx(old.overall[0]), pytest.approx(new.overall[0]))
    assert (new.by_class >= old.by_class - 1e-9).all()
    assert new.by_class.sum() > old.by_class.sum()
    # Held out, each recording's steps are those of its own fold.
    held = found.held_out.steps
    for fold, outcome in enumerate(found.crossed):
        own = found.fold_of[outcome.steps.recording] == fold
        assert own.sum() == (found.fold_of[held.recording] == fold).sum()
    for wrong in ({"method": "threshold-alone"}, {"limit": Limit(maps=maps, table={}, per_hour=1.0)}):
        with pytest.raises(ValueError, match="does not depend on the threshold"):
            tune(events, maps, metric=metric, folds=2, **wrong)  # type: ignore[arg-type]


def test_values_that_cannot_be_bettered_stay() -> None:
    reference = {f"{i}.wav": [Event(0.0, 2.0, "Dog")] for i in range(4)}
    scores = np.float32([[0.9], [0.9], [0.1], [0.1]])
    maps = {name: PresenceMap(scores, ("Dog",), 1.0, 4.0) for name in reference}
    before = PostProcessing(threshold=0.123, threshold_low=0.111, min_gap=0.7)
    found = tune(pair(reference, {}), maps, before=before, folds=2)
    assert found.post_processing().of("Dog").to_dict() == pytest.approx(before.to_dict())
    assert found.macro() == (1.0, 1.0, 1.0)
    assert found.gain() == (0.0, 0.0, 0.0)


def test_folds_by_hand() -> None:
    """Two folds of one recording each, that want thresholds on different sides of the other's scores.

    a has its event at 0.9 and none at 0.5, b has its event at 0.5. Chosen on a, the threshold is 0.7 and b's
    event is missed; chosen on b, it is 0.25, and a has a false positive at 0.5.
    """
    reference = {"a": [Event(0.0, 1.0, "Dog")], "b": [Event(0.0, 1.0, "Dog")]}
    maps = {
        name: PresenceMap(np.float32(scores)[:, None], ("Dog",), 1.0, 4.0)
        for name, scores in {"a": [0.9, 0.0, 0.5, 0.0], "b": [0.5, 0.0, 0.0, 0.0]}.items()
    }
    before = PostProcessing(threshold=0.95)
    found = tune(pair(reference, {}), maps, before=before, folds=2)
    of = {name: worth for name, worth in zip("ab", np.argsort(found.fold_of), strict=True)}
    worths = found.by_fold()
    assert worths[of["a"]] == (0.0, 1.0, pytest.approx(2 / 3))
    assert worths[of["b"]] == (0.0, 1.0, 0.0)
    # Held out, one of two events is found, beside one false positive.
    assert (found.macro().before, found.macro().held_out) == (0.0, pytest.approx(1 / 2))


def test_classes_that_no_map_has_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    reference, maps = example(1)
    reference["1.wav"].append(Event(0.0, 1.0, "Horse"))
    with caplog.at_level(logging.WARNING):
        found = tune(pair(reference, dict.fromkeys(reference, ())), maps, folds=2)
    assert (found.labels, found.left_out) == (("Cat", "Dog"), ("Horse",))
    assert set(found.post_processing().classes) == {"Cat", "Dog"}
    assert [record.getMessage() for record in caplog.records] == [
        "1 label of the reference not in the presence maps (Horse): left out"
    ]
    only = {name: [Event(0.0, 1.0, "Horse")] for name in reference}
    with pytest.raises(ValueError, match="the reference has Horse, the presence maps Cat, Dog"):
        tune(pair(only, {}), maps)


def test_held_out_values_do_not_know_their_recordings() -> None:
    # Noise alone: what fits the recordings it was chosen on must not seem to fit the others as well.
    rng = np.random.default_rng(0)
    reference, maps = example(0, recordings=30)
    maps = {
        name: PresenceMap(rng.random(m.scores.shape).astype(np.float32), LABELS, STEP, m.duration)
        for name, m in maps.items()
    }
    macro = tune(pair(reference, {}), maps, folds=5).macro()
    assert macro.held_out < macro.fitted


@pytest.mark.parametrize(("folds", "message"), [(1, "wanted 2 to 10 folds"), (11, "wanted 2 to 10 folds")])
def test_impossible_folds(folds: int, message: str) -> None:
    reference, maps = example(0)
    with pytest.raises(ValueError, match=message):
        tune(pair(reference, {}), maps, folds=folds)
    with pytest.raises(ValueError, match=r"a presence map of every recording, '0\.wav' has none"):
        tune(pair(reference, {}), {})
    one = dict([next(iter(reference.items()))])
    with pytest.raises(ValueError, match="labels of at least 2 recordings"):
        tune(pair(one, {}), maps, folds=2)


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
    code, out, err = run(*arguments)
    assert code == 0
    assert out.startswith("intersection macro F1: ")
    assert [line.split()[:3] for line in out.splitlines() if line.startswith(" fold")] == [
        ["fold", str(i), "2"] for i in range(1, 6)
    ]
    assert err == (
        "note: without -c, the previous value is a threshold of 0.5 for all classes\n"
        f"{tmp_path}/tuned.toml: values of 2 classes, for detect --post-processing\n"
        "warning: held out, these values are no better than the previous ones: "
        "keep the previous ones, or give more labels\n"
    )
    assert "gain -" in out
    written = (tmp_path / "tuned.toml").read_bytes()
    rules = PostProcessing().override(read_post_processing(tmp_path / "tuned.toml"))
    events = pair(reference, {name: find_events(presence, rules) for name, presence in maps.items()})
    fitted = 100 * f1(intersection_counts(events).total())[0].mean()
    assert next(line.split()[3] for line in out.splitlines() if line.startswith(" all")) == f"{fitted:.2f}"
    assert run(*arguments)[1] == out
    assert (tmp_path / "tuned.toml").read_bytes() == written

    assert run(tmp_path / "reference.tsv")[0] == 2
    assert run(*arguments, "--metric", "f1")[0] == 2
    assert run(*arguments, "--into", tmp_path / "out.ckpt")[0] == 2
    assert run(*arguments, "--into", tmp_path / "x.safetensors", "--map", "desed")[0] == 2
    assert run(*arguments, "--into", tmp_path / "x.safetensors")[0] == 2  # home has no Cat and Dog of its own
    (tmp_path / "maps" / "3.wav.npz").unlink()
    code, _, err = run(*arguments)
    assert code == 0
    assert "warning: 1 recording of the reference without a presence map: left out" in err


def test_values_go_into_a_copy_of_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, maps = example(3)
    write_events(tmp_path / "reference.tsv", reference, "tsv")
    (tmp_path / "maps").mkdir()
    for name, presence in maps.items():
        write_presence_map(tmp_path / "maps" / f"{name}.npz", presence, filename=name)
    config = HTSATConfig(classes=3, embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4))
    with torch.random.fork_rng(devices=[]):
        model = HTSAT(config, ("Cat", "Dog", "Horse"))
    own = {"threshold": 0.4, "min_gap": 0.3, "edge_level": 0.5, "classes": {"Horse": {"threshold": 0.7}}}
    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    save_checkpoint(old, model, post_processing=own, provenance={"source": "here"}, dtype=torch.float16)
    command = f"htsat-sed tune {tmp_path}/reference.tsv --scores {tmp_path}/maps -c {old} --into {new}"
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    out, err = capsys.readouterr()
    assert err == f"{new}: old.safetensors with the values of 2 classes; others unchanged: 1\n"
    # Compared with what the checkpoint had; the table has milliseconds.
    reference = read_events(tmp_path / "reference.tsv")
    before = PostProcessing().override(own)
    events = pair(reference, {name: find_events(each, before) for name, each in maps.items()})
    macro = 100 * f1(intersection_counts(events).total())[0].mean()
    assert out.startswith(f"intersection macro F1: {macro:.2f} % before, ")
    assert " edge " in out

    read = read_info(new)
    assert (read.labels, read.dtype) == (model.labels, "float16")
    assert read.provenance["source"] == "here"
    assert read.provenance["tuning"]["metric"] == "intersection"
    rules = PostProcessing().override(read.post_processing or {})
    assert rules.of("Horse") == before.of("Horse")
    events = pair(reference, {name: find_events(each, rules) for name, each in maps.items()})
    fitted = 100 * f1(intersection_counts(events).total())[0].mean()
    assert next(line.split()[3] for line in out.splitlines() if line.startswith(" all")) == f"{fitted:.2f}"
    before_and_after = (load_checkpoint(path).state_dict() for path in (old, new))
    for one, other in zip(*(state.values() for state in before_and_after), strict=True):
        assert torch.equal(one, other)


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
    out = capsys.readouterr().out
    assert next(line.split()[3] for line in out.splitlines() if line.startswith(" all")) == f"{fitted:.2f}"
    assert " step " in out
    assert " edge " not in out


def test_command_makes_no_more_folds_than_recordings(
    tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    reference, maps = example(2)
    reference, maps = (dict(list(each.items())[:3]) for each in (reference, maps))
    write_events(tmp_path / "reference.tsv", reference, "tsv")
    (tmp_path / "maps").mkdir()
    for name, presence in maps.items():
        write_presence_map(tmp_path / "maps" / f"{name}.npz", presence, filename=name)
    code, out, err = run("tune", tmp_path / "reference.tsv", "--scores", tmp_path / "maps")
    assert code == 0, err
    assert [line.split()[:2] for line in out.splitlines() if line.startswith(" fold")] == [
        ["fold", str(fold)] for fold in (1, 2, 3)
    ]
