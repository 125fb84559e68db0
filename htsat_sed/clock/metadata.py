"""Start times in the metadata that recorders write.

Source: GUANO Metadata Specification 1.0; AudioMoth firmware, ``setHeaderComment`` of 1.0.0 to 1.11.0;
Wildlife Acoustics, ``wa_meta.h`` 1.0; EBU Tech 3285 (bext); iXML Specification 3.01; ISO/IEC 14496-12 (mvhd).
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import BinaryIO

from htsat_sed.errors import UsageError

_LARGEST = 1 << 20  # bytes read of a chunk
_MOST_CHUNKS = 1000
_WAVES = {b"RIFF": "<", b"RF64": "<", b"BW64": "<", b"RIFX": ">"}
_FLAC_APPLICATION, _FLAC_COMMENTS = 2, 4
_WAMD_TIMESTAMP = 5
_MP4_EPOCH = datetime(1904, 1, 1, tzinfo=UTC)
_EARLIEST_YEAR = 1990  # earlier times come from unset clocks

_ISO = re.compile(
    r"(\d{4})[-:](\d\d)[-:](\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s*"
    r"(Z|UTC|[+-]\d\d(?::?\d\d)?)?",
    re.IGNORECASE,
)
_AUDIOMOTH = re.compile(
    r"Recorded at (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))? (\d\d)/(\d\d)/(\d{4})"
    r"(?: \(UTC([+-]\d{1,2})?(?::?(\d\d))?\))? (?:by AudioMoth|during deployment)"
)
_GUANO = re.compile(r"^Timestamp:(.*)$", re.MULTILINE)
_IXML_DATE = re.compile(r"<BWF_ORIGINATION_DATE>\s*([^<]*?)\s*</BWF_ORIGINATION_DATE>")
_IXML_TIME = re.compile(r"<BWF_ORIGINATION_TIME>\s*([^<]*?)\s*</BWF_ORIGINATION_TIME>")


def read_times(file: BinaryIO) -> Iterator[tuple[str, datetime]]:
    """Read all start times of a recording, the most reliable first.

    Args:
        file: the recording, open for reading.

    Yields:
        Source (``guano``, ``audiomoth``, ``wamd``, ``bext``, ``ixml`` or ``mp4``) and time, naive if the
        source has no zone.
    """
    head = file.read(12)
    chunks: Mapping[str, bytes] = {}
    if head[:4] in _WAVES and head[8:12] == b"WAVE":
        chunks = _wave_chunks(file, _WAVES[head[:4]])
    elif head[:4] == b"fLaC":
        chunks = _flac_chunks(file)
    elif head[4:8] == b"ftyp":
        created = _mp4_created(file)
        if created is not None and created.year >= _EARLIEST_YEAR:
            yield "mp4", created
    for source, chunk, parse in (
        ("guano", "guan", _guano),
        ("audiomoth", "ICMT", audiomoth_time),
        ("wamd", "wamd", _wamd),
        ("bext", "bext", _bext),
        ("ixml", "iXML", _ixml),
    ):
        found = parse(chunks[chunk]) if chunk in chunks else None
        if found is not None and found.year >= _EARLIEST_YEAR:
            yield source, found


def iso_time(text: str) -> datetime | None:
    """The first ISO 8601 date and time in a text, separated by ``T`` or a space; None if there is none."""
    found = _ISO.search(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        away = None if zone is None else offset(zone)
    except ValueError:
        return None
    return moment((year, month, day, hour, minute, second), fraction, away)


def moment(
    numbers: Sequence[str | None], fraction: str | None = None, zone: tzinfo | None = None
) -> datetime | None:
    """The time of six numbers, from year to second, and decimals of the second; None if invalid."""
    year, month, day, hour, minute, second = (int(number or 0) for number in numbers)
    try:
        microsecond = int((fraction or "0")[:6].ljust(6, "0"))
        return datetime(year, month, day, hour, minute, second, microsecond, zone)
    except ValueError:
        return None


def offset(text: str) -> timezone:
    """Parse an offset from UTC: ``Z``, ``UTC``, ``+02``, ``+0200`` or ``+02:00``.

    Raises:
        UsageError: its minutes exceed 59.
        ValueError: it is a day or more.
    """
    if text.upper() in ("Z", "UTC"):
        return UTC
    hours, minutes = int(text[1:3]), int(text[3:].lstrip(":") or 0)
    if minutes > 59:
        raise UsageError(f"wanted an offset from UTC such as +02:00, got {text}")
    away = timedelta(hours=hours, minutes=minutes)
    return timezone(-away if text[0] == "-" else away)


def audiomoth_time(comment: bytes) -> datetime | None:
    """The time in the comment of any AudioMoth firmware; 1.0.0 names no zone and means UTC."""
    found = _AUDIOMOTH.search(comment.decode("latin-1"))
    if found is None:
        return None
    hour, minute, second, fraction, day, month, year, zone_hours, zone_minutes = found.groups()
    sign = -1 if (zone_hours or "").startswith("-") else 1
    away = timedelta(hours=abs(int(zone_hours or 0)), minutes=int(zone_minutes or 0))
    return moment((year, month, day, hour, minute, second), fraction, timezone(sign * away))


def _guano(chunk: bytes) -> datetime | None:
    found = _GUANO.search(chunk.decode("utf-8", "replace").replace("\r", "\n"))
    return iso_time(found[1]) if found is not None else None


def _wamd(chunk: bytes) -> datetime | None:
    """The timestamp field; a field is a 2-byte number, a 4-byte length and a value."""
    position = 0
    while position + 6 <= len(chunk):
        name, length = struct.unpack_from("<HI", chunk, position)
        position += 6
        if name == _WAMD_TIMESTAMP:
            return iso_time(chunk[position : position + length].decode("latin-1"))
        position += length
    return None


def _bext(chunk: bytes) -> datetime | None:
    return _date_and_time(chunk[320:330].decode("latin-1"), chunk[330:338].decode("latin-1"))


def _ixml(chunk: bytes) -> datetime | None:
    # Without an XML parser, which untrusted input could exhaust with nested entities.
    text = chunk.decode("utf-16" if chunk[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", "replace")
    date, time = _IXML_DATE.search(text), _IXML_TIME.search(text)
    return _date_and_time(date[1], time[1]) if date and time else None


def _date_and_time(date: str, time: str) -> datetime | None:
    """A date and a time with any separators."""
    numbers = re.findall(r"\d+", date)[:3] + re.findall(r"\d+", time)[:3]
    return moment(numbers) if len(numbers) == 6 else None


def _wave_chunks(file: BinaryIO, order: str) -> dict[str, bytes]:
    """The chunks of a WAV file that may hold a time, including the subchunks of ``LIST INFO``."""
    found: dict[str, bytes] = {}
    wide = 0
    size = file.seek(0, os.SEEK_END)
    position = 12
    for _ in range(_MOST_CHUNKS):
        file.seek(position)
        if len(head := file.read(8)) < 8:
            break
        name, length = struct.unpack(f"{order}4sI", head)
        if name == b"ds64":
            wide = struct.unpack("<8xQ", file.read(16).ljust(16, b"\0"))[0]
        elif name == b"data" and length == 0xFFFFFFFF:
            length = wide or size
        elif name in (b"guan", b"wamd", b"bext", b"iXML"):
            found.setdefault(name.decode(), file.read(min(length, _LARGEST)))
        elif name == b"LIST":
            _keep_info(file.read(min(length, _LARGEST)), order, found)
        position += 8 + length + length % 2
    return found


def _keep_info(chunk: bytes, order: str, found: dict[str, bytes]) -> None:
    position = 4
    while chunk[:4] == b"INFO" and position + 8 <= len(chunk):
        name, length = struct.unpack_from(f"{order}4sI", chunk, position)
        found.setdefault(name.decode("latin-1"), chunk[position + 8 : position + 8 + length])
        position += 8 + length + length % 2


def _flac_chunks(file: BinaryIO) -> dict[str, bytes]:
    """The chunks of the WAV file from which a FLAC file was made, and its comments.

    Source: RFC 9639, and ``flac --keep-foreign-metadata``, which keeps chunks in APPLICATION blocks "riff".
    """
    found: dict[str, bytes] = {}
    position = 4
    for _ in range(_MOST_CHUNKS):
        file.seek(position)
        if len(head := file.read(4)) < 4:
            break
        kind, length = head[0] & 0x7F, int.from_bytes(head[1:])
        block = file.read(min(length, _LARGEST)) if kind in (_FLAC_APPLICATION, _FLAC_COMMENTS) else b""
        if kind == _FLAC_COMMENTS and (comment := _AUDIOMOTH.search(block.decode("latin-1"))):
            found.setdefault("ICMT", comment[0].encode("latin-1"))
        elif block[:4] == b"riff" and block[4:8] == b"LIST":
            _keep_info(block[12:], "<", found)
        elif block[:4] == b"riff":
            found.setdefault(block[4:8].decode("latin-1"), block[12:])
        if head[0] & 0x80:
            break
        position += 4 + length
    return found


def _mp4_created(file: BinaryIO) -> datetime | None:
    """Creation time in the movie header of an MP4 file."""
    size = file.seek(0, os.SEEK_END)
    movie = _box(file, b"moov", 0, size)
    header = _box(file, b"mvhd", *movie) if movie else None
    if header is None:
        return None
    file.seek(header[0])
    fields = file.read(12).ljust(12, b"\0")
    seconds = struct.unpack(">4xQ" if fields[0] == 1 else ">4xI4x", fields)[0]
    try:
        return _MP4_EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return None


def _box(file: BinaryIO, wanted: bytes, position: int, end: int) -> tuple[int, int] | None:
    """Start and end of the content of an MP4 box."""
    for _ in range(_MOST_CHUNKS):
        file.seek(position)
        head = file.read(16)
        if position + 8 > end or len(head) < 8:
            return None
        length, name = struct.unpack(">I4s", head[:8])
        own = 8
        if length == 1 and len(head) == 16:
            length, own = struct.unpack(">8xQ", head)[0], 16
        length = end - position if length == 0 else length
        if name == wanted:
            return position + own, min(end, position + length)
        if length < own:
            return None
        position += length
    return None
