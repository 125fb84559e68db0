"""Archives: folders of Parquet parts with the embeddings of stretches of recordings.

A part has a row for each stretch, with the columns filename (as in other tables), path (of the recording),
size (of the file, bytes), modified (time of the file, nanoseconds), start and duration (seconds), embedding
(D float16 numbers as little-endian bytes) and model (fingerprint). The rows of a recording are contiguous and
in order of time.

    import numpy, pandas
    part = pandas.read_parquet("archive/part-00000.parquet")
    vectors = numpy.frombuffer(b"".join(part.embedding), "<f2").reshape(len(part), -1)

Parts are added but never changed. If several parts contain a recording, because it has changed since, only
the last one counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from htsat_sed.annotations.parquet import check_size, require_pyarrow
from htsat_sed.annotations.text import escape, unescape
from htsat_sed.errors import AnnotationError, UsageError
from htsat_sed.whole_file import whole_file

_KEY = b"htsat-sed archive"
_PART_ROWS = 1 << 18
_COLUMNS = ("filename", "path", "size", "modified", "start", "duration", "embedding", "model")
_UNFOLDED, _UNFOLDED_A_BYTE = 16 << 20, 4  # limit on decompressed bytes: constant, and per byte of the file
_MOST_DIMENSIONS = 1 << 16
_NAMES = ["filename", "path", "model"]  # columns with few distinct values
_NO_PART = "is not part of an archive made by `htsat-sed embed`"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Model and settings of the embeddings of an archive, the same in all parts.

    Attributes:
        model: fingerprint of the model.
        checkpoints: names or paths that the model was loaded from.
        window: duration of a stretch, seconds.
        hop: time between the starts of two stretches, seconds.
        dimensions: dimensions D of an embedding.
        channel: ``mix``, or the number of the channel, from 1.
        track: number of the audio track, from 1; None for the first.
    """

    model: str
    checkpoints: tuple[str, ...]
    window: float
    hop: float
    dimensions: int
    channel: str = "mix"
    track: int | None = None


@dataclass(frozen=True, eq=False)
class Embedded:
    """The embeddings of a recording.

    Attributes:
        filename: name of the recording in tables.
        path: absolute path of the file.
        stamp: size of the file, bytes, and time of its last change, nanoseconds.
        starts: (n,) starts of the stretches, seconds.
        ends: (n,) ends of the stretches, seconds.
        vectors: (n, D) float16 embeddings.
    """

    filename: str
    path: str
    stamp: tuple[int, int]
    starts: Sequence[float]
    ends: Sequence[float]
    vectors: NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class Index:
    """The stretches of an archive, without their embeddings.

    Attributes:
        filenames: name of each recording in tables.
        paths: absolute path of each recording.
        recording: (n,) index of the recording of each stretch.
        starts: (n,) starts of the stretches, seconds.
        durations: (n,) durations of the stretches, seconds.
    """

    filenames: list[str]
    paths: list[str]
    recording: NDArray[np.int64]
    starts: NDArray[np.float64]
    durations: NDArray[np.float64]

    def __len__(self) -> int:
        """Number of stretches."""
        return len(self.starts)


class Archive:
    """A snapshot of an archive; parts that are added later are not seen.

    Args:
        folder: folder of the parts; a missing folder is an empty archive.

    Attributes:
        folder: folder of the parts.
        parts: files of the parts, in order.
        kind: model and settings; None if the archive is empty.

    Raises:
        AnnotationError: the folder holds other files but no part, a part cannot be read, parts have different
            kinds, or pyarrow is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._arrow, self._parquet = require_pyarrow(self.folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise AnnotationError(self.folder, "is a file: name the folder of an archive")
        self.parts = sorted(self.folder.glob("part-*.parquet"))
        others = self.folder.is_dir() and any(not path.name.startswith(".") for path in _others(self.folder))
        if not self.parts and others:
            raise AnnotationError(self.folder, "holds other files but no archive: name another folder")
        kinds = {path: self._kind(path) for path in self.parts}
        self.kind = next(iter(kinds.values()), None)
        for path, kind in kinds.items():
            if kind != self.kind:
                raise AnnotationError(path, f"was made with another model or window than {self.parts[0]}")

    def _kind(self, path: Path) -> Kind:
        metadata = self._read(path, self._parquet.read_metadata)
        try:
            schema = metadata.schema.to_arrow_schema()
            values = json.loads((metadata.metadata or {})[_KEY])
            kind = Kind(**{**values, "checkpoints": tuple(values["checkpoints"])})
            fits = type(kind.dimensions) is int and 0 < kind.dimensions <= _MOST_DIMENSIONS
            types = self._types(kind) if fits else {}
            fits = fits and all(schema.field(name).type == of for name, of in types.items())
        except (KeyError, TypeError, ValueError, RecursionError, self._arrow.ArrowException) as error:
            raise AnnotationError(path, _NO_PART) from error
        if not fits:
            raise AnnotationError(path, _NO_PART)
        most = _UNFOLDED + _UNFOLDED_A_BYTE * path.stat().st_size
        try:
            check_size(path, metadata, _COLUMNS, most=most)
        except UsageError as error:
            raise AnnotationError(path, f"cannot be read: {error}") from error
        return kind

    def _types(self, kind: Kind) -> dict[str, Any]:
        """Return the Arrow type of each column."""
        arrow = self._arrow
        text, whole, number = arrow.string(), arrow.int64(), arrow.float64()
        types = (text, text, whole, whole, number, number, arrow.binary(2 * kind.dimensions), text)
        return dict(zip(_COLUMNS, types, strict=True))

    def _read(self, path: Path, reader: Any, **options: Any) -> Any:
        try:
            return reader(path, **options)
        except (OSError, self._arrow.ArrowException) as error:
            raise AnnotationError(path, f"cannot be read: {error}") from error

    def _table(self, path: Path, *columns: str, **options: Any) -> Any:
        """Read columns of a part.

        Raises:
            AnnotationError: a column cannot be read, has invalid text or has empty cells.
        """
        table = self._read(path, self._parquet.read_table, columns=list(columns), **options)
        try:
            table.validate(full="embedding" not in columns)
        except self._arrow.ArrowException as error:
            raise AnnotationError(path, f"cannot be read: {error}") from error
        if any(column.null_count for column in table.columns):
            raise AnnotationError(path, "has empty cells, which `htsat-sed embed` never writes")
        return table

    @cached_property
    def stamps(self) -> dict[str, tuple[int, int]]:
        """Maps the path of each recording to the size and modification time of the embedded file."""
        found: dict[str, tuple[int, int]] = {}
        for path in self.parts:
            columns = ["path", "size", "modified"]
            table = self._table(path, *columns, read_dictionary=["path"])
            rows = table.group_by(columns).aggregate([]).to_pydict()
            names = map(unescape, rows["path"])
            found |= dict(zip(names, zip(rows["size"], rows["modified"], strict=True), strict=True))
        return found

    @cached_property
    def _live(self) -> list[NDArray[np.bool_]]:
        """A mask of each part: rows whose recording is in no later part."""
        later: set[str] = set()
        live: list[NDArray[np.bool_]] = []
        for path in reversed(self.parts):
            names, codes = self._codes(path, "path")
            own = np.array([name not in later for name in names], np.bool_)
            later |= set(names)
            live.insert(0, own[codes])
        return live

    def _codes(self, path: Path, column: str) -> tuple[list[str], NDArray[np.int64]]:
        """Read a column as its distinct values and, for each row, the index of its value."""
        table = self._table(path, column, read_dictionary=[column])
        array = table.unify_dictionaries().column(column).combine_chunks()
        return array.dictionary.to_pylist(), array.indices.to_numpy().astype(np.int64)

    def index(self) -> Index:
        """Read all stretches, without their embeddings.

        Raises:
            AnnotationError: a part cannot be read.
        """
        number: dict[str, int] = {}
        filenames: list[str] = []
        columns: list[list[NDArray[Any]]] = [[], [], []]
        for path, live in zip(self.parts, self._live, strict=True):
            (paths, of_path), (names, of_name) = self._codes(path, "path"), self._codes(path, "filename")
            for name, code in {paths[c]: names[n] for c, n in zip(of_path, of_name, strict=True)}.items():
                if name not in number:
                    number[name] = len(filenames)
                    filenames.append(code)
            table = self._table(path, "start", "duration")
            recording = np.array([number[name] for name in paths], np.int64)[of_path]
            for store, values in zip(
                columns, (recording, table["start"].to_numpy(), table["duration"].to_numpy()), strict=True
            ):
                store.append(values[live])
        joined = [np.concatenate([np.zeros(0), *values]) for values in columns]
        return Index(
            [unescape(name) for name in filenames],
            [unescape(name) for name in number],
            joined[0].astype(np.int64),
            joined[1],
            joined[2],
        )

    def vectors(self) -> Iterator[NDArray[np.float16]]:
        """Yield the embeddings in blocks (n, D), in the order of `index`.

        Raises:
            AnnotationError: a part cannot be read.
        """
        if self.kind is None:
            return
        for path, live in zip(self.parts, self._live, strict=True):
            table = self._table(path, "embedding", memory_map=True)
            begin = 0
            for chunk in table.column("embedding").chunks:
                flat = np.frombuffer(chunk.buffers()[1], "<f2")
                first = chunk.offset * self.kind.dimensions
                rows = flat[first : first + len(chunk) * self.kind.dimensions].reshape(len(chunk), -1)
                own = live[begin : begin + len(chunk)]
                yield rows if own.all() else rows[own]
                begin += len(chunk)

    def add(self, kind: Kind, recordings: Iterable[Embedded]) -> None:
        """Add recordings as new parts; each part is written atomically.

        Args:
            kind: model and settings of the embeddings.
            recordings: recordings to add; those without stretches are left out.

        Raises:
            UsageError: the archive is of another kind.
            HtsatSedError: a part cannot be written.
        """
        if self.kind not in (None, kind):
            raise UsageError(f"wanted embeddings of {self.kind}, got {kind}")
        rows: list[Embedded] = []
        number = 1 + max((int(path.stem.removeprefix("part-")) for path in self.parts), default=-1)
        for recording in recordings:
            rows.append(recording)
            if sum(len(each.vectors) for each in rows) >= _PART_ROWS:
                self._write(self.folder / f"part-{number:05d}.parquet", kind, rows)
                rows, number = [], number + 1
        if any(len(each.vectors) for each in rows):
            self._write(self.folder / f"part-{number:05d}.parquet", kind, rows)

    def _write(self, path: Path, kind: Kind, recordings: list[Embedded]) -> None:
        arrow = self._arrow
        counts = np.array([len(each.vectors) for each in recordings])

        def repeated(values: list[Any], type: Any) -> Any:
            return arrow.array(values, type).take(arrow.array(np.repeat(np.arange(len(counts)), counts)))

        starts, ends = (
            np.array([time for each in recordings for time in getattr(each, name)], np.float64)
            for name in ("starts", "ends")
        )
        vectors = np.ascontiguousarray(np.concatenate([each.vectors for each in recordings]), "<f2")
        columns = {
            "filename": repeated([escape(each.filename) for each in recordings], arrow.string()),
            "path": repeated([escape(each.path) for each in recordings], arrow.string()),
            "size": repeated([each.stamp[0] for each in recordings], arrow.int64()),
            "modified": repeated([each.stamp[1] for each in recordings], arrow.int64()),
            "start": arrow.array(starts),
            "duration": arrow.array(ends - starts),
            "embedding": arrow.FixedSizeBinaryArray.from_buffers(
                arrow.binary(2 * kind.dimensions), len(vectors), [None, arrow.py_buffer(vectors)]
            ),
            "model": arrow.array([kind.model] * len(vectors), arrow.string()),
        }
        table = arrow.table(columns).replace_schema_metadata({_KEY: json.dumps(asdict(kind))})
        # Compression would not shrink embeddings, only slow down reading.
        with whole_file(path, "wb") as file:
            self._parquet.write_table(table, file, compression="none", use_dictionary=_NAMES)


def _others(folder: Path) -> Iterator[Path]:
    """Return the files in a folder other than those that `embed` leaves beside parts."""
    own = {"htsat-sed.journal", "failures.csv"}
    return (path for path in folder.iterdir() if path.name not in own)
