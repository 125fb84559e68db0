"""Captions of other programs, and ours as they read them."""

import html

import pytest
from labels_made import EVENTS, TRYING_EVENTS, as_read, bounds, write

from htsat_sed.annotations import read_events, write_events
from htsat_sed.annotations.text import unescape
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError


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
    assert bounds(read_events(tmp_path / "a.vtt")["a"]) == bounds(as_read(TRYING_EVENTS))


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
        ("WEBVTT\n\n00:03.000 --> 00:02.000\nx\n", "line 3: offset 2 is before onset 3"),
    ],
)
def test_broken_captions_are_errors(tmp_path, text, reason):
    with pytest.raises(AnnotationError, match=reason):
        read_events(write(tmp_path / "a.vtt", text))


def test_cues_that_follow_each_other_without_a_blank_line(tmp_path):
    text = "WEBVTT\n\n1\n00:01.000 --> 00:02.000\nDog\n2\n00:03.000 --> 00:04.000\nTake\n5\n\n"
    text += "3\n00:05.000 --> 00:06.000\n7\n00:07.000 --> 00:08.000\nCat\n"
    events = [Event(1, 2, "Dog"), Event(3, 4, "Take 5"), Event(5, 6, "7"), Event(7, 8, "Cat")]
    assert read_events(write(tmp_path / "a.vtt", text)) == {"a": events}
