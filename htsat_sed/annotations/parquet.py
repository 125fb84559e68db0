"""Parquet: one file for all recordings, columns as in CSV; needs pyarrow (extra ``parquet``).

The columns filename (text), onset and offset (float64, seconds), event_label (text) and score (float64); a
recording without events has one row whose other cells are null. Nothing is rounded. Bytes of a file name
that are not UTF-8 are written as `text` has it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from htsat_sed.annotations.strong import COLUMNS
from htsat_sed.annotations.text import Collected, escape, unescape
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError
from htsat_sed.whole_file import whole_file

_ROWS = 100_000  # at a time


def write_parquet(path: str | os.PathLike[str], recordings: Iterable[tuple[str, Sequence[Event]]]) -> None:
    """Write a table of all recordings, as they come.

    Raises:
        AnnotationError: pyarrow is not installed.
        HtsatSedError: the file cannot be written.
    """
    arrow, parquet = require_pyarrow(path)
    types = (arrow.string(), arrow.float64(), arrow.float64(), arrow.string(), arrow.float64())
    schema = arrow.schema(list(zip((*COLUMNS, "score"), types, strict=True)))
    rows = _rows(recordings)
    with whole_file(path, "wb") as file, parquet.ParquetWriter(file, schema) as writer:
        while batch := list(islice(rows, _ROWS)):
            columns = zip(*batch, strict=True)
            writer.write_table(arrow.table([list(column) for column in columns], schema=schema))


def _rows(recordings: Iterable[tuple[str, Sequence[Event]]]) -> Iterator[tuple[object, ...]]:
    for filename, events in recordings:
        cells: list[tuple[object, ...]] = [
            (e.onset, e.offset, escape(e.label), e.score) for e in sorted(events)
        ]
        for of_event in cells or [(None,) * 4]:
            yield escape(filename), *of_event


def read_parquet(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Read a table of all recordings.

    Returns:
        As `read_strong_labels`, under the same rules; rows are counted from 1.

    Raises:
        AnnotationError: pyarrow is not installed, the file cannot be read, lacks a column, or, naming the
            row, has a cell that is not what its column wants.
    """
    arrow, parquet = require_pyarrow(path)
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, UnicodeDecodeError, arrow.ArrowException) as error:
        raise AnnotationError(path, f"cannot be read: {error}") from error
    collected = Collected(path)
    for line, cells in enumerate(rows, start=1):
        if missing := [name for name in COLUMNS if name not in cells]:
            raise AnnotationError(path, f"lacks the columns {', '.join(missing)}; it has {', '.join(cells)}")
        filename, onset, offset, label = (cells[name] for name in COLUMNS)
        if not (isinstance(filename, str) and filename):
            raise AnnotationError(path, f"line {line}: no filename")
        collected.recording(unescape(filename))
        if onset is None and offset is None and label is None:
            continue
        score = 1.0 if cells.get("score") is None else cells["score"]
        if not isinstance(score, int | float):
            raise AnnotationError(path, f"line {line}: score is no number: {score!r}")
        if not (isinstance(label, str) and _is_time(onset) and _is_time(offset)):
            raise AnnotationError(path, f"line {line}: wanted seconds of 0 or more and a label, got {cells}")
        event = Event(float(onset), float(offset), unescape(label), float(score))
        collected.add(line, unescape(filename), event)
    return collected.table()


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and 0.0 <= value < float("inf")


def require_pyarrow(path: str | os.PathLike[str]) -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet.

    Raises:
        AnnotationError: they are not installed; `path` is the file that needs them.
    """
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise AnnotationError(path, "Parquet needs pyarrow: pip install 'htsat-sed[parquet]'") from error
    return pyarrow, pyarrow.parquet
