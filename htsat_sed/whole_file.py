"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Literal

from htsat_sed.errors import HtsatSedError, UsageError

# What a write itself can fail with; Python names no file then.
_WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
# What fsync fails with on file systems that have none, such as some of FUSE and of networks.
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


_PROBE = 1 << 16  # bytes; a disk may be full and have the rest of a block


@contextmanager
def whole_file(path: str | os.PathLike[str], mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Write a file under another name and give it its own once everything is on the disk.

    The temporary file lies in the same folder and is hidden (``.4f1c…-09ab….part``: of the name a hash, which
    fits where a longer name would not, and chance). When the block ends
    with an exception it is removed, and a file that had the name before stays as it was. A symbolic
    link stays a link; its target is replaced. What is no regular file (a pipe behind ``/dev/stdout``,
    a FIFO) is written to directly.

    Args:
        path: the file to be; its folder must exist.
        mode: ``"w"`` for UTF-8 text, line ends as given, or ``"wb"`` for bytes.

    Yields:
        The open file.

    Raises:
        HtsatSedError: it cannot be written: no such folder, no permission, disk full, ...
        ValueError: `mode` is another one.
    """
    if mode not in ("w", "wb"):
        raise UsageError(f"wanted mode 'w' or 'wb', got {mode!r}")
    encoding, newline = ("utf-8", "") if mode == "w" else (None, None)
    target = Path(os.path.realpath(path))
    in_place = _is_device(Path(path))
    written = Path(path) if in_place else target.with_name(f"{_mark(target)}{secrets.token_hex(6)}.part")
    try:
        with written.open(mode, encoding=encoding, newline=newline) as file:
            yield file
            if not in_place:
                file.flush()
                sync(file.fileno())
        if not in_place:
            if _heard is not None:
                with written.open("rb") as whole:
                    _heard(target, hashlib.file_digest(whole, "sha256").hexdigest())
            written.replace(target)
            sync_folder(target.parent)
    except BaseException as error:
        if not in_place:
            with suppress(OSError):
                written.unlink()
        if isinstance(error, OSError) and (
            error.filename == str(written) or (error.filename is None and error.errno in _WRITE_ERRORS)
        ):
            raise HtsatSedError(path, f"cannot be written: {error.strerror}") from error
        raise


@contextmanager
def sha256_before_naming(heard: Callable[[Path, str], None]) -> Iterator[None]:
    """Hear of each file that `whole_file` completes in the block, before it gets its name.

    Args:
        heard: called with the file to be and the SHA-256 of its content.
    """
    global _heard
    before, _heard = _heard, heard
    try:
        yield
    finally:
        _heard = before


_heard: Callable[[Path, str], None] | None = None


def make_folder(path: Path) -> None:
    """Create a folder and its parents, if missing.

    Raises:
        HtsatSedError: it cannot be created, or is named like standard output.
    """
    if path == Path("-"):
        raise HtsatSedError(path, "standard output is not possible here: name a folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HtsatSedError(path, f"cannot be created: {error.strerror}") from error


def sync(handle: int) -> None:
    """Wait until a file is on the disk, where its file system can say so."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def why_not_written(folder: Path) -> str | None:
    """Why a library that gives no reason could not write into a folder; None if it can be written to now."""
    try:
        with TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_PROBE))
            probe.flush()
    except OSError as error:
        return error.strerror
    return None


def remove_unfinished(paths: Iterable[Path]) -> None:
    """Remove what killed processes left of files that they wrote; nobody may be writing them now.

    Args:
        paths: the files that were to be; whether they are there does not matter.
    """
    marks: dict[Path, set[str]] = {}
    for path in paths:
        target = Path(os.path.realpath(path))
        marks.setdefault(target.parent, set()).add(_mark(target))
    for folder, own in marks.items():
        with suppress(OSError):
            for found in folder.glob(".*.part"):
                if found.name.partition("-")[0] + "-" in own:
                    found.unlink()


def remove_all_unfinished(folder: Path) -> None:
    """Remove what killed processes left in a folder, whatever the files were to be.

    Args:
        folder: of one run alone; nobody else may be writing into it now.
    """
    with suppress(OSError):
        for found in folder.glob(".*.part"):
            if _UNFINISHED.fullmatch(found.name):
                found.unlink()


_UNFINISHED = re.compile(r"\.[0-9a-f]{12}-[0-9a-f]{12}\.part")


def _mark(target: Path) -> str:
    """How the names of a file's unfinished versions begin."""
    return f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}-"


def _is_device(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def sync_folder(folder: Path) -> None:
    """Make a renaming last through a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
