"""Files that other programs write, and ours as other programs read them."""

import html

import pytest

from htsat_sed.annotations import read_events, write_events
from htsat_sed.annotations.text import unescape
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError

EVENTS = [
    Event(0.3125, 1.25, "Speech", 0.9312),
    Event(1.0, 4.0, "Running water", 0.5),
    Event(1.25, 2.0, 'Bell "ding"', 0.25),
    Event(2.0, 3.5, "Speech", 0.75),
]


def bounds(events):
    return [(e.onset, e.offset, e.label) for e in events]


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


TRYING = [
    *(
        "Baby cry, infant cry",
        "鳥の声",
        "🐦 bird",
        "e\u0301",
        "\u200fRTL \u05d0",
        'he said "hi"',
        '"',
        "'",
        "&lt;",
    ),
    *(
        "line\nbreak",
        "tab\there",
        "a\u2028b",
        "R&B <i> --> x",
        "1.5",
        "NOTE",
        "WEBVTT",
        "<exists>",
        "a = 1 ! b",
    ),
    *("\\u0041", "x\\", ";; no", "#", "%s", "00:00:01.000 --> 00:00:02.000"),
]
"""Labels that a careless reader or writer takes for something else."""

TRYING_EVENTS = sorted(
    [Event(i * 10.5, i * 10.5 + 10.5, label, 0.5) for i, label in enumerate(TRYING)]  # each touches the next
    + [Event(3600 * hours + 0.001, 3600 * hours + 1.999, "Dog", 0.25) for hours in (1, 25, 100)]
    + [Event(0, 86_400, "Rain", 0.0), Event(5, 15, "Cat", 0.1234), Event(5, 8, "Cat", 1.0)]  # at once
)


def test_praatio_reads_our_textgrids(tmp_path):
    from praatio import textgrid

    write_events(tmp_path / "a.TextGrid", {"a.wav": EVENTS}, "textgrid", durations={"a.wav": 65.0})
    grid = textgrid.openTextgrid(str(tmp_path / "a.TextGrid"), includeEmptyIntervals=False)
    assert (grid.minTimestamp, grid.maxTimestamp) == (0, 65)
    assert grid.tierNames == ('Bell "ding"', "Running water", "Speech")
    assert grid.validate("error")
    entries = [tuple(entry) for name in grid.tierNames for entry in grid.getTier(name).entries]
    assert sorted(entries) == bounds(EVENTS)


def test_praatio_reads_a_textgrid_without_events(tmp_path):
    from praatio import textgrid

    write_events(tmp_path / "a.TextGrid", {"a.wav": []}, "textgrid", durations={"a.wav": 65.0})
    grid = textgrid.openTextgrid(str(tmp_path / "a.TextGrid"), includeEmptyIntervals=True)
    assert grid.tierNames == ("events",)
    assert [tuple(entry) for entry in grid.getTier("events").entries] == [(0, 65, "")]


def test_tgt_reads_our_textgrids(tmp_path):
    import tgt

    write_events(tmp_path / "a.TextGrid", {"a.wav": EVENTS}, "textgrid")
    grid = tgt.read_textgrid(str(tmp_path / "a.TextGrid"))
    assert grid.end_time == 4
    found = [(i.start_time, i.end_time, i.text) for tier in grid.tiers for i in tier.intervals]
    assert sorted((float(start), float(end), text) for start, end, text in found) == bounds(EVENTS)


@pytest.mark.parametrize("format", ["long_textgrid", "short_textgrid"])
def test_textgrids_by_praatio(tmp_path, caplog, format):
    from praatio import textgrid

    grid = textgrid.Textgrid()
    grid.addTier(textgrid.IntervalTier("words", [(0.5, 1.0, 'a "b"'), (1.0, 2.0, "c = 3 ! d")], 0, 3))
    grid.addTier(textgrid.PointTier("clicks", [(0.25, "x")], 0, 3))
    grid.addTier(textgrid.IntervalTier("phones", [(0.5, 0.75, "ŋ")], 0, 3))
    path = tmp_path / "talk.TextGrid"
    grid.save(str(path), format=format, includeBlankSpaces=True)
    expected = [Event(0.5, 0.75, "ŋ"), Event(0.5, 1.0, 'a "b"'), Event(1.0, 2.0, "c = 3 ! d")]
    assert read_events(path) == {"talk": expected}
    assert caplog.messages == [f"{path}: point tier 'clicks' skipped: 1 points without length"]
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-16")
    assert read_events(path) == {"talk": expected}


def test_textgrids_by_tgt(tmp_path):
    import tgt

    grid, tier = tgt.TextGrid(), tgt.IntervalTier(0, 3, "birds")
    tier.add_interval(tgt.Interval(0.5, 1.0, "Amsel"))
    grid.add_tier(tier)
    (tmp_path / "a.TextGrid").write_text(tgt.io.export_to_short_textgrid(grid))
    assert read_events(tmp_path / "a.TextGrid") == {"a": [Event(0.5, 1.0, "Amsel")]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('File type = "ooTextFile"\nObject class = "Pitch 1"\n', "is no TextGrid but ooTextFile of Pitch 1"),
        ('File type = "ooTextFile"\n', "is cut short"),
        (
            'File type = "ooTextFile"\nObject class = "TextGrid"\n0 1 <exists> 1 "IntervalTier" "a"',
            "is cut short",
        ),
        (
            'File type = "ooTextFile"\nObject class = "TextGrid"\n0 1 <exists> 1 "X" "a" 0 1 0',
            "unknown kind 'X'",
        ),
        (
            'File type = "ooTextFile"\nObject class = "TextGrid"\n0 1 <exists> "many"',
            "is no TextGrid: invalid",
        ),
        (
            'File type = "ooTextFile"\nObject class = "TextGrid"\n0 1\n<exists> 1\n"IntervalTier" "a" 0 1 1\n2 1 "x"',
            "line 6: offset 1 lies before onset 2",
        ),
    ],
)
def test_broken_textgrids_are_errors(tmp_path, text, reason):
    with pytest.raises(AnnotationError, match=reason):
        read_events(write(tmp_path / "a.TextGrid", text))


@pytest.mark.parametrize("format", ["long_textgrid", "short_textgrid"])
def test_trying_events_through_praatio(tmp_path, format):
    from praatio import textgrid

    write_events(tmp_path / "a.TextGrid", {"a": TRYING_EVENTS}, "textgrid", durations={"a": 400_000.0})
    grid = textgrid.openTextgrid(str(tmp_path / "a.TextGrid"), includeEmptyIntervals=False)
    assert grid.validate("error")
    found = [tuple(entry) for name in grid.tierNames for entry in grid.getTier(name).entries]
    assert sorted((onset, offset, unescape(label)) for onset, offset, label in found) == bounds(TRYING_EVENTS)
    grid.save(str(tmp_path / "a.TextGrid"), format=format, includeBlankSpaces=True)
    assert bounds(read_events(tmp_path / "a.TextGrid")["a"]) == bounds(TRYING_EVENTS)


def test_trying_events_through_tgt(tmp_path):
    import tgt

    events = [event for event in TRYING_EVENTS if " = " not in event.label]  # tgt reads on from any such sign
    write_events(tmp_path / "a.TextGrid", {"a": events}, "textgrid")
    grid = tgt.read_textgrid(str(tmp_path / "a.TextGrid"))
    found = [(i.start_time, i.end_time, unescape(i.text)) for tier in grid.tiers for i in tier.intervals]
    assert sorted(found) == bounds(events)
    tgt.write_to_file(grid, str(tmp_path / "a.TextGrid"), format="long", encoding="utf-8")
    assert bounds(read_events(tmp_path / "a.TextGrid")["a"]) == bounds(events)


def test_a_textgrid_may_have_labels_of_several_lines(tmp_path):
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n2\n<exists>\n1\n'
    path = write(tmp_path / "a.TextGrid", f'{head}"IntervalTier"\n"x"\n0\n2\n1\n0\n2\n"two\nlines"\n')
    assert read_events(path) == {"a": [Event(0, 2, "two\nlines")]}


def test_pyannote_reads_our_rttm(tmp_path):
    from pyannote.core import Segment
    from pyannote.database.util import load_rttm

    write_events(tmp_path / "e.rttm", {"my street.wav": EVENTS, "silence.wav": []}, "rttm")
    annotations = load_rttm(tmp_path / "e.rttm")
    assert set(annotations) == {"my\\u0020street.wav", "silence.wav"}
    assert len(annotations["silence.wav"]) == 0
    found = [(segment, label) for segment, _, label in annotations["my\\u0020street.wav"].itertracks(True)]
    assert found == [
        (Segment(0.312, 1.25), "Speech"),
        (Segment(1.0, 4.0), "Running\\u0020water"),
        (Segment(1.25, 2.0), "Bell\\u0020\\u0022ding\\u0022"),
        (Segment(2.0, 3.5), "Speech"),
    ]


def test_rttm_by_pyannote(tmp_path):
    from pyannote.core import Annotation, Segment

    annotation = Annotation(uri="talk")
    annotation[Segment(0.5, 1.25)] = "Anna"
    annotation[Segment(1.0, 2.0)] = "Ben"
    with (tmp_path / "talk.rttm").open("w") as file:
        annotation.write_rttm(file)
    assert read_events(tmp_path / "talk.rttm") == {"talk": [Event(0.5, 1.25, "Anna"), Event(1.0, 2.0, "Ben")]}


def test_trying_events_through_pyannote(tmp_path):
    from pyannote.database.util import load_rttm

    write_events(tmp_path / "e.rttm", {"my street.wav": [*TRYING_EVENTS, Event(9, 10, "<NA>")]}, "rttm")
    (annotation,) = load_rttm(tmp_path / "e.rttm").values()
    found = [
        (round(s.start, 3), round(s.end, 3), unescape(label)) for s, _, label in annotation.itertracks(True)
    ]
    expected = sorted([*bounds(TRYING_EVENTS), (9, 10, "<NA>")])
    assert sorted(found) == expected
    with (tmp_path / "e.rttm").open("w", encoding="utf-8") as file:
        annotation.write_rttm(file)
    assert bounds(read_events(tmp_path / "e.rttm")["my street.wav"]) == expected


def test_rttm_comments_and_other_types(tmp_path):
    text = (
        ";; a comment\nSPKR-INFO talk 1 <NA> <NA> <NA> adult_male Ben <NA>\n"
        "NOSCORE talk 1 0.0 9.0 <NA> <NA> <NA> <NA>\nSPEAKER talk 1 1.0 0.1 <NA> <NA> Ben 0.5\n"
    )
    assert read_events(write(tmp_path / "x", text)) == {"talk": [Event(1.0, 1.1, "Ben", 0.5)]}


def test_a_short_row_of_rttm_is_an_error(tmp_path):
    with pytest.raises(AnnotationError, match="line 1: 5 cells, wanted type, file, channel, onset"):
        read_events(write(tmp_path / "x.rttm", "SPEAKER talk 1 1.0 0.1\n"))


def test_webvtt_py_reads_our_captions(tmp_path):
    import webvtt

    write_events(tmp_path / "a.vtt", {"a.wav": [*EVENTS, Event(3600, 3661.5, "R&B <i> --> x")]}, "webvtt")
    captions = [(c.start, c.end, html.unescape(c.raw_text)) for c in webvtt.read(tmp_path / "a.vtt")]
    assert captions == [
        ("00:00:00.312", "00:00:01.250", "Speech"),
        ("00:00:01.000", "00:00:04.000", "Running water"),
        ("00:00:01.250", "00:00:02.000", 'Bell "ding"'),
        ("00:00:02.000", "00:00:03.500", "Speech"),
        ("01:00:00.000", "01:01:01.500", "R&B <i> --> x"),
    ]


def test_captions_by_webvtt_py(tmp_path):
    import webvtt

    captions = webvtt.WebVTT()
    captions.captions.append(webvtt.Caption("00:00:00.500", "00:00:01.250", ["Hello", "there"], "intro"))
    captions.captions.append(webvtt.Caption("01:00:02.000", "01:00:03.000", "Bye"))
    captions.save(str(tmp_path / "talk.vtt"))
    assert read_events(tmp_path / "talk.vtt") == {
        "talk": [Event(0.5, 1.25, "Hello there"), Event(3602.0, 3603.0, "Bye")]
    }


def test_trying_events_through_webvtt_py(tmp_path):
    import webvtt

    write_events(tmp_path / "a.vtt", {"a": TRYING_EVENTS}, "webvtt")
    captions = webvtt.read(tmp_path / "a.vtt")
    found = [(in_seconds(c.start), in_seconds(c.end), unescape(html.unescape(c.raw_text))) for c in captions]
    assert sorted(found) == bounds(TRYING_EVENTS)
    captions.save(str(tmp_path / "a.vtt"))
    assert bounds(read_events(tmp_path / "a.vtt")["a"]) == bounds(TRYING_EVENTS)


def in_seconds(clock):
    hours, minutes, seconds = clock.split(":")
    return round(int(hours) * 3600 + int(minutes) * 60 + float(seconds), 3)


def test_webvtt_py_reads_captions_without_events(tmp_path):
    import webvtt

    write_events(tmp_path / "a.vtt", {"a": []}, "webvtt")
    assert len(webvtt.read(tmp_path / "a.vtt")) == 0


def test_captions_by_hand(tmp_path):
    text = (
        "\ufeffWEBVTT - with a title\r\nKind: captions\r\n\r\nNOTE\r\nnothing\r\n\r\nSTYLE\r\n::cue {}\r\n\r\n"
        "7\r\n00:01.000 --> 00:02.000 align:start line:0\r\n<v Anna>Fish &amp; <b>chips</b></v>\r\n"
    )
    assert read_events(write(tmp_path / "a.vtt", text)) == {"a": [Event(1, 2, "Fish & chips")]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("00:01.000 --> 00:02.000\nx\n", "does not begin with WEBVTT"),
        ("WEBVTT\n\n00:01 --> 00:02\nx\n", "line 3: not a cue's timing: '00:01 --> 00:02'"),
        ("WEBVTT\n\n00:01.000 --> 00:02.000\n\n", "line 3: no label"),
        ("WEBVTT\n\n00:03.000 --> 00:02.000\nx\n", "line 3: offset 2 lies before onset 3"),
    ],
)
def test_broken_captions_are_errors(tmp_path, text, reason):
    with pytest.raises(AnnotationError, match=reason):
        read_events(write(tmp_path / "a.vtt", text))


def test_label_tracks_by_audacity(tmp_path, caplog):
    text = "0.500000\t1.250000\tDog\n\\\t200.000000\t900.000000\n2,000000\t3,000000\tCat\n4.0\t4.0\tclick\n"
    path = write(tmp_path / "Label Track.txt", text)
    assert read_events(path) == {"Label Track": [Event(0.5, 1.25, "Dog"), Event(2.0, 3.0, "Cat")]}
    assert caplog.messages == [f"{path}: 1 event without length dropped, the first in line 4"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0.5\t1.0\n", "line 1: wanted onset, offset and label"),
        ("0.5\t1.0\t\n", "line 1: no label"),
        ("0.5\tx\tDog\n", "line 1: offset is no number: 'x'"),
    ],
)
def test_broken_label_tracks_are_errors(tmp_path, text, reason):
    with pytest.raises(AnnotationError, match=reason):
        read_events(write(tmp_path / "a.txt", text), "audacity")


SEVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"


def test_selection_tables_by_raven_list_a_selection_once_a_view(tmp_path):
    text = (
        f"{SEVEN}\tSpecies\n1\tWaveform 1\t1\t0.5\t1.25\t0\t8000\tAmsel\n"
        "1\tSpectrogram 1\t1\t0.5\t1.25\t0\t8000\tAmsel\n2\tSpectrogram 1\t1\t2\t3\t0\t8000\tAmsel\n"
    )
    assert read_events(write(tmp_path / "dawn.Table.1.selections.txt", text)) == {
        "dawn": [Event(0.5, 1.25, "Amsel"), Event(2, 3, "Amsel")]
    }


def test_a_column_of_ones_own_is_the_label_if_it_is_the_eighth(tmp_path):
    text = f"{SEVEN}\tCall\n1\tSpectrogram 1\t1\t0.5\t1.25\t0\t8000\ttrill\n"
    assert read_events(write(tmp_path / "dawn.txt", text)) == {"dawn": [Event(0.5, 1.25, "trill")]}


def test_a_selection_table_of_many_recordings_counts_from_the_file_offset(tmp_path):
    text = (
        f"{SEVEN}\tCommon Name\tSpecies Code\tConfidence\tBegin Path\tFile Offset (s)\n"
        "1\tSpectrogram 1\t1\t0\t3.0\t150\t12000\tEurasian Wren\twinwre4\t0.75\t/data/a.wav\t0\n"
        "2\tSpectrogram 1\t1\t63.1\t66.1\t150\t12000\tEurasian Wren\twinwre4\t0.5\tC:\\data\\b.wav\t3.1\n"
    )
    assert read_events(write(tmp_path / "BirdNET_SelectionTable.txt", text)) == {
        "a.wav": [Event(0, 3, "Eurasian Wren", 0.75)],
        "b.wav": [Event(3.1, 6.1, "Eurasian Wren", 0.5)],
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            f"{SEVEN}\n",
            r"wanted a selection table with Begin Time \(s\), End Time \(s\) and a column of labels",
        ),
        (f"{SEVEN}\tSpecies\n1\tx\t1\t1\t2\t0\t1\t\n", "line 2: no label"),
        (f"{SEVEN}\tSpecies\n1\tx\t1\t2\t1\t0\t1\ty\n", r"line 2: End Time 1 lies before Begin Time 2"),
        (f"{SEVEN}\tSpecies\n1\tx\n", r"line 2: Begin Time \(s\) is no number: ''"),
    ],
)
def test_broken_selection_tables_are_errors(tmp_path, text, reason):
    with pytest.raises(AnnotationError, match=reason):
        read_events(write(tmp_path / "a.selections.txt", text))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "list indices"),
        ('{"events": []}', "lacks 'filename'"),
        ('{"filename": "", "events": []}', "wanted a text, got ''"),
        ('{"filename": "a"}', "lacks 'events'"),
        (
            '{"filename": "a", "events": [{"onset": "0", "offset": 1, "label": "x"}]}',
            "wanted seconds of 0 or more",
        ),
        (
            '{"filename": "a", "events": [{"onset": NaN, "offset": 1, "label": "x"}]}',
            "wanted seconds of 0 or more",
        ),
        ('{"filename": "a", "events": [{"onset": 0, "offset": 1, "label": 3}]}', "wanted a text, got 3"),
    ],
)
def test_broken_json_lines_are_errors(tmp_path, line, reason):
    path = write(tmp_path / "e.jsonl", f'{{"filename": "b", "events": []}}\n\n{line}\n')
    with pytest.raises(AnnotationError, match=rf"line 3: not a recording with its events: .*{reason}"):
        read_events(path)


def test_pandas_reads_our_parquet(tmp_path):
    import pandas as pd

    write_events(tmp_path / "e.parquet", {"a\udcff.wav": EVENTS[:1], "silence.wav": []}, "parquet")
    table = pd.read_parquet(tmp_path / "e.parquet")
    assert list(table) == ["filename", "onset", "offset", "event_label", "score"]
    assert table.iloc[0].tolist() == ["a\\udcff.wav", 0.3125, 1.25, "Speech", 0.9312]
    assert table.iloc[1].isna().tolist() == [False, True, True, True, True]


def test_trying_events_through_pandas(tmp_path):
    import pandas as pd

    write_events(tmp_path / "e.parquet", {"a": TRYING_EVENTS, "silence": []}, "parquet")
    pd.read_parquet(tmp_path / "e.parquet").to_parquet(tmp_path / "again.parquet")
    assert read_events(tmp_path / "again.parquet") == {"a": TRYING_EVENTS, "silence": []}


def test_parquet_by_pandas(tmp_path):
    import pandas as pd

    rows = {"event_label": ["Dog"], "onset": [1], "offset": [2.5], "filename": ["a.wav"], "more": [7]}
    pd.DataFrame(rows).to_parquet(tmp_path / "e.parquet")
    assert read_events(tmp_path / "e.parquet") == {"a.wav": [Event(1.0, 2.5, "Dog")]}
    pd.DataFrame(rows | {"onset": [None]}).to_parquet(tmp_path / "e.parquet")
    with pytest.raises(AnnotationError, match="line 1: wanted seconds of 0 or more and a label"):
        read_events(tmp_path / "e.parquet")
    pd.DataFrame({"filename": ["a.wav"]}).to_parquet(tmp_path / "e.parquet")
    with pytest.raises(
        AnnotationError, match="lacks the columns onset, offset, event_label; it has filename"
    ):
        read_events(tmp_path / "e.parquet")


def test_a_broken_parquet_file_is_an_error(tmp_path):
    with pytest.raises(AnnotationError, match="cannot be read"):
        read_events(write(tmp_path / "e.parquet", b"PAR1 and no more"))
