"""Recordings as streams of mono float32 blocks at the model's sample rate, and as windows.

Rules:

- Channels are averaged, or one of them is used. A warning reports channels that cancel when averaged.
- Samples beyond ±1 pass unchanged. Invalid samples (NaN, infinite, beyond 1e12) count as 0, and one warning
  counts them. Floats on the scale of integers are divided by its full scale.
- Times are those of the container: silence is inserted before late audio and in gaps.
- The duration is that of the decoded frames, regardless of the header. Encoder delay is removed if the file
  declares it.
- The readable part of a truncated file is used, and a warning reports where it ends.
- Memory does not grow with the length of a recording.
- Exceptions of a decoder, and decoders that yield nothing for 20 s, raise AudioError.
"""

from __future__ import annotations

import io
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from htsat_sed.audio.decoders import open_decoder
from htsat_sed.audio.forward import Pipe, keep, open_forward, standard_input
from htsat_sed.audio.memory import InMemory
from htsat_sed.audio.mixing import Mixer
from htsat_sed.audio.resampling import resampled
from htsat_sed.audio.source import Source
from htsat_sed.audio.time_limit import Unwatched, Watched, readers_errors
from htsat_sed.errors import AudioError, UsageError
from htsat_sed.remote import RemoteError, fetched, is_remote

_LOWEST_RATE, _HIGHEST_RATE = 1_000, 768_000

_logger = logging.getLogger("htsat_sed")


class AudioStream:
    """An open recording, returned by `open_recording`; a context manager.

    Attributes:
        path: as given.
        sample_rate: sample rate of the blocks, Hz.
        source_rate: sample rate of the recording, Hz.
        channels: number of channels of the recording.
        expected_duration: duration in seconds stated in the header or estimated by the decoder, for progress
            bars; None if unknown.
        comes: whether it is read from a pipe.
        defect: damage of a recording that was read nevertheless, such as truncation; known after all blocks
            have been read; None if there is none.
    """

    def __init__(
        self,
        path: str,
        watched: Watched | Unwatched,
        sample_rate: int,
        channel: int | None,
        stack: ExitStack,
    ) -> None:
        source = watched.source
        self.path = path
        self.sample_rate = sample_rate
        self.source_rate = source.rate
        self.channels = source.channels
        self.expected_duration = source.expected
        self.comes = isinstance(watched, Unwatched)
        self.defect: str | None = None
        self._source = source
        self._channel = channel
        self._watched = watched
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
        """Close the file; `duration` remains available."""
        if self._state != "exhausted":
            self._state = "closed"
        self._stack.close()

    @property
    def duration(self) -> float:
        """Duration in seconds: decoded frames / `source_rate`.

        Raises:
            UsageError: not all blocks have been read yet.
        """
        if self._state != "exhausted":
            raise UsageError(f"the duration of {self.path} is known only after all its blocks have been read")
        return self._frames / self.source_rate

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Read the recording, once.

        Yields:
            Mono blocks (samples,) at `sample_rate`, of about 5 s or less, with
            round(frames * sample_rate / source_rate) samples in total, halves upwards.

        Raises:
            AudioError: it cannot be read, or contains no audio or no valid sample.
            UsageError: it was read before, or is closed.
        """
        if self._state != "unread":
            raise UsageError(f"wanted an unread recording, but {self.path} is {self._state}: open it again")
        self._state = "being read"
        mono = (block[None] for block in self._mono())
        for block in resampled(mono, self.source_rate, self.sample_rate):
            yield block[0]
        self._state = "exhausted"

    def _mono(self) -> Iterator[NDArray[np.float32]]:
        """The recording's own samples, mixed to mono; damage is reported at the end."""
        mixer = Mixer(self.source_rate, self._channel)
        for channels in self._watched.blocks():
            if channels.size:
                self._frames += channels.shape[1]
                yield mixer.mono(channels)
        if self._frames == 0:
            raise AudioError(self.path, "holds no audio: nothing that can be decoded follows its header")
        if mixer.nothing_sounds:
            raise AudioError(self.path, "holds no audio: all its samples are NaN, infinite or beyond 1e12")
        duration = self._frames / self.source_rate
        defects = [*self._source.damage, self._cut_off(duration), *mixer.defects()]
        defects.append(self._watched.silent_track)
        reported = [defect for defect in defects if defect is not None]
        for defect in reported:
            _logger.warning("%s: %s", self.path, defect)
        self.defect = "; ".join(reported) or None

    def _cut_off(self, duration: float) -> str | None:
        promised, reason = self._source.promised, self._source.ending
        if promised is not None:
            if duration >= promised - self._source.tolerance:
                return None
            reason = f"its header promises {promised:.2f} s"
        return None if reason is None else f"truncated, it ends at {duration:.2f} s: {reason}"


@dataclass(frozen=True)
class OneChannel(os.PathLike[str]):
    """One channel of a recording, to be used like a path.

    Attributes:
        path: path of the recording.
        channel: channel, from 1.
    """

    path: str | os.PathLike[str]
    channel: int

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, eq=False)
class Window:
    """A window of a recording.

    Attributes:
        start: first sample in the recording.
        samples: (n,) float32; shorter than a window only at the end of the recording.
    """

    start: int
    samples: NDArray[np.float32]


def open_recording(
    path: str | os.PathLike[str],
    sample_rate: int,
    *,
    channel: int | None = None,
    track: int | None = None,
) -> AudioStream:
    """Open a recording of any format, channel count and rate.

    Args:
        path: a file, or `OneChannel` of it, which overrides `channel`; or ``-`` for standard input, which is
            copied to a temporary file if it cannot be read forward.
        sample_rate: sample rate of the blocks, Hz, 1000 to 768000.
        channel: only this channel, from 1; None for the mean of all.
        track: this audio track, from 1, of a file with several; None for the first, with a warning if it is
            silent and another is not.

    Returns:
        A stream for a ``with`` statement.

    Raises:
        AudioError: missing, not readable, not a regular file, empty, not audio, or without such an audio
            track or channel.
        UsageError: the rate, channel or track is out of range.
    """
    if not _LOWEST_RATE <= sample_rate <= _HIGHEST_RATE:
        raise UsageError(
            f"wanted a sample rate of {_LOWEST_RATE} to {_HIGHEST_RATE} Hz, got {sample_rate}: "
            "HTS-AT models take 32000 or 16000"
        )
    if isinstance(path, OneChannel):
        channel, path = path.channel, path.path
    check_choice(channel, track)
    name = os.fspath(path)
    with ExitStack() as stack:
        file = path.keep(stack) if isinstance(path, InMemory) else None
        watched: Watched | Unwatched | None = None
        if name == "-":
            source = _open_stdin(stack, track)
            if isinstance(source, Source):
                watched = Unwatched(name, source)  # it has no time limit
            else:
                file = source
        watched = watched or Watched(
            name,
            lambda own, beat: _open_source(name, file or Path(name), own, track, beat),
            search=track is None,
        )
        stack.callback(watched.close)
        check_channel(name, watched.source.channels, channel)
        return AudioStream(name, watched, sample_rate, channel, stack.pop_all())
    raise AssertionError("an ExitStack without exit callbacks that return true suppresses nothing")


def stream_of(source: Source, name: str, sample_rate: int, *, channel: int | None = None) -> AudioStream:
    """A source without a time limit, such as a microphone, as a stream; the caller closes the source.

    Raises:
        AudioError: it lacks the channel, or its sample rate is out of range.
    """
    _check_rate(name, source)
    check_channel(name, source.channels, channel)
    return AudioStream(name, Unwatched(name, source), sample_rate, channel, ExitStack())


def check_choice(channel: int | None, track: int | None) -> None:
    """Check the numbers of a channel and an audio track.

    Raises:
        UsageError: one is less than 1.
    """
    for name, number in (("channel", channel), ("track", track)):
        if number is not None and number < 1:
            raise UsageError(f"wanted a {name} of 1 or more, got {number}")


def check_channel(path: str | os.PathLike[str], channels: int, channel: int | None) -> None:
    """Check that a recording has a channel.

    Raises:
        AudioError: it has fewer channels.
    """
    if channel is not None and channel > channels:
        count = "1 channel" if channels == 1 else f"{channels} channels"
        raise AudioError(path, f"has {count}, no channel {channel}")


def open_source(
    path: str | os.PathLike[str],
    stack: ExitStack,
    *,
    track: int | None = None,
    beat: Callable[[], None] = lambda: None,
) -> Source:
    """Open a recording at its own sample rate and with its own channels.

    Args:
        path: see `open_recording`.
        stack: closes the recording.
        track: see `open_recording`.
        beat: called during a long search.

    Raises:
        AudioError: see `open_recording`.
    """
    name = os.fspath(path)
    return _open_source(name, _keep_stdin(stack) if name == "-" else Path(name), stack, track, beat)


def _open_stdin(stack: ExitStack, track: int | None) -> Source | Path:
    """Standard input, or a temporary copy if it cannot be read forward."""
    with readers_errors("-", "read"):
        source = open_forward(Pipe(standard_input()), stack, track=0 if track is None else track - 1)
        if isinstance(source, Source):
            source.track = 0 if track is None else track - 1
            _check_rate("-", source)
        return source


def _open_source(
    name: str, path: Path, stack: ExitStack, track: int | None, beat: Callable[[], None] = lambda: None
) -> Source:
    if path == Path(name) and is_remote(name):
        path = stack.enter_context(_fetched(name, beat))
    with readers_errors(name, "opened"):
        file = stack.enter_context(_open_regular(name, path, beat))
        source = open_decoder(name, file, stack, track=0 if track is None else track - 1)
    _check_rate(name, source)
    return source


@contextmanager
def _fetched(address: str, beat: Callable[[], None]) -> Iterator[Path]:
    """A local copy of a remote recording; errors are converted to AudioError."""
    try:
        with fetched(address, beat) as copy:
            yield copy
    except RemoteError as error:
        raise AudioError(error.path, error.reason) from error


def _check_rate(name: str, source: Source) -> None:
    if not _LOWEST_RATE <= source.rate <= _HIGHEST_RATE:
        raise AudioError(
            name,
            f"has a sample rate of {source.rate} Hz, wanted {_LOWEST_RATE} to {_HIGHEST_RATE} Hz: correct "
            "its header, or resample it",
        )


def windows(stream: AudioStream, *, window: int, hop: int) -> Iterator[Window]:
    """Cut a recording into windows.

    Args:
        stream: an unread stream.
        window: samples in a window.
        hop: samples between the starts of two windows, 1 to `window`.

    Yields:
        1 + ceil(max(0, n - window) / hop) windows for n samples, in order. Each has new samples, and the last
        may be shorter.

    Raises:
        AudioError: see `AudioStream.blocks`.
        ValueError: `hop` is out of range.
    """
    return cut(stream.blocks(), window=window, hop=hop)


def cut(blocks: Iterable[NDArray[np.float32]], *, window: int, hop: int) -> Iterator[Window]:
    """Cut blocks of samples into windows; see `windows`."""
    if not 1 <= hop <= window:
        raise UsageError(f"wanted a hop of 1 to {window} samples (the window), got {hop}")
    pending = np.zeros(0, np.float32)
    start = reached = 0
    for block in blocks:
        pending = np.concatenate([pending, block])
        while len(pending) >= window:
            yield Window(start, pending[:window].copy())
            reached = start + window
            start += hop
            pending = pending[hop:]
    if reached == 0 or start + len(pending) > reached:
        yield Window(start, pending)


def read(
    path: str | os.PathLike[str], sample_rate: int, *, channel: int | None = None, track: int | None = None
) -> NDArray[np.float32]:
    """Read a whole recording into memory.

    Args:
        path: see `open_recording`.
        sample_rate: sample rate, Hz.
        channel: see `open_recording`.
        track: see `open_recording`.

    Returns:
        (samples,) mono.

    Raises:
        AudioError: see `open_recording` and `AudioStream.blocks`.
    """
    with open_recording(path, sample_rate, channel=channel, track=track) as stream:
        return np.concatenate([np.zeros(0, np.float32), *stream.blocks()])


class _Beating(io.FileIO):
    """A file that calls `beat` at every read, to report progress of long searches."""

    def __init__(self, path: Path, beat: Callable[[], None]) -> None:
        super().__init__(os.fspath(path), "rb")
        self._beat = beat

    def readinto(self, buffer: Any, /) -> int:
        self._beat()
        return super().readinto(buffer)


def _open_regular(name: str, path: Path, beat: Callable[[], None]) -> io.BufferedReader:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise AudioError(name, "is a folder: name a recording")
    if not stat.S_ISREG(mode):
        # A FIFO without a writer would never open, and no decoder can seek in one.
        raise AudioError(name, "is not a regular file: pipe the recording in and give - as its path")
    return io.BufferedReader(_Beating(path, beat))


def _keep_stdin(stack: ExitStack) -> Path:
    """Copy standard input to a temporary file, for seeking."""
    return keep(Pipe(standard_input()), stack)
