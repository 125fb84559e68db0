"""Clip-level scores as CSV: a row for each recording and class, or a column for each class.

    filename,event_label,score            filename,Speech,Dog
    street.wav,Speech,0.931204            street.wav,0.931204,0.010341
    street.wav,Dog,0.010341

Scores have 6 decimals. Quotes: see `delimited`; characters that are not Unicode: see `text`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from htsat_sed.annotations.delimited import read_rows, row

COLUMNS = ("filename", "event_label", "score")


def tags_header(labels: Sequence[str] | None = None) -> str:
    """The first line: of the long table, or of the wide one for these labels."""
    return row(COLUMNS if labels is None else ("filename", *labels), ",")


def long_rows(
    filename: str, scores: NDArray[np.float32], labels: Sequence[str], *, top: int | None = None
) -> str:
    """The rows of one recording in the long table, highest score first.

    Args:
        filename: the recording.
        scores: (K,).
        labels: K class names.
        top: only so many rows; None for all.
    """
    order = np.argsort(-scores, kind="stable")[:top]
    return "".join(row((filename, labels[i], f"{scores[i]:.6f}"), ",") for i in order)


def wide_row(filename: str, scores: NDArray[np.float32]) -> str:
    """The row of one recording in the wide table."""
    return row((filename, *(f"{score:.6f}" for score in scores)), ",")


def read_tags(path: str | os.PathLike[str]) -> dict[str, dict[str, float]]:
    """Read clip-level scores, long or wide.

    Returns:
        Recording -> label -> score, for all labels the file has of it.

    Raises:
        AnnotationError: the file cannot be read, lacks a column, has a score outside [0, 1], or one
            twice for the same recording and label.
    """
    tags: dict[str, dict[str, float]] = {}
    for each in read_rows(path, ("filename",)):
        long = {"event_label", "score"} <= set(each.cells)
        columns = ["score"] if long else [name for name in each.cells if name != "filename"]
        own = tags.setdefault(each.filename(), {})
        for column in columns:
            label = each.text("event_label") if long else column
            score = each.number(column)
            if score > 1.0:
                raise each.error(f"wanted a score in [0, 1], got {score:g}")
            if label in own:
                raise each.error(f"a second score of {label!r} for {each.filename()!r}")
            own[label] = score
    return tags
