"""Labelled clips as sources of events: what `soundscapes` cuts events from."""

from __future__ import annotations

import csv
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from htsat_sed.annotations import read_strong_labels
from htsat_sed.audio import read
from htsat_sed.errors import AnnotationError, AudioError

_logger = logging.getLogger("htsat_sed")

COLUMNS = ("filename", "label", "fold", "onset", "offset")


@dataclass(frozen=True, eq=False)
class Source:
    """A recording with the places where its class is active.

    Attributes:
        samples: int16, to hold a data set in memory.
        label: class.
        spans: (n, 2) onsets and offsets in seconds.
    """

    samples: NDArray[np.int16]
    label: str
    spans: NDArray[np.float64]


def read_clips(folder: Path, *, sample_rate: int, folds: Collection[int]) -> list[Source]:
    """Read clips of one class each: ``clips.tsv`` below a folder, recordings in its ``audio/``.

    A missing or broken recording is reported once and left out.

    Args:
        folder: the data set.
        sample_rate: Hz.
        folds: only clips of these.

    Raises:
        AnnotationError: the table is missing or malformed.
    """
    table = folder / "clips.tsv"
    sources: list[Source] = []
    for line, row in enumerate(_rows(table), start=2):
        try:
            fold, onset, offset = int(row["fold"]), float(row["onset"]), float(row["offset"])
        except (TypeError, ValueError) as error:
            raise AnnotationError(table, f"line {line}: wanted numbers as fold, onset and offset") from error
        if fold not in folds:
            continue
        samples = _samples(folder / "audio" / row["filename"], sample_rate)
        if samples is not None:
            sources.append(Source(samples, row["label"], np.array([[onset, offset]])))
    return sources


def read_strong(folder: Path, *, sample_rate: int, folds: Collection[int], of: int) -> list[Source]:
    """Read strongly labelled recordings: ``speech.tsv`` below a folder, paths relative to it.

    Args:
        folder: the data set; without that table there are none.
        sample_rate: Hz.
        folds: only these of the folds.
        of: number of folds; recording i, in the order of names, belongs to fold i % of + 1.
    """
    table = folder / "speech.tsv"
    if not table.exists():
        return []
    sources: list[Source] = []
    for i, (name, events) in enumerate(sorted(read_strong_labels(table).items())):
        if i % of + 1 not in folds:
            continue
        samples = _samples(folder / name, sample_rate)
        for label in sorted({event.label for event in events}):
            if samples is not None:
                spans = [(event.onset, event.offset) for event in events if event.label == label]
                sources.append(Source(samples, label, np.array(spans)))
    return sources


def _rows(table: Path) -> list[dict[str, str]]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t")
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise AnnotationError(
                    table, f"wanted columns {', '.join(COLUMNS)}; lacks {', '.join(missing)}"
                )
            return list(reader)
    except OSError as error:
        raise AnnotationError(table, f"cannot be read: {error.strerror}") from error


def _samples(path: Path, sample_rate: int) -> NDArray[np.int16] | None:
    try:
        samples = read(path, sample_rate)
    except AudioError as error:
        _logger.warning("%s: %s; left out", error.path, error.reason)
        return None
    return np.round(samples.clip(-1.0, 1.0) * 32_767).astype(np.int16)
