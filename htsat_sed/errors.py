"""The errors that this package raises.

A caller's mistake, such as a value out of range, is a `UsageError`, which is a `ValueError`. An environment
error, such as an unreadable file or a broken checkpoint, is an `HtsatSedError`, whose message begins with
the path:

    HtsatSedError
    ├── AudioError        a recording that cannot be read
    ├── CheckpointError   a checkpoint that cannot be loaded, saved or downloaded
    └── AnnotationError   a table of labels or events, or a presence map file, that cannot be read
"""

from __future__ import annotations

import os

_LONGEST = 2000  # characters of a message; a hostile file's own text can be of any length


def one_line(text: str) -> str:
    """A message on one line and of a bounded length: libraries and files put line breaks into theirs."""
    line = " ".join(part for part in (part.strip() for part in text.splitlines()) if part)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


class UsageError(ValueError):
    """A caller's mistake: what was wanted, what was given, how to mend it, on one line.

    A `ValueError` of any other class is a bug in this package or in a library.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class HtsatSedError(Exception):
    """Base of every environment error that this package raises.

    Args:
        path: the file, folder or address concerned.
        reason: what is wrong with it and how to mend it; joined into one line if it has several.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.path = os.fspath(path)
        self.reason = one_line(reason)
        super().__init__(f"{self.path}: {self.reason}")

    def __reduce__(self) -> tuple[type[HtsatSedError], tuple[str, str]]:
        """Pickle by the two arguments, so that a worker process can hand the error over."""
        return type(self), (self.path, self.reason)


class AudioError(HtsatSedError):
    """A recording cannot be opened, decoded, or holds no audio."""


class CheckpointError(HtsatSedError):
    """A checkpoint is missing, broken, of an unknown kind, or not fit for the purpose."""


class AnnotationError(HtsatSedError):
    """A file of labels, events or presence maps is missing or malformed."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun, for messages: ``1 clip``, ``2 clips``, ``3 classes``.

    Args:
        number: how many.
        noun: in the singular.
        plural: if it is more than the noun with an s.
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
