"""The spectrogram tiles, waveform peaks and sound of a recording on a report page.

They are computed from the windows for the model, so that a recording is decoded only once. A sketch uses
about 10 kB of memory per second of sound.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from htsat_sed.audio import Window
from htsat_sed.audio.opus import PACKET_SECONDS, OpusEncoder
from htsat_sed.model.frontend import slaney_bank
from htsat_sed.model.htsat import HTSATConfig

BANDS = 128
FRAMES = 50  # frames per second
TILE = 1024  # columns per tile
ZOOM = 8  # columns of a level that form one column of the next
QUIETEST = 120.0  # pixel 255 is the level of a full-scale sine, pixel 0 is this many dB lower

_WINDOW = 0.064  # STFT window, seconds
_PEAKS = 4000  # most peaks of the overview
_WEBP = {"quality": 45, "method": 2}
_DETAIL = (
    (1200.0, 1),
    (3600.0, 2),
    (math.inf, 4),
)  # up to this many seconds of sound on the page: frames per column


@dataclass(frozen=True)
class Level:
    """A spectrogram at one zoom level.

    Attributes:
        seconds: duration of a column, seconds.
        tiles: WebP images of `TILE` columns, the last one possibly narrower; low frequencies at the bottom.
    """

    seconds: float
    tiles: list[bytes]


class Sketch:
    """Spectrogram, waveform and sound of a recording, computed window by window.

    Args:
        config: configuration of the model that the windows are for.
        seconds: total duration of the page, as far as known; it sets the resolution of the spectrogram.
        bit_rate: bit rate of the sound, bits per second; None for no sound.
    """

    def __init__(self, config: HTSATConfig, *, seconds: float, bit_rate: int | None) -> None:
        rate = config.sample_rate
        self.hop = round(rate / FRAMES)
        self.seconds = self.hop / rate
        self.fmin, self.fmax = config.fmin, config.fmax
        self.pool = next(pool for longest, pool in _DETAIL if seconds <= longest)
        self.opus = OpusEncoder(rate, bit_rate) if bit_rate is not None else None
        self._n_fft = 2 ** round(math.log2(_WINDOW * rate))
        self._window = torch.hann_window(self._n_fft)
        bank = slaney_bank(
            sample_rate=rate, n_fft=self._n_fft, bands=BANDS, fmin=config.fmin, fmax=config.fmax
        )
        # A band is the weighted mean of its bins, which are 1 for a full-scale sine. Empty bands stay 0.
        scale = (self._window.sum() / 2.0).square()
        self._bank = bank / (bank.sum(dim=0).clamp(min=1e-10) * scale)
        self._pending = np.zeros(self._n_fft // 2, np.float32)  # frames are centred on their time
        self._columns: list[NDArray[np.uint8]] = []
        self._loudest: list[NDArray[np.float32]] = []
        self.reached = 0

    def through(self, windows: Iterator[Window]) -> Iterator[Window]:
        """Yield the windows unchanged, and add each of their samples to the sketch once."""
        for window in windows:
            self._add(window.samples[max(0, self.reached - window.start) :])
            yield window
        self._add(np.zeros(self._n_fft // 2 + self.hop, np.float32), sound=False)
        if self.opus is not None:
            self.opus.add(np.zeros(0, np.float32), last=True)

    def _add(self, samples: NDArray[np.float32], *, sound: bool = True) -> None:
        if sound:
            self.reached += len(samples)
            if self.opus is not None:
                self.opus.add(samples)
        pending = np.concatenate([self._pending, samples])
        frames = (len(pending) - self._n_fft) // self.hop + 1
        if frames > 0:
            self._columns.append(self._decibels(torch.from_numpy(pending), frames))
            middle = self._n_fft // 2
            around = np.abs(pending[middle : middle + frames * self.hop].reshape(frames, self.hop))
            self._loudest.append(around.max(axis=1))
            pending = pending[frames * self.hop :]
        self._pending = pending

    def _decibels(self, samples: torch.Tensor, frames: int) -> NDArray[np.uint8]:
        """Compute the pixels (frames, bands) of the next frames."""
        reach = (frames - 1) * self.hop + self._n_fft
        spectrum = torch.stft(
            samples[:reach], self._n_fft, self.hop, window=self._window, center=False, return_complex=True
        )
        power = (spectrum.real.square() + spectrum.imag.square()).mT @ self._bank
        pixels = (power.clamp(min=1e-12).log10() * 10.0 + QUIETEST) * (255.0 / QUIETEST)
        return pixels.round().clamp(0.0, 255.0).byte().numpy()

    @property
    def frames(self) -> int:
        """Number of frames, at least 1."""
        return max(1, -(-self.reached // self.hop))

    def levels(self) -> list[Level]:
        """Return the zoom levels of the spectrogram, each `ZOOM` times as coarse as the previous one."""
        columns = _pooled(np.concatenate(self._columns)[: self.frames], self.pool)
        found = [Level(self.seconds * self.pool, _tiles(columns))]
        while len(columns) > 2 * TILE:
            columns = _pooled(columns, ZOOM)
            found.append(Level(found[-1].seconds * ZOOM, _tiles(columns)))
        return found

    def loudness(self) -> tuple[float, float]:
        """Return the 20 % and 99.9 % percentiles of the level, dB relative to a full-scale sine."""
        columns = np.concatenate(self._columns)[: self.frames]
        some = columns[:: max(1, len(columns) // 5000)]
        some = some[some > 0] if some.any() else some
        quiet, loud = np.percentile(some, [20.0, 99.9]) * (QUIETEST / 255.0) - QUIETEST
        return float(quiet), float(loud)

    def peaks(self) -> NDArray[np.uint8]:
        """Return the square root of the peak of equal stretches, scaled to 255; at most 4000 values."""
        loudest = np.concatenate(self._loudest)[: self.frames]
        pool = -(-len(loudest) // _PEAKS)
        most = np.maximum.reduceat(loudest, np.arange(0, len(loudest), pool))
        peaks: NDArray[np.uint8] = np.round(np.sqrt(most.clip(0.0, 1.0)) * 255.0).astype(np.uint8)
        return peaks


def stretches(
    events: Sequence[tuple[float, float]], *, duration: float, padding: float, longest: float
) -> list[tuple[int, int]]:
    """Find the stretches of sound packets that cover events.

    Args:
        events: onsets and offsets, seconds.
        duration: duration of the recording, seconds.
        padding: sound to keep before and after an event, seconds.
        longest: sound to keep of an event from its onset, seconds.

    Returns:
        (first packet, last packet + 1) of each stretch, disjoint and sorted.
    """
    last = math.ceil(duration / PACKET_SECONDS)
    parts: list[tuple[int, int]] = []
    for onset, offset in sorted(events):
        first = max(0, math.floor((onset - padding) / PACKET_SECONDS))
        end = min(last, math.ceil((min(offset, onset + longest) + padding) / PACKET_SECONDS))
        if parts and first <= parts[-1][1]:
            parts[-1] = (parts[-1][0], max(end, parts[-1][1]))
        else:
            parts.append((first, end))
    return parts


def _pooled(columns: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Pool `count` columns to halfway between their mean and maximum, so that short sounds stay visible."""
    if count == 1:
        return columns
    padded = np.pad(columns, ((0, -len(columns) % count), (0, 0)), mode="edge")
    groups = padded.reshape(-1, count, padded.shape[1])
    middle = (groups.mean(axis=1, dtype=np.float32) + groups.max(axis=1)) / 2.0
    pooled: NDArray[np.uint8] = middle.astype(np.uint8)
    return pooled


def _tiles(columns: NDArray[np.uint8]) -> list[bytes]:
    return [_webp(columns[first : first + TILE]) for first in range(0, len(columns), TILE)]


def _webp(columns: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(columns.T[::-1])).save(file, "WEBP", **_WEBP)
    return file.getvalue()
