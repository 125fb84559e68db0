"""Label files as people and their programs make them."""

import shutil
from pathlib import Path

import pytest
from labels_made import write

from htsat_sed.annotations import (
    read_durations,
    read_events,
    read_presence_map,
    read_tags,
    read_weak_labels,
)
from htsat_sed.annotations.raven import read_raven
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError

LABELS = Path(__file__).parent.parent / "data/labels"

NFC, NFD = "caf\u00e9", "cafe\u0301"
SEVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"
ROW = "1\tSpectrogram 1\t1\t1.0\t2.5\t0\t9000"


def selections(folder, columns, *cells):
    text = "\t".join([SEVEN, *columns]) + "\n" + "".join("\t".join([ROW, *row]) + "\n" for row in cells)
    return read_raven(write(folder / "a.selections.txt", text))


def labels_of(table):
    return [event.label for own in table.values() for event in own]


def test_blanks_at_the_ends_of_labels_are_not_read():
    reference, estimated = (read_events(LABELS / f"{side}_trailing_blank.tsv") for side in ("ref", "est"))
    assert reference == estimated
    assert labels_of(reference) == ["Dog", "Dog", "Cat"]


FORMS = {
    "e.tsv": "filename\tonset\toffset\tevent_label\n{name}\t1\t2\t{label}\n",
    "e.csv": 'filename,onset,offset,event_label\n"{name}",1,2,"{label}"\n',
    "e.jsonl": '{{"filename": "{name}", "events": [{{"onset": 1, "offset": 2, "label": "{label}"}}]}}\n',
    "e.txt": "1.0\t2.0\t{label}\n",
    "e.selections.txt": SEVEN + "\tSpecies\tBegin File\n1\tx\t1\t1\t2\t0\t1\t{label}\t{name}\n",
    "e.TextGrid": 'File type = "ooTextFile"\nObject class = "TextGrid"\n0 9 <exists> 1 "IntervalTier" "x" 0 9 1 '
    '1 2 "{label}"\n',
    "e.vtt": "WEBVTT\n\n00:01.000 --> 00:02.000\n{label}\n",
    "e.rttm": "SPEAKER {name} 1 1 1 <NA> <NA> {label} <NA>\n",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("label", [f" {NFC}", f"{NFC}  ", NFD, f"\u00a0{NFD}\u00a0"])
def test_labels_that_look_the_same_are_the_same(tmp_path, form, label):
    path = write(tmp_path / form, FORMS[form].format(name="a.wav", label=label))
    assert labels_of(read_events(path)) == [NFC]


@pytest.mark.parametrize("form", [form for form in FORMS if "{name}" in FORMS[form]])
def test_names_that_differ_in_composition_or_blanks_are_one_recording(tmp_path, form):
    head, _, row = FORMS[form].rpartition("\n")[0].rpartition("\n")
    head += "\n" if head else ""
    names = [f"{NFD}.wav", f"{NFC}.wav"] + ([] if form == "e.rttm" else [f" {NFC}.wav "])
    rows = [row.format(name=name, label=f"L{i}") + "\n" for i, name in enumerate(names)]
    found = read_events(write(tmp_path / form, head + "".join(rows)))
    assert list(found) == [f"{NFD}.wav"]  # as it was first met
    assert labels_of(found) == [f"L{i}" for i in range(len(names))]


def test_other_tables_know_the_same_names_and_labels(tmp_path):
    weak = write(tmp_path / "w.tsv", f"filename\tevent_labels\n{NFD}.wav \t{NFD} ,Dog\n{NFC}.wav\tCat\n")
    assert read_weak_labels(weak) == {f"{NFD}.wav": {NFC, "Dog", "Cat"}}
    lengths = write(tmp_path / "d.csv", f"filename,duration\n{NFD}.wav,1\n{NFC}.wav ,1\n")
    assert read_durations(lengths) == {f"{NFD}.wav": 1.0}
    tags = write(tmp_path / "t.csv", f"filename,event_label,score\n{NFD}.wav,{NFD},0.5\n{NFC}.wav,Dog,0.25\n")
    assert read_tags(tags) == {f"{NFD}.wav": {NFC: 0.5, "Dog": 0.25}}


@pytest.mark.parametrize("text", ["1_000", "\u0661\u0662", "1e", "0x1", "", "1 000", "--1", "1,5,5"])
def test_only_plain_numbers_are_times(tmp_path, text):
    with pytest.raises(AnnotationError, match=r"line 2: offset is not a number: "):
        read_events(write(tmp_path / "e.tsv", f"filename\tonset\toffset\tevent_label\na\t0\t{text}x\tDog\n"))
    with pytest.raises(AnnotationError, match=r"line 2: offset"):
        read_events(write(tmp_path / "e.tsv", f"filename\tonset\toffset\tevent_label\na\t0\t{text}\tDog\n"))


@pytest.mark.parametrize("text", ["1", " 1.5 ", "1.", ".5", "+2", "1e1", "1.5E-1"])
def test_plain_numbers_are_times(tmp_path, text):
    path = write(tmp_path / "e.tsv", f"filename\tonset\toffset\tevent_label\na\t0\t{text}\tDog\n")
    assert read_events(path) == {"a": [Event(0.0, float(text), "Dog")]}


def test_tables_with_blanks_between_columns_say_so(tmp_path):
    path = write(tmp_path / "e.txt", "filename onset  offset event_label\na.wav 0 1 Dog\n")
    with pytest.raises(AnnotationError, match="has spaces between its columns: separate them by tabs"):
        read_events(path)


# Raven


def test_the_label_is_in_a_column_of_ones_own():
    assert labels_of(read_raven(LABELS / "raven_label_column_species.txt")) == ["Dog"]


RAVENS = [
    "Delta Time (s)",
    "Delta Freq (Hz)",
    "Avg Power Density (dB FS/Hz)",
    "Peak Freq (Hz)",
    "Begin Clock Time",
    "Begin Date",
    "End Date",
    "Begin Hour",
    "Begin Path",
    "File Offset (s)",
    "Begin Sample (samples)",
    "Length (frames)",
    "Max Amp (U)",
    "Center Time Rel.",
    "Time 5% Rel.",
    "PFC Num Inf Pts",
    "PFC Avg Slope (Hz/ms)",
    "SNR NIST Quick (dB)",
    "Agg Entropy (bits)",
    "Energy (dB FS)",
    "Max Bearing (deg)",
    "Peak Time Relative",
    "BW 90% (Hz)",
    "Dur 90% (s)",
    "Begin Date Time",
    "Leq (dB FS)",
    "Delta Time",
    "Peak Freq",
    "Score",
    "Confidence",
]


@pytest.mark.parametrize(
    "name", ["Annotation", "Common Name", "species", "LABEL", "Class", "Sp", "Call", "Vogel"]
)
def test_whatever_ravens_own_columns_are_the_label_is_none_of_them(tmp_path, name):
    own = ["2026/11/28" if "Date" in each else "0.5" for each in RAVENS]
    assert labels_of(selections(tmp_path, [*RAVENS, name], [*own, "Dog"])) == ["Dog"]
    assert labels_of(selections(tmp_path, [name, *RAVENS], ["Dog", *own])) == ["Dog"]


@pytest.mark.parametrize("name", RAVENS)
def test_one_of_ravens_columns_alone_is_no_label(tmp_path, name):
    with pytest.raises(AnnotationError, match="wanted a column of labels, such as Annotation or Species"):
        selections(tmp_path, [name], ["05:12 pm" if "Clock" in name else "0.5"])


def test_columns_of_numbers_and_remarks_come_after_one_of_labels(tmp_path):
    assert labels_of(selections(tmp_path, ["Bout", "Notes", "Sp"], ["7", "far away", "Dog"])) == ["Dog"]
    assert labels_of(selections(tmp_path, ["Annotation", "Species"], ["", "Dog"])) == ["Dog"]
    assert labels_of(selections(tmp_path, ["Species"], ["12"])) == ["12"]


def test_cells_in_quotes(tmp_path):
    table = selections(tmp_path, ['"Annotation"', '"Begin File"'], ['"say ""a\tb"", c"', '"b.wav"'])
    assert table == {"b.wav": [Event(1.0, 2.5, 'say "a\tb", c')]}
    assert labels_of(selections(tmp_path, ["Annotation"], ['5" pipe'])) == ['5" pipe']
    assert labels_of(selections(tmp_path, ["Annotation"], ['"unclosed'])) == ['"unclosed']
    quoted = "\n".join(
        "\t".join(f'"{cell}"' for cell in line.split("\t")) for line in (f"{SEVEN}\tLabel", f"{ROW}\tDog")
    )
    assert labels_of(read_events(write(tmp_path / "b.selections.txt", quoted))) == ["Dog"]


@pytest.mark.parametrize("text", [f"{SEVEN}\n", f"{SEVEN}\tSpecies\n", SEVEN.upper(), ""])
def test_a_table_without_selections_is_a_recording_without_events(tmp_path, text):
    write(tmp_path / "silence.wav.selections.txt", text)
    write(tmp_path / "dog.wav.selections.txt", f"{SEVEN}\tSpecies\n{ROW}\tDog\n")
    assert read_events(tmp_path) == {"silence.wav": [], "dog.wav": [Event(1.0, 2.5, "Dog")]}


# Audacity


def test_label_tracks_as_audacity_leaves_them(tmp_path, caplog):
    text = (
        "-0.500000\t1.000000\tlate start\n\\\t200.000000\t900.000000\n-2.000000\t-1.000000\tbefore\n"
        "1.000000\t2.000000\t\n2.000000\t3.000000\n3.000000\t4.000000\t  \n 4.0 \t 5.0 \t Dog \n"
        "5.000000\t6.000000\tBaby cry, infant cry\n\\\t-1.000000\t-1.000000\n"
    )
    path = write(tmp_path / "track.txt", text)
    expected = [
        Event(0.0, 1.0, "late start"),
        Event(4.0, 5.0, "Dog"),
        Event(5.0, 6.0, "Baby cry, infant cry"),
    ]
    assert read_events(path) == {"track": expected}
    assert read_events(tmp_path)["track"] == expected
    assert caplog.messages[:3] == [
        f"{path}: line 1: begins at -0.5 s, truncated to 0 s",
        f"{path}: 1 event before the recording begins dropped, the first in line 3",
        f"{path}: 3 events without text dropped, the first in line 4",
    ]


@pytest.mark.parametrize(
    "first", ["0.5\t1.0\n", "0.5\t1.0\t\n", "-1.0\t1.0\tDog\n", "0,5\t1,5\tDog\n", "0.5\t0.5\t\n"]
)
def test_the_first_line_of_a_track_tells_it_whatever_it_lacks(tmp_path, first):
    assert labels_of(read_events(write(tmp_path / "a.txt", first + "2.0\t3.0\tCat\n")))[-1] == "Cat"


# WebVTT


def test_a_cue_ends_where_the_next_begins(tmp_path):
    assert read_events(LABELS / "two_cues.vtt") == {"two_cues": [Event(0, 1, "Dog"), Event(1, 2, "Cat")]}
    cues = "".join(f"{h:02d}:00:00.000 --> {h:02d}:00:01.000\nDog\nbarks\n" for h in range(24))
    (found,) = read_events(write(tmp_path / "a.vtt", f"WEBVTT\n\n{cues}")).values()
    assert found == [Event(h * 3600, h * 3600 + 1, "Dog barks") for h in range(24)]


@pytest.mark.parametrize(
    "time", ["1" * 5000 + ":00:00.000", "\u0661\u0661:00.000", "1_0:00.000", "00:61.000"]
)
def test_times_that_are_none_are_one_line(tmp_path, time):
    path = write(tmp_path / "a.vtt", f"WEBVTT\n\n{time} --> {time}\nDog\n")
    with pytest.raises(AnnotationError, match=r"line 3: not a cue's timing: '.{1,99}$"):
        read_events(path)


def test_angles_that_never_close_are_text(tmp_path):
    path = write(tmp_path / "a.vtt", "WEBVTT\n\n00:00.000 --> 00:01.000\n" + "<" * 200_000 + "<b>Dog</b>\n")
    assert labels_of(read_events(path)) == ["<" * 200_000 + "Dog"]


# JSON Lines


@pytest.mark.parametrize(
    "value", ["1" + "0" * 400, "1" + "0" * 5000, "-1", "1e999", '"1_0"', "true", "[" * 5000 + "]" * 5000]
)
@pytest.mark.parametrize("key", ["onset", "offset", "score"])
def test_json_numbers_that_are_none_are_one_line(tmp_path, key, value):
    event = {"onset": "0", "offset": "1", "score": "0.5", key: value}
    text = '{"filename": "a", "events": [{' + "".join(f'"{k}": {v}, ' for k, v in event.items())
    path = write(tmp_path / "e.jsonl", text + '"label": "Dog"}]}\n')
    with pytest.raises(AnnotationError, match="line 1: ") as raised:
        read_events(path)
    assert len(raised.value.reason) < 300


# Weak labels


def weak(folder, *cells, known=(), delimiter="\t"):
    rows = "".join(f"{i}.wav{delimiter}{cell}\n" for i, cell in enumerate(cells))
    path = write(folder / "weak.tsv", f"filename{delimiter}event_labels\n{rows}")
    return [sorted(labels) for labels in read_weak_labels(path, known).values()]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("Lion, Cow", ["Cow", "Lion"]),
        ("Lion,Cow", ["Cow", "Lion"]),
        ("Baby cry, infant cry", ["Baby cry, infant cry"]),
        ("Baby cry, infant cry, Lion", ["Baby cry, infant cry", "Lion"]),
        ("Lion, Baby cry, infant cry,Cow", ["Baby cry, infant cry", "Cow", "Lion"]),
        ("Kettle, whistling|Lion", ["Kettle, whistling", "Lion"]),
        ("Kettle, whistling; Lion", ["Kettle, whistling", "Lion"]),
        ('Lion,"Kettle, whistling"', ["Kettle, whistling", "Lion"]),
        ("Lion,,Cow,", ["Cow", "Lion"]),
        ("", []),
    ],
)
def test_labels_in_one_cell(tmp_path, cell, expected):
    assert weak(tmp_path, cell) == [expected]


def test_a_known_label_is_never_split(tmp_path, caplog):
    known = ["Kettle, whistling", "a, b, c", "x|y", "Lion"]
    cells = ["Lion, Kettle, whistling", "a, b, c", "a, b, c,Lion", "x|y"]
    expected = [["Kettle, whistling", "Lion"], ["a, b, c"], ["Lion", "a, b, c"], ["x|y"]]
    assert weak(tmp_path, *cells, known=known) == expected
    assert caplog.messages == []


def test_a_separator_in_one_cell_tells_of_all(tmp_path):
    assert weak(tmp_path, "Kettle, whistling", "Lion|Cow") == [["Kettle, whistling"], ["Cow", "Lion"]]


def test_labels_parted_by_a_guess_are_reported(tmp_path, caplog):
    weak(tmp_path, "Dog,Speech", "Lion, Cow", "Dog, Speech", "Kettle, whistling")
    (message,) = caplog.messages
    assert message.endswith(
        "2 cells, the first in line 3: labels split at a comma followed by a space; use | between labels with commas"
    )


# Presence maps


def test_a_map_with_a_broken_array_is_one_line(tmp_path):
    shutil.copy(LABELS / "npz_45.npz", tmp_path)
    # From Python 3.13 on, zipfile refuses the file itself.
    reason = "(an array ends early|Overlapped entries)"
    with pytest.raises(AnnotationError, match=rf"npz_45\.npz: is not a presence map: {reason}"):
        read_presence_map(tmp_path / "npz_45.npz")
