"""The HTS-AT model: waveforms to presence logits, clip logits and embeddings.

Source: Chen et al., *HTS-AT: A Hierarchical Token-Semantic Audio Transformer for Sound Classification
and Detection*, ICASSP 2022 (arXiv 2202.00874).

    waveform (B, samples) ─ frontend ─▶ log-mel (B, frames, 64) ─ bn0, stretch, fold ─▶ image (B, 1, 256, 256)
        ─ Swin ─▶ grid (B, 8 x 8, D) ─ token-semantic head ─▶ presence logits (B, 32, K)
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from htsat_sed.errors import UsageError
from htsat_sed.labels import check_label_set
from htsat_sed.model.frontend import LogMel
from htsat_sed.model.swin import Swin

IMAGE_SIDE = 256
PATCH = 4
CHUNKS = 4  # pieces of the spectrogram stacked along frequency: 4 x 64 bands = 256 rows
FRAMES = CHUNKS * IMAGE_SIDE  # frames of a stretched window
TOKENS = 32  # tokens per window: 1024 frames / (patch 4 x three mergings by 2)
WINDOW_HOPS = 1000  # STFT hops per window: 10 s with 320 samples at 32 kHz

# Limits on a checkpoint's description: far above all known models, and still within a few GB of memory.
MOST_FFT = 8192
_MOST_BLOCKS, _MOST_HEADS = 48, 32  # blocks of a stage; heads of the first stage
_RANGES: dict[str, tuple[int, int]] = {
    "classes": (1, 100_000),
    "sample_rate": (1_000, 768_000),
    "hop_length": (1, 4096),
    "n_fft": (2, MOST_FFT),
    "embed_dim": (1, 1024),
    "mlp_ratio": (1, 16),
}


@dataclass(frozen=True, kw_only=True)
class HTSATConfig:
    """Shape and front end of an HTS-AT; the defaults are those of the AudioSet model.

    Attributes:
        classes: number of classes K.
        sample_rate: sample rate of the waveforms, Hz.
        hop_length: STFT step, samples; a window has 1000 steps (10 s with 320 samples at 32 kHz).
        n_fft: STFT size, samples.
        mel_bands: bands of the mel bank.
        fmin: lower edge of the mel bank, Hz.
        fmax: upper edge of the mel bank, Hz; may exceed half the sample rate, as in one published model.
        embed_dim: channels of the first Swin stage; D is 8 times that.
        depths: blocks of each of the four stages.
        heads: attention heads of each of the four stages.
        attention_window: side of an attention window, in tokens.
        mlp_ratio: hidden width of the MLPs divided by their outer width.
        drop_path: probability of stochastic depth in the last block, in training.
        loss: ``clip_bce`` for multi-label models (score = sigmoid), ``clip_ce`` for single-label
            ones (score = softmax over the classes, in each token and in each clip).
    """

    classes: int = 527
    sample_rate: int = 32_000
    hop_length: int = 320
    n_fft: int = 1024
    mel_bands: int = 64
    fmin: float = 50.0
    fmax: float = 14_000.0
    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    attention_window: int = 8
    mlp_ratio: float = 4.0
    drop_path: float = 0.1
    loss: Literal["clip_bce", "clip_ce"] = "clip_bce"

    def __post_init__(self) -> None:
        """Validate the values.

        Raises:
            ValueError: a value is out of range; the message names it.
        """
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise UsageError(f"wanted {name} of {least} to {most}, got {value}")
        if self.n_fft // 2 >= self.window_samples:
            raise UsageError(
                f"wanted n_fft below twice a window of {self.window_samples} samples, got {self.n_fft}"
            )
        if self.mel_bands != IMAGE_SIDE // CHUNKS:
            raise UsageError(f"wanted mel_bands {IMAGE_SIDE // CHUNKS}, got {self.mel_bands}")
        if self.attention_window != 8:
            raise UsageError(f"wanted attention_window 8, got {self.attention_window}")
        if not (_four_integers(self.depths) and all(1 <= depth <= _MOST_BLOCKS for depth in self.depths)):
            raise UsageError(
                f"wanted depths of four stages, each 1 to {_MOST_BLOCKS} blocks, got {self.depths}"
            )
        widths = [self.embed_dim * 2**stage for stage in range(4)]
        if not _four_integers(self.heads) or any(
            not 1 <= heads <= _MOST_HEADS * 2**stage or widths[stage] % heads
            for stage, heads in enumerate(self.heads)
        ):
            raise UsageError(
                f"wanted heads of four stages that divide their widths, {self.embed_dim} x (1, 2, 4, 8), "
                f"at most {_MOST_HEADS} x (1, 2, 4, 8), got {self.heads}"
            )
        # Compared before anything is computed: an integer of JSON may be too large for a float.
        if not (0.0 <= self.fmin <= self.fmax <= 1e6 and self.fmax - self.fmin >= 1.0):
            raise UsageError(f"wanted 0 <= fmin < fmax, got {self.fmin} and {self.fmax}; 1 Hz to 1 MHz apart")
        if not 0.0 <= self.drop_path < 1.0:
            raise UsageError(f"wanted drop_path in [0, 1), got {self.drop_path}")
        if self.loss not in ("clip_bce", "clip_ce"):
            raise UsageError(f"wanted loss clip_bce or clip_ce, got {self.loss!r}")

    @property
    def window_samples(self) -> int:
        """Samples of a window."""
        return WINDOW_HOPS * self.hop_length

    @property
    def window_seconds(self) -> float:
        """Duration of a window: 10 s in every published configuration."""
        return self.window_samples / self.sample_rate

    @property
    def token_seconds(self) -> float:
        """Duration of a token, a 32nd of a window: 0.3125 s for 10 s."""
        return self.window_seconds / TOKENS


def _four_integers(values: tuple[int, ...]) -> bool:
    return len(values) == 4 and all(type(value) is int for value in values)


class HTSATOutput(NamedTuple):
    """Outputs of the model for a batch of windows.

    Attributes:
        presence_logits: (B, 32, K); `HTSAT.scores` turns them into presence scores.
        clip_logits: (B, K), the mean of the presence logits over time.
        embedding: (B, D), the mean of the last grid.
    """

    presence_logits: Tensor
    clip_logits: Tensor
    embedding: Tensor


class HTSAT(nn.Module):
    """The hierarchical token-semantic audio transformer.

    Args:
        config: shape of the model.
        labels: one name for each class, in the order of the outputs; default ``class_000``, ...
        initialise: draw initial weights; False if all weights are loaded next.

    Attributes:
        post_processing: values for `PostProcessing.override` that suit these weights, or None.
        provenance: origin of the weights; free form, empty for untrained ones.

    Raises:
        UsageError: the labels are not distinct texts, or not as many as classes.
    """

    def __init__(
        self, config: HTSATConfig, labels: tuple[str, ...] | None = None, *, initialise: bool = True
    ) -> None:
        super().__init__()
        self.config = config
        self.labels = labels if labels is not None else tuple(f"class_{i:03d}" for i in range(config.classes))
        if len(self.labels) != config.classes:
            raise UsageError(f"wanted {config.classes} labels, one per class, got {len(self.labels)}")
        check_label_set(self.labels)
        self.post_processing: dict[str, Any] | None = None
        self.provenance: dict[str, Any] = {}
        self.frontend = LogMel(
            sample_rate=config.sample_rate,
            n_fft=config.n_fft,
            hop_length=config.hop_length,
            mel_bands=config.mel_bands,
            fmin=config.fmin,
            fmax=config.fmax,
        )
        self.bn0 = nn.BatchNorm1d(config.mel_bands)
        self.backbone = Swin(
            image_side=IMAGE_SIDE,
            patch=PATCH,
            embed_dim=config.embed_dim,
            depths=config.depths,
            heads=config.heads,
            window=config.attention_window,
            mlp_ratio=config.mlp_ratio,
            drop_path=config.drop_path,
            initialise=initialise,
        )
        self.tscam_conv = nn.Conv2d(self.backbone.out_dim, config.classes, (2, 3), padding=(0, 1))

    def forward(self, waveforms: Tensor) -> HTSATOutput:
        """Run the model on a batch of windows.

        Args:
            waveforms: (B, samples) float in [-1, 1] at the configuration's sample rate. A whole window has
                `config.window_samples` samples; the maximum is 1023 hops. As in the official inference mode,
                the log-mel spectrogram of a shorter waveform is repeated n times, as often as it fits whole,
                and then stretched: for a waveform of d seconds, a token covers n d / 32 seconds of the
                repetitions. Pad with zeros to a whole window for tokens of 0.3125 s.

        Returns:
            Logits and embedding, see `HTSATOutput`.

        Raises:
            ValueError: `waveforms` has another rank, or is too short for the STFT or too long.
        """
        return self.from_normalised(self.normalise(self.frontend(waveforms)))

    def normalise(self, logmel: Tensor) -> Tensor:
        """Batch-normalise the mel bands of a spectrogram (B, frames, 64)."""
        return self.bn0(logmel.transpose(1, 2)).transpose(1, 2)  # type: ignore[no-any-return]

    def from_normalised(self, logmel: Tensor) -> HTSATOutput:
        """Run the model from the normalised spectrogram on, which training augments first.

        Args:
            logmel: (B, frames, 64) from `normalise`; at most 1024 frames.
        """
        return self.token_semantic_head(self.backbone(fold(stretch(logmel))))

    def token_embeddings(self, waveforms: Tensor) -> Tensor:
        """Compute embeddings of tokens, whose mean over a window is `HTSATOutput.embedding`.

        Args:
            waveforms: (B, samples), see `forward`.

        Returns:
            (B, 32, D).
        """
        grid = self.backbone(fold(stretch(self.normalise(self.frontend(waveforms)))))
        batch, _, dim = grid.shape
        return grid.view(batch, CHUNKS, 2, 8, dim).mean(dim=2).reshape(batch, TOKENS, dim)  # type: ignore[no-any-return]

    def token_semantic_head(self, grid: Tensor) -> HTSATOutput:
        """Compute the outputs from the last grid.

        Args:
            grid: (B, 64, D), 8 rows of (chunk, frequency) by 8 columns of time within the chunk.
        """
        batch, _, dim = grid.shape
        unfolded = grid.view(batch, CHUNKS, 2, 8, dim).permute(0, 4, 2, 1, 3).reshape(batch, dim, 2, TOKENS)
        logits = self.tscam_conv(unfolded).squeeze(2).transpose(1, 2)
        return HTSATOutput(logits, logits.mean(dim=1), grid.mean(dim=1))

    def scores(self, logits: Tensor) -> Tensor:
        """Convert logits to scores.

        Scores of multi-label models are the sigmoid of the logits. Single-label models (``clip_ce``) were
        trained with a softmax; their scores are the softmax over the classes, for tokens and for clips.

        Args:
            logits: (..., K) logits of tokens or clips.

        Returns:
            (..., K) scores in [0, 1].
        """
        return logits.softmax(-1) if self.config.loss == "clip_ce" else logits.sigmoid()


def array_shapes(config: HTSATConfig) -> dict[str, tuple[int, ...]]:
    """Compute the shape of every array in a model's state dict, in order, without allocating arrays."""
    shapes: dict[str, tuple[int, ...]] = {}

    def add(name: str, weight: tuple[int, ...], *, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = weight
        if bias:
            shapes[f"{name}.bias"] = weight[:1]

    add("bn0", (config.mel_bands,))
    shapes |= {f"bn0.running_{value}": (config.mel_bands,) for value in ("mean", "var")}
    shapes["bn0.num_batches_tracked"] = ()
    dim = config.embed_dim
    add("backbone.patch_embed.proj", (dim, 1, PATCH, PATCH))
    add("backbone.patch_embed.norm", (dim,))
    for stage, depth in enumerate(config.depths):
        hidden = int(dim * config.mlp_ratio)
        for place in range(depth):
            block = f"backbone.layers.{stage}.blocks.{place}"
            add(f"{block}.norm1", (dim,))
            table = (2 * config.attention_window - 1) ** 2, config.heads[stage]
            shapes[f"{block}.attn.relative_position_bias_table"] = table
            add(f"{block}.attn.qkv", (3 * dim, dim))
            add(f"{block}.attn.proj", (dim, dim))
            add(f"{block}.norm2", (dim,))
            add(f"{block}.mlp.fc1", (hidden, dim))
            add(f"{block}.mlp.fc2", (dim, hidden))
        if stage < len(config.depths) - 1:
            add(f"backbone.layers.{stage}.downsample.norm", (4 * dim,))
            add(f"backbone.layers.{stage}.downsample.reduction", (2 * dim, 4 * dim), bias=False)
            dim *= 2
    add("backbone.norm", (dim,))
    add("tscam_conv", (config.classes, dim, 2, 3))
    return shapes


def stretch(logmel: Tensor) -> Tensor:
    """Extend a spectrogram to 1024 frames: repeat it as often as it fits whole, then stretch it in time.

    The interpolation is bicubic with aligned corners, so the first and last frames keep their values.

    Args:
        logmel: (B, frames, 64), 1 to 1024 frames.

    Returns:
        (B, 1024, 64).

    Raises:
        ValueError: there are no frames, or more than 1024.
    """
    frames = logmel.shape[1]
    if not 1 <= frames <= FRAMES:
        raise UsageError(f"wanted at most {FRAMES} frames, got {frames}: cut the recording into windows")
    logmel = logmel.repeat(1, FRAMES // frames, 1)
    if logmel.shape[1] == FRAMES:
        return logmel
    size = (FRAMES, logmel.shape[2])
    return F.interpolate(logmel[:, None], size, mode="bicubic", align_corners=True)[:, 0]


def fold(logmel: Tensor) -> Tensor:
    """Cut a spectrogram into four chunks and stack them along frequency.

    Args:
        logmel: (B, 1024, 64).

    Returns:
        (B, 1, 256, 256): row = chunk * 64 + band, column = frame within the chunk.
    """
    chunks = logmel.view(-1, CHUNKS, IMAGE_SIDE, logmel.shape[2])
    return chunks.transpose(2, 3).reshape(-1, 1, IMAGE_SIDE, IMAGE_SIDE)


def fingerprint(model: HTSAT) -> str:
    """Compute a hash of configuration and weights: 16 hexadecimal digits."""
    digest = hashlib.sha256(json.dumps(asdict(model.config), sort_keys=True).encode())
    for name, values in sorted(model.state_dict().items()):
        if not name.endswith("num_batches_tracked"):
            digest.update(name.encode())
            digest.update(values.detach().cpu().contiguous().numpy())
    return digest.hexdigest()[:16]
