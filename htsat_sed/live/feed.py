"""Sound between the thread that reads it and the one that computes, and the clock of a stream."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

IDLE = 0.2  # seconds without sound after which a consumer may do other things
_DRIFT = 1e-3  # of the time: faster clocks than that are no clocks but senders that do not wait
_EVERY = 60.0  # seconds of the stream in which the earliest arrival counts
_LATE = 1.0  # seconds by which sound must be late for a pause


class Feed:
    """Blocks of mono samples, of bounded length.

    Args:
        capacity: samples that wait at most; the reader then waits.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._blocks: deque[NDArray[np.float32]] = deque()
        self._complete = self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self.waiting = 0  # samples

    def fill(self, blocks: Callable[[], Iterator[NDArray[np.float32]]]) -> None:
        """Take blocks until there are no more, or the feed is closed; runs in a thread."""
        try:
            for block in blocks():
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or self.waiting < self._capacity)
                    if self._closed:
                        return
                    self._blocks.append(block)
                    self.waiting += len(block)
                    self._changed.notify_all()
        except BaseException as error:  # the consumer's to raise
            self._error = error
        with self._changed:
            self._complete = True
            self._changed.notify_all()

    def blocks(self, idle: Callable[[], None] = lambda: None) -> Iterator[NDArray[np.float32]]:
        """The blocks; `idle` is called while none comes.

        Raises:
            BaseException: what ended the source.
        """
        while True:
            with self._changed:
                ready = self._changed.wait_for(lambda: self._blocks or self._complete or self._closed, IDLE)
                if self._closed:
                    return
                block = self._blocks.popleft() if self._blocks else None
                if block is not None:
                    self.waiting -= len(block)
                    self._changed.notify_all()
                elif ready:
                    if self._error is not None:
                        raise self._error
                    return
            if block is None:
                idle()
            else:
                yield block

    def close(self) -> None:
        """End the stream here."""
        self._closed = True  # a signal handler may not wait for the lock

    @property
    def closed(self) -> bool:
        """Whether it was closed before its end."""
        return self._closed


class Clock:
    """When the seconds of a stream were, by the wall clock.

    The sample clock of a device drifts against it, by seconds a week, so the time of arrival is followed
    slowly. A sender that pauses moves it at once.

    Args:
        start: when the stream began; None for when its first sound arrives.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._fixed = start is not None
        self._zone = None if start is None else start.tzinfo
        self._anchor = None if start is None else start.timestamp()
        self._mark = 0.0
        self._earliest: float | None = None

    def arrived(self, seconds: float, now: float) -> None:
        """Note that the stream up to a second has arrived by now, seconds since 1970."""
        if self._fixed:
            return
        began = now - seconds
        if self._anchor is None:
            self._anchor = began
        self._earliest = began if self._earliest is None else min(self._earliest, began)
        if seconds - self._mark >= _EVERY:
            late = self._earliest - self._anchor
            limit = _DRIFT * (seconds - self._mark)
            self._anchor += late if late > _LATE else max(-limit, min(limit, late))
            self._mark, self._earliest = seconds, None

    def at(self, seconds: float) -> datetime:
        """When a second of the stream was, in local time."""
        moment = datetime.fromtimestamp((self._anchor or 0.0) + seconds, UTC)
        return moment.astimezone(self._zone)
