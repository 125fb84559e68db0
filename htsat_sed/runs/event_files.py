"""Output files of a run: files per recording during the run, tables at its end."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

from htsat_sed.annotations import FORMATS, PresenceMapWriter, path_of
from htsat_sed.clock import Start
from htsat_sed.detection.events import Event
from htsat_sed.errors import HtsatSedError, UsageError
from htsat_sed.runs.output_hashes import is_replaceable
from htsat_sed.whole_file import make_folder, whole_file

if TYPE_CHECKING:
    from htsat_sed.runs.remote_output import RemoteOutput

# What a file system says of a name that it cannot hold: the fault of one recording, not of the run.
_UNFIT = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EILSEQ, errno.EINVAL, errno.ENOTEMPTY}


STDOUT = Path("-")  # path of a target on standard output


@dataclass(frozen=True)
class Target:
    """Destination of the events in one format.

    Attributes:
        format: one of `FORMATS`.
        path: a file; for formats with one file per recording, a folder or the file of the only recording.
    """

    format: str
    path: Path

    @property
    def is_table(self) -> bool:
        """Whether all recordings share one file."""
        return FORMATS[self.format].shared

    def of(self, name: str) -> Path:
        """Output file of a recording."""
        of = FORMATS[self.format]
        single = self.path.suffix.lower() == of.ending and not self.path.is_dir()
        return self.path if single else path_of(self.path, name, of.suffix)


class EventFiles:
    """Writes events and presence maps of recordings; each file appears whole or not at all.

    Args:
        targets: files and folders of events.
        maps: folder of presence maps; None for none.
        labels: classes, in the column order of presence maps.
        token_seconds: duration of a token.
        overwrite: replace files that htsat-sed did not write or that were changed since.
        starts: name of a recording -> its start, if known.

    Attributes:
        starts: as given.
        tables: targets shared by all recordings, to be written at the end of the run.
        kept: files not replaced because they were changed.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        maps: Path | None,
        labels: Sequence[str],
        token_seconds: float,
        overwrite: bool = False,
        starts: Mapping[str, Start] | None = None,
    ) -> None:
        self.starts: Mapping[str, Start] = {} if starts is None else starts
        self.kept: list[Path] = []
        self._overwrite = overwrite
        self.tables = [target for target in targets if target.is_table]
        self._singles = [target for target in targets if not target.is_table]
        self._maps = maps
        self._folders = {
            each.path if each.path.is_dir() else each.path.parent for each in targets if each.path != STDOUT
        }
        self._columns: dict[str, Any] = {"labels": labels, "token_seconds": token_seconds}
        self._writer: PresenceMapWriter | None = None
        self._unfit: HtsatSedError | None = None

    def of(self, name: str) -> list[Path]:
        """The recording's own files."""
        own = [target.of(name) for target in self._singles]
        return own if self._maps is None else [*own, path_of(self._maps, name, ".npz")]

    def exist(self, name: str, remote: RemoteOutput | None = None) -> bool:
        """Whether all of the recording's own files exist, here or in the store of the outputs."""
        return all(path.is_file() or (remote is not None and remote.holds(path)) for path in self.of(name))

    def check(self, names: Iterable[str]) -> None:
        """Refuse recordings that would share a file.

        Raises:
            ValueError: naming both.
        """
        taken: dict[Path, str] = {}
        for name in names:
            for path in self.of(name):
                if taken.setdefault(path, name) != name:
                    raise UsageError(f"{taken[path]} and {name} would share the file {path}")

    def all_of(self, names: Iterable[str]) -> list[Path]:
        """The tables, and the recordings' own files."""
        return [*(table.path for table in self.tables), *(p for name in names for p in self.of(name))]

    def rows(self, name: str, scores: NDArray[np.float32]) -> None:
        """Append rows to the presence map of the next recording to be written.

        Raises:
            HtsatSedError: they cannot be written.
        """
        if self._maps is None or self._unfit is not None:
            return
        try:
            self._map_of(name, self._maps).append(scores)
        except HtsatSedError as error:
            if not is_unfit(error):
                raise
            self._unfit = error

    def write(
        self, name: str, events: Sequence[Event], duration: float, sample_rate: int | None = None
    ) -> None:
        """Write the recording's own files, including the presence map of the rows appended so far.

        Raises:
            HtsatSedError: one cannot be written; see `is_unfit`.
        """
        try:
            if self._unfit is not None:
                raise self._unfit
            for folder in self._folders:
                if not folder.is_dir():  # creating it again would hide the loss of outputs
                    raise HtsatSedError(folder, "was removed while the run was writing here")
            if self._maps is not None and self._may_write(path_of(self._maps, name, ".npz")):
                self._map_of(name, self._maps).finish(duration)
            for target in self._singles:
                path = target.of(name)
                if not self._may_write(path):
                    continue
                make_folder(path.parent)
                start = self.starts.get(name)
                text = FORMATS[target.format].text(name, events, duration, sample_rate, start=start)
                with whole_file(path) as file:
                    file.write(text)
        finally:
            self.drop()

    def _may_write(self, path: Path) -> bool:
        may = self._overwrite or is_replaceable(path)
        if not may:
            self.kept.append(path)
        return may

    def _map_of(self, name: str, folder: Path) -> PresenceMapWriter:
        if self._writer is None:
            path = path_of(folder, name, ".npz")
            make_folder(path.parent)
            self._writer = PresenceMapWriter(path, filename=name, **self._columns)
        return self._writer

    def drop(self) -> None:
        """Discard the appended rows of a failed recording."""
        if self._writer is not None:
            self._writer.__exit__()
        self._writer = self._unfit = None


def for_journal(events: Sequence[Event], duration: float) -> dict[str, Any]:
    """Events and duration of a recording as a journal entry."""
    found = [
        [float(e.onset), float(e.offset), e.label, float(e.score), *([e.channel] if e.channel else [])]
        for e in events
    ]
    return {"duration": float(duration), "events": found}


def start_for_journal(start: Start | None) -> dict[str, Any] | None:
    """Start of a recording as an entry of a shard file."""
    if start is None:
        return None
    zone = start.time.tzinfo
    key = zone.key if isinstance(zone, ZoneInfo) else None
    return {"time": start.time.isoformat(), "zone": key, "source": start.source}


def start_from_journal(found: Mapping[str, Any]) -> Start:
    """Inverse of `start_for_journal`.

    Raises:
        ValueError: the entry is invalid.
    """
    try:
        time = datetime.fromisoformat(found["time"])
        return Start(
            time.astimezone(ZoneInfo(found["zone"])) if found["zone"] else time, str(found["source"])
        )
    except (KeyError, TypeError, ZoneInfoNotFoundError) as error:
        raise UsageError("invalid start of a recording") from error


def is_in_journal_form(result: Any) -> bool:
    """Whether an entry has the form that `for_journal` returns."""
    return (
        isinstance(result, dict)
        and isinstance(result.get("duration"), float)
        and isinstance(result.get("events"), list)
        and all(
            isinstance(event, list)
            and [type(value) for value in event[:4]] == [float, float, str, float]
            and [type(value) for value in event[4:]] in ([], [int])
            for event in result["events"]
        )
    )


def from_journal(
    results: Iterable[tuple[str, Mapping[str, Any]]],
) -> Iterator[tuple[str, list[Event], float]]:
    """Name, events and duration of recordings, from their journal entries."""
    for name, result in results:
        yield name, [Event(*event) for event in result["events"]], result["duration"]


def is_unfit(error: HtsatSedError) -> bool:
    """Whether a file could not be written because of its name, so that others still can be."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _UNFIT
