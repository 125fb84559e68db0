"""Headers of uncompressed recordings: layout and number of samples."""

from __future__ import annotations

import math
import os
import struct
from typing import BinaryIO, NamedTuple

UNCOMPRESSED = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"riff", b".snd", b"dns.", b"caff")
# More than this after the samples is no metadata: the length has wrapped at 4 GiB or was never filled in.
_TRAILING_BYTES = 1 << 30
_MOST_CHUNKS = 1000  # before the samples; zeros would read as empty chunks
# Programs that write to a pipe, or are killed, leave a placeholder as length: near 2 or 4 GiB, SoX's
# 0x7F000000, or near a power of 2 beyond any disk.
_PLACEHOLDERS = (0x7F000000, 1 << 31, 1 << 32)
_PLACEHOLDER_SLACK = 4096
_NO_LENGTH = 1 << 47

_INTEGERS = {1: "PCM_S8", 2: "PCM_16", 3: "PCM_24", 4: "PCM_32"}
_FLOATS = {4: "FLOAT", 8: "DOUBLE"}
_AU_ENCODINGS = {1: "ULAW", 2: "PCM_S8", 3: "PCM_16", 4: "PCM_24", 5: "PCM_32", 6: "FLOAT", 7: "DOUBLE"}
_AU_ENCODINGS |= {27: "ALAW"}
SAMPLE_BYTES = {"PCM_U8": 1, "PCM_S8": 1, "ULAW": 1, "ALAW": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4}
SAMPLE_BYTES |= {"FLOAT": 4, "DOUBLE": 8}


class Layout(NamedTuple):
    """Layout of the samples of an uncompressed recording.

    Attributes:
        rate: sample rate, Hz.
        channels: number of channels.
        subtype: libsndfile's name of the sample type.
        big_endian: byte order.
        spare: unused bytes of a sample, such as 1 for 24 bits in 4 bytes.
        start: first byte of the first sample.
    """

    rate: int
    channels: int
    subtype: str
    big_endian: bool
    spare: int = 0
    start: int = 0

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return SAMPLE_BYTES[self.subtype] * self.channels


class Header(NamedTuple):
    """Length and layout of the samples according to the header of an uncompressed recording."""

    stated_bytes: int | None = None  # None if not stated
    present_bytes: int = 0  # from the first sample to the end of the file
    runs_on: bool = False  # the samples extend to the end of the file, regardless of the stated length
    layout: Layout | None = None  # None if the samples are compressed or their layout is unknown

    @property
    def ending(self) -> str | None:
        """Why the samples end too early; None if they do not."""
        cut = self.stated_bytes is not None and self.stated_bytes > self.present_bytes
        return "its header promises more" if cut else None


def read_header(file: BinaryIO, start: int = 0) -> Header:
    """Read the header fields that libsndfile does not report.

    Args:
        file: open for reading.
        start: first byte of the recording, after a leading tag.

    Source: RIFF (Microsoft/IBM 1991), WAVEFORMATEXTENSIBLE (Microsoft 2001), RF64 (EBU Tech 3306), Sony
    Wave64, AIFF 1.3 and AIFF-C (Apple 1989, 1991), Apple CAF, Sun AU; AVI (Microsoft 1992) and its parts
    of a GiB or so (OpenDML 1996).
    """
    size = file.seek(0, os.SEEK_END)
    head = peek(file, start, 24)
    kind = head[:4]
    if kind in (b".snd", b"dns.") and len(head) == 24:
        return _au_header(head, start, size)
    if head[8:12] == b"AVI ":
        return _avi_header(file, size)
    if kind == b"riff":  # Wave64: names are GUIDs, lengths count the chunk's own header
        fields, own, position, align = "<4s12xQ", 24, 40, 8
    elif kind == b"caff":
        fields, own, position, align = ">4sq", 0, 8, 1
    else:
        fields, own, position, align = (">4sI" if kind in (b"RIFX", b"FORM") else "<4sI"), 0, 12, 2
    position += start
    whole = _whole_length(head, fields, own)
    layout: Layout | None = None
    wide: int | None = None
    for _ in range(_MOST_CHUNKS):
        if position + struct.calcsize(fields) > size:
            break
        name, length = struct.unpack(fields, peek(file, position, struct.calcsize(fields)))
        length = max(0, length - own) if length != -1 else _NO_LENGTH
        position += struct.calcsize(fields)
        if name == b"ds64":
            whole, wide = struct.unpack("<QQ", peek(file, position, 16).ljust(16, b"\0"))
        elif name in (b"fmt ", b"COMM", b"desc"):
            layout = _layout(name, peek(file, position, 64)[:length], big_endian=kind == b"RIFX")
        elif name == b"SSND" or (name == b"data" and kind == b"caff"):
            fore = 4  # bytes of fields before the samples
            if name == b"SSND":
                fore = 8 + struct.unpack(">I", peek(file, position, 4).ljust(4, b"\0"))[0]
            return _header(max(0, length - fore), position + fore, size, whole, layout, start)
        elif name == b"data":
            stated = length if wide is None or (length != 0xFFFFFFFF and length) else wide
            return _header(stated, position, size, whole, layout, start)
        position += length + -length % align
    return Header()


def peek(file: BinaryIO, position: int, size: int) -> bytes:
    """Bytes of a file at a position; fewer at its end."""
    file.seek(position)
    return file.read(size)


def _whole_length(head: bytes, fields: str, own: int) -> int | None:
    """Length of a file according to its header, without the first 8 bytes; None if not stated."""
    if head[:4] == b"caff" or len(head) < 24:
        return None
    if own:
        return int(struct.unpack("<16xQ", head)[0]) - 8
    return int(struct.unpack_from(fields, head)[1])


def _au_header(head: bytes, start: int, size: int) -> Header:
    big_endian = head.startswith(b".snd")
    offset, stated, encoding, rate, channels = struct.unpack_from(">5I" if big_endian else "<5I", head, 4)
    subtype = _AU_ENCODINGS.get(encoding)
    layout = Layout(rate, channels, subtype, big_endian) if subtype and rate and channels else None
    return _header(stated, start + offset, size, None, layout, start)


def _avi_header(file: BinaryIO, size: int) -> Header:
    """Length of the last part; some writers include its own first bytes, or a byte of padding."""
    found = Header()
    position = 0
    while len(chunk := peek(file, position, 8)) == 8 and chunk.startswith(b"RIFF"):
        (length,) = struct.unpack("<4xI", chunk)
        position += 8
        stated = max(0, length - 8)
        found = Header(None if _is_placeholder(stated, size - position) else stated or None, size - position)
        position += length + length % 2
    return found


def _header(
    stated: int, first: int, size: int, whole: int | None, layout: Layout | None, start: int
) -> Header:
    """Header of a file of `size` bytes that states `stated` bytes of samples from byte `first` on."""
    present = max(0, size - first)
    placeholder = _is_placeholder(stated, present)
    # A finished recording without samples has the stated length.
    unfinished = stated == 0 and (whole is None or start + whole + 8 < size or whole >= 1 << 31)
    runs_on = placeholder or unfinished or present - stated > _TRAILING_BYTES
    promises = stated > 0 and not placeholder
    if layout is not None:
        layout = layout._replace(start=first)
    return Header(stated if promises else None, present, runs_on, layout)


def _is_placeholder(stated: int, present: int) -> bool:
    near = any(abs(stated - length) <= _PLACEHOLDER_SLACK for length in _PLACEHOLDERS)
    return stated > present and (near or stated > _NO_LENGTH - _PLACEHOLDER_SLACK)


def _layout(name: bytes, form: bytes, *, big_endian: bool) -> Layout | None:
    try:
        if name == b"fmt ":
            layout = _wave_layout(form, big_endian=big_endian)
        elif name == b"COMM":
            layout = _aiff_layout(form)
        else:
            layout = _caf_layout(form)
    except struct.error:  # too short
        return None
    return layout if layout is not None and layout.rate > 0 and layout.channels > 0 else None


def _wave_layout(form: bytes, *, big_endian: bool) -> Layout | None:
    order = ">" if big_endian else "<"
    tag, channels, rate, _, align, bits = struct.unpack_from(f"{order}HHIIHH", form)
    used = bits
    if tag == 0xFFFE:
        valid, _, tag = struct.unpack_from(f"{order}HIH", form, 18)
        used = valid if 0 < valid < bits else bits
    size = align // channels if channels else 0
    if tag == 3:
        subtype = _FLOATS.get(size)
    elif tag in (6, 7):
        subtype = {6: "ALAW", 7: "ULAW"}[tag] if size == 1 else None
    else:
        subtype = {**_INTEGERS, 1: "PCM_U8"}.get(size) if tag == 1 else None
    spare = max(0, size - -(-used // 8)) if tag == 1 and used else 0
    return Layout(rate, channels, subtype, big_endian, spare) if subtype else None


def _aiff_layout(form: bytes) -> Layout | None:
    channels, bits, exponent, mantissa = struct.unpack_from(">H4xHHQ", form)
    rate = round(math.ldexp(mantissa, exponent - 16446)) if exponent < 16446 else 0
    kind = form[18:22].lower() or b"none"
    subtypes = {
        b"none": _INTEGERS.get(-(-bits // 8)),
        b"twos": _INTEGERS.get(-(-bits // 8)),
        b"sowt": _INTEGERS.get(-(-bits // 8)),
        b"in24": "PCM_24",
        b"in32": "PCM_32",
        b"fl32": "FLOAT",
        b"fl64": "DOUBLE",
        b"ulaw": "ULAW",
        b"alaw": "ALAW",
        b"raw ": "PCM_U8",
    }
    subtype = subtypes.get(kind)
    return Layout(rate, channels, subtype, kind != b"sowt") if subtype else None


def _caf_layout(form: bytes) -> Layout | None:
    rate, kind, flags, packet, frames, channels, bits = struct.unpack_from(">d4s5I", form)
    if not (math.isfinite(rate) and channels and frames == 1):
        return None
    size = packet // channels
    subtypes = {b"ulaw": "ULAW", b"alaw": "ALAW", b"lpcm": (_FLOATS if flags & 1 else _INTEGERS).get(size)}
    subtype = subtypes.get(kind)
    spare = max(0, size - -(-bits // 8)) if kind == b"lpcm" and not flags & 1 and bits else 0
    return Layout(round(rate), channels, subtype, not flags & 2, spare) if subtype else None
