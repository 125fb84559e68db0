"""Headers of recordings as recorders write them."""

import struct

AUDIOMOTH = "AudioMoth 24F319055FDF2F5B"
GPS = "by " + AUDIOMOTH + " at medium gain while battery was 4.2V and temperature was 21.5C."


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack("<4sI", name, len(content)) + content + bytes(len(content) % 2)


def wave(*before: bytes, after: bytes = b"", form: bytes = b"RIFF", rate: int = 8000) -> bytes:
    """A WAV of 0.1 s with chunks before and after its samples."""
    samples = bytes(rate // 10 * 2)
    body = b"WAVE" + chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16))
    body += b"".join(before) + chunk(b"data", samples) + after
    return struct.pack("<4sI", form, len(body)) + body


def guano(timestamp: str, *, newline: str = "\n") -> bytes:
    lines = ["GUANO|Version: 1.0", "Make: Elekon", f"Timestamp: {timestamp}", "Length: 0.1", ""]
    return chunk(b"guan", newline.join(lines).encode())


def info(comment: str) -> bytes:
    artist = chunk(b"IART", AUDIOMOTH.encode() + b"\0")
    return chunk(b"LIST", b"INFO" + chunk(b"ICMT", comment.encode().ljust(384, b"\0")) + artist)


def wamd(timestamp: str) -> bytes:
    fields = (
        (0, struct.pack("<H", 1)),
        (1, b"SM4"),
        (2, b"S4A03895"),
        (5, timestamp.encode()),
        (6, b"WGS84"),
    )
    return chunk(b"wamd", b"".join(struct.pack("<HI", name, len(value)) + value for name, value in fields))


def bext(date: str, time: str) -> bytes:
    fields = struct.pack("<256s32s32s10s8sQH", b"", b"Zoom", b"", date.encode(), time.encode(), 0, 1)
    return chunk(b"bext", fields.ljust(602, b"\0"))


def ixml(date: str, time: str) -> bytes:
    text = (
        '<?xml version="1.0" encoding="UTF-8"?><BWFXML><BEXT><BWF_ORIGINATION_DATE>'
        f"{date}</BWF_ORIGINATION_DATE><BWF_ORIGINATION_TIME>{time}</BWF_ORIGINATION_TIME></BEXT></BWFXML>"
    )
    return chunk(b"iXML", text.encode())


def mp4(seconds: int, *, version: int = 0) -> bytes:
    """The boxes of an MP4 up to its movie header; seconds since 1904."""

    def box(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(content), name) + content

    times = struct.pack(">QQ" if version else ">II", seconds, seconds)
    header = box(b"mvhd", bytes([version, 0, 0, 0]) + times + struct.pack(">I", 1000) + bytes(80))
    return box(b"ftyp", b"M4A \0\0\0\0") + box(b"mdat", bytes(100)) + box(b"moov", header)


def flac(*blocks: tuple[int, bytes]) -> bytes:
    """The head of a FLAC with metadata blocks."""
    found = b"fLaC"
    for last, (kind, content) in zip([False] * len(blocks) + [True], [(0, bytes(34)), *blocks], strict=True):
        found += bytes([kind | last << 7]) + len(content).to_bytes(3) + content
    return found
