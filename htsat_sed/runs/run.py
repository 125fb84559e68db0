"""One run of a command over recordings: progress, failures and resuming."""

from __future__ import annotations

import json
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, TypeVar

from htsat_sed.errors import HtsatSedError, UsageError
from htsat_sed.runs.recordings import Recording

if TYPE_CHECKING:
    from htsat_sed.detection.scheduler import AnyPath, RecordingProgress
    from htsat_sed.runs.journal import Journal, Stamp
    from htsat_sed.runs.remote_output import RemoteOutput
    from htsat_sed.runs.shards import Part

_METRICS_EVERY = 15.0  # seconds; as often as Prometheus usually asks
_Result = TypeVar("_Result")
Results: TypeAlias = Iterator[tuple[object, _Result | HtsatSedError]]


class Display(Protocol):
    """Shows the progress of a run."""

    def __enter__(self) -> object: ...

    def __exit__(self, *exception: object) -> object: ...

    def heard(self, path: object, seconds: float, expected: float | None) -> None:
        """Show how far a recording is decoded; see `Detector.presence_maps`."""

    def done(self) -> None:
        """Count a recording, finished or failed."""

    def done_before(self, recordings: int) -> None:
        """Count recordings finished before this run."""

    def note(self, message: str) -> None:
        """Show a note."""

    def failed(self, error: HtsatSedError) -> None:
        """Show why a recording failed."""


class Run:
    """Processes recordings and keeps track of them; a context manager that closes the journal.

    An error that ends the block, such as a full disk, reports the progress and how to resume.

    Args:
        recordings: all recordings, in the order of the output.
        failures: errors from before any recording was read.
        display: shows progress, notes and failures.
        journal: the finished recordings; None to keep no journal.
        exist: name -> whether all files of a recording exist; a recording without them is not finished.
        skip_existing: skip recordings whose files exist when their turn comes. Recordings are then processed
            in random order, so that processes that share a folder seldom collide.
        failures_table: file for the table of failures; None for none.
        shard: the shard file to write at the end; None for a run without shards.
        summary: file for `summary`, written when the run ends, also by an error or Ctrl-C.
        metrics: file for `write_metrics`, written at the start, about every 15 s, and at the end.
        remote: copies the outputs to an object store; None for outputs on a disk.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        failures: Sequence[HtsatSedError],
        *,
        display: Display,
        journal: Journal | None,
        exist: Callable[[str], bool] = lambda name: True,
        skip_existing: bool = False,
        failures_table: Path | None = None,
        shard: RunOfShard | None = None,
        summary: Path | None = None,
        metrics: Path | None = None,
        remote: RemoteOutput | None = None,
    ) -> None:
        from htsat_sed.runs.journal import stamp

        self.recordings = recordings
        self.failures = [(failure.path, failure) for failure in failures]
        self.done = 0
        self._display = display
        self._journal = journal
        self._exist = exist
        self._skip_existing = skip_existing
        self.failures_table = failures_table
        self._shard = shard
        self._summary = summary
        self._remote = remote
        self._metrics, self._metrics_at = metrics, -math.inf
        self._begun, self._started = datetime.now(UTC), time.monotonic()
        self._complete = False
        self._seconds = 0.0
        self._position: dict[str, float] = {}
        self._before = 0
        self._handed: deque[tuple[Recording, Stamp | None]] = deque()
        self._stamp: Stamp | None = None
        self._defects: dict[str, str] = {}
        self._existed: set[str] = set()
        self._todo = recordings
        if journal is not None and journal.resumed:
            self._todo = [
                recording
                for recording in recordings
                if not (journal.done(recording.name, stamp(recording.path)) and exist(recording.name))
            ]
            self.done = self._before = len(recordings) - len(self._todo)
            for name in {each.name for each in recordings} - {each.name for each in self._todo}:
                if defect := journal.defect(name):
                    self._defects[name] = defect
            note = f"{self.done} of {len(recordings)} recordings are done already"
            kept = sum(recording.name in journal for recording in recordings)
            if journal.unfinished and not kept:
                journal.close()
                raise UsageError(
                    f"{journal.path}: the unfinished run here is of {journal.resumed} other recordings. "
                    "Give the same to resume it, --restart to start again, or another --output"
                )
            if journal.resumed > kept:
                note += f"; {journal.resumed - kept} more in the journal are not part of this run"
            display.note(f"{note}: {journal.path}")
        elif skip_existing:
            self._todo = random.sample(recordings, len(recordings))

    def __enter__(self) -> Self:
        if self._metrics is not None:
            self._write_metrics(self._metrics)
        if self._remote is not None and self._journal is not None and self._journal.path is not None:
            try:
                self._remote.start(self._journal.path)
            except BaseException:
                self._journal.close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._journal is not None:
            self._journal.close()
        if self._remote is not None:
            self._remote.stop()
        if self._summary is not None and not self._complete:
            with suppress(HtsatSedError):
                self._write_summary(self._summary)
        if self._metrics is not None:
            with suppress(HtsatSedError):
                self._write_metrics(self._metrics)
        if isinstance(error, HtsatSedError):
            raise HtsatSedError(error.path, f"{error.reason}; {self.left()}") from error

    @property
    def next(self) -> Recording:
        """The recording whose result comes next."""
        return self._handed[0][0]

    def through(
        self, read: Callable[[Iterable[str], RecordingProgress], Results[_Result]]
    ) -> Iterator[tuple[Recording, _Result | HtsatSedError]]:
        """Process the unfinished recordings and show progress.

        Args:
            read: takes paths and a progress callback; yields results in the order of the paths.

        Yields:
            Each recording with its result or error.
        """
        with self._display:
            self._display.done_before(self.done)
            for _, result in read(self._hand_out(), self._heard):
                recording, self._stamp = self._handed.popleft()
                self._seconds += self._position.pop(recording.path, 0.0)
                yield recording, result
                self._display.done()
                self._update_metrics()
        if self._remote is not None:
            self._remote.settle()

    def _heard(self, path: AnyPath, seconds: float, expected: float | None) -> None:
        self._position[str(path)] = seconds
        self._display.heard(path, seconds, expected)
        self._update_metrics()

    def _hand_out(self) -> Iterator[str]:
        from htsat_sed.runs.journal import stamp

        for recording in self._todo:
            if self._skip_existing and self._exist(recording.name):
                self.done += 1
                self._existed.add(recording.name)
                self._display.done_before(1)
            else:
                self._handed.append((recording, stamp(recording.path)))
                yield recording.path

    def defective(self, _: AnyPath, defect: str) -> None:
        """Record the damage of the next recording, which could be read nevertheless."""
        self._defects[self.next.name] = defect

    def note(self, recording: Recording, result: Any) -> None:
        """Mark a recording as finished.

        Args:
            recording: the last one that `through` yielded.
            result: a JSON value for the journal.

        Raises:
            HtsatSedError: the journal cannot be written.
        """
        if self._journal is not None:
            self._journal.add(recording.name, self._stamp, result, self._defects.get(recording.name))
        self.done += 1
        if self._remote is not None:
            self._remote.check()

    def fail(self, recording: Recording, error: HtsatSedError) -> None:
        """Record and show the failure of a recording."""
        self.failures.append((recording.listed, error))
        self._defects.pop(recording.name, None)
        if self._journal is not None:
            self._journal.forget(recording.name)
        self._display.failed(error)

    def results(self) -> Iterator[tuple[str, Any]]:
        """Name and result of all finished recordings, in order, from the journal."""
        assert self._journal is not None
        for recording in self.recordings:
            if recording.name in self._journal:
                yield recording.name, self._journal.result(recording.name)

    def left(self) -> str:
        """Progress of a stopped run, and how to resume it."""
        of = f"{self.done} of {len(self.recordings)} recordings are done"
        journal = self._journal.path if self._journal is not None else None
        goes_on = self._skip_existing or (journal is not None and journal.exists())
        return f"{of}; the same command resumes with the others" if goes_on else of

    @property
    def defects(self) -> int:
        """Number of damaged recordings that were read nevertheless."""
        return len(self._defects)

    def finish(self, *, safe_cells: bool = False, keep_journal: bool = True) -> int:
        """Write the table of failures and close the journal, after all output is written.

        Damaged recordings that were read are listed as well, but do not count as failed.

        Args:
            safe_cells: see `write_failures`.
            keep_journal: whether the journal stays if something failed, so that the run can be repeated.

        Returns:
            The exit code: 1 if something failed, else 0.

        Raises:
            HtsatSedError: the table or the journal cannot be written.
        """
        from htsat_sed.runs.failures import read_defects, write_failures

        if self.failures_table is not None:
            listed = [(recording.name, recording.listed) for recording in self.recordings]
            if self._existed:
                found = read_defects(
                    self.failures_table
                )  # of recordings finished by another process or an earlier run
                self._defects |= {
                    name: found[of] for name, of in listed if name in self._existed and of in found
                }
            place = {of: i for i, (_, of) in enumerate(listed)}
            failed = sorted(self.failures, key=lambda failure: place.get(failure[0], -1))
            defects = [(of, self._defects[name]) for name, of in listed if name in self._defects]
            reasons = [(name, error.reason) for name, error in failed]
            write_failures(self.failures_table, reasons, defects, safe_cells=safe_cells)
        if self._shard is not None:
            self._write_shard(self._shard)
        if self._journal is not None:
            self._journal.finish(keep=keep_journal and bool(self.failures or self._defects))
        if self._remote is not None:
            self._remote.finish(stale=[self.failures_table])
        self._complete = True
        if self._summary is not None:
            self._write_summary(self._summary)
        return 1 if self.failures else 0

    def summary(self) -> dict[str, Any]:
        """Summary of the run so far, as a JSON object; see docs/folders.md."""
        from htsat_sed import __version__

        shard = self._shard
        return {
            "htsat-sed": __version__,
            "started": self._begun.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self._started, 3),
            "complete": self._complete,
            "shard": None if shard is None else str(shard.part.shard),
            "recordings": len(self.recordings),
            "done": self.done,
            "done_before": self._before,
            "failed": len(self.failures),
            "damaged": self.defects,
            "audio_seconds": round(self._seconds, 3),
            "failures": None if self.failures_table is None else self._address(self.failures_table),
        }

    def _address(self, path: Path) -> str:
        """A file of the output, as the person who started the run knows it."""
        of_remote = self._remote is not None and path.is_relative_to(self._remote.folder)
        return self._remote.address_of(path) if self._remote is not None and of_remote else str(path)

    def _write_summary(self, path: Path) -> None:
        from htsat_sed.whole_file import whole_file

        with whole_file(path) as file:
            file.write(json.dumps(self.summary(), indent=1) + "\n")

    def _write_metrics(self, path: Path) -> None:
        from htsat_sed.runs.metrics import write_metrics

        self._metrics_at = time.monotonic()
        write_metrics(path, self.summary())

    def _update_metrics(self) -> None:
        """Write the metrics if it is time to; a disk that refuses them ends no run."""
        if self._metrics is not None and time.monotonic() - self._metrics_at >= _METRICS_EVERY:
            with suppress(HtsatSedError):
                self._write_metrics(self._metrics)

    def _write_shard(self, of: RunOfShard) -> None:
        from htsat_sed.runs.shards import Done, Header, write_shard

        assert self._journal is not None
        failed = {name: error.reason for name, error in self.failures}
        names = {each.listed for each in self.recordings}
        before = [(str(name), error.reason) for name, error in self.failures if name not in names]
        part, journal = of.part, self._journal

        def recordings() -> Iterator[Done]:
            for place, recording in zip(part.places, self.recordings, strict=True):
                name = recording.name
                about = of.about(name)
                if recording.listed in failed:
                    yield Done(place, recording.listed, about, failure=failed[recording.listed])
                elif name in journal:
                    result, defect = journal.result(name), self._defects.get(name)
                    yield Done(place, name, about, journal.stamp(name), result, defect)

        header = Header(part.shard, part.total, part.names_sha256, of.settings, of.outputs, before)
        write_shard(of.path, header, recordings())


@dataclass(frozen=True)
class RunOfShard:
    """The shard file that a run writes.

    Attributes:
        path: file for `write_shard`.
        part: recordings of the shard.
        settings: settings on which results depend.
        outputs: outputs of the command, for `merge`.
        about: name -> data of a recording that outputs contain besides its result.
    """

    path: Path
    part: Part
    settings: Mapping[str, Any]
    outputs: Mapping[str, Any]
    about: Callable[[str], Any]


def open_journal(
    out: Path,
    settings: Mapping[str, Any],
    *,
    restart: bool,
    outputs: Iterable[Path | None],
    is_result: Callable[[Any], bool],
) -> Journal:
    """Open the journal beside an output, or a temporary one for a device or pipe.

    Unfinished files of a killed run are removed; the lock on the journal makes this safe.

    Args:
        out: the output.
        settings: settings on which results depend.
        restart: whether to discard the results of an earlier run.
        outputs: all files that the run may write.
        is_result: whether a result has the form that the command writes.

    Raises:
        ValueError: it belongs to an unfinished run with other settings.
        HtsatSedError: it cannot be written, or another process has locked it.
    """
    from htsat_sed.runs.journal import Journal
    from htsat_sed.whole_file import remove_unfinished

    journal = Journal(beside(out, "journal"), settings, restart=restart, is_result=is_result)
    if journal.path is not None:
        remove_unfinished([path for path in outputs if path is not None])
    return journal


def failures_place(given: Path | None, out: Path | None, outputs: Sequence[Path]) -> Path | None:
    """Path of the table of failures: as given, or else beside the output.

    Raises:
        ValueError: another file or output occupies it.
    """
    from htsat_sed.runs.failures import check_failures

    path = given or (beside(out, "failures.csv") if out is not None else None)
    if path is not None:
        journal = beside(out, "journal") if out is not None else None
        check_failures(path, outputs if journal is None else [*outputs, journal])
    return path


def beside(out: Path, name: str) -> Path | None:
    """Path of an accompanying file of an output; None for a device or pipe.

    For a folder, ``htsat-sed.journal`` and ``failures.csv`` in it; for ``events.tsv``,
    ``events.tsv.journal`` and ``events.tsv.failures.csv`` beside it.
    """
    if out.is_dir():
        return out / (f"htsat-sed.{name}" if name in ("journal", "shard") else name)
    if out.exists() and not out.is_file():
        return None
    return out.with_name(f"{out.name}.{name}")
