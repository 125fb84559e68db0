"""The front end of HTS-AT: waveform to log-mel spectrogram."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from htsat_sed.errors import UsageError
from htsat_sed.model.swin import in_pieces

_FLOOR = 1e-10  # lower limit of the power before the logarithm: -100 dB
_SLANEY_HERTZ = 200.0 / 3.0  # one mel below 1 kHz
_SLANEY_STEP = math.log(6.4) / 27.0  # one mel above 1 kHz, as a difference of natural logarithms


def slaney_bank(*, sample_rate: int, n_fft: int, bands: int, fmin: float, fmax: float) -> Tensor:
    """Compute triangular mel filters of equal area on the mel scale of Slaney's Auditory Toolbox.

    The scale is linear below 1 kHz and logarithmic above. Neighbouring filters overlap by half.

    Args:
        sample_rate: Hz.
        n_fft: STFT size, samples.
        bands: number of filters M.
        fmin: lower edge of the first filter, Hz.
        fmax: upper edge of the last filter, Hz.

    Returns:
        (n_fft // 2 + 1, M) float32 weights, 1/Hz; all 0 for a filter that lies between two bins.
    """
    break_mel = 1000.0 / _SLANEY_HERTZ
    first, last = (
        hertz / _SLANEY_HERTZ if hertz < 1000.0 else break_mel + math.log(hertz / 1000.0) / _SLANEY_STEP
        for hertz in (fmin, fmax)
    )
    mel = torch.linspace(first, last, bands + 2)
    logarithmic = 1000.0 * torch.exp(_SLANEY_STEP * (mel - break_mel))
    edges = torch.where(mel < break_mel, _SLANEY_HERTZ * mel, logarithmic)
    above = edges - torch.linspace(0.0, sample_rate // 2, n_fft // 2 + 1)[:, None]
    width = edges.diff()
    rising, falling = -above[:, :-2] / width[:-1], above[:, 2:] / width[1:]
    return torch.minimum(rising, falling).clamp(min=0.0) * (2.0 / (edges[2:] - edges[:-2]))


class LogMel(nn.Module):
    """Log-mel spectrogram: periodic Hann, centred with reflection, power, Slaney mel, decibels.

    It has no learned parameters and no entries in the state dict. It computes in float32 even under
    autocast, because half precision cannot represent a range of 100 dB.

    Args:
        sample_rate: Hz.
        n_fft: STFT size and Hann length, samples.
        hop_length: STFT step, samples.
        mel_bands: number of mel bands M.
        fmin: lower edge of the mel bank, Hz.
        fmax: upper edge, Hz; above the Nyquist frequency the bands stay empty (-100 dB), as in the
            official 16 kHz models.
    """

    window: Tensor
    mel_bank: Tensor

    def __init__(
        self, *, sample_rate: int, n_fft: int, hop_length: int, mel_bands: int, fmin: float, fmax: float
    ) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.hop_length = hop_length
        mel_bank = slaney_bank(sample_rate=sample_rate, n_fft=n_fft, bands=mel_bands, fmin=fmin, fmax=fmax)
        self.register_buffer("mel_bank", mel_bank, persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Compute the log-mel spectrogram.

        Args:
            waveforms: (B, samples) float in [-1, 1]; more than n_fft / 2 samples, for the reflection.

        Returns:
            (B, samples // hop_length + 1, M) float32 decibels relative to 1, at least -100.
        """
        if waveforms.ndim != 2:
            raise UsageError(f"wanted waveforms of shape (B, samples), got {tuple(waveforms.shape)}")
        if waveforms.shape[1] <= self.n_fft // 2:
            raise UsageError(
                f"wanted more than {self.n_fft // 2} samples a waveform, got {waveforms.shape[1]}: "
                "pad with zeros"
            )
        with torch.autocast(waveforms.device.type, enabled=False):
            if not in_pieces(waveforms):
                return self._decibels(waveforms.float())
            # One waveform at a time: its spectrum fits in the cache.
            return torch.cat([self._decibels(one) for one in torch.split(waveforms.float(), 1)])

    def _decibels(self, waveforms: Tensor) -> Tensor:
        spectrum = torch.stft(waveforms, self.n_fft, self.hop_length, window=self.window, return_complex=True)
        power = spectrum.abs().square()
        return 10.0 * torch.log10((power.mT @ self.mel_bank).clamp(min=_FLOOR))
