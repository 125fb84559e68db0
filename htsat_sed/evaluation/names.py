"""Matching of the names of recordings in two tables.

Tables, folders of label files and folders of audio may name a recording ``street.wav``, ``street`` (a label
file ``street.txt`` lacks the audio suffix) or ``day1/street.flac``. Names match, in this order, if they are

1. equal;
2. equal except for the audio suffix: ``street`` and ``street.wav``;
3. equal except for the suffix and leading folders: ``day1/street`` and ``audio/day1/street.wav``, but not
   ``day1/street`` and ``day2/street``.

Unicode composition and surrounding whitespace are ignored. A name that matches several others is an error. A
name matched by an earlier rule is not matched again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import PurePosixPath

from htsat_sed.audio import AUDIO_SUFFIXES
from htsat_sed.errors import UsageError
from htsat_sed.labels import normal

_Parts = tuple[str, ...]


def matching_names(ours: Collection[str], theirs: Collection[str]) -> dict[str, str]:
    """Match two sets of names.

    Args:
        ours: names, such as those of the reference.
        theirs: other names.

    Returns:
        Their name -> our name, for matching names; each of ours at most once.

    Raises:
        ValueError: a name matches several others.
    """
    known = set(ours)
    composed = {normal(name): name for name in known}
    found = {name: name for name in theirs if name in known}
    taken = set(found.values())
    for name in sorted(set(theirs) - set(found)):
        if (our := composed.get(normal(name))) is not None and our not in taken:
            found[name] = our
            taken.add(our)
    by_last: dict[str, list[str]] = {}
    parts = {name: _parts(name) for name in known.union(theirs)}
    for name in sorted(known):
        by_last.setdefault(parts[name][-1], []).append(name)
    rules: tuple[Callable[[_Parts, _Parts], bool], ...] = (lambda a, b: a == b, _ends)
    for rule in rules:
        taken, new = set(found.values()), dict[str, str]()
        for their in sorted(set(theirs) - set(found)):
            fitting = [our for our in by_last.get(parts[their][-1], ()) if rule(parts[our], parts[their])]
            if len(fitting) > 1:
                raise _ambiguous(their, fitting)
            if fitting and fitting[0] not in taken:
                if fitting[0] in new.values():
                    raise _ambiguous(fitting[0], [n for n, our in new.items() if our == fitting[0]] + [their])
                new[their] = fitting[0]
        found |= new
    return found


def _parts(name: str) -> _Parts:
    """Folders, and the name without its audio suffix."""
    path = PurePosixPath(normal(name).replace("\\", "/"))
    stem = path.stem if path.suffix.lower() in AUDIO_SUFFIXES else path.name
    folders = [part for part in path.parts[:-1] if part != "/"]
    return (*folders, stem)


def _ends(one: _Parts, other: _Parts) -> bool:
    """Whether the longer of two paths ends with the other."""
    length = min(len(one), len(other))
    return one[-length:] == other[-length:]


def _ambiguous(name: str, fitting: Iterable[str]) -> UsageError:
    first, second, *_ = fitting
    return UsageError(
        f"a name matches several recordings: {name!r} could be {first!r} or {second!r}: use the same names "
        "on both sides"
    )
