"""`htsat-sed segments`: events cut out of their recordings, as clips to listen to."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from htsat_sed.cli import options
from htsat_sed.cli.class_values import Known
from htsat_sed.cli.progress import ProgressMode, RecordingsProgress
from htsat_sed.cli.terminal import remark, report
from htsat_sed.errors import AudioError, HtsatSedError
from htsat_sed.runs.outputs import check_apart

if TYPE_CHECKING:
    from htsat_sed.detection.events import Event
    from htsat_sed.segments.cut import Bounds

CHOICE = "Which events"
CLIPS = "Clips"


class Order(StrEnum):
    """In which order the events of a class are taken."""

    highest = "highest"
    random = "random"
    bands = "bands"


class ClipFormat(StrEnum):
    """What clips are written as."""

    wav = "wav"
    flac = "flac"


def segments(
    events: Annotated[
        Path,
        typer.Argument(
            metavar="EVENTS",
            help="Events in any format that detect writes: a table, a label track or selection table, or a "
            "folder of these.",
            show_default=False,
        ),
    ],
    audio: Annotated[
        Path,
        typer.Option(
            "--audio",
            "-a",
            metavar="DIR|FILE",
            help="The folder with the recordings, or the recording if EVENTS is of one alone.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="CLIPS",
            help="The folder for the clips, with a folder for each class, and their index, clips.csv.",
            show_default=False,
        ),
    ],
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Cut anew where CLIPS has a clips.csv already. Clips of the same name and clips.csv are "
            "replaced; other files stay.",
        ),
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=1,
            metavar="N",
            help="At most N clips a class.  \\[default: all]",
            show_default=False,
            rich_help_panel=CHOICE,
        ),
    ] = None,
    choose: Annotated[
        Order,
        typer.Option(
            help="Which N: those with the highest scores (any, where there are none); any at random; or as "
            "many from each band of scores, at random within it, to hear how often a score is right.",
            rich_help_panel=CHOICE,
        ),
    ] = Order.highest,
    bands: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Equal bands of scores from 0 to 1, for bands.", rich_help_panel=CHOICE
        ),
    ] = 10,
    spread: Annotated[
        bool,
        typer.Option(
            "--spread",
            help="Take from the recordings in turn, so that none of them fills the N.",
            rich_help_panel=CHOICE,
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Another seed, another chance.", rich_help_panel=CHOICE)] = 0,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--labels",
            metavar="LABEL|FILE",
            help="Only events of this class; repeat it for more, or name a file with one label a line.",
            show_default=False,
            rich_help_panel=CHOICE,
        ),
    ] = None,
    min_score: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="SCORE",
            help="Only events that score at least this.",
            rich_help_panel=CHOICE,
        ),
    ] = 0.0,
    padding: Annotated[
        str,
        typer.Option(
            metavar="SECONDS",
            help="Sound to keep on either side of an event, as far as the recording reaches; or before and "
            "after it, such as 0.5,2.",
            rich_help_panel=CLIPS,
        ),
    ] = "0",
    format: Annotated[
        ClipFormat,
        typer.Option("--format", "-f", help="Format of the clips; both are lossless.", rich_help_panel=CLIPS),
    ] = ClipFormat.wav,
    sample_rate: Annotated[
        int | None,
        typer.Option(
            min=1000,
            max=768_000,
            metavar="HZ",
            help="Sample rate of the clips.  \\[default: the recording's]",
            show_default=False,
            rich_help_panel=CLIPS,
        ),
    ] = None,
    channel: Annotated[
        str,
        typer.Option(
            metavar="all|N",
            help="Which channels of a recording to keep: all, or one by its number from 1 on.",
            rich_help_panel=CLIPS,
        ),
    ] = "all",
    track: options.Track = None,
    safe_cells: options.SafeCells = False,
    show_progress: options.ShowProgress = ProgressMode.auto,
    be_quiet: options.Quiet = False,
) -> None:
    """Cut events out of their recordings, as clips to listen to.

    Clips have the rate, channels and bits of their recording.
    They are called RECORDING_ONSET_OFFSET_LABEL_SCORE, in a folder for each class.
    clips.csv lists them as a table of events: once you have listened, delete rows
    or correct labels there, and use it like any other table.

    [bold]Examples[/bold]

      htsat-sed segments events.csv --audio recordings/ -o clips/
      htsat-sed segments street.wav.txt --audio street.wav -o clips/ --padding 1
      htsat-sed segments events.csv -a recordings/ -o barks/ --labels Bark -n 50
      htsat-sed segments events.csv -a recordings/ -o check/ -n 99 --choose bands
    """
    from htsat_sed.annotations import read_events
    from htsat_sed.segments.choice import Choice
    from htsat_sed.segments.cut import Cut
    from htsat_sed.segments.export import INDEX, plan, write_clips, write_index
    from htsat_sed.whole_file import remove_all_unfinished

    before, after = _padding(padding)
    how = Cut(
        before=before,
        after=after,
        format=format.value,
        sample_rate=sample_rate,
        channel=None if channel == "all" else options.parse_channel(channel),
        track=track,
    )
    choice = Choice(limit=limit, order=choose.value, spread=spread, bands=bands, seed=seed)
    check_apart([out / INDEX], [events])
    if (out / INDEX).exists() and not overwrite:
        raise typer.BadParameter(
            f"{out / INDEX} is there already: name another folder, or say --overwrite", param_hint="--output"
        )
    table = read_events(events)
    planned = plan(
        table,
        audio,
        choice,
        suffix=f".{format.value}",
        labels=_known(labels, table, events),
        min_score=min_score,
    )
    failures: list[HtsatSedError] = [*planned.failures]
    for failure in failures:
        report(failure)
    written: dict[str, dict[Event, Bounds]] = {}
    for folder in (out, *out.glob("*/")):  # what a run that was killed left half-written
        remove_all_unfinished(folder)
    with RecordingsProgress("cutting", len(planned.clips)) as progress:
        for name, result in write_clips(planned, out, how):
            progress.done()
            if isinstance(result, AudioError):
                failures.append(result)
                report(result)
            else:
                written[name] = result
    if any(written.values()) or not failures:  # else the same command with the right folder would be refused
        write_index(out, planned, written, safe_cells=safe_cells)
        _summarise(out / INDEX, written)
    lost = sum(len(planned.clips[name]) - len(own) for name, own in written.items())
    raise typer.Exit(1 if failures or lost else 0)


def _padding(text: str) -> tuple[float, float]:
    """Seconds before and after an event."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not (1 <= len(values) <= 2 and all(0.0 <= value < float("inf") for value in values)):
        raise typer.BadParameter(
            f"wanted seconds such as 1, or before and after such as 0.5,2; got {text!r}",
            param_hint="--padding",
        )
    return values[0], values[-1]


def _known(labels: list[str] | None, table: Mapping[str, list[Event]], source: Path) -> list[str] | None:
    """The labels asked for, made sure of that they occur."""
    known = sorted({event.label for own in table.values() for event in own})
    return Known(tuple(known), str(source)).select(labels)


def _summarise(index: Path, written: Mapping[str, Mapping[Event, Bounds]]) -> None:
    labels = [event.label for own in written.values() for event in own]
    recordings = sum(bool(own) for own in written.values())
    counts = [(len(labels), "clip", "clips"), (len(set(labels)), "class", "classes")]
    counts.append((recordings, "recording", "recordings"))
    clips, classes, sources = (f"{count} {one if count == 1 else many}" for count, one, many in counts)
    remark(f"{clips} of {classes} from {sources}, listed in {index}")
