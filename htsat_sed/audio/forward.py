"""Recordings from a pipe, which can only be read forward, without a copy on disk.

Supported are samples with or without a header, and formats that FFmpeg reads forward: FLAC, Ogg, MP3, AAC,
Matroska, MPEG-TS, MP4 with its index at the start. Others, such as MP4 with its index at the end, are copied
to a temporary file.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import av
import numpy as np
from numpy.typing import NDArray

from htsat_sed.audio.coded import (
    LEAST_SHARE,
    LONGEST_PROMISE,
    LOSSY_TOLERANCE,
    MP4,
    STATING,
    Decoding,
    Piece,
    container_options,
    open_container,
)
from htsat_sed.audio.headers import UNCOMPRESSED, Header, Layout, read_header
from htsat_sed.audio.signatures import (
    FLAC_START,
    LONGEST_OGG_PAGE,
    OGG_START,
    has_end_of_stream,
    index_comes_last,
    is_playlist,
    leading_tag,
    stated_mp3_seconds,
)
from htsat_sed.audio.source import TOLERANCE, Source, full_scale
from htsat_sed.audio.uncompressed import Unwrapped
from htsat_sed.errors import AudioError

_PIECE = 1 << 16  # bytes, the buffer size of a pipe
_FIRST, _LONGEST_HEADER = 1 << 12, 1 << 22
_MOST_KEPT = 1 << 26  # maximum number of bytes before a decoder recognises the format
_LATEST = 0.1  # seconds of audio in a block
_TAG = 128  # bytes of an ID3v1 tag
_OGG_HEAD = 27 + 255


class Readable(Protocol):
    """A raw binary file, whose reads return available bytes."""

    def read(self, size: int, /) -> bytes | None:
        """At most `size` bytes; none at the end."""


class Pipe:
    """A byte stream; bytes read so far are kept until `settle`.

    Args:
        raw: source of the bytes.
    """

    def __init__(self, raw: Readable) -> None:
        self._raw = raw
        self._kept: list[bytes] | None = []
        self._held = 0
        self._again = b""

    def peek(self, size: int) -> bytes:
        """The next bytes, without consuming them; fewer only at the end."""
        while len(self._again) < size and (piece := self._next(size)):
            self._again += piece
        return self._again[:size]

    def read(self, size: int = _PIECE) -> bytes:
        """The available bytes, at most `size`; none at the end."""
        if self._again:
            piece, self._again = self._again[:size], self._again[size:]
            return piece
        return self._next(size)

    def skip(self, size: int) -> None:
        """Skip bytes."""
        while size > 0 and (piece := self.read(min(size, _PIECE))):
            size -= len(piece)

    def back(self, piece: bytes) -> None:
        """Push bytes back, to be read next."""
        self._again = piece + self._again

    def settle(self) -> None:
        """Stop keeping bytes."""
        self._kept = None

    def anew(self) -> Iterator[bytes]:
        """All bytes from the start; ends all other reading."""
        assert self._kept is not None
        yield from self._kept
        self._kept = None
        while piece := self._next(_PIECE):
            yield piece

    def _next(self, size: int) -> bytes:
        piece = self._raw.read(size) or b""
        if self._kept is not None:
            self._held += len(piece)
            if self._held > _MOST_KEPT:
                raise AudioError("-", "cannot be read from a pipe: give it as a file")
            self._kept.append(piece)
        return piece


def standard_input() -> Readable:
    """Standard input without Python's buffer, whose lock a waiting thread would hold at exit.

    Raises:
        AudioError: it is closed or a terminal.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise AudioError("-", "standard input is closed or a terminal: pipe a recording into it")
    raw: Readable = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    return raw


def open_forward(pipe: Pipe, stack: ExitStack, *, track: int = 0, raw: Layout | None = None) -> Source | Path:
    """Open a recording from a pipe.

    Args:
        pipe: an unread pipe.
        stack: closes the recording.
        track: index of the audio track.
        raw: layout of samples without a header; None if there is a header.

    Returns:
        The recording, or a temporary copy if it cannot be read forward.

    Raises:
        AudioError: it has no such track.
        OSError: it cannot be read or copied.
    """
    if raw is not None:
        pipe.settle()
        return Flowing(pipe, Header(runs_on=True, layout=raw), raw)
    head = pipe.peek(_FIRST)
    tag = leading_tag(head)
    if head and not is_playlist(head) and not index_comes_last(head):
        if tag:
            pipe.skip(tag)
            head = pipe.peek(_FIRST)
        source = _uncompressed(pipe, head, track) if head[:4] in UNCOMPRESSED else None
        if source is not None:
            return source
        try:
            return Streamed(pipe, head, stack, track)
        except (AudioError, av.FFmpegError):
            pass  # the decoders of files read it or report an error
    return keep(pipe, stack)


def keep(pipe: Pipe, stack: ExitStack) -> Path:
    """Copy a pipe to a temporary file."""
    kept = Path(stack.enter_context(TemporaryDirectory(prefix="htsat-sed-"))) / "stdin"
    with kept.open("wb") as file:
        file.writelines(pipe.anew())
    return kept


def _uncompressed(pipe: Pipe, head: bytes, track: int) -> Source | None:
    """Samples after a header; None if FFmpeg has to read them."""
    size = _FIRST
    while True:
        header = read_header(io.BytesIO(head))
        if header.layout is not None or len(head) < size or size >= _LONGEST_HEADER:
            break
        size *= 4
        head = pipe.peek(size)
    layout = header.layout
    if layout is None or layout.start == 0:
        return None
    if track:
        raise AudioError("-", f"has 1 audio track, no track {track + 1}")
    pipe.skip(layout.start)
    pipe.settle()
    return Flowing(pipe, header, layout)


class Flowing(Unwrapped):
    """Samples of a pipe, up to the length stated in the header or the end."""

    def __init__(self, pipe: Pipe, header: Header, layout: Layout) -> None:
        super().__init__(io.BytesIO(), header, layout)
        self._pipe = pipe
        stated = None if header.runs_on else header.stated_bytes
        self._left = None if stated is None else stated // layout.frame_bytes * layout.frame_bytes
        self.promised = None if stated is None else stated // layout.frame_bytes / layout.rate
        self.expected, self.ending = self.promised, None

    def samples(self) -> Iterator[NDArray[np.float32]]:
        """See `Source`."""
        width = self._layout.frame_bytes
        rest = b""
        while data := self._pipe.read(_PIECE):
            if self._left is not None:
                data = data[: self._left]
                self._left -= len(data)
                if not data:
                    continue  # read the rest, so that the sender does not fail
            data = rest + data
            whole = len(data) // width * width
            rest = data[whole:]
            if whole:
                yield self._decoded(data[:whole])

    def _full_scale(self, block: NDArray[np.float32]) -> Iterator[float | None]:
        yield full_scale(block)


class Streamed(Decoding):
    """A recording that FFmpeg decodes from a pipe.

    Raises:
        AudioError: it is not audio, or without such an audio track.
        av.FFmpegError: it cannot be decoded.
    """

    def __init__(self, pipe: Pipe, head: bytes, stack: ExitStack, track: int) -> None:
        super().__init__("-", stack, track)
        self._pipe, self._passed = pipe, 0
        self._mark = {b"OggS": OGG_START, b"fLaC": FLAC_START}.get(head[:4])
        self._options = {"protocol_whitelist": "data", **container_options()}
        if head[:4] in UNCOMPRESSED:
            self._options["ignore_length"] = "1"
        self._begin()
        stack.callback(lambda: self._container.close())
        self._take_first(self._pieces())
        pipe.settle()
        name, length = self._container.format.name, self._stated_length()
        self.tolerance = TOLERANCE if name == "flac" else LOSSY_TOLERANCE
        if name == "mp3" and self._first_packet is not None:
            length = stated_mp3_seconds(io.BytesIO(head), self._first_packet)
        if name in (*STATING, MP4, "mp3") and length is not None and 0.0 < length < LONGEST_PROMISE:
            self.promised = self.expected = self._lead + length

    def samples(self) -> Iterator[NDArray[np.float32]]:
        """See `Source`."""
        if self._container.format.name == "mp3" and self.promised is not None:
            yield from self._unpadded(round(self.promised * self.rate))
        else:
            yield from super().samples()
        if self._mark == OGG_START and not has_end_of_stream(
            io.BytesIO(self._link.tail), len(self._link.tail)
        ):
            self.ending = "its end-of-stream mark is missing"

    def _unpadded(self, frames: int) -> Iterator[NDArray[np.float32]]:
        """Samples without the padding at the end, which FFmpeg removes only if it knows the file size."""
        held: list[NDArray[np.float32]] = []
        for block in super().samples():
            sound, frames = block[:, :frames], max(0, frames - block.shape[1])
            yield sound
            held.append(block[:, sound.shape[1] :])
            if sum(rest.shape[1] for rest in held) > LOSSY_TOLERANCE * self.rate:  # more than padding
                yield from held
                held, frames = [], sys.maxsize
            elif frames:
                held = []

    def _pieces(self) -> Iterator[Piece]:
        while True:
            yield from self._decode()
            self._passed += self._link.passed
            if not self._link.another:
                return
            self.promised = None  # it was that of the first stream only
            self._container.close()
            try:
                self._begin()
            except (av.FFmpegError, AudioError):
                self.damage.append(f"what follows at {self._position:.2f} s cannot be decoded")
                return

    def _begin(self) -> None:
        self._link = _Link(self._pipe, self._mark)
        self._attach(open_container(self._link, options=self._options))

    def _is_chance(self) -> bool:
        few = self._bytes_decoded < LEAST_SHARE * (self._passed + self._link.passed)
        return few or super()._is_chance()

    def _block_frames(self) -> int:
        return max(1, round(_LATEST * self.rate))


class _Link:
    """One of several recordings joined in a pipe, as a file for PyAV.

    Attributes:
        passed: number of bytes read.
        tail: last bytes read, at most the longest Ogg page.
        another: whether another recording follows; known at the end.
    """

    def __init__(self, pipe: Pipe, mark: bytes | None) -> None:
        self._pipe, self._mark = pipe, mark
        self._buffer = b""
        self._searched = 0  # bytes of the buffer
        self._group = 0  # end of the first pages of multiplexed Ogg streams
        self._ended = False
        self.passed, self.tail, self.another = 0, b"", False

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end."""
        while not self._ended and len(self._buffer) <= _TAG:
            self._fill(size)
            boundary = self._boundary()
            if boundary is not None:
                self._pipe.back(self._buffer[boundary:])
                self._buffer, self._ended, self.another = self._buffer[:boundary], True, True
            elif self._ended and self._buffer[-_TAG:].startswith(b"TAG"):
                self._buffer = self._buffer[:-_TAG]
        there = len(self._buffer) if self._ended else len(self._buffer) - _TAG
        piece, self._buffer = self._buffer[: min(size, there)], self._buffer[min(size, there) :]
        self._searched = max(0, self._searched - len(piece))
        self.passed += len(piece)
        self.tail = (self.tail + piece)[-LONGEST_OGG_PAGE:] if self._mark == OGG_START else b""
        return piece

    def _fill(self, size: int) -> None:
        piece = self._pipe.read(size)
        self._buffer += piece
        self._ended = not piece

    def _boundary(self) -> int | None:
        """Start of the next recording in the buffer."""
        if self._mark is None:
            return None
        while (at := self._buffer.find(self._mark, self._searched)) >= 0:
            position = self.passed + at
            if self._mark == FLAC_START:
                if position > 0:
                    return at
            else:
                while len(self._buffer) < at + _OGG_HEAD and not self._ended:
                    self._fill(_PIECE)
                page = self._buffer[at : at + _OGG_HEAD]
                if position > self._group:
                    return at
                self._group = position + 27 + sum(page[26:27]) + sum(page[27 : 27 + page[26]])
            self._searched = at + 1
        self._searched = max(self._searched, len(self._buffer) - len(self._mark) + 1)
        return None
