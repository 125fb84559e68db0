r"""JSON Lines: one object per recording, on one line.

    {"filename": "street.wav", "duration": 65.0, "events":
     [{"onset": 0.3125, "offset": 1.25, "label": "Speech", "score": 0.931204}]}

(here on two). If the start of the recording is known, it has ``begin`` (ISO 8601) and ``clock``, the source
of the time, and each event has ``begin`` and ``end``. Events of one channel have ``channel``. Times,
durations and scores are rounded to 6 decimals; an unknown ``duration`` is null. Any text is stored; a byte of
a file name that is not UTF-8 is written as JSON's ``\udcff``.
"""

from __future__ import annotations

import json
import os
import reprlib
import sys
from collections.abc import Sequence
from typing import Any

from htsat_sed.annotations.text import Collected, channel_of, numbered_lines, read_text, timed
from htsat_sed.clock import Start
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError, UsageError


def jsonl_lines(
    filename: str, events: Sequence[Event], duration: float | None = None, *, start: Start | None = None
) -> str:
    """The line of one recording."""
    clock = {} if start is None else {"begin": start.iso(0.0), "clock": start.source}
    recording = {
        "filename": filename,
        "duration": None if duration is None else round(duration, 6),
        **clock,
        "events": [
            {
                "onset": float(onset),
                "offset": float(offset),
                "label": event.label,
                "score": round(event.score, 6),
                **({"channel": event.channel} if event.channel else {}),
                **(
                    {}
                    if start is None
                    else {"begin": start.iso(float(onset)), "end": start.iso(float(offset))}
                ),
            }
            for onset, offset, event in timed(events, decimals=6)
        ],
    }
    line = json.dumps(recording, ensure_ascii=False)
    return "".join(f"\\u{ord(c):04x}" if "\ud800" <= c <= "\udfff" else c for c in line) + "\n"


def read_jsonl(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Read recordings and their events; several lines of a recording are merged.

    Returns:
        As `read_strong_labels`, under the same rules for events.

    Raises:
        AnnotationError: the file cannot be read, a line is no such object, or a time or score is out of
            range.
    """
    collected = Collected(path)
    for line, text in numbered_lines(read_text(path)):
        try:
            recording = json.loads(text)
            filename = _text(recording["filename"])
            events = [
                Event(
                    _number(e["onset"], "seconds"),
                    _number(e["offset"], "seconds"),
                    _text(e["label"]),
                    _number(e.get("score", 1.0), "a score"),
                    channel_of(str(e.get("channel", 0))),
                )
                for e in recording["events"]
            ]
        except RecursionError:
            raise AnnotationError(
                path, f"line {line}: not a recording with its events: nested too deeply"
            ) from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise AnnotationError(path, f"line {line}: not a recording with its events: {reason}") from error
        collected.recording(filename)
        for event in events:
            collected.add(line, filename, event)
    return collected.table()


def _text(value: Any) -> str:
    if not (isinstance(value, str) and value):
        raise UsageError(f"wanted a string, got {reprlib.repr(value)}")
    return value


def _number(value: Any, what: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 0.0 <= value <= sys.float_info.max):
        raise UsageError(f"wanted {what} of 0 or more, got {reprlib.repr(value)}")
    return float(value)
