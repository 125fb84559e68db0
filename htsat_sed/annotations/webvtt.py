"""WebVTT captions: one file a recording, one cue an event, for players and browsers.

    WEBVTT

    00:00:00.312 --> 00:00:01.250
    Speech

Times have milliseconds. Scores are not kept. In labels ``&``, ``<`` and ``>`` stand as ``&amp;``, ``&lt;``
and ``&gt;``, control characters and blanks at either end as `text` has it.

Source: W3C, "WebVTT: The Web Video Text Tracks Format".
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Sequence
from pathlib import Path

from htsat_sed.annotations.text import CONTROL, Collected, escape, read_text, timed, unescape
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError

SUFFIX = ".vtt"

WEBVTT_HEADER = "WEBVTT\n"

_TIME = r"(?:(\d+):)?([0-5]\d):([0-5]\d\.\d{3})"
_TIMING = re.compile(rf"\s*{_TIME}\s+-->\s+{_TIME}(?:\s.*)?")


def webvtt_lines(filename: str, events: Sequence[Event], duration: float | None = None) -> str:
    """The cues of one recording, each after a blank line.

    Args:
        filename: without effect here.
        events: its events, in any order.
        duration: without effect here.
    """
    return "".join(
        f"\n{_clock(onset)} --> {_clock(offset)}\n{_payload(event.label)}\n"
        for onset, offset, event in timed(events, decimals=3)
    )


def _clock(seconds: str) -> str:
    whole, milliseconds = seconds.split(".")
    minutes, second = divmod(int(whole), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}.{milliseconds}"


def _payload(label: str) -> str:
    text = escape(label, CONTROL)
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    if start >= end:
        return escape(text, r"\s")
    text = escape(text[:start], r"\s") + text[start:end] + escape(text[end:], r"\s")
    return html.escape(text, quote=False)


def read_webvtt(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Read the cues of a WebVTT file.

    The lines of a cue make one label, blanks between them; tags such as ``<v Anna>`` and cue settings are
    left out. Notes, styles and regions are skipped.

    Returns:
        One recording, named as the file without ``.vtt``.

    Raises:
        AnnotationError: the file cannot be read or does not begin with ``WEBVTT``; or, naming the line: a
            timing that cannot be understood, or a cue without text.
    """
    name = Path(path).name
    recording = name[: -len(SUFFIX)] if name.lower().endswith(SUFFIX) else name
    collected = Collected(path)
    collected.recording(recording)
    lines = re.split(r"\r\n|\r|\n", read_text(path))
    if not re.match(r"WEBVTT(\s|$)", lines[0]):
        raise AnnotationError(path, "does not begin with WEBVTT")
    for line, text in enumerate(lines, start=1):
        if "-->" not in text or line == 1:
            continue
        timing = _TIMING.fullmatch(text)
        if timing is None:
            raise AnnotationError(path, f"line {line}: not a cue's timing: {text!r}")
        payload = []
        for following in lines[line:]:
            if not following:
                break
            payload.append(following)
        label = html.unescape(re.sub(r"<[^>]*>", "", " ".join(payload))).strip()
        onset, offset = _seconds(*timing.groups()[:3]), _seconds(*timing.groups()[3:])
        collected.add(line, recording, Event(onset, offset, unescape(label)))
    return collected.table()


def _seconds(hours: str | None, minutes: str, seconds: str) -> float:
    return round(int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds), 3)
