"""Clips of own classes: found in a folder or cut from labelled recordings, checked, and dealt into folds.

A folder holds a folder for each class, with recordings in it and below. Folders named ``_background``,
``background``, ``_other``, ``other``, ``_negatives`` or ``negatives`` hold what must stay silent.

Clips of one source must not be trained on and validated with: a model then recognises the recording, not the
class. The source of a clip is told by its place and name, see `source_of`.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from htsat_sed.annotations.delimited import read_rows
from htsat_sed.audio import find_recordings, open_recording
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError, AudioError, HtsatSedError, counted
from htsat_sed.labels import normal
from htsat_sed.segments.export import locate
from htsat_sed.whole_file import whole_file

_logger = logging.getLogger("htsat_sed")

NEGATIVES = frozenset({"_background", "background", "_other", "other", "_negatives", "negatives"})
SHORT_OF_CLIPS = 10
_BLOCK = 0.05  # seconds, of the level that tells where a clip is active
_ACTIVE_DB = 30.0  # below its loudest block
_SILENT = 1e-4  # largest sample of a silent clip, -80 dB below full scale
_GAP = 0.5  # seconds kept away from events where negatives are cut
_LEAST, _MOST = 2.0, 30.0  # seconds of a negative
_NEGATIVES_EACH = 20  # cut from one recording
_OVERLAP = 0.1  # of an event, with events of other classes

# What stands before the number of a clip within its source; the first that fits counts.
_SOURCES = (
    r"(\d-\d+)-[A-Z]-\d+",  # ESC-50: fold, Freesound's number, take, class
    r"(XC\d+)\b.*",  # xeno-canto
    r"(\d+)__.*",  # Freesound
    r"(\d+)-\d-\d-\d+",  # UrbanSound8K
    r"(.+?)_\d{5,}\.\d{3}_\d{5,}\.\d{3}_.*",  # clips that `segments` cut
    r"(.+?)[-_ ]+(?:take|part|seg|segment|clip|chunk)?[-_ ]?(?:\d{1,4}|[A-Za-z])",
    r"(.+?) ?\(\d{1,4}\)",
)


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A clip of a class, or one that must stay silent.

    Attributes:
        path: of the recording.
        label: class; empty for a negative.
        source: what it was cut from; clips of one source are in one fold.
        onset: seconds; where it begins to be active.
        offset: seconds.
        duration: seconds.
        rate: of the recording, Hz.
        digest: of its samples.
        fold: 1, 2, ...; 0 for one that is always trained on.
    """

    path: Path
    label: str
    source: str
    onset: float
    offset: float
    duration: float
    rate: int
    digest: str
    fold: int = 0


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Clips to teach a model with.

    Attributes:
        clips: of classes and negatives.
        labels: classes, sorted.
        folds: number of folds; 1 where nothing can be validated.
        failures: clips that cannot be read.
    """

    clips: tuple[Labelled, ...]
    labels: tuple[str, ...]
    folds: int
    failures: tuple[HtsatSedError, ...] = ()

    def of(self, label: str) -> list[Labelled]:
        """The clips of a class."""
        return [clip for clip in self.clips if clip.label == label]


def source_of(stem: str) -> str:
    """The source that the name of a clip tells: the name without the number of the clip within its source.

    ``1-100032-A-0`` of ESC-50 is of ``1-100032``, ``XC12345 - Robin`` of ``XC12345``, ``yard_03`` and
    ``yard (2)`` of ``yard``. Any other name is a source of its own.
    """
    for pattern in _SOURCES:
        if found := re.fullmatch(pattern, stem):
            return found[1]
    return stem


def _sources(paths: Sequence[tuple[Path, Path]]) -> list[str]:
    """The source of each clip of one class, of paths and paths below the class's folder.

    Folders below that of the class are sources, if there are several. Where all names tell the same source,
    such as ``dog_01`` to ``dog_20``, they count the class, and each clip is a source.
    """
    folders = {below.parent for _, below in paths}
    if len(folders) > 1:
        return [f"{path.parent}/" if below.parent != Path() else path.stem for path, below in paths]
    named = [source_of(path.stem) for path, _ in paths]
    return named if len(set(named)) > 1 else [path.stem for path, _ in paths]


def from_folder(folder: Path) -> dict[str, list[tuple[Path, str]]]:
    """The recordings of each class in a folder, with their sources; those of the class "" are negatives.

    Raises:
        AnnotationError: no folder in it holds recordings.
        AudioError: it cannot be listed.
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
        raise AnnotationError(folder, "holds no folder with recordings: wanted a folder for each class")
    if loose:
        lie = "lies" if loose == 1 else "lie"
        _logger.warning(
            "%s: %s %s in no folder of a class; left out", folder, counted(loose, "recording"), lie
        )
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
    """Cut clips out of labelled recordings: events, and what lies between them as negatives.

    Events that overlap those of another class are left out, with a warning.

    Args:
        table: recording -> its events.
        audio: folder of the recordings, see `locate`.
        place: folder that the clips are written to.
        sample_rate: of the clips, Hz.
        heard: recording -> the events that somebody listened to; of these, what is no event of the table was
            rejected, and is a negative. None if all of each recording was listened to.

    Returns:
        As `from_folder`; a source is a recording.

    Raises:
        HtsatSedError: a clip cannot be written, or no recording is there.
    """
    located, missing = locate(list(table), audio)
    for error in missing:
        _logger.warning("%s; left out", error)
    if not located:
        raise AnnotationError(audio, "holds none of the labelled recordings")
    place.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[tuple[Path, str]]] = defaultdict(list)
    mixed = 0
    for number, (name, path) in enumerate(sorted(located.items())):
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
        for part, (onset, offset, label) in enumerate(stretches):
            cut = samples[round(onset * sample_rate) : round(offset * sample_rate)]
            if len(cut):
                clip = place / f"{number:05d}_{part:04d}.flac"
                if not clip.is_file():
                    with whole_file(clip, "wb") as file:
                        soundfile.write(
                            file,
                            np.round(cut.clip(-1, 1) * 32_767).astype(np.int16),
                            sample_rate,
                            format="FLAC",
                        )
                found[label].append((clip, name))
    if mixed:
        _logger.warning("overlapping with events of other classes: %s; left out", counted(mixed, "event"))
    return dict(found)


def _shared(event: Event, events: Iterable[Event]) -> float:
    """Seconds that an event shares with those of other classes, at most."""
    others = (e for e in events if e.label != event.label)
    return max((min(event.offset, e.offset) - max(event.onset, e.onset) for e in others), default=0.0)


def _gaps(events: Sequence[Event], duration: float) -> list[tuple[float, float]]:
    """Stretches without events, of a length that negatives have."""
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
    """Stretches that somebody listened to and that share nothing with an event."""
    return [
        (e.onset, e.offset)
        for e in heard
        if not any(min(e.offset, other.offset) > max(e.onset, other.onset) for other in events)
    ]


def from_tables(run: Path) -> dict[str, list[tuple[Path, str]]]:
    """The clips and negatives of an earlier run, as `from_folder`.

    Raises:
        AnnotationError: the folder holds no such run.
    """
    found: dict[str, dict[Path, str]] = defaultdict(dict)
    tables = sorted(run.glob("fold-*/clips.tsv"))
    if not tables:
        raise AnnotationError(run, "holds no run of teach: wanted the folder that it left beside its output")
    for table in tables:
        for row in read_rows(table, ("filename", "label", "source")):
            found[row.text("label")][Path(row.filename())] = row.text("source")
    for table in sorted(run.glob("fold-*/negatives.tsv")):
        for row in read_rows(table, ("filename", "source")):
            found[""][Path(row.filename())] = row.text("source")
    return {label: list(own.items()) for label, own in found.items()}


def collect(
    found: Mapping[str, Sequence[tuple[Path, str]]],
    *,
    sample_rate: int,
    folds: int,
    progress: Callable[[], object] = lambda: None,
) -> Collection:
    """Read all clips, leave out those of no use, and deal sources into folds.

    What cannot be read, is silent or occurs twice is left out, with a warning that names it. Further warnings
    say which classes have few clips, one source, or rates of their own.

    Args:
        found: class -> recordings and their sources; the class "" holds negatives.
        sample_rate: of the model, Hz.
        folds: wanted; fewer where no class has as many sources.
        progress: called after each clip.
    """
    clips: list[Labelled] = []
    failures: list[HtsatSedError] = []
    first: dict[str, Labelled] = {}
    for label, recordings in sorted(found.items()):
        for path, source in recordings:
            progress()
            try:
                clip = _read(path, label, source, sample_rate)
            except AudioError as error:
                failures.append(error)
                continue
            if clip is None:
                _logger.warning("%s: is silent; left out", path)
            elif (same := first.setdefault(clip.digest, clip)) is not clip:
                of = "" if same.label == label else f", which is of {same.label or 'the negatives'}"
                _logger.warning("%s: has the same samples as %s%s; left out", path, same.path, of)
            else:
                clips.append(clip)
    labels = tuple(sorted({clip.label for clip in clips} - {""}))
    dealt, count = _dealt(clips, labels, folds)
    collection = Collection(clips=dealt, labels=labels, folds=count, failures=tuple(failures))
    _warn(collection)
    return collection


def _read(path: Path, label: str, source: str, sample_rate: int) -> Labelled | None:
    """A clip with its active part; None if it is silent."""
    with open_recording(path, sample_rate) as stream:
        samples = np.concatenate([np.zeros(0, np.float32), *stream.blocks()])
        rate = stream.source_rate
    if np.abs(samples).max(initial=0.0) <= _SILENT:
        return None
    onset, offset = active_part(samples, sample_rate)
    digest = hashlib.sha256(np.round(samples * 32_767).astype(np.int16).tobytes()).hexdigest()
    duration = len(samples) / sample_rate
    return Labelled(
        path=path,
        label=label,
        source=source,
        onset=onset,
        offset=offset,
        duration=duration,
        rate=rate,
        digest=digest,
    )


def active_part(samples: NDArray[np.float32], sample_rate: int) -> tuple[float, float]:
    """Onset and offset, in seconds, of the part whose level over 50 ms comes within 30 dB of the loudest."""
    block = max(1, round(_BLOCK * sample_rate))
    padded = np.pad(samples.astype(np.float64), (0, -len(samples) % block)).reshape(-1, block)
    power = (padded**2).mean(axis=1)
    active = np.flatnonzero(power >= power.max() * 10.0 ** (-_ACTIVE_DB / 10.0))
    end = min(len(samples), (int(active[-1]) + 1) * block)
    return int(active[0]) * block / sample_rate, end / sample_rate


def _dealt(clips: Sequence[Labelled], labels: Sequence[str], folds: int) -> tuple[tuple[Labelled, ...], int]:
    """Deal sources into folds, so that each class has about as many clips in each; and the number of folds.

    A class of one source is dealt clip by clip; one of one clip is trained on always.
    """
    most = max((len({c.source for c in clips if c.label == label}) for label in labels), default=0)
    folds = max(1, min(folds, most))
    fold_of: dict[tuple[str, str], int] = {}
    loads: dict[str, Counter[int]] = {label: Counter() for label in [*labels, ""]}
    for label in [*labels, ""]:
        own = [clip for clip in clips if clip.label == label]
        by_source = Counter(_key(clip, own) for clip in own)
        for key, count in sorted(by_source.items(), key=lambda item: (-item[1], item[0])):
            if label and len(own) == 1:
                fold_of[(label, key)] = 0
                continue
            # A source that has clips of another class stays in its fold.
            known = [fold for (_, other), fold in fold_of.items() if other == key and fold]
            fold = known[0] if known else min(range(1, folds + 1), key=lambda f: (loads[label][f], f))
            fold_of[(label, key)] = fold
            loads[label][fold] += count
    dealt = [
        replace(clip, fold=fold_of[(clip.label, _key(clip, [c for c in clips if c.label == clip.label]))])
        for clip in clips
    ]
    return tuple(dealt), folds


def _key(clip: Labelled, own: Sequence[Labelled]) -> str:
    """What is dealt as one: the source, or the clip itself in a class of one source."""
    return clip.source if any(other.source != clip.source for other in own) else str(clip.path)


def _warn(collection: Collection) -> None:
    for label in collection.labels:
        own = collection.of(label)
        sources = {clip.source for clip in own}
        if len(own) == 1:
            _logger.warning("%s: one clip, which is trained on: how well it is found is unknown", label)
        elif len(sources) == 1:
            _logger.warning(
                "%s: all %d clips are of one source (%s), so that the figures below are too good",
                label,
                len(own),
                *sources,
            )
        elif len(own) < SHORT_OF_CLIPS:
            _logger.warning(
                "%s: %s of %s: 20 or more, of different recordings, work better",
                label,
                counted(len(own), "clip"),
                counted(len(sources), "source"),
            )
    rates = {label: {clip.rate for clip in collection.of(label)} for label in collection.labels}
    common = set.intersection(*rates.values()) if rates else set()
    if not common and len(rates) > 1:
        told = ", ".join(f"{label} {'/'.join(map(str, sorted(own)))}" for label, own in rates.items())
        _logger.warning(
            "the sample rates differ by class (%s Hz): a model may tell the rate rather than the sound", told
        )
    if len(collection.labels) == 1 and not collection.of(""):
        _logger.warning("there is one class and nothing else: put other sounds into a folder _background")


def write_tables(collection: Collection, folder: Path, *, without: int) -> None:
    """Write ``clips.tsv`` and, if there are any, ``negatives.tsv`` of all folds but one.

    Args:
        collection: what is written; paths are absolute.
        folder: made where it is not there.
        without: the fold that is left out; 0 for none.

    Raises:
        HtsatSedError: they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = [clip for clip in collection.clips if clip.fold == 0 or clip.fold != without]
    with whole_file(folder / "clips.tsv") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(("filename", "label", "fold", "onset", "offset", "source"))
        for clip in kept:
            if clip.label:
                times = (f"{clip.onset:.3f}", f"{max(clip.offset, clip.onset + 0.001):.3f}")
                table.writerow((clip.path.absolute(), clip.label, max(1, clip.fold), *times, clip.source))
    if negatives := [clip for clip in kept if not clip.label]:
        with whole_file(folder / "negatives.tsv") as file:
            table = csv.writer(file, delimiter="\t", lineterminator="\n")
            table.writerow(("filename", "event_labels", "fold", "source"))
            rows = ((clip.path.absolute(), "", max(1, clip.fold), clip.source) for clip in negatives)
            table.writerows(rows)
    else:
        (folder / "negatives.tsv").unlink(missing_ok=True)  # of a run with other clips
