"""`htsat-sed convert`: converts, merges, renames and filters label files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

import typer

from htsat_sed.cli.class_values import Known
from htsat_sed.cli.clock_options import ClockOptions
from htsat_sed.cli.groups import OUTPUT, REQUIRED, SAFE_CELLS, Without, argument, option, with_groups
from htsat_sed.cli.message_options import MessageOptions
from htsat_sed.cli.run_options import OverwriteOptions
from htsat_sed.cli.terminal import remark, report, say
from htsat_sed.errors import HtsatSedError, counted
from htsat_sed.runs.output_checks import check_apart
from htsat_sed.runs.output_hashes import check_replaceable, recording_outputs

if TYPE_CHECKING:
    from htsat_sed.annotations import Table
    from htsat_sed.annotations.recorded import Recorded
    from htsat_sed.clock import Start
    from htsat_sed.labels import ClassMap

CHOICE = "Which events"


@dataclass(frozen=True)
class LabelOptions:
    """Label files to read, and the output."""

    labels: list[Path] = argument(
        REQUIRED,
        "Label files of any format, and folders with one file per recording. Several are merged.",
        metavar="LABELS",
    )
    out: Path = option(
        REQUIRED,
        "Output: a file for one table of all recordings, whose suffix selects the format; or a folder for "
        "formats with one file per recording.",
        "--output",
        "-o",
        metavar="FILE|DIR",
    )
    format: str | None = option(
        None,
        "tsv, csv, jsonl, rttm, parquet, raven-folder, kaleidoscope, label-studio, crowsetta, audioset: "
        "one file for all; audacity, raven, textgrid, webvtt, elan, sonic-visualiser: one file per "
        "recording.  \\[default: from the suffix of -o]",
        "--format",
        "-f",
        metavar="FORMAT",
    )
    source: str | None = option(
        None, "Format of LABELS.  \\[default: detected from their content]", "--from", metavar="FORMAT"
    )
    audio: Path | None = option(
        None,
        "Folder of the recordings, for durations, sample rates and clock times. Tables then name recordings "
        "by their path in DIR.",
        "--audio",
        "-a",
        metavar="DIR",
    )


@dataclass(frozen=True)
class FilterOptions:
    """Events to keep, and their labels."""

    panel: ClassVar[str] = CHOICE
    only: list[str] | None = option(
        None,
        "Keep only this class, named as in the output: a label, or a file with one label per line. "
        "Repeatable.",
        "--labels",
        metavar="LABEL|FILE",
    )
    class_map: str | None = option(
        None,
        "Rename or merge classes with a class map: desed, or your own TOML or CSV file. Drops classes "
        "that are not in it.",
        "--map",
        metavar="desed|FILE",
    )
    keep_others: bool = option(False, "Keep classes that are not in --map, too.", "--keep-others")
    min_score: float = option(
        0.0, "Keep only events with at least this score.", min=0.0, max=1.0, metavar="SCORE"
    )
    include: list[str] | None = option(
        None,
        "Keep only recordings that match this pattern: the name of a file or folder, or a path. Repeatable.",
        metavar="PATTERN",
    )
    exclude: list[str] | None = option(
        None, "Skip recordings that match this pattern. Repeatable.", metavar="PATTERN"
    )

    def apply(self, table: Table) -> Table:
        """The selected recordings and events, with their new labels."""
        from htsat_sed.labels import class_map
        from htsat_sed.runs.recordings import is_kept

        patterns = self.include or (), self.exclude or ()
        table = {name: own for name, own in table.items() if is_kept(name, *patterns)}
        if self.class_map is not None:
            table = _renamed(table, class_map(self.class_map), keep_others=self.keep_others)
        known = sorted({event.label for own in table.values() for event in own})
        wanted = Known(tuple(known), "these labels").select(self.only)
        return {
            name: [e for e in own if e.score >= self.min_score and (wanted is None or e.label in wanted)]
            for name, own in table.items()
        }


@with_groups
def convert(
    given: LabelOptions,
    filters: FilterOptions,
    clock_options: ClockOptions,
    overwriting: OverwriteOptions,
    safe_cells: Annotated[
        bool,
        typer.Option(
            "--safe-cells",
            help=SAFE_CELLS,
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    *,
    messages: Annotated[MessageOptions, Without("progress")],
) -> None:
    """Convert label files into another format; merge, rename and filter them.

    docs/formats.md lists what each format cannot store.

    [bold]Examples[/bold]

      htsat-sed convert events.csv -f raven-folder -a recordings/ -o season.selections.txt
      htsat-sed convert labels/ -f label-studio -o tasks.json
      htsat-sed convert site1.csv site2.csv -o all.jsonl --min-score 0.8
      htsat-sed convert audioset_eval_strong.tsv --map desed -o reference.tsv
    """
    from htsat_sed.annotations import FORMATS, path_of, read_events
    from htsat_sed.annotations.recorded import read_recorded

    name, out = _format(given.format, given.out), given.out
    table: Table = {}
    recorded: dict[str, Recorded] = {}
    failures: list[HtsatSedError] = []
    for path in given.labels:
        try:
            _merge(table, read_events(path, given.source))
            recorded |= read_recorded(path)
        except HtsatSedError as error:
            failures.append(error)
            report(error)
    if not table and failures:
        raise typer.Exit(1)
    table = filters.apply(table)
    table, facts = _described(table, recorded, given.audio, clock_options, failures)
    if name == "raven-folder":
        table = _of_known_duration(table, facts.durations, given.audio)
    of = FORMATS[name]
    single = len(table) == 1 and out.suffix.lower() == of.ending and not out.is_dir()
    target = out / f"events{of.suffix}" if of.shared and out.is_dir() else out
    outputs = [target] if of.shared or single else [path_of(out, each, of.suffix) for each in table]
    check_apart(outputs, [*given.labels, filters.class_map])
    check_replaceable(*outputs, overwrite=overwriting.overwrite)
    with recording_outputs():
        _write(target, table, name, facts, safe_cells=safe_cells)
    what = f"{counted(sum(map(len, table.values())), 'event')} of {counted(len(table), 'recording')}"
    remark(f"{what}: {target}")
    raise typer.Exit(1 if failures else 0)


def _format(given: str | None, out: Path) -> str:
    """The given format, or that of the output's suffix."""
    from htsat_sed.annotations import FORMATS

    if given is not None:
        if given not in FORMATS:
            raise typer.BadParameter(
                f"wanted one of {', '.join(FORMATS)}; got {given!r}", param_hint="--format"
            )
        return given
    name = out.name.lower()
    fitting = [each for each, of in FORMATS.items() if name.endswith(of.suffix.lower())]
    fitting = fitting or [each for each, of in FORMATS.items() if out.suffix.lower() == of.ending]
    if not fitting or out.is_dir():
        raise typer.BadParameter(
            f"cannot determine the format of {out}: give --format", param_hint="--output"
        )
    longest = max(len(FORMATS[each].suffix) for each in fitting)
    return next(each for each in fitting if len(FORMATS[each].suffix) == longest or len(fitting) == 1)


def _merge(table: Table, more: Table) -> None:
    """Add events to a table, without duplicates."""
    for name, events in more.items():
        table[name] = sorted({*table.get(name, []), *events})


def _renamed(table: Table, mapped: ClassMap, *, keep_others: bool) -> Table:
    """Rename events by a class map; an event of several groups becomes one event of each."""
    joined: dict[str, list[str]] = {}
    for label, sources in mapped.groups.items():
        for source in sources:
            joined.setdefault(source, []).append(label)
    others = sorted({event.label for own in table.values() for event in own} - joined.keys())
    if others and not keep_others:
        say("note", f"dropped classes that are not in --map: {', '.join(others)}")
    return {
        name: sorted(
            {
                replace(event, label=label)
                for event in own
                for label in joined.get(event.label, [event.label] if keep_others else [])
            }
        )
        for name, own in table.items()
    }


class _Facts(NamedTuple):
    """Known durations (seconds), sample rates (Hz) and starts of recordings, by name."""

    durations: dict[str, float]
    rates: dict[str, int]
    starts: dict[str, Start]


def _described(
    table: Table,
    recorded: Mapping[str, Recorded],
    audio: Path | None,
    clock_options: ClockOptions,
    failures: list[HtsatSedError],
) -> tuple[Table, _Facts]:
    """The table with what is known of its recordings, which are called as their files below the folder."""
    from htsat_sed.segments.export import locate

    found: Mapping[str, Path] = {}
    if audio is not None:
        found, missing = locate(list(table), audio)
        failures += missing
        for error in missing:
            report(error)
    facts = _facts(table, recorded, found, clock_options, failures, with_clock=audio is not None)
    if audio is None or not audio.is_dir():
        return table, facts
    called = {name: found[name].relative_to(audio).as_posix() if name in found else name for name in table}
    named: Table = {}
    for name, events in table.items():
        _merge(named, {called[name]: events})
    return named, _Facts(
        {called[name]: value for name, value in facts.durations.items()},
        {called[name]: value for name, value in facts.rates.items()},
        {called[name]: value for name, value in facts.starts.items()},
    )


def _of_known_duration(table: Table, durations: Mapping[str, float], audio: Path | None) -> Table:
    """The recordings that a Raven table of all can have; those not found below the folder are left out.

    Raises:
        typer.BadParameter: no folder was named.
    """
    if (unknown := table.keys() - durations.keys()) and audio is None:
        raise typer.BadParameter(
            "give the folder of the recordings: times in a Raven table run through all of them, and the "
            f"duration of {min(unknown)} is unknown",
            param_hint="--audio",
        )
    if unknown:
        say("note", f"left out because their duration is unknown: {', '.join(sorted(unknown))}")
    return {name: events for name, events in table.items() if name not in unknown}


def _facts(
    table: Table,
    recorded: Mapping[str, Recorded],
    found: Mapping[str, Path],
    clock_options: ClockOptions,
    failures: list[HtsatSedError],
    *,
    with_clock: bool,
) -> _Facts:
    """Facts from the tables, or else from the recordings and their names."""
    from htsat_sed.audio import open_recording

    clock = clock_options.clock()
    known = {name: each for name, each in recorded.items() if name in table}
    durations = {name: each.duration for name, each in known.items() if each.duration is not None}
    begun = {name: each.start for name, each in known.items() if each.start is not None}
    facts = _Facts(durations, {}, {name: clock.shown(name, start) for name, start in begun.items()})
    for name, path in found.items():
        try:
            with open_recording(path, 32_000) as stream:
                facts.rates[name] = stream.source_rate
                if stream.expected_duration is not None:
                    durations.setdefault(name, stream.expected_duration)
        except HtsatSedError as error:
            failures.append(error)
            report(error)
    if with_clock or clock_options.given:
        for name in table.keys() - begun.keys():
            if (start := clock.start(found.get(name, name))) is not None:
                facts.starts[name] = start
    return facts


def _write(target: Path, table: Table, name: str, facts: _Facts, *, safe_cells: bool) -> None:
    from htsat_sed.annotations import FORMATS, write_events, write_table

    durations, rates, starts = facts
    if FORMATS[name].shared:
        channels = any(event.channel for own in table.values() for event in own)
        rows = ((recording, own, durations.get(recording)) for recording, own in table.items())
        write_table(target, rows, name, starts=starts, channels=channels, safe_cells=safe_cells)
    else:
        write_events(target, table, name, durations=durations, sample_rates=rates, starts=starts)
