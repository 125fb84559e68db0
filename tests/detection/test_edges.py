"""Where events begin and end between tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from htsat_sed.detection.change_points import Boxes
from htsat_sed.detection.edges import REACH, find_edges, reach_of
from htsat_sed.detection.event_arrays import find_runs
from htsat_sed.detection.events import Event, PostProcessing, find_events
from htsat_sed.detection.presence import PresenceMap


def edges(scores: list[float], runs: list[tuple[int, int]], level: float) -> list[tuple[float, float]]:
    column = np.array(scores, np.float32)[:, None]
    starts, ends = np.array(runs, np.int64).T
    found = Boxes(np.zeros(len(runs), np.int64), starts, ends, np.ones(len(runs), np.float32))
    onsets, offsets = find_edges(column, found, level=np.array([level]))
    return list(zip(onsets.tolist(), offsets.tolist(), strict=True))


@pytest.mark.parametrize(
    ("scores", "runs", "level", "wanted"),
    [
        # Mean 1, level 1/2: between middles 1.5 (1/4) and 2.5 (1) at a third; outwards to the middle of 1/2.
        ([0, 0.25, 1, 1, 1, 0.5, 0], [(2, 5)], 0.5, [(1.5 + 1 / 3, 5.5)]),
        # Mean 1/2: a level of 1/6 is crossed outwards, two thirds of the way from 0 to 1/4; one of 3/8 inwards.
        ([0, 0.25, 1, 0.25, 0], [(1, 4)], 1 / 3, [(0.5 + 2 / 3, 4.5 - 2 / 3)]),
        ([0, 0.25, 1, 0.25, 0], [(1, 4)], 0.75, [(1.5 + 1 / 6, 3.5 - 1 / 6)]),
        # Whole tokens.
        ([0, 0.25, 1, 0.25, 0], [(1, 4)], 0.0, [(1.0, 4.0)]),
        # What lasts from beginning to end has no edge inside.
        ([1, 1, 1], [(0, 3)], 0.5, [(0.0, 3.0)]),
        # No crossing within reach: as far as that, outwards and inwards.
        ([0.75] * 6 + [1] * 4, [(6, 10)], 0.5, [(6.0 - REACH, 10.0)]),
        ([0] + [0.25] * 6 + [1] * 60, [(1, 67)], 0.5, [(1.0 + REACH, 67.0)]),
        # Two events: half a token between them, though the scores stay above the level.
        ([0, 1, 0.75, 1, 0], [(1, 2), (3, 4)], 0.5, [(1.0, 2.25), (2.75, 4.0)]),
    ],
)
def test_by_hand(
    scores: list[float], runs: list[tuple[int, int]], level: float, wanted: list[tuple[float, float]]
) -> None:
    assert edges(scores, runs, level) == [pytest.approx(pair) for pair in wanted]


def test_an_event_that_begins_inside_a_token() -> None:
    # Each score is the part of the token that an event from 2.3 to 6.8 covers.
    ((onset, offset),) = edges([0, 0, 0.7, 1, 1, 1, 0.8, 0], [(2, 7)], 0.5)
    assert (onset, offset) == (pytest.approx(2.3, abs=0.2), pytest.approx(6.8, abs=0.2))


values = st.sampled_from([0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0]) | st.floats(0, 1, width=16)
maps = st.integers(1, 40).flatmap(lambda tokens: arrays(np.float32, (tokens, 2), elements=values))
levels = st.floats(0.05, 0.95)


def found_runs(scores: np.ndarray) -> Boxes:
    return find_runs(scores, np.array([0.25, 0.5]))


@given(maps, levels)
def test_events_stay_events(scores: np.ndarray, level: float) -> None:
    runs = found_runs(scores)
    onset, offset = find_edges(scores, runs, level=np.full(2, level))
    assert ((onset >= 0.0) & (onset < offset) & (offset <= len(scores))).all()
    assert (abs(onset - runs.start) <= REACH).all()
    assert (abs(offset - runs.end) <= REACH).all()
    together = runs.column[1:] == runs.column[:-1]
    assert ((onset[1:] - offset[:-1])[together] >= 0.5).all()


@given(maps, levels)
def test_scores_at_edges_are_the_level(scores: np.ndarray, level: float) -> None:
    runs = found_runs(scores)
    onset, _ = find_edges(scores, runs, level=np.full(2, level))
    first = np.append(True, runs.column[1:] != runs.column[:-1])  # no other event is in the way
    for k in np.flatnonzero(first & (abs(onset - runs.start) < REACH) & (onset > 0.0)):
        column = scores[:, runs.column[k]].astype(float)
        at = np.interp(onset[k], np.arange(len(column)) + 0.5, column)
        assert at == pytest.approx(level * column[runs.start[k] : runs.end[k]].mean(), abs=1e-6)


@given(maps, levels)
def test_backwards_is_the_mirror_image(scores: np.ndarray, level: float) -> None:
    runs, mirrored = found_runs(scores), found_runs(scores[::-1])
    onset, offset = find_edges(scores, runs, level=np.full(2, level))
    back_onset, back_offset = find_edges(scores[::-1], mirrored, level=np.full(2, level))
    # Runs of one column come in the other order.
    order = np.lexsort((-mirrored.start, mirrored.column))
    np.testing.assert_allclose(len(scores) - back_offset[order], onset, atol=1e-9)
    np.testing.assert_allclose(len(scores) - back_onset[order], offset, atol=1e-9)


@given(maps, levels)
def test_how_sure_the_model_is_moves_no_edge(scores: np.ndarray, level: float) -> None:
    runs = found_runs(scores)
    for fainter in (scores, scores / 4.0):
        onset, offset = find_edges(fainter, runs, level=np.full(2, level))
        if fainter is scores:
            sure = onset, offset
    np.testing.assert_allclose((onset, offset), sure, atol=1e-9)


def test_events_have_edges_where_a_class_asks_for_them() -> None:
    scores = np.array([[0, 0.25, 1, 1, 1, 0.5, 0]] * 2, np.float32).T
    presence = PresenceMap(scores, ("a", "b"), 1.0, 7.0)
    rules = PostProcessing(classes={"b": {"edge_level": 0.5}})
    assert find_events(presence, rules) == [
        Event(pytest.approx(1.5 + 1 / 3), 5.5, "b", 1.0),
        Event(2.0, 5.0, "a", 1.0),
    ]


def test_an_event_in_a_last_token_of_which_little_is_left() -> None:
    """Its edge would move past the end of the recording: it begins with the token instead."""
    presence = PresenceMap(np.array([[0, 0, 1]], np.float32).T, ("a",), 1.0, 2.1)
    assert find_events(presence, PostProcessing(edge_level=0.5)) == [Event(2.0, 2.1, "a", 1.0)]
    assert find_events(presence, PostProcessing(edge_level=0.9)) == [Event(2.0, 2.1, "a", 1.0)]


def test_events_are_cut_and_dropped_by_their_edges() -> None:
    presence = PresenceMap(np.array([[0, 1, 0.75, 0.5]], np.float32).T, ("a",), 1.0, 3.25)
    rules = PostProcessing(edge_level=0.5)
    assert find_events(presence, rules) == [Event(pytest.approx(0.9375), 3.25, "a", 1.0)]
    assert find_events(presence, rules.override({"min_event": 2.3})) != []
    assert find_events(presence, rules.override({"min_event": 2.4})) == []


@pytest.mark.parametrize("level", [-0.1, 0.91, "half"])
def test_impossible_levels_are_refused(level: object) -> None:
    with pytest.raises(ValueError, match=r"wanted edge_level in \[0, 0\.9\], got"):
        PostProcessing(classes={"a": {"edge_level": level}})  # type: ignore[dict-item]


def test_boundaries_move_as_far_in_seconds_on_a_finer_grid() -> None:
    assert [reach_of(step) for step in (1.0, 0.3125, 0.3125 / 4)] == [4, 4, 16]
