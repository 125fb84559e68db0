"""A tiny model, for tests of checkpoint files."""

from __future__ import annotations

import torch

from htsat_sed.model.htsat import HTSAT, HTSATConfig

TINY = HTSATConfig(embed_dim=16, depths=(1, 2, 1, 1), heads=(1, 2, 2, 4), classes=4)


def tiny_model(seed: int = 0) -> HTSAT:
    torch.manual_seed(seed)
    return HTSAT(TINY, ("Dog", "Cat", "Rain", "Speech, male")).eval()


def same_weights(a: HTSAT, b: HTSAT) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[key], theirs[key]) for key in ours)
