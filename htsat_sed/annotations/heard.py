"""Which events somebody listened to: the column ``heard`` of a table of strong labels.

An index of clips loses the rows that were wrong. So that `evaluate` can tell an event that was rejected from
one that nobody heard, rows of their own list what was cut out of each recording, as JSON, at most 100 events
a cell: ``[["Dog", 2.0, 3.75], ["Cat", 5.0, 6.5]]``, label, onset and offset. Their other cells but
``filename`` are empty, so that every reader takes them for a recording without further events. A column of
that name with anything in the row of an event is somebody's own, and without meaning here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator

from htsat_sed.annotations.delimited import read_columns, read_rows
from htsat_sed.annotations.strong import COLUMNS
from htsat_sed.annotations.text import Collected, timed
from htsat_sed.detection.events import Event
from htsat_sed.errors import UsageError

HEARD = "heard"
ANY_LABEL = "*"
"""Label of a stretch in which somebody listened for every class."""

_A_CELL = 100  # events; spreadsheets cut cells of more than 32767 characters


def heard_cells(events: Iterable[Event]) -> Iterator[str]:
    """The events of one recording that somebody listened to, as cells."""
    found = [[event.label, float(onset), float(offset)] for onset, offset, event in timed(events, decimals=3)]
    for first in range(0, len(found), _A_CELL):
        yield json.dumps(found[first : first + _A_CELL], ensure_ascii=False)


def read_heard(path: str | os.PathLike[str]) -> dict[str, list[Event]] | None:
    """Read which events somebody listened to.

    Returns:
        Recording -> those events, as they were before anybody corrected them; None for a file without a
        column ``heard``, without anything in it, or with something in the row of an event.

    Raises:
        AnnotationError: the file cannot be read; or, naming the line, a cell is not as `heard_cells` makes
            it.
    """
    if HEARD not in read_columns(path):
        return None
    collected = Collected(path)
    rows = [row for row in read_rows(path, (*COLUMNS, HEARD)) if row.text(HEARD)]
    if any(row.text(name) for row in rows for name in COLUMNS if name != "filename"):
        return None
    for row in rows:
        cell = row.text(HEARD)
        try:
            events = [Event(float(onset), float(offset), label) for label, onset, offset in json.loads(cell)]
            if not all(isinstance(event.label, str) and event.onset >= 0.0 for event in events):
                raise UsageError("out of range")
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise row.error(f"{HEARD} is no list of label, onset and offset: {cell!r:.60}") from None
        for event in events:
            collected.add(row.line, row.filename(), event)
    return collected.table() or None
