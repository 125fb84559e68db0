"""Shifted windows: the mean of the maps of a recording that begins later and later."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from golden.reference_state import recording
from tiny_detector import LABELS, RATE, tiny

from htsat_sed import Detector, PostProcessing
from htsat_sed.errors import UsageError


@pytest.mark.parametrize("seconds", [23.0, 0.7, 30.5])
def test_rows_are_means_of_the_tokens_that_cover_them(seconds: float) -> None:
    samples = recording(seconds, RATE, 0)
    found = Detector(tiny(), shifts=4).presence_map(samples, sample_rate=RATE)
    assert found.token_seconds == 0.3125 / 4
    assert len(found.scores) == int(np.ceil(len(samples) * 128 / (10 * RATE)))
    plain = Detector(tiny())
    total, weight = np.zeros(found.scores.shape), np.zeros((len(found.scores), 1))
    for shift in range(4):
        rows = plain.presence_map(samples[shift * 2500 :], sample_rate=RATE).scores
        rows = np.repeat(rows, 4, axis=0)[: len(total) - shift]
        total[shift : shift + len(rows)] += rows
        weight[shift : shift + len(rows)] += 1.0
    np.testing.assert_allclose(found.scores, total / weight, atol=2e-4)


def test_events_of_a_stream_are_those_of_the_map(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", recording(31.3, RATE, 1), RATE)
    rules = PostProcessing(threshold=0.05, edge_level=0.6, median_filter=0.5)
    detector = Detector(tiny(), shifts=3, post_processing=rules)
    found = detector.presence_map(tmp_path / "a.wav")
    events = detector.detect(tmp_path / "a.wav")
    assert {event.label for event in events} <= set(LABELS)
    assert events
    assert events == detector.events(found)


def test_one_shift_is_the_plain_detector_and_impossible_numbers_are_refused() -> None:
    samples = recording(4.0, RATE, 2)
    one, plain = Detector(tiny(), shifts=1), Detector(tiny())
    assert one.token_seconds == plain.token_seconds == 0.3125
    np.testing.assert_array_equal(
        one.presence_map(samples, sample_rate=RATE).scores,
        plain.presence_map(samples, sample_rate=RATE).scores,
    )
    for shifts in (0, 33):
        with pytest.raises(UsageError, match="shifts"):
            Detector(tiny(), shifts=shifts)
