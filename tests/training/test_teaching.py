"""Own classes from a folder of clips: what is collected, how it is dealt into folds, what comes out."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rule_made import by_rule, official_state

from htsat_sed.annotations import write_events
from htsat_sed.cli.teach import means
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError
from htsat_sed.model.checkpoint import load_checkpoint, save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.training import head, held_out, teaching
from htsat_sed.training.clip_figures import FIGURES, ClassFigures, ScoredClip, alarms
from htsat_sed.training.clip_sources import from_folder, from_labels, from_tables, source_of
from htsat_sed.training.collection import active_part, collect, write_tables
from htsat_sed.training.data import read_clips
from htsat_sed.training.fit import Machine, threads_left
from htsat_sed.training.recipe import DataRecipe, SoundscapeRecipe, find_recipe
from htsat_sed.training.teaching import mean_of, write_all_tables

RATE = 32_000
TINY = HTSATConfig(classes=2, embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4))
Run = Callable[..., tuple[int, str, str]]


def tone(hertz: float, seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two classes of four sources, and a negative."""
    folder = tmp_path / "clips"
    for label, base in (("Low", 300.0), ("High", 3000.0)):
        (folder / label).mkdir(parents=True)
        for i, name in enumerate(("yard_1", "yard_2", "wood_1", "lake", "hill")):
            soundfile.write(folder / label / f"{name}.wav", tone(base + 10 * i), RATE)
    (folder / "_background").mkdir()
    noise = np.random.default_rng(0).normal(0.0, 0.01, RATE).astype(np.float32)
    soundfile.write(folder / "_background" / "wind.wav", noise, RATE)
    return folder


@pytest.fixture
def start(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(path, by_rule(HTSAT(TINY, ("Dog", "Cat")), seed=3))
    return path


@pytest.mark.parametrize(
    ("stem", "source"),
    [
        ("1-100032-A-0", "1-100032"),
        ("XC12345 - Robin", "XC12345"),
        ("XC12345_10.5s_13.5s", "XC12345"),
        ("93567__author__title", "93567"),
        ("7061-6-0-0", "7061"),
        ("street_00002.000_00003.750_Dog_0.500", "street"),
        ("yard_03", "yard"),
        ("yard take 2", "yard"),
        ("yard (12)", "yard"),
        ("yard-b", "yard"),
        ("20240512", "20240512"),
        ("dog", "dog"),
    ],
)
def test_sources_by_name(stem: str, source: str) -> None:
    assert source_of(stem) == source


def test_active_part_is_within_30_db_of_the_loudest() -> None:
    samples = np.concatenate([np.zeros(RATE), tone(500.0), 0.005 * tone(500.0), np.zeros(100)])
    assert active_part(samples.astype(np.float32), RATE) == (1.0, 1.5)


def test_folders_are_classes_and_sources_do_not_cross_folds(clips: Path) -> None:
    (clips / "High" / "broken.wav").write_bytes(b"RIFF")
    soundfile.write(clips / "High" / "silent.wav", np.zeros(RATE, np.float32), RATE)
    soundfile.write(clips / "Low" / "again.wav", tone(300.0), RATE)
    soundfile.write(clips / "loose.wav", tone(700.0), RATE)
    found = collect(from_folder(clips), sample_rate=RATE, folds=3)
    assert found.labels == ("High", "Low")
    assert [len(found.of(label)) for label in ("High", "Low", "")] == [5, 5, 1]
    assert [Path(failure.path).name for failure in found.failures] == ["broken.wav"]
    for label in found.labels:
        by_source = {clip.source: clip.fold for clip in found.of(label)}
        assert all(by_source[clip.source] == clip.fold for clip in found.of(label))
        assert {clip.fold for clip in found.of(label)} == {1, 2, 3}
    yard = {clip.fold for clip in found.clips if clip.source == "yard"}
    assert len(yard) == 1  # of both classes


def test_warnings_name_what_is_wrong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "One").mkdir()
    (tmp_path / "Same").mkdir()
    soundfile.write(tmp_path / "One" / "a.wav", tone(400.0, rate=44_100), 44_100)
    for i in range(3):
        soundfile.write(tmp_path / "Same" / f"s{i}.wav", tone(900.0 + i, rate=16_000), 16_000)
    soundfile.write(tmp_path / "Same" / "copy.wav", tone(900.0, rate=16_000), 16_000)
    found = collect(from_folder(tmp_path), sample_rate=RATE, folds=3)
    assert [clip.fold for clip in found.of("One")] == [0]
    for part in (
        "One: only one clip",
        "Same: 3 clips of 3 sources",
        "sample rates differ",
        "the same samples as",
    ):
        assert part in caplog.text


def test_names_that_count_a_class_are_sources_of_their_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "Dog").mkdir()
    for i in range(4):
        soundfile.write(tmp_path / "Dog" / f"dog_{i}.wav", tone(400.0 + i), RATE)
    sources = {source for _, source in from_folder(tmp_path)["Dog"]}
    assert sources == {f"dog_{i}" for i in range(4)}
    assert "Dog: names of clips differ only in a number" in caplog.text
    (tmp_path / "Dog" / "monday").mkdir()
    soundfile.write(tmp_path / "Dog" / "monday" / "1.wav", tone(500.0), RATE)
    soundfile.write(tmp_path / "Dog" / "monday" / "2.wav", tone(510.0), RATE)
    own = dict(from_folder(tmp_path)["Dog"])
    assert own[tmp_path / "Dog" / "monday" / "1.wav"] == own[tmp_path / "Dog" / "monday" / "2.wav"]
    soundfile.write(tmp_path / "Dog" / "yard_1.wav", tone(520.0), RATE)
    own = dict(from_folder(tmp_path)["Dog"])  # the names of clips beside subfolders count
    assert own[tmp_path / "Dog" / "dog_0.wav"] == own[tmp_path / "Dog" / "dog_1.wav"] == "dog"
    assert own[tmp_path / "Dog" / "yard_1.wav"] == "yard"


def test_labelled_recordings_are_cut(tmp_path: Path) -> None:
    audio = tmp_path / "audio"
    audio.mkdir()
    samples = np.zeros(10 * RATE, np.float32)
    samples[RATE : 2 * RATE] = tone(500.0, 1.0)
    soundfile.write(audio / "a.wav", samples, RATE)
    table = {"a.wav": [Event(1.0, 2.0, "Beep"), Event(6.0, 7.0, "Beep"), Event(6.5, 8.0, "Bell")]}
    found = from_labels(table, audio, tmp_path / "cut", sample_rate=RATE)
    assert {label: [source for _, source in own] for label, own in found.items()} == {
        "Beep": ["a.wav"],  # the other one overlaps with Bell
        "": ["a.wav"],  # from 2.5 to 5.5 s
    }
    cut, _ = soundfile.read(found["Beep"][0][0], dtype="float32")
    np.testing.assert_allclose(cut, samples[RATE : 2 * RATE], atol=1e-4)
    assert soundfile.info(found[""][0][0]).duration == 3.0
    moved = {"a.wav": [Event(3.0, 4.0, "Beep")]}  # labels were corrected: the old clip is not used
    again = from_labels(moved, audio, tmp_path / "cut", sample_rate=RATE)["Beep"][0][0]
    assert not soundfile.read(again)[0].any()
    np.testing.assert_array_equal(soundfile.read(found["Beep"][0][0], dtype="float32")[0], cut)
    heard = {"a.wav": [Event(1.2, 1.8, "Beep"), Event(4.0, 4.5, "Beep")]}  # the second was rejected
    found = from_labels(table, audio, tmp_path / "heard", sample_rate=RATE, heard=heard)
    assert [soundfile.info(path).duration for path, _ in found[""]] == [0.5]


def test_tables_of_a_run_are_read_again(clips: Path, tmp_path: Path) -> None:
    found = collect(from_folder(clips), sample_rate=RATE, folds=2)
    for fold in (1, 2):
        write_tables(found, tmp_path / "own.run" / f"fold-{fold}", without=fold)
    again = collect(from_tables(tmp_path / "own.run"), sample_rate=RATE, folds=2)
    assert {(clip.path, clip.label, clip.source) for clip in again.clips} == {
        (clip.path, clip.label, clip.source) for clip in found.clips
    }


def test_tables_of_an_earlier_run_with_more_folds_do_not_stay(clips: Path, tmp_path: Path) -> None:
    write_all_tables(collect(from_folder(clips), sample_rate=RATE, folds=3), tmp_path / "own.run")
    (clips / "Low" / "lake.wav").unlink()
    write_all_tables(collect(from_folder(clips), sample_rate=RATE, folds=2), tmp_path / "own.run")
    found = from_tables(tmp_path / "own.run")
    assert {label: len(own) for label, own in found.items()} == {"Low": 4, "High": 5, "": 1}


def test_recipes_take_folders_and_labels_of_any_format(clips: Path, tmp_path: Path) -> None:
    part = DataRecipe(kind="folders", audio="clips")
    read = read_clips(part, tmp_path, fold_count=2)
    assert sorted((c.path.stem, *c.labels) for c in read if c.path.stem in ("lake", "wind")) == [
        ("lake", "High"),
        ("lake", "Low"),
        ("wind",),
    ]
    yard = {clip.fold for clip in read if clip.path.stem.startswith("yard") and "Low" in clip.labels}
    assert len(yard) == 1
    events = {"Low/lake.wav": [Event(0.0, 0.25, "Low")]}
    for format, place in (("audacity", "tracks"), ("jsonl", "labels.jsonl")):
        write_events(tmp_path / place, events, format)
        (clip,) = read_clips(DataRecipe(kind="labels", table=place, audio="clips"), tmp_path, fold_count=2)
        assert (clip.path, [(e.onset, e.label) for e in clip.events or ()]) == (
            clips / "Low" / "lake.wav",
            [(0.0, "Low")],
        )
    with pytest.raises(AnnotationError, match="teach"):
        find_recipe(clips)


def test_the_mean_of_models_has_the_mean_of_their_weights() -> None:
    models = [by_rule(HTSAT(TINY, ("Dog", "Cat")), seed=seed) for seed in (1, 2)]
    mean = mean_of(models)
    one, two, both = (m.state_dict()["tscam_conv.weight"] for m in (*models, mean))
    np.testing.assert_allclose(both.numpy(), (one.numpy() + two.numpy()) / 2.0, atol=1e-7)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few examples and soundscapes."""
    for room, name, value in (
        (held_out, "_SOUNDSCAPES", 12),
        (held_out, "_DISTRACTORS", 4),
        (head, "_EXAMPLES", 8),
        (head, "_STEPS", 4),
    ):
        monkeypatch.setattr(room, name, value)


@pytest.mark.usefixtures("quick")
def test_from_a_folder_to_a_checkpoint(run: Run, clips: Path, start: Path, tmp_path: Path) -> None:
    out = tmp_path / "own.safetensors"
    command = ("teach", clips, "-o", out, "-c", start, "--steps", 2, "--folds", 2, "--workers", 0)
    (clips / "High" / "broken.wav").write_bytes(b"RIFF")
    (clips / "One").mkdir()
    soundfile.write(clips / "One" / "one.wav", tone(9000.0), RATE)
    code, shown, err = run(*command)
    assert code == 1  # a clip could not be read, and the rest went on
    assert "broken.wav" in err
    assert "One: only one clip" in err
    assert "One: 1 clip of 1 source" in " ".join(err.split())
    assert "negatives: 1 clip" in err
    assert "false alarms in synthetic sounds" in shown
    model = load_checkpoint(out)
    assert model.labels == ("High", "Low", "One")
    assert model.post_processing is not None
    assert {"High", "Low"} <= set(model.post_processing["classes"])
    assert "score_slope" in model.post_processing["classes"]["One"]
    assert "mean over classes" in shown
    (clips / "High" / "broken.wav").unlink()
    before = out.read_bytes()
    assert run(*command)[0] == 0  # nothing is trained again
    assert out.read_bytes() == before
    code, _, err = run(*command[:-2], "--steps", 3)
    assert code == 1
    assert "steps" in err or "epoch_examples" in err


@pytest.mark.usefixtures("quick")
def test_new_classes_join_old_ones_whose_scores_stay(
    run: Run, clips: Path, start: Path, tmp_path: Path
) -> None:
    import torch

    out = tmp_path / "more.safetensors"
    assert run("teach", clips, "-o", out, "-c", start, "--keep-classes", "--folds", 2)[0] == 0
    old, new = load_checkpoint(start).eval(), load_checkpoint(out).eval()
    assert new.labels == ("Dog", "Cat", "High", "Low")
    waveform = torch.from_numpy(tone(700.0, 10.0))[None]
    with torch.inference_mode():
        np.testing.assert_allclose(
            new(waveform).presence_logits[..., :2], old(waveform).presence_logits, atol=1e-5
        )


@pytest.mark.usefixtures("quick")
def test_clips_and_classes_are_added_later(run: Run, clips: Path, start: Path, tmp_path: Path) -> None:
    first, second, more = tmp_path / "first.safetensors", tmp_path / "second.safetensors", tmp_path / "more"
    options = ("-c", start, "--head-only", "--folds", 2)
    assert run("teach", clips, "-o", first, *options)[0] == 0
    for label, hertz in (("High", 3200.0), ("Middle", 1000.0)):
        (more / label).mkdir(parents=True)
        for i, name in enumerate(("roof", "shed", "gate")):
            soundfile.write(more / label / f"{name}.wav", tone(hertz + 10 * i), RATE)
    assert run("teach", more, "-o", second, "--add", first, *options)[0] == 0
    model = load_checkpoint(second)
    assert model.labels == ("High", "Low", "Middle")
    assert model.provenance["clips"] == {"High": 8, "Low": 5, "Middle": 3}
    assert model.provenance["negatives"] == 1
    (tmp_path / "first.run").rename(tmp_path / "elsewhere.run")
    code, _, err = run("teach", more, "-o", tmp_path / "third.safetensors", "--add", first, *options)
    assert code == 1
    assert "first.run" in err
    assert not (tmp_path / "third.safetensors").exists()


@pytest.mark.usefixtures("quick")
def test_an_encoder_of_clap_is_a_start(run: Run, clips: Path, tmp_path: Path) -> None:
    import torch

    state = official_state(replace(TINY, classes=1), seed=1)
    renamed = {key.replace("sed_model.", "module.audio_branch."): array for key, array in state.items()}
    torch.save({"state_dict": renamed}, tmp_path / "clap.pt")
    out = tmp_path / "own.safetensors"
    options = ("-c", tmp_path / "clap.pt", "--steps", 2, "--folds", 2, "--workers", 0)
    assert run("teach", clips, "-o", out, *options)[0] == 0
    model = load_checkpoint(out)
    assert (model.labels, model.config.embed_dim, model.config.sample_rate) == (("High", "Low"), 16, RATE)
    frozen = "layers.0.blocks.0.mlp.fc1.weight"
    torch.testing.assert_close(
        model.state_dict()[f"backbone.{frozen}"], renamed[f"module.audio_branch.{frozen}"]
    )
    trained = "layers.3.blocks.0.mlp.fc1.weight"
    assert not torch.equal(
        model.state_dict()[f"backbone.{trained}"], renamed[f"module.audio_branch.{trained}"]
    )


@pytest.mark.parametrize("able", [True, False])
def test_auto_is_bfloat16_where_the_processor_has_it(able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("htsat_sed.training.fit.has_bfloat16", lambda: able)
    assert Machine(device="cpu", precision="auto").chosen_precision == ("bf16-mixed" if able else "32-true")
    assert Machine(device="mps", precision="auto").chosen_precision == "32-true"
    assert Machine(device="cpu", precision="16-mixed").chosen_precision == "16-mixed"


def test_a_short_training_is_in_bfloat16_and_leaves_cores_to_its_workers() -> None:
    from htsat_sed.cli.teach import TeachMachineOptions
    from htsat_sed.cli.train import MachineOptions

    own, usual = TeachMachineOptions().machine, MachineOptions().machine
    assert (own.precision, own.yields) == ("auto", True)
    assert (usual.precision, usual.yields) == ("32-true", False)


def test_auto_is_not_an_emulated_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert Machine(precision="auto").chosen_precision == "32-true"


def test_threads_are_left_to_workers() -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        for others, left in ((0, 4), (1, 3), (2, 2), (5, 2)):
            with threads_left(others):
                assert torch.get_num_threads() == left
            assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_threads_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from htsat_sed.cli.train import MachineOptions

    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")  # further processes read it
    MachineOptions().limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "8"
    MachineOptions(threads=3).limit_threads()
    assert set_to == [3]
    assert os.environ["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize("option", [(), ("--head-only",), ("--keep-classes",)])
def test_a_stopped_run_says_whether_it_goes_on(
    run: Callable[..., tuple[int, str, str]],
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: tuple[str, ...],
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(teaching, "teach", stopped)
    code, _, err = run("teach", clips, "-o", tmp_path / "a.safetensors", *option)
    assert code == 130
    assert ("starts again" in " ".join(err.split())) == bool(option)
    assert ("resumes from" in " ".join(err.split())) != bool(option)


def test_negatives_in_which_a_class_was_found_are_listed(clips: Path) -> None:
    collection = collect(from_folder(clips), sample_rate=RATE, folds=2)
    (wind,), high = collection.of(""), collection.of("High")[0]
    scored = [
        ScoredClip(wind, np.array([0.7, 0.9], np.float32), frozenset(["High"])),
        ScoredClip(high, np.array([0.8, 0.1], np.float32), frozenset(["High"])),
    ]
    ((clip, label, score, _),) = alarms(scored, ("High", "Low"))
    assert (clip, label) == (wind, "High")
    assert score == pytest.approx(0.7)
    assert not alarms(scored[1:], ("High", "Low"))


def test_means_name_the_classes_that_they_cover() -> None:
    one = ClassFigures(3, dict.fromkeys(FIGURES, (0.5, 0.4, 0.6)))
    none = ClassFigures(3, dict.fromkeys(FIGURES, (0.0, 0.0, 0.0)) | {"precision": None})
    shown = means({"A": one, "B": none})
    assert shown == "mean over classes: precision 0.50 (1 of 2 classes), recall 0.25, F1 0.25, mAP 0.25"


def test_a_folder_without_recordings_is_named(clips: Path, caplog) -> None:
    (clips / "Chainsaw").mkdir()
    (clips / ".cache").mkdir()
    assert "Chainsaw" not in from_folder(clips)
    assert [record.getMessage() for record in caplog.records] == [
        f"{clips / 'Chainsaw'}: holds no recordings; the model will not have this class"
    ]


def test_threads_leave_held_out_scores_and_their_order(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(held_out, "_SOUNDSCAPES", 6)
    monkeypatch.setattr(held_out, "_DISTRACTORS", 4)
    collection = collect(from_folder(clips), sample_rate=RATE, folds=2)
    models = [by_rule(HTSAT(TINY, collection.labels), seed=seed).eval() for seed in (1, 2)]
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 4):
            torch.set_num_threads(threads)
            found.append(held_out.score_held_out(collection, models, SoundscapeRecipe(), seed=0))
    finally:
        torch.set_num_threads(before)
    one, four = found
    assert len(one.soundscapes) == 6
    assert list(one.soundscapes) == list(four.soundscapes)
    assert list(one.distractors) == list(four.distractors)
    assert one.events == four.events
    assert [clip for clip, _ in one.clips] == [clip for clip, _ in four.clips]
    pairs = [*zip(one.soundscapes.values(), four.soundscapes.values(), strict=True)]
    pairs += [*zip((s for _, s in one.clips), (s for _, s in four.clips), strict=True)]
    for a, b in pairs:
        np.testing.assert_allclose(a.presence_map.scores, b.presence_map.scores, atol=1e-5)
        np.testing.assert_allclose(a.clip, b.clip, atol=1e-5)
