"""Scheduling: workers read recordings in advance, and windows of several recordings share batches.

    recordings ─ workers ─▶ windows and ends, in order ─ batches ─▶ the same with scores, in order

Batches do not depend on the number of workers, so results are identical to the last bit.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from htsat_sed.audio import AudioStream, Window
from htsat_sed.detection.devices import Launch, Scores
from htsat_sed.detection.ensemble import Samples
from htsat_sed.detection.prefetch import prefetch
from htsat_sed.errors import HtsatSedError

AnyPath = str | os.PathLike[str]
RecordingProgress = Callable[[AnyPath, float, float | None], None]
Defective = Callable[[AnyPath, str], None]
Windowing = Callable[[AudioStream], Iterator[Window]]

_MOST_WAITING = 64  # most queued windows and ends, in multiples of the batch size
_BATCHES_AHEAD = 2  # batches of windows that workers read in advance
_LEAST_AHEAD = 32  # fewest windows read in advance, 41 MB at 32 kHz
_IDLE = 0.1  # time without a window after which an incomplete batch from a pipe is computed, seconds


@dataclass(frozen=True, eq=False)
class Part:
    """A window of a recording.

    Attributes:
        path: path of the recording.
        end: end of the window, samples from the start of the recording.
        samples: (n,) float32 samples; None for digital silence.
        expected_duration: expected duration of the recording, seconds; None if unknown.
        comes: whether the recording is read from a pipe, so that the next window may be delayed.
    """

    path: AnyPath
    end: int
    samples: Samples | None
    expected_duration: float | None
    comes: bool = False


@dataclass(frozen=True)
class End:
    """The end of a recording.

    Attributes:
        path: path of the recording.
        duration: duration of the recording, seconds; 0 if it could not be read.
        sample_rate: sample rate of the recording, Hz; None if it could not be read.
        defect: description of damage, such as truncation, that did not prevent reading.
        error: error that prevented reading to the end.
    """

    path: AnyPath
    duration: float = 0.0
    defect: str | None = None
    sample_rate: int | None = None
    error: HtsatSedError | None = None


class ScoredRecording:
    """A recording with scores; its windows can be consumed once.

    Attributes:
        path: path of the recording.
        reached: samples covered by the windows so far.
        end: end of the recording; known after all windows.
    """

    end: End

    def __init__(self, first: tuple[Part | End, Scores], rest: Iterator[tuple[Part | End, Scores]]) -> None:
        self.path = first[0].path
        self.reached = 0
        self._items = chain([first], rest)

    def windows(self) -> Iterator[tuple[Part, Scores]]:
        """Yield the windows with their scores, in order; then set `end`."""
        for item, scores in self._items:
            if isinstance(item, End):
                self.end = item
                return
            self.reached = item.end
            yield item, scores


def scored_recordings(
    paths: Iterable[AnyPath],
    *,
    open_stream: Callable[[AnyPath], AudioStream],
    cut: Windowing,
    launch: Launch,
    silent: Scores,
    batch_size: Callable[[], int],
    in_flight: int,
    workers: int,
    fill: bool,
) -> Generator[ScoredRecording]:
    """Compute the scores of recordings.

    Args:
        paths: recordings.
        open_stream: opens a recording at the sample rate of the windows; runs in a worker.
        cut: divides a recording into windows; runs in a worker.
        launch: starts a batch and returns a function that waits for its scores, one entry per window.
        silent: scores of a window of digital silence, which is not computed.
        batch_size: returns the current batch size.
        in_flight: number of batches to start before waiting for the first; at least 1.
        workers: number of reading threads.
        fill: repeat a window until a batch is full. The size of a batch affects the last bits of scores; the
            other windows in it do not.

    Yields:
        Each recording; its windows must be consumed completely before the next.
    """

    def read(path: AnyPath) -> Generator[Part | End]:
        try:
            with open_stream(path) as stream:
                for window in cut(stream):
                    end = window.start + len(window.samples)
                    samples = window.samples if window.samples.any() else None
                    yield Part(path, end, samples, stream.expected_duration, stream.comes)
            yield End(path, stream.duration, stream.defect, stream.source_rate)
        except HtsatSedError as error:
            yield End(path, error=error)

    most = max(_LEAST_AHEAD, _BATCHES_AHEAD * batch_size())
    items = prefetch(paths, read, workers=workers, most=most, idle=_IDLE)
    scored = _scored(items, launch, silent, batch_size, in_flight, fill)
    try:
        for first in scored:
            yield ScoredRecording(first, scored)
    finally:
        scored.close()
        items.close()


@dataclass(eq=False)
class _Batch:
    windows: list[Samples] = field(default_factory=list)
    result: Callable[[], Scores] | None = None
    scores: Scores | None = None


def _scored(
    items: Iterable[Part | End | None],
    launch: Launch,
    silent: Scores,
    batch_size: Callable[[], int],
    in_flight: int,
    fill: bool,
) -> Generator[tuple[Part | End, Scores]]:
    """Yield each item with its scores, in order; available scores do not wait for a slow pipe."""
    waiting: deque[tuple[Part | End, _Batch | None, int]] = deque()  # with the index in the batch
    launched: deque[_Batch] = deque()
    batch = _Batch()

    def begin() -> None:
        nonlocal batch
        if batch.windows:
            if fill:
                batch.windows += batch.windows[:1] * (batch_size() - len(batch.windows))
            batch.result = launch(batch.windows)
            batch.windows = []
            launched.append(batch)
            batch = _Batch()

    def finish(left: int) -> Iterator[tuple[Part | End, Scores]]:
        while len(launched) > left:
            done = launched.popleft()
            assert done.result is not None
            done.scores = done.result()
        while waiting and (waiting[0][1] is None or waiting[0][1].scores is not None):
            item, of, place = waiting.popleft()
            yield item, silent if of is None or of.scores is None else of.scores[place]

    for item in items:
        if item is None:
            if waiting and isinstance(waiting[-1][0], Part) and waiting[-1][0].comes:
                begin()
                yield from finish(0)
            continue
        if isinstance(item, End) or item.samples is None:
            waiting.append((item, None, 0))
        else:
            waiting.append((item, batch, len(batch.windows)))
            batch.windows.append(item.samples)
        crowded = len(waiting) >= _MOST_WAITING * batch_size()
        if crowded or len(batch.windows) >= batch_size():
            begin()
        yield from finish(0 if crowded else in_flight - 1)
    begin()
    yield from finish(0)
