"""Sources of a live stream."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from htsat_sed.audio import AudioStream, check_choice, open_recording, stream_of
from htsat_sed.audio.forward import Pipe, open_forward, standard_input
from htsat_sed.audio.headers import Layout
from htsat_sed.audio.remote import Remote
from htsat_sed.audio.time_limit import readers_errors
from htsat_sed.errors import AudioError, UsageError

_KINDS = {"u8": "PCM_U8", "s8": "PCM_S8", "alaw": "ALAW", "mulaw": "ULAW"}
_WIDE = {"s16": "PCM_16", "s24": "PCM_24", "s32": "PCM_32", "f32": "FLOAT", "f64": "DOUBLE"}
RAW = (*_KINDS, *(f"{kind}{order}" for kind in _WIDE for order in ("le", "be")))
"""Formats of raw samples, by FFmpeg's names."""


def raw_layout(form: str, rate: int, channels: int) -> Layout:
    """Layout of raw samples, which have no header.

    Raises:
        UsageError: the format is none of `RAW`, or there is no channel.
    """
    if form not in RAW:
        raise UsageError(f"wanted raw samples as one of {', '.join(RAW)}; got {form!r}")
    if channels < 1:
        raise UsageError(f"wanted 1 channel or more, got {channels}")
    return Layout(rate, channels, _KINDS.get(form) or _WIDE[form[:3]], form.endswith("be"))


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The source of a stream and how to open it.

    Attributes:
        source: ``-`` for standard input, the path of a recording or FIFO, or an address or device in FFmpeg's
            notation; None for a microphone.
        device: number or part of the name of a microphone; None for the default input.
        raw: layout of raw samples on standard input or in a FIFO.
        kind: FFmpeg's name of the format or device behind `source`.
        channel: only this one, from 1; None for the mean of all, or the first of a microphone.
        track: this audio track, from 1; None for the first.
        reconnect: whether to open an address or device again after it breaks off.
    """

    source: str | None = None
    device: int | str | None = None
    raw: Layout | None = None
    kind: str | None = None
    channel: int | None = None
    track: int | None = None
    reconnect: bool = True

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: a channel or track is less than 1, or `raw` is set for an address.
        """
        check_choice(self.channel, self.track)
        if self.raw is not None and not self._is_pipe:
            raise UsageError("raw samples come from standard input or a FIFO: give - as the source")

    @property
    def waits(self) -> bool:
        """Whether the sender waits when computing falls behind, as a pipe or a file does."""
        return self._is_pipe or (self.source is not None and Path(self.source).is_file())

    @property
    def _is_pipe(self) -> bool:
        return self.source == "-" or (self.source is not None and Path(self.source).is_fifo())

    def open(self, rate: int, stack: ExitStack, gap: Callable[[float, float], None]) -> AudioStream:
        """Open the source.

        Args:
            rate: sample rate to deliver, Hz.
            stack: closes the source.
            gap: called after an interruption with its start in the stream and its duration, both in seconds.

        Raises:
            AudioError: it cannot be opened.
            UsageError: an optional library is missing.
        """
        source, track = self.source, 0 if self.track is None else self.track - 1
        if source is None:
            from htsat_sed.live.microphone import Microphone

            name = "microphone"
            microphone = Microphone(self.device, stack, channels=self.channel or 1)
            return stream_of(microphone, name, rate, channel=self.channel)
        if self._is_pipe:
            with readers_errors(source, "read"):
                raw = standard_input() if source == "-" else stack.enter_context(io.FileIO(source))
                opened = open_forward(Pipe(raw), stack, track=track, raw=self.raw)
            if not isinstance(opened, Path):
                return stream_of(opened, source, rate, channel=self.channel)
            source = str(opened)
        if Path(source).is_file():
            recording = open_recording(source, rate, channel=self.channel, track=self.track)
            return stack.enter_context(recording)
        if Path(source).is_dir():
            raise AudioError(source, "is a folder: `htsat-sed detect` takes folders")
        remote = Remote(source, stack, kind=self.kind, track=track, reconnect=self.reconnect, gap=gap)
        return stream_of(remote, source, rate, channel=self.channel)
