"""Recordings in object stores and on web servers: s3://, gs://, https://, hf:// and others, through fsspec.

A remote recording is copied into a temporary file while it is read: decoders seek, and a pass over a network
that breaks off would have to begin anew. There are as many such files as recordings are read at once; each
goes when its recording has been read. Copies come in blocks, each of which is tried again when the connection
breaks or the server is busy. What is written (`upload`, `write_bytes`) goes to an object store, whose objects
appear whole or not at all and cannot be appended to.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from htsat_sed.errors import HtsatSedError, UsageError
from htsat_sed.libraries import load

_T = TypeVar("_T")

PROTOCOLS = frozenset(
    {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "http", "https", "hf", "ftp", "sftp", "webdav"}
)
STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})  # take outputs, too
_WEB = ("http://", "https://")
_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "hf": "huggingface_hub",
    "sftp": "paramiko",
}
_PACKAGES |= dict.fromkeys(("az", "abfs", "abfss"), "adlfs") | {"webdav": "webdav4"}
_LASTING = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound")  # of botocore
_BLOCK = 4 << 20
_ATTEMPTS = 6
_PAUSE, _LONGEST_PAUSE = 0.25, 8.0  # seconds before the second attempt, doubled for each further one
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://")


class RemoteError(HtsatSedError):
    """A remote file or folder cannot be read or written; `__cause__` is the store's own exception."""


def is_remote(path: str) -> bool:
    """Whether a path is the address of something that is not on this machine."""
    found = _ADDRESS.match(path)
    return found is not None and found[1] in PROTOCOLS


def as_address(path: Path) -> str | None:
    """The address that a path stands for, which has lost one of its slashes; None for one on a disk."""
    protocol, colon, rest = path.as_posix().partition(":")
    is_address = colon and protocol in PROTOCOLS and rest[:1] in ("", "/")
    return f"{protocol}://{rest.strip('/')}" if is_address else None


def is_web(path: str) -> bool:
    """Whether a path is the address of a file on a web server, which has no folders to name it by."""
    return path.startswith(_WEB)


def name_of(address: str) -> str:
    """The file name in an address; of a web address without its query."""
    path = urlsplit(address).path if address.startswith(_WEB) else address
    name = PurePosixPath(path).name
    return unquote(name) if address.startswith(_WEB) else name


def shown(address: str) -> str:
    """An address for messages: without user, password and query, which may be keys."""
    if not address.startswith(_WEB):
        return address
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def find_below(address: str) -> list[tuple[str, str]]:
    """The files that an address stands for: one, those below a folder, or those that fit a pattern.

    Returns:
        Addresses, and the path of each below the folder or the part of the pattern without wildcards; sorted.

    Raises:
        RemoteError: it is not there, or cannot be listed.
        UsageError: the library for its protocol is not installed.
    """
    system, path = _system(address)
    if address.startswith(_WEB):
        return [(address, name_of(address))]  # a server has no list of its files that all agree on
    magic = re.search(r"[*?\[]", path)
    base = path[: path.rfind("/", 0, magic.start()) + 1] if magic else path.rstrip("/") + "/"

    def found() -> list[str]:
        if magic:
            return [each for each, info in system.glob(path, detail=True).items() if info["type"] == "file"]
        if system.isfile(path):
            return [path]
        return [str(each) for each in system.find(path)]

    files = _patiently(address, found)
    if files == [path]:
        return [(address, name_of(address))]
    return [(system.unstrip_protocol(each), each.removeprefix(base)) for each in sorted(files)]


def size_and_version(address: str) -> tuple[int, int]:
    """Bytes of a remote file, and a number that changes with its content, as far as the store tells.

    Raises:
        RemoteError: it cannot be asked for.
        UsageError: the library for its protocol is not installed.
    """
    system, path = _system(address)
    info = _patiently(address, lambda: system.info(path))
    told = [
        info.get(key)
        for key in ("ETag", "etag", "md5Hash", "LastModified", "mtime", "updated", "last_commit")
    ]
    return int(info.get("size") or 0), zlib.crc32(repr(told).encode())


def files_below(address: str) -> dict[str, int]:
    """Path below a folder of a store -> bytes, of all files; empty where there are none.

    Raises:
        RemoteError: it cannot be listed.
        UsageError: the library for its protocol is not installed.
    """
    system, path = _system(address)
    base = path.rstrip("/") + "/"

    def found() -> dict[str, int]:
        system.invalidate_cache()  # other processes write, too
        return {
            str(each).removeprefix(base): int(info["size"])
            for each, info in system.find(base, detail=True).items()
            if str(each).startswith(base) and each != base
        }

    return _patiently(address, found)


def is_there(address: str) -> bool:
    """Whether there is an object of this address.

    Raises:
        RemoteError: the store does not say.
    """
    system, path = _system(address)

    def asked() -> bool:
        system.invalidate_cache()
        try:
            return bool(system.info(path)["type"] == "file")
        except FileNotFoundError:
            return False

    return _patiently(address, asked)


def read_bytes(address: str) -> bytes:
    """The content of a small file.

    Raises:
        RemoteError: it cannot be read.
    """
    system, path = _system(address)
    return bytes(_patiently(address, lambda: system.cat_file(path)))


def write_bytes(address: str, data: bytes) -> None:
    """Write an object.

    Raises:
        RemoteError: it cannot be written.
    """
    system, path = _system(address)
    _patiently(address, lambda: system.pipe_file(path, data), verb="written")


def upload(files: Sequence[tuple[Path, str]]) -> None:
    """Write files of this machine as objects, several at once.

    Args:
        files: each with its address, all in one store.

    Raises:
        RemoteError: one cannot be written; others may be.
    """
    if files:
        address = files[0][1]
        paths = [_system(each)[1] for _, each in files]
        local = [os.fspath(each) for each, _ in files]
        system = _system(address)[0]
        _patiently(address, lambda: system.put(local, paths), verb="written")


def remove(address: str) -> None:
    """Remove an object; one that is not there is no error.

    Raises:
        RemoteError: it cannot be removed.
    """
    system, path = _system(address)

    def gone() -> None:
        with suppress(FileNotFoundError):
            system.rm_file(path)

    _patiently(address, gone, verb="removed")


@contextmanager
def fetched(address: str, beat: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """A temporary copy of a remote file.

    Args:
        address: of the file.
        beat: called whenever the copy makes progress.

    Raises:
        RemoteError: it is not there, the connection breaks again and again, or there is no room.
        UsageError: the library for its protocol is not installed.
    """
    with TemporaryDirectory(prefix="htsat-sed-") as folder:
        suffix = PurePosixPath(name_of(address)).suffix
        copy = Path(folder) / f"remote{suffix if re.fullmatch(r'[.][A-Za-z0-9]{1,16}', suffix) else ''}"
        _copy(address, copy, beat)
        yield copy


def _copy(address: str, copy: Path, beat: Callable[[], None]) -> None:
    system, path = _system(address)
    info = _patiently(address, lambda: system.info(path), beat)
    size = info.get("size")
    if size is not None and size > (room := shutil.disk_usage(copy.parent).free):
        reason = f"has {size} bytes, more than the {room} that are free in {copy.parent.parent}: set TMPDIR"
        raise RemoteError(shown(address), reason)
    try:
        with copy.open("wb") as file:
            if size is None:
                file.write(_patiently(address, lambda: system.cat_file(path), beat))
                return
            while (start := file.tell()) < size:
                file.write(_block(address, system, path, start, min(start + _BLOCK, size), size, beat))
                beat()
    except OSError as error:
        raise RemoteError(shown(address), f"cannot be copied to {copy.parent}: {error.strerror}") from error


def _block(
    address: str, system: Any, path: str, start: int, end: int, size: int, beat: Callable[[], None]
) -> bytes:
    """The bytes from `start` to before `end`; all of them from a server that knows no ranges."""

    def read() -> bytes:
        data: bytes = system.cat_file(path, start=start, end=end)
        if len(data) == size and start > 0:  # the whole file, although a part was asked for
            data = data[start:end]
        if len(data) not in (end - start, size - start):
            raise ConnectionError(f"received {len(data)} bytes instead of {end - start}")
        return data

    return _patiently(address, read, beat)


def _patiently(
    address: str, ask: Callable[[], _T], beat: Callable[[], None] = lambda: None, *, verb: str = "read"
) -> _T:
    """What a call to a store returns, tried again where a later try may be answered.

    Raises:
        RemoteError: it was not answered, or refused.
    """
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(min(_LONGEST_PAUSE, _PAUSE * 2 ** (attempt - 1)))
        beat()
        try:
            return ask()
        except Exception as error:  # each store has exceptions of its own
            failure = _cause(error)
            if not _may_pass(failure):
                break
    reason = f"{type(failure).__name__}: {failure}" if str(failure) else type(failure).__name__
    if isinstance(failure, FileNotFoundError):
        reason = "no such file or folder" if verb == "read" else "no such bucket or folder"
    elif isinstance(failure, PermissionError):
        reason = f"access is denied: {failure}"
    raise RemoteError(
        shown(address), f"cannot be {verb}: {reason.replace(address, shown(address))}"
    ) from failure


def _cause(error: Exception) -> Exception:
    """The other answer of a web server, or the broken connection, that fsspec reports as a missing file."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, Exception):
        return error
    unreachable = isinstance(cause, (ConnectionError, TimeoutError)) or isinstance(
        cause.__cause__, (ConnectionError, TimeoutError)
    )
    return cause if unreachable or getattr(cause, "status", 404) not in (404, 410) else error


def may_pass(error: RemoteError) -> bool:
    """Whether what failed may succeed later: the store is busy or out of reach."""
    return isinstance(error.__cause__, Exception) and _may_pass(error.__cause__)


def _may_pass(error: Exception) -> bool:
    """Whether a later try may succeed."""
    if type(error).__name__ in _LASTING:
        return False
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status in (408, 425, 429) or status >= 500
    lasting = (
        FileNotFoundError,
        PermissionError,
        IsADirectoryError,
        NotImplementedError,
        ImportError,
        ValueError,
    )
    return not isinstance(error, lasting) and getattr(error, "errno", None) != errno.ENOSPC


def _system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it.

    Raises:
        UsageError: a library is not installed.
        RemoteError: the store cannot be opened, such as without credentials.
    """
    fsspec = load("fsspec", purpose=f"reading {shown(address)}", extra="remote")
    try:
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        protocol = address.partition(":")[0]
        package = _PACKAGES.get(protocol, "'htsat-sed[remote]'")
        raise UsageError(f"reading {shown(address)} needs {package}: pip install {package}") from error
    except Exception as error:
        raise RemoteError(shown(address), f"cannot be opened: {error}") from error
    return system, os.fspath(path)
