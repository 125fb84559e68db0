"""Lightning module: training step, losses, optimiser, learning rate schedule and weight averaging."""

from __future__ import annotations

import copy
import logging
import math
from typing import Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from htsat_sed.errors import UsageError
from htsat_sed.evaluation.clip import ClipScores
from htsat_sed.model.htsat import HTSAT, HTSATOutput
from htsat_sed.training.augmentation import masked, mixed, mixed_with_reversed
from htsat_sed.training.batches import Batch, unpack
from htsat_sed.training.muon import Muon
from htsat_sed.training.recipe import Recipe

_logger = logging.getLogger("htsat_sed")
MONITOR = "validation"  # name of the metric for early stopping and for the best epoch
PROGRESS = "htsat_sed"  # key of metrics and broken clips in a saved state


class Training(lightning.LightningModule):  # type: ignore[misc]
    """A model in training, with a copy of averaged weights that is validated and saved.

    Args:
        model: model to train, in place.
        recipe: settings of the training.
        epoch_steps: steps per epoch, at least 1.

    Attributes:
        averaged: copy of the model with averaged weights, in evaluation mode.
        broken: maps the path of each unreadable clip to the reason.
        metrics: metrics of the latest validation.
    """

    def __init__(self, model: HTSAT, recipe: Recipe, *, epoch_steps: int) -> None:
        super().__init__()
        self.model = model
        self.averaged = copy.deepcopy(model).eval().requires_grad_(False)
        for name, parameter in model.named_parameters():
            if any(part in name for part in recipe.frozen):
                parameter.requires_grad_(False)  # no backward pass below the lowest trained layer
        self.recipe = recipe
        self.epoch_steps = epoch_steps
        self.broken: dict[str, str] = {}
        self.metrics: dict[str, float] = {}
        self._validated: list[tuple[Batch, Tensor, Tensor]] = []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save metrics and broken clips, which a resumed run reports at its end."""
        checkpoint[PROGRESS] = {"metrics": self.metrics, "broken": self.broken}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the values that `on_save_checkpoint` saved."""
        kept = checkpoint.get(PROGRESS, {})
        self.metrics, self.broken = kept.get("metrics", {}), kept.get("broken", {})

    def on_before_batch_transfer(self, batch: Any, _: int) -> Batch:
        """Unpack a batch from a worker."""
        return batch if isinstance(batch, Batch) else unpack(batch)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Compute the loss of a batch."""
        # The number of the batch seeds the step, so that a resumed run repeats it.
        torch.manual_seed((self.recipe.seed * 1_000_003 + batch.number) * 1_024 + self.global_rank)
        self._report(batch)
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            logmel = self.model.frontend(batch.waveforms)
        logmel = masked(self.model.normalise(logmel), self.recipe.augmentation)
        clip, tokens, strong = batch.clip, batch.tokens, batch.strong.float()
        unknown = batch.unknown.float()
        augmentation = self.recipe.augmentation
        if augmentation.mixup and augmentation.mixup_labels:
            logmel, clip, tokens, strong, unknown = mixed(
                (logmel, clip, tokens, strong, unknown), alpha=augmentation.mixup
            )
        elif augmentation.mixup:
            logmel = mixed_with_reversed(logmel, alpha=augmentation.mixup)
        out = self.model.from_normalised(logmel)
        terms = self._losses(out, clip, tokens, strong > 0.999, unknown > 0.0)
        self.log_dict(terms, prog_bar=True)
        self.log("learning_rate", self.optimizers().param_groups[0]["lr"])
        return self._sum(terms)

    @torch.no_grad()
    def on_after_backward(self) -> None:
        """Average the running statistics of `bn0` over all processes.

        This is needed on CPUs only. There, SyncBatchNorm does not run, and DDP would keep the statistics of
        the first process.
        """
        norm = self.model.bn0
        world = self.trainer.world_size if self._trainer is not None else 1
        if world == 1 or isinstance(norm, nn.SyncBatchNorm):
            return
        mean, var, momentum = norm.running_mean, norm.running_var, norm.momentum
        assert mean is not None
        assert var is not None
        assert momentum is not None
        shared = torch.stack([mean.double(), var.double(), mean.double() ** 2])
        torch.distributed.all_reduce(shared)
        all_mean, all_var, squares = shared / world
        mean.copy_(all_mean)
        # The running means differ by `momentum` times the difference of the batch means.
        var.copy_(all_var + (squares - all_mean**2).clamp(min=0.0) / momentum)

    def _losses(
        self, out: HTSATOutput, clip: Tensor, tokens: Tensor, strong: Tensor, unknown: Tensor
    ) -> dict[str, Tensor]:
        """Compute the clip loss of all items, and the token BCE of items with strong labels.

        An unknown class counts only where its target is positive (clip) or where it fills the token.
        """
        if self.recipe.loss == "cross-entropy":
            terms = {"clip_loss": F.cross_entropy(out.clip_logits, clip)}
        else:
            known = ~unknown | (clip > 0.0)
            terms = {"clip_loss": F.binary_cross_entropy_with_logits(out.clip_logits[known], clip[known])}
        if strong.any():
            wanted, logits = tokens[strong], out.presence_logits[strong]
            known = ~unknown[strong][:, None] | (wanted >= 1.0)
            terms["token_loss"] = F.binary_cross_entropy_with_logits(logits[known], wanted[known])
        return terms

    def _sum(self, terms: dict[str, Tensor]) -> Tensor:
        weighted = [getattr(self.recipe, name) * term for name, term in terms.items()]
        return torch.stack(weighted).sum()

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """Step, then update the averaged weights, before the state is saved at the end of the batch."""
        super().optimizer_step(*arguments, **named)
        weight = self._weight(self.global_step)
        if weight == 0.0:
            return
        with torch.no_grad():
            for kept, new in zip(
                self.averaged.state_dict().values(), self.model.state_dict().values(), strict=True
            ):
                if kept.dtype.is_floating_point:
                    kept.lerp_(new, weight)
                else:
                    kept.copy_(new)

    def _weight(self, step: int) -> float:
        """Return the weight of the new weights in the average after a step, in [0, 1]."""
        recipe = self.recipe
        if recipe.average == "ema":  # the decay grows from step to step up to `ema_decay`
            return 1.0 - min(recipe.ema_decay, step / (9 + step))
        if step % self.epoch_steps:
            return 0.0
        last = recipe.average_epochs if recipe.average == "epochs" else 1
        return 1.0 / max(1, step // self.epoch_steps - (recipe.epochs - last))

    def configure_optimizers(self) -> Any:
        """Return the optimiser and the learning rate schedule, which changes every step."""
        bfloat16 = self._trainer is not None and self.trainer.precision == "bf16-mixed"
        optimiser = make_optimiser(self.model, self.recipe, bfloat16=bfloat16)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _factor(self, step: int) -> float:
        """Return the learning rate after a step, relative to the highest one."""
        if self.recipe.schedule == "paper":
            return paper_factor(step // self.epoch_steps)
        done, warm_up = (step + 1) / (self.recipe.epochs * self.epoch_steps), self.recipe.warm_up
        if done < warm_up:
            return done / warm_up
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (done - warm_up) / (1.0 - warm_up))))

    def validation_step(self, batch: Batch, _: int) -> None:
        """Score a batch with the averaged weights."""
        self._report(batch)
        out = self.averaged(batch.waveforms)
        terms = self._losses(out, batch.clip, batch.tokens, batch.strong, batch.unknown)
        self.log("validation_loss", self._sum(terms), batch_size=len(batch.clip))
        self._validated.append((batch, self.averaged.scores(out.clip_logits), out.presence_logits))

    def on_validation_epoch_end(self) -> None:
        """Compute the validation metrics; every process validates all examples, so that results agree."""
        clip = torch.cat([batch.clip for batch, _, _ in self._validated])
        scores = torch.cat([scores for _, scores, _ in self._validated])
        self.metrics = {}
        if self.recipe.loss == "cross-entropy":
            hits = scores.argmax(dim=1) == clip.argmax(dim=1)
            self.metrics["accuracy"] = float(hits.float().mean())
        self.metrics |= _mean_average_precision("mAP", clip, scores)
        strong = [(b.tokens[b.strong], logits[b.strong]) for b, _, logits in self._validated]
        tokens, logits = (torch.cat(parts).flatten(0, 1) for parts in zip(*strong, strict=True))
        self.metrics |= _mean_average_precision("token_mAP", tokens, self.averaged.scores(logits))
        monitored = next(
            (m for m in ("accuracy", "token_mAP", "mAP") if m in self.metrics),
            None,
        )
        self._validated.clear()
        self.log_dict(self.metrics, prog_bar=True)
        if monitored is not None:
            self.log(MONITOR, self.metrics[monitored])

    def _report(self, batch: Batch) -> None:
        for path, reason in batch.broken:
            if path not in self.broken:
                self.broken[path] = reason
                _logger.warning("%s: %s; left out (%d so far)", path, reason, len(self.broken))


def make_optimiser(model: nn.Module, recipe: Recipe, *, bfloat16: bool = False) -> torch.optim.Optimizer:
    """Make the optimiser of a recipe over all weights that are not frozen.

    Args:
        model: model to train.
        recipe: sets optimiser, learning rate, weight decay and frozen weights.
        bfloat16: Muon orthogonalises in bfloat16.

    Raises:
        ValueError: an entry of `Recipe.frozen` matches no weight.
    """
    names = [name for name, _ in model.named_parameters()]
    for part in recipe.frozen:
        if not any(part in name for name in names):
            raise UsageError(f"wanted frozen to be parts of names of weights, none has {part!r}")
    layers: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if not any(part in name for part in recipe.frozen):
            (layers if parameter.ndim > 1 and "bias_table" not in name else others).append(parameter)
    rest = recipe.weight_decay if recipe.decays == "all" else 0.0
    groups = [
        {"params": layers, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": rest, "orthogonal": False},
    ]
    if recipe.optimiser == "muon":
        return Muon(groups, lr=recipe.learning_rate, bfloat16=bfloat16)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def paper_factor(epoch: int) -> float:
    """Return the learning rate of the HTS-AT paper for an epoch from 0, relative to its base of 1e-3."""
    if epoch < 3:
        return (0.02, 0.05, 0.1)[epoch]
    return next((factor for last, factor in ((10, 0.1), (20, 0.05), (30, 0.02)) if epoch <= last), 0.03)


def _mean_average_precision(name: str, targets: Tensor, scores: Tensor) -> dict[str, float]:
    """Return mean average precision over classes with both outcomes, by name; empty if there is none."""
    present = (targets > 0.5).cpu().numpy()
    some = present.any(axis=0) & ~present.all(axis=0)
    if not some.any():
        return {}
    columns = np.flatnonzero(some)
    found = ClipScores(
        tuple(str(k) for k in columns),
        present[:, columns].astype(np.float64),
        scores[:, torch.from_numpy(columns)].double().cpu().numpy(),
    )
    return {name: float(found.figures().ap.mean())}
