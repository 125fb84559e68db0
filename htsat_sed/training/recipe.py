"""A training recipe: everything that decides a run, as a TOML file."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from htsat_sed.errors import AnnotationError
from htsat_sed.training.soundscapes import SoundscapeRecipe


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """Shape of the model; see `HTSATConfig`."""

    embed_dim: int = 48
    depths: tuple[int, ...] = (2, 2, 2, 2)
    heads: tuple[int, ...] = (2, 4, 8, 16)
    drop_path: float = 0.05


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run.

    Attributes:
        folds: folds of the data trained on.
        fold_count: folds there are.
        steps: optimiser steps.
        batch_size: soundscapes a step.
        learning_rate: highest, reached after `warm_up` of the steps; falls as a cosine to 0.
        warm_up: part of the steps.
        weight_decay: AdamW's, on matrices.
        gradient_clip: largest norm of the gradient.
        token_loss: weight of the token BCE on strong labels.
        clip_loss: weight of the clip BCE.
        presence_bias: bias of the last layer at the start; about the logit of a token's chance to be active.
        ema_decay: of the moving average of the weights, which is what is saved.
        time_masks: SpecAugment: masks of up to `time_mask` frames.
        time_mask: frames.
        band_masks: masks of up to `band_mask` bands.
        band_mask: bands.
        seed: of everything random.
        model: shape of the model.
        soundscapes: how soundscapes are mixed.
    """

    folds: tuple[int, ...] = (1, 2, 3)
    fold_count: int = 4
    steps: int = 2400
    batch_size: int = 16
    learning_rate: float = 1e-3
    warm_up: float = 0.08
    weight_decay: float = 0.05
    gradient_clip: float = 1.0
    token_loss: float = 2.0
    clip_loss: float = 0.5
    presence_bias: float = -3.0
    ema_decay: float = 0.999
    time_masks: int = 2
    time_mask: int = 32
    band_masks: int = 2
    band_mask: int = 8
    seed: int = 0
    model: ModelRecipe = field(default_factory=ModelRecipe)
    soundscapes: SoundscapeRecipe = field(default_factory=SoundscapeRecipe)

    def __post_init__(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            ValueError: naming the value, what was wanted and what was given.
        """
        for name in ("steps", "batch_size", "fold_count"):
            if getattr(self, name) < 1:
                raise ValueError(f"wanted {name} of at least 1, got {getattr(self, name)}")
        if not self.folds or not set(self.folds) <= set(range(1, self.fold_count + 1)):
            raise ValueError(f"wanted folds among 1 to {self.fold_count}, got {self.folds}")
        for name in ("warm_up", "ema_decay"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"wanted {name} in [0, 1), got {getattr(self, name)}")
        if not self.learning_rate > 0.0:
            raise ValueError(f"wanted learning_rate of more than 0, got {self.learning_rate}")


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe.

    Raises:
        AnnotationError: the file is missing, not TOML, or holds an unknown or impossible value.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        parts = {
            "model": _build(ModelRecipe, values.pop("model", {}), "model."),
            "soundscapes": _build(SoundscapeRecipe, values.pop("soundscapes", {}), "soundscapes."),
        }
        recipe: Recipe = _build(Recipe, values | parts, "")
        return recipe
    except OSError as error:
        raise AnnotationError(path, f"cannot be read: {error.strerror}") from error
    except (TypeError, ValueError) as error:
        raise AnnotationError(path, f"not a recipe: {error}") from error


def _build(kind: Any, values: Mapping[str, Any], prefix: str) -> Any:
    known = [f.name for f in fields(kind)]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known are {', '.join(known)}"
            raise ValueError(f"unknown value {prefix}{name}{hint}")
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
