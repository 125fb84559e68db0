r"""RTTM (Rich Transcription Time Marked), as read by speaker diarisation tools, one row per event.

    SPEAKER street.wav 1 0.312 0.938 <NA> <NA> Speech 0.9312 <NA>
    SPKR-INFO silence.wav 1 <NA> <NA> <NA> unknown <NA> <NA> <NA>

The class is in the field of the speaker, the score in that of the confidence; onset and duration have 3
decimals, scores 4. A recording without events has a row of type SPKR-INFO, without times. Cells are separated
by spaces, so spaces and double quotes in cells are escaped, see `text`: ``Running\u0020water``; so is the
first character of the label ``<NA>``.

Source: NIST, "The 2009 RT Rich Transcription Evaluation Plan", appendix A.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from htsat_sed.annotations.text import (
    Collected,
    channel_of,
    escape,
    number,
    numbered_lines,
    read_text,
    timed,
    unescape,
)
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError

_NA = "<NA>"
_NOT_IN_CELLS = r'\s"'


def rttm_lines(filename: str, events: Sequence[Event], duration: float | None = None) -> str:
    """The rows of one recording."""
    file = escape(filename, _NOT_IN_CELLS)
    rows = [
        f"SPEAKER {file} {event.channel or 1} {onset} {float(offset) - float(onset):.3f} {_NA} {_NA} "
        f"{_cell(event.label)} {event.score:.4f} {_NA}\n"
        for onset, offset, event in timed(events, decimals=3)
    ]
    return "".join(rows) or f"SPKR-INFO {file} 1 {_NA} {_NA} {_NA} unknown {_NA} {_NA} {_NA}\n"


def _cell(label: str) -> str:
    return escape(label, "<") if label == _NA else escape(label, _NOT_IN_CELLS)


def read_rttm(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Read the SPEAKER rows of an RTTM file.

    Rows of other types only add their recording; comments, which begin with two semicolons, are skipped. A
    confidence of <NA> is a score of 1.

    Returns:
        As `read_strong_labels`, under the same rules for events.

    Raises:
        AnnotationError: the file cannot be read, or a row has too few cells, a time that is no number of 0 or
            more, or a score outside [0, 1].
    """
    collected = Collected(path)
    rows = [(line, text.split()) for line, text in numbered_lines(read_text(path))]
    # Rows always have a channel, which is 1 by default.
    channels = any(cells[2:3] not in ([], ["1"]) for _, cells in rows if cells[0] == "SPEAKER")
    for line, cells in rows:
        if cells[0].startswith(";;"):
            continue
        if len(cells) < (8 if cells[0] == "SPEAKER" else 2):
            wanted = "type, file, channel, onset, duration, <NA>, <NA>, label"
            raise AnnotationError(path, f"line {line}: {len(cells)} cells, wanted {wanted}")
        filename = unescape(cells[1])
        collected.recording(filename)
        if cells[0] != "SPEAKER":
            continue
        onset, duration = number(path, line, "onset", cells[3]), number(path, line, "duration", cells[4])
        known = len(cells) > 8 and cells[8] != _NA
        score = number(path, line, "confidence", cells[8]) if known else 1.0
        channel = channel_of(cells[2]) if channels else 0
        event = Event(onset, round(onset + duration, 6), unescape(cells[7]), score, channel)
        collected.add(line, filename, event)
    return collected.table()
