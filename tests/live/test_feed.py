"""The feed, the clock and the ring of a stream."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htsat_sed.live.clips import Ring
from htsat_sed.live.feed import Clock, Feed


def test_a_feed_is_bounded_and_keeps_the_order() -> None:
    feed = Feed(100)
    highest = 0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal highest
        for number in range(50):
            highest = max(highest, feed.waiting)
            yield np.full(40, number, np.float32)

    thread = threading.Thread(target=feed.fill, args=(blocks,))
    thread.start()
    assert [int(block[0]) for block in feed.blocks()] == list(range(50))
    thread.join()
    assert highest <= 140


def test_what_ends_the_source_comes_after_its_blocks() -> None:
    def blocks() -> Iterator[np.ndarray]:
        yield np.zeros(4, np.float32)
        raise OSError("broken")

    feed = Feed(10)
    feed.fill(blocks)
    found = feed.blocks()
    assert len(next(found)) == 4
    with pytest.raises(OSError, match="broken"):
        next(found)


def test_a_closed_feed_ends_for_both_sides() -> None:
    def blocks() -> Iterator[np.ndarray]:
        while True:
            yield np.zeros(10, np.float32)

    feed = Feed(10)
    thread = threading.Thread(target=feed.fill, args=(blocks,))
    thread.start()
    for _ in feed.blocks():
        feed.close()
    thread.join(10)
    assert not thread.is_alive()


def test_the_clock_begins_with_the_first_arrival_and_follows_drift() -> None:
    clock = Clock()
    for second in range(1, 36_001):  # ten hours of a device that is slow by 50 parts in a million
        clock.arrived(float(second), 1_000_000.0 + second * 1.00005 + 0.2 * (second % 7 == 0))
    assert clock.at(36_000.0).timestamp() == pytest.approx(1_036_001.8, abs=0.02)


def test_a_sender_that_is_fast_hardly_moves_the_clock_and_one_that_pauses_does() -> None:
    clock = Clock()
    for second in range(1, 601):
        clock.arrived(float(second), 1_000_000.0 + second / 10)
    assert clock.at(600.0).timestamp() == pytest.approx(1_000_600.0, abs=2.0)
    clock = Clock()
    for second in range(1, 601):
        clock.arrived(float(second), 1_000_000.0 + second + (300.0 if second > 120 else 0.0))
    assert clock.at(600.0).timestamp() == 1_000_900.0


def test_a_clock_that_was_set_stays() -> None:
    clock = Clock(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    clock.arrived(100.0, 5.0)
    assert clock.at(1.5).isoformat() == "2026-01-02T03:04:06.500000+00:00"


@given(st.lists(st.integers(1, 9), max_size=30), st.integers(1, 20), st.integers(0, 150), st.integers(0, 40))
def test_a_ring_has_the_latest_samples(lengths: list[int], most: int, start: int, length: int) -> None:
    ring, whole = Ring(most), np.arange(sum(lengths), dtype=np.float32)
    position = 0
    for each in lengths:
        ring.add(whole[position : position + each])
        position += each
    first = max(start, len(whole) - most)
    found = ring.between(first, start + length)
    np.testing.assert_array_equal(found, whole[first : start + length])
    assert ring.between(0, len(whole)).size <= most + 9
