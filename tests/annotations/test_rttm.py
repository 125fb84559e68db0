"""RTTM of other programs, and ours as they read it."""

import pytest
from labels_made import EVENTS, TRYING_EVENTS, as_read, bounds, write

from htsat_sed.annotations import read_events, write_events
from htsat_sed.annotations.text import unescape
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError


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
    expected = sorted([*bounds(as_read(TRYING_EVENTS)), (9, 10, "<NA>")])
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
