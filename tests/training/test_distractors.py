"""Synthetic sounds of no class: what they are like, and that training takes them as silence."""

import numpy as np
import pytest
from clips_made import CPU, TINY
from hypothesis import given, settings
from hypothesis import strategies as st

from htsat_sed.errors import UsageError
from htsat_sed.training.distractors import distractor
from htsat_sed.training.examples import DistractorSeries, ExampleShape, distractor_backgrounds
from htsat_sed.training.fit import fit
from htsat_sed.training.recipe import DataRecipe, Recipe
from htsat_sed.training.run_data import read_tables, series_of


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), st.integers(0, 10_000), st.integers(400, 40_000), st.sampled_from([8_000, 32_000]))
def test_any_number_gives_a_finite_sound_that_is_no_silence(
    seed: int, number: int, samples: int, rate: int
) -> None:
    sound = distractor(seed, number, samples=samples, sample_rate=rate)
    assert sound.shape == (samples,)
    assert np.isfinite(sound).all()
    assert 10 ** (-30.1 / 20) <= np.abs(sound).max() <= 1.0
    np.testing.assert_array_equal(sound, distractor(seed, number, samples=samples, sample_rate=rate))


def test_distractors_differ_in_spectrum_and_in_time() -> None:
    sounds = [distractor(0, i, samples=64_000, sample_rate=32_000) for i in range(30)]
    power = np.stack([np.abs(np.fft.rfft(sound)) ** 2 for sound in sounds])
    centres = (power @ np.linspace(0.0, 16_000.0, power.shape[1])) / power.sum(axis=1)
    assert centres.min() < 800.0
    assert centres.max() > 3_000.0
    levels = np.stack([(sound.reshape(100, -1) ** 2).mean(axis=1) for sound in sounds])
    steadiness = levels.mean(axis=1) / levels.max(axis=1)
    assert steadiness.min() < 0.2
    assert steadiness.max() > 0.5


def test_examples_hold_no_event() -> None:
    shape = ExampleShape(sample_rate=8_000, samples=16_000, tokens=32, labels=("A", "B"))
    example = DistractorSeries(shape, seed=3)[7]
    assert example.waveform.shape == (16_000,)
    assert example.events == ()
    assert not example.clip.any()
    assert not example.tokens.any()
    assert not example.unknown.any()
    assert len({background.samples.tobytes() for background in distractor_backgrounds(shape, seed=3)}) == 40


def test_recipes_take_distractors_alone_and_below_soundscapes(data, tmp_path) -> None:
    clips = DataRecipe(kind="clips", mix=True, share=0.5)
    parts = (
        clips,
        DataRecipe(kind="distractors", mix=True, share=0.1),
        DataRecipe(kind="distractors", share=0.4),
    )
    recipe = Recipe(data=parts, epochs=1, epoch_examples=8, batch_size=4, model=TINY)
    held = series_of(recipe, read_tables(recipe, data))
    assert [share for _, share in held.parts] == [0.6, 0.4]
    assert held.parts[1][0][0].events == ()
    fit(recipe, data, run=tmp_path / "run", machine=CPU)
    with pytest.raises(UsageError, match="distractors"):
        Recipe(data=parts, validation=parts[2:])
