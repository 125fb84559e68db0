"""Swin transformer backbone over a square spectrogram image.

Source: Liu et al., *Swin Transformer*, ICCV 2021 (arXiv 2103.14030), in the variant of HTS-AT.

Tokens stay in *attention-window order* through a whole stage: the H x W grid is divided into 8 x 8 attention
windows, and the sequence runs window by window, row by row inside each. A block without shift then needs no
reordering, because LayerNorm, MLP and residual do not depend on the order. A shifted block needs one gather
before and one after its attention. Only patch merging uses the grid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MLP_ROWS = 2048  # tokens per block on a CPU; the fastest of 512 to 4096 on 2 cores with 2 MiB of L2
_MASKED = -100.0  # attention bias between tokens that only the cyclic shift made neighbours


def window_order(side: int, window: int, shift: int = 0) -> Tensor:
    """Compute the raster index of every token in attention-window order.

    Args:
        side: height and width of the token grid.
        window: side of an attention window; divides `side`.
        shift: cyclic shift of the grid towards the upper left, in tokens.

    Returns:
        (side * side,) int64: entry n is the raster index of the n-th token.
    """
    raster = torch.arange(side * side).view(side, side).roll((-shift, -shift), (0, 1))
    n = side // window
    return raster.view(n, window, n, window).transpose(1, 2).reshape(-1)


def _shift_mask(side: int, window: int, shift: int) -> Tensor:
    """Compute the mask (windows, window**2, window**2): -100 between regions that the shift joined."""
    band = torch.zeros(side, dtype=torch.int64)
    band[side - window : side - shift] = 1
    band[side - shift :] = 2
    region = (3 * band[:, None] + band[None, :]).flatten()[window_order(side, window)].view(-1, window**2)
    return torch.where(region[:, :, None] == region[:, None, :], 0.0, _MASKED)


def _relative_position(window: int) -> Tensor:
    """Compute the row of the bias table for every (query, key) pair: (window**2, window**2) int64."""
    row, column = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    row, column = row.flatten(), column.flatten()
    down = row[:, None] - row[None, :] + window - 1
    right = column[:, None] - column[None, :] + window - 1
    return down * (2 * window - 1) + right


class _Reorder(torch.autograd.Function):
    """Permutes tokens. The gradient is the inverse permutation.

    torch's indexing accumulates gradients instead, since an index may repeat, which is slower on CPUs.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return x.index_select(1, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (order,) = ctx.saved_tensors
        return gradient.index_select(1, order.argsort()), None


def reorder(x: Tensor, order: Tensor) -> Tensor:
    """Permute the tokens of (B, tokens, C): token n of the result is token order[n] of `x`."""
    if x.requires_grad and torch.is_grad_enabled():
        return cast(Tensor, _Reorder.apply(x, order))
    return x.index_select(1, order)


class DropPath(nn.Module):
    """Drops a residual branch for whole items of the batch with probability `p` while training."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop or keep each item of (B, ...); kept items are scaled by 1 / (1 - p)."""
        if not self.training or self.p == 0.0:
            return x
        keep = torch.empty(x.shape[0], *[1] * (x.ndim - 1), dtype=x.dtype, device=x.device)
        return x * keep.bernoulli_(1.0 - self.p).div_(1.0 - self.p)


class WindowAttention(nn.Module):
    """Multi-head attention inside every attention window, with learned relative position bias.

    Args:
        dim: channels C.
        heads: attention heads; divides `dim`.
        side: side of the token grid.
        window: side of an attention window.
        shift: cyclic shift in tokens, 0 for none.
    """

    relative_position: Tensor
    mask: Tensor | None
    order: Tensor | None
    inverse_order: Tensor | None

    def __init__(self, dim: int, heads: int, *, side: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads = heads
        self.window_tokens = window**2
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position", _relative_position(window), persistent=False)
        order = inverse_order = mask = None
        if shift:
            # From window order to shifted window order, and back.
            order = window_order(side, window).argsort()[window_order(side, window, shift)]
            inverse_order = order.argsort()
            mask = _shift_mask(side, window, shift)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("inverse_order", inverse_order, persistent=False)
        self.register_buffer("mask", mask, persistent=False)
        self._kept_bias: Tensor | None = None
        self._kept_version = -1

    def __getstate__(self) -> dict[str, Any]:
        """Copy and pickle without the cached bias."""
        return self.__dict__ | {"_kept_bias": None}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> WindowAttention:
        self._kept_bias = None  # the device or data type may change
        return cast("WindowAttention", super()._apply(fn, recurse))  # type: ignore[no-untyped-call]

    def _bias(self) -> Tensor:
        """Compute position bias plus shift mask: (1, heads, N, N), or (windows, heads, N, N) if shifted."""
        n = self.window_tokens
        table: Tensor = self.relative_position_bias_table
        bias = table[self.relative_position.view(-1)].view(1, n, n, self.heads).permute(0, 3, 1, 2)
        mask: Tensor | None = self.mask
        return bias.contiguous() if mask is None else bias + mask[:, None]

    def bias(self) -> Tensor:
        """Return the bias of the attention logits, see `_bias`; cached until the table changes."""
        table: Tensor = self.relative_position_bias_table
        # Inference tensors have no version counter, so a change would go unnoticed.
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or table.is_inference():
            return self._bias()
        version = table._version
        if self._kept_bias is None or self._kept_version != version:
            self._kept_bias, self._kept_version = self._bias(), version
        return self._kept_bias

    def forward(self, x: Tensor) -> Tensor:
        """Attend within windows: (B, tokens, C) to the same shape, both in window order."""
        batch, tokens, dim = x.shape
        if self.order is not None:
            x = reorder(x, self.order)
        windows, n = tokens // self.window_tokens, self.window_tokens
        qkv = self.qkv(x).view(batch, windows, n, 3, self.heads, dim // self.heads)
        bias = self.bias().to(qkv.dtype)
        if self.mask is None:  # windows fold into the batch: one bias for all
            y = _attend(qkv.flatten(0, 1), bias)
        elif in_pieces(x):  # item by item: no copy of q, k, v, and each item fits the cache
            y = torch.stack([_attend(item, bias) for item in qkv.unbind()])
        else:  # windows fold into the heads: the bias of each window broadcasts over the batch
            q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).flatten(2, 3)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.flatten(0, 1)[None])
            y = y.view(batch, windows, self.heads, n, -1).transpose(2, 3)
        y = cast(Tensor, self.proj(y.reshape(batch, tokens, dim)))
        return y if self.inverse_order is None else reorder(y, self.inverse_order)


def _attend(qkv: Tensor, bias: Tensor) -> Tensor:
    """Compute attention of windows (W, N, 3, heads, d), with a bias that broadcasts to (W, heads, N, N).

    Returns:
        (W, N, heads, d).
    """
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad:
        # torch trains its fused attention in float32 here, which takes 3 to 7 times as long.
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + bias
        return cast(Tensor, logits.softmax(-1) @ v).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2)


def in_pieces(x: Tensor) -> bool:
    """Return whether to process a batch in pieces: on a CPU, unless torch compiles or traces the model."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[no-untyped-call,attr-defined]
        return False
    return x.device.type == "cpu"


class MLP(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the MLP to (B, tokens, C); the shape does not change."""
        trained = x.requires_grad or any(p.requires_grad for p in self.parameters())
        if (trained and torch.is_grad_enabled()) or not in_pieces(x):
            return cast(Tensor, self.fc2(F.gelu(self.fc1(x))))
        # A few rows at a time, so that the hidden layer stays in the processor's cache.
        y = torch.empty_like(x)
        inputs, outputs = (torch.split(z.flatten(0, 1), _MLP_ROWS) for z in (x, y))
        for rows, out in zip(inputs, outputs, strict=True):
            out.copy_(self.fc2(F.gelu(self.fc1(rows))))
        return y


class Block(nn.Module):
    """Pre-norm transformer block: window attention, then MLP, each on a residual path."""

    def __init__(
        self, dim: int, heads: int, *, side: int, window: int, shift: int, mlp_ratio: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, side=side, window=window, shift=shift)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to (B, tokens, C) in window order; shape and order do not change."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + cast(Tensor, self.drop_path(self.mlp(self.norm2(x))))


class PatchMerging(nn.Module):
    """Merges each 2 x 2 square of tokens into one with twice the channels.

    The input is in window order of the finer grid, the output in window order of the coarser one.
    """

    squares: Tensor

    def __init__(self, dim: int, *, side: int, window: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        place = window_order(side, window).argsort().view(side, side)  # raster -> place in the sequence
        # Source order within a square: upper left, lower left, upper right, lower right.
        corners = [place[i::2, j::2].flatten() for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))]
        coarse = window_order(side // 2, min(window, side // 2))
        squares = torch.stack(corners, dim=1)[coarse].flatten()
        self.register_buffer("squares", squares, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Merge tokens: (B, tokens, C) to (B, tokens / 4, 2C)."""
        batch, tokens, dim = x.shape
        squares = reorder(x, self.squares).view(batch, tokens // 4, 4 * dim)
        return cast(Tensor, self.reduction(self.norm(squares)))


class Stage(nn.Module):
    """Blocks on one grid, every second one shifted, then patch merging unless it is the last stage."""

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        side: int,
        window: int,
        mlp_ratio: float,
        drop_path: tuple[float, ...],
        merge: bool,
    ) -> None:
        super().__init__()
        window = min(window, side)
        self.blocks = nn.ModuleList(
            Block(
                dim,
                heads,
                side=side,
                window=window,
                shift=window // 2 if i % 2 and side > window else 0,
                mlp_ratio=mlp_ratio,
                drop_path=p,
            )
            for i, p in enumerate(drop_path)
        )
        self.downsample = PatchMerging(dim, side=side, window=window) if merge else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the stage: (B, tokens, C) to (B, tokens / 4, 2C), or to the same shape in the last stage."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else cast(Tensor, self.downsample(x))


class PatchEmbed(nn.Module):
    """Embeds non-overlapping patches of an image as tokens, in window order."""

    order: Tensor

    def __init__(self, dim: int, *, side: int, patch: int, window: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, dim, patch, stride=patch)
        self.norm = nn.LayerNorm(dim)
        self.register_buffer("order", window_order(side, window), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Embed images: (B, 1, side * patch, side * patch) to (B, side * side, dim)."""
        return cast(Tensor, self.norm(reorder(self.proj(image).flatten(2).transpose(1, 2), self.order)))


class Swin(nn.Module):
    """The backbone: patch embedding, stages, final LayerNorm.

    Args:
        image_side: height and width of the input image.
        patch: side of a patch.
        embed_dim: channels C of the first stage; doubles at each following one.
        depths: blocks of each stage.
        heads: attention heads of each stage.
        window: side of an attention window; the last grid is exactly one window.
        mlp_ratio: ratio of hidden to outer width of the MLPs.
        drop_path: drop probability of the last block; it rises linearly from 0 over all blocks.
        initialise: initialise linear layers as in the source; otherwise keep torch's weights.
    """

    def __init__(
        self,
        *,
        image_side: int,
        patch: int,
        embed_dim: int,
        depths: tuple[int, ...],
        heads: tuple[int, ...],
        window: int,
        mlp_ratio: float,
        drop_path: float,
        initialise: bool = True,
    ) -> None:
        super().__init__()
        side = image_side // patch
        self.patch_embed = PatchEmbed(embed_dim, side=side, patch=patch, window=window)
        rates = iter(torch.linspace(0.0, drop_path, sum(depths)).tolist())
        self.layers = nn.ModuleList(
            Stage(
                embed_dim * 2**i,
                heads[i],
                side=side // 2**i,
                window=window,
                mlp_ratio=mlp_ratio,
                drop_path=tuple(next(rates) for _ in range(depths[i])),
                merge=i < len(depths) - 1,
            )
            for i in range(len(depths))
        )
        self.out_dim = embed_dim * 2 ** (len(depths) - 1)
        self.norm = nn.LayerNorm(self.out_dim)
        if initialise:
            self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor:
        """Encode images: (B, 1, image_side, image_side) to (B, tokens, out_dim), in raster order."""
        x = self.patch_embed(image)
        for stage in self.layers:
            x = stage(x)
        return cast(Tensor, self.norm(x))


def _initialise(module: nn.Module) -> None:
    """Truncated normal weights (std 0.02) and zero biases for linear layers, as in the source."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
