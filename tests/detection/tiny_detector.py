"""A tiny model, and recordings for it."""

from pathlib import Path

import soundfile
import torch
from golden.reference_state import recording

from htsat_sed.model.htsat import HTSAT, HTSATConfig

TINY = HTSATConfig(classes=4, embed_dim=16, depths=(1, 2, 1, 1), heads=(1, 2, 2, 4))


LABELS = ("Dog", "Cat", "Rain", "Speech")


RATE = 32_000


def tiny(seed: int = 0, labels: tuple[str, ...] = LABELS) -> HTSAT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = HTSAT(TINY, labels).eval()
        for parameter in model.parameters():  # large enough for scores all over [0, 1]
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def write(path: Path, seconds: float, seed: int = 0) -> Path:
    soundfile.write(path, recording(seconds, RATE, seed), RATE)
    return path
