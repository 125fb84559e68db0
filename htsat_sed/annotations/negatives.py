"""Tables of negatives: recordings that hold none of the classes, or perhaps some."""

from __future__ import annotations

import os
from dataclasses import dataclass

from htsat_sed.annotations.delimited import read_rows


@dataclass(frozen=True)
class Negative:
    """A row of a table of negatives; all classes that it does not name are silent in the recording.

    Attributes:
        possible: classes that may sound in it, or not.
        present: classes that sound in it from beginning to end.
        fold: 1, 2, ...; None where the table has no folds.
        kind: of recording, such as ``street``; empty where the table has no kinds.
    """

    possible: frozenset[str]
    present: frozenset[str] = frozenset()
    fold: int | None = None
    kind: str = ""


def read_negatives(path: str | os.PathLike[str]) -> dict[str, Negative]:
    """Read which classes may sound in recordings that hold none of the others.

    Wanted are the columns filename and event_labels: the classes that may sound, with ``|`` between them,
    none where the cell is empty. Columns present_labels (classes that sound throughout), fold and kind (any
    word) may stand beside them. Delimiters and quotes: see `delimited`.

    Raises:
        AnnotationError: the file cannot be read, is empty, lacks a column; or, naming the line: a row
            without a filename, a recording that has a row already, or a fold that is no whole number.
    """
    negatives: dict[str, Negative] = {}
    for cells in read_rows(path, ("filename", "event_labels")):
        name, fold = cells.filename(), cells.text("fold").strip()
        if name in negatives:
            raise cells.error(f"{name} has a row already")
        if fold and not fold.isdecimal():
            raise cells.error(f"wanted a whole number as fold, got {fold!r}")
        possible, present = (
            frozenset(label.strip() for label in cells.text(column).split("|") if label.strip())
            for column in ("event_labels", "present_labels")
        )
        kind = cells.text("kind").strip()
        negatives[name] = Negative(possible - present, present, int(fold) if fold else None, kind)
    return negatives
