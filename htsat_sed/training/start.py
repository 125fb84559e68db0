"""Starting models of training: random weights, weights of a checkpoint, or an ImageNet Swin transformer."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from htsat_sed.errors import CheckpointError
from htsat_sed.model.catalogue import resolve_checkpoint
from htsat_sed.model.checkpoint import load_checkpoint, load_encoder
from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.model.official import Encoder

_logger = logging.getLogger("htsat_sed")
TIMM = "timm:"


def start_model(
    config: HTSATConfig, labels: tuple[str, ...], start: str, *, presence_bias: float = 0.0
) -> HTSAT:
    """Make the model that training starts with, and log how many arrays came from the start.

    The head and the post-processing are copied if the start has all of the classes, in any order. Otherwise
    the head is new.

    Args:
        config: configuration of the model; the start replaces the shape of the backbone.
        labels: classes of the model.
        start: empty for random weights; the path or name of a checkpoint of HTS-AT, with any classes, or of a
            CLAP model that contains an HTS-AT; or ``timm:NAME`` for a Swin transformer, such as
            ``timm:swin_tiny_patch4_window7_224``, which timm downloads.
        presence_bias: initial bias of a new head, about the logit of the probability that a class is present
            in a token; 0 keeps the random bias.

    Returns:
        The model.

    Raises:
        CheckpointError: the start cannot be read, or timm cannot load it.
    """
    if not start:
        return _with_bias(HTSAT(config, labels), presence_bias)
    whole: HTSAT | None = None
    if start.startswith(TIMM):
        encoder = _timm_encoder(start.removeprefix(TIMM))
    else:
        path = resolve_checkpoint(start)
        encoder, whole = load_encoder(path), _knowing(path, labels)
    head = {} if whole is None else _head(whole, labels)
    shape = {name: getattr(encoder, name) for name in ("embed_dim", "depths", "heads")}
    model = _with_bias(HTSAT(replace(config, **shape), labels), presence_bias)
    own = model.state_dict()
    taken = {name: array for name, array in (encoder.arrays | head).items() if own[name].shape == array.shape}
    model.load_state_dict(own | taken)
    model.post_processing = None if whole is None else whole.post_processing
    new = [name for name in own if name not in taken]
    _logger.info(
        "start %s: %d of %d arrays loaded; newly initialised: %s", start, len(taken), len(own), _short(new)
    )
    return model


def _short(names: list[str]) -> str:
    return (
        ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") if names else "none"
    )


def _knowing(path: Path, labels: tuple[str, ...]) -> HTSAT | None:
    """Load a checkpoint if it has a head with all of these classes; otherwise return None."""
    try:
        model = load_checkpoint(path)
    except CheckpointError:  # an encoder without a head
        return None
    return model if set(labels) <= set(model.labels) else None


def _head(model: HTSAT, labels: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the arrays of a model's head, reduced to these classes."""
    rows = [model.labels.index(label) for label in labels]
    return {name: array[rows] for name, array in model.state_dict().items() if name.startswith("tscam_conv.")}


def _timm_encoder(name: str) -> Encoder:
    try:
        import timm
    except ModuleNotFoundError:
        raise CheckpointError(TIMM + name, "needs timm: pip install timm") from None
    try:
        swin = timm.create_model(name, pretrained=True)
    except Exception as error:  # timm and huggingface_hub raise many types
        raise CheckpointError(TIMM + name, f"timm cannot load it: {str(error).splitlines()[0]}") from error
    return from_timm(swin.state_dict(), name)


def from_timm(arrays: Mapping[str, Tensor], name: str) -> Encoder:
    """Convert the arrays of timm's Swin transformer to the names of this package.

    The weights of the three colour channels are averaged, as in the HTS-AT paper. Tables of relative position
    biases for another window size are interpolated.

    Args:
        arrays: state of timm's SwinTransformer.
        name: name of the model, for messages.

    Raises:
        CheckpointError: the model is not a Swin transformer with four stages.
    """
    ours: dict[str, Tensor] = {}
    depths = [0, 0, 0, 0]
    heads = [0, 0, 0, 0]
    try:
        for key, array in arrays.items():
            if merged := re.fullmatch(r"layers\.([123])\.downsample\.(.+)", key):
                # timm merges patches at the start of a stage, HTS-AT at the end of the previous one.
                ours[f"backbone.layers.{int(merged[1]) - 1}.downsample.{merged[2]}"] = array
            elif block := re.fullmatch(r"layers\.([0-3])\.blocks\.(\d+)\.(.+)", key):
                stage, place, rest = int(block[1]), int(block[2]), block[3]
                if rest in ("attn_mask", "attn.relative_position_index"):
                    continue
                depths[stage] = max(depths[stage], place + 1)
                if rest == "attn.relative_position_bias_table":
                    heads[stage] = array.shape[1]
                    array = _stretched(array)
                ours[f"backbone.layers.{stage}.blocks.{place}.{rest}"] = array
            elif key == "patch_embed.proj.weight":
                ours[f"backbone.{key}"] = array.mean(dim=1, keepdim=True)
            elif key.startswith(("patch_embed.", "norm.")):
                ours[f"backbone.{key}"] = array
        width = len(ours["backbone.patch_embed.proj.bias"])
    except (KeyError, IndexError) as error:
        raise CheckpointError(TIMM + name, "is not a Swin transformer with four stages") from error
    if 0 in depths:
        raise CheckpointError(TIMM + name, "is not a Swin transformer with four stages")
    return Encoder(width, tuple(depths), tuple(heads), ours)


def _stretched(table: Tensor, side: int = 15) -> Tensor:
    """Interpolate a table of relative position biases from (n * n, heads) to (side * side, heads)."""
    n = round(len(table) ** 0.5)
    if n == side:
        return table
    image = table.T.reshape(1, -1, n, n)
    stretched = F.interpolate(image, (side, side), mode="bicubic", align_corners=True)
    return stretched.reshape(-1, side * side).T.contiguous()


def _with_bias(model: HTSAT, bias: float) -> HTSAT:
    """Set the bias of a new head, unless it is 0."""
    if bias:
        with torch.no_grad():
            assert model.tscam_conv.bias is not None
            model.tscam_conv.bias.fill_(bias)
    return model
