"""Raven selection tables: one file per recording, tab-separated columns.

    Selection, View, Channel, Begin Time (s), End Time (s), Low Freq (Hz), High Freq (Hz), Annotation, Score,
    Begin File

    1	Spectrogram 1	1	0.312	1.250	50.0	14000.0	Speech	0.9312	street.wav

Raven's own seven columns come first, so that ``Annotation`` is the eighth, where other programs expect it.
Events have no frequencies: the boxes span the band of the front end, up to half the recording's sample rate
if known, since Raven refuses more. Times have 3 decimals, scores 4. Raven writes no quotes, so control
characters are escaped, see `text`; quotes from spreadsheets are read, and the first quote of a label that
would read as quoted is escaped. A table of many recordings has ``Begin Path`` with their paths, and ``File
Offset (s)``, since its other times run on through all recordings. An unknown ``Channel`` is 1; if all are 1,
none is read.

Source: Raven Pro User's Manual, "Selection tables"; columns as in BirdNET-Analyzer's and opensoundscape's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from htsat_sed.annotations.text import (
    CONTROL,
    Collected,
    Described,
    channel_of,
    escape,
    escape_ends,
    number,
    numbered_lines,
    read_text,
    timed,
    unescape,
)
from htsat_sed.clock import Start
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError, UsageError
from htsat_sed.whole_file import whole_file

SUFFIX = ".selections.txt"

LOW_HZ, HIGH_HZ = 50.0, 14_000.0
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

RAVEN_CLOCK = ("Begin Clock Time", "Begin Date")
"""The columns of tables with clock times."""

RAVEN_HEADER = "\t".join(
    ("Selection", "View", "Channel", _BEGIN, _END, "Low Freq (Hz)", "High Freq (Hz)", *_OURS)
)


def raven_lines(
    filename: str,
    events: Sequence[Event],
    duration: float | None = None,
    *,
    sample_rate: int | None = None,
    start: Start | None = None,
    columns: Sequence[str] = (),
) -> str:
    """The selections of one recording."""
    high = HIGH_HZ if sample_rate is None else min(HIGH_HZ, sample_rate / 2)
    begin_file = escape_ends(_cell(Path(filename).name))
    return "".join(
        f"{selection}\tSpectrogram 1\t{event.channel or 1}\t{onset}\t{offset}\t{LOW_HZ}\t{high}"
        f"\t{_cell(event.label)}\t{event.score:.4f}\t{begin_file}{_clock(start, onset) if columns else ''}\n"
        for selection, (onset, offset, event) in enumerate(timed(events, decimals=3), start=1)
    )


def _clock(start: Start | None, onset: str) -> str:
    """The cells of `RAVEN_CLOCK`, each after a tab."""
    if start is None:
        return "\t\t"
    at = start.at(float(onset))
    return f"\t{at:%H:%M:%S}.{at.microsecond // 1000:03d}\t{at:%Y/%m/%d}"


def write_raven_folder(
    path: str | os.PathLike[str], recordings: Iterable[Described], columns: Sequence[str] = ()
) -> None:
    """Write one table of many recordings, as for recordings opened together in Raven.

    Begin and end times run on through all recordings, in the order of the table; ``File Offset (s)`` starts
    at 0 in each.

    Raises:
        UsageError: the duration of a recording is unknown.
        HtsatSedError: the file cannot be written.
    """
    before, selection = 0.0, 0
    with whole_file(path) as file:
        names = (*RAVEN_HEADER.rstrip("\n").split("\t"), "Begin Path", _OFFSET, *columns)
        file.write("\t".join(names) + "\n")
        for each in recordings:
            if each.duration is None:
                reason = "times in a Raven table run through all recordings"
                raise UsageError(f"the duration of {each.filename} is unknown, but needed: {reason}")
            for onset, offset, event in timed(each.events, decimals=3):
                selection += 1
                begin = round(before + float(onset), 3)
                end = begin + (float(offset) - float(onset))  # rounding keeps the length of the event
                bounds = f"{begin:.3f}\t{end:.3f}\t{LOW_HZ}\t{HIGH_HZ}"
                begin_file, begin_path = (
                    escape_ends(_cell(text)) for text in (Path(each.filename).name, each.filename)
                )
                file.write(
                    f"{selection}\tSpectrogram 1\t{event.channel or 1}\t{bounds}\t{_cell(event.label)}"
                    f"\t{event.score:.4f}\t{begin_file}\t{begin_path}\t{onset}"
                    f"{_clock(each.start, onset) if columns else ''}\n"
                )
            before += each.duration


def _cell(text: str) -> str:
    return (
        escape(text[:1], CONTROL + '"') + escape(text[1:], CONTROL)
        if text[:1] == '"'
        else escape(text, CONTROL)
    )


def read_raven(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Read a selection table of one or several recordings, from Raven or another program.

    The label is in a user column: the first non-empty one of Annotation, Common Name, Species, Label and the
    like, in any case, or else the first text column that is not a measurement of Raven. The score is in Score
    or Confidence, or 1. A selection listed once per view counts once. File Offset, if present, is the onset.
    Cells may be in double quotes.

    Returns:
        As for `read_strong_labels`; recordings are named after Begin File or the last part of Begin Path, or
        else after the table without ``.selections.txt``. A table without selections is a recording without
        events.

    Raises:
        AnnotationError: the file cannot be read or lacks a column; a row has a time that is no number of 0 or
            more, or an offset before its onset. Rows without a label are dropped, with a warning.
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
        has = f"it has {', '.join(columns)}" if columns[1:] else "its cells are not separated by tabs"
        raise AnnotationError(path, f"wanted a selection table with {' and '.join(missing)}; {has}")
    label = _label_column([name.lower() for name in columns], [cells for _, cells in rows])
    if rows and label is None:
        wanted = "wanted a column of labels, such as Annotation or Species"
        raise AnnotationError(path, f"{wanted}; it has {', '.join(columns)}")
    score = next((name for name in _SCORES if name in map(str.lower, columns)), "")
    # Tables always have a channel, which is 1 by default.
    channels = any(cells.get("channel", "1") != "1" for _, cells in rows)
    seen: set[tuple[str | None, str, Event]] = set()
    for line, cells in rows:
        begin = number(path, line, _BEGIN, cells.get(_BEGIN.lower(), ""), comma=True)
        end = number(path, line, _END, cells.get(_END.lower(), ""), comma=True)
        if end < begin:
            raise AnnotationError(path, f"line {line}: End Time {end:g} is before Begin Time {begin:g}")
        recording = _recording(cells) or own_name
        if cells.get(_OFFSET.lower()):
            onset = number(path, line, _OFFSET, cells[_OFFSET.lower()], comma=True)
            begin, end = onset, round(onset + end - begin, 6)
        certainty = number(path, line, score, cells[score], comma=True) if cells.get(score) else 1.0
        channel = channel_of(cells.get("channel", "")) if channels else 0
        event = Event(begin, end, unescape(cells.get(label or "", "")), certainty, channel)
        if not event.label:
            collected.drop(line, "without text")
        elif (listed := (cells.get("selection"), recording, event)) not in seen:
            seen.add(listed)
            collected.add(line, recording, event)
    of_many = {"begin file", "begin path", _OFFSET.lower()} <= {name.lower() for name in columns}
    if not (seen or of_many):
        collected.recording(own_name)
    return collected.table()


def _recording(cells: Mapping[str, str]) -> str:
    """Name of the recording of a selection; its relative path in a table of htsat-sed."""
    begin_file, begin_path = cells.get("begin file", ""), cells.get("begin path", "")
    if begin_file and begin_path.endswith(f"/{begin_file}") and begin_path[0] not in "/~.":
        return unescape(begin_path)
    return unescape(begin_file or re.split(r"[/\\]", begin_path)[-1])


def _cells(text: str) -> list[str]:
    """The cells of a line, without quotes and surrounding whitespace."""
    return [
        (found[2] if found[1] is None else found[1].replace('""', '"')).strip()
        for found in _CELL.finditer(text)
        if found.start() < len(text)
    ]


def _label_column(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str | None:
    """The column of labels, in lower case; None if there is none, or no selection."""
    ravens = _RAVENS.union(_SCORES)
    own = [name for name in columns if name and name not in ravens and not _MEASURED.fullmatch(name)]
    named = [name for name in _LABELS if name in own]
    others = sorted(set(own) - set(named), key=lambda name: (name in _REMARKS, own.index(name)))
    filled = [name for name in named if any(cells.get(name) for cells in rows)]
    texts = [name for name in others if any(not _NUMERIC.fullmatch(cells.get(name, "")) for cells in rows)]
    return next(iter(filled + texts + named), None)
