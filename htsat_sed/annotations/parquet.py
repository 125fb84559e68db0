"""Parquet: one file for all recordings, columns as in CSV; needs pyarrow (extra ``parquet``).

Columns are filename (text), onset and offset (float64, seconds), event_label (text) and score (float64); a
recording without events has one row whose other cells are null. Optional columns are those of CSV, channel
(int32) and clock times (text, recording_duration float64). Nothing is rounded. Bytes of a file name that are
not UTF-8 are escaped, see `text`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from htsat_sed.annotations.parquet_pages import column_chunks, page_sizes
from htsat_sed.annotations.strong import COLUMNS
from htsat_sed.annotations.text import Collected, Described, channel_of, escape, unescape
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError
from htsat_sed.libraries import load
from htsat_sed.whole_file import whole_file

_ROWS = 10_000  # at a time
_FEW_ROWS, _ROWS_A_BYTE = 1_000_000, 16  # compression of different rows achieves less
_LONGEST_TEXT = 10_000  # bytes of a name or label
_LARGEST_PAGE = 256 << 20  # bytes, decompressed; writers start a new page at 1 MB or with each row group
_MOST_PAGES = 1_000_000


def write_parquet(
    path: str | os.PathLike[str], recordings: Iterable[Described], columns: Sequence[str] = ()
) -> None:
    """Write a table of all recordings.

    Args:
        path: target file.
        recordings: recordings with their events.
        columns: additional columns: `CHANNEL`, `CLOCK` or both.

    Raises:
        AnnotationError: pyarrow is not installed.
        HtsatSedError: the file cannot be written.
    """
    arrow, parquet = require_pyarrow(path)
    text, number = arrow.string(), arrow.float64()
    types = dict.fromkeys(("filename", "event_label", "begin", "end", "clock"), text)
    types["channel"] = arrow.int32()
    names = (*COLUMNS, "score", *columns)
    schema = arrow.schema([(name, types.get(name, number)) for name in names])
    rows = ([cells[name] for name in names] for each in recordings for cells in _rows(each))
    with whole_file(path, "wb") as file, parquet.ParquetWriter(file, schema) as writer:
        while batch := list(islice(rows, _ROWS)):
            by_column = zip(*batch, strict=True)
            writer.write_table(arrow.table([list(column) for column in by_column], schema=schema))


def _rows(described: Described) -> Iterator[dict[str, object]]:
    """The cells of each row of a recording, for all possible columns."""
    start, duration = described.start, described.duration
    common: dict[str, object] = {"filename": escape(described.filename), "recording_duration": duration}
    common["clock"] = None if start is None else start.source
    events: list[Event | None] = [*sorted(described.events)]
    for event in events or [None]:
        known = (start.iso(event.onset), start.iso(event.offset)) if start and event else (None, None)
        if start is not None and event is None:
            known = start.iso(0.0), start.iso(duration or 0.0)
        cells = dict(zip(("begin", "end"), known, strict=True))
        if event is None:
            yield common | cells | dict.fromkeys(("onset", "offset", "event_label", "score", "channel"))
        else:
            own = {"onset": event.onset, "offset": event.offset, "score": event.score}
            label, channel = escape(event.label), event.channel or None
            yield common | cells | own | {"event_label": label, "channel": channel}


def read_parquet(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Read a table of all recordings.

    Returns:
        As for `read_strong_labels`; rows are numbered from 1.

    Raises:
        AnnotationError: pyarrow is not installed; the file cannot be read, would decompress to far more than
            its size, lacks a column, or has an invalid cell.
    """
    collected = Collected(path)
    known: dict[str, str] = {}  # each text is stored once
    for line, cells in enumerate(_cells(path), start=1):
        filename, onset, offset, label, score, channel = cells
        if not (isinstance(filename, str) and filename):
            raise AnnotationError(path, f"line {line}: no filename")
        filename = known.setdefault(filename, unescape(filename))
        collected.recording(filename)
        if onset is None and offset is None and label is None:
            continue
        score = 1.0 if score is None else score
        if not isinstance(score, int | float):
            raise AnnotationError(path, f"line {line}: score is not a number: {score!r:.60}")
        if not (isinstance(label, str) and _is_time(onset) and _is_time(offset)):
            found = f"{onset!r:.40}, {offset!r:.40}, {label!r:.60}"
            raise AnnotationError(path, f"line {line}: wanted seconds of 0 or more and a label, got {found}")
        label = known.setdefault(label, unescape(label))
        event = Event(float(onset), float(offset), label, float(score), channel_of(str(channel)))
        collected.add(line, filename, event)
    return collected.table()


def _cells(path: str | os.PathLike[str]) -> Iterator[tuple[Any, ...]]:
    """The cells of each row in the order of `COLUMNS`, score and channel; None without a column."""
    arrow, parquet = require_pyarrow(path)
    try:
        metadata = parquet.read_metadata(path)
        flat = {metadata.schema.column(i).path for i in range(metadata.num_columns)}
        if missing := [name for name in COLUMNS if name not in flat]:
            found = ", ".join(sorted(flat))
            raise AnnotationError(path, f"lacks the columns {', '.join(missing)}; it has {found:.400}")
        order = (*COLUMNS, "score", "channel")
        wanted = [name for name in order if name in flat]
        check_size(path, metadata, wanted)
        # Dictionaries are kept, since a small file can expand to terabytes of repeated texts.
        with parquet.ParquetFile(
            path, metadata=metadata, read_dictionary=["filename", "event_label"]
        ) as file:
            for batch in file.iter_batches(_ROWS, columns=wanted):
                columns = {name: column_values(path, name, batch.column(name), arrow) for name in wanted}
                nothing = [None] * len(batch)
                yield from zip(*(columns.get(name, nothing) for name in order), strict=True)
    except (OSError, UnicodeDecodeError, ValueError, arrow.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise AnnotationError(path, f"cannot be read: {reason:.400}") from error


def column_values(path: str | os.PathLike[str], name: str, column: Any, arrow: Any) -> list[Any]:
    """The cells of a column of texts, numbers, times or nulls.

    Raises:
        AnnotationError: it has another type, or a text that is far too long.
    """
    types, kind = arrow.types, column.type
    if types.is_dictionary(kind):
        kind = kind.value_type
        values = column.dictionary
    else:
        values = column
    if types.is_string(kind) or types.is_large_string(kind):
        compute = import_module("pyarrow.compute")
        longest = compute.max(compute.binary_length(values)).as_py() or 0
        if longest > _LONGEST_TEXT:
            raise AnnotationError(path, f"has a {name} of {longest} bytes, wanted at most {_LONGEST_TEXT}")
    elif not any(
        fits(kind) for fits in (types.is_integer, types.is_floating, types.is_timestamp, types.is_null)
    ):
        raise AnnotationError(path, f"has {name} as {kind!s:.60}, wanted texts or numbers")
    return list(column.to_pylist())


def check_size(
    path: str | os.PathLike[str], metadata: Any, wanted: Sequence[str], *, most: int | None = None
) -> None:
    """Refuse a file that would decompress to far more than its size.

    Args:
        path: the file.
        metadata: its metadata, by pyarrow.
        wanted: columns to be read.
        most: maximum decompressed bytes of all their pages; None if they are read piece by piece.

    Raises:
        AnnotationError: it has too many rows or too large pages.
        OSError: the file cannot be read.
        UsageError: the footer or the head of a page cannot be parsed.
    """
    if metadata.num_rows > _FEW_ROWS + _ROWS_A_BYTE * Path(path).stat().st_size:
        reason = f"states {metadata.num_rows} rows, more than a file of its size can contain"
        raise AnnotationError(path, reason)
    roots = [metadata.schema.column(i).path.split(".")[0] for i in range(metadata.num_columns)]
    numbers = {i for i, root in enumerate(roots) if root in wanted}
    with Path(path).open("rb") as file:
        pages = total = 0
        for start, end in column_chunks(file, numbers):
            for size in page_sizes(file, start, end):
                pages, total = pages + 1, total + size
                if size > _LARGEST_PAGE or pages > _MOST_PAGES:
                    what = f"a page of {size} bytes" if pages <= _MOST_PAGES else f"{pages} pages"
                    raise AnnotationError(path, f"states {what}, which no Parquet writer produces")
                if most is not None and total > most:
                    raise AnnotationError(
                        path, f"would decompress to {total} bytes or more, wanted at most {most}"
                    )


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and 0.0 <= value < float("inf")


def require_pyarrow(path: str | os.PathLike[str]) -> tuple[Any, Any]:
    """Import pyarrow and pyarrow.parquet.

    Raises:
        UsageError: they are not installed; `path` is the file that needs them.
    """
    purpose = os.fspath(path)
    return (
        load("pyarrow", purpose=purpose, extra="parquet"),
        load("pyarrow.parquet", purpose=purpose, extra="parquet"),
    )
