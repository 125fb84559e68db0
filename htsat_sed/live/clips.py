"""Audio clips of events, cut from a buffer of the latest samples."""

from __future__ import annotations

import logging
import re
from collections import deque
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from htsat_sed.audio.encoding import encoded
from htsat_sed.errors import HtsatSedError
from htsat_sed.whole_file import make_folder, whole_file

_logger = logging.getLogger("htsat_sed")


class Ring:
    """Buffer of the latest samples of a stream.

    Args:
        samples: minimum number to keep.
    """

    def __init__(self, samples: int) -> None:
        self._most = samples
        self._blocks: deque[NDArray[np.float32]] = deque()
        self._held = 0
        self.end = 0  # samples received so far

    def add(self, block: NDArray[np.float32]) -> None:
        """Append the next samples."""
        self._blocks.append(block)
        self._held += len(block)
        self.end += len(block)
        while self._held - len(self._blocks[0]) >= self._most:
            self._held -= len(self._blocks.popleft())

    def between(self, start: int, end: int) -> NDArray[np.float32]:
        """Samples `start` to `end` of the stream, as far as still buffered."""
        first = self.end - self._held
        parts = []
        for block in self._blocks:
            low, high = max(0, start - first), min(len(block), end - first)
            if low < high:
                parts.append(block[low:high])
            first += len(block)
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)


class Clips:
    """Writes clips; a clip that cannot be written is reported, and the stream goes on.

    Args:
        folder: destination; created if missing.
        rate: sample rate, Hz.

    Attributes:
        failed: number of clips that could not be written.

    Raises:
        HtsatSedError: the folder cannot be created.
    """

    def __init__(self, folder: Path, rate: int) -> None:
        make_folder(folder)
        self._folder, self._rate = folder, rate
        self.failed = 0
        self._broken = False

    def write(self, samples: NDArray[np.float32], label: str, begin: datetime) -> Path | None:
        """Write a clip as 16-bit WAV, ``20261128T231502.250_Bark.wav``; None if that fails."""
        name = re.sub(r"[^\w-]+", "_", label)[:80]
        stem = f"{begin:%Y%m%dT%H%M%S}.{begin.microsecond // 1000:03d}_{name}"
        path = self._folder / f"{stem}.wav"
        for number in range(2, 1000):
            if not path.exists():
                break
            path = self._folder / f"{stem}-{number}.wav"
        try:
            with whole_file(path, "wb") as file:
                file.write(encoded(samples, self._rate, format="WAV"))
        except (HtsatSedError, OSError) as error:
            self.failed += 1
            if not self._broken:
                _logger.error("%s; events are reported without clips", error)
            self._broken = True
            return None
        if self._broken:
            _logger.warning("%s: writing clips again; %d are missing", self._folder, self.failed)
        self._broken = False
        return path
