"""Start of a recording, and the clock time of any position in it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

from htsat_sed.clock.metadata import offset, read_times
from htsat_sed.clock.names import check_format, named_time
from htsat_sed.clock.naming import NamingClocks
from htsat_sed.errors import UsageError

SOURCES = ("guano", "audiomoth", "wamd", "bext", "ixml", "mp4", "name")
"""Sources of a time, in order of preference."""

_logger = logging.getLogger("htsat_sed")


@dataclass(frozen=True)
class Start:
    """Start of a recording.

    Attributes:
        time: naive if neither the recording nor the user names a zone.
        source: one of `SOURCES`.
    """

    time: datetime
    source: str

    def at(self, seconds: float) -> datetime:
        """The clock time of a position in the recording, in seconds."""
        after = timedelta(seconds=seconds)
        if self.time.tzinfo is None:
            return self.time + after
        # By way of UTC, since Python adds to the wall clock and ignores its changes.
        return (self.time.astimezone(UTC) + after).astimezone(self.time.tzinfo)

    def iso(self, seconds: float) -> str:
        """The clock time of a position in ISO 8601 with milliseconds."""
        return self.at(round(seconds, 3)).isoformat(timespec="milliseconds")


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Finds the clock times of recordings.

    Attributes:
        timezone: assumed for naive times; all others are converted to it.
        time_format: format of file names, see `named_time`.

    Raises:
        UsageError: the time format is invalid.
    """

    timezone: tzinfo | None = None
    time_format: str | None = None
    _naming: NamingClocks = field(default_factory=NamingClocks, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.time_format is not None:
            check_format(self.time_format)

    def start(self, path: str | os.PathLike[str]) -> Start | None:
        """Start of a recording; None if neither its metadata nor its name has it."""
        name = os.fspath(path)
        found = None
        # Opening a FIFO would wait for a writer.
        with suppress(OSError, ValueError):  # reported where it is decoded
            if Path(name).is_file():
                with Path(name).open("rb") as file:
                    found = next(read_times(file), None)
        if found is None or found[0] in ("guano", "audiomoth"):  # which AudioMoths write
            named = named_time(name, self.time_format)
            if found is not None:
                self._naming.described(name, found[1], named)
            elif named is not None:
                found = "name", named
                if named.tzinfo is None:
                    self._naming.bare(name, named, self.timezone)
        if found is None:
            return None
        source, time = found
        return self.shown(name, Start(time, source))

    def shown(self, name: str, start: Start) -> Start:
        """A start converted to `timezone`, if set; `name`: the recording's name in warnings."""
        if self.timezone is None:
            return start
        time = start.time
        return Start(
            _placed(name, time, self.timezone) if time.tzinfo is None else time.astimezone(self.timezone),
            start.source,
        )


class Starts(Mapping[str, Start]):
    """Starts of recordings, each found on first access; recordings without one are missing.

    Args:
        clock: finds the starts.
        paths: name of a recording -> its path.
    """

    def __init__(self, clock: Clock, paths: Mapping[str, str]) -> None:
        self._clock = clock
        self._paths = paths
        self._found: dict[str, Start | None] = {}

    def __getitem__(self, name: str) -> Start:
        if name not in self._found:
            path = self._paths.get(name)
            self._found[name] = None if path is None else self._clock.start(path)
        if (start := self._found[name]) is None:
            raise KeyError(name)
        return start

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._paths if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return any(True for _ in self)


def parse_time(text: str) -> datetime:
    """Parse an ISO 8601 date or date and time, with or without an offset from UTC.

    Raises:
        UsageError: the text is invalid.
    """
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(
            f"wanted a date such as 2026-05-12 or a time such as 2026-05-12T04:30, got {text!r}"
        ) from None


def parse_zone(text: str) -> tzinfo:
    """A time zone by its IANA name (``Europe/Berlin``) or offset from UTC (``+02:00``).

    Raises:
        UsageError: there is no such zone.
    """
    if re.fullmatch(r"Z|UTC|[+-]\d\d(:?\d\d)?", text, re.IGNORECASE):
        try:
            return offset(text)
        except ValueError:
            pass
    try:
        return ZoneInfo(text)
    except (OSError, ValueError, LookupError):
        raise UsageError(f"wanted a time zone such as Europe/Berlin, UTC or +02:00, got {text!r}") from None


def _placed(name: str, time: datetime, zone: tzinfo) -> datetime:
    """Place a naive time in a zone; warns about hours that a clock change repeats or skips."""
    early, late = time.replace(tzinfo=zone), time.replace(tzinfo=zone, fold=1)
    placed = early.astimezone(UTC).astimezone(zone)
    if early.utcoffset() != late.utcoffset():
        happens, taken = "occurs twice", "the first"
        if placed.replace(tzinfo=None) != time:
            happens, taken = "does not occur", str(placed.time())
        _warn_once(f"{name}: its clock time {time:%Y-%m-%d %H:%M:%S} {happens} in {zone}; {taken} is used")
    return placed


@lru_cache(maxsize=10_000)
def _warn_once(fact: str) -> None:
    """Warn about a time, once."""
    remedy = "if the recorder's clock was not changed, give its offset from UTC, such as --timezone +01:00"
    _logger.warning("%s: %s", fact, remedy)
