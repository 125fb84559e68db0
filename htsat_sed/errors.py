"""What can go wrong outside the caller's code, as one tree.

A mistake of the caller (a wrong argument) is a `ValueError`; the state of the world (an unreadable
file, a broken checkpoint) is an `HtsatSedError`, whose message begins with the path it is about:

    HtsatSedError
    ├── AudioError        a recording that cannot be read
    ├── CheckpointError   a checkpoint that cannot be loaded, saved or downloaded
    └── AnnotationError   a table of labels or events, or a presence map file, that cannot be read
"""

from __future__ import annotations

import os


class HtsatSedError(Exception):
    """Base of every error this package raises about the world.

    Args:
        path: the file, folder or address concerned.
        reason: what is wrong with it and how to mend it, one line.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.path = os.fspath(path)
        self.reason = reason
        super().__init__(f"{self.path}: {reason}")

    def __reduce__(self) -> tuple[type[HtsatSedError], tuple[str, str]]:
        """Pickle by the two arguments, so that a worker process can hand the error over."""
        return type(self), (self.path, self.reason)


class AudioError(HtsatSedError):
    """A recording cannot be opened, decoded, or holds no audio."""


class CheckpointError(HtsatSedError):
    """A checkpoint is missing, broken, of an unknown kind, or not fit for the purpose."""


class AnnotationError(HtsatSedError):
    """A file of labels, events or presence maps is missing or malformed."""
