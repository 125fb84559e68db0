"""Finds the recordings of the paths on a command line, and their names in tables."""

from __future__ import annotations

import codecs
import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path, PurePath

from htsat_sed.errors import AudioError, HtsatSedError
from htsat_sed.remote import is_remote, is_web, shown

STDIN = "-"
LIST = "@"

_UNTIDY = re.compile(r"(^\.|/\.?)(/|$)")


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording to read.

    Attributes:
        path: path or address, such as ``s3://archive/a.wav``; ``-`` for standard input.
        name: name in tables: the path relative to the given folder or to the fixed part of a pattern, or the
            path in a list; otherwise the file name.
    """

    path: str
    name: str

    @property
    def listed(self) -> str:
        """What it is called in a list of failures: of a web address all but what may be a key."""
        return shown(self.path) if is_web(self.path) else self.name


def find_all(
    paths: Sequence[str], *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> tuple[list[Recording], list[HtsatSedError]]:
    """Find the recordings of the paths on a command line.

    A path that exists is taken literally. Otherwise, a path that begins with ``@`` is a list file, and one
    with ``*``, ``?`` or ``[`` is a pattern, in which ``**`` matches any number of folders. Patterns and
    folders yield files with an audio suffix; a pattern that ends in a suffix (``*.dat``) yields files with
    that suffix.

    Args:
        paths: files, folders (searched recursively), patterns, list files and ``-``.
        include: keep only files in folders or patterns that match one of these (see `_fits`); all if empty.
        exclude: leave out files in folders or patterns that match one of these.

    Returns:
        Recordings, each file once, in the given order; and an error for each path without any, and for each
        folder that cannot be listed. Recordings whose names would coincide are named by their path, or by
        their absolute path.
    """

    def kept(name: str) -> bool:
        return is_kept(name, include, exclude)

    found: set[str] = set()
    recordings: list[Recording] = []
    failures: list[HtsatSedError] = []
    here = Path.cwd()
    for recording in _expand(paths, kept, failures):
        key = _key(recording.path, f"{here}{os.sep}")
        if key not in found:
            found.add(key)
            recordings.append(recording)
    del found
    for longer in (Path(), here):  # a path may equal another recording's name
        shared = Counter(recording.name for recording in recordings)
        recordings = [
            Recording(each.path, _longer(longer, each.path)) if shared[each.name] > 1 else each
            for each in recordings
        ]
    return recordings, failures


def _key(path: str, here: str) -> str:
    """Equal for paths of one file; `here` is the current folder with a separator at its end.

    Usually the path itself, since copies of a million paths would take 0.1 GB.
    """
    return os.path.normcase(_normal(path).removeprefix(here))


def _normal(path: str) -> str:
    """A path without doubled separators and without ``.`` as a folder, as `PurePath` has it, but faster."""
    plain = os.sep == "/" and _UNTIDY.search(path) is None
    return path if plain or is_remote(path) else str(PurePath(path))


def is_kept(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a recording matches an `include` pattern, or there are none, and no `exclude` pattern."""
    return (not include or any(_fits(name, pattern) for pattern in include)) and not any(
        _fits(name, pattern) for pattern in exclude
    )


def _longer(folder: Path, path: str) -> str:
    """A longer name for a recording whose short name is not unique."""
    return shown(path) if is_remote(path) else (folder / path).as_posix()


def files_read(paths: Sequence[str], recordings: Sequence[Recording]) -> list[str]:
    """List files among the paths of a command line, and the recordings found."""
    lists = [path.removeprefix(LIST) for path in paths if path.startswith(LIST) and not os.path.lexists(path)]
    return lists + [recording.path for recording in recordings]


def _expand(
    paths: Sequence[str], kept: Callable[[str], bool], failures: list[HtsatSedError]
) -> Iterator[Recording]:
    for path in paths:
        if path == STDIN:
            yield Recording(path, "stdin")
        elif is_remote(path):
            yield from _remote(path, kept, failures)
        elif os.path.lexists(path):
            yield from _existing(path, kept, failures)
        elif path == LIST:
            failures.append(AudioError(path, "is not a list file: write @ followed by its path"))
        elif path.startswith(LIST):
            yield from _listed(Path(path.removeprefix(LIST)), kept, failures)
        elif glob.has_magic(path):
            yield from _fitting(path, kept, failures)
        else:
            yield Recording(path, Path(path).name)  # reported when it is opened


def _existing(path: str, kept: Callable[[str], bool], failures: list[HtsatSedError]) -> Iterator[Recording]:
    """The file itself, or the recordings in a folder."""
    from htsat_sed.audio import find_recordings

    if not os.path.isdir(path):  # noqa: PTH112, Path.is_dir raises where a folder above is closed
        yield Recording(path, Path(path).name)
        return
    try:
        below, closed = find_recordings(path)
    except AudioError as error:
        failures.append(error)
        return
    failures += closed
    recordings = [Recording(str(file), file.relative_to(path).as_posix()) for file in below]
    left = [recording for recording in recordings if kept(recording.name)]
    if recordings and not left:
        failures.append(
            AudioError(path, f"holds {len(below)} recordings, all left out by --include, --exclude")
        )
    elif not left and not closed:
        failures.append(AudioError(path, "holds no recordings: no file here has an audio suffix"))
    yield from left


def _remote(address: str, kept: Callable[[str], bool], failures: list[HtsatSedError]) -> Iterator[Recording]:
    """The remote file itself, or the recordings in a remote folder or of a pattern."""
    from htsat_sed.audio import has_audio_suffix
    from htsat_sed.remote import RemoteError, find_below, name_of

    try:
        found = find_below(address)
    except RemoteError as error:
        failures.append(AudioError(error.path, error.reason))
        return
    if [place for place, _ in found] == [address]:
        yield Recording(address, name_of(address))
        return
    audio = [Recording(place, name) for place, name in found if has_audio_suffix(name)]
    left = [recording for recording in audio if kept(recording.name)]
    if not left:
        why = "all left out by --include, --exclude" if audio else "no file here has an audio suffix"
        failures.append(AudioError(shown(address), f"holds no recordings: {why}"))
    yield from left


def _fitting(pattern: str, kept: Callable[[str], bool], failures: list[HtsatSedError]) -> Iterator[Recording]:
    """Files that match a pattern, and the recordings in folders that match it."""
    from htsat_sed.audio import find_recordings, has_audio_suffix

    parts = PurePath(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    base = PurePath(*parts[:fixed])
    # From the first ** on, the search must survive loops of links, which glob does not.
    deep = parts.index("**") if "**" in parts else len(parts)
    tail = "/".join(parts[deep:])
    suffix = PurePath(parts[-1]).suffix
    own = bool(suffix) and not glob.has_magic(suffix)

    def wanted(name: str) -> bool:
        return name.endswith(suffix) if own else has_audio_suffix(name)

    closed: list[HtsatSedError] = []
    names: dict[str, Path] = {}
    for top in sorted(glob.glob(str(PurePath(*parts[:deep])))) if deep > fixed else [str(base)]:  # noqa: PTH207
        if not os.path.isdir(top) or _is_loop(top):  # noqa: PTH112
            files = [Path(top)] if deep == len(parts) and wanted(top) else []
        else:
            try:
                below, unlisted = find_recordings(top, wanted=wanted)
            except AudioError as error:
                closed.append(error)
                continue
            closed += unlisted
            files = [file for file in below if not tail or _fits(file.relative_to(top).as_posix(), tail)]
            if not (below or tail) and wanted(top):
                files = [Path(top)]  # a folder named like a recording
        names |= {file.relative_to(base).as_posix(): file for file in files}
    failures += closed
    left = [Recording(str(file), name) for name, file in names.items() if kept(name)]
    if names and not left:
        failures.append(
            AudioError(pattern, f"matches {len(names)} recordings, all left out by --include, --exclude")
        )
    elif not left and not closed:
        if not os.path.isdir(base):  # noqa: PTH112
            reason = f"matches nothing: the folder {base} does not exist"
        elif own:
            reason = f"matches nothing: no file in {base} matches it (case matters)"
        else:
            reason = "matches no recordings: none of the matching files has an audio suffix"
        failures.append(AudioError(pattern, reason))
    yield from left


def _is_loop(folder: str) -> bool:
    """Whether a folder is a link to one of its parents."""
    return any(Path(folder).samefile(above) for above in Path(folder).absolute().parents)


def _listed(path: Path, kept: Callable[[str], bool], failures: list[HtsatSedError]) -> Iterator[Recording]:
    """The recordings of a list file, whose lines are paths relative to its folder."""
    try:
        data = path.read_bytes()
    except OSError as error:
        failures.append(AudioError(path, f"the list cannot be read: {error.strerror}"))
        return
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    # File names are bytes; those that are not UTF-8 pass through.
    text = data.decode("utf-16", "replace") if utf_16 else data.decode("utf-8-sig", "surrogateescape")
    del data  # a list may have millions of lines
    if "\0" in text:
        failures.append(AudioError(path, "is not a list of recordings: wanted one path per line"))
        return
    lines = (line[0].rstrip("\r") for line in re.finditer(r"[^\n]+", text))
    lines = (line for line in lines if line.strip() and not line.startswith("#"))
    first = next(lines, None)
    if first is None:
        failures.append(AudioError(path, "lists no recordings: wanted one path per line"))
        return
    folder = "" if path.parent == Path() else str(path.parent)
    for line in chain([first], lines):
        if is_remote(line):
            yield from _remote(line, kept, failures)
            continue
        given = _normal(os.path.join(folder, line))  # noqa: PTH118, millions of Path take minutes
        if os.path.isdir(given) or (glob.has_magic(line) and not os.path.lexists(given)):  # noqa: PTH112
            yield from _expand([given], kept, failures)
        else:
            inside = not os.path.isabs(line) and (".." not in line or ".." not in PurePath(line).parts)  # noqa: PTH117
            yield Recording(given, _normal(line).replace(os.sep, "/") if inside else Path(line).name)


def _fits(name: str, pattern: str) -> bool:
    """Whether a recording, or a folder that contains it, matches a pattern.

    A pattern without a slash is compared with the names of the file and of each folder, others with the
    whole path; ``**`` matches any number of folders.
    """
    parts, wanted = name.split("/"), pattern.rstrip("/").split("/")
    if len(wanted) == 1 and wanted != ["**"]:
        return any(fnmatchcase(part, wanted[0]) for part in parts)
    return any(_matches(parts[:end], wanted) for end in range(1, len(parts) + 1))


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (bool(parts) and _matches(parts[1:], pattern))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
