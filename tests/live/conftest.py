"""A tiny model and a recording in which it finds events."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from golden.reference_state import recording
from rule_made import by_rule

from htsat_sed.detection.detector import Detector
from htsat_sed.model.checkpoint import save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.model.runtime import Execution

RATE = 32_000
LABELS = ("Dog", "Cat", "Rain, light", "Speech")
TINY = HTSATConfig(classes=4, embed_dim=16, depths=(1, 2, 1, 1), heads=(1, 2, 2, 4))
MORE = [{"min_gap": 0.7}, {"edge_level": 0.6, "min_gap": 1.0}, {"median_filter": 1.6}, {"min_event": 0.9}]
TORCH = Execution(runtime="torch")


def tiny() -> HTSAT:
    return by_rule(HTSAT(TINY, LABELS).eval(), seed=0)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, samples: np.ndarray) -> Path:
    """Random weights, and thresholds among their scores."""
    model = tiny()
    scores = Detector(model, hop=2.0, execution=TORCH).presence_map(samples, sample_rate=RATE).scores
    highs, lows = np.percentile(scores, [60, 50], axis=0).round(6).tolist()
    values = [
        {"threshold": high, "threshold_low": low, **more}
        for high, low, more in zip(highs, lows, MORE, strict=True)
    ]
    path = tmp_path_factory.mktemp("live") / "tiny.safetensors"
    save_checkpoint(path, model, post_processing={"classes": dict(zip(LABELS, values, strict=True))})
    return path


@pytest.fixture(scope="session")
def detector(checkpoint: Path) -> Detector:
    return Detector(str(checkpoint), hop=2.0, batch_size=1, execution=TORCH)


@pytest.fixture(scope="session")
def samples() -> np.ndarray:
    """36 s: sound, 6 s of digital silence, sound."""
    return np.concatenate(
        [recording(14.0, RATE, 1), np.zeros(6 * RATE, np.float32), recording(16.3, RATE, 4)]
    ).astype(np.float32)


@pytest.fixture(scope="session")
def street(samples: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("street") / "street.wav"
    soundfile.write(path, samples, RATE)
    return path


@pytest.fixture(autouse=True)
def _attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("htsat_sed.live.feed.IDLE", 0.002)
