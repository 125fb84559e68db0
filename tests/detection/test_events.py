"""Events from presence maps: hand-worked maps of a few tokens, and the laws."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from htsat_sed.detection.events import (
    Event,
    PostProcessing,
    find_events,
    median_filter_tokens,
    read_post_processing,
    smooth,
)
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.errors import AnnotationError


def presence_map(*columns: list[float], token: float = 1.0, duration: float | None = None) -> PresenceMap:
    scores = np.array(columns, np.float32).T
    labels = tuple("abcdef"[: scores.shape[1]])
    return PresenceMap(scores, labels, token, len(scores) * token if duration is None else duration)


def spans(events: list[Event]) -> list[tuple[float, float, str]]:
    return [(event.onset, event.offset, event.label) for event in events]


def test_threshold_is_exclusive() -> None:
    found = find_events(presence_map([0.5, 0.75, 0.75, 0.5, 0.75]), PostProcessing(threshold=0.5))
    assert found == [Event(1.0, 3.0, "a", 0.75), Event(4.0, 5.0, "a", 0.75)]


def test_hysteresis_keeps_low_runs_with_a_high_token() -> None:
    scores = presence_map([0.3, 0.7, 0.3, 0.1, 0.3, 0.3, 0.1, 0.9])
    found = find_events(scores, PostProcessing(threshold=0.5, threshold_low=0.2))
    assert found == [Event(0.0, 3.0, "a", np.float32(0.7)), Event(7.0, 8.0, "a", np.float32(0.9))]


def test_gap_as_long_as_min_gap_stays_open() -> None:
    scores = presence_map([1, 0, 1, 0, 0, 1])
    assert spans(find_events(scores, PostProcessing(min_gap=1.0))) == [
        (0, 1, "a"),
        (2, 3, "a"),
        (5, 6, "a"),
    ]
    assert spans(find_events(scores, PostProcessing(min_gap=1.5))) == [(0, 3, "a"), (5, 6, "a")]
    assert spans(find_events(scores, PostProcessing(min_gap=2.5))) == [(0, 6, "a")]


def test_gaps_close_before_short_events_drop() -> None:
    scores = presence_map([1, 0, 1, 0, 0, 1])
    found = find_events(scores, PostProcessing(min_gap=1.5, min_event=3.0))
    assert spans(found) == [(0, 3, "a")]


def test_median_filter_fills_and_removes_single_tokens() -> None:
    scores = presence_map([0.9, 0.9, 0.1, 0.9, 0.1, 0.1, 0.9, 0.1])
    found = find_events(scores, PostProcessing(median_filter=3.0))
    # (9 9)9 1 9 1 1 9 1(1) in medians of three: 9 9 9 1 1 1 1 1
    assert spans(found) == [(0, 3, "a")]


@pytest.mark.parametrize("tokens", [0, 1, 2, 7, 200])
def test_median_filter_is_scipys(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("htsat_sed.detection.median_filter._BLOCK", 100)  # in several parts
    scores = np.random.default_rng(0).random((tokens, 5), np.float32)
    widths = (1, 3, 9, 3, 41)
    wanted = [ndimage.median_filter(scores[:, k], w, mode="reflect") for k, w in enumerate(widths)]
    assert np.array_equal(smooth(scores, widths=widths), np.stack(wanted, axis=1))


def test_median_filter_mirrors_the_ends() -> None:
    scores = np.array([[0.1], [0.9], [0.9], [0.1], [0.9]], np.float32)
    # mirrored by two: 9 1 | 1 9 9 1 9 | 9 1
    expected = np.array([[0.9], [0.1], [0.9], [0.9], [0.9]], np.float32)
    np.testing.assert_array_equal(smooth(scores, widths=[5]), expected)


@pytest.mark.parametrize(
    ("seconds", "tokens"),
    [(0.0, 1), (0.1, 1), (0.6, 1), (0.625, 3), (0.9375, 3), (1.2, 3), (1.25, 5), (1.5625, 5)],
)
def test_median_filter_width_is_the_nearest_odd_number_of_tokens(seconds: float, tokens: int) -> None:
    assert median_filter_tokens(seconds, 0.3125) == tokens


def test_last_event_ends_with_the_recording() -> None:
    found = find_events(presence_map([0, 0, 1], duration=2.25), PostProcessing())
    assert found == [Event(2.0, 2.25, "a", 1.0)]


def test_classes_have_their_own_values() -> None:
    rules = PostProcessing(
        threshold=0.5, classes={"b": {"threshold": 0.2}, "c": {"min_event": 2.0}, "unheard": {"min_gap": 1.0}}
    )
    column = [0.0, 0.3, 0.6, 0.3]
    found = find_events(presence_map(column, column, column), rules)
    assert spans(found) == [(1, 4, "b"), (2, 3, "a")]


def test_runs_do_not_cross_classes() -> None:
    found = find_events(presence_map([0, 1], [1, 0]), PostProcessing(min_gap=5.0))
    assert spans(found) == [(0, 1, "b"), (1, 2, "a")]


def test_no_tokens_no_events() -> None:
    empty = PresenceMap(np.zeros((0, 1), np.float32), ("a",), 1.0, 0.0)
    assert find_events(empty, PostProcessing(threshold=0.0)) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": 1.5}, r"wanted threshold in \[0, 1\], got 1.5"),
        ({"threshold": float("nan")}, r"wanted threshold in \[0, 1\], got nan"),
        (
            {"threshold": 0.3, "threshold_low": 0.4},
            r"wanted threshold_low of at most threshold \(0.3\), got 0.4",
        ),
        ({"median_filter": -1.0}, "wanted median_filter in seconds, 0 to 600, got -1.0"),
        ({"median_filter": 1e9}, "wanted median_filter in seconds, 0 to 600, got 1000000000.0"),
        ({"min_gap": "2"}, "wanted min_gap in seconds, 0 or more, got '2'"),
        ({"classes": {"Dog": {"threshold": 2}}}, r"class 'Dog': wanted threshold in \[0, 1\], got 2"),
        ({"classes": {"Dog": {"treshold": 0.2}}}, "class 'Dog': unknown post-processing value treshold"),
    ],
)
def test_impossible_values_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PostProcessing(**values)  # type: ignore[arg-type]


def test_later_layers_override_earlier_ones() -> None:
    checkpoint = {
        "threshold": 0.4,
        "threshold_low": 0.3,
        "classes": {"Dog": {"threshold": 0.6, "min_gap": 1.0}},
    }
    layered = PostProcessing().override(checkpoint)
    assert layered.of("Dog").threshold == 0.6
    assert layered.of("Cat").threshold == 0.4

    only_cat = layered.override({"classes": {"Cat": {"threshold": 0.1}}})
    assert only_cat.of("Cat").threshold == 0.1
    assert only_cat.of("Cat").threshold_low == 0.1
    assert only_cat.of("Dog").threshold == 0.6

    everywhere = layered.override({"threshold": 0.2})
    assert everywhere.of("Dog") == PostProcessing(threshold=0.2, threshold_low=0.2, min_gap=1.0)
    assert everywhere.override(everywhere.to_dict()) == everywhere


def test_post_processing_file(tmp_path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('threshold = 0.3\n\n[classes."Baby cry, infant cry"]\nmedian_filter = 1.5\n')
    rules = PostProcessing().override(read_post_processing(path))
    assert rules.of("Baby cry, infant cry") == PostProcessing(threshold=0.3, median_filter=1.5)

    path.write_text("treshold = 0.3\n")
    with pytest.raises(
        AnnotationError, match=r"rules\.toml: not a post-processing file: unknown .* treshold"
    ):
        read_post_processing(path)
    path.write_text("threshold 0.3\n")
    with pytest.raises(AnnotationError, match="not a post-processing file"):
        read_post_processing(path)
    with pytest.raises(AnnotationError, match=r"none\.toml: cannot be read: No such file"):
        read_post_processing(tmp_path / "none.toml")


maps = st.tuples(st.integers(1, 24), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(0, 1, width=32))
)
rules = st.builds(
    lambda high, low, median, event, gap: PostProcessing(
        threshold=high, threshold_low=low * high, median_filter=median, min_event=event, min_gap=gap
    ),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 3),
    st.floats(0, 2),
    st.floats(0, 2),
)


@given(maps, rules, st.floats(0.01, 1.0))
def test_events_are_ordered_disjoint_and_inside(
    scores: np.ndarray, post_processing: PostProcessing, part: float
) -> None:
    step = 0.3125
    duration = (len(scores) - 1 + part) * step
    labels = tuple("abcd"[: scores.shape[1]])
    found = find_events(PresenceMap(scores, labels, step, duration), post_processing)
    assert found == sorted(found)
    for label in labels:
        own = [event for event in found if event.label == label]
        for event in own:
            assert 0.0 <= event.onset < event.offset <= duration
            assert post_processing.threshold < event.score + 1e-6
            assert event.offset - event.onset >= post_processing.min_event - 1e-6
        for before, after in pairwise(own):
            assert after.onset - before.offset >= max(step, post_processing.min_gap) - 1e-6


@given(maps, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_leaves_a_subset(scores: np.ndarray, one: float, other: float) -> None:
    def present(threshold: float) -> np.ndarray:
        held = np.zeros(scores.shape, bool)
        for event in find_events(
            PresenceMap(scores, tuple("abcd"[: scores.shape[1]]), 1.0, float(len(scores))),
            PostProcessing(threshold=threshold, median_filter=3.0),
        ):
            held[int(event.onset) : int(event.offset), "abcd".index(event.label)] = True
        return held

    low, high = sorted((one, other))
    assert (present(high) <= present(low)).all()


@given(maps, st.integers(0, 4))
def test_smoothing_agrees_with_sorting_by_hand(scores: np.ndarray, half: int) -> None:
    width = 2 * half + 1
    mirrored = np.pad(scores, ((half, half), (0, 0)), mode="symmetric")
    expected = [np.median(mirrored[t : t + width], axis=0) for t in range(len(scores))]
    np.testing.assert_array_equal(smooth(scores, widths=[width] * scores.shape[1]), expected)
