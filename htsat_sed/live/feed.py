"""Queue between the thread that reads a stream and the one that computes; the clock of a stream."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

IDLE = 0.2  # seconds without sound after which `idle` is called
_DRIFT = 1e-3  # largest relative drift of a clock; a larger one means that the sender does not wait
_EVERY = 60.0  # seconds of the stream between two corrections, each by the earliest arrival
_LATE = 1.0  # seconds of delay that count as a pause


class Feed:
    """Bounded queue of blocks of mono samples.

    Args:
        capacity: maximum number of queued samples; the reader waits while the queue is full.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._blocks: deque[NDArray[np.float32]] = deque()
        self._complete = self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self.waiting = 0  # queued samples

    def fill(self, blocks: Callable[[], Iterator[NDArray[np.float32]]]) -> None:
        """Queue blocks until they end or the feed is closed; runs in the reading thread."""
        try:
            for block in blocks():
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or self.waiting < self._capacity)
                    if self._closed:
                        return
                    self._blocks.append(block)
                    self.waiting += len(block)
                    self._changed.notify_all()
        except BaseException as error:  # raised in the consumer's thread
            self._error = error
        with self._changed:
            self._complete = True
            self._changed.notify_all()

    def blocks(self, idle: Callable[[], None] = lambda: None) -> Iterator[NDArray[np.float32]]:
        """Yield the blocks; `idle` is called while none arrives.

        Raises:
            BaseException: the error that ended the source.
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
        """End the stream now."""
        self._closed = True  # a signal handler may not wait for the lock

    @property
    def closed(self) -> bool:
        """Whether the feed was closed before the stream ended."""
        return self._closed


class Clock:
    """Wall clock of a stream.

    The sample clock of a device drifts by seconds a week, so the clock slowly follows the times of arrival.
    After a pause of the sender it is corrected at once.

    Args:
        start: start of the stream; None for the arrival of its first samples.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._fixed = start is not None
        self._zone = None if start is None else start.tzinfo
        self._anchor = None if start is None else start.timestamp()
        self._mark = 0.0
        self._earliest: float | None = None

    def arrived(self, seconds: float, now: float) -> None:
        """Record that `seconds` of the stream have arrived by `now`, seconds since 1970."""
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
        """Local time of a position in the stream, in seconds."""
        moment = datetime.fromtimestamp((self._anchor or 0.0) + seconds, UTC)
        return moment.astimezone(self._zone)
