"""The data of a training run: reads the tables of a recipe and makes series of examples from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from htsat_sed.errors import AnnotationError
from htsat_sed.labels import audioset_labels, did_you_mean
from htsat_sed.model.htsat import TOKENS, HTSATConfig
from htsat_sed.training.data import Clip, read_clips
from htsat_sed.training.examples import (
    ClipSeries,
    DistractorSeries,
    ExampleShape,
    Series,
    SoundscapeSeries,
    distractor_backgrounds,
)
from htsat_sed.training.recipe import DataRecipe, Recipe
from htsat_sed.training.soundscapes import Soundscapes, read_backgrounds, read_sources


@dataclass(frozen=True)
class RunTables:
    """Classes and clips of a run.

    Attributes:
        labels: classes, in order.
        data: parts of the training data, each with its clips.
        validation: parts of the validation data, each with its clips.
    """

    labels: tuple[str, ...]
    data: list[tuple[DataRecipe, list[Clip]]]
    validation: list[tuple[DataRecipe, list[Clip]]]


@dataclass(frozen=True)
class RunData:
    """Series of examples of a run.

    Attributes:
        parts: series for training, each with its relative share.
        validation: series for validation, each with its number of examples.
        clips: number of training clips.
        summary: description of each part of the training data, for the checkpoint.
    """

    parts: tuple[tuple[Series, float], ...]
    validation: tuple[tuple[Series, int], ...]
    clips: int
    summary: tuple[dict[str, Any], ...]


def window_of(recipe: Recipe) -> ExampleShape:
    """Return the shape of an example, without labels."""
    shape = replace(HTSATConfig(), sample_rate=recipe.model.sample_rate, hop_length=recipe.model.hop_length)
    return ExampleShape(sample_rate=shape.sample_rate, samples=shape.window_samples, tokens=TOKENS, labels=())


def read_tables(recipe: Recipe, folder: Path) -> RunTables:
    """Read the tables of a recipe and determine its classes.

    Args:
        recipe: names the tables and, optionally, the classes.
        folder: folder that the tables are relative to.

    Raises:
        AnnotationError: a table is missing or malformed, has a label that the recipe lacks, or has clips
            without exactly one label for cross-entropy.
        AudioError: a folder of recordings cannot be listed.
    """

    def read(parts: Sequence[DataRecipe]) -> list[tuple[DataRecipe, list[Clip]]]:
        return [(part, read_clips(part, folder, fold_count=recipe.fold_count)) for part in parts]

    data, validation = read(recipe.data), read(recipe.validation)
    every = {label for _, clips in data for clip in clips for label in clip.labels}
    labels = recipe.labels or (
        audioset_labels() if any(part.kind == "audioset" for part in recipe.data) else tuple(sorted(every))
    )
    for part, clips in (*data, *validation):
        for label in {label for clip in clips for label in clip.labels | clip.unknown} - set(labels):
            raise AnnotationError(
                folder / (part.table or part.kind),
                f"has a label {label!r} that the recipe lacks{did_you_mean(label, labels)}",
            )
        if recipe.loss == "cross-entropy" and any(len(clip.labels) != 1 for clip in clips):
            raise AnnotationError(
                folder / (part.table or part.kind), "wanted exactly one label a clip for cross-entropy"
            )
    return RunTables(labels, data, validation)


def series_of(recipe: Recipe, tables: RunTables) -> RunData:
    """Make the series of examples of a recipe; this reads all clips that are mixed into soundscapes.

    Args:
        recipe: sets shares, mixing and augmentation.
        tables: classes and clips, from `read_tables`.

    Raises:
        ValueError: a part has no clips, or clips to mix have several weak labels.
    """
    data, validation = tables.data, tables.validation
    window = replace(window_of(recipe), labels=tables.labels)

    def mixed(parts: list[tuple[DataRecipe, list[Clip]]], seed: int) -> list[tuple[Series, float]]:
        """Return one series of soundscapes for all parts with `mix`, and the sum of their shares."""
        clips = [clip for part, own in parts if part.mix for clip in own]
        if not clips:
            return []
        sources = read_sources(clips, sample_rate=window.sample_rate)
        silent = [
            clip for part, own in parts if part.mix and part.kind in ("negatives", "folders") for clip in own
        ]
        backgrounds = read_backgrounds(silent, sample_rate=window.sample_rate)
        if any(part.mix and part.kind == "distractors" for part, _ in parts):
            backgrounds += distractor_backgrounds(window, seed=seed)
        soundscapes = Soundscapes(
            sources,
            recipe.soundscapes,
            sample_rate=window.sample_rate,
            seed=seed,
            backgrounds=backgrounds,
        )
        return [(SoundscapeSeries(soundscapes, window), sum(part.share for part, _ in parts if part.mix))]

    parts = mixed(data, recipe.seed)
    for i, (part, clips) in enumerate(data):
        if part.kind == "distractors" and not part.mix:
            parts.append((DistractorSeries(window, seed=recipe.seed + i), part.share))
        elif not part.mix:
            shift = recipe.augmentation.time_shift
            series = ClipSeries(clips, window, seed=recipe.seed + i, balanced=part.balanced, time_shift=shift)
            parts.append((series, part.share))
    held_out: list[tuple[Series, int]] = [
        (series, recipe.soundscapes.validation) for series, _ in mixed(validation, recipe.seed + 1)
    ]
    for part, clips in validation:
        if not part.mix:
            held_out.append((ClipSeries(clips, window, seed=0, random=False), len(clips)))
    summary = tuple({"kind": p.kind, "table": p.table, "folds": p.folds, "clips": len(c)} for p, c in data)
    return RunData(tuple(parts), tuple(held_out), sum(len(clips) for _, clips in data), summary)
