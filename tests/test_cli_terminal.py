"""What a person sees: how long the rest takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htsat_sed.cli.terminal import Pace


def test_the_rest_takes_as_long_as_what_is_done() -> None:
    pace = Pace(100.0)
    assert pace.left(10.0) is None
    pace.note(104.0, 2.0)
    assert pace.left(10.0) == 16.0


def test_bursts_count_from_when_work_began() -> None:
    pace = Pace(0.0)
    for window in range(1, 9):  # a batch of eight after 4 s
        pace.note(4.0 + window / 1000, window / 360)
    assert pace.left(1.0) == pytest.approx(4.0 * 352 / 8, rel=0.01)


def test_what_was_done_before_tells_nothing() -> None:
    pace = Pace(0.0, 90.0)
    pace.note(5.0, 91.0)
    assert pace.left(100.0) == 45.0


def test_the_last_minute_counts() -> None:
    pace = Pace(0.0)
    for second in range(1, 301):  # at first ten times as fast
        pace.note(float(second), 10.0 * min(second, 200) + max(0, second - 200))
    assert pace.left(2200.0) == pytest.approx(100.0)


@given(st.floats(0.01, 50.0), st.floats(0.001, 10.0), st.integers(2, 400))
def test_an_even_pace_is_told_exactly(stride: float, speed: float, steps: int) -> None:
    pace = Pace(0.0)
    for step in range(1, steps):
        pace.note(step * stride, step * stride * speed)
    assert pace.left(1e5) == pytest.approx(1e5 / speed - (steps - 1) * stride, rel=1e-6)
