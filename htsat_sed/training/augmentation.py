"""What is done to spectrograms while training, as published: SpecAugment, then mixup."""

from __future__ import annotations

import torch
from torch import Tensor

from htsat_sed.training.recipe import AugmentationRecipe


def masked(logmel: Tensor, recipe: AugmentationRecipe) -> Tensor:
    """SpecAugment: stripes of frames and of bands set to 0, the mean after `bn0`.

    Args:
        logmel: (B, frames, bands), normalised.
        recipe: number and width of the stripes.

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
    width = min(size, int(torch.randint(0, widest + 1, ())))
    return int(torch.randint(0, size - width + 1, ())), width


def mixed(values: tuple[Tensor, ...], *, alpha: float) -> tuple[Tensor, ...]:
    """Mixup: every item becomes a mean of itself and a random other one, with random weights.

    Args:
        values: tensors of B items, such as spectrograms and their targets; all mixed alike.
        alpha: of the beta distribution of the weights.

    Source: Zhang et al., *mixup*, ICLR 2018.
    """
    batch = len(values[0])
    weights = torch.distributions.Beta(alpha, alpha).sample((batch,))
    other = torch.randperm(batch)
    return tuple(
        torch.lerp(value[other.to(value.device)], value, weights.to(value).view(-1, *[1] * (value.ndim - 1)))
        for value in values
    )
