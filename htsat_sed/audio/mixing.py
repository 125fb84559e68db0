"""Mixing to mono: the mean of the channels or one of them, with warnings about unusable samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from htsat_sed.audio.source import NO_SOUND, is_silent, peak_of

# Channels cancel where their mean has less than a tenth of the power that uncorrelated channels would give;
# power below -80 dB does not count.
_CANCELLED = 0.1
_FAINT = 1e-8  # mean power of the channels
_LEAST_SECONDS = 0.5


class Mixer:
    """Mixes the blocks of one recording to mono.

    Args:
        rate: sample rate, Hz.
        channel: only this channel, from 1; None for the mean of all.
    """

    def __init__(self, rate: int, channel: int | None) -> None:
        self._rate = rate
        self._channel = channel
        self._frames = self._samples = self._silenced = self._first_silenced = 0
        self._peak = self._peak_of_others = 0.0
        self._cancelled = 0  # frames
        self._first_cancelled = 0

    def mono(self, channels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mix a non-empty block (channels, samples) to (samples,)."""
        if self._channel is not None:
            self._note_peaks(channels)
            channels = channels[self._channel - 1 : self._channel]
        # The condition is also false for NaN. Finding extremes is several times faster than making a mask.
        if not (channels.max() < NO_SOUND and channels.min() > -NO_SOUND):
            sound = np.abs(channels) < NO_SOUND
            if self._silenced == 0:
                self._first_silenced = self._frames + int(np.argmin(sound.all(axis=0)))
            self._silenced += sound.size - int(np.count_nonzero(sound))
            channels = np.where(sound, channels, np.float32(0))
        # A sum of rows is several times faster than a mean along the short axis.
        mono: NDArray[np.float32] = sum(channels[1:], start=channels[0]) / np.float32(len(channels))
        if len(channels) > 1:
            self._compare(channels, mono)
        self._frames += channels.shape[1]
        self._samples += channels.size
        return mono

    @property
    def nothing_sounds(self) -> bool:
        """Whether all samples were invalid."""
        return self._silenced == self._samples

    def defects(self) -> list[str]:
        """Warnings about the blocks so far."""
        found = []
        if self._silenced:
            found.append(
                f"{self._silenced} of {self._samples} samples are NaN, infinite or beyond 1e12, the first at "
                f"{self._first_silenced / self._rate:.2f} s; they count as 0"
            )
        if 0 < self._cancelled >= min(_LEAST_SECONDS * self._rate, self._frames):
            cancelled, whole, first = (
                frames / self._rate for frames in (self._cancelled, self._frames, self._first_cancelled)
            )
            found.append(
                f"its channels cancel each other when averaged, in {cancelled:.2f} of {whole:.2f} s, the "
                f"first at {first:.2f} s: use one of them, such as --channel 1"
            )
        if is_silent(self._peak) and not is_silent(self._peak_of_others):
            found.append(f"its channel {self._channel} is silent, but another channel is not")
        return found

    def _note_peaks(self, channels: NDArray[np.float32]) -> None:
        assert self._channel is not None
        if is_silent(self._peak):  # otherwise it is known not to be silent
            self._peak = max(self._peak, peak_of(channels[self._channel - 1]))
            others = (peak_of(each) for i, each in enumerate(channels) if i != self._channel - 1)
            self._peak_of_others = max([self._peak_of_others, *others])

    def _compare(self, channels: NDArray[np.float32], mono: NDArray[np.float32]) -> None:
        power = sum(map(_power, channels)) / len(channels)
        mixed = _power(mono)
        if power > _FAINT and mixed < _CANCELLED * power / len(channels):
            if self._cancelled == 0:
                self._first_cancelled = self._frames
            self._cancelled += len(mono)


def _power(samples: NDArray[np.float32]) -> float:
    """Mean square, without the DC offset of converters."""
    return float(np.dot(samples, samples)) / len(samples) - float(samples.mean()) ** 2
