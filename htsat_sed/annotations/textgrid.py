"""Praat TextGrid: one file per recording, one interval tier per class.

A tier is named after its class, and so are the intervals of its events; the intervals between events are
empty, as Praat requires. Overlapping events of one class are in further tiers, ``Speech (2)``. The grid ends
with the recording, or with the last event if the duration is unknown, or after 1 s without events; a
recording without events has one empty tier, ``events``. Times have 6 decimals. Scores are not stored. Quotes
are doubled, control characters are escaped, see `text`.

Source: Praat manual, "TextGrid file formats".
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from htsat_sed.annotations.text import CONTROL, Collected, escape, logger, number, read_text, timed, unescape
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError, UsageError

SUFFIX = ".TextGrid"

TEXTGRID_HEADER = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'

# Praat reads a text file as its free-standing numbers, quoted texts and flags; the rest is comment.
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|(?<!\S)(<exists>|[-+]?[\d.]+(?:[eE][-+]?\d+)?)(?!\S)|(?<!\S)!.*')

_Interval = tuple[str, str, str]  # onset, offset, text
_Token = tuple[int, str]  # line and text


def textgrid_lines(filename: str, events: Sequence[Event], duration: float | None = None) -> str:
    """The grid of one recording, after the header."""
    tiers = tiers_of([(onset, offset, event.label) for onset, offset, event in timed(events, decimals=6)])
    last = max((float(intervals[-1][1]) for intervals in tiers.values() if intervals), default=0.0)
    xmax = f"{max(last, duration or 0.0) or 1.0:.6f}"
    lines = ["xmin = 0", f"xmax = {xmax}", "tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for index, (name, intervals) in enumerate(tiers.items(), start=1):
        filled = _fill(intervals, xmax)
        lines += [f"    item [{index}]:", '        class = "IntervalTier"', f"        name = {_quoted(name)}"]
        lines += ["        xmin = 0", f"        xmax = {xmax}", f"        intervals: size = {len(filled)}"]
        for number_, (onset, offset, text) in enumerate(filled, start=1):
            lines += [f"        intervals [{number_}]:", f"            xmin = {onset}"]
            lines += [f"            xmax = {offset}", f"            text = {_quoted(text)}"]
    return "\n".join(lines) + "\n"


def tiers_of(intervals: Sequence[_Interval]) -> dict[str, list[_Interval]]:
    """Put each interval (onset, offset, label) into the first tier of its label without overlap."""
    labels = {label for _, _, label in intervals}
    tiers: dict[str, list[_Interval]] = {label: [] for label in sorted(labels)}
    for interval in intervals:
        onset, _, label = interval
        further = (name for name in (f"{label} ({n})" for n in itertools.count(2)) if name not in labels)
        for name in itertools.chain([label], further):
            tier = tiers.setdefault(name, [])
            if not tier or float(tier[-1][1]) <= float(onset):
                tier.append(interval)
                break
    return tiers or {"events": []}


def _fill(intervals: Sequence[_Interval], xmax: str) -> list[_Interval]:
    """Fill gaps with empty intervals."""
    filled, at = [], "0"
    for onset, offset, text in intervals:
        if float(at) < float(onset):
            filled.append((at, onset, ""))
        filled.append((onset, offset, text))
        at = offset
    if float(at) < float(xmax):
        filled.append((at, xmax, ""))
    return filled


def _quoted(text: str) -> str:
    return '"' + escape(text, CONTROL).replace('"', '""') + '"'


def read_textgrid(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Read a TextGrid, long or short, UTF-8 or UTF-16.

    Every interval with text, in any tier, is an event with this label. Point tiers are skipped with a
    warning.

    Returns:
        One recording, named like the file without ``.TextGrid``.

    Raises:
        AnnotationError: the file cannot be read or is no such TextGrid.
    """
    name = Path(path).name
    recording = name[: -len(SUFFIX)] if name.lower().endswith(SUFFIX.lower()) else name
    collected = Collected(path)
    collected.recording(recording)
    grid = read_text(path)
    if grid.startswith("ooBinaryFile"):
        raise AnnotationError(path, "is a binary file of Praat: save it as a text file")
    tokens = _tokens(grid)
    try:
        kind, content = next(tokens)[1], next(tokens)[1]
        if not kind.startswith("ooTextFile") or content != "TextGrid":
            raise AnnotationError(path, f"is not a TextGrid but {kind} of {content}")
        _, _, exists = next(tokens), next(tokens), next(tokens)
        tiers = _count(next(tokens)[1]) if exists[1] == "<exists>" else 0
        for _ in range(tiers):
            tier, tier_name = next(tokens)[1], next(tokens)[1]
            _, _, size = next(tokens), next(tokens), _count(next(tokens)[1])
            if tier not in ("IntervalTier", "TextTier"):
                raise AnnotationError(path, f"has a tier of the unknown kind {tier!r}")
            if tier == "TextTier":
                logger.warning("%s: point tier %r skipped: %d points without length", path, tier_name, size)
                for _ in range(2 * size):
                    next(tokens)
                continue
            for _ in range(size):
                (line, onset), (_, offset), (_, text) = next(tokens), next(tokens), next(tokens)
                if text.strip():
                    bounds = number(path, line, "xmin", onset), number(path, line, "xmax", offset)
                    collected.add(line, recording, Event(*bounds, unescape(text)))
    except StopIteration:
        raise AnnotationError(path, "is cut short: fewer tiers or intervals than announced") from None
    except ValueError as error:
        raise AnnotationError(path, f"is not a TextGrid: {error}") from error
    return collected.table()


def _count(text: str) -> int:
    """A number of tiers or intervals; `UsageError` for any other text."""
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UsageError(f"wanted a number of tiers or intervals, got {text:.40}")
    return int(text)


def _tokens(text: str) -> Iterator[_Token]:
    line, at = 1, 0
    for found in _TOKEN.finditer(text):
        line, at = line + text.count("\n", at, found.start()), found.start()
        if found[1] is not None:
            yield line, found[1].replace('""', '"')
        elif found[2] is not None:
            yield line, found[2]
