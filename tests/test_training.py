"""Soundscapes, recipes and training, on clips made here and a tiny model."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from htsat_sed.cli import main
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError
from htsat_sed.model.checkpoint import load_checkpoint, read_info
from htsat_sed.model.htsat import HTSAT
from htsat_sed.training import fit as fitting
from htsat_sed.training.clips import Source, read_clips, read_strong
from htsat_sed.training.recipe import ModelRecipe, Recipe, read_recipe
from htsat_sed.training.soundscapes import SoundscapeRecipe, Soundscapes, token_targets, united

RATE = 32_000
TINY = Recipe(
    steps=4,
    batch_size=2,
    warm_up=0.25,
    model=ModelRecipe(embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4), drop_path=0.1),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones and noises in four folds, and a strongly labelled recording."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "audio").mkdir()
    rng = np.random.default_rng(0)
    rows = ["filename\tlabel\tfold\tonset\toffset"]
    time = np.arange(2 * RATE) / RATE
    for i in range(8):
        tone = i % 2 == 0
        samples = 0.3 * (np.sin(2 * np.pi * 440 * time) if tone else rng.standard_normal(len(time)) / 4)
        samples[: RATE // 2] = 0.0
        soundfile.write(folder / "audio" / f"{i}.wav", samples, RATE)
        rows.append(f"{i}.wav\t{'Tone' if tone else 'Noise'}\t{i // 2 + 1}\t0.5\t2.0")
    (folder / "clips.tsv").write_text("\n".join(rows) + "\n")
    soundfile.write(folder / "talk.wav", 0.1 * rng.standard_normal(6 * RATE), RATE)
    (folder / "speech.tsv").write_text(
        "filename\tonset\toffset\tevent_label\ntalk.wav\t1.0\t2.0\tSpeech\ntalk.wav\t3.0\t5.5\tSpeech\n"
    )
    return folder


def test_clips_of_folds(data: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    sources = read_clips(data, sample_rate=RATE, folds=(1, 3))
    assert [source.label for source in sources] == ["Tone", "Noise", "Tone", "Noise"]
    assert sources[0].spans.tolist() == [[0.5, 2.0]]
    assert len(read_strong(data, sample_rate=RATE, folds=(1,), of=4)) == 1
    assert read_strong(data, sample_rate=RATE, folds=(2, 3, 4), of=4) == []

    (tmp_path / "clips.tsv").write_text("filename\tlabel\tfold\tonset\toffset\nnone.wav\tDog\t1\t0\t1\n")
    assert read_clips(tmp_path, sample_rate=RATE, folds=(1,)) == []
    assert "none.wav: cannot be opened" in caplog.text
    (tmp_path / "clips.tsv").write_text("filename\tlabel\n")
    with pytest.raises(AnnotationError, match="lacks fold, onset, offset"):
        read_clips(tmp_path, sample_rate=RATE, folds=(1,))


def test_a_soundscape_follows_from_its_number(data: Path) -> None:
    sources = read_clips(data, sample_rate=RATE, folds=(1, 2))
    one, other = (Soundscapes(sources, SoundscapeRecipe(), sample_rate=RATE, seed=5) for _ in range(2))
    for number in (0, 7):
        samples, events = one[number]
        again, same_events = other[number]
        np.testing.assert_array_equal(samples, again)
        assert events == same_events
        assert samples.shape == (10 * RATE,)
        assert np.abs(samples).max() <= 1.0
        assert all(0.0 <= event.onset < event.offset <= 10.0 for event in events)
    assert not np.array_equal(one[0][0], one[1][0])


def test_events_are_where_the_labels_say() -> None:
    time = np.arange(2 * RATE) / RATE
    tone = (20_000 * np.sin(2 * np.pi * 1000 * time)).astype(np.int16)
    quiet = SoundscapeRecipe(
        events=(1.0,),
        floor_db=(-90.0, -90.0),
        event_db=(-20.0, -20.0),
        speed=0.0,
        equaliser_db=0.0,
        gain_db=(0.0, 0.0),
    )
    soundscapes = Soundscapes([Source(tone, "Tone", np.array([[0.0, 2.0]]))], quiet, sample_rate=RATE, seed=0)
    for number in range(5):
        samples, events = soundscapes[number]
        loud = np.abs(samples).reshape(-1, RATE // 100).max(axis=1) > 0.03
        inside = np.zeros(1000, bool)
        for event in events:
            inside[round(event.onset * 100) : round(event.offset * 100)] = True
        assert (loud == inside).mean() > 0.99


def test_overlapping_events_of_one_label_are_one() -> None:
    events = [Event(2.0, 3.0, "a"), Event(0.0, 1.0, "a"), Event(0.5, 4.0, "b"), Event(1.0, 1.5, "a")]
    assert united([*events, Event(2.2, 2.4, "a")]) == [
        Event(0.0, 1.5, "a"),
        Event(0.5, 4.0, "b"),
        Event(2.0, 3.0, "a"),
    ]


def test_a_clip_longer_than_the_soundscape_ends_with_its_label() -> None:
    clip = np.full(15 * RATE, 8_000, np.int16)
    recipe = SoundscapeRecipe(
        events=(1.0,), floor_db=(-90.0, -90.0), speed=0.0, equaliser_db=0.0, gain_db=(0.0, 0.0)
    )
    source = Source(clip, "Hum", np.array([[0.0, 15.0]]))
    soundscapes = Soundscapes([source], recipe, sample_rate=RATE, seed=0)
    for number in range(10):
        samples, (event,) = soundscapes[number]
        loud = np.flatnonzero(np.abs(samples) > 0.001) / RATE
        assert event.onset == pytest.approx(loud[0], abs=0.02)
        assert event.offset == pytest.approx(loud[-1], abs=0.02)


def test_token_targets_are_the_part_covered() -> None:
    targets = token_targets(
        [Event(0.25, 1.5, "a"), Event(1.5, 1.75, "a")], ("a", "b"), tokens=3, token_seconds=1.0
    )
    assert targets.tolist() == [[0.75, 0.0], [0.75, 0.0], [0.0, 0.0]]


def test_training_lowers_the_loss_and_resumes_to_the_same_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = fitting.fit(TINY, data, run=tmp_path / "alone", device="cpu", progress=False)

    # Killed in the third step: what has been saved is the state after an earlier one.
    steps = fitting.Training.training_step

    def killed(self: fitting.Training, batch: fitting.Batch, i: int) -> torch.Tensor:
        if self.global_step == 2:
            raise KeyboardInterrupt
        return steps(self, batch, i)

    with monkeypatch.context() as patched:
        patched.setattr(fitting.Training, "training_step", killed)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            fitting.fit(TINY, data, run=tmp_path / "killed", device="cpu", progress=False)
    resumed = fitting.fit(TINY, data, run=tmp_path / "killed", device="cpu", progress=False)
    for name, array in alone.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], array, rtol=0, atol=0, msg=name)
    assert (tmp_path / "alone" / "metrics.csv").exists()


def test_command(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        "folds = [1, 2]\nsteps = 1\nbatch_size = 2\n[model]\nembed_dim = 16\ndepths = [1, 1, 1, 1]\nheads = [1, 2, 2, 4]\n"
    )
    out = tmp_path / "tiny.safetensors"
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "htsat-sed",
            "train",
            str(recipe),
            "--data",
            str(data),
            "-o",
            str(out),
            "--float16",
            "--device",
            "cpu",
        ],
    )
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    info = read_info(out)
    assert info.labels == ("Noise", "Speech", "Tone")
    assert info.dtype == "float16"
    assert info.provenance["recipe"]["folds"] == [1, 2]
    assert isinstance(load_checkpoint(out), HTSAT)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step = 3", "unknown value step; did you mean steps?"),
        ("[model]\nembed_dims = 3", "unknown value model.embed_dims; did you mean model.embed_dim?"),
        ("folds = [5]", r"wanted folds among 1 to 4, got \(5,\)"),
        ("steps = 0", "wanted steps of at least 1, got 0"),
        ("steps = ", "not a recipe: Invalid value"),
        ("[soundscapes]\nevents = [0.5]", "wanted events to be probabilities that sum to 1"),
    ],
)
def test_recipes_are_checked(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(AnnotationError, match=message):
        read_recipe(path)


def test_published_recipe_can_be_read() -> None:
    assert read_recipe(Path(__file__).parents[1] / "recipes" / "home.toml").model.embed_dim == 48


def test_soundscapes_command_writes_a_data_set(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("folds = [1, 2, 3]\n")
    for out in ("one", "two"):
        command = f"htsat-sed soundscapes {recipe} --data {data} -o {tmp_path / out} --count 3 --seed 4"
        monkeypatch.setattr(sys, "argv", command.split())
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code
    written = sorted(p.relative_to(tmp_path / "one").as_posix() for p in (tmp_path / "one").rglob("*.*"))
    assert written == [
        "audio/00000.flac",
        "audio/00001.flac",
        "audio/00002.flac",
        "durations.tsv",
        "reference.tsv",
    ]
    for name in written:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    labels = {row.split("\t")[3] for row in (tmp_path / "one" / "reference.tsv").read_text().splitlines()[1:]}
    assert labels <= {"Tone", "Noise"}  # fold 4 has no speech
