"""Two decoders behind one door: libsndfile for uncompressed audio, FFmpeg (through PyAV) for the rest.

libsndfile reads WAV of any kind, RF64, W64, AIFF, AU and CAF several times faster than FFmpeg.
Compressed formats (FLAC, OGG, Opus, MP3, M4A, MP4, WebM, Matroska, ...) go to FFmpeg, which is as fast
there and reads on where libsndfile 1.2 stops without an error: at half of an MP3 of variable bit rate
without a Xing header, after the first of several Ogg or FLAC streams in one file, at a damaged packet.
What libsndfile refuses goes to FFmpeg as well.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from typing import Any, BinaryIO

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from htsat_sed.audio.headers import (
    UNCOMPRESSED,
    Header,
    has_end_of_stream,
    has_mp3_header,
    read_header,
    why_not_audio,
)
from htsat_sed.errors import AudioError

_BLOCK_SECONDS = 5
_TOLERANCE = 0.01
_LOSSY_TOLERANCE = 0.25  # encoder delay is in the stated duration of some formats and not of others
_BLOCK_VALUES = 1 << 22  # of all channels together, 16 MiB

_SAMPLE_BYTES = {"PCM_U8": 1, "PCM_S8": 1, "ULAW": 1, "ALAW": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4}
_SAMPLE_BYTES |= {"FLOAT": 4, "DOUBLE": 8}
_HOLDING = {"PCM_U8": "PCM_U8", "PCM_S8": "PCM_U8", "PCM_24": "PCM_24"}
_HOLDING |= {"PCM_32": "FLOAT", "FLOAT": "FLOAT", "DOUBLE": "FLOAT"}
# Other formats' durations are FFmpeg's estimates from the bit rate, or where the last packet lies.
_DURATION_STATED = ("flac", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")

_PLAYLISTS = ("concat", "hls", "dash", "sdp")
# PyAV 18 looks for a null pointer after the last plane; a frame of 8 or more has none, and it crashes.
_MANY_PLANES = 8
_SAMPLE_TYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
_GAP_SECONDS = 0.02  # more than time stamps jitter
_GUESSED = frozenset({"mp3", "aac", "ac3"})  # formats without a header: found by the suffix, frame by frame
_LEAST_SHARE = 0.1  # of the bytes of such a file; what is decoded by chance is some 2 to 5 % of them


class Uncompressed:
    """A recording as libsndfile reads it.

    Attributes:
        rate: Hz.
        channels: how many.
        promised: seconds that the header states, None if it does not.
        tolerance: seconds by which the decoded duration may miss `promised` in a whole file.
        expected: seconds, for progress.
        ending: why the recording ended where it did, known once `blocks` is exhausted; None if naturally.
        damage: what is missing in the middle, known then too; None if nothing.
        subtype: libsndfile's name of the sample type that holds what `blocks` yields, 32-bit integers and
            64-bit floats at the precision of 32-bit floats; PCM_16 for lossy codecs, which have none.
    """

    def __init__(self, file: soundfile.SoundFile, header: Header) -> None:
        self._file = file
        self.rate: int = file.samplerate
        self.channels: int = file.channels
        self.subtype = _HOLDING.get(file.subtype, "PCM_16")
        self.promised: float | None = None
        self.tolerance = _TOLERANCE
        if header.stated_bytes is not None and file.subtype in _SAMPLE_BYTES:
            frames = header.stated_bytes // (_SAMPLE_BYTES[file.subtype] * self.channels)
            self.promised = frames / max(1, self.rate)
        self.expected: float | None = self.promised or file.frames / max(1, self.rate)
        self.ending = header.ending
        self.damage: str | None = None

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield (channels, frames) blocks."""
        size = _block_frames(self.rate, self.channels)
        try:
            while len(block := self._file.read(size, dtype="float32", always_2d=True)):
                yield block.T
        except soundfile.LibsndfileError:
            self.ending = "what follows cannot be decoded"

    def leave_out(self, frames: int) -> int:
        """Go on so many frames later, as far as the file can be sought in; how many it were."""
        if not self._file.seekable():
            return 0
        position: int = self._file.tell()
        return int(self._file.seek(min(position + frames, self._file.frames)) - position)


class Coded:
    """A recording as FFmpeg decodes it; the attributes are those of `Uncompressed`."""

    def __init__(
        self, path: str, file: BinaryIO, container: av.container.InputContainer, ending: str | None
    ) -> None:
        self._path = path
        self._container = container
        self._stream = container.streams.audio[0]
        self.ending = ending
        self.damage: str | None = None
        self._packets_decoded = self._packets_failed = self._bytes_decoded = 0
        file.seek(0)
        self._is_tagged = file.read(3) == b"ID3"  # a tag before the sound may hold a picture
        self.tolerance = _TOLERANCE if container.format.name == "flac" else _LOSSY_TOLERANCE
        self._first_position: int | None = None  # byte of the first packet
        self.promised: float | None = None
        self._frames: Iterator[av.AudioFrame] = self._decode()
        # Codecs such as HE-AAC tell their rate with the first decoded frame and not before.
        first = next(self._frames, None)
        if first is None:
            raise AudioError(path, "holds no audio: nothing that can be decoded follows its header")
        self.rate = first.sample_rate
        self.channels = first.layout.nb_channels
        self.subtype = _subtype(first.format.name, lossless=self._stream.codec_context.codec.lossless)
        self.expected = self._duration()
        stated = container.format.name in _DURATION_STATED or (
            container.format.name == "mp3" and has_mp3_header(file, self._first_position)
        )
        self.promised = self.expected if stated else None
        if container.format.name == "ogg" and not has_end_of_stream(file):
            self.ending = "its end-of-stream mark is missing"
        self._frames = chain([first], self._frames)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield (channels, frames) blocks."""
        size = _block_frames(self.rate, self.channels)
        gathered: list[NDArray[Any]] = []
        held = 0
        while (frame := next(self._frames, None)) is not None:
            if frame.sample_rate != self.rate:
                self.ending = f"its sample rate changes there, from {self.rate} to {frame.sample_rate} Hz"
                if self._container.format.name in _GUESSED:
                    deque(self._frames, maxlen=0)  # only to see whether it is audio at all
                break
            values = _values(frame)
            alike = gathered and (values.dtype, len(values)) == (gathered[0].dtype, len(gathered[0]))
            if gathered and not alike:
                yield _joined(gathered)
                gathered, held = [], 0
            gathered.append(values)
            held += values.shape[1]
            if held >= size:
                yield _joined(gathered)
                gathered, held = [], 0
        if gathered:
            yield _joined(gathered)

    def _decode(self) -> Iterator[av.AudioFrame]:
        """Yield frames; packets that cannot be decoded are left out.

        Raises:
            AudioError: it is a file of another kind, in which a decoder that guesses found some audio.
        """
        seconds = lag = missing = first = 0.0
        failed = places = 0  # packets since the last frame; places where something is missing
        for packet in self._packets():
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                failed += 1
                self._packets_failed += 1
                continue
            self._packets_decoded += bool(decoded)
            self._bytes_decoded += packet.size if decoded else 0
            for frame in decoded:
                # What FFmpeg itself leaves out shows in the time stamps alone.
                lag_before, lag = lag, lag if frame.time is None else frame.time - seconds
                if seconds == 0.0:
                    self._first_position = packet.pos
                elif failed or lag - lag_before > _GAP_SECONDS:
                    first = first if places else seconds
                    places += 1
                    missing += max(0.0, lag - lag_before)
                failed = 0
                seconds += frame.samples / frame.sample_rate
                yield frame
        if self._container.format.name in _GUESSED and self._is_chance():
            raise AudioError(self._path, "is no audio file: next to nothing in it can be decoded")
        if failed:
            self.ending = "what follows cannot be decoded"
        if places:
            more = f" and {places - 1} more places" if places > 1 else ""
            self.damage = (
                f"damaged at {first:.2f} s{more}: about {missing:.2f} s are missing, and what follows is "
                "early by as much"
            )
            if self.promised is not None:
                self.promised -= missing

    def _is_chance(self) -> bool:
        """Whether the frames that were decoded are what a file of another kind holds by chance."""
        begin = (self._first_position or 0) if self._is_tagged else 0
        small = self._bytes_decoded < _LEAST_SHARE * (self._container.size - begin)
        return small or self._packets_failed > self._packets_decoded

    def _packets(self) -> Iterator[av.Packet[av.AudioStream]]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                yield next(packets)
            except StopIteration:
                return
            except av.FFmpegError:
                self.ending = "what follows cannot be read"
                return

    def _duration(self) -> float | None:
        stream = self._stream
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        # Matroska's header has the duration of the longest stream, maybe a film; a tag has that of each.
        if tag := re.fullmatch(r"(\d+):(\d\d):(\d\d\.\d+)", stream.metadata.get("DURATION", "")):
            hours, minutes, seconds = tag.groups()
            return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
        alone = len(self._container.streams) == 1
        return self._container.duration / av.time_base if alone and self._container.duration else None


def open_decoder(path: str, file: BinaryIO, stack: ExitStack) -> Uncompressed | Coded:
    """Open a recording with the decoder that suits it.

    Args:
        path: what messages call it.
        file: the same, open for reading.
        stack: gets what has to be closed, and before `file`.

    Raises:
        AudioError: it is empty, not audio, broken beyond reading, or without an audio stream.
        OSError: it cannot be read.
    """
    head = file.read(1024)
    if not head:
        raise AudioError(path, "is empty (0 bytes): record or copy it again")
    # The decoders open it by name: an impossible seek that a broken file makes them ask for would raise
    # in Python where nothing can catch it. No other protocol, lest a playlist lead to the network.
    options = {"protocol_whitelist": "file"}
    header = Header()
    if head[:4] in UNCOMPRESSED:
        header = read_header(file)
        if header.runs_on:
            options["ignore_length"] = "1"
        elif (decoder := _open_libsndfile(file.name, stack)) is not None:
            return Uncompressed(decoder, header)
    try:
        container = av.open(f"file:{file.name}", "r", options=options, metadata_errors="replace")
    except av.FFmpegError as error:
        raise AudioError(path, why_not_audio(head)) from error
    stack.enter_context(container)
    if container.format.name in _PLAYLISTS:
        raise AudioError(path, "is a playlist: give the recordings that it lists")
    if not container.streams.audio:
        raise AudioError(path, "holds no audio stream: it is a picture, or a film without sound")
    if container.streams.audio[0].codec_context is None:
        raise AudioError(path, "is compressed with a codec that this build of FFmpeg does not know")
    return Coded(path, file, container, header.ending)


def _open_libsndfile(name: str, stack: ExitStack) -> soundfile.SoundFile | None:
    """The opened file, or None if libsndfile cannot make sense of it or finds it empty: FFmpeg may."""
    try:
        # As bytes, a name need not be valid Unicode.
        file = stack.enter_context(soundfile.SoundFile(name if os.name == "nt" else os.fsencode(name)))
    except soundfile.LibsndfileError:
        return None
    return file if file.frames else None


def _values(frame: av.AudioFrame) -> NDArray[Any]:
    """(channels, samples) of a frame, as the decoder has them."""
    if frame.format.is_planar and frame.layout.nb_channels >= _MANY_PLANES:
        (frame,) = av.AudioResampler(format=frame.format.packed).resample(frame)
    channels = frame.layout.nb_channels
    if frame.format.is_planar and channels > 1:
        planes: NDArray[Any] = frame.to_ndarray()
        return planes
    # A view, several times faster than PyAV's copy; it keeps the frame.
    plane: Any = frame.planes[0]
    kind = np.dtype(_SAMPLE_TYPES[frame.format.name.removesuffix("p")])
    return np.frombuffer(plane, kind, frame.samples * channels).reshape(-1, channels).T


def _joined(frames: list[NDArray[Any]]) -> NDArray[np.float32]:
    """(channels, samples) of frames of one kind, integers scaled to [-1, 1)."""
    kind, channels = frames[0].dtype, len(frames[0])
    values = np.empty((channels, sum(frame.shape[1] for frame in frames)), np.float32)
    np.concatenate(frames, axis=1, out=values, casting="same_kind" if kind.kind == "f" else "unsafe")
    if kind == np.uint8:
        values -= 128
    if kind.kind in "iu":
        values *= np.float32(2.0 ** (1 - 8 * kind.itemsize))
    return values


def _subtype(sample_format: str, *, lossless: bool) -> str:
    kind = sample_format.removesuffix("p")
    if kind in ("flt", "dbl"):
        return "FLOAT" if lossless else "PCM_16"
    return {"u8": "PCM_U8", "s16": "PCM_16"}.get(kind, "PCM_24")


def _block_frames(rate: int, channels: int) -> int:
    return max(1, min(_BLOCK_SECONDS * rate, _BLOCK_VALUES // channels))
