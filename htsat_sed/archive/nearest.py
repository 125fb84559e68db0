"""Similarity search and clustering of the stretches of an archive.

Embeddings are compared as *prepared* vectors: the mean of the archive is subtracted, the principal components
are divided by the square root of their standard deviations, and the vectors are scaled to length 1. This
reduces the weight of common directions. On 1 164 clips of household sounds, the mean reciprocal rank of
another clip of the same source is 0.84, against 0.76 with the cosine of the plain embeddings.

Prepared vectors are cached beside the parts, in ``.prepared.npy`` (float16) and ``.prepared.npz``, and are
recomputed when the parts change. The search compares all stretches if there are at most `EXACT`; above that,
it uses an approximate index of usearch, ``.prepared.usearch``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from htsat_sed.archive.store import Archive, Index
from htsat_sed.errors import UsageError
from htsat_sed.libraries import load
from htsat_sed.whole_file import whole_file

EXACT = 1_000_000
_BLOCK = 1024  # rows per block; a block of float32 fits into the processor's cache
_SAMPLE = 20_000  # rows used for mean and components, and for the centres of clusters
_LEAST_VARIANCE = 1e-6  # least variance of a component, relative to the largest
_UNLIKE = 0.5  # weight of the negative queries

Vectors = NDArray[np.float32]
Report = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Prepared vectors of an archive.

    Attributes:
        vectors: (n, D) float16, each of length 1, or 0 for silence.
        mean: (D,) mean that is subtracted.
        components: (D, D) scaled principal components; (x - mean) @ components is scaled to length 1.
        index: index of usearch, or None.
    """

    vectors: NDArray[np.float16]
    mean: Vectors
    components: Vectors
    index: Any = None

    def prepare(self, vectors: Vectors) -> Vectors:
        """Prepare embeddings (n, D); embeddings of silence, all 0, stay 0."""
        return prepare(vectors, self.mean, self.components)

    def scores(self, query: Vectors) -> Vectors:
        """Compute the inner products (n,) of all vectors with a prepared query (D,)."""
        import torch

        found = torch.empty(len(self.vectors))
        held = torch.empty(_BLOCK, len(query))
        wanted = torch.from_numpy(np.ascontiguousarray(query, np.float32))
        for begin in range(0, len(self.vectors), _BLOCK):
            rows = torch.from_numpy(np.array(self.vectors[begin : begin + _BLOCK]))
            block = held[: len(rows)].copy_(rows)
            torch.mv(block, wanted, out=found[begin : begin + len(rows)])
        scored: Vectors = found.numpy()
        return scored

    def best(self, query: Vectors, count: int) -> tuple[NDArray[np.int64], Vectors]:
        """Find the vectors that are most similar to a query.

        Args:
            query: (D,) prepared vector.
            count: number of results; fewer if there are fewer vectors.

        Returns:
            Rows and their inner products with the query, the highest first.
        """
        if self.index is not None:
            rows = np.sort(np.asarray(self.index.search(query, count).keys, np.int64))
            scores = self.vectors[rows].astype(np.float32) @ query
        else:
            scores = self.scores(query)
            count = min(count, len(scores))
            rows = np.argpartition(-scores, count - 1)[:count] if count else np.zeros(0, np.int64)
            scores = scores[rows]
        order = np.lexsort((rows, -scores))
        return rows[order], scores[order]


def prepare(vectors: Vectors, mean: Vectors, components: Vectors) -> Vectors:
    """Prepare embeddings: subtract the mean, apply the scaled components and scale to length 1.

    Args:
        vectors: (n, D) embeddings; those of silence are 0.
        mean: (D,) mean.
        components: (D, D) scaled principal components.

    Returns:
        (n, D) float32 of length 1, or 0 for silence.
    """
    turned = (vectors - mean) @ components
    length = np.linalg.norm(turned, axis=1, keepdims=True)
    sounding = vectors.any(axis=1, keepdims=True) & (length > 0.0)
    made: Vectors = np.where(sounding, turned / np.maximum(length, 1e-12), 0.0).astype(np.float32)
    return made


def open_prepared(archive: Archive, report: Report = lambda message: None) -> Prepared:
    """Read the prepared vectors of an archive; compute and cache them if they are missing or outdated.

    Args:
        archive: archive with at least one part.
        report: called with a message before each step that can take minutes.

    Raises:
        AnnotationError: a part cannot be read.
        HtsatSedError: the cache cannot be written.
        UsageError: there are more than `EXACT` stretches and usearch is not installed, or another process
            changes the archive.
    """
    vectors, values = (archive.folder / f".prepared.{suffix}" for suffix in ("npy", "npz"))
    signature = json.dumps([[path.name, *path.stat()[6:9:2]] for path in archive.parts])
    found = _read(vectors, values, signature)
    if found is None:
        report(f"preparing the search in {archive.folder}")
        mean, components = _components(archive)
        count = sum(len(block) for block in archive.vectors())
        with whole_file(vectors, "wb") as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": (count, len(mean))}
            np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
            for block in _blocks(archive.vectors()):
                file.write(prepare(block, mean, components).astype("<f2").tobytes())
        with whole_file(values, "wb") as file:
            np.savez(file, signature=np.array(signature), mean=mean, components=components)
        found = _read(vectors, values, signature)
    if found is None:
        raise UsageError(
            f"{archive.folder}: another process is changing this archive: search when it has finished"
        )
    if len(found.vectors) <= EXACT:
        return found
    return Prepared(found.vectors, found.mean, found.components, _usearch(archive.folder, found, report))


def _read(vectors: Path, values: Path, signature: str) -> Prepared | None:
    try:
        with np.load(values, allow_pickle=False) as kept:
            if str(kept["signature"]) != signature:
                return None
            made = np.load(vectors, mmap_mode="r", allow_pickle=False)
            fits = made.ndim == 2 and made.shape[1] == len(kept["mean"]) and made.dtype == np.float16
            return Prepared(made, kept["mean"], kept["components"]) if fits else None
    except (OSError, ValueError, KeyError):
        return None


def _components(archive: Archive) -> tuple[Vectors, Vectors]:
    """Compute mean and scaled components from a sample of the stretches of an archive."""
    assert archive.kind is not None
    total = sum(len(block) for block in archive.vectors())
    step = -(-total // _SAMPLE)
    rows: list[Vectors] = []
    seen = 0
    for block in archive.vectors():
        rows.append(block[(-seen) % step :: step].astype(np.float32))
        seen += len(block)
    return components(np.concatenate([np.zeros((0, archive.kind.dimensions), np.float32), *rows]))


def components(vectors: Vectors) -> tuple[Vectors, Vectors]:
    """Compute mean (D,) and scaled principal components (D, D) of vectors (n, D), ignoring zero vectors."""
    sounding = vectors[vectors.any(axis=1)].astype(np.float64)
    mean = sounding.mean(axis=0) if len(sounding) else np.zeros(vectors.shape[1])
    centred = sounding - mean
    variances, axes = np.linalg.eigh(centred.T @ centred / max(1, len(centred)))
    least = max(float(variances.max(initial=0.0)) * _LEAST_VARIANCE, 1e-12)
    scaled = axes * np.maximum(variances, least) ** -0.25
    return mean.astype(np.float32), scaled.astype(np.float32)


def _blocks(parts: Iterator[NDArray[np.float16]]) -> Iterator[Vectors]:
    for part in parts:
        for begin in range(0, len(part), 1 << 14):
            yield part[begin : begin + (1 << 14)].astype(np.float32)


def _usearch(folder: Path, prepared: Prepared, report: Report) -> Any:
    """Open the index of usearch; build it if it is missing or outdated."""
    usearch = load("usearch.index", purpose=f"a search among more than {EXACT} stretches", extra="search")
    path, stamp = folder / ".prepared.usearch", folder / ".prepared.usearch.json"
    count, width = prepared.vectors.shape
    wanted = json.dumps([count, width, (folder / ".prepared.npz").stat().st_mtime_ns])
    if not (path.is_file() and stamp.is_file() and stamp.read_text() == wanted):
        report(f"building an index of {count} stretches; this takes minutes, but only once")
        index = usearch.Index(ndim=width, metric="ip", dtype="f16")
        for begin in range(0, count, 1 << 16):
            rows = np.array(prepared.vectors[begin : begin + (1 << 16)])
            index.add(np.arange(begin, begin + len(rows)), rows)
        with whole_file(path, "wb") as file:
            file.write(index.save())
        with whole_file(stamp) as file:
            file.write(wanted)
    return usearch.Index.restore(str(path), view=True)


@dataclass(frozen=True)
class Hit:
    """A result of a search.

    Attributes:
        recording: number of the recording in the index.
        start: start of the stretch, seconds.
        end: end of the stretch, seconds.
        score: inner product of the stretch with the mean of the prepared queries, at most 1; less half of
            that with the negative queries.
    """

    recording: int
    start: float
    end: float
    score: float


@dataclass(frozen=True)
class Query:
    """A stretch to search for.

    Attributes:
        vector: (D,) embedding of the stretch.
        path: absolute path of its recording.
        start: start, seconds.
        end: end, seconds.
    """

    vector: Vectors
    path: str
    start: float
    end: float


def search(
    prepared: Prepared,
    index: Index,
    like: Sequence[Query],
    unlike: Sequence[Query] = (),
    *,
    count: int,
    per_recording: int | None = None,
) -> list[Hit]:
    """Find the stretches that are most similar to queries.

    Args:
        prepared: prepared vectors of the archive.
        index: stretches of the archive.
        like: queries whose mean is searched for; at least one.
        unlike: negative queries.
        count: largest number of results.
        per_recording: largest number of results per recording; None for no limit.

    Returns:
        Results, the highest score first. Stretches that overlap with a query are left out.
    """
    wanted = prepared.prepare(np.stack([query.vector for query in like])).mean(axis=0)
    if unlike:
        others = prepared.prepare(np.stack([query.vector for query in unlike]))
        wanted = wanted - np.float32(_UNLIKE) * others.mean(axis=0)
    number = {path: i for i, path in enumerate(index.paths)}
    own = [(number.get(query.path), query.start, query.end) for query in (*like, *unlike)]
    asked = count + len(own)
    while True:
        rows, scores = prepared.best(wanted, min(asked, len(index)))
        hits = _chosen(index, rows, scores, own, count, per_recording)
        if len(hits) >= count or asked >= len(index):
            return hits
        asked *= 8


def _chosen(
    index: Index,
    rows: NDArray[np.int64],
    scores: Vectors,
    own: Sequence[tuple[int | None, float, float]],
    count: int,
    per_recording: int | None,
) -> list[Hit]:
    hits: list[Hit] = []
    of_recording: dict[int, int] = {}
    for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
        recording, start = int(index.recording[row]), float(index.starts[row])
        end = start + float(index.durations[row])
        is_query = any(recording == at and start < to and end > since for at, since, to in own)
        if is_query or of_recording.get(recording, 0) == per_recording:
            continue
        of_recording[recording] = of_recording.get(recording, 0) + 1
        hits.append(Hit(recording, start, end, score))
        if len(hits) == count:
            break
    return hits


def clusters(
    vectors: NDArray[np.float16], count: int, *, seed: int = 0, rounds: int = 25
) -> tuple[NDArray[np.int64], Vectors]:
    """Cluster prepared vectors with spherical k-means.

    Args:
        vectors: (n, D) of length 1, or 0 for silence.
        count: largest number of clusters.
        seed: random seed of the sample and of the first centres.
        rounds: largest number of iterations.

    Returns:
        (n,) cluster of each vector, numbered by decreasing size from 0, -1 for silence; and (n,) cosine to
        the centre, 0 for silence.
    """
    rng = np.random.default_rng(seed)
    sounding = np.flatnonzero(np.any(vectors, axis=1))
    groups, closeness = np.full(len(vectors), -1), np.zeros(len(vectors), np.float32)
    if not len(sounding):
        return groups, closeness
    chosen = sounding if len(sounding) <= _SAMPLE else np.sort(rng.choice(sounding, _SAMPLE, replace=False))
    sample = np.asarray(vectors[chosen], np.float32)
    centres = _first_centres(sample, min(count, len(sample)), rng)
    before = np.full(len(sample), -1)
    for _ in range(rounds):
        nearest = (sample @ centres.T).argmax(axis=1)
        if (nearest == before).all():
            break
        before = nearest
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, sample)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(length > 0.0, sums / np.maximum(length, 1e-12), centres)
    for begin in range(0, len(sounding), 1 << 14):
        rows = sounding[begin : begin + (1 << 14)]
        cosines = np.asarray(vectors[rows], np.float32) @ centres.T
        groups[rows], closeness[rows] = cosines.argmax(axis=1), cosines.max(axis=1)
    sizes = np.bincount(groups[sounding], minlength=len(centres))
    place = np.empty(len(centres), np.int64)
    place[np.argsort(-sizes, kind="stable")] = np.arange(len(centres))
    groups[sounding] = place[groups[sounding]]
    return groups, closeness


def _first_centres(sample: Vectors, count: int, rng: np.random.Generator) -> Vectors:
    """Draw first centres that are far from each other, with k-means++."""
    centres = [sample[rng.integers(len(sample))]]
    distance = 1.0 - sample @ centres[0]
    while len(centres) < count:
        chances = np.maximum(distance, 0.0).astype(np.float64) ** 2
        if not chances.sum() > 0.0:
            break
        centres.append(sample[rng.choice(len(sample), p=chances / chances.sum())])
        distance = np.minimum(distance, 1.0 - sample @ centres[-1])
    return np.stack(centres)
