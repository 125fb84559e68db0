"""From a table of events to a folder of clips, with an index.

The index, ``clips.csv``, has one row a clip:

    clip,filename,onset,offset,event_label,score,clip_onset,clip_offset
    Dog/street_00002.000_00003.750_Dog_0.500.wav,street.wav,2.000,3.750,Dog,0.5000,1.500000,4.250000

It is a table of strong labels, so that it is read like any other once rows have been dropped and labels
corrected by ear; ``clip_onset`` and ``clip_offset`` are where the clip lies in the recording. Where events
have channels, a column ``channel`` follows the score. Rows without a clip come last: they name each
recording, and in the column ``heard`` what was cut out of it, see `htsat_sed.annotations.heard`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from types import MappingProxyType

from htsat_sed.annotations.delimited import row
from htsat_sed.annotations.folders import make_folder
from htsat_sed.annotations.heard import HEARD, heard_cells
from htsat_sed.annotations.strong import COLUMNS
from htsat_sed.annotations.text import CHANNEL, timed
from htsat_sed.audio import find_recordings
from htsat_sed.clock import Clock, Start
from htsat_sed.detection.events import Event
from htsat_sed.errors import AudioError, UsageError
from htsat_sed.labels import normal
from htsat_sed.segments.choice import ClipChoice, choose
from htsat_sed.segments.cut import Bounds, ClipSettings, cut_recording
from htsat_sed.segments.names import clip_names
from htsat_sed.whole_file import whole_file

INDEX = "clips.csv"

_OF_EVENT, _OF_CLIP = ("clip", *COLUMNS, "score"), ("clip_onset", "clip_offset", HEARD)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Recordings, and the clips to be cut out of them.

    Attributes:
        recordings: name in the table -> the file.
        clips: name in the table -> events and the paths of their clips below the folder, with ``/``.
        failures: recordings that are not there.
    """

    recordings: Mapping[str, Path]
    clips: Mapping[str, Mapping[Event, str]]
    failures: Sequence[AudioError]


def plan(
    table: Mapping[str, Sequence[Event]],
    audio: Path,
    choice: ClipChoice,
    *,
    suffix: str,
    labels: Collection[str] | None = None,
    min_score: float = 0.0,
    clock: Clock | None = None,
    starts: Mapping[str, Start] = MappingProxyType({}),
) -> Plan:
    """Find the recordings, then choose among the events of those that are there.

    Args:
        table: recording -> its events.
        audio: see `locate`.
        choice: how many events of each class, and which.
        suffix: of the clips, dot included.
        labels: only these classes; None for all.
        min_score: only events with this score or a higher one.
        clock: finds when recordings began, for names with clock times; None for names without.
        starts: recording -> when it began, as far as the table says.

    Raises:
        AudioError: `audio` cannot be listed.
        ValueError: `audio` is one recording and the table has events of several.
    """
    wanted = {
        name: [e for e in events if e.score >= min_score and (labels is None or e.label in labels)]
        for name, events in table.items()
    }
    wanted = {name: events for name, events in wanted.items() if events}
    recordings, failures = locate(list(wanted), audio)
    begun: dict[str, Start] = {}
    if clock is not None:
        for name in table:
            given = starts.get(name)
            start = clock.shown(name, given) if given else clock.start(recordings.get(name, name))
            begun |= {} if start is None else {name: start}
    names = clip_names(table, suffix, begun)
    clips: dict[str, dict[Event, str]] = {}
    for found in choose({name: wanted[name] for name in recordings}, choice):
        clips.setdefault(found.filename, {})[found.event] = names[found]
    return Plan(recordings=recordings, clips=clips, failures=failures)


def locate(names: Sequence[str], audio: Path) -> tuple[dict[str, Path], list[AudioError]]:
    """Find recordings by the names that tables have for them.

    Args:
        names: of recordings.
        audio: a folder that holds them, or the recording itself if there is one name only.

    Returns:
        Name -> file: the path below the folder; or else the one recording, here or in a folder below, that is
        called so up to its suffix (label tracks may lack it); or else the one recording somewhere below with
        that file name (Raven's tables have no more). Names that differ in Unicode composition alone are the
        same. Whatever a name says, its file is below the folder: ``..`` and paths from the root lead nowhere
        else. A link below the folder is followed, as `find_recordings` does: its owner made it. And errors
        that count the names without a recording, and those that may mean several.

    Raises:
        AudioError: the folder cannot be listed.
        ValueError: `audio` is a recording, and there are several names.
    """
    if audio.is_file():
        if len(names) > 1:
            raise UsageError(f"{audio} is one recording, the events are of {len(names)}: name their folder")
        return dict.fromkeys(names, audio), []
    below, failures = find_recordings(audio)
    known: dict[str, list[Path]] = {}
    for file in below:
        path = file.relative_to(audio)
        whole, stem = normal(path.as_posix()), normal(path.with_suffix("").as_posix())
        keys = {f"path {whole}", f"bare {stem}", f"name {normal(path.name)}", f"name {normal(path.stem)}"}
        for key in keys:
            known.setdefault(key, []).append(file)
    located: dict[str, Path] = {}
    missing: list[str] = []
    unclear: list[str] = []
    for name in names:
        composed = normal(name)
        bare, last = known.get(f"bare {composed}", []), known.get(f"name {PurePosixPath(composed).name}", [])
        candidates = _directly_below(audio, name) or known.get(f"path {composed}") or bare or last
        if len(candidates) == 1:
            located[name] = candidates[0]
        else:
            (unclear if candidates else missing).append(name)
    for which, reason in (
        (missing, "holds no recordings for"),
        (unclear, "holds several recordings each for"),
    ):
        if which:
            named = ", ".join(which[:3]) + (f" and {len(which) - 3} more" if len(which) > 3 else "")
            failures.append(AudioError(audio, f"{reason} {len(which)} of the {len(names)} names: {named}"))
    return located, failures


def _directly_below(audio: Path, name: str) -> list[Path]:
    """The path that a name has below a folder, if something is there and the name stays in the folder."""
    path = PurePath(name)
    if path.is_absolute():
        root = audio.absolute()
        path = path.relative_to(root) if path.is_relative_to(root) else PurePath("..")
    found = audio / path
    return [found] if ".." not in path.parts and path.parts and os.path.lexists(found) else []


def write_clips(
    plan: Plan, folder: Path, how: ClipSettings
) -> Iterator[tuple[str, dict[Event, Bounds] | AudioError]]:
    """Cut the clips of a plan, recording by recording.

    Args:
        plan: what.
        folder: for the clips; made if it is not there.
        how: padding, format and rate.

    Yields:
        A recording's name, and where the clips of its events lie in it, or why it could not be read.

    Raises:
        HtsatSedError: a clip cannot be written.
    """
    for name, clips in plan.clips.items():
        for parent in {(folder / clip).parent for clip in clips.values()}:
            make_folder(parent)
        targets = {folder / clip: event for event, clip in clips.items()}
        try:
            written = cut_recording(
                plan.recordings[name], [(event, target) for target, event in targets.items()], how
            )
        except AudioError as error:
            yield name, error
        else:
            yield name, {targets[target]: bounds for target, bounds in written.items()}


def write_index(
    folder: Path,
    plan: Plan,
    written: Mapping[str, Mapping[Event, Bounds]],
    *,
    link: Callable[[str, Event], str] | None = None,
    safe_cells: bool = False,
) -> None:
    """Write ``clips.csv``, ordered by the clips' paths.

    Args:
        folder: of the clips.
        plan: what they are called.
        written: recording -> its events that have clips, and where these lie.
        link: recording and event -> address for the column ``page``; None for no such column.
        safe_cells: keep spreadsheets from running names as formulas, see `delimited`.

    Raises:
        HtsatSedError: it cannot be written.
    """
    channels = CHANNEL if any(event.channel for own in written.values() for event in own) else ()
    pages = () if link is None else ("page",)
    columns = (*_OF_EVENT, *channels, *_OF_CLIP, *pages)
    rows = []
    for name, own in written.items():
        for onset, offset, event in timed(own, decimals=3):
            bounds = (f"{seconds:.6f}" for seconds in own[event])
            clip = plan.clips[name][event]
            channel = [str(event.channel or "") for _ in channels]
            page = () if link is None else (link(name, event),)
            found = (clip, name, onset, offset, event.label, f"{event.score:.4f}")
            rows.append((*found, *channel, *bounds, "", *page))
    nothing, last = [""] * (len(columns) - 3 - len(pages)), [""] * len(pages)
    heard = []
    for name, own in sorted(written.items()):
        heard += [("", name, *nothing, cell, *last) for cell in heard_cells(own)]
    make_folder(folder)
    with whole_file(folder / INDEX) as file:
        file.write(row(columns, ","))
        file.writelines(row(cells, ",", safe_cells=safe_cells) for cells in sorted(rows) + heard)
