"""Cuts a recording into clips in one pass, at its own sample rate and bit depth.

A clip has the recording's channels and, by default, its sample rate. It begins at sample round(onset · rate)
of the recording, so overlapping clips have equal samples. WAV keeps samples of 8, 16 or 24 bits and 32-bit
floats; integers and floats of more bits become 32-bit floats. FLAC does the same, except that floats become
24-bit integers, limited to ±1. Samples decoded from lossy formats (MP3, M4A, Opus, ...) are rounded to 16
bits.

Memory does not grow with the duration of recording or clip. The reader seeks in uncompressed recordings only.
Others are decoded from the start to the end of the last clip, since a seek does not land on a known sample.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self, get_args

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from htsat_sed.audio import check_channel, check_choice, open_source
from htsat_sed.audio.source import Source
from htsat_sed.audio.time_limit import WatchedCalls, readers_errors
from htsat_sed.audio.uncompressed import Seekable
from htsat_sed.detection.events import Event
from htsat_sed.errors import AudioError, HtsatSedError, UsageError
from htsat_sed.whole_file import whole_file, why_not_written

ClipFormat = Literal["wav", "flac"]

_LOWEST_RATE, _HIGHEST_RATE = 1_000, 768_000
_BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24}
_AS_FLAC = {"PCM_U8": "PCM_S8", "FLOAT": "PCM_24"}
_FLAC_CHANNELS = 8
_MOST_OPEN = 100  # open files; systems allow 256 or more
_NEVER = float(1 << 60)  # sample number beyond any recording
_END_TOLERANCE = 0.01  # seconds by which rounded offsets may exceed the duration

_logger = logging.getLogger("htsat_sed")


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """How clips are cut.

    Attributes:
        before: seconds of sound before the event; fewer at the start of the recording.
        after: seconds of sound after the event; fewer at the end of the recording.
        format: file format.
        sample_rate: sample rate of the clips, Hz; None for the recording's own.
        channel: only this channel, from 1; None for all.
        track: this audio track, from 1; None for the first.
    """

    before: float = 0.0
    after: float = 0.0
    format: ClipFormat = "wav"
    sample_rate: int | None = None
    channel: int | None = None
    track: int | None = None

    def __post_init__(self) -> None:
        check_choice(self.channel, self.track)
        for name, value in (("before", self.before), ("after", self.after)):
            if not 0.0 <= value < float("inf"):
                raise UsageError(f"wanted padding of 0 s or more, got {value:g} s {name} the event")
        if self.format not in get_args(ClipFormat):
            raise UsageError(f"wanted clips as {' or '.join(get_args(ClipFormat))}, got {self.format!r}")
        if self.sample_rate is not None and not _LOWEST_RATE <= self.sample_rate <= _HIGHEST_RATE:
            raise UsageError(
                f"wanted a sample rate of {_LOWEST_RATE} to {_HIGHEST_RATE} Hz, got {self.sample_rate}"
            )


class Bounds(NamedTuple):
    """Onset and offset of a clip in its recording, seconds."""

    onset: float
    offset: float


class _Span(NamedTuple):
    """A planned clip: samples `first` to `last` (exclusive) of the recording."""

    first: int
    last: int
    event: Event
    target: Path


def cut_recording(path: Path, clips: Iterable[tuple[Event, Path]], how: ClipSettings) -> dict[Path, Bounds]:
    """Write clips of one recording, each file whole or not at all.

    Args:
        path: the recording.
        clips: events with their target files, in existing folders.
        how: padding, format and rate.

    Returns:
        The files written, with their bounds in the recording. Events that begin at or after the end of the
        recording have no clip; events that extend past the end are truncated; warnings count both.

    Raises:
        AudioError: the recording cannot be read; finished clips remain.
        HtsatSedError: a clip cannot be written.
    """
    written: dict[Path, Bounds] = {}
    waiting = list(clips)
    while waiting:
        waiting = _one_pass(path, waiting, how, written)
    return written


def _one_pass(
    path: Path, clips: list[tuple[Event, Path]], how: ClipSettings, written: dict[Path, Bounds]
) -> list[tuple[Event, Path]]:
    """Write clips in one pass; return those left because too many files would be open."""
    put_off: list[tuple[Event, Path]] = []
    with ExitStack() as stack:
        decoder = WatchedCalls(os.fspath(path))
        stack.callback(decoder.close)
        source = decoder.call(lambda: open_source(path, decoder.stack, track=how.track, beat=decoder.beat))
        check_channel(path, source.channels, how.channel)
        channels = source.channels if how.channel is None else 1
        if how.format == "flac" and channels > _FLAC_CHANNELS:
            raise AudioError(
                path, f"has {channels} channels, FLAC holds at most {_FLAC_CHANNELS}: use --format wav"
            )
        coming = deque(sorted(_span(event, target, source.rate, how) for event, target in clips))
        writing: list[_Clip] = []
        position = 0
        blocks = _blocks(path, source, how.channel)
        while coming or writing:
            if not writing and isinstance(source, Seekable):
                position += decoder.call(partial(source.leave_out, coming[0].first - position))
            block = decoder.call(lambda: next(blocks, None))
            if block is None:
                break
            start, position = position, position + block.shape[1]
            while coming and coming[0].first < position:
                span = coming.popleft()
                if len(writing) < _MOST_OPEN:
                    writing.append(stack.enter_context(_Clip(span, source, channels, how)))
                else:
                    put_off.append((span.event, span.target))
            for clip in writing:
                clip.write(block, start)
                if clip.span.last <= position:
                    written[clip.span.target] = clip.finish()
            writing = [clip for clip in writing if clip.span.last > position]
        duration = position / source.rate
        begun = [clip for clip in writing if clip.span.event.onset < duration]
        for clip in begun:
            written[clip.span.target] = clip.finish()
    without = len(coming) + len(writing) - len(begun)
    short = sum(clip.span.event.offset > duration + _END_TOLERANCE for clip in begun)
    if without:
        _logger.warning(
            "%s: %s after its end at %.2f s: no clip", path, _counted(without, "begins", "begin"), duration
        )
    if short:
        _logger.warning(
            "%s: %s past its end at %.2f s: cut there", path, _counted(short, "reaches", "reach"), duration
        )
    return put_off


def _counted(count: int, one: str, many: str) -> str:
    return f"1 event {one}" if count == 1 else f"{count} events {many}"


def _span(event: Event, target: Path, rate: int, how: ClipSettings) -> _Span:
    first = max(0, round(min((event.onset - how.before) * rate, _NEVER)))
    last = max(first + 1, round(min((event.offset + how.after) * rate, _NEVER)))
    return _Span(first, last, event, target)


def _blocks(path: Path, source: Source, channel: int | None) -> Iterator[NDArray[np.float32]]:
    with readers_errors(os.fspath(path), "read"):
        for block in source.samples():
            yield block if channel is None else block[channel - 1 : channel]


class _Unfinished(Exception):
    """Raised through `whole_file` to discard the file."""


class _Clip:
    """A clip being written; without a call of `finish` no file appears."""

    def __init__(self, span: _Span, source: Source, channels: int, how: ClipSettings) -> None:
        self.span = span
        self._rate, self._clip_rate = source.rate, how.sample_rate or source.rate
        self._end = span.first
        self._made = 0
        subtype = source.subtype if how.format == "wav" else _AS_FLAC.get(source.subtype, source.subtype)
        self._bits = _BITS.get(subtype)
        self._resampler = (
            None
            if self._clip_rate == self._rate
            else soxr.ResampleStream(self._rate, self._clip_rate, channels, quality="HQ")
        )
        with ExitStack() as stack:
            file = stack.enter_context(whole_file(span.target, "wb"))
            with self._errors():
                self._sound = stack.enter_context(
                    soundfile.SoundFile(
                        os.fsencode(file.name) if os.name != "nt" else file.name,
                        "w",
                        samplerate=self._clip_rate,
                        channels=channels,
                        format=how.format.upper(),
                        subtype=subtype,
                    )
                )
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(_Unfinished, _Unfinished(), None)

    def write(self, block: NDArray[np.float32], start: int) -> None:
        """Write the clip's part of a block (channels, n) that begins at sample `start`."""
        own = block[:, max(0, self.span.first - start) : max(0, self.span.last - start)].T
        self._end += len(own)
        self._put(
            own if self._resampler is None else self._resampler.resample_chunk(np.ascontiguousarray(own))
        )

    def finish(self) -> Bounds:
        """Complete the file; return the bounds of the clip in the recording."""
        if self._resampler is not None:
            length = self._end - self.span.first
            missing = (2 * length * self._clip_rate + self._rate) // (2 * self._rate) - self._made
            tail = self._resampler.resample_chunk(np.zeros((0, self._sound.channels), np.float32), last=True)
            self._put(np.pad(tail[:missing], ((0, max(0, missing - len(tail))), (0, 0))))
        with self._errors():
            self._sound.close()
        self._stack.close()
        return Bounds(self.span.first / self._rate, self._end / self._rate)

    def _put(self, samples: NDArray[np.float32]) -> None:
        """Write (n, channels)."""
        self._made += len(samples)
        with self._errors():
            self._sound.write(samples if self._bits is None else _integers(samples, self._bits))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except soundfile.LibsndfileError as error:
            reason = why_not_written(self.span.target.parent) or error.error_string
            raise HtsatSedError(self.span.target, f"cannot be written: {reason}") from error


def _integers(samples: NDArray[np.float32], bits: int) -> NDArray[np.int32]:
    """Round to integers of `bits` bits, left-justified in 32; such integers round-trip exactly."""
    full = float(1 << (bits - 1))
    finite = np.nan_to_num(samples.astype(np.float64), nan=0.0) * full
    return np.clip(np.rint(finite), -full, full - 1).astype(np.int32) << (32 - bits)
