"""Recordings to the scores of their windows: read ahead by workers, in batches that recordings share.

    recordings ─ workers ─▶ windows and ends, in order ─ batches ─▶ the same with scores, in order

A batch holds the same windows in the same order whatever the number of workers, so results are the same
to the last bit.
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

_MOST_WAITING = 64  # windows and ends that wait for a batch, for each window in one
_BATCHES_AHEAD = 2  # batches' worth of windows that workers read ahead, or
_LEAST_AHEAD = 32  # so many, 41 MB at 32 kHz
_IDLE = 0.1  # seconds without a window after which what came through a pipe is computed


@dataclass(frozen=True, eq=False)
class Part:
    """A window of a recording.

    Attributes:
        path: of the recording.
        end: samples of the recording up to the end of the window.
        samples: (n,) float32; None for digital silence.
        expected_duration: of the recording, seconds, as far as its header tells.
        comes: whether the recording is read as it comes, so that the next window may be long in coming.
    """

    path: AnyPath
    end: int
    samples: Samples | None
    expected_duration: float | None
    comes: bool = False


@dataclass(frozen=True)
class End:
    """What is known when a recording has been read.

    Attributes:
        path: of the recording.
        duration: seconds; 0 if it could not be read.
        sample_rate: of the recording, Hz; None if it could not be read.
        defect: what is wrong with it though it could be read, such as that it was cut off.
        error: why it could not be read to its end.
    """

    path: AnyPath
    duration: float = 0.0
    defect: str | None = None
    sample_rate: int | None = None
    error: HtsatSedError | None = None


class ScoredRecording:
    """A recording on its way out; its windows come once.

    Attributes:
        path: of the recording.
        reached: samples of it that the windows so far cover.
        end: how it ended; known when all windows have come.
    """

    end: End

    def __init__(self, first: tuple[Part | End, Scores], rest: Iterator[tuple[Part | End, Scores]]) -> None:
        self.path = first[0].path
        self.reached = 0
        self._items = chain([first], rest)

    def windows(self) -> Iterator[tuple[Part, Scores]]:
        """The windows with what the model made of them, in order."""
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
    """Pass recordings through the model.

    Args:
        paths: recordings.
        open_stream: opens a recording at the rate of the windows; runs in a worker.
        cut: makes windows of a recording; runs in a worker.
        launch: begins with a batch and returns what waits for its scores, one entry a window.
        silent: scores of a window of digital silence, in which nothing sounds whatever a model makes of
            -100 dB; it does not pass the model.
        batch_size: windows of a batch, as of now.
        in_flight: batches that are begun before the first of them is waited for; at least 1.
        workers: threads that read.
        fill: repeat a window until a batch is full. Libraries compute batches of another size in another
            order, which shows in the last bits; in batches of one size a window's company does not.

    Yields:
        Each recording; its windows are to be taken to the end before the next one comes.
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
    """Each item with its scores, in order; a pipe that is slow is not waited for with scores that are due."""
    waiting: deque[tuple[Part | End, _Batch | None, int]] = deque()  # with the place in the batch
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
