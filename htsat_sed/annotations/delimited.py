"""Tables of delimited text: TSV and CSV, quoted as RFC 4180 has it.

Written: a cell that holds the delimiter, a double quote or a line end, or begins with a space, stands in
double quotes, those inside it doubled. Read: the delimiter is a tab, a comma or a semicolon, whichever
splits the header into most columns of those wanted; lines end in LF, CRLF or CR; a byte order mark, blank
lines and spaces before a cell are skipped; columns may stand in any order, beside others, in any case.

Spreadsheets run a cell that begins with ``=``, ``+``, ``-`` or ``@`` as a formula. With ``safe_cells`` an
apostrophe stands before such a cell, and before one that begins with a tab or line end. Reading takes one
apostrophe away before such a text, and writing adds one to a text that has one itself, with or without
``safe_cells``: what is read is what was written.

Source: OWASP, "CSV Injection", https://owasp.org/www-community/attacks/CSV_Injection.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from htsat_sed.annotations.text import escape, escape_ends, number, read_text, unescape
from htsat_sed.errors import AnnotationError

_DELIMITERS = ("\t", ",", ";")
_LONGEST_HEADER = 1 << 20
# Full-width signs too: some spreadsheets take them for the plain ones.
_FORMULA = re.compile(r"['\s]*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def row(cells: Sequence[str], delimiter: str, *, safe_cells: bool = False) -> str:
    """One line of a table, its line end included.

    Args:
        cells: texts.
        delimiter: between them.
        safe_cells: put an apostrophe before cells that a spreadsheet would run as a formula.
    """
    texts = (escape_ends(escape(_guarded(text, safe_cells))) for text in cells)
    return delimiter.join(_cell(text, delimiter) for text in texts) + "\n"


def _guarded(text: str, safe: bool) -> str:
    return f"'{text}" if (safe or text[:1] == "'") and _FORMULA.match(text) else text


def plain(cell: str) -> str:
    """The text of a cell, or of a column name, as it was given to `row`; blanks at its ends are dropped.

    Blanks that a text really has there are written escaped, and stay.
    """
    text = unescape(cell.strip())
    return text[1:] if text[:1] == "'" and _FORMULA.match(text) else text


def _cell(text: str, delimiter: str) -> str:
    if text.startswith(" ") or not {delimiter, '"', "\r", "\n"}.isdisjoint(text):
        return '"' + text.replace('"', '""') + '"'
    return text


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        path: the file, for errors.
        line: the line it begins in, from 1.
        cells: column name, as in the header -> text.
        comma: a comma stands for the decimal point, as it may where semicolons part the cells.
    """

    path: str | os.PathLike[str]
    line: int
    cells: dict[str, str]
    comma: bool

    def text(self, column: str) -> str:
        """The text of a cell, see `plain`, empty where the table has no such column."""
        return plain(self.cells.get(column, ""))

    def number(self, column: str) -> float:
        """The number in a cell, 0 or more.

        Raises:
            AnnotationError: it is no number, NaN, infinite or negative.
        """
        return number(self.path, self.line, column, self.cells.get(column, ""), comma=self.comma)

    def filename(self) -> str:
        """The cell of the column ``filename``.

        Raises:
            AnnotationError: it is empty.
        """
        if not (filename := self.text("filename")):
            raise self.error("no filename")
        return filename

    def error(self, reason: str) -> AnnotationError:
        """An error that names file and line."""
        return AnnotationError(self.path, f"line {self.line}: {reason}")


def read_rows(path: str | os.PathLike[str], wanted: Sequence[str]) -> Iterator[Row]:
    """Read a table row by row.

    Args:
        path: a text file with a header line.
        wanted: columns that must be there; others may be.

    Yields:
        Rows. A row with too few cells counts as filled up with empty ones.

    Raises:
        AnnotationError: the file cannot be read or is empty, lacks a column, a row has too many cells, or a
            quote is never closed.
    """
    text = read_text(path)
    headers = {delimiter: _header(text, delimiter, wanted) for delimiter in _DELIMITERS}
    delimiter = max(headers, key=lambda d: (len(set(headers[d]) & set(wanted)), len(headers[d])))
    names = headers[delimiter]
    if not names:
        what = "has a header whose quotes do not fit" if text.strip() else "is empty"
        raise AnnotationError(path, f"{what}, wanted a table with the columns {', '.join(wanted)}")
    if len(names) == 1 and (apart := names[0].split())[1:] and {name.lower() for name in apart} & set(wanted):
        raise AnnotationError(
            path, "has blanks between its columns: part them with tabs, commas or semicolons"
        )
    if missing := [name for name in wanted if name not in names]:
        raise AnnotationError(path, f"lacks the columns {', '.join(missing)}; it has {', '.join(names)}")
    rows = _rows(text, delimiter)
    next(rows)
    try:
        for line, cells in rows:
            if any(cells[len(names) :]):
                reason = f"line {line}: {len(cells)} cells, but {len(names)} columns"
                if delimiter == ",":
                    reason += '; put what has a comma in quotes, such as "Baby cry, infant cry"'
                raise AnnotationError(path, reason)
            cells += [""] * (len(names) - len(cells))
            yield Row(path, line, dict(zip(names, cells, strict=False)), comma=delimiter == ";")
    except csv.Error as error:
        raise AnnotationError(path, str(error)) from error


def read_columns(path: str | os.PathLike[str]) -> list[str]:
    """Column names in the first line of a table, in lower case; empty for folders and files that are no text.

    Raises:
        AnnotationError: the file cannot be read.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:  # noqa: PTH123
            first = file.readline(_LONGEST_HEADER)
    except (IsADirectoryError, UnicodeDecodeError):
        return []
    except OSError as error:
        raise AnnotationError(path, f"cannot be read: {error.strerror}") from error
    return [name.strip().strip('"').lower() for name in re.split("[\t,;]", first)]


def _header(text: str, delimiter: str, wanted: Sequence[str]) -> list[str]:
    """Column names; a name wanted is spelt as wanted. None where the delimiter does not fit the quotes."""
    spelt = {name.lower(): name for name in wanted}
    try:
        _, names = next(_rows(text, delimiter), (0, []))
    except csv.Error:
        return []
    return [spelt.get(name.strip().lower(), name.strip()) for name in names]


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, each with the line it begins in."""
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    line = 1
    try:
        for cells in reader:
            if any(cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise csv.Error(f"line {line}: quotes do not fit: {error}") from error
