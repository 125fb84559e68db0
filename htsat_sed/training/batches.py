"""Batches of examples: mixes the parts of the data by share and splits them over processes and workers."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from htsat_sed.errors import UsageError
from htsat_sed.training.examples import Example, Series


class Batch(NamedTuple):
    """A batch of B examples; see `Example` for the fields.

    Attributes:
        number: number of the batch within the run, the same in every process; it seeds the randomness of the
            step.
        waveforms: (B, N) samples in [-1, 1], float32.
        clip: (B, K) clip targets in [0, 1], float32.
        tokens: (B, T, K) token targets in [0, 1], float32; 0 where labels are weak.
        strong: (B,) bool, whether the labels are strong.
        unknown: (B, K) bool, classes that may or may not be present.
        broken: (path, reason) of each clip that could not be read.
    """

    number: int
    waveforms: Tensor
    clip: Tensor
    tokens: Tensor
    strong: Tensor
    unknown: Tensor
    broken: list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Deal:
    """The share of each step's examples that one process makes.

    Attributes:
        first: steps already done, at least 0.
        steps: total number of steps.
        accumulate: batches per step, at least 1.
        rank: rank of this process, from 0.
        world: number of processes.
    """

    first: int
    steps: int
    accumulate: int
    rank: int
    world: int


class Batches(IterableDataset[Batch]):
    """The training batches of one process.

    Args:
        parts: series of examples, each with its relative share of a step.
        size: examples per step, over all processes and accumulated batches.
        deal: the share of this process.

    Raises:
        ValueError: `size` is not a multiple of processes times accumulated batches, or is too small to hold
            an example of each part.
    """

    def __init__(self, parts: Sequence[tuple[Series, float]], *, size: int, deal: Deal) -> None:
        super().__init__()
        pieces = deal.world * deal.accumulate
        if size % pieces:
            raise UsageError(
                f"wanted batch_size to be a multiple of {pieces}, the processes times the accumulated "
                f"batches; got {size}"
            )
        self._series = [series for series, _ in parts]
        self._plan = plan([share for _, share in parts], size)
        self._deal = deal

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches in order; with n workers, each makes every n-th batch."""
        workers, own = _workers()
        deal = self._deal
        for number in range(deal.first * deal.accumulate + own, deal.steps * deal.accumulate, workers):
            yield self._batch(number)

    def _batch(self, number: int) -> Batch:
        deal = self._deal
        step, part = divmod(number, deal.accumulate)
        counts = np.bincount(self._plan, minlength=len(self._series))
        made: list[Example] = []
        for slot in range(part * deal.world + deal.rank, len(self._plan), deal.world * deal.accumulate):
            of = int(self._plan[slot])
            before = int(np.count_nonzero(self._plan[:slot] == of))
            made.append(self._series[of][step * int(counts[of]) + before])
        return collate(made, number)


def plan(shares: Sequence[float], size: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Assign each example of a step to a part of the data, spreading the parts as evenly as possible.

    Args:
        shares: relative share of each part, above 0.
        size: examples per step.

    Returns:
        (size,) index of the part of each example.

    Raises:
        ValueError: a part would get no example.
    """
    wanted = np.asarray(shares) / sum(shares)
    given = np.zeros(len(shares), np.int64)
    order = np.zeros(size, np.int64)
    for slot in range(size):
        order[slot] = np.argmax(wanted * (slot + 1) - given)
        given[order[slot]] += 1
    if not given.all():
        raise UsageError(f"wanted a batch_size that has room for {len(shares)} parts, got {size}")
    return order


def collate(examples: Sequence[Example], number: int) -> Batch:
    """Stack B examples into a batch.

    Args:
        examples: at least one, all of the same shape.
        number: number of the batch.
    """
    return Batch(
        number,
        torch.from_numpy(np.stack([example.waveform for example in examples])),
        torch.from_numpy(np.stack([example.clip for example in examples])),
        torch.from_numpy(np.stack([example.tokens for example in examples])),
        torch.tensor([example.events is not None for example in examples]),
        torch.from_numpy(np.stack([example.unknown for example in examples])),
        [entry for example in examples for entry in example.broken],
    )


class ValidationBatches(IterableDataset[Batch]):
    """Validation batches: the first examples of each series, once.

    Args:
        parts: series, each with the number of examples to take.
        size: examples per batch; the last batch may be smaller.
    """

    def __init__(self, parts: Sequence[tuple[Series, int]], *, size: int) -> None:
        super().__init__()
        places = [(series, number) for series, count in parts for number in range(count)]
        self._batches = [places[i : i + size] for i in range(0, len(places), size)]

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches in order; with n workers, each makes every n-th batch."""
        workers, own = _workers()
        for number in range(own, len(self._batches), workers):
            yield collate([series[i] for series, i in self._batches[number]], number)


def _workers() -> tuple[int, int]:
    """Return the number of workers and the index of this one; 1 and 0 without worker processes."""
    worker = get_worker_info()
    return (worker.num_workers, worker.id) if worker else (1, 0)


_PREFETCHED = 4  # batches per worker


def loader(batches: Batches | ValidationBatches, *, workers: int, shared: bool = False) -> DataLoader[Any]:
    """Make a data loader of batches.

    Args:
        batches: the batches of this process.
        workers: number of worker processes; 0 makes the batches in this process.
        shared: pass batches through shared memory. This is faster than the default, a pipe, but a worker
            blocks for ever when shared memory is full; see `fits_shared_memory`.

    Returns:
        A loader whose items are batches if `shared`, else the output of `pack`, which `unpack` reverts.
    """
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=_PREFETCHED if workers else None,
        collate_fn=None if shared else pack,
    )


def fits_shared_memory(batch_bytes: int, *, readers: int, memory: Path = Path("/dev/shm")) -> bool:
    """Return whether the prefetched batches of all workers fill less than half of the free shared memory.

    Args:
        batch_bytes: size of the largest batch, bytes.
        readers: worker processes on this machine.
        memory: mount point of shared memory; containers often have 64 MB.

    Returns:
        False if `memory` does not exist, as on macOS and Windows.
    """
    try:
        return 2 * batch_bytes * readers * (_PREFETCHED + 1) < shutil.disk_usage(memory).free
    except OSError:
        return False


def can_have_workers() -> bool:
    """Return whether worker processes can be synchronised: their locks lie in shared memory.

    Some containers have none, or one that is read-only.
    """
    try:
        multiprocessing.get_context().Lock()
    except (OSError, ImportError):
        return False
    return True


def pack(batch: Any) -> list[Any]:
    """Return the fields of a batch with arrays for tensors, which torch would send through shared memory."""
    return [value.numpy() if isinstance(value, Tensor) else value for value in batch]


def unpack(fields: Sequence[Any]) -> Batch:
    """Rebuild a batch from the fields that `pack` returned."""
    return Batch._make(
        torch.from_numpy(value) if isinstance(value, np.ndarray) else value for value in fields
    )
