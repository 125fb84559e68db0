"""Events from rows as they come: the same as from the whole map, as early as can be, in bounded memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from htsat_sed.detection.events import Event, PostProcessing, find_events
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.detection.streaming import EventStream

LABELS = ("a", "b", "c")


def one_by_one(column: list[float], rules: PostProcessing) -> list[list[Event]]:
    """What each token brings forth, and then the end."""
    stream = EventStream(["a"], token_seconds=1.0, post_processing=rules, block=1)
    found = [stream.add(np.array([[score]], np.float32)) for score in column]
    return [*found, stream.finish(float(len(column)))]


def test_a_run_is_final_with_the_first_token_below() -> None:
    first, second = Event(0.0, 2.0, "a", 0.75), Event(3.0, 4.0, "a", 1.0)
    assert one_by_one([0.625, 0.75, 0, 1], PostProcessing()) == [[], [], [first], [], [second]]


def test_a_low_run_waits_for_its_high_token() -> None:
    rules = PostProcessing(threshold=0.5, threshold_low=0.25)
    event = Event(0.0, 3.0, "a", 0.75)
    assert one_by_one([0.375, 0.375, 0.75, 0, 0.375, 0], rules) == [[], [], [], [event], [], [], []]


def test_an_event_waits_for_min_gap() -> None:
    rules = PostProcessing(min_gap=2.0)
    assert one_by_one([1, 0, 0, 1], rules) == [[], [], [Event(0.0, 1.0, "a")], [], [Event(3.0, 4.0, "a")]]
    assert one_by_one([1, 0, 1, 0, 0], rules) == [[], [], [], [], [Event(0.0, 3.0, "a")], []]


def test_a_low_run_within_min_gap_keeps_the_event_waiting() -> None:
    rules = PostProcessing(threshold=0.75, threshold_low=0.25, min_gap=2.0)
    joined, alone = Event(0.0, 5.0, "a"), Event(0.0, 1.0, "a")
    assert one_by_one([1, 0, 0.5, 0.5, 1, 0, 0], rules) == [[], [], [], [], [], [], [joined], []]
    assert one_by_one([1, 0, 0.5, 0.5, 0, 0], rules) == [[], [], [], [], [alone], [], []]


def test_a_median_filter_looks_half_its_width_ahead() -> None:
    rules = PostProcessing(median_filter=3.0)
    # 9 9 1 9 1 1 in medians of three: 9 9 9 1 1 1
    found = one_by_one([0.875, 0.875, 0.125, 0.875, 0.125, 0.125], rules)
    assert found == [[], [], [], [], [Event(0.0, 3.0, "a", 0.875)], [], []]


def test_the_end_cuts_the_last_event() -> None:
    stream = EventStream(["a"], token_seconds=1.0, post_processing=PostProcessing())
    assert stream.add(np.ones((3, 1), np.float32)) == []
    assert stream.finish(2.25) == [Event(0.0, 2.25, "a")]


def test_no_rows_no_events() -> None:
    stream = EventStream(LABELS, token_seconds=1.0, post_processing=PostProcessing(threshold=0.0))
    assert stream.finish(0.0) == []


def test_impossible_rows_and_durations_are_refused() -> None:
    stream = EventStream(LABELS, token_seconds=1.0, post_processing=PostProcessing())
    with pytest.raises(
        ValueError, match=r"wanted rows of shape \(n, 3\), one column per label, got \(4, 2\)"
    ):
        stream.add(np.zeros((4, 2), np.float32))
    stream.add(np.zeros((4, 3), np.float32))
    with pytest.raises(ValueError, match=r"wanted a duration within the last of 4 rows of 1 s, got 2\.5 s"):
        stream.finish(2.5)


values = st.fixed_dictionaries(
    {
        "threshold": st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
        "threshold_low": st.just(0.0),
        "median_filter": st.sampled_from([0.0, 0.9, 1.6, 4.0]),
        "min_event": st.sampled_from([0.0, 0.3125, 0.5, 2.0]),
        "min_gap": st.sampled_from([0.0, 0.3125, 0.5, 1.0, 3.0]),
        "step_filter": st.sampled_from([0.0, 0.0, 0.6, 1.3]),
        "merge_absolute": st.sampled_from([0.0, 0.125]),
        "merge_relative": st.sampled_from([0.0, 0.5]),
        "edge_level": st.sampled_from([0.0, 0.5, 0.75]),
        "score_slope": st.sampled_from([1.0, 0.5, 2.0]),
        "score_offset": st.sampled_from([0.0, -1.0]),
    }
)


@st.composite
def rule_sets(draw: st.DrawFn) -> PostProcessing:
    chosen = [draw(values) for _ in range(4)]
    for each in chosen:
        each["threshold_low"] = draw(st.sampled_from([1.0, 0.5, 0.25])) * each["threshold"]
    return PostProcessing(**chosen[0], classes=dict(zip(LABELS[:2], chosen[1:], strict=False)))


# Few values, so that equal ones and those on a threshold are met; and any.
maps = st.integers(0, 40).flatmap(
    lambda tokens: st.one_of(
        arrays(np.float32, (tokens, 3), elements=st.sampled_from([0.0, 0.25, 0.375, 0.5, 0.625, 1.0])),
        arrays(np.float32, (tokens, 3), elements=st.floats(0, 1, width=32)),
    )
)


@given(
    maps,
    rule_sets(),
    st.lists(st.integers(0, 40)),
    st.integers(1, 12),
    st.floats(0.01, 1.0),
    st.sampled_from([0.3125, 0.3125 / 3]),
)
def test_events_are_those_of_the_whole_map(
    scores: np.ndarray, rules: PostProcessing, cuts: list[int], block: int, part: float, step: float
) -> None:
    duration = max(0.0, (len(scores) - 1 + part) * step)
    stream = EventStream(LABELS, token_seconds=step, post_processing=rules, block=block)
    found: list[Event] = []
    for rows in np.split(scores, sorted(min(cut, len(scores)) for cut in cuts)):
        found += stream.add(rows)
    found += stream.finish(duration)
    assert sorted(found) == find_events(PresenceMap(scores, LABELS, step, duration), rules)


def test_edges_do_not_depend_on_where_a_stream_is_cut() -> None:
    scores = np.array([[0.25] * 27 + [0.625] + [0.0] * 6 + [0.3, 1.0, 1.0, 0.3]], np.float32).T
    rules = PostProcessing(threshold=0.25, edge_level=0.5)
    for step in (1.0, 0.3125):
        stream = EventStream(("a",), token_seconds=step, post_processing=rules, block=1)
        found = [event for row in scores for event in stream.add(row[None])]
        found += stream.finish(len(scores) * step)
        assert found == find_events(PresenceMap(scores, ("a",), step, len(scores) * step), rules)


@pytest.mark.parametrize("edges", [False, True])
def test_memory_does_not_grow_with_the_recording(edges: bool) -> None:
    values = {"threshold_low": 0.25, "median_filter": 3.0, "min_event": 0.5}
    rules = (
        PostProcessing(**values, edge_level=0.6, min_gap=2.0)
        if edges
        else PostProcessing(**values, min_gap=60.0)
    )
    rng = np.random.default_rng(0)
    rows = rng.random((32, 10), np.float32) * (0.3 if edges else 1.0)
    rows[20:22] = 1.0
    rows[:, 0] = 0.0 if edges else 1.0  # one event all along, none where edges would keep its scores
    rows[:, 1] *= 0.25  # none at all

    def peak(blocks: int) -> int:
        stream = EventStream([str(k) for k in range(10)], token_seconds=0.3125, post_processing=rules)
        tracemalloc.start()
        for _ in range(blocks):
            stream.add(rows)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(200)
    assert peak(2000) < 1.5 * peak(200)


@given(maps, rule_sets(), st.integers(0, 40), st.floats(0.01, 1.0))
def test_a_preview_is_what_the_end_would_bring_in_whole_tokens_and_changes_nothing(
    scores: np.ndarray, rules: PostProcessing, cut: int, part: float
) -> None:
    step = 0.3125
    duration = max(0.0, (len(scores) - 1 + part) * step)
    cut = min(cut, len(scores))
    for chosen in (rules, rules.override({"edge_level": 0.0})):
        stream = EventStream(LABELS, token_seconds=step, post_processing=chosen, block=1)
        found = stream.add(scores[:cut])
        previewed = found + stream.preview(scores[cut:], duration)
        stream.preview(1.0 - scores[cut:], duration)
        found += stream.add(scores[cut:]) + stream.finish(duration)
        assert sorted(found) == find_events(PresenceMap(scores, LABELS, step, duration), chosen)
    assert sorted(previewed) == sorted(found)  # of the rules without edges


def test_an_event_with_edges_does_not_wait_for_the_end_of_the_next() -> None:
    """At half of its mean of 1, the first one ends in the middle between tokens 2 and 3, whatever follows."""
    rules = PostProcessing(threshold=0.5, edge_level=0.5)
    column = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, *[0.9] * 30, 0.0]
    found = one_by_one(column, rules)
    assert found[7] == [Event(2.0, 3.0, "a", 1.0)]  # `REACH` tokens behind its end
    column = [0.0, 0.0, 1.0, 0.0, *[0.9] * 30, 0.0]
    found = one_by_one(column, rules)
    assert [event.onset for event in found[7]] == [2.0]
