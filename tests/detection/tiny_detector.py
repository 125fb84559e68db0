"""A tiny model, and recordings for it."""

from pathlib import Path

import soundfile
from golden.reference_state import recording
from rule_made import by_rule

from htsat_sed.model.htsat import HTSAT, HTSATConfig

TINY = HTSATConfig(classes=4, embed_dim=16, depths=(1, 2, 1, 1), heads=(1, 2, 2, 4))


LABELS = ("Dog", "Cat", "Rain", "Speech")


RATE = 32_000


def tiny(seed: int = 0, labels: tuple[str, ...] = LABELS) -> HTSAT:
    model = by_rule(HTSAT(TINY, labels).eval(), seed=seed)
    return model


def write(path: Path, seconds: float, seed: int = 0) -> Path:
    soundfile.write(path, recording(seconds, RATE, seed), RATE)
    return path
