"""The front end against torchaudio, which computes the same by other code."""

import numpy as np
import pytest
import torch
from golden.reference_state import recording

from htsat_sed.errors import UsageError
from htsat_sed.libraries import LibraryError, load
from htsat_sed.model.frontend import LogMel, slaney_bank

BANKS = [
    (32_000, 1024, 64, 50.0, 14_000.0),
    (16_000, 1024, 64, 50.0, 14_000.0),
    (44_100, 512, 128, 0.0, 500.0),
]


@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
@pytest.mark.parametrize(("sample_rate", "n_fft", "bands", "fmin", "fmax"), BANKS)
def test_log_mel_is_that_of_torchaudio(
    sample_rate: int, n_fft: int, bands: int, fmin: float, fmax: float
) -> None:
    try:
        functional = load("torchaudio.functional", purpose="this test", extra="test")
    except (UsageError, LibraryError) as error:
        pytest.skip(str(error))
    bank = functional.melscale_fbanks(
        n_fft // 2 + 1, fmin, fmax, bands, sample_rate, norm="slaney", mel_scale="slaney"
    )
    ours = slaney_bank(sample_rate=sample_rate, n_fft=n_fft, bands=bands, fmin=fmin, fmax=fmax)
    torch.testing.assert_close(ours, bank, atol=1e-7, rtol=1e-5)
    waveforms = torch.from_numpy(np.stack([recording(0.5, sample_rate, seed) for seed in (0, 1)]))
    power = functional.spectrogram(waveforms, 0, torch.hann_window(n_fft), n_fft, 320, n_fft, 2.0, False)
    frontend = LogMel(
        sample_rate=sample_rate, n_fft=n_fft, hop_length=320, mel_bands=bands, fmin=fmin, fmax=fmax
    )
    expected = 10.0 * torch.log10((power.mT @ bank).clamp(min=1e-10))
    torch.testing.assert_close(frontend(waveforms), expected, atol=1e-4, rtol=1e-5)


def test_filters_have_their_peaks_evenly_on_the_mel_scale_and_equal_areas() -> None:
    """Below 1 kHz a mel is 200/3 Hz: bands of 0 to 1000 Hz have their peaks 100 Hz apart."""
    bank = slaney_bank(sample_rate=32_000, n_fft=3200, bands=9, fmin=0.0, fmax=1000.0)
    assert bank.argmax(dim=0).tolist() == list(range(10, 100, 10))  # bins of 10 Hz
    # A triangle 200 Hz wide of area 1 is 1/100 high.
    torch.testing.assert_close(bank.amax(dim=0), torch.full((9,), 0.01), atol=1e-6, rtol=0.0)
    torch.testing.assert_close(10.0 * bank.sum(dim=0), torch.ones(9), atol=1e-4, rtol=0.0)
    # Above it, 27 mel are a factor of 6.4.
    high = slaney_bank(sample_rate=32_000, n_fft=3200, bands=1, fmin=1000.0, fmax=6400.0)
    peak = 1000.0 * 6.4**0.5
    assert abs(10.0 * float(high[:, 0].argmax()) - peak) <= 10.0


def test_a_waveform_does_not_depend_on_its_batch() -> None:
    frontend = LogMel(sample_rate=32_000, n_fft=1024, hop_length=320, mel_bands=64, fmin=50.0, fmax=14_000.0)
    waveforms = torch.from_numpy(np.stack([recording(0.5, 32_000, seed) for seed in (0, 1, 2)]))
    found = frontend(waveforms)
    assert torch.equal(found, torch.cat([frontend(one[None]) for one in waveforms]))
    torch.testing.assert_close(found, frontend._decibels(waveforms), atol=1e-5, rtol=0.0)
