"""Clip-level scores as CSV or TSV: one row per recording and class, highest first, or per recording.

    filename,event_label,score            filename,Dog,Speech
    street.wav,Speech,0.931204            street.wav,0.031250,0.931204
    street.wav,Dog,0.031250

Scores have 6 decimals. Quotes: see `delimited`; invalid Unicode: see `text`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from htsat_sed.annotations.delimited import plain, read_columns, read_rows, row
from htsat_sed.annotations.text import Names
from htsat_sed.errors import AnnotationError
from htsat_sed.labels import normal


def tags_header(
    labels: Sequence[str] | None = None, separator: str = ",", *, safe_cells: bool = False
) -> str:
    """The header of a table with one row per recording and class, or with a column for each of `labels`."""
    columns = ("event_label", "score") if labels is None else labels
    return row(("filename", *columns), separator, safe_cells=safe_cells)


def long_rows(
    filename: str,
    scores: NDArray[np.float32],
    labels: Sequence[str],
    *,
    top: int | None = None,
    separator: str = ",",
    safe_cells: bool = False,
) -> str:
    """The rows of one recording, one per class, highest score first.

    Args:
        filename: the recording.
        scores: (K,) in [0, 1].
        labels: K class names; of equal scores the earlier class comes first.
        top: number of classes with the highest scores; None for all.
        separator: delimiter of the columns.
        safe_cells: see `delimited`.
    """
    highest_first = np.argsort(-scores, kind="stable")[:top]
    rows = ((filename, labels[k], f"{scores[k]:.6f}") for k in highest_first)
    return "".join(row(cells, separator, safe_cells=safe_cells) for cells in rows)


def wide_row(
    filename: str, scores: NDArray[np.float32], separator: str = ",", *, safe_cells: bool = False
) -> str:
    """The row of one recording, (K,) scores in the order of the labels in the header."""
    return row((filename, *(f"{score:.6f}" for score in scores)), separator, safe_cells=safe_cells)


def read_tags(path: str | os.PathLike[str]) -> dict[str, dict[str, float]]:
    """Read clip-level scores, in rows or in columns.

    A table with the columns event_label and score has one row per recording and class; in other tables, every
    column except filename is a class.

    Returns:
        Recording -> label -> score.

    Raises:
        AnnotationError: the file cannot be read, is empty, lacks the column filename, or is a table of strong
            labels; a row has no filename or label, a score that is no number in [0, 1], or repeats a class of
            a recording.
    """
    tags: dict[str, dict[str, float]] = {}
    names = Names()
    for cells in read_rows(path, ("filename",)):
        if "onset" in cells.cells:
            raise AnnotationError(path, "is a table of events, wanted one of clip-level scores")
        filename = names.of(cells.filename())
        if "event_label" in cells.cells and "score" in cells.cells:
            found = {normal(cells.text("event_label")): cells.number("score")}
        else:
            found = {normal(plain(name)): cells.number(name) for name in cells.cells if name != "filename"}
        own = tags.setdefault(filename, {})
        for label, score in found.items():
            if not label.strip():
                raise cells.error("no event_label")
            if score > 1.0:
                raise cells.error(f"score is {score:g}, wanted 0 to 1")
            if label in own:
                raise cells.error(f"{label} of {filename} is given twice")
            own[label] = score
    return tags


def is_tags(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a table of clip-level scores: ``filename`` first, and no onsets."""
    columns = read_columns(path)
    return columns[:1] == ["filename"] and not {"onset", "event_labels"} & set(columns) and len(columns) > 1


def is_weak(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a table of weak labels, with a column ``event_labels``."""
    return "event_labels" in read_columns(path)
