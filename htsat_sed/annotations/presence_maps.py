"""Presence maps as files: NumPy's .npz, uncompressed and without pickle.

The members, each an array:

    scores         (T, K) float32 in [0, 1]; row t covers the seconds [t, t + 1) * token_seconds
    labels         (K,) text
    token_seconds  () float64
    duration       () float64, of the recording in seconds; T = ceil(duration / token_seconds)
    metadata       () text: JSON with "format", the recording's "filename" and "provenance"
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from htsat_sed.annotations.folders import files_below
from htsat_sed.annotations.score_files import SUFFIX as SCORE_SUFFIX
from htsat_sed.annotations.score_files import is_score_file, read_score_files
from htsat_sed.annotations.text import Names
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.errors import AnnotationError, HtsatSedError, UsageError
from htsat_sed.labels import normal
from htsat_sed.whole_file import whole_file

SUFFIX = ".npz"
FORMAT = "htsat-sed presence map 1"

_HEADERS: dict[tuple[int, int], Callable[..., tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_MEMBERS = ("scores", "labels", "token_seconds", "duration", "metadata")


def write_presence_map(
    path: str | os.PathLike[str],
    presence_map: PresenceMap,
    *,
    filename: str,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write the presence map of one recording.

    Args:
        path: target file, by convention `path_of(folder, filename, ".npz")`.
        presence_map: the presence map.
        filename: name of the recording in tables.
        provenance: checkpoint, versions and settings; JSON values.

    Raises:
        HtsatSedError: the file cannot be written.
    """
    with PresenceMapWriter(
        path,
        labels=presence_map.labels,
        token_seconds=presence_map.token_seconds,
        filename=filename,
        provenance=provenance,
    ) as writer:
        writer.append(presence_map.scores)
        writer.finish(presence_map.duration)


class PresenceMapWriter:
    """Writes a presence map row by row, in constant memory.

    Rows are collected in an unnamed temporary file in the same folder, from which `finish` makes the file. A
    block that ends without `finish` leaves no file.

    Args:
        path: target file.
        labels: classes, in the order of the columns.
        token_seconds: duration of a token.
        filename: name of the recording.
        provenance: JSON values.

    Raises:
        HtsatSedError: the folder cannot be written to.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        labels: Iterable[str],
        token_seconds: float,
        filename: str,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self._path = Path(path)
        self._labels = tuple(labels)
        self._token_seconds = token_seconds
        metadata = {"format": FORMAT, "filename": filename, "provenance": dict(provenance or {})}
        self._metadata = json.dumps(metadata)
        self._tokens = 0
        try:
            self._rows: IO[bytes] = tempfile.TemporaryFile(dir=self._path.parent)  # noqa: SIM115
        except OSError as error:
            raise HtsatSedError(path, f"cannot be written: {error.strerror}") from error

    def __enter__(self) -> PresenceMapWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(OSError):  # unwritten rows on a full disk, which are not needed
            self._rows.close()

    def append(self, scores: NDArray[np.float32]) -> None:
        """Append rows.

        Args:
            scores: (t, K), the next tokens.

        Raises:
            ValueError: the number of columns is not that of labels.
            HtsatSedError: the rows cannot be written.
        """
        if scores.ndim != 2 or scores.shape[1] != len(self._labels):
            raise UsageError(f"wanted scores of shape (t, {len(self._labels)}), got {scores.shape}")
        try:
            self._rows.write(np.ascontiguousarray(scores, "<f4").tobytes())
        except OSError as error:
            raise HtsatSedError(self._path, f"cannot be written: {error.strerror}") from error
        self._tokens += len(scores)

    def finish(self, duration: float) -> None:
        """Write the file.

        Args:
            duration: duration of the recording, seconds.

        Raises:
            HtsatSedError: the file cannot be written.
        """
        arrays = {
            "labels": np.array(self._labels, dtype=str),
            "token_seconds": np.array(self._token_seconds, "<f8"),
            "duration": np.array(duration, "<f8"),
            "metadata": np.array(self._metadata),
        }
        shape = (self._tokens, len(self._labels))
        with whole_file(self._path, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            with archive.open("scores.npy", "w", force_zip64=True) as member:
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)  # type: ignore[no-untyped-call]
                self._rows.seek(0)
                shutil.copyfileobj(self._rows, member, 1 << 20)
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)  # type: ignore[no-untyped-call]


def read_presence_map(path: str | os.PathLike[str]) -> PresenceMap:
    """Read the presence map of one recording.

    Raises:
        AnnotationError: the file does not exist, is truncated, lacks a member or has one of another shape or
            type, or has a score that is NaN or outside [0, 1].
    """
    return _read(path)[1]


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The metadata of a presence map: "format", "filename" and "provenance".

    Raises:
        AnnotationError: as for `read_presence_map`.
    """
    members = _members(path, ("metadata",))
    return _metadata(path, members["metadata"])


def read_presence_maps(folder: str | os.PathLike[str]) -> Iterator[tuple[str, PresenceMap]]:
    """Read all presence maps in a folder and its subfolders, sorted by path.

    If there are none, score files are read (`score_files`).

    Yields:
        The name of the recording in the metadata, and its map.

    Raises:
        AnnotationError: the folder does not exist or has no presence map, two belong to one recording, or as
            for `read_presence_map`.
    """
    seen: dict[str, Path] = {}
    names = Names()
    for path in files_below(folder, SUFFIX):
        name, presence_map = _read(path)
        filename = names.of(name)
        if filename in seen:
            raise AnnotationError(path, f"belongs to the recording {filename}, and so does {seen[filename]}")
        seen[filename] = path
        yield filename, presence_map
    if not seen:
        scored = False
        for filename, presence_map in read_score_files(folder):
            scored = True
            yield filename, presence_map
        if not scored:
            what = f"contains no presence maps ({SUFFIX}) or score files (onset, offset, a column per class)"
            raise AnnotationError(folder, what)


def holds_scores(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder of presence maps or score files."""
    folder = Path(path)
    if not folder.is_dir():
        return False
    first = next(files_below(folder, SUFFIX), None)
    return first is not None or any(is_score_file(each) for each in files_below(folder, SCORE_SUFFIX))


def _read(path: str | os.PathLike[str]) -> tuple[str, PresenceMap]:
    members = _members(path, _MEMBERS)
    metadata = _metadata(path, members["metadata"])
    scores, labels = members["scores"], members["labels"]
    numbers = members["token_seconds"], members["duration"]
    if scores.dtype != np.float32 or labels.ndim != 1 or labels.dtype.kind != "U":
        reason = f"scores are {scores.dtype} and labels {labels.dtype}, wanted float32 and a row of text"
        raise AnnotationError(path, reason)
    if any(n.shape != () or n.dtype.kind != "f" for n in numbers):
        raise AnnotationError(path, "token_seconds and duration: wanted one number each")
    if not np.all((scores >= 0.0) & (scores <= 1.0)):
        raise AnnotationError(path, "has scores that are NaN or outside [0, 1]")
    token_seconds, duration = (float(n) for n in numbers)
    try:
        presence_map = PresenceMap(scores, tuple(map(normal, labels.tolist())), token_seconds, duration)
    except ValueError as error:
        raise AnnotationError(path, str(error)) from error
    return metadata["filename"], presence_map


def _members(path: str | os.PathLike[str], names: Iterable[str]) -> dict[str, NDArray[Any]]:
    try:
        # Opened here, so that it is closed even if NumPy fails.
        with Path(path).open("rb") as file, zipfile.ZipFile(file) as archive:
            return {name: _member(archive, archive.getinfo(f"{name}.npy")) for name in names}
    except OSError as error:
        raise AnnotationError(path, f"cannot be read: {error.strerror or error}") from error
    except EOFError as error:
        raise AnnotationError(path, "is not a presence map: an array ends early") from error
    # The exceptions of zipfile and NumPy for invalid data are undocumented and vary.
    except Exception as error:
        reason = str(error.args[0]) if error.args else type(error).__name__
        raise AnnotationError(
            path, f"is not a presence map: {reason.splitlines()[0] if reason else 'empty'}"
        ) from error


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """Read an array; its header is checked before memory is allocated.

    Raises:
        ValueError: it is compressed, has objects, or another size than in its header.
    """
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise UsageError(f"{member.filename} is compressed or encrypted, wanted uncompressed")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
        if version not in _HEADERS:
            raise UsageError(f"{member.filename} has NumPy format {version}, wanted 1.0 or 2.0")
        shape, fortran_order, dtype = _HEADERS[version](file)
        count = math.prod(shape)
        size = member.file_size - file.tell()
        if dtype.hasobject or dtype.itemsize == 0 or count * dtype.itemsize != size:
            raise UsageError(f"{member.filename} has {size} bytes, not {shape} of {dtype}")
        array = np.empty(count, dtype)
        place, filled = array.view(np.uint8), 0
        while block := file.read(1 << 20):  # to the end, where the checksum is compared
            place[filled : filled + len(block)] = np.frombuffer(block, np.uint8)
            filled += len(block)
    if filled != size:
        raise UsageError(f"{member.filename} is truncated")
    return array.reshape(shape[::-1]).T if fortran_order else array.reshape(shape)


def _metadata(path: str | os.PathLike[str], member: NDArray[Any]) -> dict[str, Any]:
    try:
        metadata = json.loads(str(member))
        if metadata["format"] == FORMAT and isinstance(metadata["filename"], str):
            return dict(metadata)
        reason = f"format {metadata['format']!r}, wanted {FORMAT!r}"
    except RecursionError:
        reason = "nested too deeply"
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error)
    raise AnnotationError(path, f"is not a presence map: its metadata: {reason}")
