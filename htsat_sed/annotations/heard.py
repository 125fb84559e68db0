"""Reviewed events: the column ``heard`` of a table of strong labels.

Users delete the rows of wrong events from an index of clips. So that `evaluate` can distinguish a rejected
event from an unreviewed one, separate rows list the events cut from each recording, as JSON with label, onset
and offset, at most 100 events per cell: ``[["Dog", 2.0, 3.75], ["Cat", 5.0, 6.5]]``. Their other cells except
``filename`` are empty, so that other readers see a recording without further events. A column ``heard`` with
content in the row of an event is a user's own and is ignored.
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
"""Label of a span that was reviewed for all classes."""

_A_CELL = 100  # events per cell; spreadsheets truncate cells of more than 32767 characters


def heard_cells(events: Iterable[Event]) -> Iterator[str]:
    """The reviewed events of one recording, as cells."""
    found = [[event.label, float(onset), float(offset)] for onset, offset, event in timed(events, decimals=3)]
    for first in range(0, len(found), _A_CELL):
        yield json.dumps(found[first : first + _A_CELL], ensure_ascii=False)


def read_heard(path: str | os.PathLike[str]) -> dict[str, list[Event]] | None:
    """Read the reviewed events.

    Returns:
        Recording -> its reviewed events, before corrections; None for a file without a column ``heard``, with
        an empty one, or with content in the row of an event.

    Raises:
        AnnotationError: the file cannot be read, or a cell is invalid.
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
            raise row.error(f"{HEARD} is not a list of label, onset and offset: {cell!r:.60}") from None
        for event in events:
            collected.add(row.line, row.filename(), event)
    return collected.table() or None
