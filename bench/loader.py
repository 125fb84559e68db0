"""Whether reading limits the training step, and whether 1 000 recordings make the memory grow.

python bench/loader.py [--recordings 1000] [--batch-size 16] [--shared]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from htsat_sed.detection.events import Event
from htsat_sed.model.htsat import HTSAT, TOKENS, HTSATConfig
from htsat_sed.training.batches import Batch, Batches, Deal, loader, unpack
from htsat_sed.training.data import Clip
from htsat_sed.training.examples import ClipSeries, Series, SoundscapeSeries, Window
from htsat_sed.training.module import Training
from htsat_sed.training.recipe import DataRecipe, Recipe, SoundscapeRecipe
from htsat_sed.training.soundscapes import Soundscapes, read_sources

RATE = 32_000
CLASSES = 31
SOURCES = 10 * CLASSES
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_mib() -> float:
    """Memory of this process and its readers now; of Linux alone."""
    readers = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    of = (Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in (os.getpid(), *readers))
    return sum(int(pages) for pages in of) * PAGE / 2**20


def made_clips(folder: Path, count: int) -> list[Clip]:
    """Ten seconds of noise each, as FLAC at 44.1 kHz, with one strong label."""
    rng = np.random.default_rng(0)
    clips = []
    for i in range(count):
        label = f"class {i % CLASSES:02d}"
        path = folder / f"{i}.flac"
        soundfile.write(path, (3_000 * rng.standard_normal(441_000)).astype(np.int16), 44_100)
        clips.append(Clip(path, frozenset([label]), (Event(0.0, 5.0, label),)))
    return clips


def read_all(series: Series, name: str, asked: argparse.Namespace) -> float:
    """Read as training does, in one process beside this one; seconds an example."""
    steps = asked.recordings // asked.batch_size
    deal = Deal(first=0, steps=steps, accumulate=1, rank=0, world=1)
    batches = Batches([(series, 1.0)], size=asked.batch_size, deal=deal)
    memory = []
    started = time.perf_counter()
    for batch in map(unpack, loader(batches, workers=1)):
        if batch.number in (steps // 10, steps - 1):
            memory.append(resident_mib())
    each = (time.perf_counter() - started) / steps / asked.batch_size
    print(
        f"{name:<12}{1e3 * each:6.1f} ms an example, {each * asked.batch_size:.2f} s a batch; "
        f"{memory[0]:.0f} MiB after a tenth, {memory[-1]:.0f} after {steps * asked.batch_size}"
    )
    return each * asked.batch_size


def step_seconds(batch: Batch, asked: argparse.Namespace) -> float:
    """Median time of a step of the bundled checkpoint's model."""
    config = HTSATConfig(classes=CLASSES, embed_dim=48, depths=(2, 2, 2, 2), heads=(2, 4, 8, 16))
    recipe = Recipe(data=(DataRecipe(kind="clips"),))
    training = Training(HTSAT(config), recipe, epoch_steps=1)
    training.log_dict = training.log = lambda *_, **__: None  # nothing listens here
    optimiser = training.configure_optimizers()["optimizer"]
    training.optimizers = lambda: optimiser
    steps = []
    for _ in range(asked.steps):
        started = time.perf_counter()
        optimiser.zero_grad()
        training.training_step(batch, 0).backward()
        optimiser.step()
        steps.append(time.perf_counter() - started)
    return statistics.median(steps)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--recordings", type=int, default=1_000)
    arguments.add_argument("--batch-size", type=int, default=16)
    arguments.add_argument("--steps", type=int, default=5)
    arguments.add_argument("--shared", action="store_true", help="hand batches over in shared memory")
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clips = made_clips(Path(folder), asked.recordings)
        labels = tuple(sorted({label for clip in clips for label in clip.labels}))
        window = Window(sample_rate=RATE, samples=10 * RATE, tokens=TOKENS, labels=labels)
        sources = read_sources(clips[:SOURCES], sample_rate=RATE)
        mixed = Soundscapes(sources, SoundscapeRecipe(), sample_rate=RATE, seed=0)
        series: dict[str, Series] = {
            "clips": ClipSeries(clips, window, seed=0),
            "soundscapes": SoundscapeSeries(mixed, window),
        }
        loaders = {name: read_all(each, name, asked) for name, each in series.items()}
        deal = Deal(first=0, steps=1, accumulate=1, rank=0, world=1)
        batch = next(iter(Batches([(series["clips"], 1.0)], size=asked.batch_size, deal=deal)))
    step = step_seconds(batch, asked)
    print(f"training step {step:.2f} s, {torch.get_num_threads()} threads, median of {asked.steps}")
    for name, seconds in loaders.items():
        print(f"{name} / step   {seconds / step:.0%}; below 100 % it is hidden behind the step")


if __name__ == "__main__":
    main()
