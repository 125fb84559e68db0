"""Training the head on features of a frozen encoder, and joining the heads of two models."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from htsat_sed.detection.devices import start_lanes
from htsat_sed.model.htsat import CHUNKS, HTSAT, TOKENS, HTSATConfig, fold, stretch
from htsat_sed.post_processing import PostProcessing
from htsat_sed.training.fit import StepProgress
from htsat_sed.training.recipe import Recipe
from htsat_sed.training.run_data import read_tables, series_of
from htsat_sed.training.start import start_model

_EXAMPLES = 200
_STEPS = 300
_ROWS = 64  # examples per step
_LEARNING_RATE = 5e-3


def train_head(recipe: Recipe, data: Path, progress: StepProgress) -> HTSAT:
    """Train the head of a recipe's starting model on 200 examples, whose features are computed once.

    Args:
        recipe: sets the data and the starting model; its steps and learning rate are ignored.
        data: folder that the recipe's tables are relative to.
        progress: called after each example with the examples done, their total and an empty mapping.

    Returns:
        The model, in evaluation mode.

    Raises:
        AnnotationError: a table is missing or malformed.
        CheckpointError: the start cannot be read.
    """
    tables = read_tables(recipe, data)
    series = series_of(recipe, tables)
    torch.manual_seed(recipe.seed)
    config = HTSATConfig(classes=len(tables.labels), **asdict(recipe.model))
    model = start_model(config, tables.labels, recipe.start, presence_bias=recipe.presence_bias).eval()
    shares = np.array([share for _, share in series.parts])
    part_of = np.random.default_rng(recipe.seed).choice(len(shares), _EXAMPLES, p=shares / shares.sum())
    features, targets = [], []

    def made(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        example = series.parts[part_of[number]][0][number]
        with torch.inference_mode():
            own = _features(model, torch.from_numpy(example.waveform)[None])
        return own, torch.from_numpy(example.tokens)

    threads = torch.get_num_threads()
    with start_lanes(threads, threads) as pool:
        for done, (feature, target) in enumerate(pool.map(made, range(_EXAMPLES)), 1):
            features.append(feature)
            targets.append(target)
            progress(done, _EXAMPLES, {})
    _fit_head(model.tscam_conv, torch.cat(features).clone(), (torch.stack(targets) > 0.5).float())
    return model


def _fit_head(head: torch.nn.Conv2d, inputs: torch.Tensor, wanted: torch.Tensor) -> None:
    """Fit a head to features (N, D, 2, 32) and targets (N, 32, K)."""
    optimiser = torch.optim.AdamW(head.parameters(), lr=_LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LEARNING_RATE, total_steps=_STEPS)
    for _ in range(_STEPS):
        rows = torch.randint(len(inputs), (_ROWS,))
        logits = head(inputs[rows]).squeeze(2).transpose(1, 2)
        loss = F.binary_cross_entropy_with_logits(logits, wanted[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()


def _features(model: HTSAT, waveforms: torch.Tensor) -> torch.Tensor:
    """Return the input of the head, (B, D, 2, 32)."""
    grid = model.backbone(fold(stretch(model.normalise(model.frontend(waveforms)))))
    batch, _, dim = grid.shape
    unfolded: torch.Tensor = (
        grid.view(batch, CHUNKS, 2, 8, dim).permute(0, 4, 2, 1, 3).reshape(batch, dim, 2, TOKENS)
    )
    return unfolded


def join_classes(model: HTSAT, old: HTSAT) -> None:
    """Add the classes of another model with the same encoder to a model, with their post-processing.

    Args:
        model: changed in place: its classes follow those of `old`.
        old: its classes keep their scores, except those that `model` has too, which come from `model`.
    """
    kept = [i for i, label in enumerate(old.labels) if label not in model.labels]
    head = torch.nn.Conv2d(
        model.tscam_conv.in_channels, len(kept) + len(model.labels), (2, 3), padding=(0, 1)
    )
    joined = {
        name: torch.cat([array[kept], model.tscam_conv.state_dict()[name]])
        for name, array in old.tscam_conv.state_dict().items()
    }
    head.load_state_dict(joined)
    own = PostProcessing().override(old.post_processing or {}).to_dict()
    rules = dict(own.get("classes", {})) | dict((model.post_processing or {}).get("classes", {}))
    labels = (*(old.labels[i] for i in kept), *model.labels)
    model.tscam_conv = head
    model.labels = labels
    model.config = replace(model.config, classes=len(labels))
    model.post_processing = own | {"classes": {label: rules[label] for label in labels if label in rules}}
    model.eval()
