"""Time limits for decoders: each runs in its own thread, so that a hang affects only its recording."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from htsat_sed.audio.source import Source, is_silent
from htsat_sed.errors import AudioError, HtsatSedError

_T = TypeVar("_T")

PATIENCE = 20.0  # seconds in which a decoder must make progress
# Counted in steps: while a process is stopped (Ctrl-Z), only one step passes.
_STEPS = 20
_MOST_WAITING = 2  # blocks
_CLOSING = 1.0  # seconds in which a thread must close its file


@contextmanager
def readers_errors(path: str, what: str) -> Iterator[None]:
    """Turn any exception of a reader into an AudioError that names the recording."""
    try:
        yield
    except HtsatSedError:
        raise
    except OSError as error:
        raise AudioError(path, f"cannot be {what}: {error.strerror or error}") from error
    except Exception as error:
        reason = str(error) or "no reason given"
        raise AudioError(path, f"cannot be {what}: {type(error).__name__}: {reason}") from error


class Watched:
    """A recording whose decoder must make progress every `PATIENCE` seconds.

    Args:
        path: name in messages.
        open_source: opens the recording, registers what must be closed on a stack, and calls its second
            argument during a long search.
        search: whether to search for another track with sound after a silent one.

    Attributes:
        source: the opened source.
        silent_track: warning about a silent track if another has sound; known at the end.

    Raises:
        AudioError: it cannot be opened, or not in time.
    """

    def __init__(
        self, path: str, open_source: Callable[[ExitStack, Callable[[], None]], Source], *, search: bool
    ) -> None:
        self.silent_track: str | None = None
        self._path = path
        self._open, self._search = open_source, search
        self._items: deque[Source | NDArray[np.float32]] = deque()
        self._error: BaseException | None = None
        self._beats = 0
        self._complete = self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="decoder", daemon=True)
        self._thread.start()
        try:
            source = self._next()
        except BaseException:
            self.close()
            raise
        assert isinstance(source, Source)
        self.source = source

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield what `Source.blocks` does.

        Raises:
            AudioError: it cannot be read, or not in time.
        """
        while (block := self._next()) is not None:
            assert not isinstance(block, Source)
            yield block

    def close(self) -> None:
        """End the thread, which closes the file; a thread that hangs is abandoned."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()
        self._thread.join(_CLOSING)

    def _next(self) -> Source | NDArray[np.float32] | None:
        with self._changed:
            steps, beats = 0, self._beats
            while not (self._items or self._complete):
                if self._changed.wait(PATIENCE / _STEPS):
                    continue
                steps, beats = (steps + 1 if beats == self._beats else 0), self._beats
                if steps >= _STEPS:
                    raise AudioError(self._path, f"has yielded no data for {PATIENCE:g} s: left out")
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            return None

    def _work(self) -> None:
        try:
            with ExitStack() as stack, readers_errors(self._path, "read"):
                source = self._open(stack, self._beat)
                self._put(source)
                self._read(source)
        except BaseException as error:  # raised in the consumer's thread
            self._error = error
        with self._changed:
            self._complete = True
            self._changed.notify_all()

    def _beat(self) -> None:
        self._beats += 1

    def _read(self, source: Source) -> None:
        silent = source.tracks > 1 and self._search
        for block in source.blocks():
            if silent and block.size:
                silent = is_silent(max(float(block.max()), -float(block.min())))
            if not self._put(block):
                return
        if not silent:
            return
        for track in source.other_track():
            if track is not None:
                self.silent_track = (
                    f"its first audio track of {source.tracks} is silent, track {track} is not: use "
                    f"--track {track}"
                )
            if not self._put(None):
                return

    def _put(self, item: Source | NDArray[np.float32] | None) -> bool:
        """Queue an item as soon as there is room; False after the recording is closed."""
        with self._changed:
            self._beats += 1
            self._changed.wait_for(lambda: self._closed or len(self._items) < _MOST_WAITING)
            if item is not None and not self._closed:
                self._items.append(item)
                self._changed.notify_all()
            return not self._closed


class Unwatched:
    """A recording without a time limit, such as one from a pipe.

    Args:
        path: name in messages.
        source: an opened source.

    Attributes:
        source: as given.
        silent_track: warning about a silent track if there are others; known at the end.
    """

    def __init__(self, path: str, source: Source) -> None:
        self.source = source
        self.silent_track: str | None = None
        self._path = path

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Blocks of the source."""
        silent = self.source.tracks > 1 and self.source.track == 0
        with readers_errors(self._path, "read"):
            for block in self.source.blocks():
                if silent and block.size:
                    silent = is_silent(max(float(block.max()), -float(block.min())))
                yield block
        if silent:
            self.silent_track = (
                f"its first audio track of {self.source.tracks} is silent: --track 2 selects the second"
            )

    def close(self) -> None:
        """Do nothing: the source is closed by its stack."""


class WatchedCalls:
    """Sequential calls to a decoder in its own thread, each of which must make progress.

    For seeking in a recording; `Watched` reads ahead.

    Args:
        path: name of the recording in messages.

    Attributes:
        stack: closed in that thread.
    """

    def __init__(self, path: str) -> None:
        self.stack = ExitStack()
        self._path = path
        self._beats = 0
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[object, BaseException | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="decoder", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        """Report progress, from within a long call."""
        self._beats += 1

    def call(self, function: Callable[[], _T]) -> _T:
        """Call a function and return or raise its result.

        Raises:
            AudioError: it makes no progress for `PATIENCE` seconds; no further call is possible.
        """
        self._calls.put(function)
        steps, beats = 0, self._beats
        while True:
            try:
                value, error = self._answers.get(timeout=PATIENCE / _STEPS)
                break
            except queue.Empty:
                steps, beats = (steps + 1 if beats == self._beats else 0), self._beats
            if steps >= _STEPS:
                raise AudioError(self._path, f"has yielded no data for {PATIENCE:g} s: left out")
        if error is not None:
            raise error
        return value  # type: ignore[return-value]

    def close(self) -> None:
        """End the thread, which closes the file; a thread that hangs is abandoned."""
        self._calls.put(None)
        self._thread.join(_CLOSING)

    def _work(self) -> None:
        with self.stack:
            self._answer()

    def _answer(self) -> None:
        while (function := self._calls.get()) is not None:
            try:
                self._answers.put((function(), None))
            except BaseException as error:  # raised in the caller's thread
                self._answers.put((None, error))
