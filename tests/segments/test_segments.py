"""Which events are cut out, what clips are called, and that they hold the recording's own samples."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from htsat_sed import Event, decoding
from htsat_sed.annotations import read_events
from htsat_sed.errors import AudioError, HtsatSedError
from htsat_sed.segments.choice import Choice, Found, choose
from htsat_sed.segments.cut import Bounds, Cut, cut_recording
from htsat_sed.segments.export import locate, plan, write_clips, write_index
from htsat_sed.segments.names import clip_names, safe

RATE = 8_000
SAMPLES = np.random.default_rng(5).integers(-(1 << 23), 1 << 23, (12 * RATE, 2), np.int32) << 8


def at(onset: float, score: float = 1.0, label: str = "Dog") -> Event:
    return Event(onset, onset + 0.5, label, score)


# Which events.

SCORES = {"a.wav": [0.95, 0.91, 0.55], "b.wav": [0.58, 0.92, 0.64]}
TABLE = {name: [at(i, score) for i, score in enumerate(scores)] for name, scores in SCORES.items()}


def scores(choice: Choice) -> list[float]:
    return sorted(found.event.score for found in choose(TABLE, choice))


def test_all_events_stay_in_order_where_there_is_no_limit() -> None:
    wanted = [Found(name, event) for name, events in TABLE.items() for event in events]
    assert choose(TABLE, Choice()) == choose(TABLE, Choice(order="random")) == wanted


def test_the_highest_scores() -> None:
    assert scores(Choice(limit=3)) == [0.91, 0.92, 0.95]


def test_the_highest_scores_of_the_recordings_in_turn() -> None:
    assert scores(Choice(limit=2, spread=True)) == [0.92, 0.95]
    assert scores(Choice(limit=3, spread=True)) == [0.91, 0.92, 0.95]
    assert scores(Choice(limit=4, spread=True)) == [0.64, 0.91, 0.92, 0.95]


def test_of_equal_scores_chance_decides() -> None:
    table = {name: [at(i) for i in range(5)] for name in ("a.wav", "b.wav")}
    drawn = {tuple(choose(table, Choice(limit=2, seed=seed))) for seed in range(20)}
    assert {found.filename for chosen in drawn for found in chosen} == {"a.wav", "b.wav"}
    assert len(drawn) > 10


def test_a_limit_holds_for_each_class() -> None:
    table = {"a.wav": [at(0, 0.9), at(1, 0.8), at(0, 0.3, "Cat"), at(1, 0.4, "Cat")]}
    assert [found.event for found in choose(table, Choice(limit=1))] == [at(0, 0.9), at(1, 0.4, "Cat")]


def test_score_bands_have_the_same_share() -> None:
    """Of bands of 0.1: three scores of 0.9 to 1, one of 0.6 to 0.7, two of 0.5 to 0.6."""
    for seed in range(20):
        band = Counter(int(score * 10) for score in scores(Choice(limit=5, order="bands", seed=seed)))
        assert band == {9: 2, 6: 1, 5: 2}
        assert sum(score < 0.9 for score in scores(Choice(limit=3, order="bands", seed=seed))) == 2


def test_in_a_band_the_recordings_take_turns() -> None:
    for seed in range(20):
        chosen = choose(TABLE, Choice(limit=5, order="bands", spread=True, seed=seed))
        assert sorted(f.filename for f in chosen if f.event.score >= 0.9) == ["a.wav", "b.wav"]


def test_the_score_1_belongs_to_the_highest_band() -> None:
    table = {"a.wav": [at(0, 1.0), at(1, 0.95), at(2, 0.1)]}
    assert at(2, 0.1) in {found.event for found in choose(table, Choice(limit=2, order="bands"))}


def test_chance_depends_on_the_seed_alone() -> None:
    cats = {"c.wav": [at(i, 0.5, "Cat") for i in range(9)]}
    few = Choice(limit=2, order="random", seed=3)
    dogs = choose(TABLE, few)
    backwards = {name: TABLE[name][::-1] for name in reversed(TABLE)}
    assert set(choose(backwards, few)) == set(dogs)
    assert [found for found in choose(TABLE | cats, few) if found.event.label == "Dog"] == dogs
    assert len({tuple(choose(TABLE, Choice(limit=2, order="random", seed=s))) for s in range(20)}) > 5


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 99), st.sampled_from(["Dog", "Cat"]))),
    st.sampled_from(["highest", "random", "bands"]),
    st.booleans(),
    st.integers(1, 9),
)
def test_a_larger_limit_only_adds(
    rows: list[tuple[str, int, str]], order: str, spread: bool, limit: int
) -> None:
    table: dict[str, list[Event]] = {}
    for name, score, label in sorted(set(rows)):
        table.setdefault(name, []).append(at(score, score / 100, label))
    fewer = choose(table, Choice(limit=limit, order=order, spread=spread))  # type: ignore[arg-type]
    more = choose(table, Choice(limit=limit + 1, order=order, spread=spread))  # type: ignore[arg-type]
    assert set(fewer) <= set(more)
    there = Counter(event.label for events in table.values() for event in events)
    assert Counter(f.event.label for f in fewer) == {k: min(n, limit) for k, n in there.items()}


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"limit": 0}, "wanted a limit of 1 or more, got 0"),
        ({"order": "best"}, "wanted an order, one of highest, random, bands; got 'best'"),
        ({"bands": 0}, "wanted 1 band or more, got 0"),
    ],
)
def test_impossible_choices_are_refused(wrong: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Choice(**wrong)  # type: ignore[arg-type]


# Names.


def test_names_tell_the_event_and_can_be_taken_apart() -> None:
    event = Event(2.0, 3.75, "Baby cry, infant cry", 0.93117)
    (name,) = clip_names({"day1/site_7 north.WAV": [event]}, ".flac").values()
    assert name == (
        "Baby-cry-infant-cry/day1-site_7-north_00002.000_00003.750_Baby-cry-infant-cry_0.931.flac"
    )
    stem = name.partition("/")[2].removesuffix(".flac")
    assert stem.rsplit("_", 4) == [
        "day1-site_7-north",
        "00002.000",
        "00003.750",
        "Baby-cry-infant-cry",
        "0.931",
    ]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("R&B", "R-B"),
        ('a/b\\c:d*e?f"g<h>i|j\x00k\nl\x7f\udcff', "a-b-c-d-e-f-g-h-i-j-k-l"),
        ("../../etc/passwd", "etc-passwd"),
        ("-rf ~", "rf"),
        (" dots... ", "dots"),
        (".hidden", "hidden"),
        ("aux", "aux-"),
        ("Con.x", "Con-.x"),
        ("LPT9", "LPT9-"),
        ("console", "console"),
        ("Ga\u0308nse, 鵞鳥", "G\u00e4nse-鵞鳥"),
        ("हिन्दी", "हिन्दी"),
        ("🐕", "unnamed"),
        ("???", "unnamed"),
    ],
)
def test_names_suit_every_file_system(text: str, name: str) -> None:
    assert safe(text, limit=40) == name


def test_long_names_are_cut_between_characters() -> None:
    assert safe("ä" * 30, limit=41) == "ä" * 20
    assert safe("x" * 30 + "/2024", limit=10, end=True) == "xxxxx-2024"


def test_names_that_would_be_one_on_some_file_system_get_numbers() -> None:
    table = {
        "a.wav": [Event(0, 1, "dog"), Event(0, 1, "Dog"), Event(0, 1, "Dog!"), Event(0.0001, 1, "dog")],
        "a.flac": [Event(0, 1, "dog")],
    }
    names = clip_names(table, ".wav")
    assert [(found.filename, found.event.label, name) for found, name in names.items()] == [
        ("a.flac", "dog", "dog-3/a_00000.000_00001.000_dog_1.000.wav"),
        ("a.wav", "Dog", "Dog/a_00000.000_00001.000_Dog_1.000.wav"),
        ("a.wav", "Dog!", "Dog-2/a_00000.000_00001.000_Dog_1.000.wav"),
        ("a.wav", "dog", "dog-3/a_00000.000_00001.000_dog_1.000-2.wav"),
        ("a.wav", "dog", "dog-3/a_00000.000_00001.000_dog_1.000-3.wav"),
    ]


@settings(max_examples=30)
@given(
    st.dictionaries(
        st.text(min_size=1),
        st.lists(st.builds(at, st.floats(0, 1e4), st.floats(0, 1), st.text(min_size=1)), unique=True),
    )
)
def test_no_two_clips_share_a_name(table: dict[str, list[Event]]) -> None:
    names = list(clip_names(table, ".wav").values())
    assert len({name.casefold() for name in names}) == sum(map(len, table.values()))
    for name in names:
        folder, _, file = name.partition("/")
        assert folder
        assert file
        assert "/" not in file
        assert len(file.encode()) <= 200
        assert not set(name) & set('\\:*?"<>|\x00\n\udcff')


# Where recordings are.


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_recordings_by_path_without_suffix_or_by_file_name(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "day1/b.wav", "day1/c.flac", "day2/c.flac", "day2/d.v2.wav", "e.wav", "e.flac")
    asked = {
        "a.wav": "a.wav",
        "a": "a.wav",
        "day1/b": "day1/b.wav",
        "b.wav": "day1/b.wav",
        "b": "day1/b.wav",
        "d.v2": "day2/d.v2.wav",
        "elsewhere/b.wav": "day1/b.wav",
        "day1/c.flac": "day1/c.flac",
        "e.flac": "e.flac",
    }
    located, failures = locate([*asked, "c.flac", "e", "x", "y", "z", "q"], tmp_path)
    assert located == {name: tmp_path / path for name, path in asked.items()}
    assert [str(failure) for failure in failures] == [
        f"{tmp_path}: holds no recordings for 4 of the 15 names: x, y, z and 1 more",
        f"{tmp_path}: holds several recordings each for 2 of the 15 names: c.flac, e",
    ]


def test_a_recording_by_itself_is_that_of_any_one_name(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    assert locate(["Label Track"], tmp_path / "a.wav") == ({"Label Track": tmp_path / "a.wav"}, [])
    with pytest.raises(ValueError, match="is one recording, the events are of 2: name their folder"):
        locate(["a", "b"], tmp_path / "a.wav")


# The cut.


def record(path: Path, samples: np.ndarray = SAMPLES, subtype: str = "PCM_16", **more: object) -> Path:
    soundfile.write(path, samples, RATE, subtype=subtype, **more)
    return path


def raw(path: Path) -> np.ndarray:
    """Samples as they are stored: integers highest bit first, or floats."""
    floats = soundfile.info(path).subtype in ("FLOAT", "DOUBLE")
    return soundfile.read(path, dtype="float64" if floats else "int32", always_2d=True)[0]


@pytest.mark.parametrize(
    ("name", "subtype", "format", "expected"),
    [
        ("a.wav", "PCM_U8", "wav", "PCM_U8"),
        ("a.wav", "PCM_16", "wav", "PCM_16"),
        ("a.wav", "PCM_24", "wav", "PCM_24"),
        ("a.wav", "FLOAT", "wav", "FLOAT"),
        ("a.aiff", "PCM_S8", "wav", "PCM_U8"),
        ("a.flac", "PCM_16", "wav", "PCM_16"),
        ("a.flac", "PCM_24", "wav", "PCM_24"),
        ("a.flac", "PCM_24", "flac", "PCM_24"),
        ("a.wav", "PCM_U8", "flac", "PCM_S8"),
        ("a.wav", "ULAW", "wav", "PCM_16"),
    ],
)
def test_clips_hold_the_recordings_own_samples(
    tmp_path: Path, name: str, subtype: str, format: str, expected: str
) -> None:
    recording = record(tmp_path / name, subtype=subtype)
    target = tmp_path / f"clip.{format}"
    event = Event(7.00007, 8.30001, "Dog")  # samples 56 000.56 and 66 400.08
    found = cut_recording(recording, [(event, target)], Cut(format=format))  # type: ignore[arg-type]
    assert found == {target: Bounds(56_001 / RATE, 66_400 / RATE)}
    information = soundfile.info(target)
    assert (information.subtype, information.samplerate, information.channels) == (expected, RATE, 2)
    np.testing.assert_array_equal(raw(target), raw(recording)[56_001:66_400])


@pytest.mark.parametrize("subtype", ["PCM_32", "DOUBLE"])
def test_more_bits_become_floats(tmp_path: Path, subtype: str) -> None:
    recording = record(tmp_path / "a.wav", SAMPLES + 77, subtype)
    cut_recording(recording, [(Event(1, 2, "Dog"), tmp_path / "clip.wav")], Cut())
    assert soundfile.info(tmp_path / "clip.wav").subtype == "FLOAT"
    wanted = soundfile.read(recording, dtype="float32")[0][RATE : 2 * RATE]
    np.testing.assert_array_equal(soundfile.read(tmp_path / "clip.wav", dtype="float32")[0], wanted)


def test_floats_beyond_full_scale_are_kept_as_wav_and_limited_as_flac(tmp_path: Path) -> None:
    samples = np.array([0.5, 1.5, -3.0, np.nan, 1e-9] * 1000, np.float32)
    recording = record(tmp_path / "a.wav", samples, "FLOAT")
    targets = tmp_path / "clip.wav", tmp_path / "clip.flac"
    for target in targets:
        cut_recording(recording, [(Event(0, 1, "Dog"), target)], Cut(format=target.suffix[1:]))  # type: ignore[arg-type]
    np.testing.assert_array_equal(soundfile.read(targets[0], dtype="float32")[0], samples)
    limited = soundfile.read(targets[1], dtype="float64")[0][:5]
    np.testing.assert_array_equal(limited, [0.5, 1 - 2.0**-23, -1, 0, 0])


def test_a_lossy_recording_is_cut_where_its_decoder_puts_the_samples(tmp_path: Path) -> None:
    recording = record(tmp_path / "a.mp3", SAMPLES // 4, "MPEG_LAYER_III", format="MP3")
    with av.open(str(recording)) as container:
        decoded = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    cut_recording(recording, [(Event(6, 7, "Dog"), tmp_path / "clip.wav")], Cut())
    assert soundfile.info(tmp_path / "clip.wav").subtype == "PCM_16"
    clip = soundfile.read(tmp_path / "clip.wav", dtype="float32")[0].T
    np.testing.assert_allclose(clip, decoded[:, 6 * RATE : 7 * RATE], atol=2.0**-16)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_padding_stays_inside_the_recording_and_clips_may_overlap(tmp_path: Path, name: str) -> None:
    recording = record(tmp_path / name)
    events = [Event(0.25, 1, "Dog"), Event(0.5, 11.5, "Rain"), Event(5, 6, "Dog"), Event(11, 12, "Dog")]
    clips = [(event, tmp_path / f"{i}.wav") for i, event in enumerate(events)]
    found = cut_recording(recording, clips, Cut(before=0.5, after=1))
    assert list(found.values()) == [Bounds(0, 2), Bounds(4.5, 7), Bounds(0, 12), Bounds(10.5, 12)]
    for target, (onset, offset) in found.items():
        np.testing.assert_array_equal(raw(target), raw(recording)[int(onset * RATE) : int(offset * RATE)])


@pytest.mark.parametrize("part", [1.0, 0.7])
def test_flac_is_sought_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: float) -> None:
    """Cut short, too: then a seek to what is missing fails, and what lies before it is found from the start."""
    monkeypatch.setattr(decoding, "_WORTH_SEEKING", 1.5)
    recording = record(tmp_path / "a.flac", np.tile(SAMPLES, (2, 1)))
    data = recording.read_bytes()
    recording.write_bytes(data[: int(len(data) * part)])
    decoded: list[int] = []
    decode = decoding.Coded._decode

    def counted(coded: decoding.Coded) -> Iterator[av.AudioFrame]:
        for frame in decode(coded):
            decoded.append(frame.samples)
            yield frame

    monkeypatch.setattr(decoding.Coded, "_decode", counted)
    events = [Event(onset, onset + 0.3, "Dog") for onset in (4.1, 4.9, 13.00012, 23)]
    clips = [(event, tmp_path / f"{i}.wav") for i, event in enumerate(events)]
    found = cut_recording(recording, clips, Cut())
    assert len(found) == (4 if part == 1 else 3)
    for target, (onset, offset) in found.items():
        span = slice(round(onset * RATE), round(offset * RATE))
        np.testing.assert_array_equal(raw(target) >> 16, np.tile(SAMPLES, (2, 1))[span] >> 16)
    if part == 1:
        assert sum(decoded) < 14 * RATE  # of 24 s


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_events_past_the_end(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    recording = record(tmp_path / name)
    events = [Event(12, 13, "Dog"), Event(11.5, 12.005, "Dog"), Event(11, 15, "Dog"), Event(300, 301, "Dog")]
    clips = [(event, tmp_path / f"{i}.wav") for i, event in enumerate(events)]
    found = cut_recording(recording, clips, Cut(before=1))
    assert found == {tmp_path / "1.wav": Bounds(10.5, 12), tmp_path / "2.wav": Bounds(10, 12)}
    assert caplog.messages == [
        f"{recording}: 2 events begin after its end at 12.00 s: no clip",
        f"{recording}: 1 event reaches past its end at 12.00 s: cut there",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.wav", "2.wav", name]


def test_an_event_shorter_than_a_sample_has_one(tmp_path: Path) -> None:
    cut_recording(record(tmp_path / "a.wav"), [(Event(1, 1.00001, "click"), tmp_path / "clip.wav")], Cut())
    np.testing.assert_array_equal(raw(tmp_path / "clip.wav"), raw(tmp_path / "a.wav")[RATE : RATE + 1])


@pytest.mark.parametrize("rate", [16_000, 11_025, 3_000])
def test_another_rate(tmp_path: Path, rate: int) -> None:
    time = np.arange(3 * RATE) / RATE
    record(tmp_path / "a.wav", np.stack([np.sin(500 * time), 0.5 * np.cos(500 * time)], axis=1), "FLOAT")
    clips = [(Event(0.5, 1.75003, "hum"), tmp_path / "clip.wav")]
    cut_recording(tmp_path / "a.wav", clips, Cut(sample_rate=rate))
    clip, found = soundfile.read(tmp_path / "clip.wav")
    assert (found, clip.shape) == (rate, (round(1.25 * rate), 2))
    inside = slice(rate // 20, -rate // 20)  # a filter rings where a sound is cut off
    wanted = 0.5 + np.arange(len(clip))[inside] / rate
    np.testing.assert_allclose(clip[inside, 0], np.sin(500 * wanted), atol=1e-3)
    np.testing.assert_allclose(clip[inside, 1], 0.5 * np.cos(500 * wanted), atol=1e-3)


def test_more_clips_at_once_than_open_files(tmp_path: Path) -> None:
    recording = record(tmp_path / "a.wav", SAMPLES[: 2 * RATE])
    clips = [(Event(i / 1000, 1 + i / 1000, "Dog"), tmp_path / f"{i}.wav") for i in range(120)]
    assert set(cut_recording(recording, clips, Cut())) == {target for _, target in clips}
    for i in (0, 99, 100, 119):
        np.testing.assert_array_equal(raw(tmp_path / f"{i}.wav"), raw(recording)[8 * i : 8 * i + RATE])


def test_what_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    recording = record(tmp_path / "a.wav")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "clips").mkdir()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # as if the disk were full
        with pytest.raises(HtsatSedError, match=r"clip\.wav: cannot be written"):
            cut_recording(recording, [(Event(0, 10, "Dog"), tmp_path / "clips/clip.wav")], Cut())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "clips").iterdir()) == []


def test_a_recording_that_cannot_be_read_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound")
    with pytest.raises(AudioError, match=r"a\.wav: is a text file, not a recording"):
        cut_recording(tmp_path / "a.wav", [(Event(0, 1, "Dog"), tmp_path / "clip.wav")], Cut())
    soundfile.write(tmp_path / "b.wav", np.zeros((RATE, 9)), RATE)
    with pytest.raises(AudioError, match="has 9 channels, FLAC holds 8: cut as wav"):
        cut_recording(tmp_path / "b.wav", [(Event(0, 1, "x"), tmp_path / "clip.flac")], Cut(format="flac"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b.wav"]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"before": -1.0}, "wanted padding of 0 s or more, got -1 s before the event"),
        ({"after": float("nan")}, "got nan s after the event"),
        ({"format": "mp3"}, "wanted clips as wav or flac, got 'mp3'"),
        ({"sample_rate": 10}, "wanted a sample rate of 1000 to 768000 Hz, got 10"),
    ],
)
def test_impossible_cuts_are_refused(wrong: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Cut(**wrong)  # type: ignore[arg-type]


# The index.


def test_the_index_is_a_table_of_events(tmp_path: Path) -> None:
    (tmp_path / "audio/day 1").mkdir(parents=True)
    record(tmp_path / "audio/day 1/a.wav")
    table = {
        "day 1/a.wav": [Event(2, 3.75, "Dog", 0.5), Event(2, 3, 'Bell, "ding"', 0.25)],
        "gone.wav": [Event(0, 1, "Dog", 0.9)],
        "silence.wav": [],
    }
    planned = plan(table, tmp_path / "audio", Choice(limit=1), suffix=".wav", min_score=0.25)
    reason = f"{tmp_path / 'audio'}: holds no recordings for 1 of the 2 names: gone.wav"
    assert [str(failure) for failure in planned.failures] == [reason]
    written = dict(write_clips(planned, tmp_path / "clips", Cut(before=0.5)))
    write_index(tmp_path / "clips", planned, written)  # type: ignore[arg-type]
    assert (tmp_path / "clips/clips.csv").read_text() == (
        "clip,filename,onset,offset,event_label,score,clip_onset,clip_offset\n"
        "Bell-ding/day-1-a_00002.000_00003.000_Bell-ding_0.250.wav,day 1/a.wav,2.000,3.000,"
        '"Bell, ""ding""",0.2500,1.500000,3.000000\n'
        "Dog/day-1-a_00002.000_00003.750_Dog_0.500.wav,day 1/a.wav,2.000,3.750,Dog,0.5000,1.500000,3.750000\n"
    )
    assert read_events(tmp_path / "clips/clips.csv") == {"day 1/a.wav": sorted(table["day 1/a.wav"])}


def test_names_do_not_depend_on_what_is_chosen(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    table = {"a.wav": [at(0, 0.9, "dog"), at(0, 0.8, "Dog"), at(0, 0.7, "Cat")]}
    whole = plan(table, tmp_path, Choice(), suffix=".wav").clips["a.wav"]
    part = plan(table, tmp_path, Choice(), suffix=".wav", labels=["dog"], min_score=0.85).clips["a.wav"]
    assert part == {at(0, 0.9, "dog"): whole[at(0, 0.9, "dog")]}
    assert part[at(0, 0.9, "dog")].startswith("dog-2/")
