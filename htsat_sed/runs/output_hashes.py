"""Record of written files, so that files changed by hand are not overwritten.

Each output folder has a hidden record, ``.htsat-sed.outputs``, with a JSON line for each written file: its
name and the SHA-256 of its content. A file may be replaced if its content has a recorded hash. A line is
written before the file is renamed into place, so that a killed process leaves no file without a line.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from htsat_sed.errors import HtsatSedError, UsageError
from htsat_sed.whole_file import sha256_before_naming

RECORD = ".htsat-sed.outputs"


def check_replaceable(*outputs: Path | None, overwrite: bool) -> None:
    """Refuse to replace files that htsat-sed did not write, or that were changed since.

    Args:
        outputs: files to be written; None is skipped.
        overwrite: replace any file.

    Raises:
        UsageError: a file must not be replaced.
    """
    for path in outputs:
        if path is not None and not overwrite and not is_replaceable(path):
            raise UsageError(
                f"{path}: exists, and htsat-sed did not write it or it was changed since: name another "
                "output, or give --overwrite"
            )


def is_replaceable(path: Path) -> bool:
    """Whether a file may be replaced: it is missing, empty, no regular file, or unchanged since written."""
    target = Path(os.path.realpath(path))
    try:
        if not target.is_file() or target.stat().st_size == 0:
            return True
    except OSError:  # such as a name that is too long; reported when it is written
        return True
    try:
        with target.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return False
    return digest in _recorded(target.parent / RECORD).get(target.name, ())


@contextmanager
def recording_outputs(*only: Path) -> Iterator[None]:
    """Record the files that `whole_file` writes in the block.

    Args:
        only: files to record; none for all that are written.
    """
    wanted = {os.path.realpath(path) for path in only}

    def record(target: Path, digest: str) -> None:
        if not wanted or str(target) in wanted:
            _record(target, digest)

    with sha256_before_naming(record):
        yield


def _record(target: Path, digest: str) -> None:
    """Add a line for a file before it is renamed into place.

    Raises:
        HtsatSedError: it cannot be written.
    """
    record = target.parent / RECORD
    line = json.dumps({"name": target.name, "sha256": digest}).encode() + b"\n"
    try:
        # A single append, since several processes may share the folder.
        handle = os.open(record, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            size = os.fstat(handle).st_size
            torn = size and os.pread(handle, 1, size - 1) != b"\n"
            os.write(handle, b"\n" + line if torn else line)
        finally:
            os.close(handle)
    except OSError as error:
        raise HtsatSedError(record, f"cannot be written: {error.strerror}") from error


def _recorded(record: Path) -> dict[str, set[str]]:
    """Name -> hashes; invalid lines are ignored."""
    status = _status(record)
    if record not in _CACHE or _CACHE[record][0] != status:
        found: dict[str, set[str]] = defaultdict(set)
        try:
            lines = record.read_bytes().splitlines()
        except OSError:
            lines = []
        for line in lines:
            try:
                entry = json.loads(line)
                found[entry["name"]].add(entry["sha256"])
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        _CACHE.clear()
        _CACHE[record] = status, found
    return _CACHE[record][1]


def _status(record: Path) -> tuple[int, int, int] | None:
    try:
        status = record.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


_CACHE: dict[Path, tuple[tuple[int, int, int] | None, dict[str, set[str]]]] = {}
