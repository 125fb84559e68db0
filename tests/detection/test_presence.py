"""Stitching of overlapping windows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htsat_sed.detection.presence import PresenceMap, Stitcher, stitch, token_weights


def test_weights_rise_to_the_middle() -> None:
    np.testing.assert_array_equal(token_weights(4), np.float32([0.5, 1.5, 1.5, 0.5]))


def test_windows_side_by_side_pass_unchanged() -> None:
    first, second = np.float32([[0.1], [0.3]]), np.float32([[0.7], [0.9]])
    np.testing.assert_array_equal(np.concatenate(list(stitch([first, second], hop=2))), [*first, *second])


def test_overlap_is_the_weighted_mean() -> None:
    first, second = np.float32([[0], [0], [0], [0]]), np.float32([[1], [1], [1], [1]])
    joined = np.concatenate(list(stitch([first, second], hop=2)))
    # tokens 2 and 3: weights 1.5 and 0.5 of the first window, 0.5 and 1.5 of the second
    np.testing.assert_allclose(joined[:, 0], [0, 0, 0.25, 0.75, 1, 1])


def test_hop_beyond_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="wanted a hop of 1 to 4 tokens, got 5"):
        list(stitch([np.zeros((4, 1), np.float32)], hop=5))


def test_shifted_windows_share_the_parts_of_tokens() -> None:
    windows = [np.float32([[0.0], [1.0]]), np.float32([[0.5], [0.25]])]
    joined = np.concatenate(list(stitch(windows, hop=2, shifts=2)))
    # Half tokens: 0 0 1 1 of the first window, and - .5 .5 .25 .25 of the second.
    np.testing.assert_array_equal(joined[:, 0], [0.0, 0.25, 0.75, 0.625, 0.25])


@given(st.integers(1, 8), st.integers(1, 5), st.integers(1, 4), st.data())
def test_stitching_agrees_with_summing_everything(
    n: int, count: int, shifts: int, data: st.DataObject
) -> None:
    hop = data.draw(st.integers(1, n))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    windows = rng.random((count * shifts, n, 3), np.float32)
    weights = np.repeat(token_weights(n) if hop < n else np.ones(n), shifts)
    total = np.zeros((((count - 1) * hop + n) * shifts + shifts - 1, 3))
    weight = np.zeros(len(total))
    for i, scores in enumerate(windows):
        first = (i // shifts) * hop * shifts + i % shifts
        total[first : first + n * shifts] += weights[:, None] * np.repeat(scores, shifts, axis=0)
        weight[first : first + n * shifts] += weights
    joined = np.concatenate(list(stitch(windows, hop=hop, shifts=shifts)))
    np.testing.assert_allclose(joined, total / weight[:, None], rtol=1e-5)


def test_scores_must_fit_the_labels() -> None:
    with pytest.raises(
        ValueError, match=r"wanted scores of shape \(T, 2\), a column per label, got \(3, 1\)"
    ):
        PresenceMap(np.zeros((3, 1), np.float32), ("a", "b"), 1.0, 3.0)


def test_a_window_that_is_left_out_counts_nowhere() -> None:
    """Of three windows of 4 tokens, one every 2; by hand, with weights 0.5, 1.5, 1.5, 0.5."""
    one, two = np.full((4, 1), 0.5, np.float32), np.full((4, 1), 1.0, np.float32)
    stitcher = Stitcher(4, 2)
    assert stitcher.add(one).tolist() == [[0.5], [0.5]]
    assert stitcher.rest().tolist() == [[0.5], [0.5]]
    assert stitcher.add(None).tolist() == [[0.5], [0.5]]  # of the first alone
    assert stitcher.rest().tolist() == [[0.0], [0.0]]
    assert stitcher.add(two).tolist() == [[1.0], [1.0]]
    assert Stitcher(4, 4).rest() is None
    assert Stitcher(4, 2).add(None, 3).tolist() == [[0.0] * 3] * 2
