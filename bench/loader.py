"""Whether making soundscapes limits the training step, and whether 1 000 of them make the memory grow.

python bench/loader.py [--soundscapes 1000] [--batch-size 16]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from htsat_sed.model.htsat import HTSAT, TOKENS, HTSATConfig
from htsat_sed.training.clips import Source
from htsat_sed.training.soundscapes import SoundscapeRecipe, Soundscapes, token_targets

RATE = 32_000
CLASSES = 31
CLIPS_A_CLASS = 10
PAGE = resource.getpagesize()


def resident_mib() -> float:
    """Memory of this process now; of Linux alone."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


def made_sources() -> list[Source]:
    """Five seconds of noise each, as many classes as the bundled checkpoint has."""
    rng = np.random.default_rng(0)
    return [
        Source(
            (3_000 * rng.standard_normal(5 * RATE)).astype(np.int16),
            f"class {label:02d}",
            np.array([[0.0, 5.0]]),
        )
        for label in range(CLASSES)
        for _ in range(CLIPS_A_CLASS)
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--soundscapes", type=int, default=1_000)
    arguments.add_argument("--batch-size", type=int, default=16)
    arguments.add_argument("--steps", type=int, default=5)
    asked = arguments.parse_args()

    series = Soundscapes(made_sources(), SoundscapeRecipe(), sample_rate=RATE, seed=0)
    model = HTSAT(
        HTSATConfig(classes=CLASSES, embed_dim=48, depths=(2, 2, 2, 2), heads=(2, 4, 8, 16)), series.labels
    )

    memory = []
    started = time.perf_counter()
    for number in range(asked.soundscapes):
        samples, events = series[number]
        targets = token_targets(
            events, series.labels, tokens=TOKENS, token_seconds=model.config.token_seconds
        )
        if number * 10 % asked.soundscapes == 0:
            memory.append(resident_mib())
    memory.append(resident_mib())
    each = (time.perf_counter() - started) / asked.soundscapes

    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    waveforms = torch.from_numpy(samples).expand(asked.batch_size, -1).contiguous()
    wanted = torch.from_numpy(targets).expand(asked.batch_size, -1, -1)
    steps = []
    for _ in range(asked.steps):
        started = time.perf_counter()
        loss = F.binary_cross_entropy_with_logits(model(waveforms).presence_logits, wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps.append(time.perf_counter() - started)
    step = statistics.median(steps)

    print(f"soundscapes     {asked.soundscapes}, of {CLASSES * CLIPS_A_CLASS} clips")
    print(f"loader          {1e3 * each:.1f} ms a soundscape, one process")
    print(f"                {each * asked.batch_size:.2f} s a batch of {asked.batch_size}")
    print(f"training step   {step:.2f} s, {torch.get_num_threads()} threads, median of {asked.steps}")
    print(f"loader / step   {each * asked.batch_size / step:.0%}; below 100% it is hidden behind the step")
    first, tenth, *_, last = memory
    print(f"memory          {first:.0f} MiB after the first, {tenth:.0f} after a tenth, {last:.0f} after all")


if __name__ == "__main__":
    main()
