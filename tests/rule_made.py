"""Checkpoints in the shape of the official ones, with the weights that the goldens were computed with."""

from __future__ import annotations

from argparse import Namespace
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden.reference_state import parameter, recording
from numpy.typing import NDArray
from torch import Tensor

from htsat_sed.model.htsat import HTSAT, HTSATConfig

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> dict[str, NDArray[Any]]:
    """What the official implementation computed: see the names in `tests/golden`."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


def golden_recording(name: str) -> NDArray[np.float32]:
    """The waveform of a golden, at its sample rate."""
    g = golden(name)
    return recording(float(g["recording_seconds"]), int(g["sample_rate"]), int(g["recording_seed"]))


def golden_config(name: str) -> HTSATConfig:
    g = golden(name)
    return HTSATConfig(
        classes=int(g["classes"]),
        sample_rate=int(g["sample_rate"]),
        hop_length=int(g["hop"]),
        embed_dim=int(g["embed_dim"]),
        depths=tuple(g["depths"].tolist()),
        heads=tuple(g["heads"].tolist()),
        loss=str(g["loss"]),
    )


def official_state(config: HTSATConfig, *, seed: int) -> dict[str, Tensor]:
    """The state dict of the official wrapper, derived and unused arrays included."""
    model = HTSAT(config)
    state = {"sed_model.bn0.num_batches_tracked": torch.tensor(100_000)}
    for ours, array in model.state_dict().items():
        key = ours.removeprefix("backbone.")
        if key != "bn0.num_batches_tracked":
            state[f"sed_model.{key}"] = torch.from_numpy(parameter(key, tuple(array.shape), seed))
    bins = config.n_fft // 2 + 1
    derived = {
        "spectrogram_extractor.stft.conv_real.weight": torch.zeros(bins, 1, config.n_fft),
        "spectrogram_extractor.stft.conv_imag.weight": torch.zeros(bins, 1, config.n_fft),
        "logmel_extractor.melW": model.frontend.mel_bank.clone(),
        "head.weight": torch.zeros(config.classes, config.classes),
        "head.bias": torch.zeros(config.classes),
    }
    for stage, depth in enumerate(config.depths):
        for block in range(depth):
            name = f"layers.{stage}.blocks.{block}"
            derived[f"{name}.attn.relative_position_index"] = torch.zeros(64, 64, dtype=torch.int64)
            if block % 2 and stage < 3:
                derived[f"{name}.attn_mask"] = torch.zeros((64, 16, 4)[stage], 64, 64)
    return state | {f"sed_model.{key}": array for key, array in derived.items()}


def by_rule(model: HTSAT, seed: int) -> HTSAT:
    """Give a model weights that are the same with every release of torch, with scores all over [0, 1]."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for weights in model.parameters():
            values = 0.3 * rng.standard_normal(tuple(weights.shape), dtype=np.float32)
            weights.copy_(torch.from_numpy(values))
    return model


def rule_made_checkpoint(path: Path, golden_name: str) -> Path:
    """Write an official Lightning checkpoint with the weights of a golden."""
    g = golden(golden_name)
    write_lightning(path, official_state(golden_config(golden_name), seed=int(g["seed"])))
    return path


def write_lightning(path: Path, state: dict[str, Tensor]) -> None:
    """Write a state dict with what a trainer of 2021 saves beside it."""
    callbacks: defaultdict[str, Any] = defaultdict(list, best_model_score=np.float64(0.471))
    torch.save(
        {
            "epoch": 30,
            "global_step": 512_000,
            "pytorch-lightning_version": "1.5.9",
            "state_dict": state,
            "callbacks": {"ModelCheckpoint": callbacks},
            "optimizer_states": [],
            "lr_schedulers": [{"base_lrs": [1e-3], "last_epoch": 30}],
            "hyper_parameters": Namespace(workspace=Path("workspace"), loss_type="clip_bce"),
        },
        path,
    )
