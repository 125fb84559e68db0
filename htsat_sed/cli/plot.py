"""`htsat-sed plot`: a picture of a recording and what was found in it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import typer

from htsat_sed.cli.event_options import EventOptions
from htsat_sed.cli.groups import REQUIRED, argument, option, with_groups
from htsat_sed.cli.message_options import MessageOptions
from htsat_sed.cli.model_options import ModelOptions
from htsat_sed.cli.progress import RecordingsProgress
from htsat_sed.cli.recording_options import ChannelOptions
from htsat_sed.cli.run_options import OverwriteOptions
from htsat_sed.cli.terminal import clock, remark, say
from htsat_sed.errors import AnnotationError, HtsatSedError, UsageError
from htsat_sed.runs.output_checks import check_writable
from htsat_sed.runs.output_hashes import check_replaceable, recording_outputs
from htsat_sed.runs.recordings import STDIN
from htsat_sed.whole_file import make_folder

if TYPE_CHECKING:
    from htsat_sed.detection.detector import Detector
    from htsat_sed.detection.events import Event
    from htsat_sed.detection.presence import PresenceMap


def seconds(text: str) -> float:
    """Read ``90``, ``1:30`` or ``1:02:03.5`` as seconds.

    Raises:
        ValueError: it is none of these.
    """
    parts = text.split(":")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    whole = all(part.isdigit() for part in parts[:-1])
    if not (1 <= len(values) <= 3 and whole and 0.0 <= values[-1] < float("inf")):
        raise UsageError(f"wanted seconds, min:s or h:min:s, got {text!r}")
    return sum(value * 60.0**power for power, value in enumerate(reversed(values)))


def _time(text: str | float) -> float:
    try:
        return seconds(str(text))
    except UsageError as error:
        raise typer.BadParameter(str(error)) from None


@dataclass(frozen=True)
class PictureOptions:
    """The recording, and what of it the picture shows."""

    panel: ClassVar[str] = "Picture"
    recording: str = argument(REQUIRED, "A recording of any format and length.", metavar="RECORDING")
    out: Path | None = option(
        None,
        "Output: a picture, whose suffix selects the format (.png, .svg or .pdf), or a folder for it.  "
        "\\[default: RECORDING.png in the current folder, such as street.wav.png]",
        "--output",
        "-o",
        metavar="FILE|DIR",
    )
    reference: Path | None = option(
        None,
        "Reference events to draw below the events found: strong labels (DESED TSV) or any other format "
        "that detect writes. In a table of several recordings, RECORDING is found by its name.",
        "--reference",
        "-r",
        metavar="FILE|DIR",
    )
    start: float = option(
        0.0, "Start of the range to draw: seconds, min:s or h:min:s.", metavar="TIME", parser=_time
    )
    end: float | None = option(
        None,
        "End of the range. The model runs only on the windows that the range needs.  \\[default: the "
        "recording's end]",
        metavar="TIME",
        parser=_time,
    )
    row: float | None = option(
        None,
        "Duration of a strip; a longer range is drawn as several strips.  \\[default: one strip up to 2 "
        "min, otherwise a round duration that makes at most 6]",
        metavar="TIME",
        parser=_time,
    )
    classes: int = option(
        12,
        "Show at most N classes: first those with reference events, then those with events, then those "
        "that score 0.1 or more, each group sorted by highest score. With --labels, all named classes are "
        "shown.",
        min=1,
        metavar="N",
    )

    def check(self) -> None:
        """Refuse what cannot be drawn.

        Raises:
            typer.BadParameter: naming the option.
        """
        if self.recording == STDIN:
            raise typer.BadParameter(
                "plot reads a recording twice, and standard input can be read only once: name a file"
            )
        if self.end is not None and not self.start < self.end:
            raise typer.BadParameter(
                f"wanted a range that ends after its start, got {self.start:g} to {self.end:g} s",
                param_hint="--end",
            )
        if self.row is not None and self.row <= 0.0:
            raise typer.BadParameter("wanted strips of more than 0 s", param_hint="--row")


@with_groups
def plot(
    picture: PictureOptions,
    model: ModelOptions,
    channels: ChannelOptions,
    events: EventOptions,
    existing: OverwriteOptions,
    messages: MessageOptions,
) -> None:
    """Draw a recording and its events.

    Over one time axis: the log-mel spectrogram of the model, and a lane for each class.
    A lane has the smoothed scores (light grey, and dark above the threshold),
    the threshold (a line), the events found (blue) and reference events (orange).

    A long recording becomes several strips, one below the other, after an overview of the whole.
    A strip omits classes that have no events or scores in it.
    If several tokens share a pixel, the highest score is drawn: short events stay visible.

    [bold]Examples[/bold]

      htsat-sed plot street.wav
      htsat-sed plot street.wav -o street.svg --reference labels.tsv
      htsat-sed plot night.flac --start 1:02:00 --end 1:02:30 -o owl.png
      htsat-sed plot night.flac --row 10:00 -o overview.pdf
      htsat-sed plot street.wav -c audioset --labels "Car passing by"
    """
    picture.check()
    target = _target(picture.out, picture.recording)
    check_writable(target)
    check_replaceable(target, overwrite=existing.overwrite)
    reference = _reference(picture.reference, picture.recording) if picture.reference is not None else None
    detector = model.detector(channels, events)
    presence_map = _presence_map(detector, picture)
    with recording_outputs():
        _draw(detector, presence_map, picture, reference, target, chosen=model.labels is not None)
    if picture.out is None or picture.out.is_dir():
        remark(f"wrote {target}")


def _draw(
    detector: Detector,
    presence_map: PresenceMap,
    picture: PictureOptions,
    reference: list[Event] | None,
    target: Path,
    *,
    chosen: bool,
) -> None:
    """Draw the picture; of classes that were not chosen, those that matter."""
    from htsat_sed.detection.events import smoothed
    from htsat_sed.pictures.files import save
    from htsat_sed.pictures.recording import classes_that_matter, column_seconds, draw_recording, row_seconds
    from htsat_sed.pictures.spectrogram import read_spectrogram

    start, duration = picture.start, presence_map.duration
    stop = duration if picture.end is None else min(picture.end, duration)
    strip = row_seconds(stop - start) if picture.row is None else min(picture.row, stop - start)
    with _second_reading():
        spectrogram = read_spectrogram(
            picture.recording,
            detector.config,
            start=start,
            end=stop,
            column_seconds=column_seconds(strip),
            channel=detector.channel,
            track=detector.track,
        )
    found = detector.events(presence_map)
    presence_map = smoothed(presence_map, detector.post_processing)
    shown = list(detector.labels)
    if not chosen:
        shown = classes_that_matter(
            presence_map, found, reference, start=start, end=stop, most=picture.classes
        )
        _say_what_is_left_out([*found, *(reference or [])], shown, start, stop)
    figure = draw_recording(
        spectrogram,
        presence_map,
        found,
        reference,
        labels=shown,
        start=start,
        end=stop,
        row=strip,
        title=Path(picture.recording).name,
        post_processing=detector.post_processing,
    )
    save(figure, target)


def _target(out: Path | None, recording: str) -> Path:
    """The picture to be; made sure of before the model runs."""
    from htsat_sed.pictures.files import picture_format

    if out is None or out.is_dir():
        return (out or Path()) / f"{Path(recording).name}.png"
    try:
        picture_format(out)
    except UsageError as error:
        raise typer.BadParameter(str(error), param_hint="--output") from None
    make_folder(out.parent)
    return out


def _reference(path: Path, recording: str) -> list[Event]:
    """The reference events of one recording.

    Its name in the table is the longest end of its path that is there, then one without folders or suffix
    (`htsat_sed.evaluation.names`); a label track of one recording may have any name.

    Raises:
        AnnotationError: the table cannot be read, does not have the recording, or has several that it could
            be.
    """
    from htsat_sed.annotations import read_events
    from htsat_sed.evaluation.names import matching_names

    table = read_events(path)
    whole = Path(recording).absolute()
    names = [Path(*whole.parts[i:]).as_posix() for i in range(len(whole.parts))]
    try:
        names += matching_names([whole.as_posix()], table)
    except UsageError as error:
        raise AnnotationError(path, str(error)) from error
    for name in names:
        if name in table:
            return table[name]
    track = [name for name in table if not path.is_dir() and path.name.startswith(f"{name}.")]
    if len(table) == len(track) == 1:
        return table[track[0]]
    raise AnnotationError(path, f"has no recording {Path(recording).name}: {_some(list(table))}")


def _some(names: list[str]) -> str:
    if not names:
        return "it is empty"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"it has {', '.join(names[:3])}{more}"


def _presence_map(detector: Detector, picture: PictureOptions) -> PresenceMap:
    """Scores of the range, and of a window to both sides for what post-processing needs."""
    margin = detector.config.window_seconds
    with RecordingsProgress("detecting", 1) as progress:
        ((_, result),) = detector.presence_maps(
            [picture.recording],
            start=picture.start - margin,
            end=float("inf") if picture.end is None else picture.end + margin,
            progress=progress.heard,
        )
    if isinstance(result, HtsatSedError):
        raise result
    if picture.start >= result.duration:
        raise typer.BadParameter(
            f"{picture.recording} ends at {clock(result.duration)}, before the range begins at "
            f"{clock(picture.start)}",
            param_hint="--start",
        )
    return result


@contextmanager
def _second_reading() -> Iterator[None]:
    """Keep back warnings about a recording that has been read before: they have been shown."""
    logger = logging.getLogger("htsat_sed")
    silent = logging.Filter("nothing but a logger of this name")
    logger.addFilter(silent)
    try:
        yield
    finally:
        logger.removeFilter(silent)


def _say_what_is_left_out(events: list[Event], shown: list[str], start: float, end: float) -> None:
    heard = {event.label for event in events if event.onset < end and event.offset > start}
    if left_out := len(heard - set(shown)):
        classes = "1 more class has" if left_out == 1 else f"{left_out} more classes have"
        say("note", f"{classes} events: --classes {len(heard)} shows all")
