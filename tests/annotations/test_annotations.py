"""Every format of events: exact text, and what is written is what is read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from htsat_sed.annotations import FORMATS, path_of, read_events, write_events
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError, HtsatSedError
from htsat_sed.labels import normal

STREET = [Event(2.0, 3.75, "Dog", 0.5), Event(0.3125, 1.25, "Speech", 0.93117)]
TABLE = {"day1/street.wav": STREET, "silence.wav": []}

ANY_TEXT = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=8)
NASTY = st.sampled_from([
    "a\tb", 'he said "hi"', '"', "a,b;c", "line\nbreak\r\n", "🐦", " lead", "trail ", "\\u000a", "\\", " ", "NA",
    "nan", "<i> & --> x", "\u2028", "\x1f", "1.0\t2.0\tx", "Male speech, man speaking",
])  # fmt: skip
LABELS = (ANY_TEXT | NASTY).filter(str.strip)


def tables(**sizes):
    """Recordings, whose names differ in more than composition and blanks, with their events."""
    names = st.lists(FILENAMES, unique_by=normal, **sizes)
    return names.flatmap(lambda names: st.fixed_dictionaries({name: event_lists() for name in names}))


def is_name(text):
    """Whether a file can have this name: surrogates stand for bytes that are not UTF-8, and no others."""
    try:
        return text == os.fsdecode(os.fsencode(text))
    except UnicodeEncodeError:
        return False


FILENAMES = (
    (ANY_TEXT | NASTY | st.just("bad \udcff\udc80 bytes"))
    .map(lambda text: text.replace("/", "_") + ".wav")
    .filter(is_name)
)


@st.composite
def event_lists(draw):
    """Events on a grid of milliseconds, so that no format rounds them."""
    events = set()
    for _ in range(draw(st.integers(0, 4))):
        onset = draw(st.integers(0, 100_000))
        length = draw(st.integers(1, 100_000))
        score = draw(st.integers(0, 10_000)) / 10_000
        events.add(Event(onset / 1000, round((onset + length) / 1000, 3), draw(LABELS), score))
    return list(events)


@pytest.mark.parametrize("format", sorted(FORMATS))
@given(table=tables(max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
def test_what_is_written_is_what_is_read(tmp_path_factory, format, table):
    folder = tmp_path_factory.mktemp("events")
    of = FORMATS[format]
    path = folder / f"events{of.suffix}" if of.shared else folder
    write_events(path, table, format, durations=dict.fromkeys(table, 300.0))
    if not table and not of.shared:
        return
    # Blanks at the ends of labels are not read, and composed characters are the same as decomposed ones.
    table = {
        name: [Event(e.onset, e.offset, normal(e.label), e.score) for e in own] for name, own in table.items()
    }
    without_scores = {"tsv", "audacity", "textgrid", "webvtt", "elan", "crowsetta", "audioset"}
    without_silence = {"crowsetta", "audioset", "raven-folder"}
    if format in without_silence:
        table = {name: own for name, own in table.items() if own}
    expected = {
        name: sorted(
            {Event(e.onset, e.offset, e.label) for e in own} if format in without_scores else set(own)
        )
        for name, own in table.items()
    }
    assert read_events(path, format) == expected


@pytest.mark.parametrize("format", [name for name, of in FORMATS.items() if of.lines is not None])
@given(table=tables(min_size=1, max_size=2))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10, deadline=None)
def test_the_text_of_every_format_is_unicode_and_reads_the_same_when_put_together_by_hand(
    tmp_path_factory, format, table
):
    folder = tmp_path_factory.mktemp("events")
    of = FORMATS[format]
    write_events(folder / "whole" if not of.shared else folder / "whole.x", table, format)
    (name, own), *others = table.items()
    path = path_of(folder / "whole", name, of.suffix) if not of.shared else folder / "whole.x"
    text = of.text(name, own)
    if of.shared:
        text += "".join(of.lines(other, events, None) for other, events in others)
    assert path.read_bytes() == text.encode("utf-8")


def test_tsv(tmp_path):
    write_events(tmp_path / "e.tsv", TABLE, "tsv")
    assert (tmp_path / "e.tsv").read_text() == (
        "filename\tonset\toffset\tevent_label\n"
        "day1/street.wav\t0.312\t1.250\tSpeech\n"
        "day1/street.wav\t2.000\t3.750\tDog\n"
        "silence.wav\t\t\t\n"
    )


def test_csv_quotes_as_rfc_4180(tmp_path):
    write_events(tmp_path / "e.csv", TABLE | {'a "b",\nc.wav': [Event(0, 1, "x, y")]}, "csv")
    assert (tmp_path / "e.csv").read_bytes().decode() == (
        "filename,onset,offset,event_label,score\n"
        "day1/street.wav,0.312,1.250,Speech,0.9312\n"
        "day1/street.wav,2.000,3.750,Dog,0.5000\n"
        "silence.wav,,,,\n"
        '"a ""b"",\nc.wav",0.000,1.000,"x, y",1.0000\n'
    )


def test_tables_are_what_pandas_reads(tmp_path):
    import pandas as pd

    events = {'a "b",\n\tc 🐦.wav': [Event(0.5, 1, 'x,\t"y"', 0.25)], "silence.wav": []}
    for format, delimiter in (("tsv", "\t"), ("csv", ",")):
        path = tmp_path / f"e.{format}"
        write_events(path, events, format)
        table = pd.read_csv(path, sep=delimiter)
        assert table["filename"].tolist() == list(events)
        assert table["event_label"][0] == 'x,\t"y"'
        assert table["onset"][0] == 0.5
        assert table["event_label"].isna().tolist() == [False, True]


def test_jsonl(tmp_path):
    events = {"street.wav": STREET, "s\udcff🐦.wav": []}
    write_events(tmp_path / "e.jsonl", events, "jsonl", durations={"street.wav": 65})
    assert (tmp_path / "e.jsonl").read_text(encoding="utf-8") == (
        '{"filename": "street.wav", "duration": 65, "events": '
        '[{"onset": 0.3125, "offset": 1.25, "label": "Speech", "score": 0.93117}, '
        '{"onset": 2.0, "offset": 3.75, "label": "Dog", "score": 0.5}]}\n'
        '{"filename": "s\\udcff🐦.wav", "duration": null, "events": []}\n'
    )


def test_audacity_has_a_file_a_recording_in_the_same_sub_folders(tmp_path):
    write_events(tmp_path / "labels", TABLE, "audacity")
    assert (tmp_path / "labels/day1/street.wav.txt").read_text() == (
        "0.312500\t1.250000\tSpeech\n2.000000\t3.750000\tDog\n"
    )
    assert (tmp_path / "labels/silence.wav.txt").read_text() == ""
    assert read_events(tmp_path / "labels") == {
        "day1/street.wav": [Event(0.3125, 1.25, "Speech"), Event(2.0, 3.75, "Dog")],
        "silence.wav": [],
    }


def test_raven(tmp_path):
    write_events(tmp_path, TABLE, "raven")
    header = (
        "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"
        "\tAnnotation\tScore\tBegin File\n"
    )
    assert (tmp_path / "silence.wav.selections.txt").read_text() == header
    assert (tmp_path / "day1/street.wav.selections.txt").read_text() == (
        f"{header}1\tSpectrogram 1\t1\t0.312\t1.250\t50.0\t14000.0\tSpeech\t0.9312\tstreet.wav\n"
        "2\tSpectrogram 1\t1\t2.000\t3.750\t50.0\t14000.0\tDog\t0.5000\tstreet.wav\n"
    )


def test_raven_at_low_sample_rates(tmp_path):
    write_events(tmp_path, {"a.wav": [Event(0, 1, "Dog")]}, "raven", sample_rates={"a.wav": 22_050})
    assert "\t50.0\t11025.0\tDog" in (tmp_path / "a.wav.selections.txt").read_text()
    assert "\t50.0\t14000.0\tDog" in FORMATS["raven"].text("a.wav", [Event(0, 1, "Dog")], 1.0, 96_000)


def test_rttm(tmp_path):
    events = {"a b.wav": [Event(0.3125, 1.25, "Running water", 0.5)], "silence.wav": []}
    write_events(tmp_path / "e.rttm", events, "rttm")
    assert (tmp_path / "e.rttm").read_text() == (
        "SPEAKER a\\u0020b.wav 1 0.312 0.938 <NA> <NA> Running\\u0020water 0.5000 <NA>\n"
        "SPKR-INFO silence.wav 1 <NA> <NA> <NA> unknown <NA> <NA> <NA>\n"
    )


def test_webvtt(tmp_path):
    events = {"a.wav": [Event(3599.9996, 3723.5, "R&B <live>", 0.5)]}
    write_events(tmp_path / "a.vtt", events, "webvtt")
    assert (tmp_path / "a.vtt").read_text() == (
        "WEBVTT\n\n01:00:00.000 --> 01:02:03.500\nR&amp;B &lt;live&gt;\n"
    )


def test_textgrid_gives_overlapping_events_of_a_class_tiers_of_their_own(tmp_path):
    events = {"a.wav": [Event(0, 2, "Dog"), Event(1, 3, "Dog"), Event(2, 2.5, "Dog")]}
    write_events(tmp_path / "a.TextGrid", events, "textgrid", durations={"a.wav": 4.0})
    lines = [line.strip() for line in (tmp_path / "a.TextGrid").read_text().splitlines()]
    assert lines[:8] == [
        'File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", "xmax = 4.000000",
        "tiers? <exists>", "size = 2", "item []:",
    ]  # fmt: skip
    first, second = " ".join(lines[8:]).split('name = "')[1:]
    assert first.startswith('Dog" xmin = 0 xmax = 4.000000 intervals: size = 3')
    assert second.startswith('Dog (2)" xmin = 0 xmax = 4.000000 intervals: size = 3')


@pytest.mark.parametrize(
    ("onset", "offset", "text"),
    [
        (1.0002, 1.0004, "0.999\t1.000"),
        (0.0001, 0.0002, "0.000\t0.001"),
        (0.0006, 0.0014, "0.000\t0.001"),
        (1.0004, 1.0006, "1.000\t1.001"),
    ],
)
def test_no_event_is_rounded_to_nothing(onset, offset, text):
    assert FORMATS["tsv"].lines("a", [Event(onset, offset, "x")], None) == f"a\t{text}\tx\n"


@pytest.mark.parametrize(
    "event",
    [
        Event(0, 1, ""),
        Event(1, 1, "x"),
        Event(2, 1, "x"),
        Event(-1, 1, "x"),
        Event(0, float("inf"), "x"),
        Event(float("nan"), 1, "x"),
        Event(0, float("nan"), "x"),
    ],
)
@pytest.mark.parametrize("format", ["tsv", "jsonl", "textgrid"])
def test_an_impossible_event_is_the_callers_mistake(tmp_path, event, format):
    with pytest.raises(ValueError, match="wanted an event with a label and 0 <= onset < offset"):
        write_events(tmp_path / "e", {"a.wav": [event]}, format)
    assert not (tmp_path / "e").is_file()


def test_an_unknown_format_is_the_callers_mistake(tmp_path):
    with pytest.raises(ValueError, match=r"wanted a format, one of tsv, csv, .*; got 'srt'"):
        write_events(tmp_path / "e", {}, "srt")
    with pytest.raises(ValueError, match="got 'srt'"):
        read_events(tmp_path / "e", "srt")


def test_one_file_cannot_hold_several_recordings_where_each_has_its_own(tmp_path):
    with pytest.raises(ValueError, match="wanted a folder for the files of 2 recordings"):
        write_events(tmp_path / "e.txt", TABLE, "audacity")


def test_recordings_that_would_share_a_file_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"/a\.wav and a\.wav would share the file"):
        write_events(tmp_path, {"/a.wav": [], "a.wav": []}, "audacity")


@pytest.mark.parametrize(
    ("filename", "below"),
    [
        ("street.wav", "street.wav.txt"),
        ("day1/street.flac", "day1/street.flac.txt"),
        ("/data/street.wav", "data/street.wav.txt"),
        ("../../etc/passwd", "_/_/etc/passwd.txt"),
        ("..", "_.txt"),
        ("/", "_.txt"),
        ("a/./b.wav", "a/b.wav.txt"),
    ],
)
def test_files_stay_below_their_folder(filename, below):
    assert path_of("out", filename, ".txt") == Path("out") / below


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_the_content_tells_the_format(tmp_path, format):
    path = tmp_path / ("x" + FORMATS[format].suffix)
    write_events(path, {"x.wav": STREET}, format, durations={"x.wav": 65.0})
    assert [e.label for own in read_events(path).values() for e in own] == ["Speech", "Dog"]
    path.rename(tmp_path / "unnamed")
    assert [e.label for own in read_events(tmp_path / "unnamed").values() for e in own] == ["Speech", "Dog"]


def test_a_folder_of_several_formats_wants_one_named(tmp_path):
    write_events(tmp_path, TABLE, "audacity")
    write_events(tmp_path, TABLE, "raven")
    with pytest.raises(
        AnnotationError, match=r"holds label files of several formats \(audacity, raven\), which"
    ):
        read_events(tmp_path)
    assert read_events(tmp_path, "raven")["day1/street.wav"][0] == Event(0.312, 1.25, "Speech", 0.9312)
    assert read_events(tmp_path, "audacity")["day1/street.wav"][0] == Event(0.3125, 1.25, "Speech")


def test_a_folder_without_label_files_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing of the kind\n")
    with pytest.raises(AnnotationError, match="holds no label files"):
        read_events(tmp_path)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(AnnotationError, match=r"missing\.tsv: cannot be read: No such file"):
        read_events(tmp_path / "missing.tsv")


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(HtsatSedError, match="cannot be written"):
        write_events(tmp_path / "no" / "e.tsv", TABLE, "tsv")
    (tmp_path / "file").write_text("")
    with pytest.raises(HtsatSedError, match="cannot be created"):
        write_events(tmp_path / "file" / "below", TABLE, "audacity")


def test_the_package_does_not_bring_pandas_or_pyarrow_in():
    code = "import sys, htsat_sed.annotations; print({'pandas', 'pyarrow', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
