"""`htsat-sed tag`: recordings to clip-level scores."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from htsat_sed.cli import options
from htsat_sed.cli.groups import with_groups
from htsat_sed.cli.interruption import Interruptible
from htsat_sed.cli.progress import ProgressMode, RecordingsProgress
from htsat_sed.cli.terminal import emit, output, report, summarise
from htsat_sed.errors import HtsatSedError
from htsat_sed.runs.outputs import check_apart, check_files
from htsat_sed.runs.recordings import files_read, find_all
from htsat_sed.runs.run import Results, Run, failures_place, open_journal
from htsat_sed.runs.written import check_replaceable, recording_outputs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from htsat_sed.detection.flow import Progress

OUTPUT = "Output"
SHOWN = 5  # classes a recording, on a terminal
_OTHERS = (".json", ".jsonl", ".parquet", ".rttm", ".vtt", ".xlsx")  # suffixes of what is not written


class Pool(StrEnum):
    """How the windows of a long recording become one score."""

    max = "max"
    mean = "mean"


@with_groups
def tag(
    paths: options.Paths,
    include: options.Include = None,
    exclude: options.Exclude = None,
    channel_options: options.ChannelOptions = options.ChannelOptions(),
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="CSV",
            help="The file to write: CSV, or TSV if it ends in .tsv.  \\[default: standard output]",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    wide: Annotated[
        bool,
        typer.Option(
            help="One row a recording and a column a class, rather than a row for each of both.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    top: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Only the N highest classes of each recording.  \\[default: all; on a terminal 5]",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    pool: Annotated[
        Pool,
        typer.Option(
            help="How the 10 s windows of a longer recording become one score.", rich_help_panel=OUTPUT
        ),
    ] = Pool.max,
    shifts: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Score each window as the mean over N copies, shifted round by some milliseconds: 10 for "
            "the published figures on AudioSet. Takes N times as long.",
            rich_help_panel=OUTPUT,
        ),
    ] = 1,
    restart: options.Restart = False,
    overwrite: options.Overwrite = False,
    failures_table: options.FailuresTable = None,
    safe_cells: options.SafeCells = False,
    checkpoint: options.Checkpoints = None,
    class_map: options.ClassMapOption = None,
    labels: options.Labels = None,
    execution_options: options.ExecutionOptions = options.ExecutionOptions(),
    sample_rate: options.SampleRate = None,
    label_file: options.LabelFile = None,
    show_progress: options.ShowProgress = ProgressMode.auto,
    be_quiet: options.Quiet = False,
) -> None:
    """Score every class for recordings as a whole: what is in them, without times.

    Writes CSV with the columns filename, event_label and score, highest first.
    A recording shorter than 10 s is repeated and stretched, as in the official
    code; detect adds silence instead, so that their scores may differ.
    With --wide, the columns are filename and one for each class.
    With -o, a run that was stopped goes on where it was when the same command is given again.

    [bold]Examples[/bold]

      htsat-sed tag street.wav
      htsat-sed tag recordings/ -o tags.csv
      htsat-sed tag recordings/ --wide -o scores.csv --labels labels.txt
    """
    if wide and top is not None:
        raise typer.BadParameter(
            "a wide table has all classes: leave --top or --wide out", param_hint="--top"
        )
    if out is not None and out.suffix.lower() in _OTHERS:
        raise typer.BadParameter(
            f"tags are a CSV or TSV table, got {out}: name it .csv", param_hint="--output"
        )
    check_files(out)
    with Interruptible() as stop:
        recordings, failures = find_all(paths, include=include or (), exclude=exclude or ())
        for failure in failures:
            report(failure)
        check_apart(
            [out],
            [
                *files_read(paths, recordings),
                *options.checkpoint_files(checkpoint),
                *(labels or ()),
                label_file,
                class_map,
            ],
        )
        check_replaceable(out, overwrite=overwrite)
        detector = options.make_detector(
            checkpoint,
            execution_options=execution_options,
            channel_options=channel_options,
            hop=10.0,
            sample_rate=sample_rate,
            label_file=label_file,
            class_map=class_map,
            labels=labels,
            fill_batches=out is not None and len(recordings) > 1,
        )
        import numpy as np

        from htsat_sed.annotations.tags import long_rows, tags_header, wide_row
        from htsat_sed.whole_file import whole_file

        journal = None
        failures_table = failures_place(failures_table, out, [out] if out is not None else [])
        if out is not None:
            settings = options.settings(detector, checkpoint, class_map) | {"pool": pool.value}
            settings |= {"shifts": shifts} if shifts > 1 else {}
            journal = open_journal(
                out,
                {"command": "tag", **settings},
                restart=restart,
                outputs=[out, failures_table],
                is_result=lambda found: _is_row(found, len(detector.labels)),
            )

        separator = "\t" if out is not None and out.suffix.lower() == ".tsv" else ","

        def rows(name: str, scores: NDArray[np.float32]) -> str:
            if wide:
                return wide_row(name, scores, separator, safe_cells=safe_cells)
            return long_rows(
                name, scores, detector.labels, top=top, separator=separator, safe_cells=safe_cells
            )

        def read(paths: Iterable[str], progress: Progress) -> Results[NDArray[np.float32]]:
            return detector.all_clip_scores(
                paths, pool=pool.value, shifts=shifts, progress=progress, defective=run.defective
            )

        header = tags_header(detector.labels if wide else None, separator, safe_cells=safe_cells)
        as_table = wide or not output.is_terminal
        bar = RecordingsProgress("tagging", len(recordings))
        with Run(recordings, failures, display=bar, journal=journal) as run:
            stop.left = run.left
            if out is None and as_table:
                emit(header)
            for recording, found in run.through(read):
                if isinstance(found, HtsatSedError):
                    run.fail(recording, found)
                    continue
                if out is None:
                    with bar.aside():
                        if as_table:
                            emit(rows(recording.name, found))
                        else:
                            _show(recording.name, found, detector.labels, top or SHOWN)
                run.note(recording, [float(score) for score in found])
            if out is not None and run.done:
                with recording_outputs(), whole_file(out) as file:
                    file.write(header)
                    for name, scores in run.results():
                        file.write(rows(name, np.array(scores, np.float32)))
            code = run.finish(failures_table, safe_cells=safe_cells)
            summarise(run, out, failures_table)
    raise typer.Exit(code)


def _is_row(found: Any, classes: int) -> bool:
    """Whether a result from a journal is a score for each class."""
    return isinstance(found, list) and [type(value) for value in found] == [float] * classes


def _show(name: str, scores: NDArray[np.float32], labels: tuple[str, ...], top: int) -> None:
    from rich.table import Table

    shown = Table(title=name, title_justify="left", title_style="bold", box=None, pad_edge=False)
    shown.add_column("score", justify="right")
    shown.add_column("class")
    for i in (-scores).argsort(kind="stable")[:top]:
        shown.add_row(f"{scores[i]:.2f}", labels[i])
    output.print(shown)
