"""Tables about whole recordings: weak labels and durations."""

from __future__ import annotations

import os
import re

from htsat_sed.annotations.delimited import read_rows
from htsat_sed.errors import AnnotationError


def read_weak_labels(path: str | os.PathLike[str]) -> dict[str, set[str]]:
    """Read which classes occur in each recording.

    Wanted are the columns filename and event_labels, with the labels of a recording in one cell and
    commas between them: ``Speech,Dog``. A comma before a space belongs to the label, as in AudioSet's
    ``Male speech, man speaking``. A column event_label in its place has one label a row, so that a table
    of strong labels serves as well. Delimiters and quotes: see `delimited`.

    Returns:
        The labels of each recording, none where its cell is empty; the rows of a recording are united.

    Raises:
        AnnotationError: the file cannot be read, is empty, lacks a column, or a row has no filename.
    """
    labels: dict[str, set[str]] = {}
    for cells in read_rows(path, ("filename",)):
        if "event_labels" in cells.cells:
            found = re.split(r",(?! )", cells.text("event_labels"))
        elif "event_label" in cells.cells:
            found = [cells.text("event_label")]
        else:
            seen = ", ".join(cells.cells)
            raise AnnotationError(path, f"lacks a column event_labels or event_label; it has {seen}")
        labels.setdefault(cells.filename(), set()).update(label.strip() for label in found if label.strip())
    return labels


def read_durations(path: str | os.PathLike[str]) -> dict[str, float]:
    """Read the duration of each recording, seconds, from the columns filename and duration.

    Raises:
        AnnotationError: the file cannot be read, is empty or lacks a column; or, naming the line: a row
            without a filename, a duration that is no number, NaN, infinite or not above 0, or unlike one
            given before for the same recording.
    """
    durations: dict[str, float] = {}
    for cells in read_rows(path, ("filename", "duration")):
        filename, duration = cells.filename(), cells.number("duration")
        if duration == 0.0:
            raise cells.error("duration is 0, wanted more")
        if durations.setdefault(filename, duration) != duration:
            raise cells.error(f"duration {duration:g}, but {durations[filename]:g} before for {filename}")
    return durations
