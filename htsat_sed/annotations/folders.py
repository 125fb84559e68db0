"""Paths of files for formats with one file per recording."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePath

from htsat_sed.errors import AnnotationError


def path_of(folder: str | os.PathLike[str], filename: str, suffix: str) -> Path:
    """The file of one recording: its relative path, including its suffix, and a further suffix.

    ``path_of("out", "day1/street.wav", ".txt")`` is ``out/day1/street.wav.txt``, so that ``street.wav`` and
    ``street.flac`` do not share a file. It is always in the folder: the root of an absolute path is removed,
    and ``..`` becomes ``_``.
    """
    name = PurePath(filename)
    parts = ["_" if part == ".." else part for part in name.parts if part != name.anchor]
    return Path(folder, *parts[:-1], (parts[-1] if parts else "_") + suffix)


def files_below(folder: str | os.PathLike[str], *suffixes: str) -> Iterator[Path]:
    """All files in a folder and its subfolders with one of the suffixes, in any case, sorted.

    Raises:
        AnnotationError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise AnnotationError(folder, "is not a folder")
    endings = tuple(suffix.lower() for suffix in suffixes)
    for path in sorted(Path(folder).rglob("*")):
        if path.name.lower().endswith(endings) and path.is_file():
            yield path
