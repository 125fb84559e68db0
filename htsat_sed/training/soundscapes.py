"""Soundscapes: mixtures of events cut from labelled clips, with exact strong labels.

An event is the active part of a clip, or a section of it; short events may repeat. Speed (with pitch),
equalisation, reverberation, level and position of each event are random. Noise of random colour and level is
added. Recordings without events can serve as backgrounds, with or without events. Seed and number determine
each soundscape.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

from htsat_sed.audio import read
from htsat_sed.detection.events import Event
from htsat_sed.errors import AudioError, UsageError
from htsat_sed.training.data import Clip
from htsat_sed.training.recipe import SoundscapeRecipe

_logger = logging.getLogger("htsat_sed")

Samples = NDArray[np.float32]
_NOISE_EXPONENTS = (0.0, 0.5, 1.0, 1.0, 1.5, 2.0)  # power falls as 1 / f ** exponent: white to brown


@dataclass(frozen=True, eq=False)
class ClipSource:
    """A recording with the events of one class.

    Attributes:
        samples: (N,) int16, half the size of float32, because data sets are kept in memory.
        label: class of the events.
        spans: (n, 2) onsets and offsets, seconds; at least one.
        unknown: other classes that may or may not be present.
    """

    samples: NDArray[np.int16]
    label: str
    spans: NDArray[np.float64]
    unknown: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Background:
    """A recording without events.

    Attributes:
        samples: (N,) int16, half the size of float32, because data sets are kept in memory.
        unknown: classes that may or may not be present.
    """

    samples: NDArray[np.int16]
    unknown: frozenset[str] = frozenset()


class Soundscape(NamedTuple):
    """A mixture with its labels.

    Attributes:
        samples: (N,) float32 in [-1, 1].
        events: events sorted by onset; events of one label are disjoint.
        unknown: classes that may or may not be present.
    """

    samples: Samples
    events: list[Event]
    unknown: frozenset[str]


def read_sources(clips: Iterable[Clip], *, sample_rate: int) -> list[ClipSource]:
    """Read clips to cut events from; unreadable clips are left out with a warning.

    Args:
        clips: clips with strong labels, or with one weak label, which then applies to the whole clip. Clips
            without labels are skipped.
        sample_rate: sample rate to resample to, Hz.

    Returns:
        One source for each clip and label.

    Raises:
        ValueError: a clip has several weak labels.
    """
    sources: list[ClipSource] = []
    for clip in clips:
        if not clip.labels:
            continue
        if clip.events is None and len(clip.labels) > 1:
            raise UsageError(
                f"wanted strong labels or one weak label to cut events from {clip.path}, got "
                f"{len(clip.labels)}"
            )
        whole = _samples(clip, sample_rate)
        if whole is None:
            continue
        end = len(whole) / sample_rate
        for label in sorted(clip.labels):
            spans = [(e.onset, min(e.offset, end)) for e in clip.events or () if e.label == label]
            sources.append(ClipSource(whole, label, np.array(spans or [(0.0, end)]), clip.unknown))
    return sources


def read_backgrounds(clips: Iterable[Clip], *, sample_rate: int) -> list[Background]:
    """Read clips without labels as backgrounds; unreadable clips are left out with a warning.

    Args:
        clips: clips; those with labels are skipped.
        sample_rate: sample rate to resample to, Hz.
    """
    read_in = [(clip, _samples(clip, sample_rate)) for clip in clips if not clip.labels]
    return [Background(samples, clip.unknown) for clip, samples in read_in if samples is not None]


def _samples(clip: Clip, sample_rate: int) -> NDArray[np.int16] | None:
    try:
        samples = read(clip.path, sample_rate)
    except AudioError as error:
        _logger.warning("%s: %s; left out", error.path, error.reason)
        return None
    return as_int16(samples)


def as_int16(samples: Samples) -> NDArray[np.int16]:
    """Convert samples to int16, with full scale at ±1; louder samples are clipped."""
    return np.round(samples.clip(-1.0, 1.0) * 32_767).astype(np.int16)


class Soundscapes:
    """An endless, numbered series of soundscapes.

    Args:
        sources: recordings to cut events from, at least one.
        recipe: settings of the mixtures.
        sample_rate: sample rate of sources, backgrounds and soundscapes, Hz.
        seed: random seed of the series, at least 0.
        backgrounds: recordings without events; the probability of each is proportional to its duration.

    Attributes:
        labels: classes of the sources, sorted.

    Raises:
        ValueError: there is no source.
    """

    def __init__(
        self,
        sources: Sequence[ClipSource],
        recipe: SoundscapeRecipe,
        *,
        sample_rate: int,
        seed: int,
        backgrounds: Sequence[Background] = (),
    ) -> None:
        if not sources:
            raise UsageError("wanted at least one source of events, got none")
        self.labels = tuple(sorted({source.label for source in sources}))
        self._by_label = [[s for s in sources if s.label == label] for label in self.labels]
        self._recipe = recipe
        self._rate = sample_rate
        self._length = round(recipe.seconds * sample_rate)
        self._seed = seed
        self._backgrounds = backgrounds
        lengths = np.array([len(background.samples) for background in backgrounds], np.float64)
        self._chances = lengths / lengths.sum()
        rng = np.random.default_rng([seed, 0])
        self._noises = [_coloured(rng, 2 * self._length, exponent) for exponent in _NOISE_EXPONENTS]

    def __getitem__(self, number: int) -> Soundscape:
        """Mix the soundscape with a number, from 0."""
        rng = np.random.default_rng([self._seed, 1, number])
        recipe = self._recipe
        floor = rng.uniform(*recipe.floor_db)
        noise = self._noises[rng.integers(len(self._noises))]
        start = rng.integers(self._length)
        mixture = noise[start : start + self._length] * np.float32(_gain(floor))
        count = 1 + int(rng.choice(len(recipe.events), p=recipe.events))
        unknown: frozenset[str] = frozenset()
        if self._backgrounds:
            # A separate generator, so that backgrounds leave the events of a series unchanged.
            own = np.random.default_rng([self._seed, 4, number])
            silent = own.random() < recipe.silent
            count = 0 if silent else count
            loudest, unknown = self._play_backgrounds(mixture, own, silent=silent)
            floor = max(floor, loudest)
        events: list[Event] = []
        for _ in range(count):
            of_label = self._by_label[rng.integers(len(self._by_label))]
            source = of_label[rng.integers(len(of_label))]
            unknown |= source.unknown
            samples, spans = self._event(source, rng)
            level = max(rng.uniform(*recipe.event_db), floor + 6.0)
            n = len(samples)
            place = int(rng.integers(-int(0.3 * n), max(1, self._length - n // 2)))
            self._add(mixture, samples, level, place)
            for onset, offset in spans + place / self._rate:
                inside = max(0.0, float(onset)), min(recipe.seconds, float(offset))
                if inside[0] < inside[1]:
                    events.append(Event(*inside, source.label))
        mixture *= np.float32(_gain(rng.uniform(*recipe.gain_db)))
        return Soundscape(mixture.clip(-1.0, 1.0), united(events), unknown)

    def _play_backgrounds(
        self, mixture: Samples, rng: np.random.Generator, *, silent: bool
    ) -> tuple[float, frozenset[str]]:
        """Add backgrounds to a mixture, in place.

        A recording shorter than the soundscape is added whole at a random position. A longer one is cut to
        the length of the soundscape.

        Returns:
            The highest level of the backgrounds, dB RMS, and their unknown classes.
        """
        recipe = self._recipe
        low, high = recipe.background_db[0], recipe.event_db[1] if silent else recipe.background_db[1]
        count = int(rng.integers(1, 4)) if silent else int(rng.random() < recipe.background)
        loudest, unknown = -math.inf, frozenset[str]()
        for _ in range(count):
            background = self._backgrounds[rng.choice(len(self._backgrounds), p=self._chances)]
            room = len(background.samples) - int(self._length * math.exp(recipe.speed))
            first = int(rng.integers(room + 1)) if room > 0 else 0
            last = len(background.samples) - max(0, room) + first
            samples = background.samples[first:last].astype(np.float32) / np.float32(32_768.0)
            samples, _ = self._varied(samples, np.zeros((0, 2)), rng)
            place = int(rng.integers(self._length - len(samples) + 1))
            level = float(rng.uniform(low, high))
            self._add(mixture, samples, level, place)
            loudest, unknown = max(loudest, level), unknown | background.unknown
        return loudest, unknown

    def _add(self, mixture: Samples, samples: Samples, level: float, place: int) -> None:
        """Add samples to a mixture at a level in dB RMS; `place` may be negative."""
        samples = samples * np.float32(_gain(level) / (np.sqrt(np.mean(samples**2)) + 1e-6))
        samples *= min(1.0, 0.95 / (np.abs(samples).max() + 1e-9))
        first, last = max(0, place), min(self._length, place + len(samples))
        mixture[first:last] += samples[first - place : last - place]

    def _event(self, source: ClipSource, rng: np.random.Generator) -> tuple[Samples, NDArray[np.float64]]:
        """Make an event: its samples, and its onsets and offsets in seconds."""
        samples, spans = _cut(source, rng, self._rate)
        if len(spans) == 1 and len(samples) < 2 * self._rate and rng.random() < 0.3:
            samples, spans = _repeated(samples, spans, rng, self._rate)
        return self._varied(samples, spans, rng)

    def _varied(
        self, samples: Samples, spans: NDArray[np.float64], rng: np.random.Generator
    ) -> tuple[Samples, NDArray[np.float64]]:
        """Vary speed, equalisation and reverberation at random; return the samples and their spans."""
        if rng.random() < 0.7:
            factor = float(np.exp(rng.uniform(-self._recipe.speed, self._recipe.speed)))
            places = np.arange(int(len(samples) / factor)) * factor
            samples = np.interp(places, np.arange(len(samples)), samples).astype(np.float32)
            spans = spans / factor
        if rng.random() < 0.6:
            samples = _equalised(samples, rng.normal(0.0, self._recipe.equaliser_db, 7))
        if rng.random() < self._recipe.reverberant:
            samples = _reverberated(samples, rng, self._recipe, self._rate)
        samples = samples[: self._length]
        spans = spans.clip(max=len(samples) / self._rate)
        fade = min(320, len(samples) // 4)
        ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
        samples[:fade] *= ramp
        samples[len(samples) - fade :] *= ramp[::-1]
        return samples, spans


def united(events: Iterable[Event]) -> list[Event]:
    """Join events of the same label that overlap or touch.

    Args:
        events: events in any order.

    Returns:
        The joined events, sorted by onset.
    """
    joined: list[Event] = []
    latest: dict[str, int] = {}
    for event in sorted(events):
        i = latest.get(event.label)
        if i is not None and event.onset <= joined[i].offset:
            joined[i] = replace(joined[i], offset=max(joined[i].offset, event.offset))
        else:
            latest[event.label] = len(joined)
            joined.append(event)
    return sorted(joined)


def token_targets(
    events: Sequence[Event], labels: Sequence[str], *, tokens: int, token_seconds: float
) -> Samples:
    """Convert events to token targets.

    Args:
        events: events, in seconds from the start of the first token.
        labels: K classes, which include those of all events.
        tokens: number of tokens.
        token_seconds: duration of a token, seconds.

    Returns:
        (tokens, K) part of each token that events of the class cover, in [0, 1], float32.
    """
    targets = np.zeros((tokens, len(labels)), np.float32)
    edges = np.arange(tokens) * token_seconds
    for event in events:
        covered = np.minimum(event.offset, edges + token_seconds) - np.maximum(event.onset, edges)
        targets[:, labels.index(event.label)] += covered.clip(0.0) / token_seconds
    return targets.clip(0.0, 1.0)


def _cut(source: ClipSource, rng: np.random.Generator, rate: int) -> tuple[Samples, NDArray[np.float64]]:
    """Cut the active part of a clip, or a section of it; of a recording with several spans, 1 to 8 s."""
    total = len(source.samples)
    if len(source.spans) > 1:
        span = source.spans[rng.integers(len(source.spans))]
        length = int(rng.uniform(1.0, 8.0) * rate)
        first = int(max(0.0, span[0] - rng.uniform(0.0, 0.5)) * rate)
        first = min(first, max(0, total - length))
        last = min(total, first + length)
        spans = (source.spans.clip(first / rate, last / rate)) - first / rate
        spans = spans[spans[:, 1] > spans[:, 0]]
    else:
        first = min(int(source.spans[0, 0] * rate), max(0, total - rate // 10))
        last = min(total, max(first + rate // 10, int(source.spans[0, 1] * rate)))
        if last - first > rate and rng.random() < 0.5:
            length = int(rng.uniform(0.5, 1.0) * (last - first))
            first = int(rng.integers(first, last - length + 1))
            last = first + length
        spans = np.array([[0.0, (last - first) / rate]])
    return source.samples[first:last].astype(np.float32) / np.float32(32_768.0), spans


def _repeated(
    samples: Samples, spans: NDArray[np.float64], rng: np.random.Generator, rate: int
) -> tuple[Samples, NDArray[np.float64]]:
    """Repeat a short sound two or three times with pauses, as in barks and sneezes."""
    pause = np.zeros(int(rng.uniform(0.1, 0.6) * rate), np.float32)
    times = int(rng.integers(2, 4))
    parts = [part for _ in range(times) for part in (samples * np.float32(rng.uniform(0.6, 1.0)), pause)]
    step = (len(samples) + len(pause)) / rate
    return np.concatenate(parts[:-1]), np.concatenate([spans + i * step for i in range(times)])


def _equalised(samples: Samples, gains_db: NDArray[np.float64]) -> Samples:
    """Apply gains at equidistant points of a logarithmic frequency axis, interpolated linearly in dB."""
    size = next_fast_len(len(samples), real=True)
    spectrum = rfft(samples, size)
    position = np.log1p(160.0 * np.arange(len(spectrum)) / len(spectrum)) / np.log1p(160.0)
    gains = np.interp(position, np.linspace(0.0, 1.0, len(gains_db)), gains_db)
    equalised: Samples = irfft(spectrum * _gain(gains).astype(np.float32), size).astype(np.float32)
    return equalised[: len(samples)]


def _reverberated(samples: Samples, rng: np.random.Generator, recipe: SoundscapeRecipe, rate: int) -> Samples:
    """Reverberate with a room response of decaying noise; the tail after the dry sound is cut off."""
    decay = rng.uniform(*recipe.reverberation)
    time = np.arange(1, int(0.7 * decay * rate)) / rate
    tail = rng.standard_normal(len(time)) * 10.0 ** (-3.0 * time / decay)
    tail *= _gain(-rng.uniform(*recipe.direct_db)) / np.sqrt(np.sum(tail**2) + 1e-12)
    response = np.concatenate([[1.0], tail]).astype(np.float32)
    size = next_fast_len(len(samples) + len(response), real=True)
    wet: Samples = irfft(rfft(samples, size) * rfft(response, size), size).astype(np.float32)
    return wet[: len(samples)]


def _coloured(rng: np.random.Generator, n: int, exponent: float) -> Samples:
    """Make noise of unit RMS whose power falls as 1 / f ** exponent."""
    spectrum = rfft(rng.standard_normal(n).astype(np.float32))
    noise = irfft(spectrum * np.maximum(1.0, np.arange(len(spectrum))) ** (-exponent / 2.0), n)
    scaled: Samples = (noise / np.sqrt(np.mean(noise**2))).astype(np.float32)
    return scaled


def _gain(db: float | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(10.0 ** (np.asarray(db) / 20.0))
