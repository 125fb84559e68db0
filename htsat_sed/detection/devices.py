"""Computing batches on devices, each with its own copy of the ensemble.

Batches are computed asynchronously; the caller waits for the scores. On CUDA, the copy to the device, the
model and the copy back are queued while the next batch is prepared. On a CPU, each thread computes its own
part of a batch, instead of all threads sharing each layer. This is faster in torch, and a core that is busy
reading delays only one part.
"""

from __future__ import annotations

import copy
import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from htsat_sed.detection.ensemble import ClassSelection, Ensemble, Samples
from htsat_sed.errors import HtsatSedError, UsageError
from htsat_sed.model.htsat import HTSAT
from htsat_sed.model.runtime import Execution, Inference

Scores = NDArray[np.float32]

_WINDOWS = {"cpu": 8, "mps": 16, "cuda": 128}  # default batch size; fewer if they do not fit

_logger = logging.getLogger("htsat_sed")


Compute = Callable[[Ensemble, Sequence[Samples]], Tensor]  # such as Ensemble.presence
Launch = Callable[[list[Samples]], Callable[[], Scores]]


class Devices:
    """Distributes batches round-robin over one or several devices.

    Args:
        models: models of the ensemble.
        names: ``auto`` (CUDA, else Apple's MPS, else the CPU), or torch devices, separated by commas.
        batch_size: windows per batch; ``auto`` for a number that suits the device.
        execution: runtime and precision.
        classes: selection of classes.

    Attributes:
        ensembles: one per device.
        batch_size: current batch size; halved whenever a device runs out of memory.
        in_flight: number of batches to start before waiting for the first.

    Raises:
        ValueError: torch cannot use a device, the device does not support `execution`, or the batch size is
            below 1.
    """

    def __init__(
        self,
        models: Sequence[HTSAT],
        names: str,
        batch_size: int | Literal["auto"],
        execution: Execution,
        classes: ClassSelection,
    ) -> None:
        devices = [_device(name.strip()) for name in names.split(",")]
        kind = devices[0].type
        self.batch_size = _WINDOWS.get(kind, 8) if batch_size == "auto" else batch_size
        if self.batch_size < 1:
            raise UsageError(f"wanted batch_size of at least 1, got {batch_size}")
        self.in_flight = len(devices) * (1 if kind == "mps" else 2)
        self.ensembles = [
            Ensemble(
                [
                    # A copy, so that the caller's model keeps its device and mode.
                    Inference(
                        copy.deepcopy(model).to(device).eval(), device, execution, batch_size=self.batch_size
                    )
                    for model in models
                ],
                device,
                classes,
            )
            for device in devices
        ]
        self._turns = cycle(self.ensembles)

    @contextmanager
    def computing(self, compute: Compute) -> Iterator[Launch]:
        """Accept batches; at the end, unfinished ones are dropped.

        A batch that does not fit in the device's memory is computed in halves, as are later ones.

        Args:
            compute: method of the ensemble that computes one result per window.

        Yields:
            A function that starts a non-empty batch on the next device and returns a function that waits for
            the scores. Both raise HtsatSedError if not even one window fits in memory.
        """
        if self.ensembles[0].device.type != "cpu":
            yield lambda windows: self._begin(windows, compute, next(self._turns))
            return
        threads = torch.get_num_threads()
        lanes = math.gcd(threads, self.batch_size)  # equal parts, since sizes affect the last bits
        executor = start_lanes(lanes, threads)

        def launch(windows: list[Samples]) -> Callable[[], Scores]:
            ensemble, size = next(self._turns), -(-len(windows) // lanes)
            if len(windows) < lanes:  # synchronously, with all of torch's threads
                return self._begin(windows, compute, ensemble)
            parts = [windows[i : i + size] for i in range(0, len(windows), size)]
            begun = [executor.submit(self._begin, part, compute, ensemble) for part in parts]
            return lambda: np.concatenate([part.result()() for part in begun])

        try:
            yield launch
        finally:
            executor.shutdown(cancel_futures=True)

    def _begin(self, windows: list[Samples], compute: Compute, ensemble: Ensemble) -> Callable[[], Scores]:
        try:
            with torch.inference_mode():
                return _to_host(compute(ensemble, windows))
        except torch.OutOfMemoryError as error:
            if len(windows) == 1:
                reason = (
                    "has too little memory for a single window: stop other programs that use it, or give "
                    "--device cpu"
                )
                raise HtsatSedError(str(ensemble.device), reason) from error
        # Outside the handler, since the exception keeps intermediate results alive.
        if ensemble.device.type == "cuda":
            torch.cuda.empty_cache()
        half = (len(windows) + 1) // 2
        if half < self.batch_size:
            self.batch_size = half
            _logger.warning(
                "%s has too little memory for a batch of %d windows: continuing with %d",
                ensemble.device,
                len(windows),
                half,
            )
        parts = [self._begin(part, compute, ensemble) for part in (windows[:half], windows[half:])]
        return lambda: np.concatenate([part() for part in parts])


def start_lanes(count: int, threads: int) -> ThreadPoolExecutor:
    """Start threads that compute in parallel, each with its share of torch's threads."""
    with _settling:
        return _lanes(count, threads)


_settling = threading.Lock()  # torch's number of threads is a global setting


def _lanes(count: int, threads: int) -> ThreadPoolExecutor:
    executor = ThreadPoolExecutor(count, "model")
    begun = threading.Barrier(count + 1)

    def begin() -> None:
        torch.get_num_threads()  # otherwise the thread would adopt the global number at its first operation
        torch.set_num_threads(threads // count)
        begun.wait()

    for _ in range(count):
        executor.submit(begin)
    begun.wait()
    torch.set_num_threads(threads)  # also the number for new threads
    return executor


def _to_host(scores: Tensor) -> Callable[[], Scores]:
    """Start to copy scores to the host's memory; return a function that waits for them."""
    if scores.device.type != "cuda":
        found: Scores = scores.float().cpu().numpy()
        return lambda: found
    host = torch.empty(scores.shape, pin_memory=True)
    with torch.cuda.device(scores.device):
        host.copy_(scores, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()

    def wait() -> Scores:
        copied.synchronize()
        return host.numpy()

    return wait


def _device(name: str) -> torch.device:
    if name != "auto":
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise UsageError(f"wanted a device such as cpu, cuda, cuda:1 or mps, got {name!r}") from error
        try:
            torch.zeros(1, device=device).cpu()
        except (RuntimeError, AssertionError, ImportError) as error:
            reason = str(error).splitlines()[0].partition(". ")[0]
            raise UsageError(
                f"wanted a device that torch can use on this machine, got {name!r}: {reason}"
            ) from error
        return device
    return best_device()


def best_device() -> torch.device:
    """Return the best device of this machine: CUDA, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
