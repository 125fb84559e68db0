"""Progress of a run, so that a stopped run can be resumed.

A journal is a file of JSON Lines beside the output: the settings of the run, then a line for each finished
recording with its result.

    {"journal": 2, "settings": {"htsat-sed": "0.2.0", "threshold": 0.5, ...}, "crc32": "9a0b6c1d"}
    {"name": "street.wav", "size": 5733044, "modified": 1763720000000000000, "result": ..., "crc32": ...}
    {"name": "yard.wav", "size": 4096, "modified": ..., "result": ..., "defect": "truncated", ...}
    {"name": "street.wav", "failed": true, "crc32": ...}
    {"finished": true, "crc32": ...}

Each line ends with the CRC-32 of the rest of the line. The recording of a damaged line is processed again.

A line is written after the files of its recording, so that a killed run's journal lists finished recordings
only. An incomplete last line is removed and its recording processed again. After a power cut, so are the
recordings of the last second.
"""

from __future__ import annotations

import json
import math
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple, Self

from htsat_sed.errors import HtsatSedError, UsageError
from htsat_sed.remote import is_remote, size_and_version
from htsat_sed.whole_file import sync, sync_folder

FORMAT = 2
_BEFORE = 1  # the format without checksums
_SHOWN = 60  # characters of a value in a message
_SYNC_EVERY = 1.0  # seconds; syncing after every short recording would take longer than the model


class Stamp(NamedTuple):
    """Identifies the version of a recording's file.

    Attributes:
        size: bytes.
        modified: nanoseconds since 1970.
    """

    size: int
    modified: int


def stamp(path: str | os.PathLike[str]) -> Stamp | None:
    """The stamp of a recording; None for standard input and missing files.

    For a remote recording, `modified` is a number that changes with its content.
    """
    if is_remote(os.fspath(path)):
        try:
            return Stamp(*size_and_version(os.fspath(path)))
        except HtsatSedError:
            return None
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return Stamp(status.st_size, status.st_mtime_ns)


class _Line(NamedTuple):
    begin: int
    length: int
    stamp: Stamp | None
    defect: str | None


class Journal:
    """The journal of one run; a context manager that locks the file.

    Memory holds the names of finished recordings and the positions of their results in the file.

    Args:
        path: the file, created if missing; None for a temporary one, which cannot be resumed.
        settings: all settings on which results depend; JSON values.
        restart: discard existing entries.
        is_result: whether a result from the file is valid; recordings with others are processed again.

    Attributes:
        path: as given.
        resumed: number of recordings finished when the journal was opened.
        unfinished: whether the run was stopped.

    Raises:
        ValueError: the journal belongs to an unfinished run with other settings, or the file is no journal.
        HtsatSedError: it cannot be written, or another process has locked it.
    """

    def __init__(
        self,
        path: Path | None,
        settings: Mapping[str, Any],
        *,
        restart: bool = False,
        is_result: Callable[[Any], bool] = lambda result: True,
    ) -> None:
        self.path = path
        self._is_result = is_result
        self._done: dict[str, _Line] = {}
        self._begun = self._end = 0  # ends of the first and the last line
        self._synced = -math.inf
        self._file = TemporaryFile("w+b", buffering=0) if path is None else _locked(path)  # noqa: SIM115
        try:
            self._begin(json.loads(json.dumps(dict(settings))), restart=restart)
        except OSError as error:
            self._file.close()
            raise HtsatSedError(path or "journal", f"cannot be read: {error.strerror}") from error
        except BaseException:
            self._file.close()
            raise
        self.resumed = len(self._done)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Number of finished recordings."""
        return len(self._done)

    def __contains__(self, name: str) -> bool:
        """Whether a recording of this name is finished."""
        return name in self._done

    def close(self) -> None:
        """Close the file; remove it if no recording is finished."""
        with suppress(OSError):
            # By the size of the file, since an interrupt may come between writing a line and noting it.
            if os.fstat(self._file.fileno()).st_size <= self._begun:
                self._remove()
        self._file.close()

    def done(self, name: str, stamp: Stamp | None) -> bool:
        """Whether a recording is finished and unchanged since."""
        return stamp is not None and name in self._done and self._done[name].stamp == stamp

    def add(self, name: str, stamp: Stamp | None, result: Any, defect: str | None = None) -> None:
        """Add a finished recording.

        Args:
            name: its name.
            stamp: stamp of its file, taken before reading.
            result: a JSON value.
            defect: the damage of a recording that was read nevertheless.

        Raises:
            HtsatSedError: it cannot be written; the journal is unchanged.
        """
        size, modified = (None, None) if stamp is None else stamp
        begin = self._end
        line = {"name": name, "size": size, "modified": modified, "result": result}
        self._write(line if defect is None else line | {"defect": defect})
        self._done[name] = _Line(begin, self._end - begin, stamp, defect)

    def forget(self, name: str) -> None:
        """Remove a finished recording that has since changed and failed.

        Raises:
            HtsatSedError: as for `add`.
        """
        if name in self._done:
            self._write({"name": name, "failed": True})
            del self._done[name]

    def defect(self, name: str) -> str | None:
        """Damage of a finished recording; None if there is none or it is not finished."""
        return self._done[name].defect if name in self._done else None

    def stamp(self, name: str) -> Stamp | None:
        """The stamp of a finished recording.

        Raises:
            KeyError: it is not finished.
        """
        return self._done[name].stamp

    def result(self, name: str) -> Any:
        """The result of a finished recording.

        Raises:
            KeyError: it is not finished.
            HtsatSedError: the file cannot be read, or has been changed since it was opened.
        """
        line = self._done[name]
        try:
            self._file.seek(line.begin)
            entry = entry_of(self._file.read(line.length))
        except OSError as error:
            raise HtsatSedError(self.path or "journal", f"cannot be read: {error.strerror}") from error
        if entry is None:
            raise HtsatSedError(self.path or "journal", "has been changed since the run began")
        return entry["result"]

    def finish(self, *, keep: bool) -> None:
        """Mark the run as finished, after its output is complete.

        Args:
            keep: keep the file, so that the run can be repeated for failed recordings; runs with other
                settings may then replace it. Otherwise it is removed.

        Raises:
            HtsatSedError: it cannot be written.
        """
        if keep and self._done:
            self._write({"finished": True})
        else:
            self._remove()

    def _remove(self) -> None:
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink()

    def _begin(self, settings: dict[str, Any], *, restart: bool) -> None:
        before, finished = self._read(restart=restart)
        if before is not None and not restart and before != settings:
            if not finished and self._done:
                raise UsageError(
                    f"{self.path}: the unfinished run of {len(self._done)} recordings here differs in "
                    f"{_differences(before, settings)}. Give the same values to resume it, --restart to "
                    "start again, or another --output"
                )
            restart = True
        if before is None or restart:
            self._done.clear()
            self._end = 0
        self.unfinished = bool(self._done) and not finished
        self._truncate()
        header = {"journal": FORMAT, "settings": settings}
        self._begun = len(line_of(header))
        if self._end == 0:
            self._write(header)
            if self.path is not None:
                sync_folder(self.path.parent)

    def _read(self, *, restart: bool) -> tuple[dict[str, Any] | None, bool]:
        """Read the entries; return the settings of the earlier run, if any, and whether it finished."""
        settings: dict[str, Any] | None = None
        finished = False
        line = b""
        with open(os.dup(self._file.fileno()), "rb") as lines:  # noqa: PTH123, buffered
            lines.seek(0)
            for line in lines:
                if not line.endswith(b"\n"):
                    break  # incomplete
                entry = entry_of(line)
                if settings is None:
                    if entry is None or entry.get("journal") != FORMAT:
                        break
                    settings = entry["settings"] if isinstance(entry.get("settings"), dict) else {}
                elif entry is not None:
                    finished = entry == {"finished": True}
                    self._note(entry, len(line))
                self._end += len(line)
        if settings is None and line and not _is_torn_header(line):
            self._refuse_other(line, restart=restart)
        return settings, finished

    def _note(self, entry: dict[str, Any], length: int) -> None:
        """Apply an entry at position `_end`; invalid entries are ignored."""
        name, defect = entry.get("name"), entry.get("defect")
        size, modified = entry.get("size"), entry.get("modified")
        if not isinstance(name, str):
            return
        self._done.pop(name, None)  # it failed, or was processed again
        stamps = (type(size), type(modified))
        if (
            "result" in entry
            and stamps in ((int, int), (type(None), type(None)))
            and isinstance(defect, str | None)
            and self._is_result(entry["result"])
        ):
            known = None if size is None else Stamp(size, modified)  # type: ignore[arg-type]
            self._done[name] = _Line(self._end, length, known, defect)

    def _refuse_other(self, line: bytes, *, restart: bool) -> None:
        """Refuse a file that is no journal, and an unfinished journal of the previous format.

        Args:
            line: first line of the file.
            restart: whether a journal of the previous format may be discarded.

        Raises:
            UsageError: the file is refused.
        """
        try:
            header = json.loads(line)
        except (ValueError, RecursionError):
            header = None
        if isinstance(header, dict) and header.get("journal") == _BEFORE and "settings" in header:
            self._file.seek(0)
            lines = self._file.read().splitlines()
            if restart or lines[-1:] == [b'{"finished": true}'] or len(lines) < 2:
                return
            raise UsageError(
                f"{self.path}: the unfinished run here is of an earlier version of htsat-sed: finish it "
                "with that version, or give --restart to start again"
            )
        reason = f"is not a journal of this version ({FORMAT}): move it away, or name another --output"
        raise UsageError(f"{self.path}: {reason}")

    def _write(self, entry: dict[str, Any]) -> None:
        line = line_of(entry)
        try:
            self._file.seek(self._end)
            rest = line
            while rest:
                rest = rest[self._file.write(rest) :]
            if time.monotonic() - self._synced >= _SYNC_EVERY:
                sync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            with suppress(OSError):
                self._truncate()
            raise HtsatSedError(self.path or "journal", f"cannot be written: {error.strerror}") from error
        self._end += len(line)

    def _truncate(self) -> None:
        self._file.truncate(self._end)


def _is_torn_header(line: bytes) -> bool:
    """Whether a power cut may have left this of a journal's first line: part of it, then zeros."""
    line = line.rstrip(b"\0")
    begin = json.dumps({"journal": FORMAT})[:-1].encode()  # without the closing brace
    return not line.endswith(b"\n") and line[: len(begin)] == begin[: len(line)]


def line_of(entry: Mapping[str, Any]) -> bytes:
    """A JSON object as a line with a checksum."""
    text = json.dumps(entry).encode()
    return text[:-1] + _checksum(text) + b"\n"


def _checksum(text: bytes) -> bytes:
    return b', "crc32": "%08x"}' % zlib.crc32(text)


_CHECKSUM = len(_checksum(b""))


def entry_of(line: bytes) -> dict[str, Any] | None:
    """The entry of a line, without its checksum; None if damaged."""
    line = line.removesuffix(b"\n")
    text = line[:-_CHECKSUM] + b"}"
    if line[-_CHECKSUM:] != _checksum(text):
        return None
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _locked(path: Path) -> Any:
    """Open and lock a journal; create it if missing."""
    try:
        while True:
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
            try:
                _lock(file.fileno())
                status = os.fstat(file.fileno())
                with suppress(FileNotFoundError):
                    if path.stat().st_ino == status.st_ino:
                        return file
            except BaseException:
                file.close()
                raise
            file.close()  # the run that held the lock finished and removed the file
    except BlockingIOError:
        reason = "another run is writing here: wait for it, or name another --output"
        raise HtsatSedError(path, reason) from None
    except OSError as error:
        raise HtsatSedError(path, f"cannot be written: {error.strerror}") from error


def _lock(handle: int) -> None:
    """Lock a file until it is closed or the process ends.

    Raises:
        BlockingIOError: another process has locked it.
    """
    try:
        import fcntl
    except ImportError:  # Windows, which has no such locks
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        return


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    if "command" in names:
        names = ["command"]  # other settings differ because the command does
    classes = Counter(name.partition(" of ")[0] for name in names if " of " in name)
    reported = {}
    for name in names:
        setting, of, _ = name.partition(" of ")
        if of and classes[setting] > 1:
            reported[f"{setting} of {classes[setting]} classes"] = ""
        else:
            reported[name] = f": {_text(now.get(name))} was {_text(before.get(name))}"
    return "; ".join(name + values for name, values in reported.items())


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
