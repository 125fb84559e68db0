"""Clips of own classes: reads and checks them, splits them into folds and writes the tables for training.

All clips of a source go into the same fold. Otherwise a model could recognise the recording instead of the
class, and its validation scores would be too high. `clip_sources` finds clips and their sources.
"""

from __future__ import annotations

import csv
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from htsat_sed.audio import open_recording
from htsat_sed.errors import AudioError, HtsatSedError, counted
from htsat_sed.whole_file import whole_file

_logger = logging.getLogger("htsat_sed")

SHORT_OF_CLIPS = 10
_BLOCK = 0.05  # seconds over which the level is measured
_ACTIVE_DB = 30.0  # an active block is at most this far below the loudest one
_SILENT = 1e-4  # largest absolute sample of a silent clip: -80 dB of full scale


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A clip of a class, or a negative: a clip in which no class is present.

    Attributes:
        path: audio file of the clip.
        label: class; empty for a negative.
        source: recording that the clip comes from; all clips of a source are in one fold.
        onset: start of the active part, seconds.
        offset: end of the active part, seconds.
        duration: duration of the clip, seconds.
        rate: sample rate of the file, Hz.
        digest: SHA-256 of the samples at the model's sample rate, hexadecimal.
        fold: fold of the clip, from 1; 0 if the clip is in the training data of every fold.
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
    """The clips that a model is taught with.

    Attributes:
        clips: clips of all classes, and negatives.
        labels: classes, sorted.
        folds: number of folds; 1 if there are too few sources to validate.
        failures: errors of the clips that could not be read.
    """

    clips: tuple[Labelled, ...]
    labels: tuple[str, ...]
    folds: int
    failures: tuple[HtsatSedError, ...] = ()

    def of(self, label: str) -> list[Labelled]:
        """Return the clips of a class, or the negatives if `label` is empty."""
        return [clip for clip in self.clips if clip.label == label]


def collect(
    found: Mapping[str, Sequence[tuple[Path, str]]],
    *,
    sample_rate: int,
    folds: int,
    progress: Callable[[], object] = lambda: None,
) -> Collection:
    """Read all clips, drop unusable ones and split the sources into folds.

    Unreadable clips are dropped and returned as failures. Silent clips and clips with the same samples as an
    earlier one are dropped with a warning. Further warnings name classes with few clips or a single source,
    and report sample rates that differ by class.

    Args:
        found: maps a class to the paths of its clips and their sources, as `clip_sources` returns them; the
            class "" holds negatives.
        sample_rate: sample rate of the model, Hz.
        folds: wanted number of folds, at least 1; reduced if no class has as many sources.
        progress: called once for each clip, before it is read.

    Returns:
        The clips with their folds.
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
    """Read a clip and find its active part; return None if the clip is silent.

    Raises:
        AudioError: the clip cannot be read.
    """
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
    """Find the part of a clip between its first and last active 50 ms block.

    A block is active if its level is at most 30 dB below that of the loudest block.

    Args:
        samples: (n,) mono samples, at least one.
        sample_rate: sample rate, Hz.

    Returns:
        Onset and offset of the active part, seconds.
    """
    block = max(1, round(_BLOCK * sample_rate))
    padded = np.pad(samples.astype(np.float64), (0, -len(samples) % block)).reshape(-1, block)
    power = (padded**2).mean(axis=1)
    active = np.flatnonzero(power >= power.max() * 10.0 ** (-_ACTIVE_DB / 10.0))
    end = min(len(samples), (int(active[-1]) + 1) * block)
    return int(active[0]) * block / sample_rate, end / sample_rate


def _dealt(clips: Sequence[Labelled], labels: Sequence[str], folds: int) -> tuple[tuple[Labelled, ...], int]:
    """Split sources into folds, so that each fold has about the same number of clips of each class.

    A class with a single source is split clip by clip. The only clip of a class gets fold 0.

    Returns:
        The clips with their folds, and the number of folds.
    """
    most = max((len({c.source for c in clips if c.label == label}) for label in labels), default=0)
    folds = max(1, min(folds, most))
    fold_of: dict[tuple[str, str], int] = {}
    loads: dict[str, Counter[int]] = {label: Counter() for label in [*labels, ""]}
    key_of: dict[Path, str] = {}
    for label in [*labels, ""]:
        own = [clip for clip in clips if clip.label == label]
        several = len({clip.source for clip in own}) > 1
        # The unit that gets a fold is the source, or the clip if its class has a single source.
        key_of |= {clip.path: clip.source if several else str(clip.path) for clip in own}
        by_source = Counter(key_of[clip.path] for clip in own)
        for key, count in sorted(by_source.items(), key=lambda item: (-item[1], item[0])):
            if label and len(own) == 1:
                fold_of[(label, key)] = 0
                continue
            # A source with clips of several classes stays in one fold.
            known = [fold for (_, other), fold in fold_of.items() if other == key and fold]
            fold = known[0] if known else min(range(1, folds + 1), key=lambda f: (loads[label][f], f))
            fold_of[(label, key)] = fold
            loads[label][fold] += count
    return tuple(replace(clip, fold=fold_of[(clip.label, key_of[clip.path])]) for clip in clips), folds


def _warn(collection: Collection) -> None:
    for label in collection.labels:
        own = collection.of(label)
        sources = {clip.source for clip in own}
        if len(own) == 1:
            _logger.warning(
                "%s: only one clip, used for training: its accuracy is unknown, its threshold not tuned",
                label,
            )
        elif len(sources) == 1:
            _logger.warning(
                "%s: all %d clips are of one source (%s), so the figures below are too high",
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
            "the sample rates differ by class (%s Hz): a model may learn the rate rather than the sound", told
        )
    if len(collection.labels) == 1 and not collection.of(""):
        _logger.warning(
            "there is one class and nothing else: put other sounds into a folder named _background"
        )


def write_tables(collection: Collection, folder: Path, *, without: int) -> None:
    """Write ``clips.tsv`` and, if there are negatives, ``negatives.tsv``; both with absolute paths.

    Args:
        collection: clips to write.
        folder: output folder; created if missing.
        without: fold to leave out; 0 writes all folds.

    Raises:
        HtsatSedError: a table cannot be written.
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
        (folder / "negatives.tsv").unlink(missing_ok=True)  # left by an earlier run
