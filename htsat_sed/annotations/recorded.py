"""Starts and durations of recordings in tables of events."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from htsat_sed.annotations.delimited import read_columns, read_rows
from htsat_sed.annotations.parquet import check_size, column_values, require_pyarrow
from htsat_sed.annotations.text import Names, numbered_lines, read_text, unescape
from htsat_sed.clock import SOURCES, Start, parse_time
from htsat_sed.errors import AnnotationError, UsageError

_TEXTS = ("filename", "begin", "clock")
_COLUMNS = (*_TEXTS, "onset", "recording_duration")


@dataclass(frozen=True)
class Recorded:
    """Start and duration of a recording in a table.

    Attributes:
        start: start of the recording; None if unknown.
        duration: seconds; None if unknown.
    """

    start: Start | None = None
    duration: float | None = None


def read_recorded(path: str | os.PathLike[str]) -> dict[str, Recorded]:
    """Read starts and durations of recordings from CSV, JSON Lines or Parquet written by `detect`.

    Returns:
        Recording -> start and duration; empty for folders and other formats.

    Raises:
        AnnotationError: the file cannot be read, or a time or duration is invalid.
    """
    path = Path(path)
    if path.is_dir():
        return {}
    rows = _rows(path)
    names = Names()
    found: dict[str, Recorded] = {}
    for line, name, cells in rows:
        known = found.setdefault(names.of(name), Recorded())
        start, duration = known.start, known.duration
        try:
            if start is None and (begin := cells.get("begin")):
                clock = str(cells.get("clock") or "")
                moment = parse_time(str(begin))
                onset = timedelta(seconds=float(cells.get("onset") or 0.0))
                start = Start(moment - onset, clock if clock in SOURCES else "name")
            if duration is None and (given := cells.get("recording_duration")) not in (None, ""):
                duration = float(str(given))
                if not 0.0 <= duration < math.inf:
                    raise UsageError(f"wanted a duration of 0 s or more, got {duration}")
        except (ValueError, TypeError, OverflowError) as error:
            raise AnnotationError(path, f"line {line}: {error}") from error
        found[names.of(name)] = Recorded(start, duration)
    return found


def _rows(path: Path) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """The rows of a table: line, recording, and the cells that concern time."""
    try:
        with path.open("rb") as file:
            first = file.readline(1 << 16).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError as error:
        raise AnnotationError(path, f"cannot be read: {error.strerror}") from error
    if first.startswith(b"PAR1"):
        yield from _parquet_rows(path)
    elif first.startswith(b"{"):
        for line, text in numbered_lines(read_text(path)):
            given = json.loads(text)
            yield line, given["filename"], given | {"recording_duration": given.get("duration")}
    elif {"filename", "begin"} <= set(read_columns(path)):
        for row in read_rows(path, ("filename", "onset")):
            cells = {name: row.text(name) for name in _COLUMNS[1:]}
            if row.comma:
                cells |= {name: cells[name].replace(",", ".") for name in ("onset", "recording_duration")}
            yield row.line, row.filename(), cells


def _parquet_rows(path: Path) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    arrow, parquet = require_pyarrow(path)
    try:
        metadata = parquet.read_metadata(path)
        names = metadata.schema.to_arrow_schema().names
        columns = [name for name in _COLUMNS if name in names]
        if not {"filename", "begin"} <= set(columns):
            return
        check_size(path, metadata, columns)
        line = 0
        # Repeated texts stay repeated: unfolded, a small file can hold terabytes.
        texts = [name for name in columns if name in _TEXTS]
        with parquet.ParquetFile(path, metadata=metadata, read_dictionary=texts) as file:
            for batch in file.iter_batches(10_000, columns=columns):
                values = [column_values(path, name, batch.column(name), arrow) for name in columns]
                for row in zip(*values, strict=True):
                    line, cells = line + 1, dict(zip(columns, row, strict=True))
                    if not isinstance(cells["filename"], str):
                        raise AnnotationError(path, f"line {line}: no filename")
                    yield line, unescape(cells["filename"]), cells
    except (OSError, UnicodeDecodeError, ValueError, arrow.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise AnnotationError(path, f"cannot be read: {reason:.400}") from error
