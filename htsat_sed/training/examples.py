"""Numbered series of training examples, from clips, soundscapes and distractors.

The seed of a series and the number of an example determine the example. Any number of workers can therefore
share a series, and a resumed run repeats the examples of an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from htsat_sed.audio import read
from htsat_sed.detection.events import Event
from htsat_sed.errors import AudioError, UsageError
from htsat_sed.training.data import Clip
from htsat_sed.training.distractors import distractor
from htsat_sed.training.soundscapes import Background, Soundscapes, as_int16, token_targets

Samples = NDArray[np.float32]
_BACKGROUNDS = 40  # distractors used as backgrounds of soundscapes


class Example(NamedTuple):
    """A window of audio with its targets.

    Attributes:
        waveform: (N,) samples in [-1, 1], float32.
        clip: (K,) 1 for classes that are present, else 0; float32.
        tokens: (T, K) part of each token that events of the class cover, in [0, 1], float32; 0 if labels are
            weak.
        events: events in seconds from the start of the window; None if labels are weak.
        broken: (path, reason) of each unreadable clip that this example replaces.
        unknown: (K,) bool, classes that may or may not be present; see `Clip.unknown`.
    """

    waveform: Samples
    clip: Samples
    tokens: Samples
    events: tuple[Event, ...] | None
    broken: tuple[tuple[str, str], ...] = ()
    unknown: NDArray[np.bool_] = np.zeros(0, np.bool_)


class Series(Protocol):
    """An endless, numbered series of examples."""

    def __getitem__(self, number: int) -> Example:
        """Return the example with a number, from 0."""


@dataclass(frozen=True, kw_only=True)
class ExampleShape:
    """Shape of an example.

    Attributes:
        sample_rate: sample rate, Hz.
        samples: samples N of the window.
        tokens: tokens T of the window.
        labels: K classes.
    """

    sample_rate: int
    samples: int
    tokens: int
    labels: tuple[str, ...]

    def unknown(self, labels: Collection[str]) -> NDArray[np.bool_]:
        """Return a (K,) mask of the classes that `labels` contains."""
        return np.array([label in labels for label in self.labels])

    @property
    def token_seconds(self) -> float:
        """Duration of a token, seconds."""
        return self.samples / self.tokens / self.sample_rate


class ClipSeries:
    """Clips as examples: each clip once an epoch, in a new order every epoch.

    A clip shorter than the window is repeated if its labels are weak, and padded with silence if they are
    strong. A longer clip is cut to a random window. An unreadable clip is replaced by the next one.

    Args:
        clips: at least one.
        window: shape of an example.
        seed: random seed of order, windows and shifts.
        balanced: draw from each class once a pass, in a new order every pass: a random clip of the class.
        time_shift: largest circular shift of the window, seconds; rounded to whole tokens.
        random: if false, clips keep their order, windows begin at the start, and nothing is shifted.

    Raises:
        ValueError: there is no clip.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        window: ExampleShape,
        *,
        seed: int,
        balanced: bool = False,
        time_shift: float = 0.0,
        random: bool = True,
    ) -> None:
        if not clips:
            raise UsageError("wanted at least one clip, got none")
        self._clips = clips
        self._window = window
        self._seed = seed
        self._time_shift = time_shift
        self._random = random
        self._column = {label: k for k, label in enumerate(window.labels)}
        of_class = [[i for i, c in enumerate(clips) if label in c.labels] for label in window.labels]
        self._of_class = [own for own in of_class if own] if balanced else []
        self._order = np.arange(len(self._of_class or clips))
        self._epoch = -1

    def __len__(self) -> int:
        """Number of clips."""
        return len(self._clips)

    def __getitem__(self, number: int) -> Example:
        """Return the example with a number, from 0.

        Raises:
            AudioError: none of the clips tried, as many as there are clips, can be read.
        """
        rng = np.random.default_rng([self._seed, 2, number])
        broken: list[tuple[str, str]] = []
        for attempt in range(len(self._clips)):
            clip = self._clips[self._index(number + attempt, rng)]
            try:
                samples = read(clip.path, self._window.sample_rate)
            except AudioError as error:
                broken.append((str(error.path), error.reason))
                continue
            return self._example(clip, samples, rng, tuple(broken))
        raise AudioError(broken[-1][0], f"{broken[-1][1]}; like all of {len(self._clips)} clips tried")

    def _index(self, number: int, rng: np.random.Generator) -> int:
        rows = self._of_class or self._clips
        epoch, place = divmod(number, len(rows))
        if self._random and epoch != self._epoch:
            self._order = np.random.default_rng([self._seed, 3, epoch]).permutation(len(rows))
            self._epoch = epoch
        if self._of_class:
            own = self._of_class[int(self._order[place])]
            return own[int(rng.integers(len(own)))]
        return int(self._order[place])

    def _example(
        self, clip: Clip, samples: Samples, rng: np.random.Generator, broken: tuple[tuple[str, str], ...]
    ) -> Example:
        window = self._window
        length, rate = window.samples, window.sample_rate
        first = int(rng.integers(len(samples) - length + 1)) if self._random and len(samples) > length else 0
        samples = samples[first : first + length]
        target = np.zeros(len(window.labels), np.float32)
        tokens = np.zeros((window.tokens, len(window.labels)), np.float32)
        events: list[Event] | None = None
        if clip.events is None:
            samples = np.resize(samples, length)
            target[[self._column[label] for label in clip.labels]] = 1.0
        else:
            start, end = first / rate, (first + len(samples)) / rate
            events = [
                Event(max(e.onset, start) - start, min(e.offset, end) - start, e.label)
                for e in clip.events
                if e.onset < end and e.offset > start
            ]
            samples = np.pad(samples, (0, length - len(samples)))
            tokens = token_targets(
                events, window.labels, tokens=window.tokens, token_seconds=window.token_seconds
            )
            target[[self._column[event.label] for event in events]] = 1.0
        reach = round(self._time_shift / window.token_seconds)
        if self._random and reach:
            shift = int(rng.integers(-reach, reach + 1))
            samples = np.roll(samples, shift * length // window.tokens)
            tokens = np.roll(tokens, shift, axis=0)
            if events is not None:
                events = _rolled(events, shift * window.token_seconds, length / rate)
        strong = None if events is None else tuple(events)
        return Example(samples, target, tokens, strong, broken, window.unknown(clip.unknown))


class DistractorSeries:
    """Distractors as examples with strong labels but without events.

    Args:
        window: shape of an example.
        seed: random seed of the series.
    """

    def __init__(self, window: ExampleShape, *, seed: int) -> None:
        self._window = window
        self._seed = seed

    def __getitem__(self, number: int) -> Example:
        """Return the example with a number, from 0."""
        window = self._window
        samples = distractor(self._seed, number, samples=window.samples, sample_rate=window.sample_rate)
        classes = len(window.labels)
        nothing = np.zeros((window.tokens, classes), np.float32)
        return Example(samples, nothing[0].copy(), nothing, (), unknown=window.unknown(()))


@lru_cache(maxsize=1)  # shared by all folds
def distractor_backgrounds(window: ExampleShape, *, seed: int) -> Sequence[Background]:
    """Make 40 distractors, each as long as a window, as backgrounds of soundscapes."""
    return [
        Background(as_int16(distractor(seed, i, samples=window.samples, sample_rate=window.sample_rate)))
        for i in range(_BACKGROUNDS)
    ]


class SoundscapeSeries:
    """Soundscapes as examples with strong labels, cut or padded with silence to the window.

    Args:
        soundscapes: series of soundscapes.
        window: shape of an example.
    """

    def __init__(self, soundscapes: Soundscapes, window: ExampleShape) -> None:
        self._soundscapes = soundscapes
        self._window = window

    def __getitem__(self, number: int) -> Example:
        """Return the example with a number, from 0."""
        window = self._window
        samples, events, unknown = self._soundscapes[number]
        tokens = token_targets(
            events, window.labels, tokens=window.tokens, token_seconds=window.token_seconds
        )
        fitted = np.pad(samples[: window.samples], (0, max(0, window.samples - len(samples))))
        clip = (tokens.max(axis=0) > 0.0).astype(np.float32)
        return Example(fitted, clip, tokens, tuple(events), unknown=window.unknown(unknown))


def _rolled(events: Sequence[Event], shift: float, seconds: float) -> list[Event]:
    """Shift events circularly; an event that crosses the end of the window becomes two."""
    moved = [
        (e.onset + shift + lap, e.offset + shift + lap, e.label)
        for e in events
        for lap in (-seconds, 0.0, seconds)
    ]
    return sorted(
        Event(max(0.0, onset), min(seconds, offset), label)
        for onset, offset, label in moved
        if onset < seconds and offset > 0.0
    )
