"""Information in compressed files that FFmpeg does not report: tags, lengths, joined streams."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO

from htsat_sed.audio.headers import peek

_LONGEST_MP3_FRAME = 2881
_MP3_RATES = (44_100, 48_000, 32_000)
LONGEST_OGG_PAGE = 65307
FLAC_START = b"fLaC\0\0\0\x22"  # the mark, and the head of its first block
OGG_START = b"OggS\0\2" + bytes(8)  # a stream's first page, at its time 0
_PIECE = 1 << 20
_MOST_BOXES = 1_000_000
_MOST_TAGS = 16

_PLAYLIST = re.compile(
    rb"""(ffconcat|\#ext(m3u|-x-|inf)|<mpd|<asx|<smil|<\?wpl|<playlist|v=0\r?\n|\[(playlist|reference|default)\]|rtsptext|
    asf\s|(https?|rtsps?|rtmp[a-z]*|mmsh?|udp|rtp|tcp|ftp|file|concat|subfile|pipe|data):)""",
    re.VERBOSE,
)
_XML_HEAD = re.compile(rb"(<\?xml[^>]*>|<!--.*?-->|<!doctype[^>]*>|\s)+", re.DOTALL)


def is_playlist(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a playlist."""
    text = head.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xfe\xff\r\n\t ").lower()  # UTF-16 as well
    prolog = _XML_HEAD.match(text)
    return _PLAYLIST.match(text, prolog.end() if prolog else 0) is not None


def sound_extent(file: BinaryIO) -> tuple[int, int]:
    """Start and end of a recording in its file, without leading and trailing tags.

    Source: ID3v1, ID3v2.4 (id3.org), APEv2 (Hydrogenaudio), Lyrics3 v2.
    """
    size = end = file.seek(0, os.SEEK_END)
    start = 0
    for _ in range(_MOST_TAGS):
        length = leading_tag(peek(file, start, 32))
        if not 0 < length < size - start:
            break
        start += length
    for _ in range(_MOST_TAGS):
        length = _trailing_tag(peek(file, max(start, end - 128), min(128, end - start)))
        if not 0 < length < end - start:
            break
        end -= length
    return start, end


def leading_tag(head: bytes) -> int:
    """Length of a leading tag in bytes; 0 if there is none."""
    if head[:3] == b"ID3" and len(head) >= 10 and all(byte < 128 for byte in head[6:10]):
        return 10 + _synchsafe(head[6:10]) + (10 if head[5] & 16 else 0)
    if head[:8] == b"APETAGEX" and len(head) == 32:
        return 32 + int(struct.unpack("<12xI16x", head)[0])
    return 0


def _trailing_tag(tail: bytes) -> int:
    if tail[-128:-125] == b"TAG":
        return 128
    if tail[-32:-24] == b"APETAGEX":
        length, flags = struct.unpack("<12xI4xI8x", tail[-32:])
        return int(length) + (32 if flags >> 31 else 0)
    if tail[-9:] == b"LYRICS200" and tail[-15:-9].isdigit():
        return int(tail[-15:-9]) + 15
    if tail[-10:-7] == b"3DI" and all(byte < 128 for byte in tail[-4:]):
        return 20 + _synchsafe(tail[-4:])
    return 0


def _synchsafe(four: bytes) -> int:
    return sum(byte << shift for byte, shift in zip(four, (21, 14, 7, 0), strict=True))


def stated_mp3_seconds(file: BinaryIO, first_packet: int) -> float | None:
    """Length of an MP3 in seconds as stated in its Xing, Info or VBRI frame, which FFmpeg ignores.

    Args:
        file: open for reading.
        first_packet: first byte of the first audio frame.

    Returns:
        None without such a frame.

    Source: K. Windszus, MPEG Audio Frame Header (2007); LAME's Info tag, revision 1.
    """
    base = max(0, first_packet - _LONGEST_MP3_FRAME)
    before = peek(file, base, first_packet - base)
    for at in range(len(before) - 54, -1, -1):
        if before[at] != 0xFF or before[at + 1] & 0xE6 != 0xE2:  # layer III
            continue
        version, rate_index = before[at + 1] >> 3 & 3, before[at + 2] >> 2 & 3
        if version == 1 or rate_index == 3:
            continue
        rate = _MP3_RATES[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
        newest, mono = version == 3, before[at + 3] >> 6 == 3
        mark = at + 4 + ((17 if mono else 32) if newest else (9 if mono else 17))
        frames = unheard = 0
        if before[mark : mark + 4] in (b"Xing", b"Info"):
            flags, frames = struct.unpack(">II", before[mark + 4 : mark + 12].ljust(8, b"\0"))
            frames = frames if flags & 1 else 0
            delay = int.from_bytes(before[mark + 141 : mark + 144])
            unheard = (delay >> 12) + (delay & 0xFFF)
        elif before[at + 36 : at + 40] == b"VBRI":
            frames = int.from_bytes(before[at + 50 : at + 54])
        else:
            continue
        return max(0, frames * (1152 if newest else 576) - unheard) / rate if frames else None
    return None


def ogg_links(file: BinaryIO, start: int, end: int) -> list[tuple[int, int]]:
    """Start and end of each stream chained in an Ogg file. Source: RFC 3533."""
    starts = [start]
    group = start  # end of the first pages of multiplexed streams
    for position in _places(file, OGG_START, start, end):
        if position > group:
            starts.append(position)
        page = peek(file, position, 27 + 255)
        group = position + 27 + sum(page[26:27]) + sum(page[27 : 27 + page[26]])
    return list(zip(starts, [*starts[1:], end], strict=True))


def flac_links(file: BinaryIO, start: int, end: int) -> list[tuple[int, int]]:
    """Start and end of each of several concatenated FLAC files. Source: RFC 9639."""
    starts = [start, *_places(file, FLAC_START, start + 1, end)]
    return list(zip(starts, [*starts[1:], end], strict=True))


def _places(file: BinaryIO, mark: bytes, start: int, end: int) -> Iterator[int]:
    """Positions of a mark in a part of a file."""
    position, rest = start, b""
    while position + len(rest) < end:
        piece = rest + peek(file, position + len(rest), min(_PIECE, end - position - len(rest)))
        if len(piece) == len(rest):
            return
        found = piece.find(mark)
        while found >= 0:
            yield position + found
            found = piece.find(mark, found + 1)
        rest = piece[-len(mark) + 1 :]
        position += len(piece) - len(rest)


def without_trailing_zeros(file: BinaryIO, start: int, end: int) -> int:
    """End of a part of a file without trailing zeros, which recorders that preallocate leave."""
    while end > start:
        first = max(start, end - _PIECE)
        if kept := peek(file, first, end - first).rstrip(b"\0"):
            return first + len(kept)
        end = first
    return start


def has_end_of_stream(file: BinaryIO, end: int) -> bool:
    """Whether the last page of an Ogg file is complete and marked as the last. Source: RFC 3533."""
    start = max(0, end - LONGEST_OGG_PAGE)
    tail = peek(file, start, end - start)
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or not page[5] & 4:
        return False
    lacing = page[27 : 27 + page[26]]
    return len(page) >= 27 + page[26] + sum(lacing)


def mp4_fragments(file: BinaryIO, start: int, end: int) -> tuple[bool, bool]:
    """Whether an MP4 is fragmented, and whether its last box is truncated. Source: ISO/IEC 14496-12."""
    position, fragmented = start, False
    for _ in range(_MOST_BOXES):
        box = peek(file, position, 16)
        if len(box) < 8:
            return fragmented, position < end
        length, name = struct.unpack(">I4s", box[:8])
        if length == 1 and len(box) == 16:
            (length,) = struct.unpack(">8xQ", box)
        fragmented |= name in (b"moof", b"sidx", b"styp")
        if length == 0 or position + length == end:  # to the end of the file
            return fragmented, False
        if length < 8 or position + length > end:
            return fragmented, length >= 8
        position += length
    return fragmented, False


def index_comes_last(head: bytes) -> bool:
    """Whether these first bytes are those of an MP4 that cannot be read forward."""
    position, boxes = 0, 0
    while len(box := head[position : position + 8]) == 8:
        length, name = struct.unpack(">I4s", box)
        if name not in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"uuid"):
            return boxes > 0
        if name == b"moov":
            return False
        if name == b"mdat" or length < 8:
            return True
        boxes += 1
        position += length
    return boxes > 0


def why_not_audio(head: bytes) -> str:
    """Why a file with these first bytes cannot be decoded, as the predicate of a sentence."""
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the recording: run 'git lfs pull'"
    if head[4:8] == b"ftyp":
        return "has no index (moov): it was truncated or never finished; copy it again"
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8")):
        return "holds no audio stream: it is a picture, or a video without sound"
    if head.isascii() and b"\0" not in head:
        return "is a text file, not a recording"
    return "is not a recording: neither libsndfile nor FFmpeg knows its format, or its header is broken"
