"""Which files htsat-sed wrote and nobody has changed since, so that no correction by hand is overwritten.

Each folder with outputs has a hidden record, ``.htsat-sed.outputs``: a line of JSON for each file that was
written, with its name and the SHA-256 of its content. A file may be replaced if its content has one of the
hashes that its name has there. A line comes before the file gets its name, so that no kill leaves a file
without one.
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
        outputs: files to be written; None for none.
        overwrite: replace them all the same.

    Raises:
        UsageError: naming the first such file.
    """
    for path in outputs:
        if path is not None and not overwrite and not is_replaceable(path):
            raise UsageError(
                f"{path}: is there, and is not as htsat-sed left it: name another output, or say --overwrite"
            )


def is_replaceable(path: Path) -> bool:
    """Whether nothing is lost with a file: it is not there, empty, no regular file, or as it was written."""
    target = Path(os.path.realpath(path))
    try:
        if not target.is_file() or target.stat().st_size == 0:
            return True
    except OSError:  # such as a name that is too long: the error comes where it is written
        return True
    try:
        with target.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return False
    return digest in _recorded(target.parent / RECORD).get(target.name, ())


@contextmanager
def recording_outputs() -> Iterator[None]:
    """Record each file that is written in the block by `whole_file`."""
    with sha256_before_naming(_record):
        yield


def _record(target: Path, digest: str) -> None:
    """Add a line for a file that is about to get its name.

    Raises:
        HtsatSedError: it cannot be written.
    """
    record = target.parent / RECORD
    line = json.dumps({"name": target.name, "sha256": digest}).encode() + b"\n"
    try:
        # One write at the end of the file: several processes may share the folder.
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
    """Name -> hashes; lines that are torn or of another form are left out."""
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
