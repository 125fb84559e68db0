"""Soundscapes, on clips made here."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from htsat_sed.cli import main
from htsat_sed.detection.events import Event
from htsat_sed.training.data import Clip
from htsat_sed.training.recipe import SoundscapeRecipe
from htsat_sed.training.soundscapes import (
    Background,
    ClipSource,
    Soundscapes,
    read_backgrounds,
    read_sources,
    token_targets,
    united,
)

RATE = 32_000


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


def clips(folder: Path, *numbers: int) -> list[Clip]:
    """Some of the tones (even) and noises (odd)."""
    made = []
    for i in numbers:
        label = "Noise" if i % 2 else "Tone"
        made.append(Clip(folder / "audio" / f"{i}.wav", frozenset([label]), (Event(0.5, 2.0, label),)))
    return made


def test_sources_by_label(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    both = Clip(
        data / "talk.wav",
        frozenset(["Speech", "Dog"]),
        (Event(1.0, 2.0, "Speech"), Event(1.5, 2.5, "Dog"), Event(3.0, 5.5, "Speech")),
    )
    broken = Clip(tmp_path / "none.wav", frozenset(["Dog"]))
    weak = Clip(data / "talk.wav", frozenset(["Rain"]))
    sources = read_sources([both, broken, weak], sample_rate=RATE)
    assert [source.label for source in sources] == ["Dog", "Speech", "Rain"]
    assert sources[1].spans.tolist() == [[1.0, 2.0], [3.0, 5.5]]
    assert sources[2].spans.tolist() == [[0.0, 6.0]]
    assert "none.wav: cannot be opened" in caplog.text
    with pytest.raises(ValueError, match="or one weak label"):
        read_sources([Clip(data / "talk.wav", frozenset(["Rain", "Dog"]))], sample_rate=RATE)


def test_a_soundscape_follows_from_its_number(data: Path) -> None:
    sources = read_sources(clips(data, 0, 1, 2, 3), sample_rate=RATE)
    one, other = (Soundscapes(sources, SoundscapeRecipe(), sample_rate=RATE, seed=5) for _ in range(2))
    for number in (0, 7):
        samples, events, unknown = one[number]
        again, same_events, _ = other[number]
        np.testing.assert_array_equal(samples, again)
        assert events == same_events
        assert not unknown
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
        reverberant=0.0,
        gain_db=(0.0, 0.0),
    )
    soundscapes = Soundscapes(
        [ClipSource(tone, "Tone", np.array([[0.0, 2.0]]))], quiet, sample_rate=RATE, seed=0
    )
    for number in range(5):
        samples, events, _ = soundscapes[number]
        loud = np.abs(samples).reshape(-1, RATE // 100).max(axis=1) > 0.03
        inside = np.zeros(1000, bool)
        for event in events:
            inside[round(event.onset * 100) : round(event.offset * 100)] = True
        assert (loud == inside).mean() > 0.99


def hum(seconds: float, frequency: float) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    """A tone."""
    time = np.arange(round(seconds * RATE)) / RATE
    return (8_000 * np.sin(2 * np.pi * frequency * time)).astype(np.int16)


def power_near(samples: np.ndarray[tuple[int], np.dtype[np.float32]], frequency: float) -> float:
    """Mean square within 20 Hz of a frequency."""
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    near = np.abs(np.fft.rfftfreq(len(samples), 1 / RATE) - frequency) < 20.0
    return float(2.0 * spectrum[near].sum() / len(samples) ** 2)


STEADY = SoundscapeRecipe(
    events=(1.0,),
    floor_db=(-90.0, -90.0),
    event_db=(-50.0, -20.0),
    speed=0.0,
    equaliser_db=0.0,
    reverberant=0.0,
    gain_db=(0.0, 0.0),
    background=1.0,
    background_db=(-30.0, -30.0),
)


def test_a_background_plays_below_events_and_its_possible_classes_are_unknown() -> None:
    event = ClipSource(hum(2.0, 1_000.0), "Beep", np.array([[0.0, 2.0]]), frozenset(["Hum"]))
    below = [Background(hum(15.0, 300.0), frozenset(["Fan"]))]
    with_it = Soundscapes([event], STEADY, sample_rate=RATE, seed=1, backgrounds=below)
    without = Soundscapes([event], STEADY, sample_rate=RATE, seed=1)
    for number in range(4):
        samples, events, unknown = with_it[number]
        assert unknown == {"Fan", "Hum"}
        assert events == without[number].events
        assert without[number].unknown == {"Hum"}
        # -30 dB RMS, from beginning to end; the event at least 6 dB above, as long as it sounds.
        assert 10 * np.log10(power_near(samples, 300.0)) == pytest.approx(-30.0, abs=0.1)
        share = (events[0].offset - events[0].onset) / 10.0
        assert 10 * np.log10(power_near(samples, 1_000.0) / share) > -24.5
    none = Soundscapes([event], replace(STEADY, background=0.0), sample_rate=RATE, seed=1, backgrounds=below)
    np.testing.assert_array_equal(none[0].samples, without[0].samples)


def test_silent_soundscapes_have_backgrounds_alone_even_short_ones() -> None:
    event = ClipSource(hum(2.0, 1_000.0), "Beep", np.array([[0.0, 2.0]]))
    step = [Background(hum(0.5, 300.0))]
    series = Soundscapes([event], replace(STEADY, silent=0.5), sample_rate=RATE, seed=0, backgrounds=step)
    quiet = [soundscape for soundscape in (series[number] for number in range(20)) if not soundscape.events]
    assert 4 < len(quiet) < 16
    for samples, _, _ in quiet:
        assert power_near(samples, 1_000.0) < 1e-8
        heard = np.flatnonzero(np.abs(samples) > 0.01) / RATE
        assert 0.4 < len(heard) / RATE * 2 < 1.6 * 2  # one to three steps
        assert np.abs(samples[[0, -1]]).max() < 0.01


def test_backgrounds_are_the_clips_without_labels(data: Path, tmp_path: Path) -> None:
    quiet = Clip(data / "talk.wav", frozenset(), (), unknown=frozenset(["Dog"]))
    broken = Clip(tmp_path / "none.wav", frozenset(), ())
    rain = Clip(
        data / "talk.wav", frozenset(["Rain"]), (Event(0.0, np.inf, "Rain"),), unknown=frozenset(["Fire"])
    )
    (background,) = read_backgrounds([quiet, broken, rain], sample_rate=RATE)
    assert background.unknown == {"Dog"}
    assert len(background.samples) == 6 * RATE
    (source,) = read_sources([quiet, rain], sample_rate=RATE)
    assert (source.label, source.spans.tolist(), source.unknown) == ("Rain", [[0.0, 6.0]], {"Fire"})


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
        events=(1.0,),
        floor_db=(-90.0, -90.0),
        speed=0.0,
        equaliser_db=0.0,
        reverberant=0.0,
        gain_db=(0.0, 0.0),
    )
    source = ClipSource(clip, "Hum", np.array([[0.0, 15.0]]))
    soundscapes = Soundscapes([source], recipe, sample_rate=RATE, seed=0)
    for number in range(10):
        samples, (event,), _ = soundscapes[number]
        loud = np.flatnonzero(np.abs(samples) > 0.001) / RATE
        assert event.onset == pytest.approx(loud[0], abs=0.02)
        assert event.offset == pytest.approx(loud[-1], abs=0.02)


def test_a_room_follows_the_sound_and_ends_with_it() -> None:
    click = np.zeros(RATE, np.int16)
    click[100] = 20_000
    dry = SoundscapeRecipe(
        events=(1.0,),
        floor_db=(-90.0, -90.0),
        speed=0.0,
        equaliser_db=0.0,
        reverberant=0.0,
        gain_db=(0.0, 0.0),
    )
    wet = SoundscapeRecipe(
        events=(1.0,),
        floor_db=(-90.0, -90.0),
        speed=0.0,
        equaliser_db=0.0,
        reverberant=1.0,
        gain_db=(0.0, 0.0),
    )
    sources = [ClipSource(click, "Click", np.array([[0.0, 1.0]]))]
    loud = []
    for recipe in (dry, wet):
        series = Soundscapes(sources, recipe, sample_rate=RATE, seed=3)
        samples = np.stack([series[number][0] for number in range(5)])
        loud.append(np.mean(np.abs(samples) > 0.001))
    assert loud[1] > 5 * loud[0]


def test_token_targets_are_the_part_covered() -> None:
    targets = token_targets(
        [Event(0.25, 1.5, "a"), Event(1.5, 1.75, "a")], ("a", "b"), tokens=3, token_seconds=1.0
    )
    assert targets.tolist() == [[0.75, 0.0], [0.75, 0.0], [0.0, 0.0]]


def test_soundscapes_command_writes_a_data_set(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        "[[data]]\nkind = 'clips'\nfolds = [1, 2, 3]\nmix = true\n"
        "[[data]]\nkind = 'strong'\ntable = 'speech.tsv'\naudio = '.'\nmix = true\n"
    )
    (tmp_path / "two" / "audio").mkdir(parents=True)
    for left in ("audio/.0123456789ab-ba9876543210.part", ".0123456789ab-ba9876543210.part"):
        (tmp_path / "two" / left).write_bytes(b"of a run that was killed")
    for out in ("one", "two"):
        command = f"htsat-sed soundscapes {recipe} --data {data} -o {tmp_path / out} --count 3 --seed 4 --fold 4 --fold 1"
        monkeypatch.setattr(sys, "argv", command.split())
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code
    assert not list((tmp_path / "two").rglob("*.part"))
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
    assert labels <= {"Tone", "Noise", "Speech"}
