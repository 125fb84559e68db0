"""A long recording."""

from pathlib import Path

import pytest
import soundfile
from golden.reference_state import recording
from scipy.signal import resample_poly
from tiny_detector import RATE


@pytest.fixture(scope="module")
def long_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """65 s at 44.1 kHz, as WAV; beside it the same at 32 kHz as WAV and as FLAC."""
    folder = tmp_path_factory.mktemp("long")
    original = recording(65.0, 44_100, seed=7)
    soundfile.write(folder / "44100.wav", original, 44_100, subtype="FLOAT")
    soundfile.write(folder / "32000.wav", resample_poly(original, 320, 441), RATE, subtype="PCM_16")
    samples, _ = soundfile.read(folder / "32000.wav", dtype="int16")
    soundfile.write(folder / "32000.flac", samples, RATE)
    return folder / "32000.wav"
