"""Kaleidoscope's CSV: one file for all recordings, one row per event.

    INDIR,FOLDER,IN FILE,CHANNEL,OFFSET,DURATION,scientific_name,common_name,confidence,MANUAL ID
    ,day1,street.wav,0,0.312,0.938,Speech,Speech,0.9312,

``IN FILE`` is in ``FOLDER`` in ``INDIR``. Times are seconds with 3 decimals; channels are numbered from 0,
with an empty cell if unknown. Label and score are in the columns of BirdNET-Analyzer, which reads the label
from ``scientific_name``; ``MANUAL ID`` is for the user. A recording without events has a row with ``NoID``,
as in Kaleidoscope. Kaleidoscope's own tables are read as well: the label is in MANUAL ID, or else in
TOP1MATCH, AUTO ID or common_name (with or without ``*``), the score in SCORE or confidence.

Source: Wildlife Acoustics, Kaleidoscope Pro 5 User Guide, "Metadata"; BirdNET-Analyzer 2.4,
`birdnet_analyzer.analyze.utils.generate_kaleidoscope`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from htsat_sed.annotations.delimited import Row, read_rows, row
from htsat_sed.annotations.text import Collected, timed
from htsat_sed.detection.events import Event

SUFFIX = ".kaleidoscope.csv"
_NO_ID = "NoID"
_WANTED = ("IN FILE", "OFFSET", "DURATION")
_LABELS = ("MANUAL ID", "TOP1MATCH", "AUTO ID", "COMMON_NAME", "SCIENTIFIC_NAME")
_SCORES = ("SCORE", "CONFIDENCE")

_PLACE = ("INDIR", "FOLDER", "IN FILE", "CHANNEL", "OFFSET", "DURATION")
KALEIDOSCOPE_HEADER = row((*_PLACE, "scientific_name", "common_name", "confidence", "MANUAL ID"), ",")


def kaleidoscope_lines(
    filename: str, events: Sequence[Event], duration: float | None = None, *, safe_cells: bool = False
) -> str:
    """The rows of one recording."""
    path = PurePath(filename)
    place = ("", "" if path.parent == PurePath() else path.parent.as_posix(), path.name or filename)
    rows = [
        (
            *place,
            str(event.channel - 1) if event.channel else "",
            onset,
            f"{float(offset) - float(onset):.3f}",
            event.label,
            event.label,
            f"{event.score:.4f}",
            "",
        )
        for onset, offset, event in timed(events, decimals=3)
    ]
    silence = (*place, "", "0.000", f"{duration or 0:.3f}", _NO_ID, _NO_ID, f"{0:.4f}", "")
    return "".join(row(cells, ",", safe_cells=safe_cells) for cells in rows or [silence])


def read_kaleidoscope(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Read a table in Kaleidoscope's format, from Kaleidoscope or another program.

    Returns:
        As `read_strong_labels`, under the same rules for events; recordings are named by FOLDER and IN FILE.

    Raises:
        AnnotationError: the file cannot be read or lacks a column; a row has no IN FILE, or a time that is no
            number of 0 or more.
    """
    collected = Collected(path)
    for cells in read_rows(path, _WANTED):
        columns = {name.upper().rstrip("*"): name for name in cells.cells}
        folder, name = _first(cells, columns, ("FOLDER",)), cells.text("IN FILE")
        if not name:
            raise cells.error("no IN FILE")
        filename = f"{folder.replace(chr(92), '/').rstrip('/')}/{name}" if folder else name
        collected.recording(filename)
        label = _first(cells, columns, _LABELS)
        if label in ("", _NO_ID):
            continue
        score = next((columns[each] for each in _SCORES if each in columns), "")
        channel = _first(cells, columns, ("CHANNEL",))
        onset = cells.number("OFFSET")
        event = Event(
            onset,
            round(onset + cells.number("DURATION"), 6),
            label,
            cells.number(score) if score and cells.text(score) else 1.0,
            int(channel) + 1 if channel.isascii() and channel.isdecimal() and len(channel) < 6 else 0,
        )
        collected.add(cells.line, filename, event)
    return collected.table()


def _first(cells: Row, columns: Mapping[str, str], wanted: Sequence[str]) -> str:
    """The first text in columns of these names."""
    texts = (cells.text(columns[name]) for name in wanted if name in columns)
    return next(filter(None, texts), "")
