"""Raven selection tables: one file a recording, columns with tabs between them.

    Selection, View, Channel, Begin Time (s), End Time (s), Low Freq (Hz), High Freq (Hz), Annotation, Score,
    Begin File

    1	Spectrogram 1	1	0.312	1.250	50.0	14000.0	Speech	0.9312	street.wav

The seven columns that Raven makes itself come first, so that ``Annotation`` is the eighth, where other
programs look for it. Events have no frequencies: the boxes span the band that HTS-AT hears, up to half the
recording's sample rate where that is known, since Raven refuses more. Times have 3 decimals, scores 4. Raven
writes no quotes, so control characters are written as `text` has it; quotes by spreadsheets are understood,
and a label that would read as quoted has its first quote written as `text` has it. A table of many recordings
has their paths as ``Begin Path``, and ``File Offset (s)``, since Raven counts the other times through all of
them. ``Channel`` is 1 where it is not known; where all of a table are, none is read.

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
    """The selections of one recording.

    Args:
        filename: the recording; the table has its name without folders.
        events: its events, in any order.
        duration: without effect here.
        sample_rate: of the recording, Hz, if known.
        start: when it began, if known.
        columns: further ones: `RAVEN_CLOCK` or none.
    """
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
    """Write one table of many recordings, as Raven has it where they are opened together.

    Begin and end times count through all recordings, in the order of the table; ``File Offset (s)`` counts
    from the start of each.

    Raises:
        UsageError: the duration of a recording is not known.
        HtsatSedError: the file cannot be written.
    """
    before, selection = 0.0, 0
    with whole_file(path) as file:
        names = (*RAVEN_HEADER.rstrip("\n").split("\t"), "Begin Path", _OFFSET, *columns)
        file.write("\t".join(names) + "\n")
        for each in recordings:
            if each.duration is None:
                reason = "Raven counts times through all recordings, so the durations are needed"
                raise UsageError(f"the duration of {each.filename} is not known: {reason}")
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
    # All tables have a channel, 1 for recordings of one and where nobody chose it.
    channels = any(cells.get("channel", "1") != "1" for _, cells in rows)
    seen: set[tuple[str | None, str, Event]] = set()
    for line, cells in rows:
        begin = number(path, line, _BEGIN, cells.get(_BEGIN.lower(), ""))
        end = number(path, line, _END, cells.get(_END.lower(), ""))
        if end < begin:
            raise AnnotationError(path, f"line {line}: End Time {end:g} lies before Begin Time {begin:g}")
        recording = _recording(cells) or own_name
        if cells.get(_OFFSET.lower()):
            onset = number(path, line, _OFFSET, cells[_OFFSET.lower()])
            begin, end = onset, round(onset + end - begin, 6)
        certainty = number(path, line, score, cells[score]) if cells.get(score) else 1.0
        channel = channel_of(cells.get("channel", "")) if channels else 0
        event = Event(begin, end, unescape(cells.get(label or "", "")), certainty, channel)
        if (listed := (cells.get("selection"), recording, event)) not in seen:
            seen.add(listed)
            collected.add(line, recording, event)
    of_many = {"begin file", "begin path", _OFFSET.lower()} <= {name.lower() for name in columns}
    if not (seen or of_many):
        collected.recording(own_name)
    return collected.table()


def _recording(cells: Mapping[str, str]) -> str:
    """The name of the recording of a selection; its path below the folder where a table of ours has it."""
    begin_file, begin_path = cells.get("begin file", ""), cells.get("begin path", "")
    if begin_file and begin_path.endswith(f"/{begin_file}") and begin_path[0] not in "/~.":
        return unescape(begin_path)
    return unescape(begin_file or re.split(r"[/\\]", begin_path)[-1])


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
