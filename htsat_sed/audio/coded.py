"""Recordings that FFmpeg decodes (through PyAV), with the times of the container.

Time 0 is the start of the earliest audio or video stream. Silence is inserted where the audio starts later
and where time stamps leave a gap. If sample rate or channel count change midway, or in a chained stream, the
rest is converted to the initial ones.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from itertools import chain, groupby
from typing import Any, BinaryIO

import av
import numpy as np
from av.codec import codecs_available
from numpy.typing import NDArray

from htsat_sed.audio.resampling import resampled
from htsat_sed.audio.signatures import (
    flac_links,
    has_end_of_stream,
    is_playlist,
    mp4_fragments,
    ogg_links,
    stated_mp3_seconds,
    why_not_audio,
    without_trailing_zeros,
)
from htsat_sed.audio.source import TOLERANCE, Source, block_frames
from htsat_sed.errors import AudioError

PATIENCE = 20.0  # seconds that FFmpeg may take to open a file or to read a packet

# What FFmpeg may open: formats of one file each. Playlists, devices and networks are not among them.
_FORMATS = (
    "aa aac aax ac3 ac4 act adf adp ads adx aea afc aiff aix amr amrnb amrwb amv apc ape apm aptx aptx_hd "
    "asf asf_o ast au avi avr bfstm bink binka bonk brstm caf codec2 daud dfpwm dhav dsf dss dts dtshd dv "
    "ea eac3 epaf flac flv fsb g722 g723_1 g726 g726le g728 g729 genh gsm gxf hca hcom iamf iff ilbc "
    "ircam ivr kvag latm lc3 live_flv loas lvf lxf matroska mlp mmf mov mp3 mpc mpc8 mpeg mpegts "
    "mpegtsraw msf msp mtaf musx mxf nistsphere nsv nut nuv ogg oma osq paf pva pvf qcp qoa rka rm roq "
    "rso s337m sbc sds shn siff smk sln smjpeg sol sox spdif svag swf tak thp truehd tta ty usm vag voc "
    "vqf w64 wav wavarc wsaud wsd wtv wv wve xa xvag xwma al ul alaw mulaw s8 u8 s16be s16le s24be s24le "
    "s32be s32le u16be u16le f32be f32le f64be f64le"
).replace(" ", ",")
LOSSY_TOLERANCE = 0.25  # only some formats include encoder delay in the stated duration
# Durations of other formats are FFmpeg's estimates, from the bit rate or the position of the last packet.
MP4, MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"
STATING = ("flac", MATROSKA)  # formats whose header states the length
LONGEST_PROMISE = 3e7  # seconds, a year; longer durations are placeholders
# PyAV 18 expects a null pointer after the last plane and crashes on 8 or more planes, which have none.
_MANY_PLANES = 8
_SAMPLE_TYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
_GAP_SECONDS = 0.02  # larger than the jitter of time stamps
_RESET_SECONDS = 0.5  # a larger step back means that the clock was reset
_MOST_SILENCE = 86_400.0  # maximum seconds inserted into one recording
_COUNTED = frozenset({"aiff", "au", "caf", "voc", "w64", "wav"})  # time stamps count samples, without gaps
# In broadcasts a leap of the clock is a new programme, not a gap (as in FFmpeg).
_BROADCAST, _LONGEST_OUTAGE = frozenset({"mpegts", "mpeg"}), 10.0
_GUESSED = frozenset({"mp3", "aac", "ac3"})  # formats without a header, recognised by suffix and frames
MOST_LINKS = 10_000  # joined streams; each is opened separately, so that more would take very long
LEAST_SHARE = 0.1  # minimum share of decoded bytes of such a file; decoding by chance yields 2 to 5 %

Piece = tuple[int, NDArray[Any]]  # sample rate, and decoded (channels, samples)


class Decoding(Source):
    """Audio that FFmpeg decodes from successive containers.

    Args:
        path: name in messages.
        stack: closes the containers.
        track: index of the audio stream.
    """

    def __init__(self, path: str, stack: ExitStack, track: int) -> None:
        super().__init__(0, 0, "PCM_16")
        self._path, self._stack, self._track = path, stack, track
        self._packets_decoded = self._packets_failed = self._bytes_decoded = 0
        self._position = 0.0  # seconds yielded
        self._silence = 0.0  # seconds of inserted silence
        self._gaps = _Places()  # gaps filled with silence
        self._leaps = _Places()  # gaps not filled

    def _attach(self, container: av.container.InputContainer) -> None:
        """Continue with another container.

        Raises:
            AudioError: it has no such audio stream.
        """
        audio = container.streams.audio
        if not audio:
            raise AudioError(self._path, "holds no audio stream: it is a picture, or a video without sound")
        if self._track >= len(audio):
            count = "1 audio track" if len(audio) == 1 else f"{len(audio)} audio tracks"
            raise AudioError(self._path, f"has {count}, no track {self._track + 1}")
        if audio[self._track].codec_context is None:
            raise AudioError(self._path, "is compressed with a codec that this build of FFmpeg does not know")
        self._container, self._stream = container, audio[self._track]
        self._link_begin = self._position
        self._origin: float | None = None
        self._lead = 0.0
        self._first_packet: int | None = None
        for stream in container.streams:
            if stream.index != self._stream.index and hasattr(av.stream, "Discard"):
                stream.discard = av.stream.Discard.all

    def _take_first(self, pieces: Iterator[Piece]) -> None:
        """Set the sample format from the first frame, where codecs such as HE-AAC state their rate."""
        first = next(pieces, None)
        if first is None:
            raise AudioError(self._path, "holds no audio: nothing that can be decoded follows its header")
        rate, values = first
        lossless = self._stream.codec_context.codec.lossless
        self.rate, self.channels, self.subtype = rate, len(values), _subtype(values.dtype, lossless=lossless)
        self.tracks = len(self._container.streams.audio)
        self._pieces_left = chain([first], pieces)

    def _begun(self) -> None:
        """Hook: the time of a container's first frame is known."""

    def _is_chance(self) -> bool:
        """Whether too little was decoded for an audio file."""
        return self._packets_failed > self._packets_decoded

    def _block_frames(self) -> int:
        """Frames in a block."""
        return block_frames(self.rate, self.channels)

    def samples(self) -> Iterator[NDArray[np.float32]]:
        """See `Source`."""
        for rate, blocks in groupby(self._gathered(), key=lambda block: block[0]):
            yield from resampled((self._matched(values) for _, values in blocks), rate, self.rate)
        self._note_what_is_missing()

    def _gathered(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Blocks of frames of one format, with their sample rate."""
        size = self._block_frames()
        gathered: list[NDArray[Any]] = []
        held = held_rate = 0
        for rate, values in self._pieces_left:
            alike = gathered and (rate, values.dtype, len(values)) == (
                held_rate,
                gathered[0].dtype,
                len(gathered[0]),
            )
            if gathered and not alike:
                yield held_rate, _joined(gathered)
                gathered, held = [], 0
            gathered.append(values)
            held, held_rate = held + values.shape[1], rate
            if held >= size:
                yield held_rate, _joined(gathered)
                gathered, held = [], 0
        if gathered:
            yield held_rate, _joined(gathered)

    def _matched(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Convert to the initial channel count: if it differs, every channel is the mean."""
        if len(values) == self.channels:
            return values
        return np.repeat(values.mean(axis=0, keepdims=True), self.channels, axis=0)

    def _decode(self) -> Iterator[Piece]:
        """Frames and silence; packets that cannot be decoded are skipped.

        Raises:
            AudioError: the file is not audio, although a format without a header seemed to match.
        """
        failed, lag = 0, 0.0
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
                silence, lag = self._silence_before(frame, packet, lag, failed)
                failed = 0
                yield from self._silent(silence, frame)
                self._position += frame.samples / frame.sample_rate
                yield frame.sample_rate, _values(frame)
        if self._container.format.name in _GUESSED and self._is_chance():
            raise AudioError(self._path, "is not an audio file: almost nothing in it can be decoded")
        if failed:
            self.ending = "what follows cannot be decoded"

    def _silence_before(
        self, frame: av.AudioFrame, packet: av.Packet[av.AudioStream], lag: float, failed: int
    ) -> tuple[float, float]:
        """Seconds of silence before a frame, and the remaining lag of its time stamp.

        Data that FFmpeg skips are only visible in time stamps. Leaps count, but not slow drift and jitter.
        """
        time = frame.time
        if self._origin is None:
            self._first_packet = packet.pos
            if time is None:
                return 0.0, lag
            begin = min([time, *self._other_starts()])
            self._origin = begin - self._link_begin
            self._lead = time - begin
            if not _GAP_SECONDS < self._lead <= _MOST_SILENCE:
                self._origin, self._lead = time - self._link_begin, 0.0
            self._begun()
            return self._lead, 0.0
        late = lag if time is None else time - self._origin - self._position
        if late < lag - _RESET_SECONDS:
            self._origin += late
            return 0.0, 0.0
        name = self._container.format.name
        if name in _COUNTED and not failed:
            self._origin += late
            return 0.0, 0.0
        gap = max(0.0, late)
        # A late time stamp after an early one is jitter, not a gap.
        if not failed and min(late - lag, gap) <= _GAP_SECONDS:
            return 0.0, late
        if gap > (_LONGEST_OUTAGE if name in _BROADCAST else _MOST_SILENCE - self._silence):
            self._leaps.add(self._position, gap)
            self._origin += gap
            return 0.0, 0.0
        self._gaps.add(self._position, gap)
        return gap, late - gap

    def _silent(self, seconds: float, frame: av.AudioFrame) -> Iterator[Piece]:
        rate, channels = frame.sample_rate, frame.layout.nb_channels
        kind = np.dtype(_SAMPLE_TYPES[frame.format.name.removesuffix("p")])
        left = round(seconds * rate)
        self._position += left / rate
        self._silence += left / rate
        while left > 0:
            length = min(left, block_frames(rate, channels))
            yield rate, np.full((channels, length), 128 if kind == np.uint8 else 0, kind)
            left -= length

    def _other_starts(self) -> list[float]:
        """Start times in seconds of the other audio and video streams, without cover art."""
        return [
            float(stream.start_time * stream.time_base)
            for stream in self._container.streams
            if stream.index != self._stream.index
            and stream.type in ("audio", "video")
            and not stream.disposition & av.stream.Disposition.attached_pic
            and stream.start_time is not None
            and stream.time_base is not None
        ]

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

    def _stated_length(self) -> float | None:
        """Seconds of audio from its own start, as stated in the header or estimated by FFmpeg."""
        stream = self._stream
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        first = self._lead + (self._origin or 0.0) + self._link_begin
        # Matroska's header has the duration of the longest stream, perhaps video; a tag has that of each
        # stream. Both are end times on the container's clock.
        if tag := re.fullmatch(r"(\d+):(\d\d):(\d\d\.\d+)", stream.metadata.get("DURATION", "")):
            hours, minutes, seconds = tag.groups()
            return 3600 * int(hours) + 60 * int(minutes) + float(seconds) - first
        if len(self._container.streams) > 1 or not self._container.duration:
            return None
        duration = self._container.duration / av.time_base
        return duration - first if self._container.format.name == MATROSKA else duration

    def _note_what_is_missing(self) -> None:
        if self._gaps.count:
            missing = self._gaps.total
            stands = "; silence is inserted" if missing > 0.0 else ""
            self.damage.append(
                f"damaged or interrupted at {self._gaps}: about {missing:.2f} s are missing{stands}"
            )
        if self._leaps.count:
            self.damage.append(
                f"its time stamps jump by {self._leaps.first[1]:.0f} s at {self._leaps}: no silence added"
            )


class _Places:
    """Summary of gaps in bounded memory: position and length of the first, number and total length."""

    def __init__(self) -> None:
        self.count, self.total = 0, 0.0
        self.first = (0.0, 0.0)

    def add(self, position: float, seconds: float) -> None:
        if self.count == 0:
            self.first = position, seconds
        self.count += 1
        self.total += seconds

    def __str__(self) -> str:
        more = f" and {self.count - 1} more places" if self.count > 1 else ""
        return f"{self.first[0]:.2f} s{more}"


class Coded(Decoding):
    """A recording as FFmpeg decodes it.

    Args:
        path: name in messages.
        file: the recording, open for reading.
        extent: range of bytes to decode, end exclusive.
        stack: closes the decoder, before `file`.
        track: index of the audio stream.
        ending: why its samples end early according to its header; None if they do not.
        options: options of FFmpeg's format.

    Raises:
        AudioError: it is not audio, broken beyond reading, or without such an audio stream.
    """

    def __init__(
        self,
        path: str,
        file: BinaryIO,
        extent: tuple[int, int],
        stack: ExitStack,
        *,
        track: int = 0,
        ending: str | None = None,
        options: dict[str, str] | None = None,
    ) -> None:
        super().__init__(path, stack, track)
        self._file = file
        self._options = options or {}
        links = [extent]
        file.seek(extent[0])
        head = file.read(1024)
        if is_playlist(head):
            raise AudioError(path, "is a playlist: give the recordings that it lists")
        if head[:4] == b"OggS":
            links = ogg_links(file, *extent)
        elif head[:4] == b"fLaC":
            links = flac_links(file, *extent)
        if len(links) > MOST_LINKS:
            raise AudioError(path, f"is joined from {len(links)} streams; at most {MOST_LINKS} are read")
        self._first_link = links[0]
        self._extent = extent
        self._links = iter(links[1:])
        try:
            self._begin(links[0])
        except av.FFmpegError as error:
            stuck = isinstance(error, av.ExitError)
            reason = f"yielded no data for {PATIENCE:g} s" if stuck else why_not_audio(head)
            raise AudioError(path, reason) from error
        self._format: str = self._container.format.name
        self._take_first(self._pieces())
        self.ending = self.ending or ending
        self.tolerance = TOLERANCE if self._format == "flac" else LOSSY_TOLERANCE
        length = self._stated_length()
        self.expected = None if length is None or len(links) > 1 else self._lead + length
        self._fix_promise()
        if self._format == "ogg" and not has_end_of_stream(file, extent[1]):
            self.ending = "its end-of-stream mark is missing"
        if self._format == MP4 and mp4_fragments(file, *extent) == (True, True):
            self.ending = "its last fragment is cut off"

    def _begin(self, link: tuple[int, int]) -> None:
        """Open a part of the file.

        Raises:
            AudioError: it has no such audio stream.
            av.FFmpegError: it cannot be opened.
        """
        # FFmpeg opens the file by name, since an invalid seek in a damaged file would raise an exception in a
        # Python callback that cannot be caught. Cover art is not decoded without video decoders.
        options = {"protocol_whitelist": "subfile,file", **container_options(), **self._options}
        whole = link == (0, os.fstat(self._file.fileno()).st_size)
        part = "" if whole else f"subfile,,start,{link[0]},end,{link[1]},,:"
        container = open_container(
            f"{part}file:{self._file.name}", options=options, timeout=(PATIENCE, PATIENCE)
        )
        self._stack.enter_context(container)
        self._attach(container)
        self._link = link

    def _pieces(self) -> Iterator[Piece]:
        """Frames of all parts of the file, with silence in gaps."""
        while True:
            yield from self._decode()
            link = next(self._links, None)
            if link is None:
                return
            try:
                self._begin(link)
            except (av.FFmpegError, AudioError):
                self.damage.append(f"{link[1] - link[0]} bytes at {self._position:.2f} s cannot be decoded")

    def _begun(self) -> None:
        if self._link != self._first_link:
            self._fix_promise()

    def _is_chance(self) -> bool:
        """Whether too little was decoded for a file of this format."""
        start, end = self._extent
        if self._bytes_decoded < LEAST_SHARE * (end - start):
            end = without_trailing_zeros(self._file, start, end)
        return self._bytes_decoded < LEAST_SHARE * (end - start) or super()._is_chance()

    def _fix_promise(self) -> None:
        """Set the promised length from the header, unless it is an estimate or a placeholder."""
        name = self._format
        stated = name in STATING
        if name == MP4:
            stated = not mp4_fragments(self._file, *self._link)[0]
        length = self._stated_length()
        if name == "mp3" and self._first_packet is not None:
            length = stated_mp3_seconds(self._file, self._link[0] + self._first_packet)
            stated = length is not None
        if stated and length is not None and 0.0 < length < LONGEST_PROMISE:
            self.promised = self._link_begin + self._lead + length
        else:
            self.promised = None


_PYAV = tuple(map(int, re.findall(r"\d+", av.__version__)[:2]))
if _PYAV < (18, 1):  # else every recording would be called unreadable
    raise ImportError(f"its release {av.__version__} is too old", name="av")
# PyAV 18 raises an error on metadata that is not UTF-8, unless told otherwise; PyAV 19 never does.
_LENIENT: dict[str, Any] = {"metadata_errors": "replace"} if _PYAV < (19,) else {}


def open_container(file: Any, **options: Any) -> Any:
    """`av.open` for reading, whose containers may have metadata in any encoding.

    Raises:
        av.FFmpegError: FFmpeg cannot open it.
    """
    return av.open(file, "r", **options, **_LENIENT)


def container_options() -> dict[str, str]:
    """Options that restrict what FFmpeg may open and decode."""
    return {"format_whitelist": _FORMATS, "codec_whitelist": audio_decoders()}


@cache
def audio_decoders() -> str:
    """Names of all audio decoders, separated by commas."""
    found = []
    for name in sorted(codecs_available):
        try:
            codec = av.Codec(name, "r")
        except ValueError:  # an encoder
            continue
        if codec.type == "audio":
            found.append(codec.name)
    return ",".join(found)


def _values(frame: av.AudioFrame) -> NDArray[Any]:
    """(channels, samples) of a frame, in the decoder's type."""
    if frame.format.is_planar and frame.layout.nb_channels >= _MANY_PLANES:
        (frame,) = av.AudioResampler(format=frame.format.packed).resample(frame)
    channels = frame.layout.nb_channels
    if frame.format.is_planar and channels > 1:
        planes: NDArray[Any] = frame.to_ndarray()
        return planes
    # A view, several times faster than PyAV's copy; it keeps the frame alive.
    plane: Any = frame.planes[0]
    kind = np.dtype(_SAMPLE_TYPES[frame.format.name.removesuffix("p")])
    return np.frombuffer(plane, kind, frame.samples * channels).reshape(-1, channels).T


def _joined(frames: list[NDArray[Any]]) -> NDArray[np.float32]:
    """Concatenate frames of one format to (channels, samples), with integers scaled to [-1, 1)."""
    kind, channels = frames[0].dtype, len(frames[0])
    values = np.empty((channels, sum(frame.shape[1] for frame in frames)), np.float32)
    np.concatenate(frames, axis=1, out=values, casting="same_kind" if kind.kind == "f" else "unsafe")
    if kind == np.uint8:
        values -= 128
    if kind.kind in "iu":
        values *= np.float32(2.0 ** (1 - 8 * kind.itemsize))
    return values


def _subtype(kind: np.dtype[Any], *, lossless: bool) -> str:
    if kind.kind == "f":
        return "FLOAT" if lossless else "PCM_16"
    return {"uint8": "PCM_U8", "int16": "PCM_16"}.get(kind.name, "PCM_24")
