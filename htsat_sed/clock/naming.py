"""Which clock the names of recordings follow, as their metadata show it.

An AudioMoth names its files in UTC, or in local time if it was configured so; its comment gives the time with
its zone. Where conversion took the comment away, only the name is left, and it may follow another clock than
the time zone in which it is read.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone, tzinfo
from pathlib import PurePath

_CLOSE = timedelta(seconds=60)

_logger = logging.getLogger("htsat_sed")


class NamingClocks:
    """Warns, once a folder each, where names follow two clocks, or one in which they are not read."""

    def __init__(self) -> None:
        self._utc: dict[str, str] = {}  # folder -> the first recording in it that is named so
        self._local: dict[str, tuple[str, timedelta]] = {}
        self._bare: dict[str, tuple[str, datetime, tzinfo | None]] = {}
        self._warned: set[tuple[str, str]] = set()

    def described(self, path: str, time: datetime, named: datetime | None) -> None:
        """Take note of a recording with a time in its metadata.

        Args:
            path: of the recording.
            time: that time; without a zone, it tells nothing here.
            named: the time in its name, if there is one.
        """
        away = time.utcoffset()
        if named is None or named.tzinfo is not None or away is None:
            return
        folder, name = _folder_and_name(path)
        local = time.replace(tzinfo=None)
        if abs(named - (local - away)) < _CLOSE:
            self._utc.setdefault(folder, name)
        elif abs(named - local) < _CLOSE:
            self._local.setdefault(folder, (name, away))
        self._check(folder)

    def bare(self, path: str, named: datetime, zone: tzinfo | None) -> None:
        """Take note of a recording whose name alone tells when it began.

        Args:
            path: of the recording.
            named: the time in its name, without a zone.
            zone: in which it is read.
        """
        folder, name = _folder_and_name(path)
        self._bare.setdefault(folder, (name, named, zone))
        self._check(folder)

    def _check(self, folder: str) -> None:
        utc, local, bare = self._utc.get(folder), self._local.get(folder), self._bare.get(folder)
        if utc and local:
            fact = f"{utc} is named in UTC, {local[0]} in {timezone(local[1])}, according to their metadata"
            self._warn(folder, fact, "times of recordings without metadata may be wrong")
        if bare is None:
            return
        name, named, zone = bare
        read = "a time without a zone" if zone is None else f"a time in {zone}"
        away = None if zone is None else named.replace(tzinfo=zone).utcoffset()
        remedy = f"{name} has no metadata, and its name is read as {read}"
        if utc and away != timedelta(0):
            self._warn(folder, f"{utc} is named in UTC, according to its metadata", remedy)
        if local and away is not None and away != local[1]:
            fact = f"{local[0]} is named in {timezone(local[1])}, according to its metadata"
            self._warn(folder, fact, remedy)

    def _warn(self, folder: str, fact: str, remedy: str) -> None:
        if (folder, fact) not in self._warned:
            self._warned.add((folder, fact))
            _logger.warning("%s: %s; %s", folder, fact, remedy)


def _folder_and_name(path: str) -> tuple[str, str]:
    whole = PurePath(path)
    return str(whole.parent), whole.name
