"""`htsat-sed detect`: recordings to events."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import typer

from htsat_sed.cli.clock_options import ClockColumnOptions
from htsat_sed.cli.event_options import EventOptions, flat
from htsat_sed.cli.groups import OUTPUT, option, unless_dash, with_groups
from htsat_sed.cli.interruption import Interruptible
from htsat_sed.cli.message_options import MessageOptions
from htsat_sed.cli.model_options import ModelOptions
from htsat_sed.cli.progress import RecordingsProgress
from htsat_sed.cli.ray_options import RayOptions
from htsat_sed.cli.recording_options import EachChannelOptions, RecordingOptions
from htsat_sed.cli.run_options import RunOptions, ShardOptions, opened_remote
from htsat_sed.cli.selection import SelectionOptions
from htsat_sed.cli.terminal import clock, emit, output, say, summarise
from htsat_sed.errors import HtsatSedError
from htsat_sed.runs.output_checks import check_writable
from htsat_sed.runs.output_hashes import recording_outputs
from htsat_sed.runs.recordings import Recording
from htsat_sed.runs.run import Results, Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from htsat_sed.clock import Start
    from htsat_sed.detection.detector import Detection, Detector
    from htsat_sed.detection.events import Event
    from htsat_sed.detection.scheduler import RecordingProgress
    from htsat_sed.runs.event_files import EventFiles, Target
    from htsat_sed.runs.remote_output import RemoteOutput

KEPT_LISTED = 30
BY_PART = ("tsv", "csv", "jsonl", "rttm", "audacity", "webvtt")  # formats that hold event after event


@dataclass(frozen=True)
class OutputOptions:
    """Where events and presence maps go."""

    panel: ClassVar[str] = OUTPUT
    out: Path | None = option(
        None,
        "Output: a file for one table of all recordings, whose suffix selects the format; or a folder for "
        "several formats, or for formats with one file per recording.  \\[default: standard output]",
        "--output",
        "-o",
        callback=unless_dash,
        metavar="FILE|DIR",
    )
    formats: list[str] | None = option(
        None,
        "tsv (DESED), csv (with scores), jsonl, rttm, parquet, raven-folder, kaleidoscope, label-studio, "
        "crowsetta: one file for all; audacity, raven, textgrid, webvtt, elan, sonic-visualiser: one file "
        "per recording. Repeatable.  \\[default: from the suffix of -o, else tsv]",
        "--format",
        "-f",
        metavar="FORMAT",
    )
    scores: Path | None = option(
        None,
        "Also write presence maps to this folder, one file per recording, for `htsat-sed evaluate` and "
        "`tune`.",
        metavar="DIR",
    )
    skip_existing: bool = option(
        False,
        "Skip recordings whose output files exist, so that several processes or machines can share the "
        "work. Only for formats with one file per recording.",
        "--skip-existing",
    )

    def on_this_machine(self, remote: RemoteOutput | None) -> tuple[OutputOptions, Path | None]:
        """The same options, and the output: its place on this machine if it belongs into a store.

        Raises:
            typer.BadParameter: --skip-existing, by which processes see what others have done.
        """
        if remote is None:
            return self, self.out
        if self.skip_existing:
            raise typer.BadParameter(
                "works only with an output on a disk: use --shard instead", param_hint="--skip-existing"
            )
        return replace(self, out=remote.path), remote.path

    def targets(self, recordings: Sequence[Recording], *, restart: bool) -> list[Target]:
        """Each format with the file or folder it goes to; made sure of before hours of work.

        Raises:
            typer.BadParameter: options contradict one another.
            HtsatSedError: an output cannot be written.
        """
        targets = _targets(self.out, self.formats, recordings)
        _check_possible(targets if self.out is not None else [], self.scores)
        if self.skip_existing:
            if restart:
                raise typer.BadParameter("wanted --restart or --skip-existing, not both")
            _check_shareable(self.out, targets)
        scores = self.scores
        if scores is not None and not scores.is_dir() and (scores.exists() or _is_in_file(scores, targets)):
            raise typer.BadParameter(
                f"{scores} is a file, or lies in one: name a folder", param_hint="--scores"
            )
        return targets

    def files(
        self,
        detector: Detector,
        targets: Sequence[Target],
        names: Sequence[str],
        starts: Mapping[str, Start],
        *,
        overwrite: bool,
    ) -> EventFiles:
        """The files of each recording and those of all.

        Raises:
            UsageError: two recordings would share a file.
        """
        from htsat_sed.runs.event_files import EventFiles

        files = EventFiles(
            [] if self.out is None else targets,
            maps=self.scores,
            labels=detector.labels,
            token_seconds=detector.token_seconds,
            overwrite=overwrite,
            starts=starts,
        )
        files.check(names)
        return files

    def written(
        self, detector: Detector, targets: Sequence[Target], *, safe_cells: bool, channels: bool
    ) -> dict[str, Any]:
        """What `merge` has to know of the outputs of a shard."""
        if self.out is None:
            return {}
        folder = self.out if self.out.is_dir() else self.out.absolute().parent
        return {
            "formats": [target.format for target in targets],
            "maps": None if self.scores is None else os.path.relpath(self.scores, folder),
            "labels": list(detector.labels),
            "token_seconds": detector.token_seconds,
            "safe_cells": safe_cells,
            "channels": channels,
        }

    def settings(self, detector: Detector, model: ModelOptions, targets: Sequence[Target]) -> dict[str, Any]:
        """What the files depend on, by name, for the journal."""
        return {
            "command": "detect",
            **model.settings(detector),
            "hop": detector.hop,
            **flat(detector.post_processing.to_dict()),
            "format": ", ".join(target.format for target in targets),
            "scores": None if self.scores is None else os.path.abspath(self.scores),  # noqa: PTH100
        }


@with_groups
def detect(
    given: RecordingOptions,
    channels: EachChannelOptions,
    shards: ShardOptions,
    output_options: OutputOptions,
    run_options: RunOptions,
    model: ModelOptions,
    ray: RayOptions,
    events: EventOptions,
    clock_options: ClockColumnOptions,
    selection: SelectionOptions,
    messages: MessageOptions,
) -> None:
    """Detect sound events in recordings: the class, onset and offset of each event.

    detect cuts recordings of any length, rate and channel count into 10 s windows. The model
    scores every class in every 0.3125 s of a window. An event is a run of smoothed scores above
    the threshold. detect reports unreadable recordings and continues with the others. If the
    start time of a recording is known, CSV, JSON Lines, Parquet and Raven's tables contain clock
    times. To resume a stopped run with -o, give the same command again.

    [bold]Examples[/bold]

      htsat-sed detect street.wav
      htsat-sed detect recordings/ -o events.csv
      htsat-sed detect 'night/**/*.flac' @more.txt -o events.jsonl
      htsat-sed detect recordings/ -f webvtt -o labels/ --skip-existing
      htsat-sed detect night.flac -f audacity -f raven -o labels/
      htsat-sed detect dawn/ --threshold Bark=0.5 --median-filter 0.9
      ffmpeg -i film.mkv -f wav - | htsat-sed detect -
    """
    skip_existing, safe_cells, each = output_options.skip_existing, run_options.safe_cells, channels.each
    with Interruptible() as stop, opened_remote(output_options.out) as remote:
        output_options, out = output_options.on_this_machine(remote)
        recordings, failures = given.find()
        recordings = selection.choose(recordings, clock_options.clock())
        selection.end_if_dry(recordings, clock_options, lambda: model.detector(channels, events), failures)
        channels.check(recordings, output_options.scores)
        ray.check(recordings, model.execution)
        recordings, part = shards.take(recordings, out=out, skip_existing=skip_existing)
        targets = output_options.targets(recordings, restart=run_options.restart)
        fill = out is not None and len(recordings) > 1
        detector = model.detector(channels, events, fill_batches=fill, deferred=ray.given)
        from htsat_sed.runs.event_files import is_in_journal_form, start_for_journal

        starts, names = clock_options.starts(recordings), [recording.name for recording in recordings]
        files = output_options.files(detector, targets, names, starts, overwrite=run_options.overwrite)
        of_input = clock_options.settings() | channels.settings()
        progress = RecordingsProgress("detecting", len(recordings))
        run = run_options.start(
            recordings,
            failures,
            display=progress,
            out=out,
            outputs=[] if out is None else files.all_of(names),
            tables=[table.path for table in files.tables],
            inputs=[*given.files(recordings), *model.files, events.post_processing],
            settings=lambda: output_options.settings(detector, model, targets) | of_input,
            is_result=is_in_journal_form,
            exist=lambda name: files.exist(name, remote),
            skip_existing=skip_existing,
            part=part,
            remote=remote,
            written=output_options.written(detector, targets, safe_cells=safe_cells, channels=each),
            about=lambda name: start_for_journal(starts.get(name)),
        )
        printing = (output_options, targets, progress, starts, run_options)
        printer = _Printer(*printing, channels=each) if out is None else None
        maps = output_options.scores is not None
        scoring = ray.scoring(detector, _method(each_channel=each), model.execution, rows=maps)
        with run, recording_outputs(), scoring as score:
            stop.left = run.left
            _detect(score, run, files, printer, each_channel=each)
            if out is not None and not skip_existing and run.done:
                write_tables(files.tables, run.results, starts=starts, safe_cells=safe_cells, channels=each)
            code = run.finish(safe_cells=safe_cells)
            summarise(run, out)
        _say_what_was_kept(files.kept)
    raise typer.Exit(code)


def write_tables(
    tables: Iterable[Target],
    results: Callable[[], Iterable[tuple[str, Any]]],
    *,
    starts: Mapping[str, Start],
    safe_cells: bool,
    channels: bool,
) -> None:
    """Write the tables of all recordings.

    Args:
        tables: targets that are tables.
        results: yields name and result of each recording, as a journal has them; called once a table.
        starts: name of a recording -> when it began, as far as known.
        safe_cells: see `delimited`.
        channels: whether events have channels.

    Raises:
        HtsatSedError: one cannot be written.
    """
    from htsat_sed.annotations import write_table
    from htsat_sed.runs.event_files import from_journal

    for table in tables:
        write_table(
            table.path,
            from_journal(results()),
            table.format,
            starts=starts,
            channels=channels,
            safe_cells=safe_cells,
        )


def _say_what_was_kept(kept: Sequence[Path]) -> None:
    """List files that somebody has changed, and which were therefore not replaced."""
    for path in kept[:KEPT_LISTED]:
        say("kept", f"{path}: was edited since it was written, or written by another program")
    if len(kept) > KEPT_LISTED:
        say("kept", f"and {len(kept) - KEPT_LISTED} more")
    if kept:
        say("note", f"files kept as they are: {len(kept)}; --overwrite replaces them")


def _detect(
    score: Callable[..., Results[Detection]],
    run: Run,
    files: EventFiles,
    printer: _Printer | None,
    *,
    each_channel: bool,
) -> None:
    """Detect, write and note one recording after the other."""
    from htsat_sed.runs.event_files import for_journal, is_unfit

    def keep(path: object, scores: NDArray[np.float32]) -> None:
        files.rows(run.next.name, scores)

    def found_early(path: object, events: list[Event]) -> bool:
        return path == "-" and printer is not None and printer.early(run.next.name, events)

    def read(paths: Iterable[str], progress: RecordingProgress) -> Results[Detection]:
        more = {} if each_channel else {"rows": keep, "found": found_early}
        return score(paths, progress=progress, defective=run.defective, **more)

    for recording, found in run.through(read):
        if isinstance(found, HtsatSedError):
            files.drop()
            run.fail(recording, found)
            continue
        try:
            files.write(recording.name, found.events, found.duration, found.sample_rate)
        except HtsatSedError as error:
            if not is_unfit(error):
                raise
            run.fail(recording, error)
            continue
        if printer is not None:
            printer.show(recording.name, found)
        run.note(recording, for_journal(found.events, found.duration))


def _method(*, each_channel: bool) -> Callable[..., Results[Detection]]:
    """What makes detections of a detector and paths."""
    from htsat_sed.detection.channels import channel_detections
    from htsat_sed.detection.detector import Detector

    return channel_detections if each_channel else Detector.detections


def _targets(out: Path | None, formats: list[str] | None, recordings: Sequence[Recording]) -> list[Target]:
    """Each format with the file or folder it goes to; made sure of before hours of work."""
    from htsat_sed.annotations import FORMATS
    from htsat_sed.runs.event_files import Target

    for name in formats or []:
        if name not in FORMATS:
            raise typer.BadParameter(
                f"wanted one of {', '.join(FORMATS)}; got {name!r}", param_hint="--format"
            )
    if out is None:
        return _on_standard_output(formats or ["tsv"], recordings)
    if not formats:
        by_suffix = [name for name, of in FORMATS.items() if of.ending == out.suffix.lower()]
        if out.suffix and not out.is_dir() and not by_suffix:
            raise typer.BadParameter(
                f"cannot determine the format of {out}: give --format", param_hint="--output"
            )
        formats = by_suffix[:1] if out.suffix and not out.is_dir() else ["tsv"]
        as_file = bool(out.suffix) and not out.is_dir()
    else:
        of = FORMATS[formats[0]]
        as_file = len(formats) == 1 and (of.shared or out.suffix.lower() == of.ending) and not out.is_dir()
    if as_file and not FORMATS[formats[0]].shared and len(recordings) != 1:
        raise typer.BadParameter(
            f"{formats[0]} writes one file per recording: name a folder for the files of {len(recordings)} "
            "recordings",
            param_hint="--output",
        )
    folder = out.parent if as_file else out
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise HtsatSedError(
            folder, "is a file or lies in one: name a folder, or give --format to write a file"
        ) from error
    except OSError as error:
        raise HtsatSedError(folder, f"cannot be created: {error.strerror}") from error
    if as_file:
        return [Target(formats[0], out)]
    return [
        Target(name, out / f"events{FORMATS[name].suffix}" if FORMATS[name].shared else out)
        for name in formats
    ]


def _check_possible(targets: Sequence[Target], scores: Path | None) -> None:
    """Refuse outputs that cannot be written, before hours of work."""
    from htsat_sed.annotations.parquet import require_pyarrow

    check_writable(scores, *(target.path for target in targets))
    for target in targets:
        if target.format == "parquet":
            require_pyarrow(target.path)


def _is_in_file(folder: Path, targets: Sequence[Target]) -> bool:
    """Whether a folder would be, or lie in, what is to be a file."""
    place = Path(os.path.realpath(folder))
    files = (target.path for target in targets if not target.path.is_dir())
    return any(place.is_relative_to(os.path.realpath(file)) for file in files)


def _on_standard_output(formats: list[str], recordings: Sequence[Recording]) -> list[Target]:
    from htsat_sed.annotations import FORMATS
    from htsat_sed.runs.event_files import STDOUT, Target

    if len(formats) > 1:
        raise typer.BadParameter("several formats need a folder: name it with -o", param_hint="--format")
    of = FORMATS[formats[0]]
    if of.lines is None or not (of.shared or len(recordings) == 1):
        raise typer.BadParameter(
            f"{formats[0]} cannot be written to standard output: name a file or folder with -o",
            param_hint="--format",
        )
    return [Target(formats[0], STDOUT)]


def _check_shareable(out: Path | None, targets: Sequence[Target]) -> None:
    """Refuse to leave recordings out of a table that is to hold all of them."""
    wanted = "works only with a folder for formats with one file per recording"
    if out is None:
        raise typer.BadParameter(f"{wanted}: name it with -o", param_hint="--skip-existing")
    for target in targets:
        if target.is_table:
            raise typer.BadParameter(
                f"{wanted}, but {target.format} is one file for all: omit it, as a stopped run resumes "
                "without it",
                param_hint="--skip-existing",
            )


class _Printer:
    """Prints events to standard output as soon as they are known.

    Args:
        given: formats; without any, a terminal shows a table.
        targets: the format.
        progress: what else is on the terminal.
        starts: name -> when a recording began.
        run_options: whether cells are safe.
        channels: whether events have channels.
    """

    def __init__(
        self,
        given: OutputOptions,
        targets: Sequence[Target],
        progress: RecordingsProgress,
        starts: Mapping[str, Start],
        run_options: RunOptions,
        *,
        channels: bool,
    ) -> None:
        from htsat_sed.annotations import FORMATS

        self._name, self._of = targets[0].format, FORMATS[targets[0].format]
        self._as_table = given.formats is not None or not output.is_terminal
        safe_cells = run_options.safe_cells
        self._progress, self._starts, self._safe_cells = progress, starts, safe_cells
        self._columns: tuple[str, ...] = ()
        if self._as_table:
            self._columns = self._of.columns(channels=channels, clock=bool(self._of.clock and starts))
        self._begun = False  # some events of the recording that comes are printed
        if self._as_table:
            emit(self._of.heading(self._columns))

    def early(self, name: str, events: Sequence[Event]) -> bool:
        """Print events of a recording that is not at its end; false where its format has no such part."""
        if self._as_table and self._name not in BY_PART:
            return False
        with self._progress.aside():
            if self._as_table:
                self._emit(name, events)
            else:
                if not self._begun:
                    output.print(name, style="bold")
                for event in events:
                    times = f"{clock(event.onset)} to {clock(event.offset)}"
                    output.print(f"{times}  {event.score:.2f}  {event.label}")
        self._begun = True
        return True

    def show(self, name: str, found: Detection) -> None:
        """Print what remains of a recording."""
        begun, self._begun = self._begun, False
        if begun and not found.events and not (self._as_table and self._name == "jsonl"):
            return
        with self._progress.aside():
            if self._as_table:
                self._emit(name, found.events, found.duration, found.sample_rate)
            else:
                _show(name, found.events)

    def _emit(
        self,
        name: str,
        events: Sequence[Event],
        duration: float | None = None,
        sample_rate: int | None = None,
    ) -> None:
        emit(
            self._of.part(
                name,
                events,
                duration,
                sample_rate,
                start=self._starts.get(name),
                safe_cells=self._safe_cells,
                columns=self._columns,
            )
        )


def _show(name: str, events: Sequence[Event]) -> None:
    from rich.table import Table

    shown = Table(title=name, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in ("onset", "offset", "score"):
        shown.add_column(column, justify="right")
    shown.add_column("event")
    for event in events:
        label = f"{event.label} [{event.channel}]" if event.channel else event.label
        shown.add_row(clock(event.onset), clock(event.offset), f"{event.score:.2f}", label)
    if not events:
        shown.add_row("", "", "", "no events", style="dim")
    output.print(shown)
