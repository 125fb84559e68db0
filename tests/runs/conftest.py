"""What tests of runs over many recordings share."""

from pathlib import Path

import pytest
import torch
from planted import plant

from htsat_sed.model.checkpoint import save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = HTSATConfig(classes=4, embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4))
        model = HTSAT(config, ("Dog", "Cat", "Rain, light", "Owl"))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(path, model, post_processing={"threshold": 0.45})
    return path


@pytest.fixture
def few(tmp_path: Path) -> Path:
    plant(tmp_path / "few", ["0.wav", "1.wav"])
    plant(tmp_path / "few", [f"{i}.wav" for i in range(2, 6)], silent=True)
    return tmp_path / "few"
