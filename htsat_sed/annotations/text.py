r"""Common parts of all text formats: characters that a file cannot hold, and times as text.

A label or the name of a recording may hold what a format has no place for: a tab in a table without
quotes, a byte that is not UTF-8 (which Python keeps as a lone surrogate). Such a character is written as
JSON would, ``\u0009`` or ``\udcff``, with four lower-case hexadecimal digits, and read back as itself; a
backslash that would read as the start of one is written ``\u005c``. All else is written as it is.

Labels are read without the blanks at their ends and as composed Unicode (NFC), so that two that look the
same are the same. Names of recordings are read without blanks at their ends; names that differ in composition
alone are one recording, called as it was first met.
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

CONTROL = r"\x00-\x1f\x7f\x85\u2028\u2029"
"""Characters that some programs take for line ends, for `escape`."""

LATEST = 1e9
"""Seconds, 31 years: later events are refused, since their times have hundreds of digits."""

_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]+)?|[-+]?(?:nan|inf)", re.IGNORECASE)
_ESCAPE = re.compile(r"\\u([0-9a-f]{4})")


def escape(text: str, also: str = "") -> str:
    r"""Write out what a file cannot hold.

    Args:
        text: any text, lone surrogates included.
        also: what this format cannot hold, as the inside of a regular expression's ``[...]``.

    Returns:
        Text that encodes as UTF-8 and has none of `also`; `unescape` takes it back.
    """
    pattern = rf"[\ud800-\udfff{also}]|\\(?=u[0-9a-f]{{4}})"
    return re.sub(pattern, lambda found: f"\\u{ord(found[0]):04x}", text)


def escape_ends(text: str) -> str:
    """Write out a blank at either end of a name, which readers of tables drop; `unescape` takes it back."""
    return re.sub(r"^\s|\s$", lambda found: f"\\u{ord(found[0]):04x}", text)


def unescape(text: str) -> str:
    """Take `escape` back."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a UTF-8 file, or one of the UTF-16 files that Praat and spreadsheets write.

    Returns:
        The text without a byte order mark, line ends as they are.

    Raises:
        AnnotationError: there is no such file, it cannot be read, or is in another encoding.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise AnnotationError(path, f"cannot be read: {error.strerror}") from error
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise AnnotationError(path, f"line {line}: not UTF-8 text, save it as UTF-8") from error


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that hold more than blanks, each with its number, from 1; CRLF and CR end lines too."""
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        if line.strip():
            yield number, line


def timed(events: Iterable[Event], *, decimals: int) -> Iterator[tuple[str, str, Event]]:
    """Put events in order and their times into text.

    Args:
        events: of one recording.
        decimals: of the times, which are rounded to the nearest. An event that rounding would leave
            without length begins one last digit earlier; at 0 it ends one later.

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
    """A recording with its events, and what is known of it, for a writer.

    Attributes:
        filename: the recording.
        events: its events, in any order.
        duration: seconds, if known.
        start: when it began, if known.
    """

    filename: str
    events: Sequence[Event]
    duration: float | None = None
    start: Start | None = None


CHANNEL = ("channel",)
"""The column of tables of events that have channels."""

CLOCK = ("begin", "end", "clock", "recording_duration")
"""The columns of tables with clock times: ISO 8601, the source of the time, and seconds."""


def clock_cells(
    start: Start | None, onset: str, offset: str, duration: float | None
) -> tuple[str, str, str, str]:
    """The cells of `CLOCK` of an event; empty where it is not known when the recording began."""
    length = "" if duration is None else f"{duration:.3f}"
    if start is None:
        return "", "", "", length
    return start.iso(float(onset)), start.iso(float(offset)), start.source, length


def channel_of(text: str) -> int:
    """A channel counted from 1, from a cell; 0 where the cell is no such number."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0


def number(path: str | os.PathLike[str], line: int, name: str, text: str, *, comma: bool = False) -> float:
    """A number of 0 or more from a cell.

    Args:
        path: the file, for the error.
        line: its line, for the error.
        name: what the number is, for the error.
        text: the cell.
        comma: a comma may stand for the decimal point.

    Raises:
        AnnotationError: it is no number in ASCII digits, NaN, infinite or negative.
    """
    value = signed_number(path, line, name, text, comma=comma)
    if value < 0.0:
        raise AnnotationError(path, f"line {line}: {name} is {text.strip():.40}, wanted 0 or more")
    return value


def signed_number(
    path: str | os.PathLike[str], line: int, name: str, text: str, *, comma: bool = False
) -> float:
    """The same, but negative numbers too."""
    plain = text.strip().replace(",", ".") if comma else text.strip()
    # float() also takes 1_000 and the digits of other scripts, which are more often a mistake than meant.
    if not _NUMBER.fullmatch(plain):
        raise AnnotationError(path, f"line {line}: {name} is no number: {text!r:.60}")
    value = float(plain)
    if not math.isfinite(value):
        raise AnnotationError(path, f"line {line}: {name} is {plain:.40}, wanted 0 or more")
    return value


class Names:
    """Names of recordings; those that differ in Unicode composition or blanks alone are the same."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def of(self, name: str) -> str:
        """The name as it was first met."""
        return self._first.setdefault(normal(name), name)


class Collected:
    """Events as they are read, under the rules that hold for every format.

    No label, or an offset before the onset, is an error. An event without length and an event that was there
    before (all of recording, onset, offset, label, score and channel alike) are dropped; `table` warns how
    many were. Labels become `normal`; names of recordings lose the blanks at their ends.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._names = Names()
        self._events: dict[str, dict[Event, None]] = {}
        self._dropped: dict[str, list[int]] = {}

    def recording(self, filename: str) -> dict[Event, None]:
        """Note a recording, be it with or without events; returns its events so far."""
        return self._events.setdefault(self._names.of(filename), {})

    def drop(self, line: int, what: str) -> None:
        """Leave out the event in this line; `what` ends "1 event ..."."""
        self._dropped.setdefault(what, []).append(line)

    def add(self, line: int, filename: str, event: Event) -> None:
        """Add one event, found in this line.

        Raises:
            AnnotationError: the label is empty or blank, the offset lies before the onset, or the score is
                not in [0, 1].
        """
        label = normal(event.label)
        if not label:
            raise AnnotationError(self._path, f"line {line}: no label")
        event = replace(event, label=label)
        if event.offset < event.onset:
            reason = f"line {line}: offset {event.offset:g} lies before onset {event.onset:g}"
            raise AnnotationError(self._path, reason)
        if event.offset > LATEST:
            reason = f"line {line}: offset {event.offset:g} is later than any recording lasts ({LATEST:g} s)"
            raise AnnotationError(self._path, reason)
        if not 0.0 <= event.score <= 1.0:
            raise AnnotationError(self._path, f"line {line}: score is {event.score:g}, wanted 0 to 1")
        own = self.recording(filename)
        if event.offset == event.onset:
            self.drop(line, "without length")
        elif event in own:
            self.drop(line, "given twice")
        else:
            own[event] = None

    def table(self) -> dict[str, list[Event]]:
        """The events of each recording, ordered by onset, offset and label; recordings as first met."""
        for what, lines in self._dropped.items():
            events = "1 event" if len(lines) == 1 else f"{len(lines)} events"
            logger.warning("%s: %s %s dropped, the first in line %d", self._path, events, what, lines[0])
        return {filename: sorted(events) for filename, events in self._events.items()}
