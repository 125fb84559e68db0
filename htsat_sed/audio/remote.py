"""Streams that FFmpeg reads from an address or a device; interruptions are filled with silence."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import av
import numpy as np

from htsat_sed.audio.coded import PATIENCE, Decoding, Piece, audio_decoders, open_container
from htsat_sed.errors import AudioError

_LATEST = 0.1  # seconds of audio in a block
_STEP = 0.5  # seconds of silence in a block while there is no connection
_LONGEST_WAIT = 30.0  # seconds between two attempts
_SHORT = 1.0  # seconds by which a complete stream may miss its stated length

_logger = logging.getLogger("htsat_sed")
Gap = Callable[[float, float], None]


class Remote(Decoding):
    """A stream from an address such as ``http://host/stream`` or ``rtsp://camera``, or a device.

    After an interruption the stream is opened again, after 0, 0.5, 1, 2, ... and at most 30 s. Silence is
    inserted meanwhile, so that times follow the clock. A stream of stated length ends after that length.

    Args:
        address: address in FFmpeg's notation.
        stack: closes the stream.
        kind: FFmpeg's name of the format or device, such as ``alsa``; None to detect it.
        track: index of the audio track.
        reconnect: whether to open it again.
        gap: called after an interruption with its start in the stream and its duration, both in seconds.

    Raises:
        AudioError: it cannot be opened.
    """

    def __init__(
        self,
        address: str,
        stack: ExitStack,
        *,
        kind: str | None = None,
        track: int = 0,
        reconnect: bool = True,
        gap: Gap = lambda at, seconds: None,
    ) -> None:
        super().__init__(address, stack, track)
        self._kind, self._reconnect, self._gap = kind, reconnect, gap
        try:
            self._open()
            self._take_first(self._pieces())
        except av.FFmpegError as error:
            raise AudioError(address, f"cannot be opened: {_reason(error)}") from error
        stack.callback(lambda: self._container.close())

    def _open(self) -> None:
        container = open_container(
            self._path,
            format=self._kind,
            options={"codec_whitelist": audio_decoders()},
            timeout=(PATIENCE, PATIENCE),
        )
        try:
            self._attach(container)
        except AudioError:
            container.close()
            raise

    def _pieces(self) -> Iterator[Piece]:
        while True:
            before = self._position
            yield from self._decode()
            if not self._reconnect or self._is_over(self._position - before):
                return
            self.ending = None
            yield from self._bridge()

    def _is_over(self, seconds: float) -> bool:
        length = self._stated_length()
        return length is not None and seconds >= length - _SHORT

    def _bridge(self) -> Iterator[Piece]:
        """Silence until the stream is open again."""
        at, lost, wait = self._position, time.monotonic(), 0.0
        self._container.close()
        _logger.warning("%s: interrupted at %.2f s, reconnecting", self._path, at)
        while True:
            until = time.monotonic() + wait
            while (left := until - time.monotonic()) > 0:
                time.sleep(min(left, _STEP))
                yield from self._caught_up(at, lost)
            try:
                self._open()
                break
            except (av.FFmpegError, AudioError, OSError) as error:
                if not wait:
                    _logger.warning("%s: %s, trying again", self._path, _reason(error))
                wait = min(_LONGEST_WAIT, max(0.5, 2 * wait))
        yield from self._caught_up(at, lost)
        self._link_begin = self._position
        _logger.warning("%s: reconnected after %.2f s of silence", self._path, self._position - at)
        self._gap(at, self._position - at)

    def _caught_up(self, at: float, lost: float) -> Iterator[Piece]:
        """Silence for the time since the connection was lost."""
        missing = round((time.monotonic() - lost - (self._position - at)) * self.rate)
        while missing > 0:
            frames = min(missing, round(_STEP * self.rate))
            self._position += frames / self.rate
            missing -= frames
            yield self.rate, np.zeros((self.channels, frames), np.float32)

    def _block_frames(self) -> int:
        return max(1, round(_LATEST * self.rate))


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or getattr(error, "reason", None) or error)
