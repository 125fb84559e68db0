"""Augmentation of spectrograms during training: SpecAugment, then mixup, as in the HTS-AT paper."""

from __future__ import annotations

import torch
from torch import Tensor

from htsat_sed.training.recipe import AugmentationRecipe


def masked(logmel: Tensor, recipe: AugmentationRecipe) -> Tensor:
    """Apply SpecAugment: set random stripes of frames and of bands to 0, the mean after `bn0`.

    Args:
        logmel: (B, frames, bands) log-mel spectrograms, normalised by `bn0`.
        recipe: sets the number of stripes per item and their exclusive maximum widths.

    Returns:
        (B, frames, bands); a new tensor.

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
    """Apply mixup: replace each item by a weighted mean of itself and another random item of the batch.

    Args:
        values: tensors (B, ...), such as spectrograms and their targets. All get the same pairs and weights.
        alpha: both parameters of the beta distribution that the weights are drawn from, above 0.

    Returns:
        The mixed tensors, in the same order and shapes.

    Source: Zhang et al., *mixup*, ICLR 2018.
    """
    weights = _weights(len(values[0]), alpha)
    other = torch.randperm(len(values[0]))
    return tuple(torch.lerp(value[other.to(value.device)], value, _as(weights, value)) for value in values)


def mixed_with_reversed(logmel: Tensor, *, alpha: float) -> Tensor:
    """Apply mixup as the HTS-AT code does: mix item i with item B - 1 - i and leave the labels unchanged.

    The second spectrogram thus acts as noise.

    Args:
        logmel: (B, frames, bands) log-mel spectrograms.
        alpha: both parameters of the beta distribution that the weights are drawn from, above 0.

    Returns:
        (B, frames, bands); a new tensor.
    """
    return torch.lerp(logmel.flip(0), logmel, _as(_weights(len(logmel), alpha), logmel))


def _weights(count: int, alpha: float) -> Tensor:
    return torch.distributions.Beta(alpha, alpha).sample((count,))


def _as(weights: Tensor, value: Tensor) -> Tensor:
    return weights.to(value).view(-1, *[1] * (value.ndim - 1))
