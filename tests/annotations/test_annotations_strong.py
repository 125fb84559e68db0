"""Tables of strong labels as people have them: what is understood, what is an error, what is warned of."""

import codecs

import pytest

from htsat_sed.annotations import read_events, read_strong_labels
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError

EXPECTED = {
    "a.wav": [Event(0.5, 1.5, "Speech"), Event(2.0, 3.0, "Dog")],
    "b.wav": [],
}
ROWS = (
    ("filename", "onset", "offset", "event_label"),
    ("a.wav", "2.0", "3.0", "Dog"),
    ("b.wav", "", "", ""),
    ("a.wav", "0.5", "1.5", "Speech"),
)


def table(delimiter="\t", end="\n", rows=ROWS):
    return "".join(delimiter.join(row) + end for row in rows)


def read(tmp_path, text, name="labels.tsv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_strong_labels(path)


def fails(tmp_path, text):
    with pytest.raises(AnnotationError) as caught:
        read(tmp_path, text)
    assert caught.value.path == str(tmp_path / "labels.tsv")
    return caught.value.reason


@pytest.mark.parametrize("delimiter", ["\t", ",", ";"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_delimiters_line_ends_and_byte_order_mark(tmp_path, delimiter, end, mark):
    assert read(tmp_path, mark + table(delimiter, end).encode()) == EXPECTED


def test_utf_16_as_spreadsheets_write_it(tmp_path):
    assert read(tmp_path, table(end="\r\n").encode("utf-16")) == EXPECTED


def test_columns_in_any_order_and_case_beside_others(tmp_path):
    text = (
        "Event_Label, note ,OFFSET,Filename,Onset\n"
        'Dog,"barks, twice",3.0,a.wav,2.0\n'
        ",,,b.wav,\n\n   \n"
        "Speech,,1.5,a.wav,0.5\n"
    )
    assert read(tmp_path, text) == EXPECTED


def test_spaces_after_a_comma_and_quotes(tmp_path):
    text = 'filename, onset, offset, event_label\n"a.wav", 2, "3", "Male speech, man speaking"\n'
    assert read(tmp_path, text) == {"a.wav": [Event(2, 3, "Male speech, man speaking")]}


def test_decimal_commas_where_no_commas_separate(tmp_path):
    for text in (
        "filename;onset;offset;event_label\na.wav;0,5;1,25;Dog\n",
        "sep=;\nfilename;onset;offset;event_label\na.wav;0,5;1,25;Dog\n",
        "filename\tonset\toffset\tevent_label\na.wav\t0,5\t1,25\tDog\n",
    ):
        assert read(tmp_path, text) == {"a.wav": [Event(0.5, 1.25, "Dog")]}
    assert fails(tmp_path, 'filename,onset,offset,event_label\na.wav,"0,5","1,25",Dog\n') == (
        "line 2: onset is not a number: '0,5'"
    )
    assert fails(tmp_path, "sep=;\nfilename;onset;offset;event_label\na.wav;x;1,25;Dog\n") == (
        "line 3: onset is not a number: 'x'"
    )


def test_cells_missing_at_the_end_count_as_empty(tmp_path):
    assert read(tmp_path, "filename\tonset\toffset\tevent_label\nb.wav\nc.wav\t\n") == {
        "b.wav": [],
        "c.wav": [],
    }


def test_a_recording_with_events_and_an_empty_row(tmp_path):
    text = table(rows=[ROWS[0], ("a.wav", "", "", ""), ROWS[1]])
    assert read(tmp_path, text) == {"a.wav": [Event(2, 3, "Dog")]}


def test_a_header_alone_is_a_table_without_recordings(tmp_path):
    assert read(tmp_path, table(rows=ROWS[:1])) == {}


def test_overlapping_events_of_a_class_are_kept(tmp_path):
    rows = [ROWS[0], ("a.wav", "0", "2", "Dog"), ("a.wav", "1", "3", "Dog")]
    assert read(tmp_path, table(rows=rows)) == {"a.wav": [Event(0, 2, "Dog"), Event(1, 3, "Dog")]}


def test_scores_are_read_where_they_are(tmp_path):
    text = "filename,onset,offset,event_label,score\na.wav,0,1,Dog,0.25\na.wav,1,2,Dog,\n"
    assert read(tmp_path, text) == {"a.wav": [Event(0, 1, "Dog", 0.25), Event(1, 2, "Dog", 1.0)]}
    assert fails(tmp_path, text.replace("0.25", "25")) == "line 2: score is 25, wanted 0 to 1"


def test_rows_that_occur_twice_are_dropped_and_counted(tmp_path, caplog):
    rows = [*ROWS, ROWS[1], ROWS[3], ROWS[1]]
    assert read(tmp_path, table(rows=rows)) == EXPECTED
    path = tmp_path / "labels.tsv"
    assert caplog.messages == [f"{path}: 3 events given twice dropped, the first in line 5"]


def test_events_without_length_are_dropped_and_counted(tmp_path, caplog):
    assert read(tmp_path, table(rows=[*ROWS, ("c.wav", "4", "4.0", "Dog")])) == {**EXPECTED, "c.wav": []}
    path = tmp_path / "labels.tsv"
    assert caplog.messages == [f"{path}: 1 event without duration dropped, the first in line 5"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("a.wav", "3", "2.5", "Dog"), "line 2: offset 2.5 is before onset 3"),
        (("a.wav", "x", "1", "Dog"), "line 2: onset is not a number: 'x'"),
        (("a.wav", "0", "1s", "Dog"), "line 2: offset is not a number: '1s'"),
        (("a.wav", "nan", "1", "Dog"), "line 2: onset is nan, wanted 0 or more"),
        (("a.wav", "0", "inf", "Dog"), "line 2: offset is inf, wanted 0 or more"),
        (("a.wav", "-0.1", "1", "Dog"), "line 2: onset is -0.1, wanted 0 or more"),
        (
            ("a.wav", "0", "1", ""),
            "line 2: event_label empty: wanted all of onset, offset and event_label, or none of them",
        ),
        (
            ("a.wav", " ", "", "Dog"),
            "line 2: onset and offset empty: wanted all of onset, offset and event_label, or none of them",
        ),
        (("", "0", "1", "Dog"), "line 2: no filename"),
        (("a.wav", "0", "1", "Dog", "more"), "line 2: 5 cells, but 4 columns"),
        (("a.wav", "0", "1", '"Dog'), "line 2: unbalanced quotes: unexpected end of data"),
    ],
)
def test_an_error_names_file_and_line(tmp_path, row, reason):
    assert fails(tmp_path, table(rows=[ROWS[0], row])) == reason


def test_the_line_is_the_one_in_the_file(tmp_path):
    text = 'filename\tonset\toffset\tevent_label\n\n"a\nb.wav"\t0\t1\tDog\na.wav\tx\t1\tDog\n'
    assert fails(tmp_path, text) == "line 5: onset is not a number: 'x'"


def test_missing_columns_are_named_beside_those_there(tmp_path):
    assert fails(tmp_path, "file,start,offset,event_label\n") == (
        "lacks the columns filename, onset; it has file, start, offset, event_label"
    )


def test_an_empty_file_is_an_error(tmp_path):
    assert fails(tmp_path, "\n") == (
        "is empty, wanted a table with the columns filename, onset, offset, event_label"
    )


def test_another_encoding_is_an_error(tmp_path):
    text = table().encode() + "ä.wav\t0\t1\tDog\n".encode("latin-1")
    assert fails(tmp_path, text) == "line 5: not UTF-8 text, save it as UTF-8 (in Excel: CSV UTF-8)"


def test_a_recording_is_no_label_file(tmp_path):
    assert fails(tmp_path, b"fLaC\0\0\0\xff") == "is a recording, wanted a label file"


def test_events_are_read_by_the_same_rules(tmp_path):
    (tmp_path / "x.txt").write_text(table(";"))
    assert read_events(tmp_path / "x.txt") == EXPECTED
    (tmp_path / "y.csv").write_text("file,start\n")
    with pytest.raises(AnnotationError, match="lacks the columns filename, onset, offset, event_label"):
        read_events(tmp_path / "y.csv")
