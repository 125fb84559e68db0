"""Finding the recordings in folders, by their suffixes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from htsat_sed.errors import AudioError

_SOUND = """
    wav wave bwf rf64 bw64 w64 aif aiff aifc au snd caf voc sph nist paf ircam sf dsf dff flac ape tak tta wv
    shn
    mp1 mp2 mp3 mpga mpa mpc m2a ac3 eac3 dts mlp thd amr awb gsm qcp ra oma aa3 ogg oga opus spx aac adts
    m4a m4b m4r 3ga mka weba wma
"""
_FILMS = """
    ogv ogm mp4 m4v mov qt 3gp 3g2 mkv mk3d webm wmv asf avi divx ts mts m2t m2ts mpg mpeg m2p vob flv f4v mxf
    nut rm rmvb wtv
"""
AUDIO_SUFFIXES = frozenset(f".{suffix}" for suffix in (_SOUND + _FILMS).split())


def has_audio_suffix(name: str) -> bool:
    """Whether a file name ends like one of a recording (`AUDIO_SUFFIXES`, in either case)."""
    return os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES  # noqa: PTH122, a Path a name is slow


def find_recordings(
    folder: str | os.PathLike[str], *, wanted: Callable[[str], bool] = has_audio_suffix
) -> tuple[list[Path], list[AudioError]]:
    """Find the recordings in a folder and all folders below.

    Links to folders are followed, but no folder is walked through twice, nor one that `folder` lies in; it is
    found by its own name rather than by a link's. Nothing is opened: whatever has
    a name that is wanted counts, so that a broken file, a dangling link or a FIFO is met as an error later
    and not lost; likewise a folder with such a name if no recordings lie in it. Hidden files and folders
    do not count.

    Args:
        folder: where to look.
        wanted: file name -> whether it is one of a recording.

    Returns:
        Paths that begin with `folder`, sorted; and an error for each folder below it that cannot be listed.

    Raises:
        AudioError: the folder itself cannot be listed.
    """
    search = _Search(wanted, seen=set(Path(os.path.realpath(folder)).parents))
    try:
        found = search.below(Path(folder), Path(os.path.realpath(folder)))
    except OSError as error:
        raise AudioError(folder, f"cannot be listed: {error.strerror}") from error
    while search.links:
        links, search.links = sorted(search.links), []
        for link in links:
            found += search.inside(link, Path(os.path.realpath(link)))
    return sorted(found), search.closed


@dataclass
class _Search:
    """A walk through folders, each once; links to folders wait until the others are through.

    Attributes:
        wanted: file name -> whether it is one of a recording.
        seen: folders by their real paths: those above the one that is searched, and those walked through.
        links: to folders, not followed yet.
        closed: an error for each folder that cannot be listed.
    """

    wanted: Callable[[str], bool]
    seen: set[Path]
    links: list[Path] = field(default_factory=list)
    closed: list[AudioError] = field(default_factory=list)

    def below(self, folder: Path, real: Path) -> list[Path]:
        """Recordings in a folder and below, without those behind links.

        Raises:
            OSError: it cannot be listed.
        """
        if real in self.seen:
            return []
        self.seen.add(real)
        found: list[Path] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                path = folder / entry.name
                if entry.name.startswith("."):
                    continue
                if not _is_folder(entry):
                    found += [path] if self.wanted(entry.name) else []
                elif entry.is_symlink():
                    self.links.append(path)
                else:
                    found += self.inside(path, real / entry.name)
        return found

    def inside(self, folder: Path, real: Path) -> list[Path]:
        """The same of a folder that may be closed, or may only look like a recording."""
        try:
            return self.below(folder, real) or ([folder] if self.wanted(folder.name) else [])
        except OSError as error:
            self.closed.append(AudioError(folder, f"cannot be listed: {error.strerror}"))
            return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that cannot be followed
        return False
