"""Table of the failed and damaged recordings of a run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from htsat_sed.annotations.delimited import read_rows, row
from htsat_sed.errors import HtsatSedError, UsageError
from htsat_sed.whole_file import whole_file

_COLUMNS = ("filename", "reason")
_HEADER = row(_COLUMNS, ",")
_READ = "used, but "  # prefix of the reason for a damaged recording that was read


def check_failures(path: Path, outputs: Iterable[Path]) -> None:
    """Refuse a path for the table that another file or output occupies.

    Args:
        path: path of the table.
        outputs: other outputs of the run.

    Raises:
        ValueError: the path is occupied.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder: name a file for the failures")
    if os.path.realpath(path) in map(os.path.realpath, outputs):
        raise UsageError(f"{path}: is for the results: name another file for the failures")
    if path.is_file() and not _is_own(path):
        raise UsageError(f"{path}: exists and is not a list of failures: name another file")


def write_failures(
    path: Path,
    failures: Sequence[tuple[str, str]],
    defects: Sequence[tuple[str, str]] = (),
    *,
    safe_cells: bool = False,
) -> None:
    """Write the table of failures; if there are none, remove that of an earlier run.

    Args:
        path: a CSV file, with the columns filename and reason.
        failures: recording, as in the other tables, and reason.
        defects: recordings that were read although damaged, and the damage; listed after the failures.
        safe_cells: keep spreadsheets from running names as formulas, see `delimited`.

    Raises:
        HtsatSedError: it cannot be written.
    """
    if not (failures or defects):
        if path.is_file() and _is_own(path):
            path.unlink(missing_ok=True)  # another process may remove it first
        return
    with whole_file(path) as file:
        file.write(_HEADER)
        read = [(name, _READ + defect) for name, defect in defects]
        file.writelines(row(cells, ",", safe_cells=safe_cells) for cells in [*failures, *read])


def read_defects(path: Path) -> dict[str, str]:
    """Read the damaged recordings of a table, with the damage; empty without a table."""
    defects: dict[str, str] = {}
    with suppress(HtsatSedError):
        for line in read_rows(path, _COLUMNS):
            name, reason = line.filename(), line.text("reason")
            if reason.startswith(_READ):
                defects[name] = reason.removeprefix(_READ)
    return defects


def _is_own(path: Path) -> bool:
    """Whether a file is such a table, or was just removed."""
    try:
        with path.open("rb") as file:
            return file.read(len(_HEADER)) in (b"", _HEADER.encode())
    except OSError as error:
        return isinstance(error, FileNotFoundError)
