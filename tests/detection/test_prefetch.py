"""Reading ahead: order, bounds, errors in their place, and an end."""

import threading
from collections.abc import Generator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htsat_sed.detection.prefetch import prefetch


def names(source: str) -> Generator[str]:
    yield from (f"{source[0]}{i}" for i in range(int(source[1:])))


def reading_threads() -> int:
    return sum(thread.name == "prefetch" for thread in threading.enumerate())


@given(st.lists(st.integers(0, 9)), st.integers(1, 4), st.integers(2, 7))
def test_items_come_in_the_order_of_the_sources(lengths: list[int], workers: int, most: int) -> None:
    sources = [f"{chr(97 + i % 26)}{length}" for i, length in enumerate(lengths)]
    found = list(prefetch(sources, names, workers=workers, most=most))
    assert found == [name for source in sources for name in names(source)]
    assert reading_threads() == 0


def test_no_more_than_most_wait() -> None:
    made = taken = 0
    lock = threading.Lock()
    highest = 0

    def counted(source: int) -> Generator[int]:
        nonlocal made, highest
        for i in range(50):
            with lock:
                made += 1
                highest = max(highest, made - taken)
            yield i

    for _ in prefetch(range(10), counted, workers=3, most=6):
        with lock:
            taken += 1
    assert made == taken == 500
    assert highest <= 6 + 3 + 1  # waiting, in the hands of three workers, in those of the consumer


def test_the_first_source_is_read_while_others_fill_what_is_theirs() -> None:
    others_are_full = threading.Event()

    def read(source: str) -> Generator[str]:
        if source == "first":
            assert others_are_full.wait(10)
            yield from names("a9")
            return
        for i, name in enumerate(names("b9")):
            if i == 4:
                others_are_full.set()  # the room for this one is the first source's
            yield name

    found = list(prefetch(["first", "second"], read, workers=2, most=8))
    assert found == [*names("a9"), *names("b9")]


def test_an_error_comes_after_what_was_read_before_it() -> None:
    def read(source: str) -> Generator[str]:
        yield from names(source)
        if source == "b2":
            raise LookupError("no more of it")

    items = prefetch(["a3", "b2", "c3"], read, workers=3, most=20)
    assert [next(items) for _ in range(5)] == ["a0", "a1", "a2", "b0", "b1"]
    with pytest.raises(LookupError, match="no more of it"):
        next(items)
    assert reading_threads() == 0


def test_closing_ends_workers_and_what_they_read() -> None:
    closed: list[str] = []

    def endless(source: str) -> Generator[str]:
        try:
            while True:
                yield source
        finally:
            closed.append(source)

    items = prefetch(["a", "b", "c"], endless, workers=2, most=4)
    assert next(items) == "a"
    assert reading_threads() == 2
    items.close()
    assert reading_threads() == 0
    assert sorted(closed) == ["a", "b"]


def test_sources_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def sources() -> Iterator[int]:
        for i in range(100):
            taken.append(i)
            yield i

    items = prefetch(sources(), lambda i: (each for each in [i]), workers=2, most=5)
    assert taken == []
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    assert len(taken) <= 3 + 5
    items.close()


def test_a_thread_that_cannot_start_is_reported_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        list(prefetch([1, 2], lambda source: (each for each in [source]), workers=2, most=4))
