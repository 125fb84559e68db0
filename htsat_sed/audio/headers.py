"""What the first and last bytes of a recording tell, which its decoder does not."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO, NamedTuple

UNCOMPRESSED = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"riff", b".snd", b"caff")
# More than this after the samples is no metadata: the length has wrapped at 4 GiB or was never filled in.
_TRAILING_BYTES = 1 << 30
_MOST_CHUNKS = 1000  # before the samples; zeros would read as any number of empty ones
# Programs that write WAV to a pipe put a length near 2 or 4 GiB that promises nothing.
_PLACEHOLDERS = (1 << 31, 1 << 32)
_PLACEHOLDER_SLACK = 4096
_LONGEST_MP3_FRAME = 2881
_LONGEST_OGG_PAGE = 65307


class Header(NamedTuple):
    """What the header of an uncompressed recording states about its samples."""

    stated_bytes: int | None = None  # None where it promises nothing
    present_bytes: int = 0  # from the first sample to the end of the file
    runs_on: bool = False  # the samples go on to the end of the file, whatever is stated

    @property
    def ending(self) -> str | None:
        """Why the samples end where they do, if too early."""
        cut = self.stated_bytes is not None and self.stated_bytes > self.present_bytes
        return "its header promises more" if cut else None


def read_header(file: BinaryIO) -> Header:
    """Read what libsndfile takes note of but does not tell.

    Source: RIFF (Microsoft/IBM 1991), RF64 (EBU Tech 3306), Sony Wave64, AIFF 1.3 (Apple 1989), Apple
    CAF, Sun AU; AVI (Microsoft 1992) and its parts of a GiB or so (OpenDML 1996).
    """
    size = file.seek(0, os.SEEK_END)
    head = _peek(file, 0, 12)
    kind = head[:4]
    if kind == b".snd" and len(head) == 12:
        offset, stated = struct.unpack(">4xII", head)
        return _header(stated, size - offset)
    if head[8:] == b"AVI ":
        return _avi_header(file, size)
    if kind == b"riff":  # Wave64: names are GUIDs, lengths count the chunk's own header
        fields, own, position, align = "<4s12xQ", 24, 40, 8
    elif kind == b"caff":
        fields, own, position, align = ">4sq", 0, 8, 1
    else:
        fields, own, position, align = (">4sI" if kind in (b"RIFX", b"FORM") else "<4sI"), 0, 12, 2
    wide: int | None = None
    for _ in range(_MOST_CHUNKS):
        if position + struct.calcsize(fields) > size:
            break
        name, length = struct.unpack(fields, _peek(file, position, struct.calcsize(fields)))
        length = max(0, length - own)
        position += struct.calcsize(fields)
        if name == b"ds64":
            wide = struct.unpack("<8xQ", _peek(file, position, 16).ljust(16, b"\0"))[0]
        elif name == b"SSND" or (name == b"data" and kind == b"caff"):
            fore = 8 if name == b"SSND" else 4  # other fields before the samples
            return _header(length - fore, size - position - fore)
        elif name == b"data":
            stated, present = length if wide is None else wide, size - position
            unfinished = stated == 0 and struct.unpack("<4xI", head[:8])[0] + 8 < size
            return _header(stated, present, runs_on=unfinished or present - stated > _TRAILING_BYTES)
        position += length + -length % align
    return Header()


def _avi_header(file: BinaryIO, size: int) -> Header:
    """What the last part states; some writers count its own first bytes, or a byte of padding."""
    found = Header()
    position = 0
    while len(chunk := _peek(file, position, 8)) == 8 and chunk.startswith(b"RIFF"):
        (length,) = struct.unpack("<4xI", chunk)
        position += 8
        found = _header(max(0, length - 8), size - position)
        position += length + length % 2
    return found


def _header(stated: int, present: int, *, runs_on: bool = False) -> Header:
    placeholder = any(abs(stated - near) <= _PLACEHOLDER_SLACK for near in _PLACEHOLDERS)
    promises = stated > 0 and not (placeholder and stated > present)
    return Header(stated if promises else None, present, runs_on)


def _peek(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)


def has_mp3_header(file: BinaryIO, first_packet: int | None) -> bool:
    """Whether a Xing, Info or VBRI frame, which FFmpeg passes over, states the length of an MP3."""
    if not first_packet:
        return False
    before = _peek(file, max(0, first_packet - _LONGEST_MP3_FRAME), min(first_packet, _LONGEST_MP3_FRAME))
    return any(mark in before for mark in (b"Xing", b"Info", b"VBRI"))


def has_end_of_stream(file: BinaryIO) -> bool:
    """Whether the last page of an Ogg file is complete and marked as the last. Source: RFC 3533."""
    size = os.fstat(file.fileno()).st_size
    tail = _peek(file, max(0, size - _LONGEST_OGG_PAGE), _LONGEST_OGG_PAGE)
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or not page[5] & 4:
        return False
    lacing = page[27 : 27 + page[26]]
    return len(page) >= 27 + page[26] + sum(lacing)


def why_not_audio(head: bytes) -> str:
    """What the first bytes tell of a file that no decoder knows, as the rest of a sentence about it."""
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the recording: run 'git lfs pull'"
    if head[4:8] == b"ftyp":
        return "has lost its index (moov): it was cut short or never finished; copy it again"
    if head.isascii() and b"\0" not in head:
        return "is a text file, not a recording"
    return "is not a recording: neither libsndfile nor FFmpeg knows its format, or its header is broken"
