r"""Common parts of all text formats: escaping of characters, and times as text.

Labels and names of recordings may contain characters that a format cannot represent: a tab in a table without
quotes, or a byte that is not UTF-8 (a lone surrogate in Python). Such a character is escaped as in JSON,
``\u0009`` or ``\udcff``, with four lower-case hexadecimal digits; a backslash that would begin an escape is
written as ``\u005c``. Other characters are unchanged.

Labels are read without surrounding whitespace and as composed Unicode (NFC), so that labels that look the
same are equal. Names of recordings are read without surrounding whitespace; names that differ only in
composition are one recording, with the first name.
"""

from __future__ import annotations

import codecs
import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from htsat_sed.clock import Start
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError, UsageError
from htsat_sed.labels import normal

logger = logging.getLogger("htsat_sed")

_RECORDINGS = (b"RIFF", b"RF64", b"FORM", b"fLaC", b"OggS", b"ID3")

CONTROL = r"\x00-\x1f\x7f\x85\u2028\u2029"
"""Characters that some programs treat as line breaks, for `escape`."""

LATEST = 1e9
"""Latest offset in seconds, 31 years; later times may have hundreds of digits."""

_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]+)?|[-+]?(?:nan|inf)", re.IGNORECASE)
_ESCAPE = re.compile(r"\\u([0-9a-f]{4})")


def escape(text: str, also: str = "") -> str:
    r"""Escape characters that a file cannot represent.

    Args:
        text: any text, including lone surrogates.
        also: further characters to escape, as in a regular expression's ``[...]``.

    Returns:
        Text that can be encoded as UTF-8 and has none of `also`; `unescape` is the inverse.
    """
    pattern = rf"[\ud800-\udfff{also}]|\\(?=u[0-9a-f]{{4}})"
    return re.sub(pattern, lambda found: f"\\u{ord(found[0]):04x}", text)


def escape_ends(text: str) -> str:
    """Escape whitespace at the ends of a name, which readers of tables drop; `unescape` is the inverse."""
    return re.sub(r"^\s|\s$", lambda found: f"\\u{ord(found[0]):04x}", text)


def unescape(text: str) -> str:
    """Inverse of `escape`."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a UTF-8 file, or one of the UTF-16 files that Praat and spreadsheets write.

    Returns:
        The text without a byte order mark, with unchanged line breaks.

    Raises:
        AnnotationError: the file cannot be read or has another encoding.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise AnnotationError(path, f"cannot be read: {error.strerror}") from error
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if data[:4] in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE) or (not utf_16 and b"\0" in data[:4]):
        raise AnnotationError(path, _not_text(data))
    try:
        return data.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise AnnotationError(path, _not_text(data, f"line {line}: ")) from error


def _not_text(data: bytes, where: str = "") -> str:
    if data.startswith(_RECORDINGS):
        return "is a recording, wanted a label file"
    return f"{where}not UTF-8 text, save it as UTF-8 (in Excel: CSV UTF-8)"


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Non-blank lines with their numbers, from 1; lines end in LF, CRLF or CR."""
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        if line.strip():
            yield number, line


def timed(events: Iterable[Event], *, decimals: int) -> Iterator[tuple[str, str, Event]]:
    """Sort events and format their times.

    Args:
        events: events of one recording.
        decimals: decimals of the rounded times. An event that rounding would leave without duration begins
            one last digit earlier, or ends one later at 0.

    Yields:
        Onset and offset as text, and the event.

    Raises:
        ValueError: an event whose label is empty or blank, or not 0 <= onset < offset < infinity.
    """
    step = 10.0**-decimals
    for event in sorted(events):
        if not (event.label.strip() and 0.0 <= event.onset < event.offset < math.inf):
            raise UsageError(f"wanted an event with a label and 0 <= onset < offset, got {event}")
        onset, offset = round(event.onset, decimals) + 0.0, round(event.offset, decimals)
        if offset <= onset:
            onset, offset = (offset - step, offset) if offset >= step else (0.0, step)
        yield f"{onset:.{decimals}f}", f"{offset:.{decimals}f}", event


@dataclass(frozen=True)
class Described:
    """A recording with its events, for a writer.

    Attributes:
        filename: the recording.
        events: its events, in any order.
        duration: seconds, if known.
        start: start of the recording, if known.
    """

    filename: str
    events: Sequence[Event]
    duration: float | None = None
    start: Start | None = None


CHANNEL = ("channel",)
"""Column of tables with channels."""

CLOCK = ("begin", "end", "clock", "recording_duration")
"""Columns of tables with clock times: ISO 8601, the source of the time, and seconds."""


def clock_cells(
    start: Start | None, onset: str, offset: str, duration: float | None
) -> tuple[str, str, str, str]:
    """The cells of `CLOCK` of an event; empty if the start of the recording is unknown."""
    length = "" if duration is None else f"{duration:.3f}"
    if start is None:
        return "", "", "", length
    return start.iso(float(onset)), start.iso(float(offset)), start.source, length


def channel_of(text: str) -> int:
    """The channel in a cell, from 1; 0 if the cell is no such number."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0


def number(path: str | os.PathLike[str], line: int, name: str, text: str, *, comma: bool = False) -> float:
    """A number of 0 or more from a cell.

    Args:
        path: the file, for the error.
        line: its line, for the error.
        name: name of the number, for the error.
        text: the cell.
        comma: whether a decimal comma is allowed.

    Raises:
        AnnotationError: it is not a number in ASCII digits, NaN, infinite or negative.
    """
    value = signed_number(path, line, name, text, comma=comma)
    if value < 0.0:
        raise AnnotationError(path, f"line {line}: {name} is {text.strip():.40}, wanted 0 or more")
    return value


def signed_number(
    path: str | os.PathLike[str], line: int, name: str, text: str, *, comma: bool = False
) -> float:
    """A number from a cell, as by `number`, but also negative."""
    plain = text.strip().replace(",", ".") if comma else text.strip()
    # float() also accepts 1_000 and digits of other scripts, which are more likely mistakes.
    if not _NUMBER.fullmatch(plain):
        raise AnnotationError(path, f"line {line}: {name} is not a number: {text!r:.60}")
    value = float(plain)
    if not math.isfinite(value):
        raise AnnotationError(path, f"line {line}: {name} is {plain:.40}, wanted 0 or more")
    return value


class Names:
    """Names of recordings; names that differ only in Unicode composition or whitespace are equal."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def of(self, name: str) -> str:
        """The first name equal to this one."""
        return self._first.setdefault(normal(name), name)


class Collected:
    """Collects events while reading, with the rules of all formats.

    A missing label, or an offset before the onset, is an error. Events without duration and duplicates (equal
    in recording, onset, offset, label, score and channel) are dropped; `table` warns about their number.
    Labels are normalised by `normal`; surrounding whitespace of names is removed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._names = Names()
        self._events: dict[str, dict[Event, None]] = {}
        self._dropped: dict[str, list[int]] = {}

    def recording(self, filename: str) -> dict[Event, None]:
        """Add a recording, with or without events; return its events so far.

        Raises:
            AnnotationError: the name is blank.
        """
        if not normal(filename):
            raise AnnotationError(self._path, "a recording has no name")
        return self._events.setdefault(self._names.of(filename), {})

    def drop(self, line: int, what: str) -> None:
        """Drop the event in this line; `what` completes "1 event ..."."""
        self._dropped.setdefault(what, []).append(line)

    def add(self, line: int, filename: str, event: Event) -> None:
        """Add an event of a line.

        Raises:
            AnnotationError: the label is blank, the offset is before the onset, or the score is not in [0,
                1].
        """
        label = normal(event.label)
        if not label:
            raise AnnotationError(self._path, f"line {line}: no label")
        event = replace(event, label=label)
        if event.offset < event.onset:
            reason = f"line {line}: offset {event.offset:g} is before onset {event.onset:g}"
            raise AnnotationError(self._path, reason)
        if event.offset > LATEST:
            reason = f"line {line}: offset {event.offset:g} is beyond any recording ({LATEST:g} s)"
            raise AnnotationError(self._path, reason)
        if not 0.0 <= event.score <= 1.0:
            raise AnnotationError(self._path, f"line {line}: score is {event.score:g}, wanted 0 to 1")
        own = self.recording(filename)
        if event.offset == event.onset:
            self.drop(line, "without duration")
        elif event in own:
            self.drop(line, "given twice")
        else:
            own[event] = None

    def table(self) -> dict[str, list[Event]]:
        """The events of each recording, ordered by onset, offset and label."""
        for what, lines in self._dropped.items():
            events = "1 event" if len(lines) == 1 else f"{len(lines)} events"
            logger.warning("%s: %s %s dropped, the first in line %d", self._path, events, what, lines[0])
        return {filename: sorted(events) for filename, events in self._events.items()}
