"""Each decoder runs in a thread of its own, so that an error or a hang affects its recording alone."""

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

PATIENCE = 20.0  # seconds that a decoder may take to make progress
# Counted in steps: a process that is stopped meanwhile (Ctrl-Z) loses only one of them.
_STEPS = 20
_MOST_WAITING = 2  # blocks
_CLOSING = 1.0  # seconds that a thread has to close its file


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
        path: what messages call it.
        open_source: opens it, puts what has to be closed on a stack, and calls its second argument while a
            long search goes on.
        search: whether, at the end of a silent track, to look for another that sounds.

    Attributes:
        source: as opened.
        silent_track: warning about a silent track beside one that sounds; known at the end.

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
        """End the thread, which closes the file; one that hangs in a read is left behind."""
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
                    raise AudioError(self._path, f"has yielded nothing for {PATIENCE:g} s: left out")
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
        except BaseException as error:  # the consumer's to raise
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
                    f"its first audio track of {source.tracks} is silent, track {track} is not: take it with "
                    f"--track {track}"
                )
            if not self._put(None):
                return

    def _put(self, item: Source | NDArray[np.float32] | None) -> bool:
        """Queue an item when there is room; False once the recording is closed."""
        with self._changed:
            self._beats += 1
            self._changed.wait_for(lambda: self._closed or len(self._items) < _MOST_WAITING)
            if item is not None and not self._closed:
                self._items.append(item)
                self._changed.notify_all()
            return not self._closed


class Unwatched:
    """A recording that may take its time, such as one from a pipe.

    Args:
        path: what messages call it.
        source: as opened.

    Attributes:
        source: as given.
        silent_track: warning about a silent track beside others; known at the end.
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
                f"its first audio track of {self.source.tracks} is silent: --track 2 takes the second"
            )

    def close(self) -> None:
        """Nothing to do: the source is closed by what it was opened on."""


class WatchedCalls:
    """Calls to a decoder, one after another in a thread of its own, each of which must make progress.

    For what seeks in a recording; `Watched` reads ahead.

    Args:
        path: what messages call the recording.

    Attributes:
        stack: what has to be closed; closed in that thread.
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
        """What a function returns or raises.

        Raises:
            AudioError: it makes no progress for `PATIENCE` seconds. No further call can be made then.
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
                raise AudioError(self._path, f"has yielded nothing for {PATIENCE:g} s: left out")
        if error is not None:
            raise error
        return value  # type: ignore[return-value]

    def close(self) -> None:
        """End the thread, which closes the file; one that hangs in a call is left behind."""
        self._calls.put(None)
        self._thread.join(_CLOSING)

    def _work(self) -> None:
        with self.stack:
            self._answer()

    def _answer(self) -> None:
        while (function := self._calls.get()) is not None:
            try:
                self._answers.put((function(), None))
            except BaseException as error:  # the caller's to raise
                self._answers.put((None, error))
