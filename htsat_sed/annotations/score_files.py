"""Presence maps as score files: one TSV per recording, as written by sed_scores_eval and in DCASE.

    onset   offset  Dog     Speech
    0.0     0.3125  0.031   0.912
    0.3125  0.625   0.027   0.931

There is one row per token, with times in seconds; all tokens except the last have the same duration. The file
is named after the recording, without its audio suffix. Scores have enough digits to round-trip as float32.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePath

import numpy as np

from htsat_sed.annotations.folders import files_below, path_of
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.errors import AnnotationError
from htsat_sed.labels import normal
from htsat_sed.whole_file import make_folder, whole_file

SUFFIX = ".tsv"
_EDGES = ["onset", "offset"]
_SLACK = 0.1  # rounding tolerance of times, in tokens


def write_score_file(folder: str | os.PathLike[str], filename: str, presence_map: PresenceMap) -> Path:
    """Write the scores of one recording.

    Args:
        folder: created if missing.
        filename: name of the recording; its folders are kept, its audio suffix is removed.
        presence_map: the presence map.

    Returns:
        Path of the file.

    Raises:
        HtsatSedError: the file cannot be written.
    """
    path = path_of(folder, str(PurePath(filename).with_suffix("")), SUFFIX)
    make_folder(path.parent)
    edges = np.minimum(
        np.arange(len(presence_map.scores) + 1) * presence_map.token_seconds, presence_map.duration
    )
    with whole_file(path) as file:
        file.write("\t".join([*_EDGES, *presence_map.labels]) + "\n")
        rows = zip(edges[:-1].tolist(), edges[1:].tolist(), presence_map.scores, strict=True)
        for onset, offset, scores in rows:
            file.write("\t".join([repr(onset), repr(offset), *(str(score) for score in scores)]) + "\n")
    return path


def is_score_file(path: Path) -> bool:
    """Whether a file begins like a score file: columns onset and offset, then classes."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            names = file.readline().rstrip("\r\n").split("\t")
    except OSError:
        return False
    return names[:2] == _EDGES and len(names) > 2 and not {"filename", "event_label"} & set(names)


def read_score_file(path: str | os.PathLike[str]) -> PresenceMap:
    """Read the scores of one recording.

    Raises:
        AnnotationError: the file cannot be read, a cell is not a number, a score is outside [0, 1], or tokens
            have different durations or gaps.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as file:
            header = file.readline().rstrip("\n").split("\t")
            rows = [line for line in file if line.strip()]
    except OSError as error:
        raise AnnotationError(path, f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise AnnotationError(path, f"is not a score file: {error}") from error
    if header[:2] != _EDGES or len(header) < 3 or not rows:
        raise AnnotationError(path, "wanted columns onset, offset and one per class, and one row per token")
    try:
        table = np.loadtxt(rows, delimiter="\t", comments=None, ndmin=2)
    except ValueError as error:
        raise AnnotationError(path, f"is not a score file: {error}") from error
    if table.shape[1] != len(header):
        raise AnnotationError(path, f"has {table.shape[1]} columns below a header of {len(header)}")
    onset, offset, scores = table[:, 0], table[:, 1], table[:, 2:]
    if not (np.isfinite(onset).all() and np.isfinite(offset).all() and (offset > onset).all()):
        raise AnnotationError(path, "wanted every offset after its onset")
    step = float(offset[0]) if len(onset) == 1 else float(onset[-1] / (len(onset) - 1))
    edges = np.arange(len(onset)) * step
    even = np.abs(onset - edges) <= _SLACK * step
    even &= np.abs(np.append(onset[1:], offset[-1]) - offset) <= _SLACK * step
    if not (step > 0.0 and even.all() and offset[-1] - edges[-1] <= (1.0 + _SLACK) * step):
        row = int(np.argmin(even)) + 2
        raise AnnotationError(path, f"line {row}: wanted tokens of equal duration from 0 s on, without gaps")
    if not ((scores >= 0.0) & (scores <= 1.0)).all():
        raise AnnotationError(path, "has scores that are missing or outside [0, 1]")
    labels = tuple(normal(label) for label in header[2:])
    duration = min(float(offset[-1]), len(onset) * step)
    return PresenceMap(scores.astype(np.float32), labels, step, duration)


def read_score_files(folder: str | os.PathLike[str]) -> Iterator[tuple[str, PresenceMap]]:
    """Read all score files in a folder and its subfolders, sorted by path; other TSVs are ignored.

    Yields:
        The name of the recording, which is the relative path without suffix, and its scores.

    Raises:
        AnnotationError: the folder does not exist, or as for `read_score_file`.
    """
    for path in files_below(folder, SUFFIX):
        if is_score_file(path):
            yield path.relative_to(folder).with_suffix("").as_posix(), read_score_file(path)
