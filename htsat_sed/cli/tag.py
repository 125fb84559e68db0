"""`htsat-sed tag`: recordings to clip-level scores."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from htsat_sed.cli import options
from htsat_sed.cli.recordings import find_all
from htsat_sed.cli.terminal import RecordingsProgress, output, report, summarise_failures
from htsat_sed.errors import HtsatSedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OUTPUT = "Output"
SHOWN = 5  # classes a recording, on a terminal


class Pool(StrEnum):
    """How the windows of a long recording become one score."""

    max = "max"
    mean = "mean"


def tag(
    paths: options.Paths,
    include: options.Include = None,
    exclude: options.Exclude = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="CSV",
            help="The file to write.  \\[default: standard output]",
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
    checkpoint: options.Checkpoints = None,
    class_map: options.ClassMapOption = None,
    labels: options.Labels = None,
    device: options.Device = "auto",
    batch_size: options.BatchSize = 8,
    sample_rate: options.SampleRate = None,
    label_file: options.LabelFile = None,
) -> None:
    """Score every class for recordings as a whole: what is in them, without times.

    Writes CSV with the columns filename, event_label and score, highest first.
    With --wide, the columns are filename and one for each class.

    [bold]Examples[/bold]

      htsat-sed tag street.wav
      htsat-sed tag recordings/ -o tags.csv
      htsat-sed tag recordings/ --wide -o scores.csv --labels Speech --labels Music
    """
    if wide and top is not None:
        raise typer.BadParameter(
            "a wide table has all classes: leave --top or --wide out", param_hint="--top"
        )
    if out is not None and not out.absolute().parent.is_dir():
        raise HtsatSedError(out, "cannot be written: its folder does not exist")
    recordings, failures = find_all(paths, include=include or (), exclude=exclude or ())
    for failure in failures:
        report(failure)
    detector = options.make_detector(
        checkpoint,
        device=device,
        batch_size=batch_size,
        hop=10.0,
        sample_rate=sample_rate,
        label_file=label_file,
        class_map=class_map,
        labels=labels,
    )
    from htsat_sed.annotations.tags import long_rows, tags_header, wide_row
    from htsat_sed.whole_file import whole_file

    table: dict[str, NDArray[np.float32]] = {}
    with RecordingsProgress("tagging", len(recordings)) as progress:
        paths = [recording.path for recording in recordings]
        results = detector.all_clip_scores(paths, pool=pool.value, progress=progress.heard)
        for recording, (_, result) in zip(recordings, results, strict=True):
            progress.done()
            if isinstance(result, HtsatSedError):
                failures.append(result)
                report(result)
            else:
                table[recording.name] = result

    def text() -> Iterable[str]:
        yield tags_header(detector.labels if wide else None)
        for name, scores in table.items():
            yield wide_row(name, scores) if wide else long_rows(name, scores, detector.labels, top=top)

    if out is not None and table:
        with whole_file(out) as file:
            file.writelines(text())
    elif out is None and output.is_terminal and not wide:
        _show(table, detector.labels, top or SHOWN)
    elif out is None:
        for line in text():
            print(line, end="")
    summarise_failures(failures, len(table))
    raise typer.Exit(1 if failures else 0)


def _show(table: dict[str, NDArray[np.float32]], labels: tuple[str, ...], top: int) -> None:
    from rich.table import Table

    for name, scores in table.items():
        shown = Table(title=name, title_justify="left", title_style="bold", box=None, pad_edge=False)
        shown.add_column("score", justify="right")
        shown.add_column("class")
        for i in (-scores).argsort(kind="stable")[:top]:
            shown.add_row(f"{scores[i]:.2f}", labels[i])
        output.print(shown)
