"""`htsat-sed report`: a page to look at, listen to and correct what was found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal
from urllib.parse import quote

import typer

from htsat_sed.cli.clock_options import ClockOptions
from htsat_sed.cli.event_options import EventOptions
from htsat_sed.cli.groups import option, with_groups
from htsat_sed.cli.interruption import Interruptible
from htsat_sed.cli.message_options import MessageOptions
from htsat_sed.cli.model_options import ModelOptions
from htsat_sed.cli.progress import RecordingsProgress
from htsat_sed.cli.recording_options import ChannelOptions, RecordingOptions
from htsat_sed.cli.run_options import OverwriteOptions
from htsat_sed.cli.terminal import remark, summarise
from htsat_sed.errors import AnnotationError, AudioError, HtsatSedError, UsageError
from htsat_sed.runs.output_checks import check_apart, check_writable
from htsat_sed.runs.output_hashes import check_replaceable, recording_outputs
from htsat_sed.runs.recordings import STDIN, Recording
from htsat_sed.runs.run import Results, Run

if TYPE_CHECKING:
    from htsat_sed.audio import AudioStream, Window
    from htsat_sed.clock import Clock
    from htsat_sed.detection.detector import Detector
    from htsat_sed.detection.events import Event
    from htsat_sed.detection.presence import PresenceMap
    from htsat_sed.detection.scheduler import RecordingProgress
    from htsat_sed.report.page import Shown


@dataclass(frozen=True)
class PageOptions:
    """The page, and the sound in it."""

    panel: ClassVar[str] = "Page"
    out: Path = option(
        Path("report.html"),
        "Output: a page for all recordings, or a folder for one page per recording and an index.",
        "--output",
        "-o",
        metavar="HTML|DIR",
    )
    reference: Path | None = option(
        None,
        "Reference events to show below the events found, in any format that detect writes.",
        "--reference",
        "-r",
        metavar="FILE|DIR",
    )
    scores: Path | None = option(
        None,
        "Presence maps from `detect --scores`, or score files, of these recordings: used instead of "
        "running the model. Name the checkpoint that computed them with -c.",
        metavar="DIR",
    )
    title: str | None = option(
        None, "Title of the page.  \\[default: the name or number of recordings]", metavar="TEXT"
    )
    audio: Literal["auto", "whole", "events", "link", "none"] = option(
        "auto",
        "Sound in the page, as Opus. whole: whole recordings; events: events with --padding; link: the "
        "recordings' own files, which must stay in place; none: no sound; auto: whole if it fits the limit, "
        "else events.",
    )
    audio_limit: float = option(
        12.0, "Maximum size of the sound in a page; long events are shortened to fit.", min=0.0, metavar="MB"
    )
    bit_rate: int = option(24, "Bit rate of the sound, in kbit/s.", min=6, max=256, metavar="KBIT")
    padding: float = option(
        2.0,
        "Sound before and after each event, unless the page has whole recordings.",
        min=0.0,
        metavar="SECONDS",
    )

    @property
    def folder(self) -> bool:
        """Whether the output is a folder of pages."""
        return self.out.is_dir() or not self.out.suffix

    def pages(self, recordings: Sequence[Recording]) -> list[Path]:
        """The files to be: of a folder the index, and a page for each recording.

        Raises:
            typer.BadParameter: the output is not called like a page.
            HtsatSedError: its folder cannot be made, or takes no files.
        """
        from htsat_sed.annotations import path_of
        from htsat_sed.report.links import INDEX

        if not self.folder and self.out.suffix.lower() not in (".html", ".htm"):
            raise typer.BadParameter(
                f"the name of a page must end in .html, got {self.out}", param_hint="--output"
            )
        _make_folder(self.out if self.folder else self.out.parent)
        check_writable(self.out)
        if not self.folder:
            return [self.out]
        return [self.out / INDEX, *(path_of(self.out, each.name, ".html") for each in recordings)]


@with_groups
def report(
    given: RecordingOptions,
    channels: ChannelOptions,
    options: PageOptions,
    clock_options: ClockOptions,
    existing: OverwriteOptions,
    model: ModelOptions,
    events: EventOptions,
    messages: MessageOptions,
) -> None:
    """Make an HTML page to view, play and correct the events of recordings.

    The page is one file that any browser opens without a server or network.
    It shows the spectrogram, the scores and the events, and plays the sound.
    Sliders change the thresholds, and the events change with them.
    Press keys to mark events as right or wrong; draw missed events.
    The page exports labels, and a review table that evaluate reads.

    [bold]Examples[/bold]

      htsat-sed report street.wav -o street.html
      htsat-sed report recordings/ -o report.html
      htsat-sed report night/ -o pages/ --audio events
      htsat-sed report street.wav -o street.html --reference labels.tsv
      htsat-sed report recordings/ -o report.html --scores maps/
    """
    with Interruptible() as stop:
        clock = clock_options.clock()
        recordings, failures = given.find()
        pages = options.pages(recordings)
        inputs = [*given.files(recordings), *model.files]
        inputs += [options.reference, options.scores, events.post_processing]
        check_apart(pages, inputs)
        check_replaceable(*pages, overwrite=existing.overwrite)
        referred = _references(options.reference, recordings) if options.reference is not None else {}
        detector = model.detector(channels, events, fill_batches=len(recordings) > 1)
        display = RecordingsProgress("detecting", len(recordings))
        with Run(recordings, failures, display=display, journal=None) as run, recording_outputs():
            stop.left = run.left
            shown = _shown(detector, run, options, referred, clock)
            if options.folder:
                _write_folder(shown, detector, options, run)
            else:
                _write_one(list(shown), detector, options)
            code = run.finish()
            summarise(run, None)
    raise typer.Exit(code)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HtsatSedError(folder, f"cannot be made: {error.strerror}") from error


def _references(path: Path, recordings: Sequence[Recording]) -> dict[str, list[Event]]:
    """Name of a recording -> its reference events."""
    from htsat_sed.annotations import read_events
    from htsat_sed.evaluation.names import matching_names

    table = read_events(path)
    names = [each.name for each in recordings]
    try:
        match = matching_names(names, table)
    except UsageError as error:
        raise AnnotationError(path, str(error)) from error
    found = {our: table[their] for their, our in match.items()}
    if not found and len(table) == len(names) == 1 and path.name.startswith(f"{next(iter(table))}."):
        found = {names[0]: next(iter(table.values()))}
    if not found:
        raise AnnotationError(path, f"has none of the {len(names)} recordings")
    return found


def _shown(
    detector: Detector, run: Run, options: PageOptions, referred: dict[str, list[Event]], clock: Clock
) -> Iterator[Shown]:
    """Each recording that can be read, with what is drawn and played; decoded once, for all of it."""
    from htsat_sed.report.page import Shown
    from htsat_sed.report.sketch import Sketch

    sketches: dict[str, Sketch] = {}
    count = 1 if options.folder else len(run.recordings)
    bit_rate = None if options.audio in ("link", "none") else options.bit_rate * 1000
    beside = options.out if options.folder else options.out.parent

    def tap(stream: AudioStream, windows: Iterator[Window]) -> Iterator[Window]:
        seconds = (stream.expected_duration or 0.0) * count
        sketches[stream.path] = Sketch(detector.config, seconds=seconds, bit_rate=bit_rate)
        return sketches[stream.path].through(windows)

    kept = None if options.scores is None else _kept_maps(options.scores, run.recordings, detector)

    def read(paths: Iterable[str], progress: RecordingProgress) -> Results[PresenceMap]:
        if kept is not None:
            return _with_maps(kept, paths, detector, tap, run, progress)
        return detector.presence_maps(paths, progress=progress, defective=run.defective, tap=tap)

    for recording, found in run.through(read):
        sketch = sketches.pop(recording.path, None)
        if isinstance(found, HtsatSedError):
            run.fail(recording, found)
            continue
        assert sketch is not None
        link = None
        if options.audio == "link":
            if recording.path == STDIN:
                run.fail(recording, AudioError(recording.path, "standard input has no file to link to"))
                continue
            link = quote(Path(os.path.relpath(recording.path, beside)).as_posix(), errors="surrogateescape")
        run.note(recording, None)
        start = clock.start(recording.path)
        begins = None if start is None else start.iso(0.0)
        yield Shown(recording.name, found, sketch, referred.get(recording.name), begins, link)


def _kept_maps(
    folder: Path, recordings: Sequence[Recording], detector: Detector
) -> dict[str, PresenceMap | HtsatSedError]:
    """The kept presence map of each path, or why there is none."""
    from htsat_sed.annotations import read_presence_maps
    from htsat_sed.evaluation.names import matching_names

    maps = dict(read_presence_maps(folder))
    theirs = {our: their for their, our in matching_names([each.name for each in recordings], maps).items()}
    found: dict[str, PresenceMap | HtsatSedError] = {}
    for each in recordings:
        kept = maps.get(theirs.get(each.name, ""))
        if kept is None:
            found[each.path] = AnnotationError(folder, f"has no scores for {each.name}")
        elif kept.labels != detector.labels:
            reason = (
                f"the scores of {each.name} have other classes than the checkpoint: name the one that "
                "computed them with -c"
            )
            found[each.path] = AnnotationError(folder, reason)
        else:
            found[each.path] = kept
    return found


def _with_maps(
    kept: dict[str, PresenceMap | HtsatSedError],
    paths: Iterable[str],
    detector: Detector,
    tap: Callable[[AudioStream, Iterator[Window]], Iterator[Window]],
    run: Run,
    progress: RecordingProgress,
) -> Results[PresenceMap]:
    """Decode recordings for what is drawn and played, and give them their kept presence maps."""
    from htsat_sed.audio import open_recording, windows

    rate, size = detector.config.sample_rate, detector.config.window_samples
    for path in paths:
        result = kept[path]
        try:
            if isinstance(result, HtsatSedError):
                raise result
            with open_recording(path, rate, channel=detector.channel, track=detector.track) as stream:
                for window in tap(stream, windows(stream, window=size, hop=size)):
                    seconds = (window.start + len(window.samples)) / rate
                    progress(path, seconds, stream.expected_duration)
            if stream.defect is not None:
                run.defective(path, stream.defect)
            if abs(stream.duration - result.duration) > detector.config.token_seconds:
                raise AudioError(
                    path,
                    f"lasts {stream.duration:.2f} s, but its scores cover {result.duration:.2f} s",
                )
            yield path, result
        except HtsatSedError as error:
            yield path, error


def _write(path: Path, shown: Sequence[Shown], detector: Detector, options: PageOptions, title: str) -> None:
    """Write one page, whole or not at all."""
    from htsat_sed.report.page import page
    from htsat_sed.whole_file import whole_file

    with whole_file(path) as file:
        file.writelines(
            page(
                shown,
                title=title,
                post_processing=detector.post_processing,
                audio=options.audio,
                limit=options.audio_limit * 1e6,
                padding=options.padding,
            )
        )


def _write_one(shown: Sequence[Shown], detector: Detector, options: PageOptions) -> None:
    """Write all recordings into one page, in the order of their clock times as far as these are known."""
    if not shown:
        return
    shown = sorted(shown, key=lambda each: (each.begins is None, each.begins or ""))
    default = shown[0].name if len(shown) == 1 else f"{len(shown)} recordings"
    _write(options.out, shown, detector, options, options.title or default)
    size = options.out.stat().st_size
    remark(f"wrote {options.out}, {size / 1e6:.1f} MB: open it in a browser")


def _write_folder(shown: Iterable[Shown], detector: Detector, options: PageOptions, run: Run) -> None:
    """Write the page of each recording as soon as it is processed, and the index at the end."""
    from htsat_sed.annotations import path_of
    from htsat_sed.report.links import INDEX
    from htsat_sed.report.page import Listed, index
    from htsat_sed.summary.sites import site_of
    from htsat_sed.whole_file import whole_file

    folder, listed = options.out, []
    for each in shown:
        path = path_of(folder, each.name, ".html")
        _make_folder(path.parent)
        if each.link is not None:
            each = replace(each, link="../" * (len(path.relative_to(folder).parts) - 1) + each.link)
        _write(path, [each], detector, options, each.name)
        events = detector.events(each.presence_map)
        link = quote(path.relative_to(folder).as_posix(), errors="surrogateescape")
        duration = each.presence_map.duration
        listed.append(Listed(each.name, link, duration, events, each.begins, site_of(each.name)))
    if listed:
        title = options.title or folder.resolve().name
        unread = [(str(name), error.reason) for name, error in run.failures]
        with whole_file(folder / INDEX) as file:
            file.write(index(listed, title=title, labels=detector.labels, unread=unread))
        pages = "1 page" if len(listed) == 1 else f"{len(listed)} pages"
        remark(f"wrote {pages} and {folder / INDEX}: open it in a browser")
