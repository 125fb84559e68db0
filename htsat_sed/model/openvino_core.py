"""Running the core with OpenVINO, on the CPU."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from htsat_sed.errors import UsageError
from htsat_sed.model.openvino_import import openvino
from htsat_sed.model.torch_core import Core, has_bfloat16

_ALONE = 8  # windows that one stream computes in about the time that compiling a second takes
_STREAMS = 8  # windows at once; each stream needs memory for packed weights (150 MB for the full-size model)


def openvino_core(graph: openvino.Model, batch_size: int, *, precision: str = "float32") -> Core:
    """Make the core of a model for OpenVINO, with as many threads as torch.

    The windows of a batch are computed in parallel, each in its own stream: a separately compiled graph.
    Streams are compiled one by one: the first at once, another when all are busy, but not during the first
    `_ALONE` windows. OpenVINO's own streams (``NUM_STREAMS`` above 1) are not used: its threads build graphs
    concurrently and share packed weights under a key that contains an address. In 1 of 150 processes
    (OpenVINO 2026.4), one stream had a wrong tensor for the life of the process.

    Args:
        graph: graph from `openvino_graph` or `load_int8`.
        batch_size: largest number of windows in a batch.
        precision: ``float32``, also for graphs whose weights are int8, or ``bfloat16``.

    Raises:
        UsageError: the processor has no instructions for bfloat16.
    """
    streams, threads = _shares(torch.get_num_threads(), batch_size)
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",  # on some processors the default is bfloat16
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": "1",
        "ENABLE_CPU_PINNING": "NO",  # otherwise every compiled graph is bound to the first processor core
    }
    core = openvino.Core()
    if precision == "bfloat16":
        settings["INFERENCE_PRECISION_HINT"] = "bf16"
        if not (has_bfloat16() and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")):
            name = core.get_property("CPU", "FULL_DEVICE_NAME")
            raise UsageError(
                f"bfloat16 on a CPU needs AVX512_BF16 or AMX, which this CPU ({name}) lacks: choose float32"
            )
    compiling = threading.Lock()
    free: queue.LifoQueue[openvino.InferRequest] = queue.LifoQueue()
    begun, unmade = count(), iter(range(streams))

    def new_stream() -> openvino.InferRequest | None:
        with compiling:
            if next(unmade, None) is None:
                return None
            return core.compile_model(graph, "CPU", settings).create_infer_request()

    free.put(new_stream())  # the first now, so that errors appear early
    executor = ThreadPoolExecutor(streams, "openvino")  # starts a thread if all others are busy

    def logits(window: NDArray[np.float32]) -> NDArray[np.float32]:
        number = next(begun)
        request: Any
        try:
            request = free.get_nowait()
        except queue.Empty:
            request = (new_stream() if number >= _ALONE else None) or free.get()
        try:
            found: NDArray[np.float32] = request.infer({0: window[None]}, share_inputs=True)[0]
            return found
        finally:
            free.put(request)

    def core_of(logmel: Tensor) -> Tensor:
        return torch.from_numpy(np.concatenate(list(executor.map(logits, logmel.contiguous().numpy()))))

    return core_of


def _shares(threads: int, batch_size: int) -> tuple[int, int]:
    """Return the number of streams and the number of threads of each."""
    each = -(-threads // min(threads, batch_size, _STREAMS))
    return threads // each, each
