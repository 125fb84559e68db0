"""Sunrise and sunset, by astral (extra ``field``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, datetime, tzinfo
from typing import Any

from htsat_sed.libraries import load


def require_astral() -> tuple[Any, Any]:
    """Import the modules astral and astral.sun.

    Raises:
        UsageError: astral is not installed.
    """
    purpose = "the line of sunrise and sunset"
    return load("astral", purpose=purpose, extra="field"), load("astral.sun", purpose=purpose, extra="field")


def sun_hours(
    days: Sequence[date], latitude: float, longitude: float, zone: tzinfo
) -> list[tuple[float, float]]:
    """Sunrise and sunset of each day, in hours of local time; NaN if the sun does not rise or set.

    Args:
        days: the days.
        latitude: degrees, north positive, -90 to 90.
        longitude: degrees, east positive, -180 to 180.
        zone: time zone.

    Raises:
        UsageError: astral is not installed.
    """
    astral, sun = require_astral()
    observer = astral.Observer(latitude, longitude)

    def hours(of: Any, day: date) -> float:
        try:
            moment: datetime = of(observer, date=day, tzinfo=zone)
        except ValueError:  # a polar day or night
            return math.nan
        return moment.hour + moment.minute / 60.0 + moment.second / 3600.0

    return [(hours(sun.sunrise, day), hours(sun.sunset, day)) for day in days]
