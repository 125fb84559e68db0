"""From the paths on a command line to recordings and their names in tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from htsat_sed.errors import AudioError, HtsatSedError

STDIN = "-"


@dataclass(frozen=True)
class Recording:
    """A recording to read.

    Attributes:
        path: where it is; ``-`` for standard input.
        name: what it is called in tables: its path below the folder that was given, or its file name.
    """

    path: str
    name: str


def find_all(paths: Sequence[str]) -> tuple[list[Recording], list[HtsatSedError]]:
    """Find the recordings that the paths of a command line stand for.

    Args:
        paths: files, folders (searched with all below them) and ``-``.

    Returns:
        Recordings, each file once, in the order given; and an error for each folder without any.
        Recordings that would share a name are called by their path instead.
    """
    from htsat_sed.audio import find_recordings

    found: dict[str, Recording] = {}
    failures: list[HtsatSedError] = []
    for path in paths:
        if path == STDIN:
            found[path] = Recording(path, "stdin")
        elif Path(path).is_dir():
            below = list(find_recordings(path))
            if not below:
                failures.append(AudioError(path, "holds no recordings: no file here has an audio suffix"))
            for file in below:
                recording = Recording(str(file), Path(file).relative_to(path).as_posix())
                found.setdefault(recording.path, recording)
        else:
            found.setdefault(path, Recording(path, Path(path).name))
    shared = Counter(recording.name for recording in found.values())
    recordings = [
        recording
        if shared[recording.name] == 1
        else Recording(recording.path, Path(recording.path).as_posix())
        for recording in found.values()
    ]
    return recordings, failures
