"""Strong labels as tables with one row per event: DESED's TSV, and CSV with scores.

    filename	onset	offset	event_label            filename,onset,offset,event_label,score
    street.wav	0.312	1.250	Speech                 street.wav,0.312,1.250,Speech,0.9312
    silence.wav				                           silence.wav,,,,

A recording without events has one row whose other cells are empty. Times have 3 decimals, scores 4. Tables
with channels end in a column ``channel``. CSV may have the columns ``begin`` and ``end``, clock times of the
event (or of a recording without events) in ISO 8601; ``clock``, the source of the time; and
``recording_duration``, seconds. Quotes and delimiters: see `delimited`; invalid Unicode: see `text`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from htsat_sed.annotations.delimited import read_columns, read_rows, row
from htsat_sed.annotations.text import CHANNEL, CLOCK, Collected, channel_of, clock_cells, timed
from htsat_sed.clock import Start
from htsat_sed.detection.events import Event

COLUMNS = ("filename", "onset", "offset", "event_label")
_BIRDNET = ("Start (s)", "End (s)", "Common name", "Confidence")
_BIRDNET_SUFFIX = re.compile(r"(\.BirdNET)?(\.results)?\.csv$", re.IGNORECASE)

TSV_HEADER = row(COLUMNS, "\t")
CSV_HEADER = row((*COLUMNS, "score"), ",")


def tsv_lines(
    filename: str,
    events: Sequence[Event],
    duration: float | None = None,
    *,
    safe_cells: bool = False,
    columns: Sequence[str] = (),
) -> str:
    """The rows of one recording in DESED's TSV, which has no scores."""
    rows: list[tuple[str, ...]] = [
        (filename, onset, offset, event.label, *([_channel(event)] if set(CHANNEL) <= set(columns) else []))
        for onset, offset, event in timed(events, decimals=3)
    ]
    return "".join(row(cells, "\t", safe_cells=safe_cells) for cells in rows or [(filename, "", "", "")])


def csv_lines(
    filename: str,
    events: Sequence[Event],
    duration: float | None = None,
    *,
    start: Start | None = None,
    safe_cells: bool = False,
    columns: Sequence[str] = (),
) -> str:
    """The rows of one recording in CSV."""
    channels, clock = set(CHANNEL) <= set(columns), set(CLOCK) <= set(columns)
    rows: list[tuple[str, ...]] = []
    for onset, offset, event in timed(events, decimals=3):
        cells: tuple[str, ...] = (filename, onset, offset, event.label, f"{event.score:.4f}")
        cells += (_channel(event),) if channels else ()
        rows.append(cells + (clock_cells(start, onset, offset, duration) if clock else ()))
    if not rows:
        whole = clock_cells(start, "0", f"{duration or 0:.3f}", duration) if clock else ()
        rows.append((filename, "", "", "", "", *([""] if channels else []), *whole))
    return "".join(row(cells, ",", safe_cells=safe_cells) for cells in rows)


def _channel(event: Event) -> str:
    return str(event.channel) if event.channel else ""


def read_strong_labels(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Read a table of strong labels, reference or estimated, TSV or CSV.

    Required columns are filename, onset, offset and event_label, in any order; score is optional and 1 by
    default. Tables of BirdNET-Analyzer have other columns. Overlapping events are kept unchanged, also of one
    class.

    Returns:
        The events of each recording, ordered by onset, offset and label; recordings in the order of the file.
        A recording with only a row of empty onset, offset and label has no events. Duplicate rows and events
        without duration are dropped, with a warning that counts them.

    Raises:
        AnnotationError: the file cannot be read, is empty or lacks a column; a row has no filename, only some
            of onset, offset and label, a time that is no finite number of 0 or more, an offset before its
            onset, or a score outside [0, 1].
    """
    if {name.lower() for name in _BIRDNET} <= set(read_columns(path)):
        return _read_birdnet(path)
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
            cells.number("onset"),
            cells.number("offset"),
            label,
            cells.number("score") if score else 1.0,
            channel_of(cells.text("channel")),
        )
        collected.add(cells.line, filename, event)
    return collected.table()


def _read_birdnet(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Read a CSV by BirdNET-Analyzer 2, of many recordings, or of the one that the file is named after."""
    collected, own_name = Collected(path), _BIRDNET_SUFFIX.sub("", Path(path).name)
    if "file" not in read_columns(path):
        collected.recording(own_name)
    for cells in read_rows(path, (*_BIRDNET, "File") if "file" in read_columns(path) else _BIRDNET):
        filename = cells.text("File").replace("\\", "/") or own_name
        onset, offset, score = (cells.number(name) for name in ("Start (s)", "End (s)", "Confidence"))
        collected.add(cells.line, filename, Event(onset, offset, cells.text("Common name"), score))
    return collected.table()
