"""Options about clock times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from htsat_sed.cli.groups import option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from htsat_sed.clock import Clock, Start
    from htsat_sed.runs.recordings import Recording

CLOCK_TIMES = "Clock times"


@dataclass(frozen=True)
class ClockOptions:
    """How it is found when recordings began."""

    panel: ClassVar[str] = CLOCK_TIMES
    timezone: str | None = option(
        None,
        "Time zone, such as Europe/Berlin, UTC or +02:00. Applies to times without a zone; other times "
        "are converted to it.  \\[default: times as the recorder wrote them]",
        metavar="ZONE",
    )
    time_format: str | None = option(
        None,
        "Pattern of the time in file names, if it is not recognised: %Y year, %m month, %d day, %H hour, "
        "%M minute, %S second, as in '%d-%m-%Y_%Hh%M'. A pattern with / is matched against the path.",
        metavar="FORMAT",
    )

    def settings(self) -> dict[str, Any]:
        """What outputs depend on, by name, for a journal; nothing where no option was given."""
        given = {"timezone": self.timezone, "time format": self.time_format}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def given(self) -> bool:
        """Whether one of the options was given."""
        return self.timezone is not None or self.time_format is not None

    def clock(self) -> Clock:
        """The clock that the options describe.

        Raises:
            UsageError: there is no such time zone or time format.
        """
        from htsat_sed.clock import Clock, parse_zone

        zone = None if self.timezone is None else parse_zone(self.timezone)
        return Clock(timezone=zone, time_format=self.time_format)


@dataclass(frozen=True)
class ClockColumnOptions(ClockOptions):
    """The same, for outputs that have clock times where they are known."""

    no_clock: bool = option(False, "Do not write clock times.", "--no-clock")

    def starts(self, recordings: Sequence[Recording]) -> Mapping[str, Start]:
        """When recordings began, by name."""
        from htsat_sed.clock import Starts

        clock = self.clock()
        return {} if self.no_clock else Starts(clock, {each.name: each.path for each in recordings})

    def settings(self) -> dict[str, Any]:
        """See `ClockOptions.settings`."""
        return super().settings() | ({"clock times": False} if self.no_clock else {})
