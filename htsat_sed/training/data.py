"""Reading labelled clips from the tables and recordings of a data set."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from htsat_sed.annotations import read_events, read_negatives, read_strong_labels, read_weak_labels
from htsat_sed.annotations.text import number
from htsat_sed.audio import find_recordings
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError
from htsat_sed.labels import audioset_codes, normal
from htsat_sed.segments.export import locate
from htsat_sed.training.clip_sources import from_folder
from htsat_sed.training.recipe import TABLES, DataRecipe

_logger = logging.getLogger("htsat_sed")

CLIP_COLUMNS = ("filename", "label", "fold", "onset", "offset")
ESC50_COLUMNS = ("filename", "fold", "category")
_SPEECH_COMMANDS_LISTS = ("validation_list.txt", "testing_list.txt")


@dataclass(frozen=True)
class Clip:
    """A recording with weak or strong labels.

    Attributes:
        path: audio file.
        labels: classes that are present.
        events: events, in seconds from the start of the recording; None if labels are weak.
        fold: fold, from 1; None if the table has no folds.
        unknown: classes that may or may not be present; the loss ignores them.
    """

    path: Path
    labels: frozenset[str]
    events: tuple[Event, ...] | None = None
    fold: int | None = None
    unknown: frozenset[str] = frozenset()


def read_clips(part: DataRecipe, folder: Path, *, fold_count: int) -> list[Clip]:
    """Read the clips of a part of the data; a warning reports recordings that are missing.

    Args:
        part: table, folder of recordings and folds to read.
        folder: folder that the paths of `part` are relative to.
        fold_count: number of folds of tables without a fold column, see `DataRecipe.folds`.

    Returns:
        The clips whose recordings exist; none for distractors.

    Raises:
        AnnotationError: the table is missing or malformed, has none of the wanted folds, or none of its
            recordings exists.
        AudioError: the folder of recordings is needed to find them but cannot be listed.
    """
    if part.kind == "distractors":
        return []
    table = folder / (part.table or TABLES.get(part.kind, ""))
    audio = folder / part.audio
    if part.kind in _DEALT:
        clips = list(_DEALT[part.kind](table, audio, fold_count))
    else:
        clips = list(_READERS[part.kind](table, audio))
    if part.folds:
        known = sorted({clip.fold for clip in clips if clip.fold is not None})
        if not set(known) & set(part.folds):
            has = f"folds {_listed(known)}" if known else "no folds"
            raise AnnotationError(table, f"wanted recordings of folds {_listed(part.folds)}, it has {has}")
        clips = [clip for clip in clips if clip.fold in part.folds]
    clips = _as_spelt(clips, audio)
    there = [clip for clip in clips if clip.path.is_file()]
    absent = [clip.path.name for clip in clips if not clip.path.is_file()]
    if not there:
        of = f" of folds {_listed(part.folds)}" if part.folds else ""
        raise AnnotationError(table, f"none of its {len(clips)} recordings{of} is below {audio}")
    if absent:
        names = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        _logger.warning("%s: %d of its %d recordings missing: %s", table, len(absent), len(clips), names)
    return there


def _as_spelt(clips: list[Clip], audio: Path) -> list[Clip]:
    """Correct paths that differ from the files' names only in Unicode normalisation or white space."""
    if all(clip.path.is_file() for clip in clips) or not audio.is_dir():
        return clips
    spelt = {normal(path.relative_to(audio).as_posix()): path for path in audio.rglob("*")}

    def found(path: Path) -> Path:
        below = path.is_relative_to(audio) and not path.is_file()
        return spelt.get(normal(path.relative_to(audio).as_posix()), path) if below else path

    return [replace(clip, path=found(clip.path)) for clip in clips]


def _listed(folds: Iterable[object]) -> str:
    return ", ".join(map(str, folds))


def _weak(table: Path, audio: Path) -> Iterator[Clip]:
    for name, labels in read_weak_labels(table).items():
        yield Clip(audio / name, frozenset(labels))


def _strong(table: Path, audio: Path, fold_count: int) -> Iterator[Clip]:
    for i, (name, events) in enumerate(sorted(read_strong_labels(table).items())):
        labels = frozenset(event.label for event in events)
        yield Clip(audio / name, labels, tuple(events), i % fold_count + 1)


def _labels(table: Path, audio: Path, fold_count: int) -> Iterator[Clip]:
    """Read labels of any format; `locate` finds the recordings."""
    events = read_events(table)
    located, missing = locate(list(events), audio)
    for error in missing:
        _logger.warning("%s; left out", error)
    if not located:
        raise AnnotationError(table, f"none of its {len(events)} recordings is below {audio}")
    for i, (name, path) in enumerate(sorted(located.items())):
        own = events[name]
        yield Clip(path, frozenset(event.label for event in own), tuple(own), i % fold_count + 1)


def _folders(_: Path, audio: Path, fold_count: int) -> Iterator[Clip]:
    """Read a folder of clips for each class; negatives get strong labels without events."""
    for label, paths in from_folder(audio).items():
        number = {source: i for i, source in enumerate(sorted({source for _, source in paths}))}
        for path, source in paths:
            fold = number[source] % fold_count + 1
            yield Clip(path, frozenset([label]), None, fold) if label else Clip(path, frozenset(), (), fold)


def _clips(table: Path, audio: Path) -> Iterator[Clip]:
    for line, row in _rows(table, CLIP_COLUMNS, delimiter="\t"):
        onset, offset = (number(table, line, name, row[name] or "") for name in ("onset", "offset"))
        if not onset < offset:
            raise AnnotationError(table, f"line {line}: wanted 0 <= onset < offset")
        event = Event(onset, offset, normal(row["label"] or ""))
        fold = _fold(table, line, row["fold"])
        yield Clip(audio / row["filename"].strip(), frozenset([event.label]), (event,), fold)


def _negatives(table: Path, audio: Path) -> Iterator[Clip]:
    """Read negatives; a label in the table counts as an event over the whole recording."""
    for name, row in read_negatives(table).items():
        events = tuple(Event(0.0, math.inf, label) for label in sorted(row.present))
        yield Clip(audio / name, row.present, events, row.fold, row.possible)


def _esc50(table: Path, audio: Path) -> Iterator[Clip]:
    for line, row in _rows(table, ESC50_COLUMNS, delimiter=","):
        label = normal(row["category"] or "")
        yield Clip(audio / row["filename"].strip(), frozenset([label]), fold=_fold(table, line, row["fold"]))


def _fold(table: Path, line: int, text: str | None) -> int:
    plain = (text or "").strip()
    if not (plain.isascii() and plain.isdigit() and len(plain) < 10):
        raise AnnotationError(table, f"line {line}: wanted a number as fold, got {plain!r:.40}")
    return int(plain)


def _speech_commands(table: Path, audio: Path) -> Iterator[Clip]:
    """Read a list of paths such as ``yes/0a7c2a8d_nohash_0.wav``.

    A folder as table gives all recordings that the lists of validation and test recordings do not name.
    """
    if table.is_dir():
        listed = {name for lst in _SPEECH_COMMANDS_LISTS for name in _lines(table / lst)}
        found = (path.relative_to(audio).as_posix() for path in _recordings(audio))
        names = [name for name in found if name not in listed and not name.startswith("_")]
    else:
        names = _lines(table)
    for name in names:
        yield Clip(audio / name, frozenset([normal(Path(name).parent.name)]))


def _audioset(table: Path, audio: Path) -> Iterator[Clip]:
    """Read AudioSet's CSV: video ID, start and end in seconds, and quoted class codes.

    A recording's name is the video ID with an optional ``Y`` before it, alone or followed by the start in
    seconds or milliseconds.
    """
    by_stem = {path.stem.removeprefix("Y"): path for path in _recordings(audio)}
    by_code = audioset_codes()
    for line, row in enumerate(_text(table).splitlines(), start=1):
        if not row.strip() or row.startswith("#"):
            continue
        cells = next(csv.reader([row], skipinitialspace=True))
        try:
            video, start, _, codes = cells
            labels = frozenset(by_code[code.strip()] for code in codes.split(","))
            stems = [video, f"{video}_{round(float(start))}", f"{video}_{round(1000 * float(start))}"]
        except ValueError as error:
            raise AnnotationError(table, f"line {line}: wanted video, start, end and codes") from error
        except KeyError as error:
            raise AnnotationError(table, f"line {line}: {error.args[0]} is not an AudioSet code") from error
        stems = [stem.removeprefix("Y") for stem in stems]
        path = next((by_stem[stem] for stem in stems if stem in by_stem), audio / f"{video}.wav")
        yield Clip(path, labels)


_DEALT: dict[str, Callable[[Path, Path, int], Iterator[Clip]]] = {
    "strong": _strong,
    "labels": _labels,
    "folders": _folders,
}
_READERS: dict[str, Callable[[Path, Path], Iterator[Clip]]] = {
    "weak": _weak,
    "clips": _clips,
    "esc50": _esc50,
    "speech-commands": _speech_commands,
    "audioset": _audioset,
    "negatives": _negatives,
}


def _rows(table: Path, columns: tuple[str, ...], *, delimiter: str) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(_text(table).splitlines(), delimiter=delimiter)
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise AnnotationError(table, f"wanted columns {', '.join(columns)}; lacks {', '.join(missing)}")
    return enumerate(reader, start=2)


def _recordings(folder: Path) -> list[Path]:
    found, closed = find_recordings(folder)
    for error in closed:
        _logger.warning("%s; left out", error)
    return found


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in _text(path).splitlines() if line.strip()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise AnnotationError(path, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AnnotationError(path, "is not UTF-8 text") from error
