"""The core of the model, which follows the front end, and running it with torch.

    waveforms ─ front end, bn0, stretch ─▶ (B, 1024, 64) ─ core: backbone, head ─▶ presence logits (B, 32, K)

The core takes nearly all of the time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from htsat_sed.model.htsat import HTSAT, fold, stretch

Core = Callable[[Tensor], Tensor]  # normalised log-mel (B, 1024, 64) to presence logits (B, 32, K)


def core_input(model: HTSAT, waveforms: Tensor) -> Tensor:
    """Compute the normalised and stretched log-mel spectrogram (B, 1024, 64) of waveforms (B, samples)."""
    return stretch(model.normalise(model.frontend(waveforms)))


class CoreModule(nn.Module):
    """The core as a module of its own, for torch to trace or compile."""

    def __init__(self, model: HTSAT) -> None:
        super().__init__()
        self.model = model

    def forward(self, logmel: Tensor) -> Tensor:
        """Convert normalised log-mel (B, 1024, 64) to presence logits (B, 32, K)."""
        return self.model.token_semantic_head(self.model.backbone(fold(logmel))).presence_logits


def torch_core(model: HTSAT, device: torch.device, dtype: torch.dtype, *, compiled: bool) -> Core:
    """Make the core of a model for torch.

    Args:
        model: model on the device; a reference is kept.
        device: device of the model and the log-mel spectrograms.
        dtype: float32, or a smaller type for autocast; logits are always float32.
        compiled: whether torch compiles the core at the first batch.
    """
    module: Core = CoreModule(model)
    if compiled:
        module = torch.compile(module)

    def core(logmel: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return module(logmel).float()

    return core


def has_bfloat16() -> bool:
    """Return whether this processor has instructions for bfloat16 matrix products: AVX512_BF16 or AMX.

    OpenVINO's own report cannot be used: it lists bfloat16 for every processor with AVX-512.
    """
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
