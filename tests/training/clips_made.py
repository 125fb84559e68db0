"""Clips for training, and a tiny model on a CPU."""

from pathlib import Path

import numpy as np
import soundfile

from htsat_sed.training.fit import Machine
from htsat_sed.training.recipe import DataRecipe, ModelRecipe, Recipe

RATE = 32_000


TINY = ModelRecipe(embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4), drop_path=0.1)


MIXED = Recipe(
    data=(DataRecipe(kind="clips", folds=(1, 2, 3), mix=True),),
    epochs=2,
    epoch_examples=4,
    batch_size=2,
    warm_up=0.25,
    model=TINY,
)


CPU = Machine(device="cpu", workers=0)


def write(path: Path, seconds: float, *, frequency: float = 440.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * RATE)) / RATE
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * frequency * time), RATE)
