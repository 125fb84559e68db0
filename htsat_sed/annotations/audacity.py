"""Audacity label tracks: one file per recording; tab-separated onset, offset and label, no header.

    0.312500	1.250000	Speech

Times have 6 decimals, as in Audacity's exports. Scores are not stored. Control characters in labels are
escaped, see `text`.

Source: Audacity manual, "Importing and Exporting Labels".
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
    logger,
    numbered_lines,
    read_text,
    signed_number,
    timed,
    unescape,
)
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError

SUFFIX = ".txt"
_SUFFIXES = re.compile(r"(\.BirdNET(\.results)?)?\.txt$", re.IGNORECASE)
_SCORE = re.compile(r"0?\.\d+|[01](\.0*)?")


def audacity_lines(filename: str, events: Sequence[Event], duration: float | None = None) -> str:
    """The label track of one recording."""
    return "".join(
        f"{onset}\t{offset}\t{escape(event.label, CONTROL)}\n"
        for onset, offset, event in timed(events, decimals=6)
    )


def read_audacity(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Read a label track.

    The frequency lines of spectral labels, which begin with a backslash, and cells after the label are
    skipped, except for a score in the next cell, as written by BirdNET-Analyzer. Decimal commas are accepted.
    Labels without text, labels before 0 s, point labels (without duration) and duplicates are dropped;
    warnings count them.

    Returns:
        One recording, named like the file without ``.txt`` or ``.BirdNET.results.txt``.

    Raises:
        AnnotationError: the file cannot be read, a time is not a number, or an offset is before its onset.
    """
    recording = _SUFFIXES.sub("", Path(path).name)
    collected = Collected(path)
    collected.recording(recording)
    for line, text in numbered_lines(read_text(path)):
        if text.lstrip().startswith("\\"):
            continue
        onset_text, offset_text, *texts = text.split("\t") if "\t" in text else [text, ""]
        if not offset_text.strip():
            raise AnnotationError(path, f"line {line}: wanted tab-separated onset, offset and label")
        onset = signed_number(path, line, "onset", onset_text, comma=True)
        offset = signed_number(path, line, "offset", offset_text, comma=True)
        label = unescape(texts[0]) if texts else ""
        if offset < onset:
            raise AnnotationError(path, f"line {line}: offset {offset:g} is before onset {onset:g}")
        if not label.strip():
            collected.drop(line, "without text")
        elif offset <= 0.0 and onset < 0.0:
            collected.drop(line, "before the recording begins")
        else:
            if onset < 0.0:
                logger.warning("%s: line %d: begins at %g s, truncated to 0 s", path, line, onset)
            score = float(texts[1]) if texts[1:] and _SCORE.fullmatch(texts[1].strip()) else 1.0
            collected.add(line, recording, Event(max(onset, 0.0), offset, label, score))
    return collected.table()
