"""Makes examples/home.flac: a clock, a baby and a shore, synthesised; no recording went into it.

    python examples/make_home.py

1 to 7 s a clock ticks twice a second; 8 to 12 s a baby cries; 13 to 19 s waves break on a shore.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

RATE = 32_000
SECONDS = 20
Samples = NDArray[np.float64]


def band(noise: Samples, low: float, high: float, order: int) -> Samples:
    """Noise between two frequencies in Hz."""
    return np.asarray(sosfilt(butter(order, [low, high], "bandpass", fs=RATE, output="sos"), noise))


def clock(rng: np.random.Generator, seconds: float) -> Samples:
    """Two clicks a second, tick and tock."""
    sound = np.zeros(int(seconds * RATE))
    length = int(0.03 * RATE)
    time = np.arange(length) / RATE
    for i in range(int(2 * seconds)):
        tone = np.sin(2 * np.pi * (2600, 1900)[i % 2] * time)
        click = np.exp(-time / 0.004) * (tone + 0.6 * band(rng.standard_normal(length), 1500, 8000, 2))
        first = int((0.5 * i + 0.1) * RATE)
        sound[first : first + length] += click
    return sound


def baby(rng: np.random.Generator, seconds: float) -> Samples:
    """A harmonic tone that swells and sinks about once a second."""
    time = np.arange(int(seconds * RATE)) / RATE
    swell = np.sin(2 * np.pi * time / 1.1)
    pitch = 430 + 90 * swell + 12 * np.sin(2 * np.pi * 7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    voice = sum((np.sin(k * phase) / k**0.7 for k in range(1, 18)), start=np.zeros(len(time)))
    return swell.clip(0.0) ** 0.4 * voice + 0.01 * rng.standard_normal(len(time))


def shore(rng: np.random.Generator, seconds: float) -> Samples:
    """Low noise that rises and falls every four seconds."""
    time = np.arange(int(seconds * RATE)) / RATE
    swell = 0.3 + np.sin(2 * np.pi * time / 4 - 1).clip(0.0) ** 2
    return swell * band(rng.standard_normal(len(time)), 80, 4000, 1)


def main() -> None:
    """Mix the three over a faint noise and write them."""
    rng = np.random.default_rng(7)
    mixture = 1e-3 * rng.standard_normal(SECONDS * RATE)
    for sound, onset, level in ((clock(rng, 6), 1, 0.5), (baby(rng, 4), 8, 0.5), (shore(rng, 6), 13, 0.4)):
        first = onset * RATE
        mixture[first : first + len(sound)] += level * sound / np.abs(sound).max()
    soundfile.write(Path(__file__).with_name("home.flac"), mixture, RATE, subtype="PCM_16")


if __name__ == "__main__":
    main()
