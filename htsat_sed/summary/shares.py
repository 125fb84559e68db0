"""Arrays of a season for plots; NaN where nothing was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
from numpy.typing import NDArray

from htsat_sed.summary.counts import Hour, Season, Tally, summed


def hour_by_day(season: Season, label: str, days: Sequence[date]) -> dict[str, NDArray[np.float64]]:
    """Positive minutes per recorded hour, (24, D) for each site."""
    place = {day: column for column, day in enumerate(days)}
    found = {}
    for site, effort in season.effort.items():
        minutes = np.full((24, len(days)), np.nan)
        counts = season.counts.get((site, label), {})
        for hour, recorded in effort.items():
            if recorded.minutes:
                positive = counts.get(hour, Tally()).minutes
                minutes[hour.hour, place[hour.date]] = 60.0 * positive / recorded.minutes
        found[site] = minutes
    return found


def daily_shares(season: Season, site: str, labels: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Percentage of the recorded minutes that are positive, (24,) for each class."""

    def of_day(hour: Hour) -> int:
        return hour.hour

    recorded = summed(season.effort[site], of_day)
    found = {}
    for label in labels:
        counted = summed(season.counts.get((site, label), {}), of_day)
        shares = np.full(24, np.nan)
        for hour in range(24):
            if (effort := recorded.get(hour)) is not None and effort.minutes:
                shares[hour] = 100.0 * counted.get(hour, Tally()).minutes / effort.minutes
        found[label] = shares
    return found
