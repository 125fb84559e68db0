"""Prefetching: workers read sources in advance, and items are yielded in the order of the sources."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

S = TypeVar("S")
T = TypeVar("T")

_PATIENCE = 1.0  # seconds to wait for workers after the end


@dataclass(eq=False)
class _Shelf(Generic[S, T]):
    """The items of a source that have not been consumed."""

    source: S
    items: deque[T] = field(default_factory=deque)
    complete: bool = False
    error: BaseException | None = None


def prefetch(
    sources: Iterable[S],
    read: Callable[[S], Generator[T]],
    *,
    workers: int,
    most: int,
    idle: float | None = None,
) -> Generator[T | None]:
    """Yield the items of every source in order, while workers read the next sources.

    The items do not depend on the number of workers. Closing the iterator ends the workers.

    Args:
        sources: sources to read, of which up to `most` are taken in advance.
        read: yields the items of one source; runs in a thread.
        workers: number of threads, at least 1; each reads one source at a time.
        most: maximum number of queued items, at least 2. Half of them are reserved for the current source, so
            that later sources do not block it.
        idle: time without an item after which None is yielded, seconds; None for never.

    Yields:
        Items, and None when idle.

    Raises:
        BaseException: any exception of `read`, after the items that it yielded.
    """
    desk = _Desk(read, most)
    threads: list[threading.Thread] = []
    coming = iter(sources)
    try:
        while True:
            for source in islice(coming, most - len(desk.shelves)):
                desk.order(source)
                if len(threads) < workers:
                    thread = threading.Thread(target=desk.work, name="prefetch", daemon=True)
                    thread.start()
                    threads.append(thread)  # only started threads can be joined
            if not desk.shelves:
                return
            yield from desk.take(idle)
    finally:
        desk.close()
        until = time.monotonic() + _PATIENCE
        for thread in threads:
            # A thread that hangs in a read (a lost network drive) is abandoned; it ends with the program.
            thread.join(max(0.0, until - time.monotonic()))


class _Desk(Generic[S, T]):
    """Queues between workers and the consumer, guarded by one lock."""

    def __init__(self, read: Callable[[S], Generator[T]], most: int) -> None:
        self.shelves: deque[_Shelf[S, T]] = deque()  # in order; the consumer takes from the first
        self._read = read
        self._most = most
        self._ordered: deque[_Shelf[S, T]] = deque()  # not started by a worker
        self._held = 0
        self._closed = False
        self._changed = threading.Condition()

    def order(self, source: S) -> None:
        with self._changed:
            shelf = _Shelf[S, T](source)
            self.shelves.append(shelf)
            self._ordered.append(shelf)
            self._changed.notify_all()

    def take(self, idle: float | None) -> Iterator[T | None]:
        """Wait for the next item and yield it; yield nothing and remove the source if it is exhausted."""
        with self._changed:
            first = self.shelves[0]
            if not self._changed.wait_for(lambda: first.items or first.complete, idle):
                yield None
                return
            item = [first.items.popleft()] if first.items else []
            self._held -= len(item)
            if not item:
                self.shelves.popleft()
            self._changed.notify_all()
        if not item and first.error is not None:
            raise first.error
        yield from item

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ordered or self._closed)
                if self._closed:
                    return
                shelf = self._ordered.popleft()
            try:
                with closing(self._read(shelf.source)) as items:
                    for item in items:
                        if not self._put(shelf, item):
                            break
            except BaseException as error:  # raised in the consumer, in order
                shelf.error = error
            with self._changed:
                shelf.complete = True
                self._changed.notify_all()

    def _put(self, shelf: _Shelf[S, T], item: T) -> bool:
        """Queue an item as soon as there is room; return False if the prefetch was closed."""

        def has_room() -> bool:
            return self._held < (self._most if shelf is self.shelves[0] else self._most // 2)

        with self._changed:
            self._changed.wait_for(lambda: self._closed or has_room())
            if not self._closed:
                shelf.items.append(item)
                self._held += 1
                self._changed.notify_all()
            return not self._closed
