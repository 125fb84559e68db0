"""Checks of output paths before a command starts its work."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryFile

from htsat_sed.errors import HtsatSedError
from htsat_sed.remote import as_address


def check_files(*outputs: Path | None) -> None:
    """Refuse output files that cannot be written.

    Raises:
        HtsatSedError: one is a folder or named like a recording, or its folder does not exist.
    """
    from htsat_sed.audio import has_audio_suffix

    for path in (path for path in outputs if path is not None):
        _refuse_no_path(path)
        if path.is_dir():
            raise HtsatSedError(path, "is a folder: name a file")
        if has_audio_suffix(str(path)):
            raise HtsatSedError(
                path, "has the suffix of a recording, which could be lost: name another output"
            )
        if not path.absolute().parent.is_dir():
            raise HtsatSedError(path, "cannot be written: its folder does not exist")
        check_writable(path)


def check_writable(*outputs: Path | None) -> None:
    """Refuse outputs whose folder is not writable.

    Args:
        outputs: files, or folders that need not exist; None and devices are accepted.

    Raises:
        HtsatSedError: the folder is not writable.
    """
    for path in outputs:
        if path is None or _is_device(path):
            continue
        _refuse_no_path(path)
        folder = path if path.is_dir() else path.absolute().parent
        while not folder.is_dir() and folder != folder.parent:
            folder = folder.parent
        try:
            TemporaryFile(dir=folder).close()
        except OSError as error:
            raise HtsatSedError(folder, f"is not writable: {error.strerror}") from error


def _refuse_no_path(path: Path) -> None:
    """Refuse standard output, and an address, where only a disk will do: `Path` would make files of them."""
    if path == Path("-"):
        raise HtsatSedError(path, "standard output is not possible here: name a file or folder")
    if (address := as_address(path)) is not None:
        raise HtsatSedError(
            address, "cannot be written: only the --output of detect, tag and embed can be a URL"
        )


def check_apart(outputs: Iterable[Path | None], inputs: Iterable[str | Path | None]) -> None:
    """Refuse outputs that would replace inputs, also under another name, and outputs that coincide.

    Args:
        outputs: files.
        inputs: files, and folders whose files may be read; others, such as standard input, are accepted.

    Raises:
        HtsatSedError: an output is refused.
    """
    there: dict[tuple[int, int], Path] = {}
    places: set[str] = set()
    for output in outputs:
        if output is None:
            continue
        place = os.path.realpath(output)
        if place in places and not _is_device(output):
            raise HtsatSedError(output, "would be written twice: name another file for one of them")
        places.add(place)
        if (known := _identity(output)) is not None:
            there[known] = output
    if not there:
        return
    for path in inputs:
        if path is None:
            continue
        if (known := _identity(path)) in there:
            raise HtsatSedError(there[known], "is also an input: name another output")
        if os.path.isdir(path):  # noqa: PTH112, Path.is_dir raises where a folder above is closed
            for output in there.values():
                if Path(os.path.realpath(output)).is_relative_to(os.path.realpath(path)):
                    raise HtsatSedError(output, f"lies in the input {path}: name another output")


def _identity(path: str | Path) -> tuple[int, int] | None:
    """Device and inode of a regular file; None otherwise."""
    try:
        status = os.stat(path)  # noqa: PTH116, names of recordings may be no paths
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()
