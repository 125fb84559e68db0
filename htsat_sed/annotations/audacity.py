"""Audacity label tracks: one file a recording; onset, offset and label with tabs between them, no header.

    0.312500	1.250000	Speech

Times have 6 decimals, as in Audacity's own exports. Scores are not kept. Control characters in labels are
written as `text` has it.

Source: Audacity manual, "Importing and Exporting Labels".
"""

from __future__ import annotations

import os
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

SUFFIX = ".txt"


def audacity_lines(filename: str, events: Sequence[Event], duration: float | None = None) -> str:
    """The label track of one recording.

    Args:
        filename: without effect here.
        events: its events, in any order.
        duration: without effect here.
    """
    return "".join(
        f"{onset}\t{offset}\t{escape(event.label, CONTROL)}\n"
        for onset, offset, event in timed(events, decimals=6)
    )


def read_audacity(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Read a label track.

    The frequency lines of spectral labels, which begin with a backslash, are skipped; further cells after
    the label too. Decimal commas are understood. Point labels have no length and are dropped, as are
    labels given twice, with a warning that counts them.

    Returns:
        One recording, named as the file without ``.txt``.

    Raises:
        AnnotationError: the file cannot be read; or, naming the line: no label, or a time that is no number
            of 0 or more, or an offset before its onset.
    """
    name = Path(path).name
    recording = name[: -len(SUFFIX)] if name.lower().endswith(SUFFIX) else name
    collected = Collected(path)
    collected.recording(recording)
    for line, text in numbered_lines(read_text(path)):
        if text.startswith("\\\t"):
            continue
        cells = text.split("\t")
        if len(cells) < 3:
            raise AnnotationError(path, f"line {line}: wanted onset, offset and label with tabs between them")
        onset = number(path, line, "onset", cells[0], comma=True)
        offset = number(path, line, "offset", cells[1], comma=True)
        collected.add(line, recording, Event(onset, offset, unescape(cells[2])))
    return collected.table()
