"""Muon: momentum whose update of a matrix is made orthogonal, beside AdamW for all that is no matrix.

Sources: K. Jordan et al., *Muon: An optimizer for hidden layers in neural networks*, 2024; J. Liu et al.,
*Muon is Scalable for LLM Training*, 2025 (arXiv 2502.16982), for the scale that lets both share a learning
rate. `torch.optim.Muon` does the same, but takes matrices alone and always iterates in bfloat16, which most
processors compute slowly.

Each matrix of the model is made orthogonal as one, so q, k and v together; convolutions are left to AdamW.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

_MOMENTUM = 0.95
_BETAS, _EPS = (0.9, 0.999), 1e-8  # AdamW's
_ITERATION = (3.4445, -4.7750, 2.0315)  # coefficients of X, X Xt X and (X Xt)^2 X
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Both optimisers in one, as a training loop wants it.

    Args:
        params: parameters, or groups of them. Matrices are Muon's unless their group has ``orthogonal``
            false; all else is AdamW's.
        lr: learning rate of both.
        weight_decay: of groups that name none.
    """

    def __init__(self, params: ParamsT, *, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "orthogonal": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    rule = _muon if group["orthogonal"] and parameter.ndim == 2 else _adam
                    update = rule(parameter.grad, self.state[parameter])
                    parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                    parameter.sub_(update, alpha=group["lr"])
        return loss


def _muon(gradient: Tensor, state: dict[str, Any]) -> Tensor:
    """An update with the root mean square of AdamW's, about 0.2."""
    if not state:
        state["momentum"] = torch.zeros_like(gradient)
    momentum: Tensor = state["momentum"]
    momentum.lerp_(gradient, 1.0 - _MOMENTUM)
    update = orthogonal(gradient.lerp(momentum, _MOMENTUM))
    return update.mul_(0.2 * max(update.shape) ** 0.5)


def _adam(gradient: Tensor, state: dict[str, Any]) -> Tensor:
    if not state:
        state |= {"mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient), "step": 0}
    state["step"] += 1
    mean: Tensor = state["mean"]
    square: Tensor = state["square"]
    step: int = state["step"]
    mean.lerp_(gradient, 1.0 - _BETAS[0])
    square.lerp_(gradient.square(), 1.0 - _BETAS[1])
    scale = (square / (1.0 - _BETAS[1] ** step)).sqrt_().add_(_EPS)
    return (mean / (1.0 - _BETAS[0] ** step)).div_(scale)


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix with its singular values brought near 1, by Newton and Schulz's iteration.

    Args:
        matrix: (rows, columns), float32 or wider.
    """
    x: Tensor = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=1e-7)
    first, third, fifth = _ITERATION
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=third, alpha=fifth), x, beta=first)
    return x.T if matrix.shape[0] > matrix.shape[1] else x
