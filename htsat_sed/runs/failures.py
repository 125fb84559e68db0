"""What failed in a run, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from htsat_sed.annotations.delimited import row
from htsat_sed.whole_file import whole_file


def write_failures(path: Path, failures: Sequence[tuple[str, str]]) -> None:
    """Write the table of what failed; without failures, remove the one that an earlier run left.

    Args:
        path: a CSV file, with the columns filename and reason.
        failures: recording, as in the other tables, and reason.

    Raises:
        HtsatSedError: it cannot be written.
    """
    if not failures:
        path.unlink(missing_ok=True)
        return
    with whole_file(path) as file:
        file.write(row(("filename", "reason"), ","))
        file.writelines(row(failure, ",") for failure in failures)
