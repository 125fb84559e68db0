"""Pages of recordings of noise with given scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from htsat_sed.audio import Window
from htsat_sed.detection.events import Event, PostProcessing
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.model.htsat import HTSATConfig
from htsat_sed.report.page import Shown, page
from htsat_sed.report.sketch import Sketch

CONFIG = HTSATConfig()
TOKEN = 0.3125
LABELS = ("Dog", "Cat", "Baby cry, infant cry", "Rain", "Speech")


def random_scores(tokens: int, classes: int, seed: int) -> NDArray[np.float32]:
    """Scores that come and go, (tokens, classes), with ties."""
    rng = np.random.default_rng(seed)
    walk = np.zeros(classes)
    logits = np.stack([walk := 0.8 * walk + 1.2 * rng.normal(size=classes) for _ in range(tokens)])
    return np.round(1.0 / (1.0 + np.exp(-logits)), 2).astype(np.float32)


def shown(
    name: str,
    scores: NDArray[np.float32],
    *,
    labels: tuple[str, ...] = LABELS,
    reference: list[Event] | None = None,
    sound: bool = True,
    begins: str | None = None,
) -> Shown:
    """A recording of noise that has these scores."""
    presence_map = PresenceMap(scores, labels, TOKEN, len(scores) * TOKEN)
    rng = np.random.default_rng(0)
    noise = (0.1 * rng.standard_normal(round(presence_map.duration * CONFIG.sample_rate))).astype(np.float32)
    sketch = Sketch(CONFIG, seconds=presence_map.duration, bit_rate=16_000 if sound else None)
    for _ in sketch.through(iter([Window(0, noise)])):
        pass
    return Shown(name, presence_map, sketch, reference, begins)


def write_page(path: Path, *recordings: Shown, title: str = "a title", **values: Any) -> Path:
    """Write a page of recordings."""
    values.setdefault("post_processing", PostProcessing())
    path.write_text("".join(page(recordings, title=title, **values)), encoding="utf-8")
    return path
