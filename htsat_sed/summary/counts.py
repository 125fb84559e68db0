"""Counts of events by the hour, and their sums over days, weeks, hours of the day and sites.

Rules:

- Hours, days and weeks are those on the clock: of the time zone, or of the recorders where none is given. An
  hour that a change of the clock repeats has 7200 s.
- An event counts in the hour in which it begins; its seconds count in the hours in which they lie.
- Where events of a class overlap, as in overlapping recordings, their seconds count once. So does recorded
  time.
- A minute is positive if any part of it has the class, and recorded if any part of it was recorded.
- An hour that was not recorded has no cell: it is not zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import NamedTuple, TypeVar

from htsat_sed.detection.events import Event

_Key = TypeVar("_Key")


class Hour(NamedTuple):
    """An hour on the clock."""

    date: date
    hour: int


@dataclass
class Tally:
    """What was counted in a stretch of clock time.

    Attributes:
        events: that begin in it.
        seconds: that have the class.
        minutes: that have it at least in part.
    """

    events: int = 0
    seconds: float = 0.0
    minutes: int = 0

    def add(self, other: Tally) -> None:
        """Add another stretch."""
        self.events += other.events
        self.seconds += other.seconds
        self.minutes += other.minutes


Hourly = dict[Hour, Tally]


@dataclass(frozen=True)
class Recording:
    """A recording with its events.

    Attributes:
        site: where it was made.
        start: when it began, with a zone or without.
        duration: seconds.
        events: in it.
    """

    site: str
    start: datetime
    duration: float
    events: Sequence[Event]


@dataclass
class Season:
    """All recordings, counted by the hour.

    Attributes:
        labels: classes, the most minutes first.
        effort: site -> hour -> what was recorded; its events are recordings.
        counts: (site, label) -> hour -> what was counted; hours without the class have no entry.
    """

    labels: list[str] = field(default_factory=list)
    effort: dict[str, Hourly] = field(default_factory=dict)
    counts: dict[tuple[str, str], Hourly] = field(default_factory=dict)


def count(recordings: Iterable[Recording], zone: tzinfo | None, labels: Sequence[str] = ()) -> Season:
    """Count the events of recordings by the hour.

    Args:
        recordings: with their events; those of no length have no minutes.
        zone: of the clock; None for the recorders' own, whatever their zones.
        labels: classes that have rows even where they never occur.
    """
    recorded: dict[str, list[tuple[float, float]]] = {}
    sounding: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for each in recordings:
        begin = _seconds(each.start, zone)
        recorded.setdefault(each.site, []).append((begin, begin + each.duration))
        for event in each.events:
            sounding.setdefault((each.site, event.label), []).append(
                (begin + event.onset, begin + event.offset)
            )
    season = Season(
        effort={site: tally(spans, zone) for site, spans in sorted(recorded.items())},
        counts={key: tally(spans, zone) for key, spans in sorted(sounding.items())},
    )
    minutes = dict.fromkeys([*labels, *(label for _, label in season.counts)], 0)
    for (_, label), hours in season.counts.items():
        minutes[label] += sum(each.minutes for each in hours.values())
    season.labels = sorted(minutes, key=lambda label: (-minutes[label], label))
    return season


def tally(spans: Iterable[tuple[float, float]], zone: tzinfo | None) -> Hourly:
    """Count spans by the hour.

    Args:
        spans: from second to second since 1970 (UTC, or on the clock if there is no zone), in any order.
        zone: of the clock.
    """
    hours: Hourly = {}
    ordered = sorted(spans)
    for begin, _ in ordered:
        hours.setdefault(_hour(begin, zone)[0], Tally()).events += 1
    last = -math.inf  # the last minute that counts already
    for begin, end in _united(ordered):
        at = begin
        while at < end:
            hour, next_hour = _hour(at, zone)
            piece_end = min(end, next_hour)
            of_hour = hours.setdefault(hour, Tally())
            of_hour.seconds += piece_end - at
            first, beyond = max(last + 1, math.floor(at / 60.0)), math.ceil(piece_end / 60.0)
            of_hour.minutes += max(0, int(beyond - first))
            last = max(last, beyond - 1)
            at = piece_end
    return hours


def _united(ordered: Iterable[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """The same spans; those that touch or overlap as one."""
    held: tuple[float, float] | None = None
    for begin, end in ordered:
        if held is not None and begin <= held[1]:
            held = held[0], max(held[1], end)
            continue
        if held is not None:
            yield held
        held = begin, end
    if held is not None:
        yield held


def _seconds(time: datetime, zone: tzinfo | None) -> float:
    """Seconds since 1970: of time itself where there is a zone, else on the clock."""
    if zone is None:
        return time.replace(tzinfo=UTC).timestamp()
    return (time.replace(tzinfo=zone) if time.tzinfo is None else time).timestamp()


def _hour(seconds: float, zone: tzinfo | None) -> tuple[Hour, float]:
    """The hour on the clock of a moment, and when the next one begins."""
    whole = math.floor(seconds)
    clock = datetime.fromtimestamp(whole, zone or UTC)
    passed = clock.minute * 60 + clock.second
    return Hour(clock.date(), clock.hour), float(whole - passed + 3600)


@dataclass(frozen=True)
class Period:
    """How hours are summed.

    Attributes:
        name: of the table.
        columns: that name the period.
        of: hour -> the cells of those columns.
    """

    name: str
    columns: tuple[str, ...]
    of: Callable[[Hour], tuple[str, ...]]


PERIODS = (
    Period("hours", ("date", "hour"), lambda hour: (hour.date.isoformat(), f"{hour.hour:02d}")),
    Period("days", ("date",), lambda hour: (hour.date.isoformat(),)),
    Period("weeks", ("week",), lambda hour: (hour.date.strftime("%G-W%V"),)),
    Period("hours_of_day", ("hour",), lambda hour: (f"{hour.hour:02d}",)),
    Period("sites", (), lambda hour: ()),
)
"""The tables of a season; weeks are those of ISO 8601."""


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        site: where.
        period: cells that name the period.
        label: class.
        counted: what was counted.
        recorded: what was recorded meanwhile.
    """

    site: str
    period: tuple[str, ...]
    label: str
    counted: Tally
    recorded: Tally


def rows(season: Season, period: Period) -> Iterator[Row]:
    """The rows of a table: each site, each of its periods that were recorded in part, each class."""
    for site, effort in season.effort.items():
        recorded = summed(effort, period.of)
        counted = {label: summed(season.counts.get((site, label), {}), period.of) for label in season.labels}
        for key in sorted(recorded):
            for label in season.labels:
                yield Row(site, key, label, counted[label].get(key, Tally()), recorded[key])


def summed(hours: Mapping[Hour, Tally], key: Callable[[Hour], _Key]) -> dict[_Key, Tally]:
    """Sums over the hours of each key."""
    found: dict[_Key, Tally] = {}
    for hour, each in hours.items():
        found.setdefault(key(hour), Tally()).add(each)
    return found


def days(season: Season) -> list[date]:
    """All days from the first that was recorded to the last."""
    recorded = {hour.date for hours in season.effort.values() for hour in hours}
    if not recorded:
        return []
    first, last = min(recorded), max(recorded)
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]
