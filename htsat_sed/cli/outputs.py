"""What a command writes, made sure of before hours of work."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from htsat_sed.errors import HtsatSedError

_Path = str | Path | None


def check_folders(*outputs: Path | None) -> None:
    """Refuse a file whose folder is not there.

    Raises:
        HtsatSedError: naming the file.
    """
    for path in outputs:
        if path is not None and not path.absolute().parent.is_dir():
            raise HtsatSedError(path, "cannot be written: its folder does not exist")


def check_apart(outputs: Iterable[_Path], inputs: Iterable[_Path]) -> None:
    """Refuse to write over what is read, be it by another name.

    Args:
        outputs: files or folders; those that are not there yet cannot be read either.
        inputs: files or folders; what is none, such as the name of a checkpoint, passes.

    Raises:
        HtsatSedError: naming the output.
    """
    written = {known: path for path in outputs if path is not None and (known := _identity(path))}
    if not written:
        return
    for path in inputs:
        known = _identity(path) if path is not None else None
        if known in written:
            raise HtsatSedError(written[known], "is read, too, and would be lost: name another output")


def _identity(path: str | Path) -> tuple[int, int] | None:
    """What a file or folder that is there is known by; None for devices and pipes."""
    try:
        status = os.stat(path)  # noqa: PTH116, names of recordings may be no paths
    except (OSError, ValueError):
        return None
    regular = os.path.isfile(path) or os.path.isdir(path)  # noqa: PTH112, PTH113
    return (status.st_dev, status.st_ino) if regular else None
