"""Augmentation of spectrograms during training, as published: SpecAugment, then mixup."""

from __future__ import annotations

import torch
from torch import Tensor

from htsat_sed.training.recipe import AugmentationRecipe


def masked(logmel: Tensor, recipe: AugmentationRecipe) -> Tensor:
    """SpecAugment: stripes of frames and of bands set to 0, the mean after `bn0`.

    Args:
        logmel: (B, frames, bands), normalised.
        recipe: number of the stripes, and the width that they stay below.

    Source: Park et al., *SpecAugment*, Interspeech 2019.
    """
    keep = torch.ones_like(logmel)
    batch, frames, bands = logmel.shape
    for item in range(batch):
        for _ in range(recipe.time_masks):
            first, width = _stripe(frames, recipe.time_mask)
            keep[item, first : first + width] = 0.0
        for _ in range(recipe.band_masks):
            first, width = _stripe(bands, recipe.band_mask)
            keep[item, :, first : first + width] = 0.0
    return logmel * keep


def _stripe(size: int, widest: int) -> tuple[int, int]:
    width = min(size, int(torch.randint(0, max(1, widest), ())))
    return int(torch.randint(0, size - width + 1, ())), width


def mixed(values: tuple[Tensor, ...], *, alpha: float) -> tuple[Tensor, ...]:
    """Mixup: every item becomes a mean of itself and a random other one, with random weights.

    Args:
        values: tensors of B items, such as spectrograms and their targets; all mixed alike.
        alpha: of the beta distribution of the weights.

    Source: Zhang et al., *mixup*, ICLR 2018.
    """
    weights = _weights(len(values[0]), alpha)
    other = torch.randperm(len(values[0]))
    return tuple(torch.lerp(value[other.to(value.device)], value, _as(weights, value)) for value in values)


def mixed_with_reversed(logmel: Tensor, *, alpha: float) -> Tensor:
    """Mixup as published for HTS-AT: a mean of each spectrogram and its counterpart in the reversed batch.

    The labels stay those of the first, so that the other one is noise.

    Args:
        logmel: (B, frames, bands).
        alpha: of the beta distribution of the weights.
    """
    return torch.lerp(logmel.flip(0), logmel, _as(_weights(len(logmel), alpha), logmel))


def _weights(count: int, alpha: float) -> Tensor:
    return torch.distributions.Beta(alpha, alpha).sample((count,))


def _as(weights: Tensor, value: Tensor) -> Tensor:
    return weights.to(value).view(-1, *[1] * (value.ndim - 1))
