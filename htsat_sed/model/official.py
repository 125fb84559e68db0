"""Reading official HTS-AT checkpoints, and the HTS-AT encoders of CLAP models.

An official checkpoint is a PyTorch file whose `state_dict` has the arrays under the prefix ``sed_model.`` or
without a prefix. Besides learned arrays, it contains arrays that follow from the configuration (DFT and mel
matrices, attention masks, position indices) and a `head` that the token-semantic model never uses. These are
checked for their shapes and dropped. In averaged official checkpoints, all arrays are floating point, even
counters and indices.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from htsat_sed.errors import CheckpointError, UsageError
from htsat_sed.model.frontend import LogMel
from htsat_sed.model.htsat import MOST_FFT, HTSATConfig
from htsat_sed.model.torch_file import Arrays, check_plain, read_arrays, shortened

logger = logging.getLogger("htsat_sed")

_FIRST = "patch_embed.proj.weight"  # this array identifies an HTS-AT, and its prefix
_CLAP = {"audio_branch.": "LAION CLAP", "audio_encoder.base.htsat.": "Microsoft CLAP"}
_SAMPLE_RATES = (32_000, 16_000, 48_000, 44_100, 24_000, 22_050, 8_000)
_STAGES = 4
_CLIP_CE_CLASSES = 50  # ESC-50, the one published single-label model


class Encoder(NamedTuple):
    """An HTS-AT without its head, as a start of training.

    Attributes:
        embed_dim: channels of the first Swin stage.
        depths: blocks of each stage.
        heads: attention heads of each stage.
        arrays: `bn0.*` and `backbone.*` of `HTSAT.state_dict()`, float32.
    """

    embed_dim: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    arrays: Arrays


def read_official(
    path: str | Path,
    *,
    sample_rate: int | None = None,
    hop_length: int | None = None,
    loss: Literal["clip_bce", "clip_ce"] | None = None,
) -> tuple[HTSATConfig, Arrays]:
    """Read an official checkpoint.

    Classes, embed_dim, depths, heads and mlp_ratio are derived from the arrays; n_fft and the sample rate
    from the mel matrix, if the file has it. Defaults of the other values:

    - sample_rate, without the mel matrix: 32 kHz;
    - hop_length: sample_rate / 100, because windows last 10 s in all published models;
    - fmin, fmax: 50 and 14 000 Hz;
    - loss: `clip_ce` for 50 classes (ESC-50), otherwise `clip_bce`.

    Args:
        path: PyTorch file.
        sample_rate: sample rate, Hz; None for the default above.
        hop_length: STFT step, samples; None for the default above.
        loss: ``clip_bce`` or ``clip_ce``; None for the default above.

    Returns:
        Configuration, and the arrays named as in `HTSAT.state_dict()`.

    Raises:
        CheckpointError: the file is not an HTS-AT; it is a CLAP model, which has no trained detection head;
            arrays are missing, unknown or of a wrong shape; or pickled objects could execute code.
    """
    prefix, arrays = _htsat_arrays(path, read_arrays(path))
    for part, name in _CLAP.items():
        if part in prefix:
            raise CheckpointError(
                path,
                f"is a {name} model: it has no trained detection head, so it cannot detect events; it can "
                "only be a starting checkpoint for training",
            )
    if prefix not in ("sed_model.", ""):
        raise CheckpointError(path, f"holds an HTS-AT under the unknown prefix {prefix!r}, not 'sed_model.'")
    head = arrays.get("tscam_conv.weight")
    if head is None or head.ndim == 0:
        raise CheckpointError(path, "is an HTS-AT without token-semantic head (tscam_conv): cannot detect")
    classes = head.shape[0]
    mel = arrays.get("logmel_extractor.melW")
    if mel is not None and not (mel.ndim == 2 and 2 <= len(mel) <= MOST_FFT // 2 + 1):
        raise CheckpointError(path, f"its mel matrix has shape {tuple(mel.shape)}, wanted (bins, bands)")
    n_fft = 2 * (mel.shape[0] - 1) if mel is not None else HTSATConfig.n_fft
    rate = _sample_rate(path, mel, given=sample_rate)
    try:
        config = HTSATConfig(
            classes=classes,
            sample_rate=rate,
            hop_length=hop_length if hop_length is not None else max(1, rate // 100),
            n_fft=n_fft,
            loss=loss or ("clip_ce" if classes == _CLIP_CE_CLASSES else "clip_bce"),
            **_backbone_shape(path, arrays),
        )
    except UsageError as error:
        raise CheckpointError(path, f"is not an HTS-AT of a known shape: {error}") from error
    derived = _derived_shapes(config)
    learned: Arrays = {}
    for key, array in arrays.items():
        if key not in derived:
            learned[_our_name(key)] = _our_type(key, array)
        elif tuple(array.shape) != derived[key]:
            raise CheckpointError(path, f"{key} has shape {tuple(array.shape)}, wanted {derived[key]}")
    learned.setdefault("bn0.num_batches_tracked", torch.tensor(0))
    return config, learned


def read_encoder(path: str | Path) -> Encoder:
    """Read the encoder of an official checkpoint or a CLAP model, as a start of training.

    Args:
        path: PyTorch file of an official HTS-AT, or of a LAION or Microsoft CLAP with an HTS-AT encoder.

    Raises:
        CheckpointError: the file contains no HTS-AT, or arrays of a wrong shape.
    """
    _, arrays = _htsat_arrays(path, read_arrays(path))
    shape = _backbone_shape(path, arrays)
    wanted = re.compile(r"(bn0|patch_embed\.(proj|norm)|layers\.\d+|norm)\..*")
    derived = re.compile(r".*\.(attn_mask|relative_position_index)")
    return Encoder(
        shape["embed_dim"],
        shape["depths"],
        shape["heads"],
        {
            _our_name(key): _our_type(key, array)
            for key, array in arrays.items()
            if wanted.fullmatch(key) and not derived.fullmatch(key)
        },
    )


def _htsat_arrays(path: str | Path, arrays: Arrays) -> tuple[str, Arrays]:
    """Find the HTS-AT among the arrays; return its prefix, and its arrays without the prefix.

    Raises:
        CheckpointError: there is no HTS-AT, or there are unknown arrays.
    """
    prefixes = [key.removesuffix(_FIRST) for key in arrays if key.endswith(_FIRST)]
    if not prefixes:
        if any(key.startswith("audio_model.audio_encoder.") for key in arrays):
            raise CheckpointError(
                path,
                "is a CLAP model in the format of transformers, which is not supported, and not a detector",
            )
        raise CheckpointError(path, f"is not an HTS-AT: holds {shortened(list(arrays))}")
    prefix = min(prefixes, key=len)
    others = [key for key in arrays if not key.startswith(prefix)]
    if others and not any(part in prefix for part in _CLAP):
        raise CheckpointError(path, f"holds unknown arrays: {shortened(others)}")
    own = {key[len(prefix) :]: array for key, array in arrays.items() if key.startswith(prefix)}
    check_plain(path, own)
    return prefix, own


def _backbone_shape(path: str | Path, arrays: Arrays) -> dict[str, Any]:
    """Derive embed_dim, depths, heads and mlp_ratio from the shapes of the arrays."""
    depths: list[int] = []
    heads: list[int] = []
    try:
        # Count at most one stage too many: HTSATConfig then refuses the shape.
        while (
            len(depths) <= _STAGES
            and (table := f"layers.{len(depths)}.blocks.0.attn.relative_position_bias_table") in arrays
        ):
            heads.append(arrays[table].shape[1])
            norm = re.compile(rf"layers\.{len(depths)}\.blocks\.\d+\.norm1\.weight")
            depths.append(sum(norm.fullmatch(key) is not None for key in arrays))
        hidden, dim = arrays["layers.0.blocks.0.mlp.fc1.weight"].shape
        return {
            "embed_dim": arrays[_FIRST].shape[0],
            "depths": tuple(depths),
            "heads": tuple(heads),
            "mlp_ratio": hidden / dim,
        }
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(path, f"is not an HTS-AT of a known shape: {error}") from error


def _sample_rate(path: str | Path, mel: Tensor | None, *, given: int | None) -> int:
    """Return the given sample rate, or that of the mel matrix in the file, or 32 kHz."""
    if mel is None:
        return HTSATConfig.sample_rate if given is None else given
    told = next((rate for rate in _SAMPLE_RATES if _is_mel_bank_of(mel, rate)), None)
    if given is None and told is None:
        raise CheckpointError(
            path, "its mel matrix matches no usual sample rate at 50 to 14000 Hz: give --sample-rate"
        )
    if given is not None and told != given:
        belongs = f"that of {told} Hz" if told else "of unknown origin"
        logger.warning("%s: read as a %d Hz model, but its mel matrix is %s", path, given, belongs)
    return given if given is not None else told or HTSATConfig.sample_rate


def _is_mel_bank_of(mel: Tensor, sample_rate: int) -> bool:
    default = HTSATConfig(sample_rate=sample_rate)
    bank = LogMel(
        sample_rate=sample_rate,
        n_fft=2 * (mel.shape[0] - 1),
        hop_length=default.hop_length,
        mel_bands=default.mel_bands,
        fmin=default.fmin,
        fmax=default.fmax,
    ).mel_bank
    return bank.shape == mel.shape and bool((bank - mel.float()).abs().max() < 1e-3 * bank.max())


def _derived_shapes(config: HTSATConfig) -> dict[str, tuple[int, ...]]:
    """Compute the shape of every array that follows from the configuration, by official name."""
    bins = config.n_fft // 2 + 1
    window = config.attention_window
    shapes: dict[str, tuple[int, ...]] = {
        "spectrogram_extractor.stft.conv_real.weight": (bins, 1, config.n_fft),
        "spectrogram_extractor.stft.conv_imag.weight": (bins, 1, config.n_fft),
        "logmel_extractor.melW": (bins, config.mel_bands),
        "head.weight": (config.classes, config.classes),
        "head.bias": (config.classes,),
    }
    for stage, depth in enumerate(config.depths):
        windows = (64 // 2**stage // window) ** 2
        for block in range(depth):
            name = f"layers.{stage}.blocks.{block}"
            shapes[f"{name}.attn.relative_position_index"] = (window**2, window**2)
            if block % 2 and windows > 1:
                shapes[f"{name}.attn_mask"] = (windows, window**2, window**2)
    return shapes


def _our_name(key: str) -> str:
    return key if key.startswith(("bn0.", "tscam_conv.")) else f"backbone.{key}"


def _our_type(key: str, array: Tensor) -> Tensor:
    return array.long() if key == "bn0.num_batches_tracked" else array.float()
