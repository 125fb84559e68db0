"""Hourly counts of events, and their sums over days, weeks, hours of the day and sites.

Rules:

- Hours, days and weeks follow the clock of the given time zone, or else the recorders' clocks. An hour that a
  clock change repeats has 7200 s.
- An event counts in the hour in which it begins; its seconds count in the hours that contain them.
- Seconds in which events of a class overlap count once, as in overlapping recordings. So does recorded time.
- A minute is positive if any part of it has the class, and recorded if any part of it was recorded.
- An hour without recordings has no cell; it is not zero.
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
    """Counts of a period of clock time.

    Attributes:
        events: events that begin in it.
        seconds: seconds with the class.
        minutes: positive minutes.
    """

    events: int = 0
    seconds: float = 0.0
    minutes: int = 0

    def add(self, other: Tally) -> None:
        """Add the counts of another period."""
        self.events += other.events
        self.seconds += other.seconds
        self.minutes += other.minutes


Hourly = dict[Hour, Tally]


@dataclass(frozen=True)
class Recording:
    """A recording with its events.

    Attributes:
        site: site of the recorder.
        start: start, naive or with a zone.
        duration: seconds.
        events: events in the recording.
    """

    site: str
    start: datetime
    duration: float
    events: Sequence[Event]


@dataclass
class Season:
    """Hourly counts of all recordings.

    Attributes:
        labels: classes, in descending order of positive minutes.
        effort: site -> hour -> recorded time; its `events` are recordings.
        counts: (site, label) -> hour -> counts; hours without the class have no entry.
    """

    labels: list[str] = field(default_factory=list)
    effort: dict[str, Hourly] = field(default_factory=dict)
    counts: dict[tuple[str, str], Hourly] = field(default_factory=dict)


def count(recordings: Iterable[Recording], zone: tzinfo | None, labels: Sequence[str] = ()) -> Season:
    """Count the events of recordings by the hour.

    Args:
        recordings: recordings with their events; those of duration 0 have no minutes.
        zone: zone of the clock; None for the recorders' own clocks, whatever their zones.
        labels: classes that have rows even if they never occur.
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
    """Hourly counts of time spans.

    Args:
        spans: start and end in seconds since 1970 (UTC, or of the clock if `zone` is None), in any order.
        zone: zone of the clock.
    """
    hours: Hourly = {}
    ordered = sorted(spans)
    for begin, _ in ordered:
        hours.setdefault(_hour(begin, zone)[0], Tally()).events += 1
    last = -math.inf  # the last minute already counted
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
    """Union of spans: those that touch or overlap are merged."""
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
    """Seconds since 1970: in UTC if there is a zone, otherwise of the clock."""
    if zone is None:
        return time.replace(tzinfo=UTC).timestamp()
    return (time.replace(tzinfo=zone) if time.tzinfo is None else time).timestamp()


def _hour(seconds: float, zone: tzinfo | None) -> tuple[Hour, float]:
    """The hour on the clock of a moment, and the start of the next hour."""
    whole = math.floor(seconds)
    clock = datetime.fromtimestamp(whole, zone or UTC)
    passed = clock.minute * 60 + clock.second
    return Hour(clock.date(), clock.hour), float(whole - passed + 3600)


@dataclass(frozen=True)
class Period:
    """A table that sums hours.

    Attributes:
        name: name of the table.
        columns: columns that name the period.
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
"""The tables of a season; weeks follow ISO 8601."""


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        site: site of the recorder.
        period: cells that name the period.
        label: class.
        counted: counts of the class in the period.
        recorded: recorded time in the period.
    """

    site: str
    period: tuple[str, ...]
    label: str
    counted: Tally
    recorded: Tally


def rows(season: Season, period: Period) -> Iterator[Row]:
    """The rows of a table: one for each site, period with recordings, and class."""
    for site, effort in season.effort.items():
        recorded = summed(effort, period.of)
        counted = {label: summed(season.counts.get((site, label), {}), period.of) for label in season.labels}
        for key in sorted(recorded):
            for label in season.labels:
                yield Row(site, key, label, counted[label].get(key, Tally()), recorded[key])


def summed(hours: Mapping[Hour, Tally], key: Callable[[Hour], _Key]) -> dict[_Key, Tally]:
    """Sums of the hours with the same key."""
    found: dict[_Key, Tally] = {}
    for hour, each in hours.items():
        found.setdefault(key(hour), Tally()).add(each)
    return found


def days(season: Season) -> list[date]:
    """All days from the first with recordings to the last."""
    recorded = {hour.date for hours in season.effort.values() for hour in hours}
    if not recorded:
        return []
    first, last = min(recorded), max(recorded)
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]
