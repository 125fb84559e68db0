"""Muon: the same steps as torch's own optimisers take."""

import pytest
import torch
from torch import Tensor, nn

from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.training.module import make_optimiser
from htsat_sed.training.muon import Muon, orthogonal
from htsat_sed.training.recipe import DataRecipe, Recipe

SETTINGS = {"lr": 0.02, "weight_decay": 0.1}


def stepped(optimiser: type, start: Tensor, gradients: list[Tensor], **settings: object) -> Tensor:
    parameter = nn.Parameter(start.clone())
    made = optimiser([parameter], **SETTINGS, **settings)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        made.step()
    return parameter.detach()


@pytest.mark.parametrize("bfloat16", [False, True])
def test_matrices_are_torchs_muon(bfloat16: bool) -> None:
    torch.manual_seed(0)
    for shape in ((24, 8), (8, 24), (16, 16)):
        start, gradients = torch.randn(shape), [torch.randn(shape) for _ in range(4)]
        found = stepped(Muon, start, gradients, bfloat16=bfloat16)
        wanted = stepped(torch.optim.Muon, start, gradients, adjust_lr_fn="match_rms_adamw")
        moved = (wanted - start).norm()
        # torch iterates in bfloat16
        assert (found - wanted).norm() < (1e-5 if bfloat16 else 0.02) * moved
        assert (found - start).norm() > 0.5 * moved


def test_the_rest_is_adamw() -> None:
    torch.manual_seed(0)
    for shape in ((7,), (3, 2, 5, 5)):
        start, gradients = torch.randn(shape), [torch.randn(shape) for _ in range(4)]
        wanted = stepped(torch.optim.AdamW, start, gradients)
        torch.testing.assert_close(stepped(Muon, start, gradients), wanted)


def test_orthogonal_keeps_singular_vectors() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(6, 20, dtype=torch.float64)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    singular = left.T @ orthogonal(matrix) @ right.T
    assert (singular - singular.diagonal().diag()).abs().max() < 1e-9
    assert 0.6 < singular.diagonal().min() < singular.diagonal().max() < 1.3


def test_position_biases_and_vectors_neither_decay_nor_turn() -> None:
    model = HTSAT(HTSATConfig(classes=3, embed_dim=8, depths=(1, 1, 1, 1), heads=(1, 1, 1, 1)))
    recipe = Recipe(data=(DataRecipe(kind="clips"),), optimiser="muon")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = make_optimiser(model, recipe)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for name, parameter in model.named_parameters():
        still = parameter.ndim == 1 or "bias_table" in name
        assert torch.equal(parameter, before[name]) == (still or not before[name].any()), name
