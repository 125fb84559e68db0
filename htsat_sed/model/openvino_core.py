"""The core computed by OpenVINO, on the CPU: compiled once for a model and a machine, then read back."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

import numpy as np
import openvino
import torch
from torch import Tensor

from htsat_sed.errors import HtsatSedError
from htsat_sed.model import openvino_graph
from htsat_sed.model.catalogue import checkpoint_folder
from htsat_sed.model.core import Core
from htsat_sed.whole_file import whole_file

KEPT = 4  # compiled graphs on the disk, those used last
_DIGEST = 32  # bytes of a file before the graph: SHA-256 of the rest


def openvino_core(draw: Callable[[], openvino.Model], batch_size: int, *, key: str = "") -> Core:
    """The core of a model, computed by OpenVINO with as many threads as torch has.

    Args:
        draw: makes the graph, see `openvino_graph`.
        batch_size: most windows at once; so many at most are computed side by side.
        key: what tells the graph from all others; with it, the graph is drawn and compiled once and then read
            back from the folder of downloaded checkpoints. Empty: nothing is read or kept.
    """
    threads = torch.get_num_threads()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",  # some processors would take bfloat16 unasked
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": str(min(threads, batch_size)),
    }
    compiled = _kept(draw, settings, key) if key else openvino.Core().compile_model(draw(), "CPU", settings)
    idle: deque[openvino.InferRequest] = deque()

    def request() -> openvino.InferRequest:
        try:
            return idle.pop()
        except IndexError:  # several threads may be here at once
            return compiled.create_infer_request()

    def core(logmel: Tensor) -> Tensor:
        windows = logmel.contiguous().numpy()
        begun = [request() for _ in windows]
        for each, window in zip(begun, windows, strict=True):
            each.start_async({0: window[None]}, share_inputs=True)
        for each in begun:
            each.wait()
        logits = np.concatenate([each.get_output_tensor(0).data for each in begun])
        idle.extend(begun)
        return torch.from_numpy(logits)

    return core


def _kept(
    draw: Callable[[], openvino.Model], settings: Mapping[str, str], key: str
) -> openvino.CompiledModel:
    """A graph compiled by an earlier process, or by this one for later ones.

    No folder to keep it in, no space or a file that cannot be read mean no more than that it is compiled.
    """
    core = openvino.Core()
    told = (
        key,
        inspect.getsource(openvino_graph),
        openvino.get_version(),
        core.get_property("CPU", "FULL_DEVICE_NAME"),  # homes are shared between machines
        core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
        settings,
    )
    name = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
    path = checkpoint_folder() / "compiled" / f"{name}.blob"
    with suppress(OSError, RuntimeError):
        kept = path.read_bytes()
        if kept[:_DIGEST] == hashlib.sha256(kept[_DIGEST:]).digest():
            compiled = core.import_model(kept[_DIGEST:], "CPU", dict(settings))
            path.touch()  # used last
            return compiled
    compiled = core.compile_model(draw(), "CPU", dict(settings))
    with suppress(OSError, RuntimeError, HtsatSedError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, "wb") as file:
            blob = compiled.export_model().getvalue()
            file.write(hashlib.sha256(blob).digest() + blob)
        newest = sorted(path.parent.glob("*.blob"), key=lambda blob: blob.stat().st_mtime, reverse=True)
        for old in newest[KEPT:]:
            old.unlink()
    return compiled
