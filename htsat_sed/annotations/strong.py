"""Strong labels as tables with one row an event: DESED's TSV, and CSV with scores.

    filename	onset	offset	event_label            filename,onset,offset,event_label,score
    street.wav	0.312	1.250	Speech                 street.wav,0.312,1.250,Speech,0.9312
    silence.wav				                           silence.wav,,,,

A recording without events has one row whose other cells are empty. Times have 3 decimals, scores 4.
Quotes and delimiters: see `delimited`; characters that are not Unicode: see `text`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from htsat_sed.annotations.delimited import read_rows, row
from htsat_sed.annotations.text import Collected, timed
from htsat_sed.detection.events import Event

COLUMNS = ("filename", "onset", "offset", "event_label")

TSV_HEADER = row(COLUMNS, "\t")
CSV_HEADER = row((*COLUMNS, "score"), ",")


def tsv_lines(
    filename: str, events: Sequence[Event], duration: float | None = None, *, safe_cells: bool = False
) -> str:
    """The rows of one recording in DESED's TSV, which has no scores.

    Args:
        filename: the recording.
        events: its events, in any order.
        duration: without effect here.
        safe_cells: see `delimited`.
    """
    rows = [(filename, onset, offset, event.label) for onset, offset, event in timed(events, decimals=3)]
    return "".join(row(cells, "\t", safe_cells=safe_cells) for cells in rows or [(filename, "", "", "")])


def csv_lines(
    filename: str, events: Sequence[Event], duration: float | None = None, *, safe_cells: bool = False
) -> str:
    """The rows of one recording in CSV.

    Args:
        filename: the recording.
        events: its events, in any order.
        duration: without effect here.
        safe_cells: see `delimited`.
    """
    rows = [
        (filename, onset, offset, event.label, f"{event.score:.4f}")
        for onset, offset, event in timed(events, decimals=3)
    ]
    return "".join(row(cells, ",", safe_cells=safe_cells) for cells in rows or [(filename, "", "", "", "")])


def read_strong_labels(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Read a table of strong labels, reference or estimated, TSV or CSV.

    Wanted are the columns filename, onset, offset and event_label, in any order; score is read where it
    is, and is 1 where it is not. Events past each other's bounds are kept as they are, overlapping ones
    of one class too.

    Returns:
        The events of each recording, ordered by onset, offset and label; the recordings as first met;
        without events those that have a row with an empty onset, offset and label only. Rows that occur
        twice and events without length are dropped with a warning that counts them.

    Raises:
        AnnotationError: the file cannot be read, is empty or lacks a column; or, naming the line: a row
            without a filename or with some of onset, offset and label empty, a time that is no number, NaN,
            infinite or negative, an offset before its onset, a score outside [0, 1].
    """
    collected = Collected(path)
    for cells in read_rows(path, COLUMNS):
        filename, label, score = cells.filename(), cells.text("event_label"), cells.text("score").strip()
        filled = [name for name in COLUMNS[1:] if cells.text(name).strip()]
        collected.recording(filename)
        if not filled:
            continue
        if len(filled) < 3:
            empty = " and ".join(name for name in COLUMNS[1:] if name not in filled)
            raise cells.error(f"{empty} empty: wanted all of onset, offset and event_label, or none of them")
        event = Event(
            cells.number("onset"), cells.number("offset"), label, cells.number("score") if score else 1.0
        )
        collected.add(cells.line, filename, event)
    return collected.table()
