"""Raven selection tables: one file a recording, columns with tabs between them.

    Selection, View, Channel, Begin Time (s), End Time (s), Low Freq (Hz), High Freq (Hz), Annotation, Score,
    Begin File

    1	Spectrogram 1	1	0.312	1.250	50	14000	Speech	0.9312	street.wav

The seven columns that Raven makes itself come first, so that ``Annotation`` is the eighth, where other
programs look for it. Events have no frequencies: the boxes span the band that HTS-AT hears. Times have 3
decimals, scores 4. Raven knows no quotes, so control characters are written as `text` has it. One table a
recording, since in a table of many Raven counts its times through all of them.

Source: Raven Pro User's Manual, "Selection tables"; columns as in BirdNET-Analyzer's and opensoundscape's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from htsat_sed.annotations.text import (
    CONTROL,
    Collected,
    escape,
    number,
    numbered_lines,
    read_text,
    timed,
    unescape,
)
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError

SUFFIX = ".selections.txt"

LOW_HZ, HIGH_HZ = 50, 14000
"""The band of the mel front end at 32 kHz."""

_BEGIN, _END, _OFFSET = "Begin Time (s)", "End Time (s)", "File Offset (s)"
_LABELS = ("Annotation", "Common Name", "Species", "Label")
_SCORES = ("Score", "Confidence")
_SUFFIXES = re.compile(r"((\.Table\.\d+|\.BirdNET)?\.selections?(\.table)?)?\.txt$", re.IGNORECASE)

_OURS = ("Annotation", "Score", "Begin File\n")

RAVEN_HEADER = "\t".join(
    ("Selection", "View", "Channel", _BEGIN, _END, "Low Freq (Hz)", "High Freq (Hz)", *_OURS)
)


def raven_lines(filename: str, events: Sequence[Event], duration: float | None = None) -> str:
    """The selections of one recording.

    Args:
        filename: the recording; the table has its name without folders.
        events: its events, in any order.
        duration: without effect here.
    """
    begin_file = escape(Path(filename).name, CONTROL)
    return "".join(
        f"{selection}\tSpectrogram 1\t1\t{onset}\t{offset}\t{LOW_HZ}\t{HIGH_HZ}"
        f"\t{escape(event.label, CONTROL)}\t{event.score:.4f}\t{begin_file}\n"
        for selection, (onset, offset, event) in enumerate(timed(events, decimals=3), start=1)
    )


def read_raven(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Read a selection table, of one recording or many, made by Raven or another program.

    The label is the cell in the column Annotation, Common Name, Species or Label, the first of these that
    is there, or else the eighth column's; the score that in Score or Confidence, or 1. A selection listed
    once a view counts once. Where there is a File Offset, it is the onset.

    Returns:
        The events of each recording, named as Begin File or the last part of Begin Path has it, or else as
        the table itself without ``.selections.txt``; otherwise as `read_strong_labels`.

    Raises:
        AnnotationError: the file cannot be read or lacks a column; or, naming the line: no label, or a time
            that is no number of 0 or more, or an offset before its onset.
    """
    lines = list(numbered_lines(read_text(path)))
    columns = [name.strip() for name in lines[0][1].split("\t")] if lines else []
    label = next((name for name in _LABELS if name in columns), None) or "".join(columns[7:8])
    if not (label and _BEGIN in columns and _END in columns):
        wanted = f"{_BEGIN}, {_END} and a column of labels"
        raise AnnotationError(path, f"wanted a selection table with {wanted}; it has {', '.join(columns)}")
    score = next((name for name in _SCORES if name in columns), "")
    collected, own_name = Collected(path), _SUFFIXES.sub("", Path(path).name)
    seen: set[tuple[str | None, str, Event]] = set()
    for line, text in lines[1:]:
        cells = dict(zip(columns, text.split("\t"), strict=False))
        begin = number(path, line, _BEGIN, cells.get(_BEGIN, ""))
        end = number(path, line, _END, cells.get(_END, ""))
        if end < begin:
            raise AnnotationError(path, f"line {line}: End Time {end:g} lies before Begin Time {begin:g}")
        begin_file = cells.get("Begin File") or re.split(r"[/\\]", cells.get("Begin Path", ""))[-1]
        recording = unescape(begin_file) or own_name
        if cells.get(_OFFSET):
            onset = number(path, line, _OFFSET, cells[_OFFSET])
            begin, end = onset, round(onset + end - begin, 6)
        certainty = number(path, line, score, cells[score]) if cells.get(score) else 1.0
        event = Event(begin, end, unescape(cells.get(label, "")), certainty)
        if (listed := (cells.get("Selection"), recording, event)) not in seen:
            seen.add(listed)
            collected.add(line, recording, event)
    if not seen:
        collected.recording(own_name)
    return collected.table()
