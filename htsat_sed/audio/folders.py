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
    """Whether a file name has an audio suffix (`AUDIO_SUFFIXES`, in either case)."""
    return os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES  # noqa: PTH122, a Path a name is slow


def find_recordings(
    folder: str | os.PathLike[str], *, wanted: Callable[[str], bool] = has_audio_suffix
) -> tuple[list[Path], list[AudioError]]:
    """Find the recordings in a folder and its subfolders.

    Links to folders are followed, but no folder is searched twice, nor any parent of `folder`; a folder is
    listed under its own name rather than that of a link. Files are selected by name without opening them, so
    that a broken file, dangling link or FIFO leads to an error later; so does a folder with such a name that
    contains no recordings. Hidden files and folders are ignored.

    Args:
        folder: folder to search.
        wanted: file name -> whether it is a recording.

    Returns:
        Paths that begin with `folder`, sorted; and an error for each subfolder that cannot be listed.

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
    """A search through folders, each once; links to folders are followed last.

    Attributes:
        wanted: file name -> whether it is a recording.
        seen: real paths of searched folders, and of the parents of the first.
        links: links to folders that were not followed yet.
        closed: an error for each folder that cannot be listed.
    """

    wanted: Callable[[str], bool]
    seen: set[Path]
    links: list[Path] = field(default_factory=list)
    closed: list[AudioError] = field(default_factory=list)

    def below(self, folder: Path, real: Path) -> list[Path]:
        """Recordings in a folder and its subfolders, without those behind links.

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
        """The same for a folder that may not be readable, or may be named like a recording."""
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
