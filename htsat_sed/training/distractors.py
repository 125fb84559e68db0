"""Distractors: synthetic sounds without a class, which train a model to avoid false alarms.

A distractor mixes one to three random sounds of six families: noise with a varying level (wind, rain,
crowds), hum (engines, mains), impacts (steps, doors, drops), chirps (birds, insects, alarms), voices (pulses
filtered by formants) and notes (music).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.signal import lfilter

Signal = NDArray[np.float64]
_SCALE = np.array([0, 2, 4, 5, 7, 9, 11, 12, 14, 16, 19, 24])  # semitones


def distractor(seed: int, number: int, *, samples: int, sample_rate: int) -> NDArray[np.float32]:
    """Synthesise a distractor; the same arguments give the same samples.

    Args:
        seed: random seed of the series, at least 0.
        number: number of the distractor in the series, from 0.
        samples: length in samples.
        sample_rate: sample rate, Hz.

    Returns:
        (samples,) float32, with a peak of -30 to 0 dB of full scale.
    """
    rng = np.random.default_rng([seed, 4, number])
    make = _Maker(rng, samples, sample_rate)
    families = (make.noise, make.hum, make.impacts, make.chirps, make.voices, make.notes)
    mixture = np.zeros(samples)
    for _ in range(int(rng.integers(1, 4))):
        sound = families[rng.integers(len(families))]()
        mixture += _normal(sound) * 10.0 ** (-rng.uniform(0.0, 25.0) / 20.0)
    scaled = _normal(mixture) * 10.0 ** (-rng.uniform(0.0, 30.0) / 20.0)
    return np.asarray(scaled, np.float32)


@dataclass(frozen=True)
class _Maker:
    """Synthesises sounds; each has `samples` samples at `rate` Hz."""

    rng: np.random.Generator
    samples: int
    rate: int

    def noise(self) -> Signal:
        """Synthesise coloured noise in one to three bands, each with its own varying level."""
        bands = range(int(self.rng.integers(1, 4)))
        parts = [self._band() * self._level() * self.rng.uniform(0.1, 1.0) for _ in bands]
        return np.asarray(np.sum(parts, axis=0))

    def hum(self) -> Signal:
        """Synthesise harmonics of a drifting tone, with noise and optional amplitude modulation."""
        rng, pitch = self.rng, self._log_uniform(25.0, 900.0)
        phase = self._phase(pitch * self._drift(0.05))
        orders = np.arange(1, 1 + min(30, int(0.45 * self.rate / pitch)))
        sound = _harmonics(phase, rng.uniform(0.2, 1.0, len(orders)) * orders ** -rng.uniform(0.3, 2.0))
        if rng.random() < 0.5:
            turns = self._phase(np.full(self.samples, rng.uniform(1.0, 40.0)))
            sound = sound * (1.0 + rng.uniform(0.2, 1.0) * np.sin(turns))
        return _normal(sound) * self._level() + rng.uniform(0.0, 0.3) * self._band()

    def impacts(self) -> Signal:
        """Synthesise impacts: noise bursts, at regular or random times, that excite resonances."""
        struck = np.zeros(self.samples)
        for place in self._places(0.3, 12.0):
            burst = self.rng.standard_normal(max(1, int(self.rate * self._log_uniform(0.0005, 0.02))))
            _add(struck, burst * self.rng.uniform(0.3, 1.0), place)
        sound = 0.2 * struck
        for _ in range(int(self.rng.integers(1, 7))):
            frequency, decay = self._log_uniform(60.0, 0.35 * self.rate), self._log_uniform(0.004, 0.4)
            sound += self._resonance(struck, frequency, 2.2 / decay)
        return sound

    def chirps(self) -> Signal:
        """Synthesise a phrase of gliding tones, repeated at regular or random times."""
        rng, highest = self.rng, 0.3 * self.rate
        phrase = []
        for _ in range(int(rng.integers(1, 7))):
            length = int(self.rate * self._log_uniform(0.02, 0.8))
            first = self._log_uniform(300.0, highest)
            last = np.clip(first * np.exp(rng.normal(0.0, 0.4)), 300.0, highest)
            warble = np.sin(2.0 * np.pi * rng.uniform(5.0, 60.0) * np.arange(length) / self.rate)
            frequency = np.geomspace(first, last, length) * (1.0 + rng.choice([0.0, 0.05]) * warble)
            weights = np.array([1.0, 0.3, 0.1]) ** rng.uniform(0.5, 3.0)
            tone = _harmonics(self._phase(frequency), weights) * np.hanning(length)
            phrase += [tone * rng.uniform(0.3, 1.0), np.zeros(int(self.rate * rng.uniform(0.0, 0.3)))]
        sound = np.zeros(self.samples)
        for place in self._places(0.1, 2.0):
            _add(sound, np.concatenate(phrase), place)
        return sound

    def voices(self) -> Signal:
        """Synthesise syllables: pulses and noise filtered by three formants."""
        rng, sound = self.rng, np.zeros(self.samples)
        pitch = self._log_uniform(70.0, 600.0) * self._drift(0.25)
        pulses = np.diff(np.floor(self._phase(pitch) / (2.0 * np.pi)), prepend=0.0)
        source = pulses + rng.uniform(0.0, 0.1) * rng.standard_normal(self.samples)
        size = rng.uniform(0.8, 1.6)
        for place in self._places(0.5, 6.0):
            piece = source[place : place + int(self.rate * rng.uniform(0.08, 0.5))]
            formants = size * rng.uniform((250.0, 900.0, 2500.0), (900.0, 2500.0, 3500.0))
            spoken = [self._resonance(piece, f, rng.uniform(200.0, 700.0)) for f in formants]
            _add(sound, np.sum(spoken, axis=0) * np.hanning(len(piece)), place)
        return sound

    def notes(self) -> Signal:
        """Synthesise notes of a major scale with decaying harmonics."""
        rng, sound = self.rng, np.zeros(self.samples)
        root, decay, roll_off = rng.uniform(60.0, 400.0), rng.uniform(0.1, 1.5), rng.uniform(0.7, 2.5)
        time = np.arange(int(2.0 * decay * self.rate)) / self.rate
        envelope = np.exp(-time / (0.35 * decay)) * np.minimum(1.0, time / 0.005)
        for place in self._places(1.0, 5.0):
            pitch = root * 2.0 ** (rng.choice(_SCALE) / 12.0)
            orders = np.arange(1, 1 + max(1, min(8, int(0.45 * self.rate / pitch))))
            note = _harmonics(2.0 * np.pi * pitch * time, np.asarray(orders**-roll_off, np.float64))
            _add(sound, note * envelope * rng.uniform(0.3, 1.0), place)
        return sound

    def _log_uniform(self, low: float, high: float) -> float:
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def _band(self) -> Signal:
        """Return noise of unit RMS around a random frequency, with a random bandwidth and slope."""
        size = next_fast_len(self.samples, real=True)
        frequency = np.maximum(rfftfreq(size, 1.0 / self.rate), 20.0).astype(np.float32)
        octaves = np.log2(frequency / self._log_uniform(60.0, 0.4 * self.rate))
        shape = np.exp(
            -0.5 * (octaves / self.rng.uniform(0.5, 4.0)) ** 2 - self.rng.uniform(0.0, 0.7) * octaves
        )
        white = rfft(self.rng.standard_normal(size, np.float32))
        noise = irfft(white * shape, size)[: self.samples].astype(np.float64)
        return np.asarray(noise / (np.sqrt(np.mean(noise**2)) + 1e-12))

    def _level(self) -> Signal:
        """Return a random gain over time: constant, slowly varying, or switching on and off."""
        kind = self.rng.random()
        if kind < 0.25:
            return np.ones(self.samples)
        points = max(2, int(self.samples / self.rate * self._log_uniform(0.2, 12.0)))
        if kind < 0.75:
            return np.asarray(10.0 ** (self._wander(points, self.rng.uniform(2.0, 12.0)) / 20.0))
        there = (self.rng.random(points) < self.rng.uniform(0.2, 0.8)).astype(np.float64)
        kept = np.exp(-1.0 / (self.rate * self._log_uniform(0.003, 0.15)))
        blocks = np.repeat(there, -(-self.samples // points))[: self.samples]
        level: Signal = lfilter([1.0 - kept], [1.0, -kept], blocks)
        return level

    def _drift(self, spread: float) -> Signal:
        """Return a random factor around 1 that varies 0.3 to 5 times a second."""
        points = max(2, int(self.samples / self.rate * self.rng.uniform(0.3, 5.0)))
        return np.asarray(np.exp(self._wander(points, spread)))

    def _wander(self, points: int, spread: float) -> Signal:
        """Interpolate linearly between `points` normally distributed values."""
        values = self.rng.normal(0.0, spread, points)
        return np.interp(np.linspace(0, points - 1, self.samples), np.arange(points), values)

    def _phase(self, frequency: Signal) -> Signal:
        return 2.0 * np.pi * np.cumsum(frequency) / self.rate

    def _resonance(self, source: Signal, frequency: float, width: float) -> Signal:
        """Filter a signal with a two-pole resonance; frequency and bandwidth are in Hz."""
        radius = np.exp(-np.pi * width / self.rate)
        feedback = [1.0, -2.0 * radius * np.cos(2.0 * np.pi * frequency / self.rate), radius**2]
        rung: Signal = lfilter([1.0 - radius], feedback, source)
        return rung

    def _places(self, low: float, high: float) -> Iterator[int]:
        """Yield sample positions, regular or random, at a rate between `low` and `high` per second."""
        gap = self.rate / self._log_uniform(low, high)
        regular = self.rng.random() < 0.4
        place = self.rng.uniform(0.0, 0.8) * min(self.samples, gap)
        while place < self.samples - 1:
            yield int(place)
            place += max(gap if regular else self.rng.exponential(gap), 0.02 * self.rate)


def _normal(sound: Signal) -> Signal:
    """Scale a sound to a peak of 1; silence stays silence."""
    return np.asarray(sound / (float(np.abs(sound).max()) + 1e-9))


def _add(track: Signal, sound: Signal, place: int) -> None:
    """Add a sound to a track at a sample position, and cut the sound at the end of the track."""
    piece = sound[: len(track) - place]
    track[place : place + len(piece)] += piece


def _harmonics(phase: Signal, weights: Signal) -> Signal:
    """Sum weighted sines of the multiples of a phase, with the Chebyshev recurrence."""
    double = (2.0 * np.cos(phase)).astype(np.float32)  # twice as fast as float64
    now = np.sin(phase).astype(np.float32)
    before, term = np.zeros_like(now), np.empty_like(now)
    total = np.float32(weights[0]) * now
    for weight in weights[1:].astype(np.float32):
        np.multiply(double, now, out=term)
        term -= before
        before, now, term = now, term, before
        total += np.multiply(weight, now, out=term)
    return total.astype(np.float64)
