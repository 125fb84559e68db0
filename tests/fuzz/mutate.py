"""Ways to damage a file: bytes, numbers and words changed, blocks moved, archives repacked around a change."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Sequence

LARGEST = 1 << 22  # bytes of a mutated file; larger ones test the disk
NUMBERS = (
    *("0", "-1", "-0.0", "1e308", "1e-320", "NaN", "nan", "inf", "-Infinity", "1_000", "٣", "0x10", "1,5"),
    *("9" * 400, "18446744073709551616", "00:00:00.000", "1e5000", "2147483648", "", "true", "null"),
)
INTEGERS = (0, 1, 2, 3, 7, 8, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 62)
WORDS = (
    *(
        b"\0",
        b"\n",
        b"\r\n",
        b"\t",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xff",
        b'"',
        b"'",
        b"\\",
        b"\x1b[2J",
        b",",
    ),
    *(b"[/b]", b"[music]", b"../../etc/passwd", b"/dev/zero", b"=1+1", b"-->", b"[" * 4000, b"a." * 4000),
    *(
        b"{" * 400,
        b"e\xcc\x81",
        b"\xed\xa0\x80",
        b"\xe2\x80\xa8",
        b"RIFF",
        b"data",
        b"fLaC",
        b"OggS",
        b"#EXTM3U\n",
    ),
)

Change = Callable[[bytes, random.Random, Sequence[bytes]], bytes]


def _place(data: bytes, rng: random.Random) -> int:
    """A place in a file, more often in its first bytes, where headers are."""
    end = len(data) if rng.random() < 0.5 else min(len(data), 256)
    return rng.randrange(end + 1)


def _block(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = _place(data, rng)
    return start, min(len(data), start + rng.choice((1, 2, 4, 16, 64, 1024, 1 << 14)))


def flip_bit(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    """Change one bit."""
    place = min(_place(data, rng), len(data) - 1)
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


def set_integer(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    """Write an integer of 1 to 8 bytes that a size or count may not expect."""
    width, order = rng.choice((1, 2, 4, 4, 8)), rng.choice("<>")
    value = rng.choice(INTEGERS) & ((1 << 8 * width) - 1)
    code = {1: "B", 2: "H", 4: "I", 8: "Q"}[width]
    place = _place(data, rng)
    return data[:place] + struct.pack(order + code, value) + data[place + width :]


def set_number(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    """Replace a number that is written as text."""
    found = list(re.finditer(rb"-?\d+(?:\.\d+)?", data[: 1 << 16]))
    if not found:
        return set_integer(data, rng, ())
    number = rng.choice(found)
    return data[: number.start()] + rng.choice(NUMBERS).encode() + data[number.end() :]


def insert_word(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    """Insert bytes that mean something to some reader."""
    place = _place(data, rng)
    return data[:place] + rng.choice(WORDS) + data[place:]


def delete_block(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    """Leave a block out."""
    start, end = _block(data, rng)
    return data[:start] + data[end:]


def repeat_block(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    """Repeat a block, up to 64 times."""
    start, end = _block(data, rng)
    return data[:start] + data[start:end] * rng.choice((2, 3, 64)) + data[end:]


def zero_block(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    """Fill a block with zeros, as a power cut does."""
    start, end = _block(data, rng)
    return data[:start] + bytes(end - start) + data[end:]


def truncate(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    """Cut the end off."""
    return data[: _place(data, rng)]


def splice(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Continue with a part of another file."""
    other = rng.choice(others) if others else data
    return data[: _place(data, rng)] + other[_place(other, rng) :]


CHANGES: tuple[Change, ...] = (
    *(flip_bit, set_integer, set_number, insert_word, delete_block),
    *(repeat_block, zero_block, truncate, splice),
)


def damage(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Apply one to four changes."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not data:
            break
        data = rng.choice(CHANGES)(data, rng, others)[:LARGEST]
    return data


def damage_zip(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Change a member and pack the archive again with right checksums, stored or deflated; or damage it as it is."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(each.filename, archive.read(each)) for each in archive.infolist()]
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError, ValueError):
        return damage(data, rng, others)
    if not members or rng.random() < 0.2:
        return damage(data, rng, others)
    changed = rng.randrange(len(members))
    name, content = members[changed]
    members[changed] = name, damage(content, rng, others)
    if rng.random() < 0.1:
        members.append(rng.choice(members))
    packed = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if rng.random() < 0.2 else zipfile.ZIP_STORED
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w", method) as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, content in members:
            archive.writestr(name, content)
    return packed.getvalue()


def damage_safetensors(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Change the header of a safetensors file under a length that fits it; or damage the file as it is."""
    if len(data) < 8 or rng.random() < 0.2:
        return damage(data, rng, others)
    (length,) = struct.unpack("<Q", data[:8])
    header, arrays = data[8 : 8 + length], data[8 + length :]
    try:
        entries = json.loads(header)
        metadata = entries.get("__metadata__")
    except (ValueError, AttributeError, RecursionError):
        return damage(data, rng, others)
    if metadata and rng.random() < 0.6:  # our own description of the model
        name = rng.choice(sorted(metadata))
        metadata[name] = damage(str(metadata[name]).encode(), rng, others).decode(errors="replace")
        header = json.dumps(entries).encode()
    else:
        header = damage(header, rng, others)
    return struct.pack("<Q", len(header)) + header + arrays
