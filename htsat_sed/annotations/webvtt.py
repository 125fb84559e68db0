"""WebVTT captions: one file per recording, one cue per event, for players and browsers.

    WEBVTT

    00:00:00.312 --> 00:00:01.250
    Speech

Times have 3 decimals. Scores are not stored. In labels ``&``, ``<`` and ``>`` are written as ``&amp;``,
``&lt;`` and ``&gt;``; control characters are escaped, see `text`.

Source: W3C, "WebVTT: The Web Video Text Tracks Format".
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from htsat_sed.annotations.text import CONTROL, Collected, escape, read_text, timed, unescape
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError

SUFFIX = ".vtt"

WEBVTT_HEADER = "WEBVTT\n"

_TIME = r"(?:([0-9]{1,9}):)?([0-5][0-9]):([0-5][0-9]\.[0-9]{3})"
_TAG = re.compile(r"<[^<>]*>")
_TIMING = re.compile(rf"\s*{_TIME}\s+-->\s+{_TIME}(?:\s.*)?")


def webvtt_lines(filename: str, events: Sequence[Event], duration: float | None = None) -> str:
    """The cues of one recording, each after a blank line."""
    return "".join(
        f"\n{_clock(onset)} --> {_clock(offset)}\n{_payload(event.label)}\n"
        for onset, offset, event in timed(events, decimals=3)
    )


def _payload(label: str) -> str:
    return html.escape(escape(label.strip(), CONTROL), quote=False)


def _clock(seconds: str) -> str:
    whole, milliseconds = seconds.split(".")
    minutes, second = divmod(int(whole), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}.{milliseconds}"


def read_webvtt(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Read the cues of a WebVTT file.

    A cue ends at a blank line or at the next cue, which begins with its timing or with a number on the line
    above. Its lines, joined by spaces, are the label; tags such as ``<v Anna>`` and cue settings are removed.
    Notes, styles and regions are skipped.

    Returns:
        One recording, named like the file without ``.vtt``.

    Raises:
        AnnotationError: the file cannot be read or does not begin with ``WEBVTT``; a timing is invalid, or a
            cue has no text.
    """
    name = Path(path).name
    recording = name[: -len(SUFFIX)] if name.lower().endswith(SUFFIX) else name
    collected = Collected(path)
    collected.recording(recording)
    lines = re.split(r"\r\n|\r|\n", read_text(path))
    if not re.match(r"WEBVTT(\s|$)", lines[0]):
        raise AnnotationError(path, "does not begin with WEBVTT")
    for line, timing_text, payload in _cues(lines):
        timing = _TIMING.fullmatch(timing_text)
        if timing is None:
            raise AnnotationError(path, f"line {line}: not a cue's timing: {timing_text!r:.100}")
        label = html.unescape(_TAG.sub("", " ".join(payload))).strip()
        onset, offset = _seconds(*timing.groups()[:3]), _seconds(*timing.groups()[3:])
        collected.add(line, recording, Event(onset, offset, unescape(label)))
    return collected.table()


def _cues(lines: Sequence[str]) -> Iterator[tuple[int, str, list[str]]]:
    """The line, the timing and the text of each cue."""
    begun: tuple[int, str, list[str]] | None = None
    for line, text in enumerate(lines[1:], start=2):
        if begun is not None and ("-->" in text or not text):
            if text and len(begun[2]) > 1 and begun[2][-1].strip().isdecimal():
                begun[2].pop()  # identifies the cue that begins here
            yield begun
            begun = None
        if "-->" in text:
            begun = line, text, []
        elif begun is not None:
            begun[2].append(text)
    if begun is not None:
        yield begun


def _seconds(hours: str | None, minutes: str, seconds: str) -> float:
    return round(int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds), 3)
