"""Options about clock times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from htsat_sed.cli.groups import option

if TYPE_CHECKING:
    from htsat_sed.clock import Clock

CLOCK_TIMES = "Clock times"


@dataclass(frozen=True)
class ClockOptions:
    """How it is found when recordings began."""

    panel: ClassVar[str] = CLOCK_TIMES
    timezone: str | None = option(
        None,
        "Time zone of recordings that name none, such as Europe/Berlin, UTC or +02:00; the times of others "
        "are converted to it.  \\[default: times as the recorder's clock had them]",
        metavar="ZONE",
    )
    time_format: str | None = option(
        None,
        "How file names hold the time, where that is not understood: %Y year, %m month, %d day, %H hour, %M "
        "minute, %S second, as in '%d-%m-%Y_%Hh%M'; with / it is compared with the path.",
        metavar="FORMAT",
    )

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
