"""Training a model by a recipe, with Lightning."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from htsat_sed.model.htsat import HTSAT, TOKENS, HTSATConfig
from htsat_sed.training.clips import read_clips, read_strong
from htsat_sed.training.recipe import Recipe
from htsat_sed.training.soundscapes import Soundscapes, token_targets

Batch = tuple[Tensor, Tensor]

# What Lightning warns of and this module means to do.
_EXPECTED = (
    r"Found \d+ module\(s\) in eval mode",  # the moving average
    r"The 'train_dataloader' does not have many workers",
    r"Checkpoint directory .* exists and is not empty",  # a resumed run
    r"Experiment logs directory .* exists and is not empty",
    r"GPU available but not used",
    r".*isinstance\(treespec, LeafSpec\).* is deprecated",
)


class _Batches(IterableDataset[Batch]):
    """Soundscapes as batches, from a given step on; the same for the same step in every run."""

    def __init__(self, soundscapes: Soundscapes, recipe: Recipe, *, first: int, token_seconds: float) -> None:
        self._soundscapes = soundscapes
        self._recipe = recipe
        self._first = first
        self._token_seconds = token_seconds

    def __iter__(self) -> Iterator[Batch]:
        size = self._recipe.batch_size
        for step in range(self._first, self._recipe.steps):
            waveforms, targets = [], []
            for number in range(step * size, (step + 1) * size):
                samples, events = self._soundscapes[number]
                waveforms.append(samples)
                targets.append(
                    token_targets(
                        events, self._soundscapes.labels, tokens=TOKENS, token_seconds=self._token_seconds
                    )
                )
            yield torch.from_numpy(np.stack(waveforms)), torch.from_numpy(np.stack(targets))


class Training(lightning.LightningModule):  # type: ignore[misc]
    """The training step; `averaged` holds the moving average of the weights.

    Args:
        model: to be trained in place.
        recipe: how.
    """

    def __init__(self, model: HTSAT, recipe: Recipe) -> None:
        super().__init__()
        self.model = model
        self.averaged = copy.deepcopy(model).eval().requires_grad_(False)
        self.recipe = recipe

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """One step: loss of a batch of waveforms (B, samples) and targets (B, 32, K)."""
        # What is random in a step follows from its number, so that a resumed run repeats it.
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.global_step)
        waveforms, targets = batch
        with torch.no_grad():
            logmel = self.model.frontend(waveforms)
        out = self.model.from_normalised(masked(self.model.normalise(logmel), self.recipe))
        token = F.binary_cross_entropy_with_logits(out.presence_logits, targets)
        present = (targets.amax(dim=1) > 0.5).to(targets.dtype)
        clip = F.binary_cross_entropy_with_logits(out.clip_logits, present)
        self.log_dict({"token_bce": token, "clip_bce": clip}, prog_bar=True)
        return self.recipe.token_loss * token + self.recipe.clip_loss * clip

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """Step, then follow the weights with their moving average, quickly at first.

        Not at the end of the batch, when the state has been saved already.
        """
        super().optimizer_step(*arguments, **named)
        decay = min(self.recipe.ema_decay, (1 + self.global_step) / (10 + self.global_step))
        with torch.no_grad():
            for kept, new in zip(
                self.averaged.state_dict().values(), self.model.state_dict().values(), strict=True
            ):
                if kept.dtype.is_floating_point:
                    kept.lerp_(new, 1.0 - decay)
                else:
                    kept.copy_(new)

    def configure_optimizers(self) -> Any:
        """AdamW with decay on matrices alone; the learning rate rises and falls over the steps."""
        named = [(name, p) for name, p in self.model.named_parameters()]
        matrices = [p for name, p in named if p.ndim > 1 and "bias_table" not in name]
        others = [p for name, p in named if p.ndim <= 1 or "bias_table" in name]
        optimiser = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": self.recipe.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=self.recipe.learning_rate,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _factor(self, step: int) -> float:
        done, warm_up = (step + 1) / self.recipe.steps, self.recipe.warm_up
        if done < warm_up:
            return done / warm_up
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (done - warm_up) / (1.0 - warm_up))))


def masked(logmel: Tensor, recipe: Recipe) -> Tensor:
    """SpecAugment: stripes of frames and of bands set to 0, the mean after `bn0`.

    Args:
        logmel: (B, frames, bands), normalised.
        recipe: number and width of the stripes.
    """
    keep = torch.ones_like(logmel)
    batch, frames, bands = logmel.shape
    for item in range(batch):
        for _ in range(recipe.time_masks):
            width = int(torch.randint(0, recipe.time_mask + 1, ()))
            first = int(torch.randint(0, frames - width, ()))
            keep[item, first : first + width] = 0.0
        for _ in range(recipe.band_masks):
            width = int(torch.randint(0, recipe.band_mask + 1, ()))
            first = int(torch.randint(0, bands - width, ()))
            keep[item, :, first : first + width] = 0.0
    return logmel * keep


def fit(recipe: Recipe, data: Path, *, run: Path, device: str = "auto", progress: bool = True) -> HTSAT:
    """Train a model; a run that was interrupted goes on where it was saved last.

    Args:
        recipe: how.
        data: folder with ``clips.tsv``, ``audio/`` and, if wanted, ``speech.tsv``.
        run: folder of the run: its log (``metrics.csv``) and state.
        device: ``auto``, ``cpu``, ``cuda`` ... as Lightning's accelerator.
        progress: show a progress bar.

    Returns:
        The model with averaged weights, in evaluation mode; `provenance` holds the recipe.

    Raises:
        AnnotationError: a table is missing or malformed.
        ValueError: there is no clip in the folds.
    """
    torch.manual_seed(recipe.seed)
    shape = asdict(recipe.model)
    rate = HTSATConfig().sample_rate
    sources = read_clips(data, sample_rate=rate, folds=recipe.folds)
    sources += read_strong(data, sample_rate=rate, folds=recipe.folds, of=recipe.fold_count)
    soundscapes = Soundscapes(sources, recipe.soundscapes, sample_rate=rate, seed=recipe.seed)
    model = HTSAT(HTSATConfig(classes=len(soundscapes.labels), **shape), soundscapes.labels)
    with torch.no_grad():
        assert model.tscam_conv.bias is not None
        model.tscam_conv.bias.fill_(recipe.presence_bias)
    training = Training(model, recipe)
    last = run / "last.ckpt"
    resumed = last if last.exists() else None
    first = 0
    if resumed is not None:
        first = int(torch.load(resumed, map_location="cpu", weights_only=True)["global_step"])
    loader = DataLoader(
        _Batches(soundscapes, recipe, first=first, token_seconds=model.config.token_seconds),
        batch_size=None,
        num_workers=1,
        prefetch_factor=4,
    )
    state = ModelCheckpoint(
        dirpath=run, save_last=True, save_top_k=0, every_n_train_steps=max(1, min(100, recipe.steps // 4))
    )
    trainer = lightning.Trainer(
        accelerator=device,
        devices=1,
        max_steps=recipe.steps,
        gradient_clip_val=recipe.gradient_clip,
        callbacks=[state, *([RichProgressBar()] if progress else [])],
        logger=CSVLogger(run, name="", version=""),
        log_every_n_steps=min(20, recipe.steps),
        enable_progress_bar=progress,
        enable_model_summary=False,
    )
    if first < recipe.steps:
        with warnings.catch_warnings():
            for known in _EXPECTED:
                warnings.filterwarnings("ignore", message=known)
            trainer.fit(training, loader, ckpt_path=resumed, weights_only=True)
    else:
        training.load_state_dict(torch.load(last, map_location="cpu", weights_only=True)["state_dict"])
    trained = training.averaged.eval()
    trained.provenance = {"recipe": asdict(recipe), "steps": recipe.steps}
    return trained
