"""CSV tables of a season: by hour, day, week, hour of the day and site, and the recording effort."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from htsat_sed.annotations.delimited import row
from htsat_sed.summary.counts import PERIODS, Period, Row, Season, Tally, rows
from htsat_sed.whole_file import make_folder, whole_file

_COUNTED = ("events", "seconds", "positive_minutes")
_RECORDED = ("recorded_seconds", "recorded_minutes")


def table_paths(folder: Path) -> list[Path]:
    """Paths of the tables."""
    return [*(folder / f"{period.name}.csv" for period in PERIODS), folder / "effort.csv"]


def write_tables(
    folder: Path,
    season: Season,
    *,
    link: Callable[[Period, Row], str] | None = None,
    safe_cells: bool = False,
) -> None:
    """Write all tables.

    Args:
        folder: made if it is not there.
        season: what is counted.
        link: address for the column ``page`` of a row with events; None for no such column.
        safe_cells: keep spreadsheets from running names as formulas, see `delimited`.

    Raises:
        HtsatSedError: one cannot be written.
    """
    make_folder(folder)
    for period, path in zip(PERIODS, table_paths(folder), strict=False):
        with whole_file(path) as file:
            columns = ("site", *period.columns, "label", *_COUNTED, *_RECORDED)
            file.write(row(columns if link is None else (*columns, "page"), ","))
            for each in rows(season, period):
                cells = (each.site, *each.period, each.label, str(each.counted.events))
                cells += (*_time(each.counted), *_time(each.recorded))
                if link is not None:
                    cells += (link(period, each) if each.counted.events else "",)
                file.write(row(cells, ",", safe_cells=safe_cells))
    with whole_file(folder / "effort.csv") as file:
        file.write(row(("site", "date", "hour", *_RECORDED), ","))
        file.writelines(row(cells, ",", safe_cells=safe_cells) for cells in _effort(season))


def _effort(season: Season) -> Iterator[tuple[str, ...]]:
    for site, hours in season.effort.items():
        for hour in sorted(hours):
            yield site, hour.date.isoformat(), f"{hour.hour:02d}", *_time(hours[hour])


def _time(counted: Tally) -> tuple[str, str]:
    return f"{counted.seconds:.3f}", str(counted.minutes)
