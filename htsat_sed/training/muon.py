"""Muon for matrices, which orthogonalises the momentum update, and AdamW for all other parameters.

The weights of q, k and v form one matrix and are orthogonalised together; AdamW updates convolutions.

`torch.optim.Muon` accepts only matrices and always iterates in bfloat16, which is slow on most CPUs.

Sources: K. Jordan et al., *Muon: An optimizer for hidden layers in neural networks*, 2024; J. Liu et al.,
*Muon is Scalable for LLM Training*, 2025 (arXiv 2502.16982), for the update scale that allows one learning
rate for both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

_MOMENTUM = 0.95
_BETAS, _EPS = (0.9, 0.999), 1e-8  # AdamW's
_ITERATION = (3.4445, -4.7750, 2.0315)  # coefficients of X, X Xᵀ X and (X Xᵀ)² X
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Muon and AdamW as one optimiser with a common learning rate.

    Args:
        params: parameters or parameter groups. Muon updates matrices, unless ``orthogonal`` is false in their
            group; AdamW updates all other parameters.
        lr: learning rate.
        weight_decay: decoupled weight decay of groups that do not set their own.
        bfloat16: orthogonalise in bfloat16, as the first source does; otherwise in the type of the weights.
    """

    def __init__(
        self, params: ParamsT, *, lr: float, weight_decay: float = 0.0, bfloat16: bool = False
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "orthogonal": True})
        self.bfloat16 = bfloat16

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient.

        Args:
            closure: computes the loss and the gradients first, if given.

        Returns:
            The loss that `closure` returned, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    if group["orthogonal"] and parameter.ndim == 2:
                        update = _muon(parameter.grad, state, bfloat16=self.bfloat16)
                    else:
                        update = _adam(parameter.grad, state)
                    parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                    parameter.sub_(update, alpha=group["lr"])
        return loss


def _muon(gradient: Tensor, state: dict[str, Any], *, bfloat16: bool) -> Tensor:
    """Compute Muon's update, scaled to a root mean square of about 0.2 as AdamW's."""
    if not state:
        state["momentum"] = torch.zeros_like(gradient)
    momentum: Tensor = state["momentum"]
    momentum.lerp_(gradient, 1.0 - _MOMENTUM)
    update = gradient.lerp(momentum, _MOMENTUM)
    update = orthogonal(update.bfloat16() if bfloat16 else update).to(gradient.dtype)
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
    """Bring the singular values of a matrix near 1 with five Newton-Schulz iterations.

    Args:
        matrix: (rows, columns), floating point.

    Returns:
        (rows, columns) with the same singular vectors; a new tensor.
    """
    x: Tensor = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=1e-7)
    first, third, fifth = _ITERATION
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=third, alpha=fifth), x, beta=first)
    return x.T if matrix.shape[0] > matrix.shape[1] else x
