"""Tables of delimited text: TSV and CSV, quoted as in RFC 4180.

Writing: a cell that contains the delimiter, a double quote or a line break, or begins with a space, is put in
double quotes, with inner ones doubled. Reading: the delimiter is the tab, comma or semicolon that yields the
most wanted columns of the header; lines end in LF, CRLF or CR; a byte order mark, blank lines and spaces
before a cell are skipped; columns may be in any order and case, with others.

Spreadsheets run a cell that begins with ``=``, ``+``, ``-`` or ``@`` as a formula. With ``safe_cells``, such
cells, and those that begin with a tab or line break, get a leading apostrophe. Reading removes one apostrophe
before such text, and writing adds one to text that already has one, with or without ``safe_cells``, so that
text round-trips exactly.

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
_SEP = re.compile(r"\A\s*\"?sep=.\"?(\r\n|\r|\n)")  # the delimiter, as Excel reads it in the first line
# Full-width signs too: some spreadsheets take them for the plain ones.
_FORMULA = re.compile(r"['\s]*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def row(cells: Sequence[str], delimiter: str, *, safe_cells: bool = False) -> str:
    """One line of a table, with its line break.

    Args:
        cells: texts.
        delimiter: delimiter of the cells.
        safe_cells: put an apostrophe before cells that a spreadsheet would run as a formula.
    """
    texts = (escape_ends(escape(_guarded(text, safe_cells))) for text in cells)
    return delimiter.join(_cell(text, delimiter) for text in texts) + "\n"


def _guarded(text: str, safe: bool) -> str:
    return f"'{text}" if (safe or text[:1] == "'") and _FORMULA.match(text) else text


def plain(cell: str) -> str:
    """The text of a cell or column name, as given to `row`, without surrounding whitespace.

    Surrounding whitespace of a written text is escaped and therefore kept.
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
        line: its first line, from 1.
        cells: column name, as in the header -> text.
        comma: whether decimal commas are allowed: in all tables that no commas separate.
    """

    path: str | os.PathLike[str]
    line: int
    cells: dict[str, str]
    comma: bool

    def text(self, column: str) -> str:
        """The text of a cell, see `plain`; empty if there is no such column."""
        return plain(self.cells.get(column, ""))

    def number(self, column: str) -> float:
        """The number in a cell, 0 or more.

        Raises:
            AnnotationError: it is not a number, NaN, infinite or negative.
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
        wanted: required columns; others are allowed.

    Yields:
        Rows; missing cells at the end of a row are empty.

    Raises:
        AnnotationError: the file cannot be read or is empty, lacks a column, a row has too many cells, or a
            quote is never closed.
    """
    text = read_text(path)
    headers = {delimiter: _header(text, delimiter, wanted) for delimiter in _DELIMITERS}
    delimiter = max(headers, key=lambda d: (len(set(headers[d]) & set(wanted)), len(headers[d])))
    names = headers[delimiter]
    if not names:
        what = "has a header with unbalanced quotes" if text.strip() else "is empty"
        raise AnnotationError(path, f"{what}, wanted a table with the columns {', '.join(wanted)}")
    if len(names) == 1 and (apart := names[0].split())[1:] and {name.lower() for name in apart} & set(wanted):
        raise AnnotationError(
            path, "has spaces between its columns: separate them by tabs, commas or semicolons"
        )
    if missing := [name for name in wanted if name not in names]:
        raise AnnotationError(path, f"lacks the columns {', '.join(missing)}; it has {', '.join(names)}")
    if twice := [name for name in wanted if names.count(name) > 1]:
        raise AnnotationError(path, f"has the column {twice[0]} twice: remove or rename one of them")
    rows = _rows(text, delimiter)
    next(rows)
    try:
        for line, cells in rows:
            if any(cells[len(names) :]):
                reason = f"line {line}: {len(cells)} cells, but {len(names)} columns"
                if delimiter == ",":
                    reason += '; put cells with a comma in quotes, such as "Baby cry, infant cry"'
                raise AnnotationError(path, reason)
            cells += [""] * (len(names) - len(cells))
            yield Row(path, line, dict(zip(names, cells, strict=False)), comma=delimiter != ",")
    except csv.Error as error:
        raise AnnotationError(path, str(error)) from error


def read_columns(path: str | os.PathLike[str]) -> list[str]:
    """Column names in the first line of a table, in lower case; empty for folders and binary files.

    Raises:
        AnnotationError: the file cannot be read.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:  # noqa: PTH123
            first = file.readline(_LONGEST_HEADER)
            if _SEP.match(first):
                first = file.readline(_LONGEST_HEADER)
    except (IsADirectoryError, UnicodeDecodeError):
        return []
    except OSError as error:
        raise AnnotationError(path, f"cannot be read: {error.strerror}") from error
    return [name.strip().strip('"').lower() for name in re.split("[\t,;]", first)]


def _header(text: str, delimiter: str, wanted: Sequence[str]) -> list[str]:
    """Column names, spelt as in `wanted`; empty if the quotes are invalid with the delimiter."""
    spelt = {name.lower(): name for name in wanted}
    try:
        _, names = next(_rows(text, delimiter), (0, []))
    except csv.Error:
        return []
    return [spelt.get(name.strip().lower(), name.strip()) for name in names]


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Non-empty rows with their first lines."""
    # The line that names the delimiter becomes an empty one, so that numbers of lines stay right.
    lines = io.StringIO(_SEP.sub(r"\1", text, count=1), newline="")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    line = 1
    try:
        for cells in reader:
            if any(cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise csv.Error(f"line {line}: unbalanced quotes: {error}") from error
