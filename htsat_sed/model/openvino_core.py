"""The core computed by OpenVINO, on the CPU: compiled once for a model and a machine, then read back."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import openvino
import torch
from torch import Tensor

from htsat_sed import __version__
from htsat_sed.errors import HtsatSedError
from htsat_sed.model import htsat, openvino_graph, swin
from htsat_sed.model.catalogue import checkpoint_folder
from htsat_sed.model.core import Core
from htsat_sed.whole_file import whole_file

ROOM = 2_000_000_000  # bytes on the disk for compiled graphs
_DIGEST = 32  # bytes of a file before the graph: SHA-256 of the rest
_TRIES = 5
_UNFINISHED = 3600.0  # seconds after which nobody writes a file any more


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
    compiled = _sound(lambda: _compiled(draw, settings, key), int(settings["NUM_STREAMS"]))
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


def _sound(compiled: Callable[[], openvino.CompiledModel], streams: int) -> openvino.CompiledModel:
    """A compiled graph whose streams all compute the same, to the bit.

    In some processes (OpenVINO 2026.4, two streams) one stream computes something else for as long as it
    lives, as if two had come into each other's way while they were made.

    Raises:
        HtsatSedError: it never is.
    """
    for _ in range(_TRIES):
        graph = compiled()
        noise = np.random.default_rng(0).standard_normal(tuple(graph.input(0).shape), np.float32)
        requests = [graph.create_infer_request() for _ in range(2 * streams)]
        for request in requests:
            request.start_async({0: noise}, share_inputs=True)
        for request in requests:
            request.wait()
        first, *others = (request.get_output_tensor(0).data for request in requests)
        if all(np.array_equal(first, other) for other in others):
            return graph
    raise HtsatSedError("OpenVINO", "does not compute the same twice on this machine: take --runtime torch")


def _compiled(
    draw: Callable[[], openvino.Model], settings: Mapping[str, str], key: str
) -> openvino.CompiledModel:
    if key:
        return _kept(draw, settings, key)
    return openvino.Core().compile_model(draw(), "CPU", dict(settings))


def _kept(
    draw: Callable[[], openvino.Model], settings: Mapping[str, str], key: str
) -> openvino.CompiledModel:
    """A graph compiled by an earlier process, or by this one for later ones.

    No folder to keep it in, no space or a file that cannot be read mean no more than that it is compiled.
    """
    core = openvino.Core()
    path: Path | None = None
    with suppress(OSError, RuntimeError):  # no home; an installation without sources
        path = checkpoint_folder() / "compiled" / f"{_name(core, settings, key)}.blob"
        with path.open("rb") as kept:
            digest, blob = kept.read(_DIGEST), kept.read()
        if digest == hashlib.sha256(blob).digest():
            compiled = core.import_model(blob, "CPU", dict(settings))
            with suppress(OSError):
                os.utime(path)  # used last; others' files may be for reading alone
            return compiled
    compiled = core.compile_model(draw(), "CPU", dict(settings))
    if path is not None:
        with suppress(OSError, RuntimeError, HtsatSedError):
            _keep(compiled, path)
    return compiled


def _name(core: openvino.Core, settings: Mapping[str, str], key: str) -> str:
    """A hash of all that a compiled graph follows from."""
    told = (
        key,
        __version__,
        [inspect.getsource(module) for module in (htsat, swin, openvino_graph)],
        openvino.get_version(),
        core.get_property("CPU", "FULL_DEVICE_NAME"),  # homes are shared between machines
        core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
        settings,
    )
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _keep(compiled: openvino.CompiledModel, path: Path) -> None:
    """Write a compiled graph, and make room: those used last stay."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blob = compiled.export_model().getvalue()
    with whole_file(path, "wb") as file:
        file.write(hashlib.sha256(blob).digest())
        file.write(blob)
    for unfinished in path.parent.glob(".*.part"):  # of killed processes
        if time.time() - unfinished.stat().st_mtime > _UNFINISHED:
            unfinished.unlink()
    room = ROOM
    for blob_path in sorted(path.parent.glob("*.blob"), key=lambda each: -each.stat().st_mtime_ns):
        room -= blob_path.stat().st_size
        if room < 0 and blob_path != path:
            blob_path.unlink()
