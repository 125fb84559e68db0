"""Log-mel spectrograms for plots, and the mel scale of their axis."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from htsat_sed.audio import open_recording, windows
from htsat_sed.model.frontend import LogMel
from htsat_sed.model.htsat import HTSATConfig

_HERTZ = (1000, 2000, 4000, 8000, 500, 16_000, 32_000, 250, 100, 50, 20)  # tick candidates by priority


@dataclass(frozen=True, eq=False)
class Spectrogram:
    """Log-mel spectrogram of a time range of a recording.

    Attributes:
        decibels: (columns, M) float32, M mel bands from low to high.
        start: start of the first column, seconds.
        column_seconds: duration of a column.
        fmin: lower edge of the mel bank, Hz.
        fmax: upper edge of the mel bank, Hz.
    """

    decibels: NDArray[np.float32]
    start: float
    column_seconds: float
    fmin: float
    fmax: float


def slaney_mel(hertz: ArrayLike) -> NDArray[np.float64]:
    """Convert Hz to the mel scale of the model's mel bank: linear up to 1 kHz, logarithmic above.

    Args:
        hertz: 0 or more.

    Returns:
        Mel: 3 in 200 Hz up to 1 kHz, which is 15, then 27 to every factor of 6.4.

    Source: M. Slaney, Auditory Toolbox, technical report 1998-010, Interval Research.
    """
    f = np.asarray(hertz, np.float64)
    return np.where(
        f < 1000.0, 3.0 * f / 200.0, 15.0 + 27.0 * np.log(np.maximum(f, 1000.0) / 1000.0) / np.log(6.4)
    )


def hertz_ticks(fmin: float, fmax: float) -> list[int]:
    """Tick frequencies of a mel axis in ascending order, far enough apart to be read.

    A bank of less than an octave may have none.

    Args:
        fmin: lower edge, Hz.
        fmax: upper edge, Hz.
    """
    low, high = slaney_mel([fmin, fmax])
    kept: list[int] = []
    for hertz in _HERTZ:
        mel = slaney_mel(hertz)
        clear = all(abs(mel - slaney_mel(other)) >= 0.1 * (high - low) for other in kept)
        if low < mel < high and clear:
            kept.append(hertz)
    return sorted(kept)


def read_spectrogram(
    path: str | os.PathLike[str],
    config: HTSATConfig,
    *,
    start: float,
    end: float,
    column_seconds: float,
    channel: int | None = None,
    track: int | None = None,
) -> Spectrogram:
    """Compute the log-mel spectrogram of a time range.

    Memory grows only with the number of columns.

    Args:
        path: a recording.
        config: configuration of the front end.
        start: seconds, less than the recording's duration.
        end: seconds, exclusive, more than `start`.
        column_seconds: requested duration of a column, more than 0; rounded up to whole frames.
        channel: see `htsat_sed.audio.open_recording`.
        track: see `htsat_sed.audio.open_recording`.

    Returns:
        Columns of one frame, or of the mean power of several.

    Raises:
        AudioError: the recording cannot be read.
    """
    rate, hop = config.sample_rate, config.hop_length
    frontend = LogMel(
        sample_rate=rate,
        n_fft=config.n_fft,
        hop_length=hop,
        mel_bands=config.mel_bands,
        fmin=config.fmin,
        fmax=config.fmax,
    )
    first = math.floor(start * rate / hop)
    last = max(first + 1, math.ceil(end * rate / hop))
    pool = max(1, math.ceil(round(column_seconds * rate / hop, 6)))
    power = np.zeros((math.ceil((last - first) / pool), config.mel_bands))
    frames = np.zeros(len(power), np.int64)

    def add(frame: int, decibels: NDArray[np.float32]) -> None:
        wanted = decibels[max(0, first - frame) : max(0, last - frame)]
        columns = (np.arange(len(wanted)) + max(frame, first) - first) // pool
        np.add.at(power, columns, 10.0 ** (wanted.astype(np.float64) / 10.0))
        np.add.at(frames, columns, 1)

    # Chunks overlap by the frames whose STFT extends beyond the ends of a chunk.
    chunk, context = 1000, -(-config.n_fft // (2 * hop))
    tail, tail_frame = np.zeros((0, config.mel_bands), np.float32), 0
    with open_recording(path, rate, channel=channel, track=track) as stream:
        for window in windows(stream, window=(chunk + 2 * context) * hop, hop=chunk * hop):
            frame = window.start // hop
            if frame >= last:
                break
            if frame + chunk + 2 * context < first:
                continue
            samples = np.pad(window.samples, (0, max(0, config.n_fft // 2 + 1 - len(window.samples))))
            decibels: NDArray[np.float32] = frontend(torch.from_numpy(samples)[None])[0].numpy()
            lead = context if frame else 0
            add(frame + lead, decibels[lead : chunk + context])
            tail, tail_frame = decibels[chunk + context :], frame + chunk + context
    add(tail_frame, tail)
    with np.errstate(invalid="ignore"):
        mean = 10.0 * np.log10(power / frames[:, None])
    # A frame covers the hop around its centre.
    return Spectrogram(
        mean.astype(np.float32), (first - 0.5) * hop / rate, pool * hop / rate, config.fmin, config.fmax
    )
