"""Tables of negatives: recordings without the classes."""

from __future__ import annotations

import os
from dataclasses import dataclass

from htsat_sed.annotations.delimited import read_rows


@dataclass(frozen=True)
class Negative:
    """A row of a table of negatives; classes not in it do not occur in the recording.

    Attributes:
        possible: classes that may occur in it.
        present: classes that sound throughout.
        fold: 1, 2, ...; None without folds.
        kind: kind of recording, such as ``street``; empty without kinds.
    """

    possible: frozenset[str]
    present: frozenset[str] = frozenset()
    fold: int | None = None
    kind: str = ""


def read_negatives(path: str | os.PathLike[str]) -> dict[str, Negative]:
    """Read a table of negatives.

    Required columns are filename and event_labels: the classes that may occur, separated by ``|``. Optional
    columns are present_labels (classes that sound throughout), fold and kind (any word). Delimiters and
    quotes: see `delimited`.

    Raises:
        AnnotationError: the file cannot be read, is empty or lacks a column; a row has no filename, repeats a
            recording, or has a fold that is no whole number.
    """
    negatives: dict[str, Negative] = {}
    for cells in read_rows(path, ("filename", "event_labels")):
        name, fold = cells.filename(), cells.text("fold").strip()
        if name in negatives:
            raise cells.error(f"{name} already has a row")
        if fold and not fold.isdecimal():
            raise cells.error(f"wanted a whole number as fold, got {fold!r}")
        possible, present = (
            frozenset(label.strip() for label in cells.text(column).split("|") if label.strip())
            for column in ("event_labels", "present_labels")
        )
        kind = cells.text("kind").strip()
        negatives[name] = Negative(possible - present, present, int(fold) if fold else None, kind)
    return negatives
