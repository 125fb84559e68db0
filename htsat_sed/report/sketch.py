"""What a page shows and plays of a recording: spectrogram tiles, waveform peaks, sound.

It is computed from the windows that pass to the model, so that a recording is decoded once. Memory grows by
some 10 kB a second of sound.
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
FRAMES = 50  # a second
TILE = 1024  # columns
ZOOM = 8  # columns of a level that make one of the next
QUIETEST = 120.0  # dB below a sine of full scale: a pixel of 0; one of 255 is as loud as that sine

_WINDOW = 0.064  # seconds, of the STFT
_PEAKS = 4000  # of the overview, at most
_WEBP = {"quality": 45, "method": 2}
_DETAIL = (
    (1200.0, 1),
    (3600.0, 2),
    (math.inf, 4),
)  # seconds of sound up to which so many frames make a column


@dataclass(frozen=True)
class Level:
    """A spectrogram at one zoom.

    Attributes:
        seconds: duration of a column.
        tiles: WebP images, `TILE` columns each but the last, low frequencies at the bottom.
    """

    seconds: float
    tiles: list[bytes]


class Sketch:
    """What is drawn and played of one recording, as its windows come.

    Args:
        config: of the model whose windows they are.
        seconds: of sound that the whole page shows, as far as known; decides how fine the spectrogram is.
        bit_rate: of the sound, bits a second; None for no sound.
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
        # A band is the mean of its bins, which read 1 for a sine of full scale; some may be above Nyquist.
        scale = (self._window.sum() / 2.0).square()
        self._bank = bank / (bank.sum(dim=0).clamp(min=1e-10) * scale)
        self._pending = np.zeros(self._n_fft // 2, np.float32)  # frames are centred on their time
        self._columns: list[NDArray[np.uint8]] = []
        self._loudest: list[NDArray[np.float32]] = []
        self.reached = 0

    def through(self, windows: Iterator[Window]) -> Iterator[Window]:
        """Pass on the windows of a recording, and take each sample of them once."""
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
        """Pixels (frames, bands) of the next frames."""
        reach = (frames - 1) * self.hop + self._n_fft
        spectrum = torch.stft(
            samples[:reach], self._n_fft, self.hop, window=self._window, center=False, return_complex=True
        )
        power = (spectrum.real.square() + spectrum.imag.square()).mT @ self._bank
        pixels = (power.clamp(min=1e-12).log10() * 10.0 + QUIETEST) * (255.0 / QUIETEST)
        return pixels.round().clamp(0.0, 255.0).byte().numpy()

    @property
    def frames(self) -> int:
        """Frames of the recording."""
        return max(1, -(-self.reached // self.hop))

    def levels(self) -> list[Level]:
        """The spectrogram from fine to coarse, each `ZOOM` times as coarse as the one before."""
        columns = _pooled(np.concatenate(self._columns)[: self.frames], self.pool)
        found = [Level(self.seconds * self.pool, _tiles(columns))]
        while len(columns) > 2 * TILE:
            columns = _pooled(columns, ZOOM)
            found.append(Level(found[-1].seconds * ZOOM, _tiles(columns)))
        return found

    def loudness(self) -> tuple[float, float]:
        """Levels of what is quiet and of what is loud, dB: 20 % and 99.9 % of the pixels are below them."""
        columns = np.concatenate(self._columns)[: self.frames]
        some = columns[:: max(1, len(columns) // 5000)]
        some = some[some > 0] if some.any() else some
        quiet, loud = np.percentile(some, [20.0, 99.9]) * (QUIETEST / 255.0) - QUIETEST
        return float(quiet), float(loud)

    def peaks(self) -> NDArray[np.uint8]:
        """Square root of the loudest sample of equal stretches, at most 4000; 255 for full scale."""
        loudest = np.concatenate(self._loudest)[: self.frames]
        pool = -(-len(loudest) // _PEAKS)
        most = np.maximum.reduceat(loudest, np.arange(0, len(loudest), pool))
        peaks: NDArray[np.uint8] = np.round(np.sqrt(most.clip(0.0, 1.0)) * 255.0).astype(np.uint8)
        return peaks


def stretches(
    events: Sequence[tuple[float, float]], *, duration: float, padding: float, longest: float
) -> list[tuple[int, int]]:
    """Packets of sound that cover events: first and one after the last of each stretch, disjoint, in order.

    Args:
        events: onset and offset, seconds.
        duration: of the recording, seconds.
        padding: seconds before and after an event.
        longest: seconds of an event from its onset on that are covered.
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
    """Columns of `count` each: between their mean and their maximum, so that short sounds stay visible."""
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
