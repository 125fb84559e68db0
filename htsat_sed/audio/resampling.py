"""Resampling of blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import soxr
from numpy.typing import NDArray


def resampled(
    blocks: Iterable[NDArray[np.float32]], source: int, target: int
) -> Iterator[NDArray[np.float32]]:
    """Resample (channels, n) blocks from one rate (Hz) to another.

    Yields:
        Non-empty blocks of the same channels, with round(n * target / source) samples in total, halves
        upwards. At equal rates, the given blocks.
    """
    if source == target:
        yield from blocks
        return
    resampler: soxr.ResampleStream | None = None
    taken = yielded = channels = 0
    for block in blocks:
        if resampler is None:
            channels = len(block)
            resampler = soxr.ResampleStream(source, target, channels, quality="HQ")
        taken += block.shape[1]
        made = _through(resampler, block)
        if made.shape[1]:
            yielded += made.shape[1]
            yield made
    missing = (2 * taken * target + source) // (2 * source) - yielded
    if resampler is not None and missing > 0:
        tail = _through(resampler, np.zeros((channels, 0), np.float32), last=True)[:, :missing]
        yield np.pad(tail, ((0, 0), (0, missing - tail.shape[1])))


def _through(
    resampler: soxr.ResampleStream, block: NDArray[np.float32], *, last: bool = False
) -> NDArray[np.float32]:
    if len(block) == 1:  # soxr takes one channel as a flat array
        mono: NDArray[np.float32] = resampler.resample_chunk(np.ascontiguousarray(block[0]), last=last)
        return mono[None]
    many: NDArray[np.float32] = resampler.resample_chunk(np.ascontiguousarray(block.T), last=last)
    return many.T
