"""An archive: a folder of Parquet parts with the embeddings of stretches of recordings.

A part has a row for each stretch, with the columns filename (as in other tables), path (of the recording),
size (bytes) and modified (nanoseconds) of its file, start and duration (seconds), embedding (the bytes of D
numbers, float16, little-endian) and model (its fingerprint). Rows of a recording lie side by side, in order.

    import numpy, pandas
    part = pandas.read_parquet("archive/part-00000.parquet")
    vectors = numpy.frombuffer(b"".join(part.embedding), "<f2").reshape(len(part), -1)

Parts are only added. Where several hold a recording, because it has changed meanwhile, the last one counts.
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
_UNFOLDED, _UNFOLDED_A_BYTE = 16 << 20, 4  # bytes of pages; embeddings do not compress
_MOST_DIMENSIONS = 1 << 16
_NAMES = ["filename", "path", "model"]  # columns of few values
_NO_PART = "is no part of an archive that `htsat-sed embed` made"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What an archive holds; all parts agree in it.

    Attributes:
        model: fingerprint.
        checkpoints: names or files that the model was loaded from.
        window: seconds of a stretch.
        hop: seconds between the starts of two stretches.
        dimensions: D.
        channel: ``mix``, or the channel that was read, from 1 on.
        track: audio track that was read, from 1 on; None for the first.
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
    """A recording in an archive.

    Attributes:
        filename: as in tables.
        path: of the file, absolute.
        stamp: its size and time of change.
        starts: (n,) seconds, of stretches.
        ends: (n,) seconds.
        vectors: (n, D) float16.
    """

    filename: str
    path: str
    stamp: tuple[int, int]
    starts: Sequence[float]
    ends: Sequence[float]
    vectors: NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class Index:
    """The stretches of an archive.

    Attributes:
        filenames: of recordings.
        paths: of recordings.
        recording: (n,) number of the recording of each stretch.
        starts: (n,) seconds.
        durations: (n,) seconds.
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
    """An archive, as it was when this was made.

    Args:
        folder: of the parts; one that is not there is an empty archive.

    Attributes:
        folder: as given.
        parts: files, in order.
        kind: what it holds; None while it is empty.

    Raises:
        AnnotationError: the folder holds other files and no part, a part cannot be read, parts disagree, or
            pyarrow is missing.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._arrow, self._parquet = require_pyarrow(self.folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise AnnotationError(self.folder, "is a file: wanted the folder of an archive")
        self.parts = sorted(self.folder.glob("part-*.parquet"))
        others = self.folder.is_dir() and any(not path.name.startswith(".") for path in _others(self.folder))
        if not self.parts and others:
            raise AnnotationError(self.folder, "holds other files and no archive: name another folder")
        kinds = {path: self._kind(path) for path in self.parts}
        self.kind = next(iter(kinds.values()), None)
        for path, kind in kinds.items():
            if kind != self.kind:
                raise AnnotationError(path, f"is of another model or window than {self.parts[0]}")

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
        """The type of each column."""
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
        """Columns of a part, without empty cells and broken texts."""
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
        """Path of each recording -> size and time of change of the file that was embedded."""
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
        """For each part, which rows count: those whose recording is in no later part."""
        later: set[str] = set()
        live: list[NDArray[np.bool_]] = []
        for path in reversed(self.parts):
            names, codes = self._codes(path, "path")
            own = np.array([name not in later for name in names], np.bool_)
            later |= set(names)
            live.insert(0, own[codes])
        return live

    def _codes(self, path: Path, column: str) -> tuple[list[str], NDArray[np.int64]]:
        """The values of a column, and for each row the number of its value."""
        table = self._table(path, column, read_dictionary=[column])
        array = table.unify_dictionaries().column(column).combine_chunks()
        return array.dictionary.to_pylist(), array.indices.to_numpy().astype(np.int64)

    def index(self) -> Index:
        """All stretches, without their embeddings."""
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
        """Embeddings in blocks (n, D), in the order of `index`."""
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
        """Add recordings as new parts, each of which appears whole or not at all.

        Args:
            kind: of the archive.
            recordings: with stretches; those without are left out.

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
        # Embeddings do not compress; as they are, they are read at the speed of the disk.
        with whole_file(path, "wb") as file:
            self._parquet.write_table(table, file, compression="none", use_dictionary=_NAMES)


def _others(folder: Path) -> Iterator[Path]:
    """Files in a folder that no run of `embed` leaves there."""
    own = {"htsat-sed.journal", "failures.csv"}
    return (path for path in folder.iterdir() if path.name not in own)
