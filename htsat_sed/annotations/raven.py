"""Raven selection tables: one file a recording, columns with tabs between them.

    Selection, View, Channel, Begin Time (s), End Time (s), Low Freq (Hz), High Freq (Hz), Annotation, Score,
    Begin File

    1	Spectrogram 1	1	0.312	1.250	50	14000	Speech	0.9312	street.wav

The seven columns that Raven makes itself come first, so that ``Annotation`` is the eighth, where other
programs look for it. Events have no frequencies: the boxes span the band that HTS-AT hears, up to half the
recording's sample rate where that is known, since Raven refuses more. Times have 3
decimals, scores 4. Raven writes no quotes, so control characters are written as `text` has it; quotes by
spreadsheets are understood, and a label that would read as quoted has its first quote written as `text` has
it. One table a recording, since in a table of many Raven counts its times through all of them.

Source: Raven Pro User's Manual, "Selection tables"; columns as in BirdNET-Analyzer's and opensoundscape's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from htsat_sed.annotations.text import (
    CONTROL,
    Collected,
    escape,
    escape_ends,
    number,
    numbered_lines,
    read_text,
    timed,
    unescape,
)
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError

SUFFIX = ".selections.txt"

LOW_HZ, HIGH_HZ = 50, 14000
"""The band of the mel front end at 32 kHz."""

_BEGIN, _END, _OFFSET = "Begin Time (s)", "End Time (s)", "File Offset (s)"
_LABELS = (
    *("annotation", "annotations", "common name", "species", "label", "labels"),
    *("class", "category", "call type", "sound type", "event", "species code", "code", "tag"),
)
_SCORES = ("score", "confidence", "probability", "detection confidence")
# Raven Pro's own columns: those named here, those with a unit, and measurements named by what they measure.
_RAVENS = frozenset(
    [
        *("selection", "view", "channel", "begin file", "end file", "begin path", "end path", "begin hour"),
        *("begin clock time", "end clock time", "begin date", "end date", "begin date time", "end date time"),
        *("energy", "length", "leq", "sel", "occupancy", "snr nist quick", "pfc num inf pts", "iqr dur"),
        *("iqr bw", "peak time relative", "max bearing", "time zone"),
    ]
)
_MEASURED = re.compile(
    r".*\((s|ms|hz|khz|hz/ms|u|u\^?2|db.*|bits|deg|frames|samples|%|m|lags)\)"
    r"|(begin|end|beg|delta|low|high|peak|max|min|avg|average|agg|aggregate|center|rms|f-rms|filtered|pfc"
    r"|inband|sample|file|bw|dur|time|freq|1st|3rd) .*(time|freq|frequency|power|density|amp|amplitude"
    r"|entropy|contour|slope|rel\.|relative|offset|samp|sample|length|lag|corr"
    r"|correlation|quartile|[0-9]+ ?%)",
    re.IGNORECASE,
)
_REMARKS = ("note", "notes", "comment", "comments", "quality", "observer", "annotator", "reviewed")
_NUMERIC = re.compile(r"[-+0-9.,:;%/ e]*", re.IGNORECASE)
_CELL = re.compile(r'(?:"((?:[^"]|"")*)"[ ]*|([^\t]*))(?:\t|$)')
_SUFFIXES = re.compile(r"((\.Table\.\d+|\.BirdNET)?\.selections?(\.table)?)?\.txt$", re.IGNORECASE)

_OURS = ("Annotation", "Score", "Begin File\n")

RAVEN_HEADER = "\t".join(
    ("Selection", "View", "Channel", _BEGIN, _END, "Low Freq (Hz)", "High Freq (Hz)", *_OURS)
)


def raven_lines(
    filename: str, events: Sequence[Event], duration: float | None = None, *, sample_rate: int | None = None
) -> str:
    """The selections of one recording.

    Args:
        filename: the recording; the table has its name without folders.
        events: its events, in any order.
        duration: without effect here.
        sample_rate: of the recording, Hz, if known.
    """
    high = HIGH_HZ if sample_rate is None else min(HIGH_HZ, sample_rate // 2)
    begin_file = escape_ends(_cell(Path(filename).name))
    return "".join(
        f"{selection}\tSpectrogram 1\t1\t{onset}\t{offset}\t{LOW_HZ}\t{high}"
        f"\t{_cell(event.label)}\t{event.score:.4f}\t{begin_file}\n"
        for selection, (onset, offset, event) in enumerate(timed(events, decimals=3), start=1)
    )


def _cell(text: str) -> str:
    return (
        escape(text[:1], CONTROL + '"') + escape(text[1:], CONTROL)
        if text[:1] == '"'
        else escape(text, CONTROL)
    )


def read_raven(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Read a selection table, of one recording or many, made by Raven or another program.

    The label is in a column of the user's own: the first that has a text of Annotation, Common Name, Species,
    Label and the like, in any case, or else of all that are neither one of Raven's measurements nor numbers.
    The score is in Score or Confidence, or 1. A selection listed once a view counts once. Where there is a
    File Offset, it is the onset. Cells may be in double quotes.

    Returns:
        The events of each recording, named as Begin File or the last part of Begin Path has it, or else as
        the table itself without ``.selections.txt``; otherwise as `read_strong_labels`. A table without
        selections is a recording without events.

    Raises:
        AnnotationError: the file cannot be read or lacks a column; or, naming the line: no label, or a time
            that is no number of 0 or more, or an offset before its onset.
    """
    collected, own_name = Collected(path), _SUFFIXES.sub("", Path(path).name)
    lines = [(line, _cells(text)) for line, text in numbered_lines(read_text(path))]
    if not lines:
        collected.recording(own_name)
        return collected.table()
    (_, names), *selections = lines
    columns = [name.strip() for name in names]
    rows = [(line, dict(zip(map(str.lower, columns), cells, strict=False))) for line, cells in selections]
    if missing := [name for name in (_BEGIN, _END) if name.lower() not in map(str.lower, columns)]:
        has = f"it has {', '.join(columns)}" if columns[1:] else "its cells have no tabs between them"
        raise AnnotationError(path, f"wanted a selection table with {' and '.join(missing)}; {has}")
    label = _label_column([name.lower() for name in columns], [cells for _, cells in rows])
    if rows and label is None:
        wanted = "wanted a column of labels, such as Annotation or Species"
        raise AnnotationError(path, f"{wanted}; it has {', '.join(columns)}")
    score = next((name for name in _SCORES if name in map(str.lower, columns)), "")
    seen: set[tuple[str | None, str, Event]] = set()
    for line, cells in rows:
        begin = number(path, line, _BEGIN, cells.get(_BEGIN.lower(), ""))
        end = number(path, line, _END, cells.get(_END.lower(), ""))
        if end < begin:
            raise AnnotationError(path, f"line {line}: End Time {end:g} lies before Begin Time {begin:g}")
        begin_file = cells.get("begin file") or re.split(r"[/\\]", cells.get("begin path", ""))[-1]
        recording = unescape(begin_file) or own_name
        if cells.get(_OFFSET.lower()):
            onset = number(path, line, _OFFSET, cells[_OFFSET.lower()])
            begin, end = onset, round(onset + end - begin, 6)
        certainty = number(path, line, score, cells[score]) if cells.get(score) else 1.0
        event = Event(begin, end, unescape(cells.get(label or "", "")), certainty)
        if (listed := (cells.get("selection"), recording, event)) not in seen:
            seen.add(listed)
            collected.add(line, recording, event)
    if not seen:
        collected.recording(own_name)
    return collected.table()


def _cells(text: str) -> list[str]:
    """The cells of a line, without quotes around them and without blanks at either end."""
    return [
        (found[2] if found[1] is None else found[1].replace('""', '"')).strip()
        for found in _CELL.finditer(text)
        if found.start() < len(text)
    ]


def _label_column(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str | None:
    """The column that the labels are in, all in lower case; None if there is none, or no selection."""
    ravens = _RAVENS.union(_SCORES)
    own = [name for name in columns if name and name not in ravens and not _MEASURED.fullmatch(name)]
    named = [name for name in _LABELS if name in own]
    others = sorted(set(own) - set(named), key=lambda name: (name in _REMARKS, own.index(name)))
    filled = [name for name in named if any(cells.get(name) for cells in rows)]
    texts = [name for name in others if any(not _NUMERIC.fullmatch(cells.get(name, "")) for cells in rows)]
    return next(iter(filled + texts + named), None)
