"""Boxes between change points: hand-worked maps of a few tokens, and the laws."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from htsat_sed.detection.change_points import find_boxes, step_filter_tokens
from htsat_sed.detection.events import Event, PostProcessing, find_events
from htsat_sed.detection.presence import PresenceMap

Box = tuple[int, int, float]


def boxes(scores: list[float], *, side: int = 1, absolute: float = 0.0, relative: float = 0.0) -> list[Box]:
    found = find_boxes(
        np.array(scores, np.float32)[:, None],
        sides=np.array([side]),
        merge_absolute=np.array([absolute]),
        merge_relative=np.array([relative]),
    )
    assert not found.column.any()
    return [
        (int(start), int(end), round(float(score), 4))
        for start, end, score in zip(found.start, found.end, found.score, strict=True)
    ]


def test_steepest_rise_and_fall_bound_a_box() -> None:
    # Changes at the boundaries: .1 .1 .5 .1 | -.1 -.5 -.1 -.1
    assert boxes([0.1, 0.2, 0.7, 0.8, 0.7, 0.2, 0.1]) == [(2, 5, 0.7333)]


def test_extent_does_not_depend_on_loudness() -> None:
    shape = np.array([0.0, 0.1, 0.8, 1.0, 0.9, 0.2, 0.0])
    assert [box[:2] for box in boxes(list(shape))] == [(2, 5)]
    assert [box[:2] for box in boxes(list(shape * 0.1))] == [(2, 5)]


def test_beyond_both_ends_is_silence() -> None:
    assert boxes([0.5, 0.5, 0.5]) == [(0, 3, 0.5)]
    assert boxes([0.9, 0.0, 0.0, 0.9]) == [(0, 1, 0.9), (3, 4, 0.9)]
    assert boxes([0.0, 0.0]) == []


def test_events_shorter_than_the_filter_keep_their_edges() -> None:
    assert boxes([0, 0, 0, 0.9, 0, 0, 0, 0], side=3) == [(3, 4, 0.9)]


def test_a_wide_filter_hears_no_single_tokens() -> None:
    scores = [0.8, 0.8, 0.6, 0.8, 0.8, 0, 0, 0]
    assert boxes(scores) == [(0, 2, 0.8), (3, 5, 0.8)]
    # Sums of three less sums of three: 2.2 2.2 2.2 .6 | -.6 -2.2 ..., plateaus up to rounding
    assert len(boxes(scores, side=3)) == 1


@pytest.mark.parametrize(
    ("absolute", "relative", "found"),
    [
        (0.0, 0.0, [(0, 1, 0.8), (2, 3, 0.6), (4, 5, 0.9)]),
        (0.19, 0.0, [(0, 1, 0.8), (2, 3, 0.6), (4, 5, 0.9)]),
        (0.21, 0.0, [(0, 3, 0.6), (4, 5, 0.9)]),  # 0.6 - 0.4 = 0.2, then 0.6 - 0.1 = 0.5
        (0.0, 0.3, [(0, 1, 0.8), (2, 3, 0.6), (4, 5, 0.9)]),
        (0.0, 0.34, [(0, 3, 0.6), (4, 5, 0.9)]),  # a third of 0.6
        (0.51, 0.0, [(0, 5, 0.56)]),
        (0.0, 0.9, [(0, 5, 0.56)]),
    ],
)
def test_gaps_that_hardly_drop_close(absolute: float, relative: float, found: list[Box]) -> None:
    assert boxes([0.8, 0.4, 0.6, 0.1, 0.9], absolute=absolute, relative=relative) == found


def test_merging_goes_on_with_the_new_score() -> None:
    # The first round joins 0.8 and 0.7 over 0.6 to 0.7; of 0.8 and 0.3 the lower one rules, so that 0.2
    # between them drops by 0.1 alone.
    assert boxes([0.8, 0.6, 0.7, 0.2, 0.3], absolute=0.11) == [(0, 5, 0.52)]
    assert boxes([0.8, 0.6, 0.7, 0.1, 0.3], absolute=0.11) == [(0, 3, 0.7), (4, 5, 0.3)]


@pytest.mark.parametrize(
    ("seconds", "tokens"), [(0.1, 1), (0.6, 1), (0.93, 1), (0.94, 2), (1.25, 2), (1.6, 3), (2.5, 4)]
)
def test_step_filter_is_rounded_to_tokens(seconds: float, tokens: int) -> None:
    assert step_filter_tokens(seconds, 0.3125) == tokens


def test_threshold_holds_for_the_score_of_a_box_exclusively() -> None:
    scores = PresenceMap(np.array([[0.25], [0.75], [0.0], [0.5]], np.float32), ("a",), 1.0, 3.5)
    rules = PostProcessing(threshold=0.5, step_filter=2.0)
    # Rises of .25 and .5: the onset is the second.
    assert find_events(scores, rules) == [Event(1.0, 2.0, "a", 0.75)]
    assert find_events(scores, rules.override({"threshold": 0.49})) == [
        Event(1.0, 2.0, "a", 0.75),
        Event(3.0, 3.5, "a", 0.5),
    ]
    assert find_events(scores, rules.override({"threshold": 0.49, "min_gap": 1.5})) == [
        Event(1.0, 3.5, "a", 0.75)
    ]
    assert find_events(scores, rules.override({"threshold": 0.49, "min_event": 1.0})) == [
        Event(1.0, 2.0, "a", 0.75)
    ]


def test_classes_may_have_either_method() -> None:
    column = np.array([0.3, 0.6, 0.6, 0.3], np.float32)
    scores = PresenceMap(np.stack([column] * 3, axis=1), ("a", "b", "c"), 1.0, 4.0)
    found = find_events(scores, PostProcessing(threshold=0.2, classes={"b": {"step_filter": 2.0}}))
    # Every rise of b is 0.3, every fall too: the inner edges count.
    assert [(e.onset, e.offset, e.label) for e in found] == [
        (0.0, 4.0, "a"),
        (0.0, 4.0, "c"),
        (1.0, 3.0, "b"),
    ]
    assert [e.score for e in found] == pytest.approx([0.6] * 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"step_filter": -1.0}, "wanted step_filter in seconds, 0 to 600, got -1.0"),
        ({"merge_absolute": 2.0}, r"wanted merge_absolute in \[0, 1\], got 2.0"),
        ({"merge_relative": "much"}, r"wanted merge_relative in \[0, 1\], got 'much'"),
    ],
)
def test_impossible_values_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PostProcessing(**values)  # type: ignore[arg-type]


maps = st.tuples(st.integers(1, 24), st.integers(0, 4)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(0, 1, width=16))
)
shares = st.floats(0, 1)


@given(maps, st.integers(1, 5), shares, shares)
def test_boxes_are_ordered_apart_and_alone(
    scores: np.ndarray, side: int, absolute: float, relative: float
) -> None:
    classes = scores.shape[1]
    found = find_boxes(
        scores,
        sides=np.full(classes, side),
        merge_absolute=np.full(classes, absolute),
        merge_relative=np.full(classes, relative),
    )
    assert sorted(found.column.tolist()) == found.column.tolist()
    for k in range(classes):
        own = [
            (int(s), int(e), float(v))
            for c, s, e, v in zip(found.column, found.start, found.end, found.score, strict=True)
            if c == k
        ]
        for start, end, score in own:
            assert 0 <= start < end <= len(scores)
            assert score == pytest.approx(float(scores[start:end, k].mean(dtype=float)), abs=1e-6)
        for (_, end, before), (start, _, after) in pairwise(own):
            assert start > end
            drop = min(before, after) - scores[end:start, k].mean(dtype=float)
            assert drop >= max(absolute, relative * min(before, after)) - 1e-5
        # No class knows of another.
        assert [box[:2] for box in own] == [
            box[:2] for box in boxes(scores[:, k].tolist(), side=side, absolute=absolute, relative=relative)
        ]


@given(maps, shares, shares, st.sampled_from([0.1, 2.0, 4.0]))
def test_a_higher_threshold_leaves_a_subset_of_the_boxes(
    scores: np.ndarray, one: float, other: float, step_filter: float
) -> None:
    low, high = sorted((one, other))
    presence = PresenceMap(scores, tuple("abcd"[: scores.shape[1]]), 1.0, float(len(scores)))
    many, few = (
        find_events(presence, PostProcessing(threshold=threshold, step_filter=step_filter))
        for threshold in (low, high)
    )
    assert set(few) <= set(many)
    assert many == sorted(many)
    assert all(event.score > low - 1e-6 for event in many)
