"""The core as an OpenVINO graph, on the CPU.

The graph is built operation by operation from the weights: a traced and converted graph takes seconds to
make and is slower (`bench/model.py`). It differs from the torch module where that is faster in OpenVINO:

- it computes one window, so that activations stay in the processor's cache and the bias of each attention
  window is a constant; the windows of a batch are computed in parallel;
- patches are cut from the spectrogram directly in attention-window order, as rows of a matrix;
- q, k and v are three products, so attention reads their results in place; the scale of q is folded into its
  weights; the bias of k cancels in the softmax, and that of v is added after it;
- tokens are reordered only before and after a run of shifted blocks;
- a linear layer without an activation is followed by a clamp without effect: then oneDNN computes it, which
  is faster than OpenVINO's own kernel, except in the patch embedding.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from htsat_sed.model.htsat import CHUNKS, FRAMES, HTSAT, IMAGE_SIDE, PATCH, TOKENS
from htsat_sed.model.openvino_import import openvino, ops
from htsat_sed.model.swin import MLP, Block, PatchMerging, Stage, WindowAttention

Node = Any  # openvino.Node, whose stubs have no types for operations
_BOUND = float(np.finfo(np.float32).max)


def openvino_graph(model: HTSAT) -> openvino.Model:
    """Build the graph of a model.

    Args:
        model: model on any device; not changed.

    Returns:
        A graph with one input, the normalised and stretched log-mel spectrogram (1, 1024, 64) float32 (see
        `HTSAT.normalise` and `stretch`), and one output, the presence logits (1, 32, K) float32.
    """
    logmel = ops.parameter([1, FRAMES, model.config.mel_bands], np.float32, name="logmel")
    with torch.no_grad():
        x = _patches(logmel, model)
        for stage in cast("list[Stage]", model.backbone.layers):
            shifted = None  # shifted attention that determines the order of the tokens; None for window order
            for block in cast("list[Block]", stage.blocks):
                attention = block.attn
                shift = attention if attention.order is not None else None
                x, shifted = _reorder(x, shifted, shift), shift
                x = _block(x, block)
            if stage.downsample is None:
                x = _reorder(x, shifted, None)
            else:
                x = _merge(x, stage.downsample, shifted)
        logits = _head(_norm(x, model.backbone.norm), model)
    logits.output(0).get_tensor().set_names({"presence_logits"})
    return openvino.Model([logits], [logmel], "htsat")


def _patches(logmel: Node, model: HTSAT) -> Node:
    """Patch embedding: (1, 1024, 64) to (1, 4096, C) in window order."""
    embed, window = model.backbone.patch_embed, model.config.attention_window
    across = IMAGE_SIDE // PATCH // window  # attention windows in a row
    halves = across // CHUNKS  # attention windows in a column of a chunk
    # chunk, window column, column, pixel column, window row in the chunk, row, pixel row
    parts = ops.reshape(logmel, [CHUNKS, across, window, PATCH, halves, window, PATCH], False)
    pixels = ops.transpose(parts, [0, 4, 1, 5, 2, 6, 3])
    rows = ops.reshape(pixels, [1, (IMAGE_SIDE // PATCH) ** 2, PATCH**2], False)
    return _norm(_product(rows, embed.proj.weight.flatten(1), embed.proj.bias), embed.norm)


def _block(x: Node, block: Block) -> Node:
    """One block: (1, tokens, C) to the same shape and order."""
    y = ops.add(x, _attend(_norm(x, block.norm1), block.attn))
    return ops.add(y, _mlp(_norm(y, block.norm2), block.mlp))


def _attend(x: Node, attention: WindowAttention) -> Node:
    """Attention within each attention window: (1, tokens, C) to the same shape."""
    _, tokens, dim = x.get_output_shape(0)
    n, heads = attention.window_tokens, attention.heads
    scale = (dim // heads) ** -0.5
    of_q, of_k, of_v = attention.qkv.weight.chunk(3)
    bias_of_q, _, bias_of_v = attention.qkv.bias.chunk(3)

    def of_heads(product: Node) -> Node:
        return ops.transpose(ops.reshape(product, [tokens // n, n, heads, dim // heads], False), [0, 2, 1, 3])

    q = of_heads(_linear(x, scale * of_q, scale * bias_of_q))
    k, v = of_heads(_linear(x, of_k)), of_heads(_linear(x, of_v))
    shares = ops.softmax(ops.add(ops.matmul(q, k, False, True), _constant(attention.bias())), -1)
    y = ops.matmul(shares, v, False, False)
    y = ops.reshape(ops.transpose(y, [0, 2, 1, 3]), [1, tokens, dim], False)
    proj = attention.proj
    return _linear(y, proj.weight, proj.bias + proj.weight @ bias_of_v)


def _reorder(x: Node, now: WindowAttention | None, wanted: WindowAttention | None) -> Node:
    """Reorder tokens between orders of shifted attention; None is window order."""
    if now is not None and wanted is None:
        return ops.gather(x, _constant(now.inverse_order), 1)
    if now is None and wanted is not None:
        return ops.gather(x, _constant(wanted.order), 1)
    return x  # all shifted blocks of a stage share one order


def _mlp(x: Node, mlp: MLP) -> Node:
    hidden = ops.gelu(_product(x, mlp.fc1.weight, mlp.fc1.bias), "erf")
    return _linear(hidden, mlp.fc2.weight, mlp.fc2.bias)


def _merge(x: Node, merging: PatchMerging, now: WindowAttention | None) -> Node:
    """Patch merging, from any order: (1, tokens, C) to (1, tokens / 4, 2C)."""
    _, tokens, dim = x.get_output_shape(0)
    squares = merging.squares
    if now is not None and now.inverse_order is not None:
        squares = now.inverse_order[squares]
    corners = ops.reshape(ops.gather(x, _constant(squares), 1), [1, tokens // 4, 4 * dim], False)
    return _linear(_norm(corners, merging.norm), merging.reduction.weight)


def _head(grid: Node, model: HTSAT) -> Node:
    """Token-semantic head: (1, 64, D) to presence logits (1, 32, K)."""
    dim, conv = model.backbone.out_dim, model.tscam_conv
    chunks = ops.reshape(grid, [1, CHUNKS, 2, TOKENS // CHUNKS, dim], False)
    unfolded = ops.reshape(ops.transpose(chunks, [0, 4, 2, 1, 3]), [1, dim, 2, TOKENS], False)
    logits = ops.convolution(unfolded, _constant(conv.weight), [1, 1], [0, 1], [0, 1], [1, 1])
    assert conv.bias is not None
    logits = ops.add(logits, _constant(conv.bias.view(1, -1, 1, 1)))
    return ops.transpose(ops.reshape(logits, [1, model.config.classes, TOKENS], False), [0, 2, 1])


def _norm(x: Node, norm: nn.LayerNorm) -> Node:
    y = ops.mvn(x, [-1], True, norm.eps, "inside_sqrt")
    return ops.add(ops.multiply(y, _constant(norm.weight)), _constant(norm.bias))


def _linear(x: Node, weight: Tensor, bias: Tensor | None = None) -> Node:
    """A linear layer without an activation, followed by a clamp that never takes effect."""
    return ops.clamp(_product(x, weight, bias), -_BOUND, _BOUND)


def _product(x: Node, weight: Tensor, bias: Tensor | None) -> Node:
    y = ops.matmul(x, _constant(weight), False, True)
    return y if bias is None else ops.add(y, _constant(bias))


def _constant(values: Tensor | None) -> Node:
    assert values is not None
    array: NDArray[Any] = values.detach().cpu().contiguous().numpy()
    return ops.constant(array)
