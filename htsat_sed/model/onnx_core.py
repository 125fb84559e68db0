"""The core as an ONNX graph: run by ONNX Runtime, or exported to a file.

Torch traces the graph, for any number of windows. The input of exported graphs is the log-mel spectrogram in
decibels, because runtimes support ONNX's FFT poorly.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from htsat_sed.errors import CheckpointError, HtsatSedError, UsageError
from htsat_sed.model.htsat import FRAMES, HTSAT, WINDOW_HOPS, HTSATConfig
from htsat_sed.model.torch_core import Core, CoreModule
from htsat_sed.whole_file import whole_file

OPSET = 17
TOLERANCE = 1e-4  # largest difference from torch's scores
_OPSETS = range(17, 21)  # from 17 for LayerNormalization, to 20 because torch's tracer supports none beyond


def onnx_core(model: HTSAT) -> Core:
    """Make the core of a model for ONNX Runtime, with as many threads as torch.

    Args:
        model: model on the CPU, in evaluation mode.
    """
    example = torch.zeros(2, FRAMES, model.config.mel_bands)
    session = _session(_traced(CoreModule(model), example, ["presence_logits"], OPSET))

    def core(logmel: Tensor) -> Tensor:
        (logits,) = session.run(None, {"logmel": logmel.contiguous().numpy()})
        return torch.from_numpy(logits)

    return core


def export_onnx(
    path: str | Path,
    model: HTSAT,
    waveforms: Tensor,
    *,
    opset: int = OPSET,
    provenance: Mapping[str, Any] | None = None,
) -> float:
    """Export a model as ONNX, after a check that ONNX Runtime reproduces torch's scores.

    The input of the graph is ``logmel`` (batch, 1001, 64): the output of the front end for whole windows, in
    decibels. Its outputs are ``presence`` (batch, 32, K) and ``clip`` (batch, K), scores in [0, 1], and
    ``embedding`` (batch, D). Metadata entries: ``labels``, ``config``, ``post_processing``, ``provenance``
    (JSON); ``sample_rate`` (Hz), ``window_seconds``, ``token_seconds``, ``htsat_sed`` (version).

    Args:
        path: output file, written atomically.
        model: model on the CPU, in evaluation mode.
        waveforms: (B, window_samples) float32 for the comparison.
        opset: ONNX opset, 17 to 20.
        provenance: origin of the weights; None for that of the model.

    Returns:
        The largest difference between the scores of torch and ONNX Runtime, at most 1e-4.

    Raises:
        ValueError: the opset is not supported.
        CheckpointError: the file cannot be written, or the scores differ by more than 1e-4.
    """
    if opset not in _OPSETS:
        raise UsageError(f"wanted an ONNX opset of {_OPSETS[0]} to {_OPSETS[-1]}, got {opset}")
    import onnx

    from htsat_sed import __version__

    module, names = _Exported(model), ["presence", "clip", "embedding"]
    example = torch.zeros(2, WINDOW_HOPS + 1, model.config.mel_bands)
    graph = onnx.load_from_string(_traced(module, example, names, opset))
    graph.producer_name, graph.producer_version = "htsat-sed", __version__
    metadata = {
        "labels": json.dumps(model.labels, ensure_ascii=False),
        "config": json.dumps(asdict(model.config)),
        "post_processing": json.dumps(model.post_processing),
        "provenance": json.dumps(dict(model.provenance if provenance is None else provenance)),
        "sample_rate": str(model.config.sample_rate),
        "window_seconds": f"{model.config.window_seconds:g}",
        "token_seconds": f"{model.config.token_seconds:g}",
        "htsat_sed": __version__,
    }
    onnx.helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph)
    written = graph.SerializeToString()
    difference = _difference(module, _session(written), model.frontend(waveforms), names)
    if not difference <= TOLERANCE:
        raise CheckpointError(
            path, f"not written: its scores differ by {difference:.1g} from torch's; report this as a bug"
        )
    try:
        with whole_file(path, "wb") as file:
            file.write(written)
    except HtsatSedError as error:
        raise CheckpointError(error.path, error.reason) from error
    return difference


def made_sound(config: HTSATConfig) -> Tensor:
    """Make synthetic windows for the comparison, (2, window_samples): rising tones in noise."""
    generator = torch.Generator().manual_seed(0)
    seconds = torch.arange(config.window_samples) / config.sample_rate
    tones = [torch.sin(2 * torch.pi * (low + 150 * seconds) * seconds) for low in (200, 800)]
    noise = torch.randn(2, config.window_samples, generator=generator)
    return 0.1 * torch.stack(tones) * (seconds % 2 < 1) + 0.003 * noise


class _Exported(nn.Module):
    def __init__(self, model: HTSAT) -> None:
        super().__init__()
        self.model = model

    def forward(self, logmel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Convert log-mel in decibels (B, 1001, 64) to presence scores, clip scores and embedding."""
        out = self.model.from_normalised(self.model.normalise(logmel))
        scores = self.model.scores
        return scores(out.presence_logits), scores(out.clip_logits), out.embedding


def _traced(module: nn.Module, example: Tensor, outputs: Sequence[str], opset: int) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        # The tracer is deprecated, but its successor needs another package and makes a slower graph.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (example,),
            file,  # type: ignore[arg-type]  # the tracer takes it
            dynamo=False,
            opset_version=opset,
            input_names=["logmel"],
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name in ("logmel", *outputs)},
        )
    return file.getvalue()


def _session(graph: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@torch.inference_mode()
def _difference(module: nn.Module, session: Any, logmel: Tensor, names: Sequence[str]) -> float:
    """Return the largest difference of scores, over the whole batch and over its first window alone."""
    found = 0.0
    for batch in (logmel, logmel[:1]):
        expected = dict(zip(names, module(batch), strict=True))
        scores = dict(zip(names, session.run(list(names), {"logmel": batch.numpy()}), strict=True))
        for name in ("presence", "clip"):
            found = max(found, float(np.abs(scores[name] - expected[name].numpy()).max()))
    return found
