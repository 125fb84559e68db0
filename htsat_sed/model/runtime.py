"""Runtimes: computing presence scores, clip scores and embeddings of a batch of waveforms.

    waveforms ─ front end, bn0, stretch (torch, float32) ─▶ (B, 1024, 64) ─ core ─▶ presence logits ─▶ scores

The core takes nearly all of the time. It runs in torch, OpenVINO or ONNX Runtime: in torch also in half
precision or compiled, in OpenVINO also in bfloat16 or int8. Scores are always float32.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from htsat_sed.errors import UsageError
from htsat_sed.libraries import failed_library, require
from htsat_sed.model.htsat import HTSAT, HTSATOutput
from htsat_sed.model.torch_core import Core, core_input, torch_core

Runtime = Literal["torch", "openvino", "onnx"]
Precision = Literal["float32", "bfloat16", "float16", "int8"]

_logger = logging.getLogger(__name__)

_PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime"}


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Runtime and precision of a model.

    Attributes:
        runtime: ``torch``, ``openvino``, ``onnx``, or ``auto``: OpenVINO on a CPU if it is installed and
            supports the other values, otherwise torch.
        precision: precision of the core. bfloat16 and float16 change scores by a few hundredths at most. On a
            CPU, bfloat16 needs AVX512_BF16 or AMX, unless the runtime is ``torch``, and float16 is refused.
            int8 needs OpenVINO and a calibrated model, see `htsat_sed.model.int8`.
        compile: whether torch compiles the core. This takes a minute and pays off in long runs on a GPU.

    Raises:
        ValueError: a value is unknown, or the combination is not supported.
    """

    runtime: Runtime | Literal["auto"] = "auto"
    precision: Precision = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        """Validate the values, and check that some device supports their combination."""
        runtimes = ("auto", *get_args(Runtime))
        if self.runtime not in runtimes:
            raise UsageError(f"wanted a runtime, one of {', '.join(runtimes)}; got {self.runtime!r}")
        if self.precision not in get_args(Precision):
            raise UsageError(
                f"wanted a precision, one of {', '.join(get_args(Precision))}; got {self.precision!r}"
            )
        if self.precision == "int8" and (self.compile or self.runtime not in ("auto", "openvino")):
            what = "compile" if self.compile else f"the runtime {self.runtime}"
            raise UsageError(f"int8 needs the runtime openvino, got {what}")
        possible = {"onnx": ("float32",), "openvino": ("float32", "bfloat16", "int8")}.get(self.runtime)
        if possible is not None and (self.precision not in possible or self.compile):
            what = "compile" if self.compile else self.precision
            raise UsageError(
                f"the runtime {self.runtime} does not support {what}: choose --runtime torch, or auto"
            )

    def on(self, device: torch.device) -> Runtime:
        """Return the runtime to use on a device.

        Raises:
            ValueError: the device does not support these values, or a package is missing.
        """
        if self.precision == "float16" and device.type == "cpu":
            raise UsageError("float16 runs on GPUs only: choose bfloat16 or float32 on a CPU")
        int8 = self.precision == "int8"
        if self.runtime == "auto" and not int8:
            fit = device.type == "cpu" and not self.compile
            there = fit and importlib.util.find_spec("openvino") is not None
            return "openvino" if there and _openvino_loads() else "torch"
        runtime: Runtime = "openvino" if int8 else cast("Runtime", self.runtime)
        if runtime in _PACKAGES:
            package, what = _PACKAGES[runtime], "int8" if int8 else f"the runtime {runtime}"
            if device.type != "cpu":
                raise UsageError(f"{what} runs on CPUs only, got the device {device}")
            require(package, purpose=what, extra=runtime)
        return runtime


@cache
def _openvino_loads() -> bool:
    """Whether OpenVINO, which is installed, can be loaded; warns if it cannot."""
    try:
        import_module("htsat_sed.model.openvino_import")
    except Exception as error:
        found = failed_library(error)
        if found is None:
            raise
        _logger.warning("%s; torch computes instead, more slowly", found)
        return False
    return True


class Inference:
    """A model on a device, ready to score waveforms.

    Args:
        model: model on the device, in evaluation mode; a reference is kept.
        device: device of the model and the waveforms.
        execution: runtime and precision; None for the defaults.
        batch_size: usual number of waveforms per call.

    Attributes:
        runtime: name of the runtime of the core.
        window_samples: samples of a whole window.

    Raises:
        ValueError: the device does not support `execution`.
        CheckpointError: the precision is int8, but the model is not calibrated.
    """

    def __init__(
        self, model: HTSAT, device: torch.device, execution: Execution | None = None, *, batch_size: int = 8
    ) -> None:
        execution = execution or Execution()
        self.runtime = execution.on(device)
        self.window_samples = model.config.window_samples
        self._model = model
        self._core: Core
        if self.runtime == "openvino":
            from htsat_sed.model.openvino_core import openvino_core
            from htsat_sed.model.openvino_graph import openvino_graph

            if execution.precision == "int8":
                from htsat_sed.model.int8 import load_int8

                self._core = openvino_core(load_int8(model), batch_size)
            else:
                graph = openvino_graph(model)
                self._core = openvino_core(graph, batch_size, precision=execution.precision)
        elif self.runtime == "onnx":
            from htsat_sed.model.onnx_core import onnx_core

            self._core = onnx_core(model)
        else:
            dtype = getattr(torch, execution.precision)
            self._core = torch_core(model, device, dtype, compiled=execution.compile)

    @torch.inference_mode()
    def presence_scores(self, waveforms: Tensor) -> Tensor:
        """Compute presence scores (B, 32, K) float32 of whole windows (B, samples)."""
        return self._model.scores(self.presence_logits(waveforms))

    @torch.inference_mode()
    def presence_logits(self, waveforms: Tensor) -> Tensor:
        """Compute presence logits (B, 32, K) float32 of whole windows (B, samples)."""
        return self._core(core_input(self._model, waveforms))

    @torch.inference_mode()
    def embeddings(self, waveforms: Tensor) -> Tensor:
        """Compute embeddings (B, D) float32 of whole windows (B, samples), always with torch."""
        output: HTSATOutput = self._model(waveforms)
        return output.embedding

    @torch.inference_mode()
    def token_embeddings(self, waveforms: Tensor) -> Tensor:
        """Compute embeddings of tokens (B, 32, D) float32 of whole windows (B, samples), with torch."""
        return self._model.token_embeddings(waveforms)

    @torch.inference_mode()
    def clip_scores(self, waveforms: Sequence[Tensor]) -> Tensor:
        """Compute clip scores (B, K) float32 of B waveforms (1, samples), each stretched to a window."""
        logmel = torch.cat([core_input(self._model, waveform) for waveform in waveforms])
        return self._model.scores(self._core(logmel).mean(dim=1))
