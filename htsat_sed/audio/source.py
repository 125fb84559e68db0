"""Interface of the decoders: a recording at its own sample rate, with its own channels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

NO_SOUND = 1e12  # limit of valid samples, which keeps the energy of a window within float32
TOLERANCE = 0.01

_BLOCK_SECONDS = 5
_BLOCK_VALUES = 1 << 22  # of all channels together, 16 MiB
_INTEGER_PEAK = 100.0  # floats with a higher peak that often exceed 1 are unscaled integers
_INTEGER_SHARE = 0.05
_FULL_SCALES = (2.0**15, 2.0**23, 2.0**31)
_SILENT = 1e-4  # -80 dB


class Source(ABC):
    """A decoded recording.

    Attributes:
        rate: sample rate, Hz.
        channels: number of channels.
        tracks: number of audio tracks in the file.
        track: index of this track.
        promised: duration stated in the header, seconds; None if not stated.
        tolerance: seconds by which the decoded duration of a complete file may miss `promised`.
        expected: expected duration for progress, seconds.
        ending: why the recording ended early, known after `blocks` is exhausted; None if it did not.
        damage: warnings, for instance about gaps; known after `blocks` is exhausted.
        subtype: libsndfile's sample type for what `blocks` yields, where 32-bit integers and 64-bit floats
            have the precision of 32-bit floats; PCM_16 for lossy codecs.
        again: opens the recording again, with an audio track by its index.
    """

    def __init__(self, rate: int, channels: int, subtype: str) -> None:
        self.rate = rate
        self.channels = channels
        self.subtype = subtype
        self.tracks = 1
        self.track = 0
        self.promised: float | None = None
        self.tolerance = TOLERANCE
        self.expected: float | None = None
        self.ending: str | None = None
        self.damage: list[str] = []
        self.again: Callable[[int, ExitStack], Source] | None = None

    @abstractmethod
    def samples(self) -> Iterator[NDArray[np.float32]]:
        """Yield (channels, frames) blocks with stored values; some may be empty."""

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield (channels, frames) blocks; floats on the scale of integers are divided by full scale.

        An empty block reports progress.
        """
        scale: float | None = None if self.subtype == "FLOAT" else 1.0
        for block in self.samples():
            if scale is None and block.size:
                peak = peak_of(block)
                # Near silence on the scale of integers begins with values of ±1.
                if 0.0 < peak < 1.0 or (peak == 1.0 and np.any(block != np.rint(block))):
                    scale = 1.0
                elif peak > 0.0:
                    scale = 1.0
                    for found in self._full_scale(block):
                        scale = found or scale
                        yield np.zeros((self.channels, 0), np.float32)
                    if scale != 1.0:
                        self.damage.append(
                            "its floating-point samples are on the scale of integers: they are divided by "
                            f"{scale:.0f}"
                        )
            yield block if scale is None or scale == 1.0 else block / np.float32(scale)

    def _full_scale(self, _: NDArray[np.float32]) -> Iterator[float | None]:
        """Read the whole recording; the last value is the divisor if its floats are unscaled integers."""
        peak = 0.0
        sounding = beyond = 0
        with ExitStack() as stack:
            assert self.again is not None
            for block in self.again(self.track, stack).samples():
                peak = max(peak, peak_of(block))
                sounding += int(np.count_nonzero(block))
                beyond += int(np.count_nonzero(np.abs(block) > 1.0))
                yield None
        yield _divisor(peak, sounding, beyond)

    def other_track(self) -> Iterator[int | None]:
        """Read the other audio tracks; the last value is the number of the first with sound, from 1."""
        for track in range(1, self.tracks):
            with ExitStack() as stack:
                assert self.again is not None
                for block in self.again(track, stack).samples():
                    if not is_silent(peak_of(block)):
                        yield track + 1
                        return
                    yield None


def is_silent(peak: float) -> bool:
    """Whether a peak is below -80 dB of full scale."""
    return peak < _SILENT


def full_scale(block: NDArray[np.float32]) -> float | None:
    """Divisor of floats that appear to be unscaled integers; None for others."""
    return _divisor(peak_of(block), int(np.count_nonzero(block)), int(np.count_nonzero(np.abs(block) > 1.0)))


def _divisor(peak: float, sounding: int, beyond: int) -> float | None:
    if peak > _INTEGER_PEAK and beyond > _INTEGER_SHARE * sounding:
        return next((full for full in _FULL_SCALES if peak <= 2 * full), None)
    return None


def peak_of(block: NDArray[np.float32]) -> float:
    """Highest magnitude below `NO_SOUND`."""
    if not block.size:
        return 0.0
    high = max(float(block.max()), -float(block.min()))
    if high < NO_SOUND:
        return high
    magnitudes = np.abs(block)
    return float(np.max(magnitudes, initial=0.0, where=magnitudes < NO_SOUND))


def block_frames(rate: int, channels: int) -> int:
    """Frames in a block: 5 s, or fewer for many channels."""
    return max(1, min(_BLOCK_SECONDS * rate, _BLOCK_VALUES // channels))
