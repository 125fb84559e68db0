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


def plant_thousands(folder: Path) -> None:
    """1 975 recordings, two of which hold sound, and 25 files that are no recordings."""
    plant(folder, ["0000.wav", "0001.wav"])
    plant(folder, [f"{i:04d}.wav" for i in range(2, 1975)], silent=True)
    whole = (folder / "0000.wav").read_bytes()
    for i, end in enumerate((0, 4, 12, 20, 36, 44)):
        (folder / f"cut {i}.wav").write_bytes(whole[:end])
    for i, suffix in enumerate(("wav", "flac", "mp3", "ogg", "m4a")):
        (folder / f"empty {i} ☂.{suffix}").write_bytes(b"")
        (folder / f"text, {i}.{suffix}").write_bytes(b"This is no sound.\n" * 50)
        (folder / f"noise {i}.{suffix}").write_bytes(np.random.default_rng(i).bytes(3000))
    for i in range(4):
        (folder / f"picture {i}.wav").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500 + i))


def failures(path: Path) -> dict[str, str]:
    return {row.filename(): row.text("reason") for row in read_rows(path, ("filename", "reason"))}
