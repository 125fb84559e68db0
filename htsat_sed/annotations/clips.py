"""Tables about whole recordings: weak labels and durations."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Sequence

from htsat_sed.annotations.delimited import read_rows
from htsat_sed.annotations.text import Names
from htsat_sed.errors import AnnotationError
from htsat_sed.labels import audioset_labels, normal

_logger = logging.getLogger("htsat_sed")

_PIECE = re.compile(r'\s*"((?:[^"]|"")*)"\s*(?=,|$)|([^,]*)')


def read_weak_labels(path: str | os.PathLike[str], known: Collection[str] = ()) -> dict[str, set[str]]:
    """Read which classes occur in each recording.

    The columns are filename and event_labels, with the labels of a recording in one cell. A column
    event_label in its place has one label a row, so that a table of strong labels serves as well. Delimiters
    and quotes: see `delimited`.

    Labels in a cell are parted by ``|``, by ``;`` or by commas. Where a cell of the table has one of the
    first two, commas belong to labels in all of it. Else a comma belongs to a label that is in double quotes,
    or is in `known`, or is AudioSet's, such as ``Male speech, man speaking``: of several such labels, the
    longest counts. A comma and a blank elsewhere, as in ``Lion, Cow``, part two labels, with a warning.

    Args:
        path: the table.
        known: labels that occur, such as those of a model or a class map; never split.

    Returns:
        The labels of each recording, none where its cell is empty; the rows of a recording are united.

    Raises:
        AnnotationError: the file cannot be read, is empty, lacks a column, or a row has no filename.
    """
    rows = list(read_rows(path, ("filename",)))
    several = bool(rows) and "event_labels" in rows[0].cells
    if rows and not several and "event_label" not in rows[0].cells:
        seen = ", ".join(rows[0].cells)
        raise AnnotationError(path, f"lacks a column event_labels or event_label; it has {seen}")
    whole = frozenset(map(normal, (*known, *audioset_labels())))
    cells = [normal(row.text("event_labels" if several else "event_label")) for row in rows]
    separator = next(
        (each for each in "|;" if any(each in cell and cell not in whole for cell in cells)), ","
    )
    longest = 1 + max(label.count(",") for label in whole)
    labels: dict[str, set[str]] = {}
    names, guessed = Names(), list[int]()
    for row, cell in zip(rows, cells, strict=True):
        if not several or cell in whole:
            found = [cell]
        elif separator != ",":
            found = [normal(_PIECE.sub(_unquoted, part)) for part in cell.split(separator)]
        else:
            found, guess = _parted(cell, whole, longest)
            guessed += [row.line] * guess
        labels.setdefault(names.of(row.filename()), set()).update(label for label in found if label)
    if guessed:
        line = (
            f"{len(guessed)} cells, the first in line {guessed[0]}" if guessed[1:] else f"line {guessed[0]}"
        )
        _logger.warning(
            "%s: %s: labels parted at a comma and a blank; | parts labels that have one", path, line
        )
    return labels


def _unquoted(found: re.Match[str]) -> str:
    return found[0] if found[1] is None else found[1].replace('""', '"')


def _parted(cell: str, known: Collection[str], longest: int) -> tuple[list[str], bool]:
    """Labels with commas between them, and whether a comma and a blank part two that are not both known."""
    pieces: list[tuple[str, bool]] = []
    at = 0
    while at <= len(cell):
        found = _PIECE.match(cell, at)
        assert found is not None  # the second alternative fits everywhere
        pieces.append((_unquoted(found), found[1] is not None))
        at = found.end() + 1
    labels: list[str] = []
    guessed = False
    first = 0
    while first < len(pieces):
        last = _end_of_label(pieces, first, known, longest)
        label = normal(",".join(text for text, _ in pieces[first:last]))
        sure = label in known or pieces[first][1]
        follows = pieces[last][0] if last < len(pieces) else ""
        guessed |= not sure and follows[:1].isspace()
        if labels and not sure and pieces[first][0][:1].isspace():
            guessed = True
        labels.append(label)
        first = last
    return labels, guessed


def _end_of_label(
    pieces: Sequence[tuple[str, bool]], first: int, known: Collection[str], longest: int
) -> int:
    """The piece after the longest known label that begins with a piece; the next one if none does."""
    for last in range(min(len(pieces), first + longest), first + 1, -1):
        own = pieces[first:last]
        if not any(quoted for _, quoted in own) and normal(",".join(text for text, _ in own)) in known:
            return last
    return first + 1


def read_durations(path: str | os.PathLike[str]) -> dict[str, float]:
    """Read the duration of each recording, seconds, from the columns filename and duration.

    Raises:
        AnnotationError: the file cannot be read, is empty or lacks a column; or, naming the line: a row
            without a filename, a duration that is no number, NaN, infinite or not above 0, or unlike one
            given before for the same recording.
    """
    durations: dict[str, float] = {}
    names = Names()
    for cells in read_rows(path, ("filename", "duration")):
        filename, duration = names.of(cells.filename()), cells.number("duration")
        if duration == 0.0:
            raise cells.error("duration is 0, wanted more")
        if durations.setdefault(filename, duration) != duration:
            raise cells.error(f"duration {duration:g}, but {durations[filename]:g} before for {filename}")
    return durations
