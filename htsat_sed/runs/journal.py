"""What a run over many recordings has done so far, so that it can go on where it was stopped.

A journal is a file of JSON Lines beside the output: the settings of the run, then a line for each recording
that is done, with what was found in it.

    {"journal": 2, "settings": {"htsat-sed": "0.2.0", "threshold": 0.5, ...}, "crc32": "9a0b6c1d"}
    {"name": "street.wav", "size": 5733044, "modified": 1763720000000000000, "result": ..., "crc32": ...}
    {"name": "yard.wav", "size": 4096, "modified": ..., "result": ..., "defect": "truncated", ...}
    {"name": "street.wav", "failed": true, "crc32": ...}
    {"finished": true, "crc32": ...}

Each line ends with the CRC-32 of the line without it. Where a line has changed on the disk, its recording is
done again.

What belongs to a recording is on the disk before its line is written: whatever moment a run is killed at,
the journal names recordings that are done and no others. A last line that was torn on the way is cut off,
and its recording done again. After a power cut, so are those of the last second.
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
_SYNC_EVERY = 1.0  # seconds; to wait for the disk after every short recording would cost more than a model


class Stamp(NamedTuple):
    """By what a recording is known to be the one that was done.

    Attributes:
        size: bytes.
        modified: nanoseconds since 1970.
    """

    size: int
    modified: int


def stamp(path: str | os.PathLike[str]) -> Stamp | None:
    """The stamp of a recording, or None for one that has none: standard input, a missing file.

    That of a remote recording has, in place of the time, a number that changes with its content.
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
    """The journal of one run; a context manager, which holds the file against other processes.

    In memory are the names of the recordings that are done and where their results stand in the file.

    Args:
        path: the file, made where it is not there; None for one without a name, which no run goes on with.
        settings: setting -> value, all that a result depends on; anything that JSON can hold.
        restart: forget what is there.
        is_result: whether a result read from the file is one; a recording with another is done again.

    Attributes:
        path: as given.
        resumed: recordings that were done when the journal was opened.
        unfinished: it is of a run that was stopped.

    Raises:
        ValueError: there is the journal of an unfinished run with other settings, or the file is no journal.
        HtsatSedError: it cannot be written, or another process has it.
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
        self._begun = self._end = 0  # where the first line ends, and the last
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
        """Recordings that are done."""
        return len(self._done)

    def __contains__(self, name: str) -> bool:
        """Whether a recording of this name is done."""
        return name in self._done

    def close(self) -> None:
        """Let go of the file, which stays if anything is done."""
        with suppress(OSError):
            # Not by what is in memory: an interrupt may have come after a line and before it was noted.
            if os.fstat(self._file.fileno()).st_size <= self._begun:
                self._remove()
        self._file.close()

    def done(self, name: str, stamp: Stamp | None) -> bool:
        """Whether a recording is done and has not changed since."""
        return stamp is not None and name in self._done and self._done[name].stamp == stamp

    def add(self, name: str, stamp: Stamp | None, result: Any, defect: str | None = None) -> None:
        """Note that a recording is done.

        Args:
            name: the recording.
            stamp: of the file that was read, taken before.
            result: what was found, anything that JSON can hold.
            defect: what is wrong with the recording though it could be read.

        Raises:
            HtsatSedError: it cannot be written: disk full, ... The journal is as it was before.
        """
        size, modified = (None, None) if stamp is None else stamp
        begin = self._end
        line = {"name": name, "size": size, "modified": modified, "result": result}
        self._write(line if defect is None else line | {"defect": defect})
        self._done[name] = _Line(begin, self._end - begin, stamp, defect)

    def forget(self, name: str) -> None:
        """Note that a recording that was done has failed since: it changed, and can be read no more.

        Raises:
            HtsatSedError: as for `add`.
        """
        if name in self._done:
            self._write({"name": name, "failed": True})
            del self._done[name]

    def defect(self, name: str) -> str | None:
        """What is wrong with a recording that is done; None if nothing, or if it is not."""
        return self._done[name].defect if name in self._done else None

    def stamp(self, name: str) -> Stamp | None:
        """The stamp of a recording that is done.

        Raises:
            KeyError: it is not.
        """
        return self._done[name].stamp

    def result(self, name: str) -> Any:
        """What was found in a recording that is done.

        Raises:
            KeyError: it is not.
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
        """Note that the run is through: its output is whole.

        Args:
            keep: the file stays, so that the same run can be repeated for what failed, but counts as
                finished: a run with other settings begins anew without asking. Else it goes away.

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
                    f"{_differences(before, settings)}. Give the same values to go on with it, --restart to "
                    "begin anew, or another --output"
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
        """Note what is done; the settings of the run before, if there was one, and whether it finished."""
        settings: dict[str, Any] | None = None
        finished = False
        line = b""
        with open(os.dup(self._file.fileno()), "rb") as lines:  # noqa: PTH123, buffered
            lines.seek(0)
            for line in lines:
                if not line.endswith(b"\n"):
                    break  # torn on the way
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
        """Take up a line that begins at `_end`; one of another form has no effect."""
        name, defect = entry.get("name"), entry.get("defect")
        size, modified = entry.get("size"), entry.get("modified")
        if not isinstance(name, str):
            return
        self._done.pop(name, None)  # it failed, or is done anew
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
        """Refuse a file that is no journal, and an unfinished one of the format before.

        Args:
            line: the first of the file.
            restart: whether the format before is to be forgotten, as --restart asks.

        Raises:
            UsageError: naming the file.
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
                "with that one, or say --restart to begin anew"
            )
        reason = f"is no journal of this version ({FORMAT}): move it away, or name another --output"
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
    """Whether this can be what a power cut left of a journal's first line: a part of it, zeros behind."""
    line = line.rstrip(b"\0")
    begin = json.dumps({"journal": FORMAT})[:-1].encode()  # without what closes it
    return not line.endswith(b"\n") and line[: len(begin)] == begin[: len(line)]


def line_of(entry: Mapping[str, Any]) -> bytes:
    """What JSON can hold as a line with a checksum."""
    text = json.dumps(entry).encode()
    return text[:-1] + _checksum(text) + b"\n"


def _checksum(text: bytes) -> bytes:
    return b', "crc32": "%08x"}' % zlib.crc32(text)


_CHECKSUM = len(_checksum(b""))


def entry_of(line: bytes) -> dict[str, Any] | None:
    """What a line holds, without its checksum; None if it is damaged."""
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
    """Open a file, made if need be, that no other process has open as its journal."""
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
            file.close()  # the run that had it finished in between and removed it
    except BlockingIOError:
        reason = "another run is writing here: wait for it, or name another --output"
        raise HtsatSedError(path, reason) from None
    except OSError as error:
        raise HtsatSedError(path, f"cannot be written: {error.strerror}") from error


def _lock(handle: int) -> None:
    """Hold a file until it is closed, be it by the end of the process.

    Raises:
        BlockingIOError: another process holds it.
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
        names = ["command"]  # of two commands all else differs, too
    classes = Counter(name.partition(" of ")[0] for name in names if " of " in name)
    told = {}
    for name in names:
        setting, of, _ = name.partition(" of ")
        if of and classes[setting] > 1:
            told[f"{setting} of {classes[setting]} classes"] = ""
        else:
            told[name] = f": {_text(now.get(name))} was {_text(before.get(name))}"
    return "; ".join(name + values for name, values in told.items())


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
