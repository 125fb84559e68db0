"""Uncompressed recordings, by libsndfile, or as raw samples if it refuses or misreads a file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from htsat_sed.audio.headers import SAMPLE_BYTES, Header, Layout
from htsat_sed.audio.source import Source, block_frames

_HOLDING = {"PCM_U8": "PCM_U8", "PCM_S8": "PCM_U8", "PCM_24": "PCM_24"}
_HOLDING |= {"PCM_32": "FLOAT", "FLOAT": "FLOAT", "DOUBLE": "FLOAT"}


class Seekable(Source):
    """A seekable recording."""

    def leave_out(self, frames: int) -> int:
        """Skip frames if the file is seekable; return the number skipped."""
        raise NotImplementedError


class Uncompressed(Seekable):
    """A recording as libsndfile reads it."""

    def __init__(self, file: soundfile.SoundFile, header: Header) -> None:
        super().__init__(file.samplerate, file.channels, _HOLDING.get(file.subtype, "PCM_16"))
        self._file = file
        if header.stated_bytes is not None and file.subtype in SAMPLE_BYTES:
            frames = header.stated_bytes // (SAMPLE_BYTES[file.subtype] * self.channels)
            self.promised = frames / max(1, self.rate)
        self.expected = self.promised or file.frames / max(1, self.rate)
        self.ending = header.ending

    def samples(self) -> Iterator[NDArray[np.float32]]:
        """See `Source`."""
        size = block_frames(self.rate, self.channels)
        try:
            while len(block := self._file.read(size, dtype="float32", always_2d=True)):
                yield block.T
        except soundfile.LibsndfileError:
            self.ending = "what follows cannot be decoded"

    def leave_out(self, frames: int) -> int:
        """See `Seekable`."""
        if not self._file.seekable():
            return 0
        position: int = self._file.tell()
        return int(self._file.seek(min(position + frames, self._file.frames)) - position)


class Unwrapped(Seekable):
    """Samples at a known position of a file, regardless of the length in its header.

    For unfinished or piped recordings, those after a tag, and those with unused bytes in their samples.
    """

    def __init__(self, file: BinaryIO, header: Header, layout: Layout) -> None:
        holding = "PCM_24" if layout.spare == 1 and layout.subtype == "PCM_32" else layout.subtype
        super().__init__(layout.rate, layout.channels, _HOLDING.get(holding, "PCM_16"))
        self._file = file
        self._layout = layout
        self._position = 0
        self._scale = np.float32(1.0)
        self._known = layout.spare == 0  # whether samples are in the high or the low bytes
        present = header.present_bytes // layout.frame_bytes
        self._frames = present
        if header.stated_bytes is not None and not header.runs_on:
            stated = header.stated_bytes // layout.frame_bytes
            self._frames = min(present, stated)
            self.promised = stated / layout.rate
        self.expected = self.promised or present / layout.rate
        self.ending = header.ending

    def samples(self) -> Iterator[NDArray[np.float32]]:
        """See `Source`."""
        size = block_frames(self.rate, self.channels)
        width = self._layout.frame_bytes
        while self._position < self._frames:
            self._file.seek(self._layout.start + self._position * width)
            data = self._file.read(min(size, self._frames - self._position) * width)
            data = data[: len(data) // width * width]
            if not data:
                self.ending = "what follows cannot be read"
                return
            self._position += len(data) // width
            yield self._decoded(data)

    def leave_out(self, frames: int) -> int:
        """See `Seekable`."""
        before, self._position = self._position, min(self._position + frames, self._frames)
        return self._position - before

    def _decoded(self, data: bytes) -> NDArray[np.float32]:
        layout = self._layout
        if not self._known and any(data):
            self._known = True
            if self._lies_low(data):
                self._scale = np.float32(2.0 ** (8 * layout.spare))
        samples, _ = soundfile.read(
            io.BytesIO(data),
            dtype="float32",
            always_2d=True,
            samplerate=layout.rate,
            channels=layout.channels,
            format="RAW",
            subtype=layout.subtype,
            endian="BIG" if layout.big_endian else "LITTLE",
        )
        found: NDArray[np.float32] = samples.T * self._scale
        return found

    def _lies_low(self, data: bytes) -> bool:
        """Whether the bytes that samples leave unused are the high ones, filled with the sign.

        WAVEFORMATEXTENSIBLE wants the low ones, filled with zeros; some recorders do otherwise.
        """
        width = SAMPLE_BYTES[self._layout.subtype]
        values = np.frombuffer(data, np.uint8).reshape(-1, width)
        if self._layout.big_endian:
            values = values[:, ::-1]
        spare = self._layout.spare
        sign = np.where(values[:, width - spare - 1] > 127, 255, 0)[:, None]
        return bool(values[:, :spare].any() and (values[:, width - spare :] == sign).all())
