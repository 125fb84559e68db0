"""`htsat-sed summary`: events counted by hour, day, week and site, as tables and pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from htsat_sed.cli.clock_options import ClockOptions
from htsat_sed.cli.groups import REQUIRED, Without, argument, option, with_groups
from htsat_sed.cli.message_options import MessageOptions
from htsat_sed.cli.run_options import OverwriteOptions
from htsat_sed.cli.terminal import remark, report, say
from htsat_sed.errors import AnnotationError, HtsatSedError, counted
from htsat_sed.runs.output_checks import check_apart
from htsat_sed.runs.output_hashes import check_replaceable, recording_outputs

if TYPE_CHECKING:
    from htsat_sed.annotations import Table
    from htsat_sed.annotations.recorded import Recorded
    from htsat_sed.clock import Clock
    from htsat_sed.pictures.season import Sun
    from htsat_sed.summary.counts import Period, Recording, Row, Season

PICTURES = "Pictures"
_LISTED = 3


@dataclass(frozen=True)
class SeasonOptions:
    """Events to count, and the output folder."""

    events: list[Path] = argument(
        REQUIRED,
        "Events in any format. CSV, JSON Lines and Parquet from detect include the start and duration of "
        "recordings.",
        metavar="EVENTS",
    )
    out: Path = option(REQUIRED, "Folder for the tables and pictures.", "--output", "-o", metavar="DIR")
    site: str | None = option(
        None,
        "Regular expression that matches the site in a recording's name, such as '^[^_]+'. If it has "
        "groups, the first one is the site.  \\[default: the first folder, or the part before the date]",
        metavar="PATTERN",
    )
    labels: list[str] | None = option(
        None,
        "Count only this class: a label, or a file with one label per line. Repeatable.",
        metavar="LABEL|FILE",
    )
    min_score: float = option(
        0.0, "Count only events with at least this score.", min=0.0, max=1.0, metavar="SCORE"
    )
    audio: Path | None = option(
        None,
        "Folder of the recordings, for durations and clock times that EVENTS lacks.",
        "--audio",
        "-a",
        metavar="DIR",
    )
    durations: Path | None = option(
        None, "Table with filename and duration in seconds, for durations that EVENTS lacks.", metavar="TSV"
    )
    report: Path | None = option(
        None,
        "Folder that `htsat-sed report` made of these recordings: adds a column page to the tables, with "
        "links to the recordings of each count.",
        metavar="DIR",
    )


@dataclass(frozen=True)
class PictureOptions:
    """Plots."""

    panel: ClassVar[str] = PICTURES
    latitude: float | None = option(
        None,
        "Degrees north, with --longitude: draws sunrise and sunset (pip install 'htsat-sed\\[field]').",
        min=-90.0,
        max=90.0,
        metavar="DEGREES",
    )
    longitude: float | None = option(
        None, "Degrees east, with --latitude.", min=-180.0, max=180.0, metavar="DEGREES"
    )
    pictures: int = option(
        8, "Plot the N classes with the most positive minutes; 0 for no plots.", min=0, metavar="N"
    )
    format: Literal["png", "svg", "pdf"] = option("png", "Format of the plots.", "--format", "-f")


@with_groups
def summary(
    given: SeasonOptions,
    clock_options: ClockOptions,
    drawn: PictureOptions,
    overwriting: OverwriteOptions,
    messages: Annotated[MessageOptions, Without("progress")],
) -> None:
    """Count events by hour, day, week and site, with recording effort.

    Tables contain events, seconds and positive minutes of each class, and recorded seconds and minutes.
    Hours without recordings have no row, and are hatched in the plots.

    [bold]Examples[/bold]

      htsat-sed summary events.csv -o season/
      htsat-sed summary events.jsonl -o season/ --timezone Europe/Berlin --latitude 52.5 --longitude 13.4
      htsat-sed summary labels/ --audio card/ -o season/ --site '^site([0-9]+)'
      htsat-sed summary events.csv -o season/ --report pages/
    """
    from htsat_sed.summary.counts import count
    from htsat_sed.summary.sun import require_astral
    from htsat_sed.summary.tables import table_paths, write_tables

    if (drawn.latitude is None) != (drawn.longitude is None):
        raise typer.BadParameter("give both, or neither", param_hint="--latitude, --longitude")
    clock = clock_options.clock()
    if drawn.latitude is not None and clock.timezone is None:
        raise typer.BadParameter(
            "sunrise and sunset need a time zone: give --timezone", param_hint="--timezone"
        )
    if drawn.latitude is not None:
        require_astral()
    link = _page_link(given)
    failures: list[HtsatSedError] = []
    table, recorded = _read(given, failures)
    recordings, labels = _recordings(given, table, recorded, clock, failures)
    if not recordings:
        raise typer.Exit(_failed(failures, "there are no recordings to count"))
    season = count(recordings, clock.timezone, labels)
    pictures = _pictures(given.out, season.labels[: drawn.pictures], drawn)
    outputs = [*table_paths(given.out), *pictures.values()]
    check_apart(outputs, [*given.events, given.durations])
    check_replaceable(*outputs, overwrite=overwriting.overwrite)
    with recording_outputs():
        write_tables(given.out, season, link=link)
        if pictures:
            _draw(pictures, season, drawn, clock)
    hours = sum(each.seconds for hours in season.effort.values() for each in hours.values()) / 3600.0
    counts = (
        counted(len(recordings), "recording"),
        f"{hours:.1f} h",
        counted(len(season.effort), "site"),
        counted(len(season.labels), "class", "classes"),
    )
    remark(f"{', '.join(counts)}: {given.out}")
    raise typer.Exit(1 if failures else 0)


def _page_link(given: SeasonOptions) -> Callable[[Period, Row], str] | None:
    """Link of a count into the index of a report.

    An index knows the sites that names have without ``--site``; with it, links lead to all sites.
    """
    from htsat_sed.report.links import ReportLinks

    if given.report is None:
        return None
    if not given.report.is_dir():
        raise typer.BadParameter("wanted a folder of pages made by `htsat-sed report`", param_hint="--report")
    links = ReportLinks(given.report, given.out)

    def link(period: Period, row: Row) -> str:
        at = dict(zip(period.columns, row.period, strict=True))
        dates = at.get("date", "")
        if "week" in at:
            monday = datetime.strptime(f"{at['week']}-1", "%G-W%V-%u").date()
            dates = f"{monday},{monday + timedelta(days=6)}"
        site = row.site if given.site is None else ""
        return links.period(row.label, date=dates, hour=at.get("hour", ""), site=site)

    return link


def _failed(failures: Sequence[HtsatSedError], reason: str) -> int:
    if not failures:
        raise typer.BadParameter(reason, param_hint="EVENTS")
    return 1


def _read(given: SeasonOptions, failures: list[HtsatSedError]) -> tuple[Table, dict[str, Recorded]]:
    """The events of all tables, with starts and durations of recordings."""
    from htsat_sed.annotations import read_events
    from htsat_sed.annotations.recorded import read_recorded

    table: Table = {}
    recorded: dict[str, Recorded] = {}
    for path in given.events:
        try:
            for name, events in read_events(path).items():
                table[name] = sorted({*table.get(name, []), *events})
            recorded |= read_recorded(path)
        except HtsatSedError as error:
            failures.append(error)
            report(error)
    return table, recorded


def _recordings(
    given: SeasonOptions,
    table: Table,
    recorded: Mapping[str, Recorded],
    clock: Clock,
    failures: list[HtsatSedError],
) -> tuple[list[Recording], list[str]]:
    """Recordings with known start and duration, and the classes; reports other recordings."""
    from htsat_sed.annotations import read_durations
    from htsat_sed.annotations.recorded import Recorded
    from htsat_sed.cli.class_values import Known
    from htsat_sed.segments.export import locate
    from htsat_sed.summary.counts import Recording
    from htsat_sed.summary.sites import site_of, site_pattern

    known = sorted({event.label for own in table.values() for event in own})
    labels = Known(tuple(known), "these events").select(given.labels)
    pattern = None if given.site is None else site_pattern(given.site)
    lengths = {} if given.durations is None else read_durations(given.durations)
    found, missing = ({}, []) if given.audio is None else locate(list(table), given.audio)
    for error in missing:
        report(error)
    failures += missing
    recordings: list[Recording] = []
    without: dict[str, list[str]] = {"start": [], "duration": []}
    for name, own in table.items():
        listed = recorded.get(name, Recorded())
        path = found.get(name)
        start = clock.start(path or name) if listed.start is None else clock.shown(name, listed.start)
        duration = lengths.get(name, listed.duration)
        if duration is None and path is not None:
            duration = _length(path, failures)
        if start is None or duration is None:
            without["start" if start is None else "duration"].append(name)
            continue
        events = [e for e in own if e.score >= given.min_score and (labels is None or e.label in labels)]
        recordings.append(Recording(site_of(name, pattern), start.time, duration, events))
    failures += _report_unknown(given.events[0], without, len(table))
    if pattern is not None and table and not any(site_of(name, pattern) for name in table):
        say("warning", f"--site {given.site} matches none of {counted(len(table), 'name')}", "yellow")
    return recordings, known if labels is None else labels


def _report_unknown(path: Path, without: Mapping[str, Sequence[str]], total: int) -> list[AnnotationError]:
    """Report recordings that are left out."""
    remedies = {
        "start": "give the format of their names with --time-format, or their folder with --audio",
        "duration": "give their folder with --audio, or a table with --durations",
    }
    errors = []
    for what, names in without.items():
        if names:
            more = f" and {len(names) - _LISTED} more" if names[_LISTED:] else ""
            some = ", ".join(names[:_LISTED]) + more
            reason = (
                f"{len(names)} of {total} recordings are left out because their {what} is unknown: {some}"
            )
            errors.append(AnnotationError(path, f"{reason}; {remedies[what]}"))
            report(errors[-1])
    return errors


def _length(path: Path, failures: list[HtsatSedError]) -> float | None:
    """Duration of a recording from its header, or by decoding."""
    from htsat_sed.audio import open_recording

    try:
        with open_recording(path, 8000) as stream:
            if stream.expected_duration is not None:
                return stream.expected_duration
            for _ in stream.blocks():
                pass
            return stream.duration
    except HtsatSedError as error:
        failures.append(error)
        report(error)
        return None


def _pictures(folder: Path, labels: Sequence[str], drawn: PictureOptions) -> dict[str, Path]:
    """Paths of the plot of each class, and of the daily curves as ``""``."""
    if not labels:
        return {}
    paths: dict[str, Path] = {"": folder / f"daily.{drawn.format}"}
    taken = {"daily"}
    for label in labels:
        stem = "heatmap_" + (re.sub(r"[^\w.+=]+", "-", label).strip("-.")[:60] or "class")
        while stem.lower() in taken:
            stem += "-2"
        taken.add(stem.lower())
        paths[label] = folder / f"{stem}.{drawn.format}"
    return paths


def _draw(pictures: Mapping[str, Path], season: Season, drawn: PictureOptions, clock: Clock) -> None:
    from htsat_sed.pictures.season import MOST_CURVES, draw_daily_curves, draw_heat_map
    from htsat_sed.summary.counts import days
    from htsat_sed.summary.shares import daily_shares, hour_by_day

    dates = days(season)
    sun = _sun(dates, drawn, clock)
    zone = "recorder's clock" if clock.timezone is None else str(clock.timezone)
    labels = [label for label in pictures if label]
    for label in labels:
        draw_heat_map(pictures[label], label, dates, hour_by_day(season, label, dates), zone=zone, sun=sun)
    if len(labels) > MOST_CURVES:
        say("note", f"the daily plot shows the {MOST_CURVES} classes with the most minutes, of {len(labels)}")
    shares = {site: daily_shares(season, site, labels[:MOST_CURVES]) for site in season.effort}
    draw_daily_curves(pictures[""], shares, zone=zone, sun=(sun[0], sun[-1]) if sun else None)


def _sun(dates: Sequence[date], drawn: PictureOptions, clock: Clock) -> list[Sun] | None:
    from htsat_sed.pictures.season import Sun
    from htsat_sed.summary.sun import sun_hours

    if drawn.latitude is None or drawn.longitude is None or clock.timezone is None:
        return None
    return [Sun(*each) for each in sun_hours(dates, drawn.latitude, drawn.longitude, clock.timezone)]
