"""Options that select recordings, and the dry run."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING, ClassVar

import typer

from htsat_sed.cli.groups import RECORDINGS, option
from htsat_sed.cli.terminal import emit, remark, say
from htsat_sed.errors import HtsatSedError, UsageError, counted

if TYPE_CHECKING:
    from htsat_sed.cli.clock_options import ClockOptions
    from htsat_sed.clock import Clock
    from htsat_sed.detection.detector import Detector
    from htsat_sed.runs.recordings import Recording

_TIMED = 60  # seconds of noise to measure the speed


@dataclass(frozen=True)
class SelectionOptions:
    """Selection of recordings."""

    panel: ClassVar[str] = RECORDINGS
    since: str | None = option(
        None,
        "Select recordings that began at this time or later: a date (2026-05-12), a date and time "
        "(2026-05-12T04:30), or a time of day (22:00).",
        metavar="TIME",
    )
    until: str | None = option(
        None, "Select recordings that began before this time, or time of day.", metavar="TIME"
    )
    min_duration: float = option(
        0.0,
        "Skip recordings that are shorter than this according to their headers.",
        min=0.0,
        metavar="SECONDS",
    )
    limit: int | None = option(None, "Select at most N recordings, the first ones.", min=1, metavar="N")
    sample: bool = option(
        False,
        "With --limit, select N recordings at random; the same recordings yield the same selection.",
        "--sample",
    )
    dry_run: bool = option(
        False,
        "Only list the recordings that would be read, with start and duration, and estimate the time needed.",
        "--dry-run",
    )

    def choose(self, recordings: list[Recording], clock: Clock) -> list[Recording]:
        """The selected recordings, in order.

        Raises:
            UsageError: a time is invalid, or no recording is selected.
            typer.BadParameter: an option needs another one.
        """
        if self.sample and self.limit is None:
            raise typer.BadParameter("--sample needs --limit", param_hint="--sample")
        chosen = recordings
        if self.since is not None or self.until is not None:
            within = _within(self.since, self.until)
            starts = {each.name: clock.start(each.path) for each in chosen}
            chosen = [e for e in chosen if (start := starts[e.name]) is not None and within(start.time)]
            if unknown := sum(start is None for start in starts.values()):
                say("note", f"recordings left out because their start is unknown: {unknown}")
        if self.min_duration > 0.0:
            chosen = [e for e in chosen if (length := _duration(e)) is None or length >= self.min_duration]
        if self.limit is not None and len(chosen) > self.limit:
            places = random.Random(0).sample(range(len(chosen)), self.limit) if self.sample else []
            chosen = [chosen[place] for place in sorted(places) or range(self.limit)]
        if recordings and not chosen:
            given = "--since, --until, --min-duration"
            raise UsageError(f"none of the {len(recordings)} recordings is selected by {given}")
        return chosen

    def end_if_dry(
        self,
        recordings: Sequence[Recording],
        clock_options: ClockOptions,
        detector: Callable[[], Detector],
        failures: Sequence[HtsatSedError],
        *,
        passes: int = 1,
    ) -> None:
        """With --dry-run, list the recordings, estimate the time needed, and exit.

        Args:
            recordings: that were chosen.
            clock_options: for their begin.
            detector: makes the one that would be used.
            failures: of the search for recordings.
            passes: how often each recording would go through the model.

        Raises:
            typer.Exit: always with --dry-run.
        """
        from htsat_sed.annotations.delimited import row

        if not self.dry_run:
            return
        clock = clock_options.clock()
        emit(row(("filename", "begin", "duration"), "\t"))
        known, unknown = 0.0, 0
        for each in recordings:
            start, duration = clock.start(each.path), _duration(each)
            known += duration or 0.0
            unknown += duration is None
            begin = "" if start is None else start.iso(0.0)
            emit(row((each.name, begin, "" if duration is None else f"{duration:.3f}"), "\t"))
        cost, runtime = _cost(detector)
        seconds = known * cost * passes
        more = f"; the duration of {unknown} is unknown" if unknown else ""
        found = counted(len(recordings), "recording")
        remark(f"{found}, {known / 3600:.2f} h of sound{more}; nothing was written")
        hours, rest = divmod(round(seconds), 3600)
        takes = f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
        remark(f"the model would take about {takes} on this machine ({runtime})")
        raise typer.Exit(1 if failures else 0)


def _within(since: str | None, until: str | None) -> Callable[[datetime], bool]:
    """A function that tests whether a time lies between two times, or two times of day."""
    given = [each for each in (since, until) if each is not None]
    hours = [bool(re.fullmatch(r"\d{1,2}:\d\d(:\d\d)?", each.strip())) for each in given]
    if any(hours):
        if not all(hours):
            raise UsageError("--since, --until: give two dates, or two times of day")
        first = _hour(since) if since is not None else time.min
        last = _hour(until) if until is not None else time.max
        if first <= last:
            return lambda moment: first <= moment.time() < last or (until is None and moment.time() >= first)
        return lambda moment: moment.time() >= first or moment.time() < last  # over midnight
    from htsat_sed.clock import parse_time

    begin = None if since is None else parse_time(since)
    # Without an offset, a time in the hour that clocks repeat is the first as --since, the second as --until.
    end = None if until is None else parse_time(until).replace(fold=1)
    for each in (begin, end):
        if each is not None and each.year in (1, 9999):  # other zones would have no such year
            raise UsageError(f"wanted a year from 2 to 9998, got {each.year}")

    def within(moment: datetime) -> bool:
        after_begin = begin is None or _instant(begin, moment) <= _instant(moment, moment)
        return after_begin and (end is None or _instant(moment, moment) < _instant(end, moment))

    return within


def _instant(time: datetime, start: datetime) -> datetime:
    """A time to compare with the start of a recording, in UTC if that start has a zone.

    A time without a zone is in the zone of the recording; zones are ignored if the recording has none.
    Python compares times of one zone by the wall clock, and those of the repeated hour never as equal.
    """
    if start.tzinfo is None:
        return time.replace(tzinfo=None)
    return (time if time.tzinfo is not None else time.replace(tzinfo=start.tzinfo)).astimezone(UTC)


def _hour(text: str) -> time:
    try:
        return time.fromisoformat(text.strip().zfill(5 if text.count(":") == 1 else 8))
    except ValueError:
        raise UsageError(f"wanted a time of day such as 04:30, got {text!r}") from None


def _duration(recording: Recording) -> float | None:
    """Duration from the header, seconds; None if not stated or not readable."""
    from htsat_sed.audio import open_recording

    if recording.path == "-":
        return None
    try:
        with open_recording(recording.path, 32_000) as stream:
            return stream.expected_duration
    except HtsatSedError:
        return None


def _cost(make: Callable[[], Detector]) -> tuple[float, str]:
    """Computing time per second of audio, and the runtime."""
    from time import perf_counter

    import numpy as np

    detector = make()
    rate = detector.config.sample_rate
    noise = (0.1 * np.random.default_rng(0).standard_normal(_TIMED * rate)).astype(np.float32)
    detector.presence_map(noise[: 10 * rate], sample_rate=rate)  # warm
    begun = perf_counter()
    detector.presence_map(noise, sample_rate=rate)
    return (perf_counter() - begun) / _TIMED, detector.runtime
