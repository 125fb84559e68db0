"""What tests of runs over many recordings share."""

from pathlib import Path

import pytest
from planted import plant
from rule_made import by_rule

from htsat_sed.model.checkpoint import save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = HTSATConfig(classes=4, embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4))
    model = by_rule(HTSAT(config, ("Dog", "Cat", "Rain, light", "Owl")), seed=3)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(path, model, post_processing={"threshold": 0.45})
    return path


@pytest.fixture
def few(tmp_path: Path) -> Path:
    plant(tmp_path / "few", ["0.wav", "1.wav"])
    plant(tmp_path / "few", [f"{i}.wav" for i in range(2, 6)], silent=True)
    return tmp_path / "few"
