"""Finding the clips of own classes: in a folder per class, in labelled recordings, or in an earlier run.

Folders named ``_background``, ``background``, ``_other``, ``other``, ``_negatives`` or ``negatives`` hold
negatives: clips in which no class is present.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from htsat_sed.annotations.delimited import read_rows
from htsat_sed.audio import find_recordings, open_recording
from htsat_sed.audio.encoding import encoded
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError, AudioError, counted
from htsat_sed.labels import normal
from htsat_sed.segments.export import locate
from htsat_sed.whole_file import whole_file

_logger = logging.getLogger("htsat_sed")

NEGATIVES = frozenset({"_background", "background", "_other", "other", "_negatives", "negatives"})
_GAP = 0.5  # seconds between a negative and the nearest event
_LEAST, _MOST = 2.0, 30.0  # duration of a negative, seconds
_NEGATIVES_EACH = 20  # negatives per recording, at most
_OVERLAP = 0.1  # part of an event that may overlap with events of other classes

# Patterns of clip names; the group is the name of the source, and the first match wins.
_SOURCES = (
    r"(\d-\d+)-[A-Z]-\d+",  # ESC-50: fold, Freesound ID, take, class
    r"(XC\d+)(?:\D.*)?",  # xeno-canto
    r"(\d+)__.*",  # Freesound
    r"(\d+)-\d-\d-\d+",  # UrbanSound8K
    r"(.+?)_\d{5,}\.\d{3}_\d{5,}\.\d{3}_.*",  # clips that `htsat-sed segments` cut
    r"(.+?)[-_ ]+(?:take|part|seg|segment|clip|chunk)?[-_ ]?(?:\d{1,4}|[A-Za-z])",
    r"(.+?) ?\(\d{1,4}\)",
)


def source_of(stem: str) -> str:
    """Derive the source of a clip from its file name, by removing the number of the clip within the source.

    ``1-100032-A-0`` (ESC-50) gives ``1-100032``, ``XC12345 - Robin`` gives ``XC12345``, and both ``yard_03``
    and ``yard (2)`` give ``yard``.

    Args:
        stem: file name without extension.

    Returns:
        The source; `stem` itself if no pattern matches.
    """
    for pattern in _SOURCES:
        if found := re.fullmatch(pattern, stem):
            return found[1]
    return stem


def _sources(paths: Sequence[tuple[Path, Path]]) -> list[str]:
    """Return the source of each clip of a class.

    If the clips lie in several folders, each folder below that of the class is a source. File names give the
    sources of other clips, see `source_of`. If all these names give the same source, as ``dog_01`` to
    ``dog_20`` do, each clip is a source of its own.

    Args:
        paths: path of each clip, and its path relative to the class's folder.
    """
    several = len({below.parent for _, below in paths}) > 1
    in_folder = [several and below.parent != Path() for _, below in paths]
    numbered = _numbered([path for (path, _), placed in zip(paths, in_folder, strict=True) if not placed])
    return [
        f"{path.parent}/" if placed else path.stem if numbered else source_of(path.stem)
        for (path, _), placed in zip(paths, in_folder, strict=True)
    ]


def _numbered(paths: Sequence[Path]) -> bool:
    """Return whether the names of several clips give one source, so that they only number the clips."""
    return len(paths) > 1 and len({source_of(path.stem) for path in paths}) == 1


def _warn_of_numbers(found: Mapping[str, Sequence[tuple[Path, Path]]]) -> None:
    """Warn of classes in which each clip counts as a source because names only number the clips."""
    labels = [
        label
        for label, paths in found.items()
        if label and len({below.parent for _, below in paths}) == 1 and _numbered([path for path, _ in paths])
    ]
    if labels:
        _logger.warning(
            "%s: names of clips differ only in a number, so each clip counts as a source of its own: if "
            "several are from one recording, put them into a subfolder of their own",
            ", ".join(labels),
        )


def from_folder(folder: Path) -> dict[str, list[tuple[Path, str]]]:
    """Find the clips of each class in a folder with one subfolder per class.

    Recordings outside a class's folder, folders without recordings and unreadable folders are left out, with
    a warning.

    Args:
        folder: holds a folder for each class, with recordings at any depth.

    Returns:
        Maps each class to the paths of its clips and their sources; the class "" holds negatives.

    Raises:
        AnnotationError: no subfolder holds recordings of a class.
        AudioError: the folder cannot be listed.
    """
    recordings, closed = find_recordings(folder)
    for error in closed:
        _logger.warning("%s; left out", error)
    found: dict[str, list[tuple[Path, Path]]] = defaultdict(list)
    loose = 0
    for path in recordings:
        below = path.relative_to(folder)
        if len(below.parts) < 2:
            loose += 1
            continue
        name = normal(below.parts[0])
        label = "" if name.lower() in NEGATIVES else name
        found[label].append((path, Path(*below.parts[1:])))
    if not set(found) - {""}:
        raise AnnotationError(folder, "holds no folder with recordings: wanted a subfolder for each class")
    if loose:
        lie = "lies" if loose == 1 else "lie"
        _logger.warning("%s: %s %s not in a class folder; left out", folder, counted(loose, "recording"), lie)
    _warn_of_numbers(found)
    for each in sorted(folder.iterdir()):
        name = normal(each.name)
        if each.is_dir() and not name.startswith(".") and name.lower() not in NEGATIVES and name not in found:
            _logger.warning("%s: holds no recordings; the model will not have this class", each)
    return {
        label: [(path, source) for (path, _), source in zip(paths, _sources(paths), strict=True)]
        for label, paths in found.items()
    }


def from_labels(
    table: Mapping[str, Sequence[Event]],
    audio: Path,
    place: Path,
    *,
    sample_rate: int,
    heard: Mapping[str, Sequence[Event]] | None = None,
) -> dict[str, list[tuple[Path, str]]]:
    """Cut clips from labelled recordings: events as clips of their class, and gaps between them as negatives.

    An event of which more than 10 % overlaps with an event of another class is left out; a warning reports
    their number. Recordings that are missing or unreadable are left out with a warning each.

    Args:
        table: maps a recording to its events.
        audio: folder of the recordings, see `locate`.
        place: output folder of the clips; created if missing.
        sample_rate: sample rate of the clips, Hz.
        heard: maps a recording to the events that were reviewed. Those that overlap with no event of `table`
            were rejected and become the only negatives. None: the recordings are labelled completely, and
            gaps between events become negatives.

    Returns:
        The clips by class, as from `from_folder`; each recording is a source.

    Raises:
        AnnotationError: none of the recordings exists.
        HtsatSedError: a clip cannot be written.
    """
    located, missing = locate(list(table), audio)
    for error in missing:
        _logger.warning("%s; left out", error)
    if not located:
        raise AnnotationError(audio, "holds none of the labelled recordings")
    place.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[tuple[Path, str]]] = defaultdict(list)
    mixed = 0
    for name, path in sorted(located.items()):
        try:
            with open_recording(path, sample_rate) as stream:
                samples = np.concatenate([np.zeros(0, np.float32), *stream.blocks()])
        except AudioError as error:
            _logger.warning("%s; left out", error)
            continue
        events = sorted(table[name])
        alone = [e for e in events if _shared(e, events) <= _OVERLAP * (e.offset - e.onset)]
        mixed += len(events) - len(alone)
        stretches = [(e.onset, e.offset, e.label) for e in alone]
        quiet = (
            _gaps(events, len(samples) / sample_rate)
            if heard is None
            else _rejected(events, heard.get(name, ()))
        )
        stretches += [(*gap, "") for gap in quiet]
        for onset, offset, label in stretches:
            cut = samples[round(onset * sample_rate) : round(offset * sample_rate)]
            if len(cut):
                stem = f"{_plain(path.stem)}_{onset:.3f}-{offset:.3f}"
                found[label].append((_write_clip(place, stem, cut, sample_rate), name))
    if mixed:
        _logger.warning("overlapping with events of other classes: %s; left out", counted(mixed, "event"))
    return dict(found)


def _plain(stem: str) -> str:
    """Return the start of a file name, without special characters."""
    return re.sub(r"[^\w.() -]", "_", stem)[:40]


def _write_clip(place: Path, stem: str, samples: NDArray[np.float32], sample_rate: int) -> Path:
    """Write samples as 16-bit FLAC, and return the path.

    The name ends with a hash of the samples. An existing clip is therefore kept only if it has the same
    samples, and a run with corrected labels does not change the clips of earlier runs.
    """
    integers = np.round(samples.clip(-1, 1) * 32_767).astype(np.int16)
    digest = hashlib.sha256(f"{sample_rate} ".encode() + integers.tobytes()).hexdigest()[:12]
    path = place / f"{stem}_{digest}.flac"
    if not path.is_file():
        with whole_file(path, "wb") as file:
            file.write(encoded(integers, sample_rate, format="FLAC"))
    return path


def _shared(event: Event, events: Iterable[Event]) -> float:
    """Return the longest overlap of an event with an event of another class, seconds."""
    others = (e for e in events if e.label != event.label)
    return max((min(event.offset, e.offset) - max(event.onset, e.onset) for e in others), default=0.0)


def _gaps(events: Sequence[Event], duration: float) -> list[tuple[float, float]]:
    """Return stretches of 2 to 30 s without events, as (onset, offset) in seconds; at most 20."""
    gaps: list[tuple[float, float]] = []
    begin = 0.0
    for onset, offset in [*((e.onset - _GAP, e.offset + _GAP) for e in events), (duration, duration)]:
        while onset - begin >= _LEAST and len(gaps) < _NEGATIVES_EACH:
            end = min(onset, begin + _MOST)
            gaps.append((begin, end))
            begin = end
        begin = max(begin, offset)
    return gaps


def _rejected(events: Sequence[Event], heard: Sequence[Event]) -> list[tuple[float, float]]:
    """Return the reviewed events that overlap with no event, as (onset, offset) in seconds."""
    return [
        (e.onset, e.offset)
        for e in heard
        if not any(min(e.offset, other.offset) > max(e.onset, other.onset) for other in events)
    ]


def from_tables(run: Path) -> dict[str, list[tuple[Path, str]]]:
    """Read the clips and negatives of an earlier run of `htsat-sed teach`.

    Args:
        run: folder of the run.

    Returns:
        The clips by class, as from `from_folder`.

    Raises:
        AnnotationError: the folder holds no run of `teach`, or a table is malformed.
    """
    found: dict[str, dict[Path, str]] = defaultdict(dict)
    tables = sorted(run.glob("fold-*/clips.tsv"))
    if not tables:
        raise AnnotationError(
            run, "holds no run of teach: wanted the run folder beside the checkpoint that teach wrote"
        )
    for table in tables:
        for row in read_rows(table, ("filename", "label", "source")):
            found[row.text("label")][Path(row.filename())] = row.text("source")
    for table in sorted(run.glob("fold-*/negatives.tsv")):
        for row in read_rows(table, ("filename", "source")):
            found[""][Path(row.filename())] = row.text("source")
    return {label: list(own.items()) for label, own in found.items()}
