"""Tables of whole recordings: weak labels and durations."""

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
    """Read the classes in each recording.

    The columns are filename and event_labels, with all labels of a recording in one cell; or event_label,
    with one label per row, so that a table of strong labels is accepted as well. Delimiters and quotes: see
    `delimited`.

    Labels in a cell are separated by ``|``, ``;`` or commas. If any cell has one of the first two, commas are
    part of labels in the whole table. Otherwise a comma is part of a label if the label is in double quotes,
    in `known`, or AudioSet's, such as ``Male speech, man speaking``; the longest such label applies. Other
    commas followed by a space, as in ``Lion, Cow``, separate labels, with a warning.

    Args:
        path: the table.
        known: labels that are not split, such as those of a model or a class map.

    Returns:
        The labels of each recording, from all its rows; none for an empty cell.

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
            "%s: %s: labels split at a comma followed by a space; use | between labels with commas",
            path,
            line,
        )
    return labels


def _unquoted(found: re.Match[str]) -> str:
    return found[0] if found[1] is None else found[1].replace('""', '"')


def _parted(cell: str, known: Collection[str], longest: int) -> tuple[list[str], bool]:
    """Labels separated by commas, and whether the separation of unknown labels was guessed."""
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
    """End of the longest known label that begins at a piece; the next piece if there is none."""
    for last in range(min(len(pieces), first + longest), first + 1, -1):
        own = pieces[first:last]
        if not any(quoted for _, quoted in own) and normal(",".join(text for text, _ in own)) in known:
            return last
    return first + 1


def read_durations(path: str | os.PathLike[str]) -> dict[str, float]:
    """Read the duration of each recording in seconds, from the columns filename and duration.

    Raises:
        AnnotationError: the file cannot be read, is empty or lacks a column; a row has no filename, a
            duration that is no finite number above 0, or one that contradicts an earlier row.
    """
    durations: dict[str, float] = {}
    names = Names()
    for cells in read_rows(path, ("filename", "duration")):
        filename, duration = names.of(cells.filename()), cells.number("duration")
        if duration == 0.0:
            raise cells.error("duration is 0, wanted more")
        if durations.setdefault(filename, duration) != duration:
            raise cells.error(
                f"duration {duration:g}, but an earlier line has {durations[filename]:g} for {filename}"
            )
    return durations
