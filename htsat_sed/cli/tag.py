"""`htsat-sed tag`: clip-level scores of recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from htsat_sed.cli.clock_options import ClockOptions
from htsat_sed.cli.event_options import EventOptions
from htsat_sed.cli.groups import OUTPUT, Without, option, unless_dash, with_groups
from htsat_sed.cli.interruption import Interruptible
from htsat_sed.cli.message_options import MessageOptions
from htsat_sed.cli.model_options import ModelOptions
from htsat_sed.cli.progress import RecordingsProgress
from htsat_sed.cli.ray_options import RayOptions
from htsat_sed.cli.recording_options import ChannelOptions, RecordingOptions
from htsat_sed.cli.run_options import RunOptions, ShardOptions, opened_remote
from htsat_sed.cli.selection import SelectionOptions
from htsat_sed.cli.terminal import emit, output, summarise
from htsat_sed.errors import HtsatSedError
from htsat_sed.runs.output_checks import check_files
from htsat_sed.runs.output_hashes import recording_outputs
from htsat_sed.runs.run import Results, Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from htsat_sed.detection.scheduler import RecordingProgress

SHOWN = 5  # classes per recording, on a terminal
_OTHERS = (".json", ".jsonl", ".parquet", ".rttm", ".vtt", ".xlsx")  # suffixes of unsupported formats


@dataclass(frozen=True)
class TagOptions:
    """Scores, and their table."""

    panel: ClassVar[str] = OUTPUT
    out: Path | None = option(
        None,
        "Output file: CSV, or TSV if it ends in .tsv.  \\[default: standard output]",
        "--output",
        "-o",
        callback=unless_dash,
        metavar="CSV",
    )
    wide: bool = option(
        False, "Write one row per recording with a column per class, instead of a row per class."
    )
    top: int | None = option(
        None,
        "Write only the N classes with the highest scores in each recording.  \\[default: all; on a "
        "terminal 5]",
        min=1,
        metavar="N",
    )
    pool: Literal["max", "mean"] = option("max", "Pooling over the 10 s windows of a longer recording.")
    shifts: int = option(
        1,
        "Average the scores of N copies of each window, cyclically shifted by a few milliseconds; 10 "
        "reproduces the published figures on AudioSet. Takes N times as long.",
        min=1,
        metavar="N",
    )

    raw_scores: bool = option(
        False,
        "Report the model's raw scores, without the checkpoint's calibration.",
        "--raw-scores",
    )

    def check(self) -> None:
        """Check the output.

        Raises:
            typer.BadParameter: options exclude each other, or the file has the suffix of another format.
            HtsatSedError: it cannot be written.
        """
        if self.wide and self.top is not None:
            raise typer.BadParameter("a wide table has all classes: omit --top or --wide", param_hint="--top")
        if self.out is not None and self.out.suffix.lower() in _OTHERS:
            raise typer.BadParameter(
                f"tags are written as CSV or TSV, got {self.out}: name a .csv or .tsv file",
                param_hint="--output",
            )
        check_files(self.out)

    def rows(self, labels: tuple[str, ...], *, safe_cells: bool) -> Callable[[str, NDArray[np.float32]], str]:
        """A function of name and scores that returns the rows of a recording."""
        from htsat_sed.annotations.tags import long_rows, wide_row

        separator = self.separator
        if self.wide:
            return lambda name, scores: wide_row(name, scores, separator, safe_cells=safe_cells)
        return lambda name, scores: long_rows(
            name, scores, labels, top=self.top, separator=separator, safe_cells=safe_cells
        )

    @property
    def separator(self) -> str:
        """Delimiter of the table."""
        return "\t" if self.out is not None and self.out.suffix.lower() == ".tsv" else ","


@with_groups
def tag(
    given: RecordingOptions,
    channels: ChannelOptions,
    shards: ShardOptions,
    options: TagOptions,
    run_options: RunOptions,
    model: Annotated[ModelOptions, Without("hop", "shifts")],
    ray: RayOptions,
    clock_options: ClockOptions,
    selection: SelectionOptions,
    messages: MessageOptions,
) -> None:
    """Score the classes in recordings as a whole, without times.

    Writes CSV with the columns filename, event_label and score, highest first.
    A recording shorter than 10 s is repeated, as in the official code; detect
    adds silence instead, so scores may differ.
    With -o, give the same command again to resume a stopped run.

    [bold]Examples[/bold]

      htsat-sed tag street.wav
      htsat-sed tag recordings/ -o tags.csv
      htsat-sed tag recordings/ --since 04:00 --until 08:00 --dry-run
      htsat-sed tag recordings/ --wide -o scores.csv --labels labels.txt
    """
    with Interruptible() as stop, opened_remote(options.out) as remote:
        options = options if remote is None else replace(options, out=remote.path)
        options.check()
        out = options.out
        raw = EventOptions(raw_scores=options.raw_scores)
        recordings, failures = given.find()
        recordings = selection.choose(recordings, clock_options.clock())
        selection.end_if_dry(
            recordings,
            clock_options,
            lambda: model.detector(channels, raw),
            failures,
            passes=options.shifts,
        )
        ray.check(recordings, model.execution)
        recordings, part = shards.take(recordings, out=out)
        fill = out is not None and len(recordings) > 1
        detector = model.detector(channels, raw, fill_batches=fill, deferred=ray.given)
        special = {"shifts": options.shifts} if options.shifts > 1 else {}
        special |= {"raw scores": True} if options.raw_scores else {}
        display = RecordingsProgress("tagging", len(recordings))
        run = run_options.start(
            recordings,
            failures,
            display=display,
            out=out,
            outputs=[] if out is None else [out],
            tables=[] if out is None else [out],
            inputs=[*given.files(recordings), *model.files],
            settings=lambda: {
                "command": "tag",
                **model.settings(detector),
                "pool": options.pool,
                **special,
            },
            is_result=lambda found: is_row(found, len(detector.labels)),
            part=part,
            remote=remote,
            written={
                "wide": options.wide,
                "top": options.top,
                "labels": list(detector.labels),
                "safe_cells": run_options.safe_cells,
            },
        )
        method = partial(type(detector).all_clip_scores, pool=options.pool, shifts=options.shifts)
        with run, recording_outputs(), ray.scoring(detector, method, model.execution) as score:
            stop.left = run.left
            _tag(score, run, options, display, detector.labels, safe_cells=run_options.safe_cells)
            code = run.finish(safe_cells=run_options.safe_cells)
            summarise(run, out)
    raise typer.Exit(code)


def _tag(
    score: Callable[..., Results[NDArray[np.float32]]],
    run: Run,
    options: TagOptions,
    display: RecordingsProgress,
    labels: tuple[str, ...],
    *,
    safe_cells: bool,
) -> None:
    """Score all recordings, and print the scores or write the table."""
    from htsat_sed.annotations.tags import tags_header

    out = options.out
    rows = options.rows(labels, safe_cells=safe_cells)
    as_table = options.wide or not output.is_terminal

    def read(paths: Iterable[str], progress: RecordingProgress) -> Results[NDArray[np.float32]]:
        return score(paths, progress=progress, defective=run.defective)

    if out is None and as_table:
        emit(tags_header(labels if options.wide else None, options.separator, safe_cells=safe_cells))
    for recording, found in run.through(read):
        if isinstance(found, HtsatSedError):
            run.fail(recording, found)
            continue
        if out is None:
            with display.aside():
                if as_table:
                    emit(rows(recording.name, found))
                else:
                    _show(recording.name, found, labels, options.top or SHOWN)
        run.note(recording, [float(score) for score in found])
    if out is not None and run.done:
        write_tags(options, labels, run.results(), safe_cells=safe_cells)


def write_tags(
    options: TagOptions, labels: tuple[str, ...], results: Iterable[tuple[str, Any]], *, safe_cells: bool
) -> None:
    """Write the table of all recordings.

    Args:
        options: file and layout.
        labels: the classes.
        results: name and result of each recording, as in a journal.
        safe_cells: see `delimited`.

    Raises:
        HtsatSedError: it cannot be written.
    """
    import numpy as np

    from htsat_sed.annotations.tags import tags_header
    from htsat_sed.whole_file import whole_file

    assert options.out is not None
    rows = options.rows(labels, safe_cells=safe_cells)
    with whole_file(options.out) as file:
        file.write(tags_header(labels if options.wide else None, options.separator, safe_cells=safe_cells))
        for name, scores in results:
            file.write(rows(name, np.array(scores, np.float32)))


def is_row(found: Any, classes: int) -> bool:
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
