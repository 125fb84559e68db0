"""Recordings for runs, and how runs are started."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from htsat_sed.annotations.delimited import read_rows

RATE = 32_000
PROGRAM = [sys.executable, "-m", "htsat_sed"]
BATCH = ("--batch-size", "2")
Run = Callable[..., tuple[int, str, str]]


def plant(folder: Path, names: list[str], *, silent: bool = False) -> None:
    """Recordings of 0.2 to 0.5 s, no two of a sound; silence does not pass the model, which saves time."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        rng = np.random.default_rng(i)
        samples = 0.2 * rng.standard_normal(RATE // 5 + int(rng.integers(RATE // 3))).astype("f4")
        (folder / name).parent.mkdir(exist_ok=True)
        path = os.fsencode(folder / name)  # soundfile takes no text that is none
        soundfile.write(path, samples * (not silent), RATE, format="WAV", subtype="FLOAT")


def failures(path: Path) -> dict[str, str]:
    return {row.filename(): row.text("reason") for row in read_rows(path, ("filename", "reason"))}
