"""A recording as a stream of mono float32 blocks at the model's rate, and as windows cut from it.

Rules:

- Channels are averaged. Samples beyond ±1 pass unchanged; those that are no sound at all (NaN,
  infinite, beyond 1e12) count as 0, and one warning says how many and where.
- The duration is that of the frames that were decoded, whatever a header promises. Encoder delay is
  cut where the file declares it; gaps in a container's time stamps are not filled.
- Of a truncated file, what can be decoded is used, and a warning says where it ends.
- Memory does not grow with the length of a recording.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import numpy as np
import soxr
from numpy.typing import NDArray

from htsat_sed.audio.decoders import Coded, Uncompressed, open_decoder
from htsat_sed.errors import AudioError, UsageError

_LOWEST_RATE, _HIGHEST_RATE = 1_000, 768_000
_NO_SOUND = 1e12  # smaller samples keep the energy of a window within float32

_logger = logging.getLogger("htsat_sed")


class AudioStream:
    """A recording that is being read; made by `open_recording`, a context manager.

    Attributes:
        path: as given.
        sample_rate: of the blocks, Hz.
        source_rate: of the recording, Hz.
        channels: of the recording.
        expected_duration: seconds, as the header states or the decoder estimates it; None if neither
            can. For progress bars: only `duration` is sure.
        defect: what is wrong with it though it could be read, such as that it was cut off, once all its
            blocks have been read; None if nothing.
    """

    def __init__(self, path: str, source: Uncompressed | Coded, sample_rate: int, stack: ExitStack) -> None:
        self.path = path
        self.sample_rate = sample_rate
        self.source_rate = source.rate
        self.channels = source.channels
        self.expected_duration = source.expected
        self.defect: str | None = None
        self._source = source
        self._stack = stack
        self._frames = 0
        self._state = "unread"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; `duration` stays."""
        if self._state != "exhausted":
            self._state = "closed"
        self._stack.close()

    @property
    def duration(self) -> float:
        """Seconds: decoded frames / source rate.

        Raises:
            ValueError: not all blocks have been read yet.
        """
        if self._state != "exhausted":
            raise UsageError(f"the duration of {self.path} is known when all its blocks have been read")
        return self._frames / self.source_rate

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Read the recording, once.

        Yields:
            (samples,) each, mono, at `sample_rate`, of some 5 s or less. Together they have exactly
            round(frames * sample_rate / source_rate) samples, halves upwards.

        Raises:
            AudioError: it cannot be read, holds no audio, or not one finite sample.
            ValueError: it has been read before, or is closed.
        """
        if self._state != "unread":
            raise UsageError(f"wanted an unread recording, but {self.path} is {self._state}: open it again")
        self._state = "being read"
        same = self.source_rate == self.sample_rate
        resampler = None if same else soxr.ResampleStream(self.source_rate, self.sample_rate, 1, quality="HQ")
        yielded = 0
        for block in self._mono():
            self._frames += len(block)
            resampled = block if resampler is None else resampler.resample_chunk(block)
            if len(resampled):
                yielded += len(resampled)
                yield resampled
        if resampler is not None:
            missing = (2 * self._frames * self.sample_rate + self.source_rate) // (
                2 * self.source_rate
            ) - yielded
            tail = resampler.resample_chunk(np.zeros(0, np.float32), last=True)[:missing]
            if missing > 0:
                yield np.pad(tail, (0, missing - len(tail)))
        self._state = "exhausted"

    def _mono(self) -> Iterator[NDArray[np.float32]]:
        """The recording's own samples, mixed to mono; what is wrong with them is reported at the end."""
        frames = samples = silenced = first = 0
        try:
            for channels in self._source.blocks():
                # False for NaN too. The extremes are found several times faster than a mask is made.
                if not (channels.max() < _NO_SOUND and channels.min() > -_NO_SOUND):
                    sound = np.abs(channels) < _NO_SOUND
                    if silenced == 0:
                        first = frames + int(np.argmin(sound.all(axis=0)))
                    silenced += sound.size - int(np.count_nonzero(sound))
                    channels = np.where(sound, channels, np.float32(0))
                frames += channels.shape[1]
                samples += channels.size
                # Row by row: several times faster than a mean along the short axis.
                mono: NDArray[np.float32] = sum(channels[1:], start=channels[0]) / np.float32(len(channels))
                yield mono
        except OSError as error:
            raise AudioError(self.path, f"cannot be read: {error.strerror or error}") from error
        if frames == 0:
            raise AudioError(self.path, "holds no audio: nothing that can be decoded follows its header")
        if silenced == samples:
            raise AudioError(self.path, "holds no audio: all its samples are NaN, infinite or beyond 1e12")
        defects = [self._source.damage, self._cut_off(frames / self.source_rate)]
        if silenced:
            defects.append(
                f"{silenced} of {samples} samples are NaN, infinite or beyond 1e12, the first at "
                f"{first / self.source_rate:.2f} s; they count as 0"
            )
        told = [defect for defect in defects if defect is not None]
        for defect in told:
            _logger.warning("%s: %s", self.path, defect)
        self.defect = "; ".join(told) or None

    def _cut_off(self, duration: float) -> str | None:
        promised, reason = self._source.promised, self._source.ending
        if promised is not None:
            if duration >= promised - self._source.tolerance:
                return None
            reason = f"its header promises {promised:.2f} s"
        return None if reason is None else f"truncated, it ends at {duration:.2f} s: {reason}"


@dataclass(frozen=True, eq=False)
class Window:
    """A stretch of a recording.

    Attributes:
        start: sample of the recording at which it begins.
        samples: (n,) float32, n at most the window's length; fewer only where the recording ends.
    """

    start: int
    samples: NDArray[np.float32]


def open_recording(path: str | os.PathLike[str], sample_rate: int) -> AudioStream:
    """Open a recording of any format, channel count and rate.

    Args:
        path: a file, or ``-`` for standard input, which is kept in a temporary file meanwhile.
        sample_rate: wanted rate, Hz, 1000 to 768000.

    Returns:
        A stream to be used in a ``with`` statement.

    Raises:
        AudioError: missing, not readable, not a regular file, empty, not audio, or without audio stream.
        ValueError: the rate is out of range.
    """
    if not _LOWEST_RATE <= sample_rate <= _HIGHEST_RATE:
        raise UsageError(
            f"wanted a sample rate of {_LOWEST_RATE} to {_HIGHEST_RATE} Hz, got {sample_rate}: "
            "HTS-AT models take 32000 or 16000"
        )
    with ExitStack() as stack:
        source = open_source(path, stack)
        return AudioStream(os.fspath(path), source, sample_rate, stack.pop_all())
    raise AssertionError("an ExitStack without exit callbacks that return true suppresses nothing")


def open_source(path: str | os.PathLike[str], stack: ExitStack) -> Uncompressed | Coded:
    """Open a recording at its own rate and with its own channels.

    Args:
        path: see `open_recording`.
        stack: gets what has to be closed.

    Raises:
        AudioError: see `open_recording`.
    """
    name = os.fspath(path)
    try:
        file = stack.enter_context(_open_stdin(stack) if name == "-" else _open_regular(name))
        source = open_decoder(name, file, stack)
    except OSError as error:
        raise AudioError(name, f"cannot be opened: {error.strerror or error}") from error
    if not _LOWEST_RATE <= source.rate <= _HIGHEST_RATE:
        raise AudioError(
            name,
            f"has a sample rate of {source.rate} Hz, wanted {_LOWEST_RATE} to {_HIGHEST_RATE} Hz: mend its "
            "header, or resample it",
        )
    return source


def windows(stream: AudioStream, *, window: int, hop: int) -> Iterator[Window]:
    """Cut a recording into windows.

    Args:
        stream: not read yet.
        window: samples a window.
        hop: samples between the starts of two windows, 1 to `window`.

    Yields:
        1 + ceil(max(0, n - window) / hop) windows for n samples, in order: none of them only repeats
        what the one before reached, and the last may be shorter.

    Raises:
        AudioError: see `AudioStream.blocks`.
        ValueError: `hop` is out of range.
    """
    if not 1 <= hop <= window:
        raise UsageError(f"wanted a hop of 1 to {window} samples (the window), got {hop}")
    pending = np.zeros(0, np.float32)
    start = reached = 0
    for block in stream.blocks():
        pending = np.concatenate([pending, block])
        while len(pending) >= window:
            yield Window(start, pending[:window].copy())
            reached = start + window
            start += hop
            pending = pending[hop:]
    if reached == 0 or start + len(pending) > reached:
        yield Window(start, pending)


def read(path: str | os.PathLike[str], sample_rate: int) -> NDArray[np.float32]:
    """Read a whole recording into memory.

    Args:
        path: see `open_recording`.
        sample_rate: wanted rate, Hz.

    Returns:
        (samples,) mono.

    Raises:
        AudioError: see `open_recording` and `AudioStream.blocks`.
    """
    with open_recording(path, sample_rate) as stream:
        return np.concatenate([np.zeros(0, np.float32), *stream.blocks()])


def _open_regular(name: str) -> io.BufferedReader:
    mode = Path(name).stat().st_mode
    if stat.S_ISDIR(mode):
        raise AudioError(name, "is a folder: wanted a recording")
    if not stat.S_ISREG(mode):
        # A FIFO without a writer would never open, and no decoder can seek in one.
        raise AudioError(name, "is not a regular file: pipe the recording in and give - as its path")
    return Path(name).open("rb")


def _open_stdin(stack: ExitStack) -> io.BufferedReader:
    """Keep standard input in a file, since decoders seek."""
    if sys.stdin is None or sys.stdin.isatty():
        raise AudioError("-", "standard input is closed or a terminal: pipe a recording in")
    kept = Path(stack.enter_context(TemporaryDirectory(prefix="htsat-sed-"))) / "stdin"
    # Past the buffer, whose lock a thread that still waits for input would hold when the program ends.
    source = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    with kept.open("wb") as file:
        shutil.copyfileobj(source, file)
    return kept.open("rb")
