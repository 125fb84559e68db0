"""Provisional and final events of a stream, from the scores of its windows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from htsat_sed.detection.events import Event, PostProcessing, find_events
from htsat_sed.detection.presence import PresenceMap, stitch
from htsat_sed.live.events import Change, LiveEvents, Rules

LABELS = ("a", "b")
N = 8  # tokens of a window


def followed(
    windows: list[np.ndarray | None], rules: PostProcessing, hop: int, tokens: int
) -> tuple[list[tuple[int, Change]], np.ndarray]:
    """Changes of a stream of so many tokens of a second, each with the tokens that had come; its map."""
    live = LiveEvents(LABELS, Rules(LABELS, rules), tokens=N, hop=hop, token_seconds=1.0)
    found: list[tuple[int, Change]] = []
    reached = 0
    for number, scores in enumerate(windows):
        reached = min(tokens, number * hop + N)
        found += [(reached, change) for change in live.add(scores, reached, float(reached))]
    found += [(reached, change) for change in live.finish(reached, float(reached))]
    there = [np.zeros((N, 2), np.float32) if each is None else each for each in windows]
    return found, np.concatenate(list(stitch(there, hop=hop)))[:tokens]


scores = arrays(np.float32, (N, 2), elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
rules = st.builds(
    PostProcessing,
    threshold=st.just(0.5),
    threshold_low=st.sampled_from([0.25, 0.5]),
    median_filter=st.sampled_from([0.0, 3.0]),
    min_gap=st.sampled_from([0.0, 2.0]),
    min_event=st.sampled_from([0.0, 2.0]),
    edge_level=st.sampled_from([0.0, 0.5]),
)


@settings(max_examples=40)
@given(st.lists(scores, min_size=1, max_size=9), rules, st.integers(1, N), st.integers(0, 5))
def test_final_events_are_those_of_the_whole_map(
    windows: list[np.ndarray], rules: PostProcessing, hop: int, short: int
) -> None:
    tokens = (len(windows) - 1) * hop + N - (short if hop > short else 0)
    changes, whole = followed(windows, rules, hop, tokens)
    final = sorted(change.event for _, change in changes if change.state == "final")
    assert final == find_events(PresenceMap(whole, LABELS, 1.0, float(tokens)), rules)
    # Each number begins once, and is then final or withdrawn, once.
    states: dict[int, list[str]] = {}
    for _, change in changes:
        states.setdefault(change.number, []).append(change.state)
    assert all(own in (["begin", "final"], ["begin", "withdrawn"]) for own in states.values())
    assert sorted(states) == list(range(1, len(states) + 1))


@settings(max_examples=40)
@given(st.lists(scores, min_size=3, max_size=9), st.integers(1, N), st.sampled_from([0.0, 3.0]))
def test_final_events_come_within_the_look_ahead(windows: list[np.ndarray], hop: int, median: float) -> None:
    rules = PostProcessing(threshold=0.5, median_filter=median)
    tokens = (len(windows) - 1) * hop + N
    changes, _ = followed(windows, rules, hop, tokens)
    most = Rules(LABELS, rules).look_ahead(1.0) + hop + N
    assert all(came <= change.event.offset + most for came, change in changes if change.state == "final")


def test_an_event_is_reported_when_it_begins() -> None:
    """Windows of 8 tokens, one every 2: token 9 is in the second, which ends with it; token 13, the first below,
    is last in the window that begins with token 12 and ends with token 19.
    """
    windows = [np.zeros((N, 2), np.float32) for _ in range(8)]
    for number, window in enumerate(windows):
        window[max(0, 9 - 2 * number) : max(0, 13 - 2 * number), 0] = 1.0
    changes, _ = followed(windows, PostProcessing(), 2, 22)
    assert changes == [
        (10, Change("begin", 1, Event(9.0, 10.0, "a", 1.0))),
        (20, Change("final", 1, Event(9.0, 13.0, "a", 1.0))),
    ]


def test_what_later_windows_do_not_confirm_is_withdrawn() -> None:
    windows = [np.zeros((N, 2), np.float32) for _ in range(6)]
    windows[0][6:, 1] = 1.0
    changes, _ = followed(windows, PostProcessing(), 2, 18)
    assert [(change.state, change.number) for _, change in changes] == [("begin", 1), ("withdrawn", 1)]


def test_a_window_that_is_left_out_does_not_end_an_event() -> None:
    loud = np.ones((N, 2), np.float32)
    changes, _ = followed([loud, loud, None, loud, loud], PostProcessing(), 2, 16)
    assert [(c.state, c.event.onset, c.event.offset) for _, c in changes if c.state == "final"] == [
        ("final", 0.0, 16.0),
        ("final", 0.0, 16.0),
    ]


def test_other_rules_from_now_on() -> None:
    live = LiveEvents(LABELS, Rules(("a",), PostProcessing()), tokens=N, hop=N, token_seconds=1.0)
    window = np.full((N, 2), 0.6, np.float32)
    found = live.add(window, N, float(N))
    found += live.change(Rules(("b",), PostProcessing(threshold=0.7)))
    found += live.add(window, 2 * N, 2.0 * N)
    window[4:, 1] = 0.9
    found += live.add(window, 3 * N, 3.0 * N) + live.finish(3 * N, 3.0 * N)
    final = [change.event for change in found if change.state == "final"]
    assert final == [Event(0.0, 8.0, "a", np.float32(0.6)), Event(20.0, 24.0, "b", np.float32(0.9))]


def test_boxes_are_refused_because_only_the_end_knows_them() -> None:
    boxes = PostProcessing(classes={"b": {"step_filter": 1.0}})
    with pytest.raises(ValueError, match="class 'b' has a step_filter"):
        Rules(LABELS, boxes)
    assert Rules(("a",), boxes).look_ahead(1.0) == 1.0


def test_look_ahead_by_hand() -> None:
    """Half a filter of 3 tokens, and a gap of 5; or 9 tokens to where edges may move."""
    assert Rules(LABELS, PostProcessing(median_filter=3.0, min_gap=4.5)).look_ahead(1.0) == 6.0
    assert Rules(LABELS, PostProcessing(median_filter=3.0, edge_level=0.5)).look_ahead(1.0) == 10.0
