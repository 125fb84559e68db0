"""Makes examples/home.flac: a baby and rain, synthesised; no recording went into it.

    python examples/make_home.py

A baby cries from 2 to 6 s, and it rains from 8 to 14 s.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

RATE = 32_000
SECONDS = 16
Samples = NDArray[np.float64]


def band(noise: Samples, low: float, high: float, order: int) -> Samples:
    """Noise between two frequencies in Hz."""
    return np.asarray(sosfilt(butter(order, [low, high], "bandpass", fs=RATE, output="sos"), noise))


def baby(rng: np.random.Generator, seconds: float) -> Samples:
    """A harmonic tone that swells and sinks about once a second."""
    time = np.arange(int(seconds * RATE)) / RATE
    swell = np.sin(2 * np.pi * time / 1.1)
    pitch = 430 + 90 * swell + 12 * np.sin(2 * np.pi * 7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    voice = sum((np.sin(k * phase) / k**0.7 for k in range(1, 18)), start=np.zeros(len(time)))
    return swell.clip(0.0) ** 0.4 * voice + 0.01 * rng.standard_normal(len(time))


def rain(rng: np.random.Generator, seconds: float) -> Samples:
    """Steady noise, with drops in it."""
    sound = band(rng.standard_normal(int(seconds * RATE)), 80, 4000, 1)
    time = np.arange(200) / RATE
    for _ in range(int(40 * seconds)):
        first = int(rng.integers(len(sound) - len(time)))
        drop = np.exp(-time / 0.001) * np.sin(2 * np.pi * rng.uniform(1000, 5000) * time)
        sound[first : first + len(time)] += rng.exponential(0.5) * drop
    return sound


def main() -> None:
    """Mix the three over a faint noise and write them."""
    rng = np.random.default_rng(7)
    mixture = 1e-3 * rng.standard_normal(SECONDS * RATE)
    for sound, onset, level in ((baby(rng, 4), 2, 0.5), (rain(rng, 6), 8, 0.4)):
        first = onset * RATE
        mixture[first : first + len(sound)] += level * sound / np.abs(sound).max()
    soundfile.write(Path(__file__).with_name("home.flac"), mixture, RATE, subtype="PCM_16")


if __name__ == "__main__":
    main()
