"""Audacity's label tracks, Raven's selection tables and JSON lines that others wrote."""

import pytest
from labels_made import write

from htsat_sed.annotations import read_events
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError


def test_label_tracks_by_audacity(tmp_path, caplog):
    text = "0.500000\t1.250000\tDog\n\\\t200.000000\t900.000000\n2,000000\t3,000000\tCat\n4.0\t4.0\tclick\n"
    path = write(tmp_path / "Label Track.txt", text)
    assert read_events(path) == {"Label Track": [Event(0.5, 1.25, "Dog"), Event(2.0, 3.0, "Cat")]}
    assert caplog.messages == [f"{path}: 1 event without duration dropped, the first in line 4"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0.5\t\n", "line 1: wanted tab-separated onset, offset and label"),
        ("0.5 1.0 Dog\n", "line 1: wanted tab-separated onset, offset and label"),
        ("2.5\t1.0\tDog\n", "line 1: offset 1 is before onset 2.5"),
        ("1_0\t2\tDog\n", "line 1: onset is not a number: '1_0'"),
        ("\u0661\t2\tDog\n", "line 1: onset is not a number: '\u0661'"),
        ("0.5\tx\tDog\n", "line 1: offset is not a number: 'x'"),
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


def test_selection_tables_with_decimal_commas_and_a_blank_annotation(tmp_path, caplog):
    rows = "1\tx\t1\t0,5\t2,25\t0\t1\tWren\n2\tx\t1\t3\t4\t0\t1\t\n"
    path = write(tmp_path / "a.selections.txt", f"{SEVEN}\tSpecies\n{rows}")
    assert read_events(path) == {"a": [Event(0.5, 2.25, "Wren")]}
    assert caplog.messages == [f"{path}: 1 event without text dropped, the first in line 3"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{SEVEN}\n1\tx\t1\t1\t2\t0\t1\n", "wanted a column of labels, such as Annotation or Species"),
        ("Selection\tView\n1\tx\n", r"wanted a selection table with Begin Time \(s\) and End Time \(s\); it"),
        ("Selection  Begin Time (s)  Species\n1  2  x\n", "its cells are not separated by tabs"),
        (f"{SEVEN}\tSpecies\n1\tx\t1\t2\t1\t0\t1\ty\n", r"line 2: End Time 1 is before Begin Time 2"),
        (f"{SEVEN}\tSpecies\n1\tx\n", r"line 2: Begin Time \(s\) is not a number: ''"),
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
        ('{"filename": "", "events": []}', "wanted a string, got ''"),
        ('{"filename": "a"}', "lacks 'events'"),
        (
            '{"filename": "a", "events": [{"onset": "0", "offset": 1, "label": "x"}]}',
            "wanted seconds of 0 or more",
        ),
        (
            '{"filename": "a", "events": [{"onset": NaN, "offset": 1, "label": "x"}]}',
            "wanted seconds of 0 or more",
        ),
        ('{"filename": "a", "events": [{"onset": 0, "offset": 1, "label": 3}]}', "wanted a string, got 3"),
    ],
)
def test_broken_json_lines_are_errors(tmp_path, line, reason):
    path = write(tmp_path / "e.jsonl", f'{{"filename": "b", "events": []}}\n\n{line}\n')
    with pytest.raises(AnnotationError, match=rf"line 3: not a recording with its events: .*{reason}"):
        read_events(path)
