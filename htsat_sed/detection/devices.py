"""Where batches are computed: one device or several, each with its own ensemble of the models.

A batch is only begun; whoever wants the scores waits for them. On CUDA its copy to the device, the model and
the copy back wait in the device's queue while the next batch is put together. On a CPU threads that hardly
wait for each other compute equal parts of it, instead of all threads every single layer: torch is faster by
that, and a core that a reader takes for a while holds up one part and not all.
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

_WINDOWS = {"cpu": 8, "mps": 16, "cuda": 128}  # of a batch, where nobody says; fewer if they do not fit

_logger = logging.getLogger("htsat_sed")


Compute = Callable[[Ensemble, Sequence[Samples]], Tensor]  # such as Ensemble.presence
Launch = Callable[[list[Samples]], Callable[[], Scores]]


class Devices:
    """Deals batches round-robin to one or several devices.

    Args:
        models: of an ensemble.
        names: ``auto`` (CUDA, else Apple's MPS, else the CPU), or names that torch knows, with commas
            between several.
        batch_size: windows of a batch; ``auto`` for a number that suits the device.
        execution: how the models are computed.
        classes: what becomes of their scores.

    Attributes:
        ensembles: one a device.
        batch_size: as of now; halved whenever a device runs out of memory.
        in_flight: batches to begin before the scores of the first are asked for.

    Raises:
        ValueError: torch cannot use a device here, it cannot do what `execution` says, or the batch size
            is below 1.
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
                    # A copy: the caller's model stays where it is, in the mode that it is in.
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
        """Be ready for batches; at the end, those that are begun are dropped.

        A batch that does not fit into the device's memory is repeated in halves, and those after it are
        halved from the start.

        Args:
            compute: the method of the ensemble that scores windows, one entry each.

        Yields:
            What begins with a batch, not empty, on the device whose turn it is, and returns what waits for
            its scores or raises HtsatSedError: not even one window fits.
        """
        if self.ensembles[0].device.type != "cpu":
            yield lambda windows: self._begin(windows, compute, next(self._turns))
            return
        threads = torch.get_num_threads()
        lanes = math.gcd(threads, self.batch_size)  # parts of one size: another shows in the last bits
        executor = _lanes(lanes, threads)

        def launch(windows: list[Samples]) -> Callable[[], Scores]:
            ensemble, size = next(self._turns), -(-len(windows) // lanes)
            if len(windows) < lanes:  # here and now, with all of torch's threads
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
                reason = "has no memory for a single window: end other programs on it, or choose --device cpu"
                raise HtsatSedError(str(ensemble.device), reason) from error
        # Only now: the error held on to what had been computed.
        if ensemble.device.type == "cuda":
            torch.cuda.empty_cache()
        half = (len(windows) + 1) // 2
        if half < self.batch_size:
            self.batch_size = half
            _logger.warning(
                "%s has no memory for a batch of %d windows: going on with %d",
                ensemble.device,
                len(windows),
                half,
            )
        parts = [self._begin(part, compute, ensemble) for part in (windows[:half], windows[half:])]
        return lambda: np.concatenate([part() for part in parts])


def _lanes(count: int, threads: int) -> ThreadPoolExecutor:
    """Threads that compute side by side, each with its share of torch's threads."""
    with _settling:
        return _settled_lanes(count, threads)


_settling = threading.Lock()  # the number of threads is one setting for all of them


def _settled_lanes(count: int, threads: int) -> ThreadPoolExecutor:
    executor = ThreadPoolExecutor(count, "model")
    begun = threading.Barrier(count + 1)

    def begin() -> None:
        torch.get_num_threads()  # or the thread would take the number for all threads at its first operation
        torch.set_num_threads(threads // count)
        begun.wait()

    for _ in range(count):
        executor.submit(begin)
    begun.wait()
    torch.set_num_threads(threads)  # it is also what threads to come will have
    return executor


def _to_host(scores: Tensor) -> Callable[[], Scores]:
    """Begin to copy scores to memory; the result waits for it."""
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
            raise UsageError(f"wanted a device that torch can use here, got {name!r}: {reason}") from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
