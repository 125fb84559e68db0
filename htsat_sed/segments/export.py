"""Exports the events of a table to a folder of clips with an index.

The index, ``clips.csv``, has one row per clip:

    clip,filename,onset,offset,event_label,score,clip_onset,clip_offset
    Dog/street_00002.000_00003.750_Dog_0.500.wav,street.wav,2.000,3.750,Dog,0.5000,1.500000,4.250000

It is a table of strong labels that can be read like any other after rows are deleted and labels corrected by
ear. ``clip_onset`` and ``clip_offset`` are the bounds of the clip in the recording. If events have channels,
a column ``channel`` follows the score. Rows without a clip come last; their column ``heard`` lists what was
cut from each recording, see `htsat_sed.annotations.heard`.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePath, PurePosixPath
from types import MappingProxyType

from htsat_sed.annotations.delimited import row
from htsat_sed.annotations.heard import HEARD, heard_cells
from htsat_sed.annotations.strong import COLUMNS
from htsat_sed.annotations.text import CHANNEL, timed
from htsat_sed.audio import find_recordings
from htsat_sed.clock import Clock, Start
from htsat_sed.detection.events import Event
from htsat_sed.errors import AudioError, UsageError, counted
from htsat_sed.labels import normal
from htsat_sed.segments.choice import ClipChoice, choose
from htsat_sed.segments.cut import Bounds, ClipSettings, cut_recording
from htsat_sed.segments.names import clip_names
from htsat_sed.whole_file import make_folder, whole_file

_logger = logging.getLogger(__name__)

INDEX = "clips.csv"

_OF_EVENT, _OF_CLIP = ("clip", *COLUMNS, "score"), ("clip_onset", "clip_offset", HEARD)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Recordings and the clips to cut from them.

    Attributes:
        recordings: name in the table -> file.
        clips: name in the table -> events and the relative paths of their clips, with ``/``.
        failures: recordings that are missing or ambiguous.
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
    """Find the recordings, then select events of those found.

    Args:
        table: recording -> its events.
        audio: see `locate`.
        choice: number and order of the events of each class.
        suffix: file suffix of the clips, with the dot.
        labels: only these classes; None for all.
        min_score: lowest score, inclusive.
        clock: finds the starts of recordings, for file names with clock times; None for names without.
        starts: recording -> start, if the table has it.

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
    """Find recordings by their names in tables.

    Args:
        names: names of recordings.
        audio: a folder that contains them, or the recording itself for a single name.

    Returns:
        Name -> file, and errors for names without a recording or with several. A name matches, in this order,
        the path relative to the folder; that path without its suffix, which label tracks may lack; the file
        name of one recording in any subfolder, since Raven's tables have no folders. Of several recordings
        with this file name, the one matches that lies in the most folders of the name; a warning counts the
        names of whose folders none is found, and such a name is an error if another has its recording. (Sites
        often have recordings of the same names.) Names are compared after
        Unicode composition. Files outside the folder are never returned: ``..`` and absolute paths do not
        leave it. Links in the folder are followed, as by `find_recordings`.

    Raises:
        AudioError: the folder cannot be listed.
        ValueError: `audio` is a recording, and there are several names.
    """
    if audio.is_file():
        if len(names) > 1:
            raise UsageError(
                f"{audio} is one recording, but the table has {len(names)}: give the folder of the recordings"
            )
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
    alone: list[str] = []  # matched by the file name alone, although they have folders
    for name in names:
        composed = normal(name)
        bare, last = known.get(f"bare {composed}", []), known.get(f"name {PurePosixPath(composed).name}", [])
        candidates = _directly_below(audio, name) or known.get(f"path {composed}") or bare
        if not candidates and last:
            shared = [_shared_folders(composed, file) for file in last]
            candidates = [file for file, own in zip(last, shared, strict=True) if own == max(shared)]
            if not max(shared) and PurePosixPath(composed).parent.parts:
                alone.append(name)
        if len(candidates) == 1:
            located[name] = candidates[0]
        else:
            (unclear if candidates else missing).append(name)
    times = Counter(located.values())
    foreign = [name for name in alone if times[located.get(name, audio)] > 1]
    for name in foreign:
        del located[name]
    if loose := [name for name in alone if name in located]:
        example = f"such as {loose[0]} as {located[loose[0]]}"
        _logger.warning("%s: %s matched without folder, %s", audio, counted(len(loose), "recording"), example)
    for which, reason in (
        (missing, "holds no recordings for"),
        (unclear, "holds several recordings each for"),
        (foreign, "holds, under the same file name, only the recording of another name for"),
    ):
        if which:
            named = ", ".join(which[:3]) + (f" and {len(which) - 3} more" if len(which) > 3 else "")
            several = f"{len(which)} of the {len(names)} names" if len(names) > 1 else "the name"
            failures.append(AudioError(audio, f"{reason} {several}: {named}"))
    return located, failures


def _shared_folders(name: str, file: Path) -> int:
    """Number of last folders that a name and a file have in common."""
    pairs = zip(
        reversed(PurePosixPath(name).parent.parts), reversed(file.absolute().parent.parts), strict=False
    )
    return sum(1 for _ in takewhile(lambda pair: pair[0] == normal(pair[1]), pairs))


def _directly_below(audio: Path, name: str) -> list[Path]:
    """The file at a path relative to a folder, if it exists and lies in the folder."""
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
        plan: recordings and clips.
        folder: folder of the clips; created if missing.
        how: padding, format and rate.

    Yields:
        The name of a recording, and the bounds of its clips or the reading error.

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
        folder: folder of the clips.
        plan: paths of the clips.
        written: recording -> events with clips, and the bounds of the clips.
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
