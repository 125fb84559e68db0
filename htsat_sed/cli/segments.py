"""`htsat-sed segments`: cuts events out of recordings, as clips to listen to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from htsat_sed.cli.class_values import Known
from htsat_sed.cli.clock_options import ClockOptions
from htsat_sed.cli.groups import REQUIRED, Without, argument, option, with_groups
from htsat_sed.cli.message_options import MessageOptions
from htsat_sed.cli.progress import RecordingsProgress
from htsat_sed.cli.recording_options import ChannelOptions, parse_channel
from htsat_sed.cli.run_options import RunOptions
from htsat_sed.cli.terminal import remark, report
from htsat_sed.errors import AudioError, HtsatSedError
from htsat_sed.runs.output_checks import check_apart

if TYPE_CHECKING:
    from htsat_sed.detection.events import Event
    from htsat_sed.segments.choice import ClipChoice
    from htsat_sed.segments.cut import Bounds, ClipSettings
    from htsat_sed.segments.export import Plan


@dataclass(frozen=True)
class PlaceOptions:
    """Events and recordings to read, and the output folder."""

    events: Path = argument(
        REQUIRED,
        "Events in any format that detect writes: a table, a label track or selection table, or a folder of "
        "these.",
        metavar="EVENTS",
    )
    audio: Path = option(
        REQUIRED,
        "Folder of the recordings, or the recording if EVENTS has only one.",
        "--audio",
        "-a",
        metavar="DIR|FILE",
    )
    out: Path = option(
        REQUIRED,
        "Folder for the clips, with a subfolder for each class, and their index, clips.csv.",
        "--output",
        "-o",
        metavar="CLIPS",
    )
    report: Path | None = option(
        None,
        "Page or folder that `htsat-sed report` made of these recordings: adds a column page to "
        "clips.csv, with a link to each event.",
        metavar="HTML|DIR",
    )
    overwrite: bool = option(
        False,
        "Cut even if CLIPS has a clips.csv. It and clips of the same name are replaced; other files are "
        "kept.",
        "--overwrite",
    )


@dataclass(frozen=True)
class ChoiceOptions:
    """Selection of events."""

    panel: ClassVar[str] = "Which events"
    limit: int | None = option(
        None, "At most N clips per class.  \\[default: all]", "--limit", "-n", min=1, metavar="N"
    )
    choose: Literal["highest", "random", "bands"] = option(
        "highest",
        "With --limit: the events with the highest scores, random events, or equal numbers of random events "
        "from each band of scores, to check how reliable scores are.",
    )
    bands: int = option(
        10, "For --choose bands: number of equal bands of scores from 0 to 1.", min=1, metavar="N"
    )
    spread: bool = option(
        False, "Take events from the recordings in turn, so that no recording dominates.", "--spread"
    )
    seed: int = option(0, "Random seed.")
    labels: list[str] | None = option(
        None,
        "Cut only events of this class: a label, or a file with one label per line. Repeatable.",
        "--labels",
        metavar="LABEL|FILE",
    )
    min_score: float = option(
        0.0, "Cut only events with at least this score.", min=0.0, max=1.0, metavar="SCORE"
    )

    @property
    def choice(self) -> ClipChoice:
        """Number and order of events per class."""
        from htsat_sed.segments.choice import ClipChoice

        return ClipChoice(
            limit=self.limit, order=self.choose, spread=self.spread, bands=self.bands, seed=self.seed
        )


@dataclass(frozen=True)
class ClipOptions:
    """Settings of the clips."""

    panel: ClassVar[str] = "Clips"
    padding: str = option(
        "0",
        "Audio to keep on both sides of an event, or before and after it, such as 0.5,2.",
        metavar="SECONDS",
    )
    format: Literal["wav", "flac"] = option(
        "wav", "Format of the clips; both are lossless.", "--format", "-f"
    )
    sample_rate: int | None = option(
        None,
        "Sample rate of the clips.  \\[default: the recording's]",
        min=1000,
        max=768_000,
        metavar="HZ",
    )
    channel: str = option(
        "all",
        "Channels to keep: all, or one channel by its number from 1.",
        metavar="all|N",
    )

    clock_names: bool = option(
        False, "Include the clock time of the event, if known, in the names of clips.", "--clock-names"
    )

    def cut(self, track: int | None) -> ClipSettings:
        """Settings of the clips for a track."""
        from htsat_sed.segments.cut import ClipSettings

        before, after = _padding(self.padding)
        return ClipSettings(
            before=before,
            after=after,
            format=self.format,
            sample_rate=self.sample_rate,
            channel=None if self.channel == "all" else parse_channel(self.channel),
            track=track,
        )


@with_groups
def segments(
    place: PlaceOptions,
    chosen: ChoiceOptions,
    clips: ClipOptions,
    channels: Annotated[ChannelOptions, Without("channel")],
    clock_options: ClockOptions,
    run: Annotated[RunOptions, Without("restart", "overwrite", "failures_table", "json_summary")],
    messages: MessageOptions,
) -> None:
    """Cut events out of recordings as audio clips.

    Clips keep the sample rate, channels and bit depth of their recording.
    They are named RECORDING_ONSET_OFFSET_LABEL_SCORE, in a folder for each class.
    clips.csv lists them as a table of events: after listening, delete rows or
    correct labels in it, and use it like any other table.

    [bold]Examples[/bold]

      htsat-sed segments events.csv --audio recordings/ -o clips/
      htsat-sed segments street.wav.txt --audio street.wav -o clips/ --padding 1
      htsat-sed segments events.csv -a recordings/ -o barks/ --labels Bark -n 50
      htsat-sed segments events.csv -a recordings/ -o check/ -n 99 --choose bands
      htsat-sed segments events.csv -a recordings/ -o clips/ --report pages/
    """
    from htsat_sed.annotations import read_events
    from htsat_sed.annotations.recorded import read_recorded
    from htsat_sed.report.links import ReportLinks
    from htsat_sed.segments.export import INDEX, plan

    cut, choice, index = clips.cut(channels.track), chosen.choice, place.out / INDEX
    check_apart([index], [place.events])
    if index.exists() and not place.overwrite:
        raise typer.BadParameter(
            f"{index} exists: name another folder, or give --overwrite", param_hint="--output"
        )
    links = None if place.report is None else ReportLinks(place.report, place.out)
    table = read_events(place.events)
    recorded = read_recorded(place.events) if clips.clock_names else {}
    planned = plan(
        table,
        place.audio,
        choice,
        suffix=f".{clips.format}",
        labels=_known(chosen.labels, table, place.events),
        min_score=chosen.min_score,
        clock=clock_options.clock() if clips.clock_names else None,
        starts={name: each.start for name, each in recorded.items() if each.start is not None},
    )
    link = None if links is None else links.event
    code = _cut(planned, place.out, cut, link=link, safe_cells=run.safe_cells)
    raise typer.Exit(code)


def _cut(
    planned: Plan,
    out: Path,
    cut: ClipSettings,
    *,
    link: Callable[[str, Event], str] | None,
    safe_cells: bool,
) -> int:
    """Cut the clips and write the index; return the exit code."""
    from htsat_sed.segments.export import INDEX, write_clips, write_index
    from htsat_sed.whole_file import remove_all_unfinished

    failures: list[HtsatSedError] = [*planned.failures]
    for failure in failures:
        report(failure)
    written: dict[str, dict[Event, Bounds]] = {}
    for folder in (out, *out.glob("*/")):  # unfinished files of a killed run
        remove_all_unfinished(folder)
    with RecordingsProgress("cutting", len(planned.clips)) as progress:
        for name, result in write_clips(planned, out, cut):
            progress.done()
            if isinstance(result, AudioError):
                failures.append(result)
                report(result)
            else:
                written[name] = result
    if any(written.values()) or not failures:  # otherwise the corrected command would be refused
        write_index(out, planned, written, link=link, safe_cells=safe_cells)
        _summarise(out / INDEX, written)
    lost = sum(len(planned.clips[name]) - len(own) for name, own in written.items())
    return 1 if failures or lost else 0


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
    """The requested labels; checks that they occur."""
    known = sorted({event.label for own in table.values() for event in own})
    return Known(tuple(known), str(source)).select(labels)


def _summarise(index: Path, written: Mapping[str, Mapping[Event, Bounds]]) -> None:
    labels = [event.label for own in written.values() for event in own]
    recordings = sum(bool(own) for own in written.values())
    counts = [(len(labels), "clip", "clips"), (len(set(labels)), "class", "classes")]
    counts.append((recordings, "recording", "recordings"))
    clips, classes, sources = (f"{count} {one if count == 1 else many}" for count, one, many in counts)
    remark(f"{clips} of {classes} from {sources}, listed in {index}")
