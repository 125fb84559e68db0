"""The output of a run in an object store, where the same command resumes it on any machine.

Objects cannot be appended to. So a run writes into a temporary folder on this machine. A thread copies what
is finished, every 30 s: first the files of recordings, which then leave the folder, after them the lines that
the journal has got since, as an object of their own:

    s3://bucket/out/events.csv.journal.parts/00000001-9f1c2a7e
    s3://bucket/out/events.csv.journal.parts/00000002-9f1c2a7e

Together the parts are the journal. At the end tables are copied, then the journal as one object if a run on a
disk would keep it; then the parts are removed.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Self

from htsat_sed.errors import HtsatSedError, UsageError
from htsat_sed.remote import (
    STORES,
    RemoteError,
    files_below,
    is_there,
    may_pass,
    read_bytes,
    remove,
    upload,
    write_bytes,
)
from htsat_sed.runs.output_hashes import RECORD
from htsat_sed.runs.run import beside

_EVERY = 30.0  # seconds between copies
_ROUNDS = 5  # of attempts to copy the last files, `_EVERY` apart
_AT_ONCE = 200  # files in one call
_BESIDE = ("", ".journal", ".failures.csv", ".shard")  # what a file as output can have beside it

_logger = logging.getLogger("htsat_sed")


class RemoteOutput:
    """Where a run writes on this machine, and what of it is in the store; a context manager.

    Args:
        address: of the file or folder to be, such as ``s3://bucket/out/events.csv``.
        fetch: pattern of the files in the folder that the run reads, such as the parts of an archive.

    Attributes:
        path: the file or folder on this machine.
        folder: the temporary folder that it lies in.
        above: the address that this folder stands for.

    Raises:
        UsageError: the address is of no object store, or the library for it is not installed.
        RemoteError: the store cannot be read.
    """

    def __init__(self, address: str, *, fetch: str | None = None) -> None:
        protocol, _, place = address.partition("://")
        if protocol not in STORES:
            raise UsageError(
                f"{address}: outputs can be written to a disk, or to one of {', '.join(sorted(STORES))}"
            )
        if not (place := place.strip("/")):
            raise UsageError(f"{address}: names no bucket")
        self.above, _, name = address.rstrip("/").rpartition("/")
        self.folder = Path(mkdtemp(prefix="htsat-sed-"))
        self.path = self.folder / name
        self._fetch = fetch
        self._is_bucket = "/" not in place
        self._objects: set[str] = set()  # addresses of what is there
        self._new: set[str] = set()  # of them, what this run has written
        self._fetched: dict[Path, tuple[int, int] | None] = {}  # files, with size and time
        self._journal: Path | None = None
        self._parts: list[str] = []  # addresses, in order
        self._mark = secrets.token_hex(4)  # of the parts of this process
        self._sent, self._checksum = 0, 0  # bytes of the journal that the store has, and their CRC-32
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: HtsatSedError | None = None
        self._through = self._kept = False
        try:
            self._look()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def __enter__(self) -> Self:
        return self

    def _look(self) -> None:
        """Find out what is there, and fetch what the run reads."""
        address = self.address_of(self.path)
        below = files_below(address)
        self._objects = {f"{address}/{each}" for each in below}
        if below or self._is_bucket:
            self.path.mkdir()
        else:
            parts = f"{address}.journal.parts"
            self._objects = {f"{parts}/{each}" for each in files_below(parts)}
            self._objects |= {f"{address}{end}" for end in _BESIDE if is_there(f"{address}{end}")}
        for each in below:
            if self._fetch is not None and "/" not in each and Path(each).match(self._fetch):
                (self.path / each).write_bytes(read_bytes(f"{address}/{each}"))
                self._fetched[self.path / each] = _status(self.path / each)
        journal = beside(self.path, "journal")
        assert journal is not None
        of = self.address_of(journal)
        self._parts = sorted(each for each in self._objects if each.startswith(f"{of}.parts/"))
        stored = [of] if of in self._objects else []
        if stored or self._parts:
            with journal.open("wb") as file:
                for each in [*stored, *self._parts]:
                    data = read_bytes(each)
                    self._sent, self._checksum = self._sent + len(data), zlib.crc32(data, self._checksum)
                    file.write(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._kept:
            shutil.rmtree(self.folder, ignore_errors=True)

    def address_of(self, path: Path) -> str:
        """The address of a file in the folder; bytes that are no text are escaped as in tables."""
        name = path.relative_to(self.folder).as_posix()
        return f"{self.above}/{name.encode('utf-8', 'backslashreplace').decode()}"

    def holds(self, path: Path) -> bool:
        """Whether the store has a file; of one that is not in the folder, whether this machine has it."""
        if not path.is_relative_to(self.folder):
            return path.is_file()
        return self.address_of(path) in self._objects

    def check_replaceable(self, outputs: Iterable[Path | None], *, overwrite: bool) -> None:
        """Refuse to replace objects unless a journal beside them says that they are of an earlier run.

        Raises:
            UsageError: naming the first one.
        """
        if overwrite or self._sent:
            return
        for path in outputs:
            if path is not None and self.holds(path):
                raise UsageError(
                    f"{self.address_of(path)}: exists already: name another output, or give --overwrite"
                )

    def start(self, journal: Path) -> None:
        """Begin to copy, with what is in the journal: the store is known to take objects before work begins.

        Args:
            journal: of the run, open.

        Raises:
            HtsatSedError: the store takes none.
        """
        self._journal = journal
        with journal.open("rb") as file:
            grown = zlib.crc32(file.read(self._sent)) == self._checksum and file.tell() == self._sent
        if self._sent and not grown:  # the run begins anew
            self._remove_journal()
            self._sent = 0
        self._copy()
        self._thread = threading.Thread(target=self._copy_now_and_then, name="copy", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what ended the copying, if something did.

        Raises:
            HtsatSedError: the store takes nothing any more, or another run writes there.
        """
        if self._failure is not None:
            raise self._failure

    def settle(self) -> None:
        """End copying when all recordings are through, with all but the tables and the end of the journal.

        Raises:
            HtsatSedError: another run writes there.
        """
        self._join()
        self.check()
        try:
            self._copy()
        except RemoteError as error:
            _logger.warning("%s; trying again at the end", error)

    def stop(self) -> None:
        """End copying, with what is finished so far; a run of which nothing is done leaves no journal."""
        self._join()
        if self._failure is not None or self._journal is None or self._through:
            return
        try:
            if self._journal.exists():
                self._copy()
            else:
                self._remove_journal()
        except HtsatSedError as error:
            _logger.warning("%s; what was done since the last copy is lost", error)

    def finish(self, *, stale: Iterable[Path | None]) -> None:
        """Copy all that remains, when the output is whole and the journal finished.

        Args:
            stale: outputs that go from the store unless this run has written them.

        Raises:
            HtsatSedError: it cannot be copied; the folder then stays.
        """
        self._join()
        try:
            for left in reversed(range(_ROUNDS)):
                try:
                    self._copy_last([path for path in stale if path is not None])
                    self._through = True
                    return
                except RemoteError as error:
                    if not left or not may_pass(error):
                        raise
                    _logger.warning("%s; trying again in %.0f s", error, _EVERY)
                    time.sleep(_EVERY)
        except HtsatSedError as error:
            self._through = self._kept = True
            raise HtsatSedError(error.path, f"{error.reason}; all outputs are in {self.folder}") from error

    def _copy_last(self, stale: Iterable[Path]) -> None:
        self._upload(list(self._finished()))
        for path in stale:
            if self.holds(path) and self.address_of(path) not in self._new:
                remove(self.address_of(path))
        assert self._journal is not None
        of = self.address_of(self._journal)
        if self._journal.exists():
            upload([(self._journal, of)])
            self._objects.discard(of)
        self._remove_journal()

    def _remove_journal(self) -> None:
        """Remove the parts from the last on, so that those that a broken connection leaves are a journal."""
        assert self._journal is not None
        while self._parts:
            remove(self._parts[-1])
            self._objects.discard(self._parts.pop())
        if (of := self.address_of(self._journal)) in self._objects:
            remove(of)
            self._objects.discard(of)

    def _join(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _copy_now_and_then(self) -> None:
        while not self._over.wait(_EVERY):
            try:
                self._copy()
            except RemoteError as error:
                if not may_pass(error):
                    self._failure = error
                    return
                _logger.warning("%s; trying again in %.0f s", error, _EVERY)
            except HtsatSedError as error:
                self._failure = error
                return

    def _copy(self) -> None:
        """Copy what is finished: files first, then the lines of the journal that name their recordings."""
        assert self._journal is not None
        lines = self._lines(self._journal)
        self._upload(list(self._finished()))
        if not lines:
            return
        parts = f"{self.address_of(self._journal)}.parts"
        if {f"{parts}/{each}" for each in files_below(parts)} != set(self._parts):
            reason = "another run is writing there: wait for it, or name another --output"
            raise HtsatSedError(self.address_of(self.path), reason)
        address = f"{parts}/{len(self._parts) + 1:08d}-{self._mark}"
        write_bytes(address, lines)
        self._parts.append(address)
        self._sent += len(lines)

    def _lines(self, journal: Path) -> bytes:
        """The whole lines that the journal has got since the last part."""
        try:
            with journal.open("rb") as file:
                file.seek(self._sent)
                data = file.read()
        except FileNotFoundError:  # the run has just finished
            return b""
        return data[: data.rfind(b"\n") + 1]

    def _finished(self) -> Iterator[Path]:
        """The files that the store does not have."""
        for above, _, names in os.walk(self.folder):
            for path in (Path(above, name) for name in sorted(names)):
                whole = path.name != RECORD and not (path.name.startswith(".") and path.suffix == ".part")
                if whole and path != self._journal and _status(path) not in (None, self._fetched.get(path)):
                    yield path

    def _upload(self, files: list[Path]) -> None:
        """Copy files and remove them from this machine."""
        for i in range(0, len(files), _AT_ONCE):
            some = [(path, self.address_of(path)) for path in files[i : i + _AT_ONCE]]
            upload(some)
            for path, address in some:
                self._objects.add(address)
                self._new.add(address)
                with suppress(OSError):
                    path.unlink()


def _status(path: Path) -> tuple[int, int] | None:
    """Size and time of a file; None if it has gone."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns
