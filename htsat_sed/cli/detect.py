"""`htsat-sed detect`: recordings to events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from htsat_sed.cli import options
from htsat_sed.cli.recordings import Recording, find_all
from htsat_sed.cli.terminal import RecordingsProgress, clock, errors, output, report, summarise_failures
from htsat_sed.errors import HtsatSedError

if TYPE_CHECKING:
    from htsat_sed.annotations import Format
    from htsat_sed.detection.events import Event

OUTPUT = "Output"


def detect(
    paths: options.Paths,
    include: options.Include = None,
    exclude: options.Exclude = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|DIR",
            help="Where to write: a file for one table of all recordings, whose suffix tells the format; a "
            "folder for several formats, or for those with one file a recording.  "
            "\\[default: standard output]",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help="tsv (DESED), csv (with scores), jsonl, rttm, parquet: one file for all; audacity, raven, "
            "textgrid, webvtt: one file a recording. Repeatable.  \\[default: by the suffix of -o, else tsv]",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also keep the presence maps here, a file each, for `htsat-sed evaluate` and `tune`.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    checkpoint: options.Checkpoints = None,
    class_map: options.ClassMapOption = None,
    labels: options.Labels = None,
    hop: options.Hop = 10.0,
    device: options.Device = "auto",
    batch_size: options.BatchSize = 8,
    sample_rate: options.SampleRate = None,
    label_file: options.LabelFile = None,
    threshold: options.Threshold = None,
    threshold_low: options.ThresholdLow = None,
    median_filter: options.MedianFilter = None,
    min_gap: options.MinGap = None,
    min_event: options.MinEvent = None,
    post_processing: options.PostProcessingFile = None,
) -> None:
    """Find sound events in recordings: what sounds, from when to when.

    A recording of any length, rate and channel count is cut into 10 s windows.
    The model scores every class in every 0.3125 s of them.
    Scores are smoothed, and where they exceed the threshold there is an event.

    [bold]Examples[/bold]

      htsat-sed detect street.wav
      htsat-sed detect recordings/ -o events.csv
      htsat-sed detect night.flac -f audacity -f raven -o labels/
      htsat-sed detect dawn/ --threshold 0.3 --threshold Dog=0.5 --median-filter 0.9
      ffmpeg -i film.mkv -f wav - | htsat-sed detect -
    """
    recordings, failures = find_all(paths, include=include or (), exclude=exclude or ())
    for failure in failures:
        report(failure)
    targets = _targets(out, formats, recordings)
    detector = options.make_detector(
        checkpoint,
        device=device,
        batch_size=batch_size,
        hop=hop,
        sample_rate=sample_rate,
        label_file=label_file,
        class_map=class_map,
        labels=labels,
        post_processing_file=post_processing,
        flags={
            "threshold": threshold,
            "threshold_low": threshold_low,
            "median_filter": median_filter,
            "min_gap": min_gap,
            "min_event": min_event,
        },
    )
    from htsat_sed.annotations import FORMATS, path_of, write_events, write_presence_map

    if abs(detector.hop - hop) > 1e-6:
        errors.print(
            f"note: windows step by {detector.hop:g} s, the whole number of tokens nearest to {hop:g} s"
        )
    table: dict[str, list[Event]] = {}
    durations: dict[str, float] = {}
    streamed = _streamed(FORMATS[targets[0][0]], out, formats)
    with RecordingsProgress("detecting", len(recordings)) as progress:
        paths = [recording.path for recording in recordings]
        results = detector.presence_maps(paths, progress=progress.heard)
        for recording, (_, result) in zip(recordings, results, strict=True):
            progress.done()
            if isinstance(result, HtsatSedError):
                failures.append(result)
                report(result)
                continue
            if scores is not None:
                target = path_of(scores, recording.name, ".npz")
                target.parent.mkdir(parents=True, exist_ok=True)
                write_presence_map(target, result, filename=recording.name)
            found = detector.events(result)
            table[recording.name] = found
            durations[recording.name] = result.duration
            if streamed is not None:
                streamed(recording.name, found, result.duration)
    if out is not None and table:
        for name, target in targets:
            write_events(target, table, name, durations=durations)
    elif streamed is None and table:
        _show(table)
    summarise_failures(failures, len(table))
    raise typer.Exit(1 if failures else 0)


def _targets(
    out: Path | None, formats: list[str] | None, recordings: Sequence[Recording]
) -> list[tuple[str, Path]]:
    """Each format with the file or folder it goes to; made sure of before hours of work."""
    from htsat_sed.annotations import FORMATS

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
                f"cannot tell the format of {out}: name it with --format", param_hint="--output"
            )
        formats = by_suffix[:1] if out.suffix and not out.is_dir() else ["tsv"]
        as_file = bool(out.suffix) and not out.is_dir()
    else:
        own = FORMATS[formats[0]].ending
        single = FORMATS[formats[0]].shared or (len(recordings) == 1 and out.suffix.lower() == own)
        as_file = len(formats) == 1 and single and not out.is_dir()
    if as_file and not FORMATS[formats[0]].shared and len(recordings) != 1:
        raise typer.BadParameter(
            f"{formats[0]} has one file a recording: name a folder for {len(recordings)} of them",
            param_hint="--output",
        )
    folder = out.parent if as_file else out
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HtsatSedError(folder, f"cannot be made: {error.strerror}") from error
    if as_file:
        return [(formats[0], out)]
    return [
        (name, out / f"events{FORMATS[name].suffix}" if FORMATS[name].shared else out) for name in formats
    ]


def _on_standard_output(formats: list[str], recordings: Sequence[Recording]) -> list[tuple[str, Path]]:
    from htsat_sed.annotations import FORMATS

    if len(formats) > 1:
        raise typer.BadParameter("several formats go to a folder: name it with -o", param_hint="--format")
    of = FORMATS[formats[0]]
    if of.lines is None or not (of.shared or len(recordings) == 1):
        raise typer.BadParameter(
            f"{formats[0]} does not go to standard output: name a file or folder with -o",
            param_hint="--format",
        )
    return [(formats[0], Path("-"))]


def _streamed(
    of: Format, out: Path | None, formats: list[str] | None
) -> Callable[[str, Sequence[Event], float], None] | None:
    """Prints a recording's events as soon as they are known; None where a table is shown or written."""
    if out is not None or (output.is_terminal and not formats):
        return None
    lines = of.lines
    assert lines is not None  # made sure of by _on_standard_output
    print(of.header, end="", flush=True)

    def write(name: str, events: Sequence[Event], duration: float) -> None:
        print(lines(name, events, duration), end="", flush=True)

    return write


def _show(table: dict[str, list[Event]]) -> None:
    from rich.table import Table

    for name, events in table.items():
        shown = Table(title=name, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for column in ("onset", "offset", "score"):
            shown.add_column(column, justify="right")
        shown.add_column("event")
        for event in events:
            shown.add_row(clock(event.onset), clock(event.offset), f"{event.score:.2f}", event.label)
        if not events:
            shown.add_row("", "", "", "no events", style="dim")
        output.print(shown)
