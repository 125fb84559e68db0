"""Waveform to log-mel spectrogram, as HTS-AT was trained on it."""

from __future__ import annotations

import warnings

import torch
import torchaudio
from torch import Tensor, nn

from htsat_sed.errors import UsageError

_FLOOR = 1e-10  # power below which the logarithm is cut: -100 dB


class LogMel(nn.Module):
    """Log-mel spectrogram: periodic Hann, centred with reflection, power, Slaney mel, decibels.

    Holds no learned parameter and leaves nothing in the state dict. Computes in float32 whatever the
    autocast state, because 100 dB do not fit half precision.

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
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="At least one mel filterbank has all zero values")
            mel_bank = torchaudio.functional.melscale_fbanks(
                n_fft // 2 + 1, fmin, fmax, mel_bands, sample_rate, norm="slaney", mel_scale="slaney"
            )
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
            power = torchaudio.functional.spectrogram(
                waveforms.float(),
                pad=0,
                window=self.window,
                n_fft=self.n_fft,
                hop_length=self.hop_length,
                win_length=self.n_fft,
                power=2.0,
                normalized=False,
            )
            return 10.0 * torch.log10((power.mT @ self.mel_bank).clamp(min=_FLOOR))
