"""Downloading a large file: resumes after interruptions, and verifies the file before naming it."""

from __future__ import annotations

import errno
import hashlib
import http.client
import logging
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from htsat_sed.errors import CheckpointError, HtsatSedError
from htsat_sed.whole_file import sync, whole_file

ByteProgress = Callable[[int, int | None], None]
"""Called with the number of bytes downloaded and the total, if known."""

_logger = logging.getLogger("htsat_sed")

_BLOCK = 1 << 18
_TIMEOUT = 30.0  # longest wait for data, seconds
_WAITING = 0.2  # pause between two attempts to take a lock, seconds


class _Refused(Exception):
    """The host refused the file; retrying is useless."""


def file_sha256(path: str | Path) -> str:
    """Compute the SHA-256 of a file, hexadecimal.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror}") from error


def download(
    url: str,
    path: Path,
    *,
    sha256: str,
    size: int | None = None,
    progress: ByteProgress | None = None,
    attempts: int = 4,
    pause: float = 1.0,
) -> None:
    """Download a file.

    Data is written to ``<path>.part``. If the connection breaks, the disk is full or the program stops, this
    file is kept, and the next call resumes the download. The file is renamed to `path` after its hash was
    verified; a file with another hash is removed. If several processes download the same file, one downloads
    and the others wait.

    Args:
        url: address, http or https.
        path: output file; its folder is created.
        sha256: expected hash, hexadecimal.
        size: expected size, bytes; None if unknown.
        progress: called with the bytes downloaded and the total, if known, after every block.
        attempts: consecutive connections without data before giving up.
        pause: pause before the second attempt, seconds; doubled for each further one.

    Raises:
        CheckpointError: the host refused, the connection kept breaking, the content is wrong, or the file
            cannot be written; the message names `path`.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(part):
            if path.is_file() and file_sha256(path) == sha256:  # another process has downloaded it
                part.unlink(missing_ok=True)
                return
            if not (part.is_file() and file_sha256(part) == sha256):
                with part.open("ab") as file:
                    _fetch_all(url, file, size=size, progress=progress, attempts=attempts, pause=pause)
                    file.flush()
                    sync(file.fileno())
            found = file_sha256(part)
            if found != sha256:
                part.unlink()
                raise CheckpointError(
                    path, f"{url} sent another file: its sha256 is {found}, wanted {sha256}"
                )
            part.replace(path)
    except _Refused as error:
        raise CheckpointError(path, f"{url} {error}") from error
    except (OSError, http.client.HTTPException) as error:
        raise CheckpointError(path, _broken_off(part, error)) from error


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Lock an unfinished file against other processes; the system releases the lock of a killed process."""
    # Windows cannot rename or remove an open file, so the lock is a separate file there.
    lock = part.with_name(part.name + ".lock") if sys.platform == "win32" else part
    reported = False
    while True:
        with lock.open("ab") as file:
            while not _locked(file):
                if not reported:
                    _logger.warning("%s: another process is downloading it; waiting", part.with_suffix(""))
                    reported = True
                time.sleep(_WAITING)
            with suppress(FileNotFoundError):  # finished or removed meanwhile
                if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                    yield
                    break
    if lock != part:
        with suppress(OSError):  # another process waits, and removes it later
            lock.unlink(missing_ok=True)


def _locked(file: IO[bytes]) -> bool:
    """Try to lock a file; return whether that succeeded."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise
    return True


def adopt(source: str | Path, path: Path, *, sha256: str) -> None:
    """Verify a file that was downloaded by hand, and copy it.

    Args:
        source: the file.
        path: output file; its folder is created.
        sha256: expected hash, hexadecimal.

    Raises:
        CheckpointError: the file cannot be read or written, or has another hash.
    """
    found = file_sha256(source)
    if found != sha256:
        raise CheckpointError(source, f"is another file: its sha256 is {found}, wanted {sha256}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with Path(source).open("rb") as original, whole_file(path, "wb") as copy:
            shutil.copyfileobj(original, copy)
    except HtsatSedError as error:
        raise CheckpointError(error.path, error.reason) from error
    except OSError as error:
        raise CheckpointError(path, f"cannot be written: {error.strerror}") from error


def _fetch_all(
    url: str, file: IO[bytes], *, size: int | None, progress: ByteProgress | None, attempts: int, pause: float
) -> None:
    """Connect until the file is complete; a connection that yields data resets the count of failures."""
    failures = 0
    while True:
        before = file.tell()
        try:
            if _fetch(url, file, size=size, progress=progress):
                return
            error: Exception = ConnectionError("the connection was lost")
        except urllib.error.HTTPError as failure:
            failure.close()
            if failure.code not in (408, 429, 500, 502, 503, 504):
                raise _Refused(f"answers {failure.code} {failure.reason}") from failure
            error = ConnectionError(f"the host answers {failure.code} {failure.reason}")
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as failure:
            error = failure
        failures = 1 if file.tell() > before else failures + 1
        if failures >= attempts:
            raise error
        time.sleep(pause * 2 ** (failures - 1))


def _fetch(url: str, file: IO[bytes], *, size: int | None, progress: ByteProgress | None) -> bool:
    """Request the rest of a file and append it; return whether the file is complete."""
    start = file.tell()
    headers = {"User-Agent": "htsat-sed", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        error.close()
        file.truncate(0)  # the part is not a prefix of this file
        file.seek(0)
        return False
    with response:
        if response.headers.get_content_type() == "text/html":
            raise _Refused("answers with a web page instead of the file (a quota or a confirmation)")
        if start and not (
            response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        ):
            file.truncate(0)  # the host ignored the range and sends the whole file
            file.seek(0)
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdecimal() else None
        if None not in (size, total) and size != total:
            raise _Refused(f"offers a file of {total} bytes, wanted {size}")
        while block := response.read(_BLOCK):
            file.write(block)
            if progress is not None:
                progress(file.tell(), total or size)
    wanted = total or size
    return wanted is None or file.tell() >= wanted


def _broken_off(part: Path, error: Exception) -> str:
    """Describe in one line why a download stopped, and the size of its unfinished file."""
    cause = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    there = part.stat().st_size if part.exists() else 0
    kept = f"; {there} bytes are kept, and the next attempt resumes from there" if there else ""
    return f"cannot be downloaded: {cause}{kept}"
