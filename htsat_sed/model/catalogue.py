"""Checkpoints by name: the bundled checkpoint and published ones to download."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from htsat_sed.errors import CheckpointError, UsageError
from htsat_sed.labels import did_you_mean
from htsat_sed.model.download import ByteProgress, adopt, download, file_sha256
from htsat_sed.model.hub import PREFIX, hub_checkpoint

BUNDLED = "home"


@dataclass(frozen=True, kw_only=True)
class Download:
    """A published checkpoint.

    Attributes:
        name: short name, as `-c` takes it.
        summary: description in one line.
        file_name: name of the downloaded file.
        url: address of the file.
        page: web page that offers the file.
        sha256: hash of the file, hexadecimal.
        size: size of the file, bytes; None if unknown.
        licence: licence as stated by the source.
    """

    name: str
    summary: str
    file_name: str
    url: str
    page: str
    sha256: str
    size: int | None
    licence: str

    @property
    def path(self) -> Path:
        """Path of the downloaded file."""
        return checkpoint_folder() / self.file_name


CATALOGUE = (
    Download(
        name="audioset",
        summary="HTS-AT's authors: AudioSet, 527 classes, 32 kHz",
        file_name="HTSAT_AudioSet_Saved_1.ckpt",
        url="https://drive.usercontent.google.com/download"
        "?id=1OK8a5XuMVLyeVKF117L8pfxeZYdfSDZv&export=download&confirm=t",
        page="https://drive.google.com/file/d/1OK8a5XuMVLyeVKF117L8pfxeZYdfSDZv/view",
        sha256="49804bf7767809be5d5bfe9dc25f401442e0d24f242dded6b6dabea56bb645b0",
        size=None,
        licence="MIT (repository of the authors)",
    ),
    Download(
        name="audioset-pseldnets",
        summary="the start of PSELDNets: AudioSet, 527 classes, 32 kHz",
        file_name="HTSAT-fullset-imagenet-768d-32000hz.ckpt",
        url="https://huggingface.co/datasets/Jinbo-HU/PSELDNets/resolve/main/"
        "model/HTSAT-fullset-imagenet-768d-32000hz.ckpt",
        page="https://huggingface.co/datasets/Jinbo-HU/PSELDNets/tree/main/model",
        sha256="6700e6480188ae00b7e133fdd127abf636941cd5bba31077867cb85c92cd0549",
        size=127_072_759,
        licence="see its page",
    ),
)


def checkpoint_folder() -> Path:
    """Return the folder of downloads: $HTSAT_SED_HOME, or ``htsat-sed`` in the user's cache folder.

    Raises:
        ValueError: neither exists, because the user has no home folder.
    """
    try:
        if home := os.environ.get("HTSAT_SED_HOME"):
            return Path(home).expanduser()
        if sys.platform == "win32":
            cache = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        elif sys.platform == "darwin":
            cache = Path.home() / "Library" / "Caches"
        else:
            cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        wanted = "set HTSAT_SED_HOME to a folder for checkpoints, without ~"
        raise UsageError(f"the user has no home folder: {wanted}") from error
    return Path(cache) / "htsat-sed"


def bundled_checkpoint() -> Path | None:
    """Return the path of the bundled checkpoint; None if the package was built without it."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package, package.parent):  # installed; in a source tree
        path = folder / "checkpoints" / f"{BUNDLED}.safetensors"
        if path.is_file():
            return path
    return None


def find_download(name: str) -> Download:
    """Look up a published checkpoint in the catalogue.

    Args:
        name: short name, such as ``audioset``.

    Raises:
        ValueError: the name is unknown.
    """
    for entry in CATALOGUE:
        if entry.name == name:
            return entry
    names = [entry.name for entry in CATALOGUE]
    hint = did_you_mean(name, names)
    raise UsageError(f"no checkpoint {name!r} to download: available are {', '.join(names)}{hint}")


def resolve_checkpoint(name_or_path: str | Path | None = None) -> Path:
    """Find the file of a checkpoint.

    Args:
        name_or_path: ``home`` or None for the bundled checkpoint, a name from the catalogue, an address on
            the hub (see `hub_checkpoint`), or a path. Write ``./name`` for a file named like a checkpoint.

    Raises:
        CheckpointError: the file is missing; the message says how to get it.
        UsageError: the address on the hub is malformed, or huggingface_hub is not installed.
    """
    wanted = BUNDLED if name_or_path is None else os.fspath(name_or_path)
    if wanted == BUNDLED:
        path = bundled_checkpoint()
        if path is None:
            raise CheckpointError(
                BUNDLED,
                "this installation has no bundled checkpoint: give one with -c, or get one with "
                f"`htsat-sed checkpoints pull {CATALOGUE[0].name}`",
            )
        return path
    for entry in CATALOGUE:
        if entry.name == wanted:
            if entry.path.is_file():
                return entry.path
            raise CheckpointError(
                wanted, f"not downloaded yet: run `htsat-sed checkpoints pull {wanted}` first"
            )
    if wanted.startswith(PREFIX):
        return hub_checkpoint(wanted)
    path = Path(wanted)
    if path.exists():
        return path
    names = [BUNDLED, *(entry.name for entry in CATALOGUE)]
    hint = did_you_mean(wanted, names) or f"; names are {', '.join(names)}"
    raise CheckpointError(wanted, f"no such file, and no checkpoint of that name{hint}")


def pull(
    entry: Download,
    *,
    file: str | Path | None = None,
    progress: ByteProgress | None = None,
    attempts: int = 4,
    pause: float = 1.0,
) -> Path:
    """Download and verify a published checkpoint, unless it is on the disk already.

    Args:
        entry: entry of the catalogue.
        file: copy downloaded by other means, to use instead of the network.
        progress: called with the bytes downloaded and the total after every block.
        attempts: consecutive connections without data before giving up.
        pause: pause before the second attempt, seconds; doubled for each further one.

    Returns:
        Path of the checkpoint in `checkpoint_folder`.

    Raises:
        CheckpointError: the download failed; the message says how to get the file by hand.
    """
    path = entry.path
    if path.is_file() and file_sha256(path) == entry.sha256:
        return path
    if file is not None:
        adopt(file, path, sha256=entry.sha256)
        return path
    try:
        download(
            entry.url,
            path,
            sha256=entry.sha256,
            size=entry.size,
            progress=progress,
            attempts=attempts,
            pause=pause,
        )
    except CheckpointError as error:
        raise CheckpointError(
            error.path,
            f"{error.reason}. To download manually: save {entry.file_name} from {entry.page} (sha256 "
            f"{entry.sha256}), then run `htsat-sed checkpoints pull {entry.name} --file {entry.file_name}`",
        ) from error
    return path
