"""What a person sees: how long the rest takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htsat_sed.cli import terminal
from htsat_sed.cli.terminal import Pace, RecordingsProgress


def test_the_rest_takes_as_long_as_what_is_done() -> None:
    pace = Pace()
    assert pace.left(10.0) is None
    pace.note(104.0, 2.0)
    assert pace.left(10.0) is None
    pace.note(108.0, 4.0)
    assert pace.left(10.0) == 12.0


@pytest.mark.parametrize(("first", "then"), [(60.0, 4.0), (4.0, 0.3)])
def test_bursts_count_from_the_first_one(first: float, then: float) -> None:
    pace = Pace()
    for batch in range(10):  # of eight windows
        for window in range(8):
            pace.note(first + then * batch + window / 1000, (8 * batch + window + 1) / 360)
    assert pace.left(1.0) == pytest.approx(then * 280 / 8, rel=0.02)


def test_the_last_minute_counts() -> None:
    pace = Pace()
    for second in range(1, 301):  # at first ten times as fast
        pace.note(float(second), 10.0 * min(second, 200) + max(0, second - 200))
    assert pace.left(2200.0) == pytest.approx(100.0)


@given(st.floats(0.01, 50.0), st.floats(0.001, 10.0), st.integers(2, 400))
def test_an_even_pace_is_told_exactly(stride: float, speed: float, steps: int) -> None:
    pace = Pace()
    for step in range(1, steps + 1):
        pace.note(step * stride, step * stride * speed)
    left = pace.left(1e5)
    if left is None:
        assert steps * stride < 2.5 + 2 * stride
    else:
        assert left == pytest.approx(1e5 / speed - steps * stride, rel=1e-6)


def test_what_was_done_before_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recordings that are there already come between those that are not, as with --skip-existing."""
    now = 0.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    progress = RecordingsProgress("detecting", total=100)
    progress.done_before(20)
    for _ in range(10):
        now += 2.0
        progress.done()
        progress.done_before(3)
    (task,) = progress._bar.tasks
    assert task.completed == 60
    assert task.fields["left"] == "0:01:26"  # for all 43 that were left then: nobody knows which are there
