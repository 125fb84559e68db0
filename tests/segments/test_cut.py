"""Where recordings are, and that clips hold their own samples."""

from __future__ import annotations

import threading
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from events_made import at

from htsat_sed import Event
from htsat_sed.annotations import read_events, read_heard
from htsat_sed.annotations.delimited import row
from htsat_sed.annotations.heard import heard_cells
from htsat_sed.audio import coded, read, time_limit
from htsat_sed.errors import AnnotationError, AudioError, HtsatSedError
from htsat_sed.segments.choice import ClipChoice
from htsat_sed.segments.cut import Bounds, ClipSettings, cut_recording
from htsat_sed.segments.export import locate, plan, write_clips, write_index

resource = pytest.importorskip("resource", reason="memory is bounded by POSIX's means")

RATE = 8_000


SAMPLES = np.random.default_rng(5).integers(-(1 << 23), 1 << 23, (12 * RATE, 2), np.int32) << 8


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
        "day1/c.flac": "day1/c.flac",
        "e.flac": "e.flac",
    }
    located, failures = locate([*asked, "c.flac", "e", "x", "y", "z", "q"], tmp_path)
    assert located == {name: tmp_path / path for name, path in asked.items()}
    assert [str(failure) for failure in failures] == [
        f"{tmp_path}: holds no recordings for 4 of the 14 names: x, y, z and 1 more",
        f"{tmp_path}: holds several recordings each for 2 of the 14 names: c.flac, e",
    ]


def test_recordings_of_one_name_at_several_sites(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "2024/a/1.wav", "2024/b/1.wav", "2024/b/2.wav")
    within_a = tmp_path / "2024" / "a"
    asked = ["/field/a/1.wav", "b/1.wav"]
    located, failures = locate(asked, tmp_path)
    assert located == {"/field/a/1.wav": within_a / "1.wav", "b/1.wav": tmp_path / "2024" / "b" / "1.wav"}
    assert not failures
    located, failures = locate(asked, within_a)
    assert located == {"/field/a/1.wav": within_a / "1.wav"}
    assert [str(failure) for failure in failures] == [
        f"{within_a}: holds, under the same file name, only the recording of another name for 1 of the 2 names: "
        "b/1.wav"
    ]
    assert caplog.messages == []
    assert locate(["b/1.wav"], within_a) == ({"b/1.wav": within_a / "1.wav"}, [])
    assert caplog.messages == [
        f"{within_a}: 1 recording matched without folder, such as b/1.wav as {within_a / '1.wav'}"
    ]
    _, (failure,) = locate(["c/1.wav"], tmp_path)
    assert str(failure) == f"{tmp_path}: holds several recordings each for the name: c/1.wav"


def test_a_recording_by_itself_is_that_of_any_one_name(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    assert locate(["Label Track"], tmp_path / "a.wav") == ({"Label Track": tmp_path / "a.wav"}, [])
    with pytest.raises(ValueError, match="is one recording, but the table has 2"):
        locate(["a", "b"], tmp_path / "a.wav")


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
    found = cut_recording(recording, [(event, target)], ClipSettings(format=format))  # type: ignore[arg-type]
    assert found == {target: Bounds(56_001 / RATE, 66_400 / RATE)}
    information = soundfile.info(target)
    assert (information.subtype, information.samplerate, information.channels) == (expected, RATE, 2)
    np.testing.assert_array_equal(raw(target), raw(recording)[56_001:66_400])


@pytest.mark.parametrize("subtype", ["PCM_32", "DOUBLE"])
def test_more_bits_become_floats(tmp_path: Path, subtype: str) -> None:
    recording = record(tmp_path / "a.wav", SAMPLES + 77, subtype)
    cut_recording(recording, [(Event(1, 2, "Dog"), tmp_path / "clip.wav")], ClipSettings())
    assert soundfile.info(tmp_path / "clip.wav").subtype == "FLOAT"
    wanted = soundfile.read(recording, dtype="float32")[0][RATE : 2 * RATE]
    np.testing.assert_array_equal(soundfile.read(tmp_path / "clip.wav", dtype="float32")[0], wanted)


def test_floats_beyond_full_scale_are_kept_as_wav_and_limited_as_flac(tmp_path: Path) -> None:
    samples = np.array([0.5, 1.5, -3.0, np.nan, 1e-9] * 1000, np.float32)
    recording = record(tmp_path / "a.wav", samples, "FLOAT")
    targets = tmp_path / "clip.wav", tmp_path / "clip.flac"
    for target in targets:
        cut_recording(recording, [(Event(0, 1, "Dog"), target)], ClipSettings(format=target.suffix[1:]))  # type: ignore[arg-type]
    np.testing.assert_array_equal(soundfile.read(targets[0], dtype="float32")[0], samples)
    limited = soundfile.read(targets[1], dtype="float64")[0][:5]
    np.testing.assert_array_equal(limited, [0.5, 1 - 2.0**-23, -1, 0, 0])


def test_a_lossy_recording_is_cut_where_its_decoder_puts_the_samples(tmp_path: Path) -> None:
    recording = record(tmp_path / "a.mp3", SAMPLES // 4, "MPEG_LAYER_III", format="MP3")
    with av.open(str(recording)) as container:
        decoded = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    cut_recording(recording, [(Event(6, 7, "Dog"), tmp_path / "clip.wav")], ClipSettings())
    assert soundfile.info(tmp_path / "clip.wav").subtype == "PCM_16"
    clip = soundfile.read(tmp_path / "clip.wav", dtype="float32")[0].T
    np.testing.assert_allclose(clip, decoded[:, 6 * RATE : 7 * RATE], atol=2.0**-16)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_padding_stays_inside_the_recording_and_clips_may_overlap(tmp_path: Path, name: str) -> None:
    recording = record(tmp_path / name)
    events = [Event(0.25, 1, "Dog"), Event(0.5, 11.5, "Rain"), Event(5, 6, "Dog"), Event(11, 12, "Dog")]
    clips = [(event, tmp_path / f"{i}.wav") for i, event in enumerate(events)]
    found = cut_recording(recording, clips, ClipSettings(before=0.5, after=1))
    assert list(found.values()) == [Bounds(0, 2), Bounds(4.5, 7), Bounds(0, 12), Bounds(10.5, 12)]
    for target, (onset, offset) in found.items():
        np.testing.assert_array_equal(raw(target), raw(recording)[int(onset * RATE) : int(offset * RATE)])


def test_a_damaged_recording_is_cut_where_events_are_found_in_it(tmp_path: Path) -> None:
    """Where frames are missing, silence stands for them, in clips as in what is read."""
    recording = record(tmp_path / "a.flac", np.tile(SAMPLES, (5, 1)))
    data = bytearray(recording.read_bytes())
    data[len(data) // 4 : len(data) // 4 + len(data) // 20] = bytes(len(data) // 20)
    recording.write_bytes(data)
    heard = read(recording, RATE)
    assert len(heard) == 60 * RATE
    assert np.flatnonzero(heard == 0).size > 2 * RATE
    events = [Event(onset, onset + 0.3, "Dog") for onset in (4.1, 53.00012)] + [Event(60.1, 60.2, "Dog")]
    for chosen in (events, events[1:]):  # whatever else is cut
        clips = [(event, tmp_path / f"{event.onset}.wav") for event in chosen]
        found = cut_recording(recording, clips, ClipSettings())
        assert len(found) == len(chosen) - 1
        for target, (onset, offset) in found.items():
            clip = soundfile.read(target, dtype="float32")[0].mean(axis=1)
            span = slice(round(onset * RATE), round(offset * RATE))
            np.testing.assert_allclose(clip, heard[span], atol=1e-6)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_events_past_the_end(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    recording = record(tmp_path / name)
    events = [Event(12, 13, "Dog"), Event(11.5, 12.005, "Dog"), Event(11, 15, "Dog"), Event(300, 301, "Dog")]
    clips = [(event, tmp_path / f"{i}.wav") for i, event in enumerate(events)]
    found = cut_recording(recording, clips, ClipSettings(before=1))
    assert found == {tmp_path / "1.wav": Bounds(10.5, 12), tmp_path / "2.wav": Bounds(10, 12)}
    assert caplog.messages == [
        f"{recording}: 2 events begin after its end at 12.00 s: no clip",
        f"{recording}: 1 event reaches past its end at 12.00 s: cut there",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.wav", "2.wav", name]


def test_padding_and_offsets_past_all_bounds(tmp_path: Path) -> None:
    target = tmp_path / "clip.wav"
    found = cut_recording(
        record(tmp_path / "a.wav"), [(Event(1, 1e308, "hum"), target)], ClipSettings(after=1e308)
    )
    assert found == {target: Bounds(1, 12)}


def test_an_event_shorter_than_a_sample_has_one(tmp_path: Path) -> None:
    cut_recording(
        record(tmp_path / "a.wav"), [(Event(1, 1.00001, "click"), tmp_path / "clip.wav")], ClipSettings()
    )
    np.testing.assert_array_equal(raw(tmp_path / "clip.wav"), raw(tmp_path / "a.wav")[RATE : RATE + 1])


@pytest.mark.parametrize("rate", [16_000, 11_025, 3_000])
def test_another_rate(tmp_path: Path, rate: int) -> None:
    time = np.arange(3 * RATE) / RATE
    record(tmp_path / "a.wav", np.stack([np.sin(500 * time), 0.5 * np.cos(500 * time)], axis=1), "FLOAT")
    clips = [(Event(0.5, 1.75003, "hum"), tmp_path / "clip.wav")]
    cut_recording(tmp_path / "a.wav", clips, ClipSettings(sample_rate=rate))
    clip, found = soundfile.read(tmp_path / "clip.wav")
    assert (found, clip.shape) == (rate, (round(1.25 * rate), 2))
    inside = slice(rate // 20, -rate // 20)  # a filter rings where a sound is cut off
    wanted = 0.5 + np.arange(len(clip))[inside] / rate
    np.testing.assert_allclose(clip[inside, 0], np.sin(500 * wanted), atol=1e-3)
    np.testing.assert_allclose(clip[inside, 1], 0.5 * np.cos(500 * wanted), atol=1e-3)


def test_more_clips_at_once_than_open_files(tmp_path: Path) -> None:
    recording = record(tmp_path / "a.wav", SAMPLES[: 2 * RATE])
    clips = [(Event(i / 1000, 1 + i / 1000, "Dog"), tmp_path / f"{i}.wav") for i in range(120)]
    assert set(cut_recording(recording, clips, ClipSettings())) == {target for _, target in clips}
    for i in (0, 99, 100, 119):
        np.testing.assert_array_equal(raw(tmp_path / f"{i}.wav"), raw(recording)[8 * i : 8 * i + RATE])


def test_what_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    recording = record(tmp_path / "a.wav")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "clips").mkdir()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # as if the disk were full
        with pytest.raises(HtsatSedError, match=r"clip\.wav: cannot be written: File too large"):
            cut_recording(recording, [(Event(0, 10, "Dog"), tmp_path / "clips/clip.wav")], ClipSettings())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "clips").iterdir()) == []


def test_a_recording_that_cannot_be_read_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound")
    with pytest.raises(AudioError, match=r"a\.wav: is a text file, not a recording"):
        cut_recording(tmp_path / "a.wav", [(Event(0, 1, "Dog"), tmp_path / "clip.wav")], ClipSettings())
    soundfile.write(tmp_path / "b.wav", np.zeros((RATE, 9)), RATE)
    with pytest.raises(AudioError, match="has 9 channels, FLAC holds at most 8"):
        cut_recording(
            tmp_path / "b.wav", [(Event(0, 1, "x"), tmp_path / "clip.flac")], ClipSettings(format="flac")
        )
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
        ClipSettings(**wrong)  # type: ignore[arg-type]


# The index.
def test_the_index_is_a_table_of_events(tmp_path: Path) -> None:
    (tmp_path / "audio/day 1").mkdir(parents=True)
    record(tmp_path / "audio/day 1/a.wav")
    table = {
        "day 1/a.wav": [Event(2, 3.75, "Dog", 0.5), Event(2, 3, 'Bell, "ding"', 0.25)],
        "gone.wav": [Event(0, 1, "Dog", 0.9)],
        "silence.wav": [],
    }
    planned = plan(table, tmp_path / "audio", ClipChoice(limit=1), suffix=".wav", min_score=0.25)
    reason = f"{tmp_path / 'audio'}: holds no recordings for 1 of the 2 names: gone.wav"
    assert [str(failure) for failure in planned.failures] == [reason]
    written = dict(write_clips(planned, tmp_path / "clips", ClipSettings(before=0.5)))
    write_index(tmp_path / "clips", planned, written)  # type: ignore[arg-type]
    assert (tmp_path / "clips/clips.csv").read_text() == (
        "clip,filename,onset,offset,event_label,score,clip_onset,clip_offset,heard\n"
        "Bell-ding/day-1-a_00002.000_00003.000_Bell-ding_0.250.wav,day 1/a.wav,2.000,3.000,"
        '"Bell, ""ding""",0.2500,1.500000,3.000000,\n'
        "Dog/day-1-a_00002.000_00003.750_Dog_0.500.wav,day 1/a.wav,2.000,3.750,Dog,0.5000,1.500000,3.750000,\n"
        ',day 1/a.wav,,,,,,,"[[""Bell, \\""ding\\"""", 2.0, 3.0], [""Dog"", 2.0, 3.75]]"\n'
    )
    index = tmp_path / "clips/clips.csv"
    assert read_events(index) == {"day 1/a.wav": sorted(table["day 1/a.wav"])}
    heard = read_heard(index)
    assert heard == {"day 1/a.wav": [Event(2, 3, 'Bell, "ding"'), Event(2, 3.75, "Dog")]}


@pytest.mark.parametrize(
    "cell", ["[", "3", "[[1, 2, 3]]", '[["Dog", 1]]', '[["Dog", -1, 2]]', "[" * 5000, '[["D", 0, 1e999]]']
)
def test_a_broken_list_of_what_was_heard_is_one_line(tmp_path: Path, cell: str) -> None:
    rows = "filename,onset,offset,event_label,heard\n" + row(("a.wav", "", "", "", cell), ",")
    (tmp_path / "clips.csv").write_text(rows)
    with pytest.raises(AnnotationError, match=r"clips\.csv: line 2: "):
        read_heard(tmp_path / "clips.csv")


@pytest.mark.parametrize("cell", ["yes", '[["Dog", 0, 1]]'])
def test_a_column_of_ones_own_called_heard_says_nothing(tmp_path: Path, cell: str) -> None:
    rows = [("a.wav", "0", "1", "Dog", cell), ("b.wav", "", "", "", "no")]
    text = "filename,onset,offset,event_label,heard\n" + "".join(row(cells, ",") for cells in rows)
    (tmp_path / "own.csv").write_text(text)
    assert read_heard(tmp_path / "own.csv") is None
    assert read_events(tmp_path / "own.csv") == {"a.wav": [Event(0, 1, "Dog")], "b.wav": []}


def test_a_long_list_of_what_was_heard_takes_several_cells(tmp_path: Path) -> None:
    events = [Event(i, i + 0.5, "Dog") for i in range(1000)]
    cells = list(heard_cells(events))
    assert max(map(len, cells)) < 32_767 / 4  # what a spreadsheet keeps, and labels are longer than this one
    rows = "".join(row(("a.wav", "", "", "", cell), ",") for cell in cells)
    (tmp_path / "clips.csv").write_text("filename,onset,offset,event_label,heard\n" + rows)
    assert read_heard(tmp_path / "clips.csv") == {"a.wav": events}


def test_names_do_not_depend_on_what_is_chosen(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    table = {"a.wav": [at(0, 0.9, "dog"), at(0, 0.8, "Dog"), at(0, 0.7, "Cat")]}
    whole = plan(table, tmp_path, ClipChoice(), suffix=".wav").clips["a.wav"]
    part = plan(table, tmp_path, ClipChoice(), suffix=".wav", labels=["dog"], min_score=0.85).clips["a.wav"]
    assert part == {at(0, 0.9, "dog"): whole[at(0, 0.9, "dog")]}
    assert part[at(0, 0.9, "dog")].startswith("dog-2/")


def test_a_recording_that_stops_to_deliver_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips that are finished by then stay; the thread that hangs is left behind."""
    path = tmp_path / "a.flac"
    soundfile.write(path, SAMPLES, RATE, subtype="PCM_24")
    released = threading.Event()
    values = coded._values

    def hang(frame: av.AudioFrame) -> np.ndarray:
        if frame.time is not None and frame.time > 7.0:
            released.wait(60)
        return values(frame)

    monkeypatch.setattr(coded, "_values", hang)
    monkeypatch.setattr(time_limit, "PATIENCE", 0.5)
    monkeypatch.setattr(time_limit, "_CLOSING", 0.01)
    clips = [(Event(1, 2, "Dog"), tmp_path / "first.wav"), (Event(4, 9, "Dog"), tmp_path / "second.wav")]
    with pytest.raises(AudioError, match=r"has yielded no data for 0\.5 s: left out"):
        cut_recording(path, clips, ClipSettings())
    released.set()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.flac", "first.wav"]
