"""Plots of a season: heat maps of hour by date, and curves over the day.

Hours without recordings are hatched, not zero. Colours run from dark to light, so that they work in grey;
curves also differ in marker and dash.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, DateFormatter, DayLocator
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from htsat_sed.pictures.files import save

_WIDTH = 10.0  # inches, as all lengths below
_PANEL = 2.6
_FEW_DAYS = 5  # up to which matplotlib would label hours
_MANY_DAYS = 400  # from which it labels months
_MOST_PANELS = 12
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#7f7f7f")
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
_MARKERS = "osD^vPX*"
MOST_CURVES = len(_COLOURS)
_NOTHING: Any = {"facecolor": "white", "edgecolor": "#bbbbbb", "hatch": "////", "lw": 0}


@dataclass(frozen=True)
class Sun:
    """Sunrise and sunset of a day, in hours of local time; NaN if the sun does not rise or set."""

    sunrise: float
    sunset: float


def draw_heat_map(
    path: Path,
    label: str,
    days: Sequence[date],
    minutes: Mapping[str, NDArray[np.float64]],
    *,
    zone: str,
    sun: Sequence[Sun] | None = None,
) -> None:
    """Draw the heat map of a class by hour and date, one panel per site.

    Args:
        path: picture file; its suffix selects the format.
        label: class.
        days: D consecutive days.
        minutes: site -> (24, D) positive minutes per recorded hour, 0 to 60; NaN where nothing was recorded.
        zone: name of the time zone, for the axis of hours.
        sun: sunrise and sunset of each day, if known.

    Raises:
        HtsatSedError: it cannot be written.
    """
    sites = list(minutes)[:_MOST_PANELS]
    found = [float(np.nanmax(each)) for each in minutes.values() if np.isfinite(each).any()]
    highest = max(found, default=0.0)
    with rc_context({"font.size": 9}):
        figure = Figure(figsize=(_WIDTH, 0.9 + _PANEL * len(sites)), layout="constrained")
        panels = np.atleast_1d(figure.subplots(len(sites), 1, sharex=True))
        for axes, site in zip(panels, sites, strict=True):
            image = _heat(axes, days, minutes[site], highest or 1.0)
            if site:
                axes.set_title(site, loc="left", fontsize=9)
            _suns(axes, days, sun)
        form = "%d %b" if len(days) <= _MANY_DAYS else "%b %Y"
        panels[-1].xaxis.set_major_formatter(DateFormatter(form))  # type: ignore[no-untyped-call]
        years = sorted({str(days[0].year), str(days[-1].year)})
        panels[-1].set_xlabel(" to ".join(years), loc="right")
        figure.suptitle(label, x=0.01, ha="left", weight="bold")
        figure.supylabel(f"hour ({zone})", fontsize=9)
        figure.colorbar(image, ax=list(panels), label="positive minutes in an hour of recording", pad=0.01)
        keys: list[Any] = [Patch(facecolor="white", edgecolor="#999999", hatch="////", label="not recorded")]
        if sun is not None:
            keys.append(Line2D([], [], color="white", lw=0.9, label="sunrise, sunset"))
        legend = figure.legend(handles=keys, loc="upper right", ncols=2, frameon=False)
        _outline(legend.get_lines())
        save(figure, path)


def _heat(axes: Axes, days: Sequence[date], minutes: NDArray[np.float64], highest: float) -> Any:
    left, right = _number(days[0]), _number(days[-1]) + 1.0
    axes.set_facecolor("white")
    axes.fill_between(
        [left, right], 0, 24, facecolor="white", edgecolor="#bbbbbb", hatch="////", lw=0, zorder=0
    )
    image = axes.imshow(
        minutes,  # NaN is not drawn
        extent=(left, right, 24.0, 0.0),
        aspect="auto",
        interpolation="nearest",
        cmap="viridis",
        vmin=0.0,
        vmax=highest,
        zorder=1,
    )
    axes.xaxis_date()
    if len(days) > _FEW_DAYS:
        locator: Any = AutoDateLocator(minticks=3, maxticks=10)  # type: ignore[no-untyped-call]
    else:
        locator = DayLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.set_ylim(24, 0)
    axes.set_yticks(range(0, 25, 6 if len(days) else 24))
    return image


def _number(day: date) -> float:
    """A day on an axis of dates: days since 1970."""
    return float(day.toordinal() - date(1970, 1, 1).toordinal())


def _suns(axes: Axes, days: Sequence[date], sun: Sequence[Sun] | None) -> None:
    if sun is None:
        return
    left, right = _number(days[0]), _number(days[-1]) + 1.0
    middles = [left, *(_number(day) + 0.5 for day in days), right]
    for hours in ([each.sunrise for each in sun], [each.sunset for each in sun]):
        through = _broken([hours[0], *hours, hours[-1]])
        _outline(axes.plot(middles, through, color="white", lw=0.9, zorder=2, drawstyle="steps-mid"))
    axes.set_xlim(left, right)


def _broken(hours: Sequence[float]) -> list[float]:
    """The hours, with a gap where they pass midnight."""
    found = list(hours)
    for index in range(1, len(found)):
        if abs(found[index] - hours[index - 1]) > 12.0:
            found[index] = math.nan
    return found


def _outline(lines: Sequence[Line2D]) -> None:
    from matplotlib.patheffects import Normal, Stroke

    for line in lines:
        line.set_path_effects([Stroke(linewidth=2.2, foreground="black"), Normal()])


def draw_daily_curves(
    path: Path,
    shares: Mapping[str, Mapping[str, NDArray[np.float64]]],
    *,
    zone: str,
    sun: tuple[Sun, Sun] | None = None,
) -> None:
    """Draw the positive minutes of classes over the day, one panel per site.

    Args:
        path: picture file; its suffix selects the format.
        shares: site -> label -> (24,) percentage of the recorded minutes that are positive; NaN where nothing
            was recorded. At most `MOST_CURVES` labels.
        zone: name of the time zone, for the axis of hours.
        sun: sunrise and sunset of the first and last day of the season, if known.

    Raises:
        HtsatSedError: it cannot be written.
    """
    sites = list(shares)[:_MOST_PANELS]
    with rc_context({"font.size": 9}):
        figure = Figure(figsize=(_WIDTH, 0.9 + _PANEL * len(sites)), layout="constrained")
        panels = np.atleast_1d(figure.subplots(len(sites), 1, sharex=True, sharey=True))
        for axes, site in zip(panels, sites, strict=True):
            if site:
                axes.set_title(site, loc="left", fontsize=9)
            _nights(axes, sun)
            of_site = shares[site]
            recorded = np.isfinite(next(iter(of_site.values()))) if of_site else np.ones(24, bool)
            for hour in np.flatnonzero(~recorded):
                axes.axvspan(
                    hour, hour + 1, facecolor="white", edgecolor="#bbbbbb", hatch="////", lw=0, zorder=0
                )
            for index, (label, share) in enumerate(of_site.items()):
                axes.plot(
                    np.arange(24) + 0.5,
                    share,
                    color=_COLOURS[index],
                    linestyle=_DASHES[index],
                    marker=_MARKERS[index],
                    markersize=4,
                    lw=1.4,
                    label=label,
                    clip_on=False,
                    zorder=3,
                )
            axes.set(xlim=(0, 24), xticks=range(0, 25, 3))
            axes.grid(axis="y", lw=0.4, color="#dddddd")
        panels[-1].set(xlabel=f"hour of the day ({zone})", ylim=(0, None))  # of all panels, which share it
        figure.supylabel("recorded minutes with the class (%)", fontsize=9)
        handles, labels = panels[0].get_legend_handles_labels()
        handles.append(Patch(facecolor="white", edgecolor="#999999", hatch="////", label="not recorded"))
        labels.append("not recorded")
        if sun is not None:
            handles.append(Patch(facecolor="#e8e8f4", label="night"))
            labels.append("night")
        figure.legend(handles, labels, loc="outside upper left", ncols=4, frameon=False)
        save(figure, path)


def _nights(axes: Axes, sun: tuple[Sun, Sun] | None) -> None:
    """Shade the hours before the mean sunrise and after the mean sunset."""
    if sun is None:
        return
    rise = (sun[0].sunrise + sun[1].sunrise) / 2
    fall = (sun[0].sunset + sun[1].sunset) / 2
    if math.isfinite(rise) and math.isfinite(fall):
        axes.axvspan(0, rise, color="#e8e8f4", lw=0, zorder=-1)
        axes.axvspan(fall, 24, color="#e8e8f4", lw=0, zorder=-1)
