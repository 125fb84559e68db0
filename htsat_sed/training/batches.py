"""Batches of examples: the parts of the data in their shares, dealt to processes and readers."""

from __future__ import annotations

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
    """B examples.

    Attributes:
        number: of the batch, over all processes; what is random in a step follows from it.
        waveforms: (B, N).
        clip: (B, K).
        tokens: (B, T, K).
        strong: (B,) bool.
        unknown: (B, K) bool.
        broken: paths and reasons of clips that could not be read.
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
    """Which part of every step's examples a process makes.

    Attributes:
        first: steps done already.
        steps: steps there are.
        accumulate: batches that make a step.
        rank: of this process.
        world: number of processes.
    """

    first: int
    steps: int
    accumulate: int
    rank: int
    world: int


class Batches(IterableDataset[Batch]):
    """The batches of one process.

    Args:
        parts: series with their shares of a step.
        size: examples a step, over all processes and accumulated batches.
        deal: what this process makes of them.

    Raises:
        ValueError: a step cannot be dealt evenly, or is too small for all parts.
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
        """The batches in order; of several readers, each makes every so-many-th."""
        reader = get_worker_info()
        readers, own = (reader.num_workers, reader.id) if reader else (1, 0)
        deal = self._deal
        for number in range(deal.first * deal.accumulate + own, deal.steps * deal.accumulate, readers):
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
    """Which part each example of a step comes from, spread as evenly as possible.

    Args:
        shares: of each part, relative.
        size: examples a step.

    Raises:
        ValueError: a part would get none.
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
    """Stack examples."""
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
    """The first examples of some series, once.

    Args:
        parts: series with the number of examples wanted of each.
        size: examples a batch.
    """

    def __init__(self, parts: Sequence[tuple[Series, int]], *, size: int) -> None:
        super().__init__()
        places = [(series, number) for series, count in parts for number in range(count)]
        self._batches = [places[i : i + size] for i in range(0, len(places), size)]

    def __iter__(self) -> Iterator[Batch]:
        """The batches in order; of several readers, each makes every so-many-th."""
        reader = get_worker_info()
        readers, own = (reader.num_workers, reader.id) if reader else (1, 0)
        for number in range(own, len(self._batches), readers):
            yield collate([series[i] for series, i in self._batches[number]], number)


_PREFETCHED = 4  # batches that a reader makes ahead


def loader(batches: Batches | ValidationBatches, *, workers: int, shared: bool = False) -> DataLoader[Any]:
    """Batches read by other processes; `unpack` makes a batch of each item.

    Args:
        batches: of this process.
        workers: processes that read; 0 for none but this one.
        shared: hand over batches in shared memory: quicker, but a reader waits for ever where it is full, see
            `fits_shared_memory`. Else they go through a pipe.
    """
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=_PREFETCHED if workers else None,
        collate_fn=None if shared else pack,
    )


def fits_shared_memory(batch_bytes: int, *, readers: int, memory: Path = Path("/dev/shm")) -> bool:
    """Whether the batches that all readers of a machine make ahead take less than half of what is free.

    Args:
        batch_bytes: of the largest batch.
        readers: processes on this machine.
        memory: file system that stands for shared memory; a container's has 64 MB.
    """
    try:
        return 2 * batch_bytes * readers * (_PREFETCHED + 1) < shutil.disk_usage(memory).free
    except OSError:  # no Linux
        return False


def pack(batch: Any) -> list[Any]:
    """The fields of a batch with arrays in place of tensors, which processes hand over in shared memory."""
    return [value.numpy() if isinstance(value, Tensor) else value for value in batch]


def unpack(fields: Sequence[Any]) -> Batch:
    """A batch of what `loader` gives."""
    return Batch._make(
        torch.from_numpy(value) if isinstance(value, np.ndarray) else value for value in fields
    )
