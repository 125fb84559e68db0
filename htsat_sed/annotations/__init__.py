"""Files of labels, events and presence maps: readers and writers, one module per format.

A table of many recordings is a ``dict`` from the name of a recording to its events, ordered by onset, offset
and label; a recording without events has an empty list. `FORMATS` lists the formats of events.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from htsat_sed.annotations.audacity import audacity_lines, read_audacity
from htsat_sed.annotations.audioset import AUDIOSET_HEADER, audioset_lines, read_audioset
from htsat_sed.annotations.clips import read_durations, read_weak_labels
from htsat_sed.annotations.crowsetta import read_crowsetta, write_crowsetta
from htsat_sed.annotations.elan import ELAN_HEADER, elan_lines, read_elan
from htsat_sed.annotations.folders import files_below, path_of
from htsat_sed.annotations.heard import read_heard
from htsat_sed.annotations.jsonl import jsonl_lines, read_jsonl
from htsat_sed.annotations.kaleidoscope import KALEIDOSCOPE_HEADER, kaleidoscope_lines, read_kaleidoscope
from htsat_sed.annotations.label_studio import read_label_studio, write_label_studio
from htsat_sed.annotations.negatives import Negative, read_negatives
from htsat_sed.annotations.parquet import read_parquet, write_parquet
from htsat_sed.annotations.presence_maps import (
    PresenceMapWriter,
    read_metadata,
    read_presence_map,
    read_presence_maps,
    write_presence_map,
)
from htsat_sed.annotations.raven import (
    RAVEN_CLOCK,
    RAVEN_HEADER,
    raven_lines,
    read_raven,
    write_raven_folder,
)
from htsat_sed.annotations.rttm import read_rttm, rttm_lines
from htsat_sed.annotations.sonic_visualiser import (
    SONIC_VISUALISER_HEADER,
    read_sonic_visualiser,
    sonic_visualiser_lines,
)
from htsat_sed.annotations.strong import CSV_HEADER, TSV_HEADER, csv_lines, read_strong_labels, tsv_lines
from htsat_sed.annotations.tags import long_rows, read_tags, tags_header, wide_row
from htsat_sed.annotations.text import CHANNEL, CLOCK, Described
from htsat_sed.annotations.textgrid import TEXTGRID_HEADER, read_textgrid, textgrid_lines
from htsat_sed.annotations.webvtt import WEBVTT_HEADER, read_webvtt, webvtt_lines
from htsat_sed.clock import Start
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError, UsageError
from htsat_sed.whole_file import make_folder, whole_file

__all__ = [
    "FORMATS",
    "Format",
    "Negative",
    "PresenceMapWriter",
    "long_rows",
    "path_of",
    "read_durations",
    "read_events",
    "read_heard",
    "read_metadata",
    "read_negatives",
    "read_presence_map",
    "read_presence_maps",
    "read_strong_labels",
    "read_tags",
    "read_weak_labels",
    "tags_header",
    "wide_row",
    "write_events",
    "write_presence_map",
    "write_table",
]

Table: TypeAlias = dict[str, list[Event]]


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format of events.

    Attributes:
        suffix: file suffix, with the dot.
        shared: whether one file contains all recordings; otherwise each recording has a file (`path_of`).
        header: text at the start of a file.
        lines: text of one recording, from its name, its events in any order and its duration in seconds or
            None; a format ignores what it cannot store. None if a format is only written as a whole.
        takes: further keywords of `lines`: ``sample_rate`` (Hz) and ``start`` if known, ``safe_cells`` (see
            `htsat_sed.annotations.delimited`) and additional ``columns``.
        channel: columns of tables with channels.
        clock: columns of tables with clock times.
        write: (path, recordings, columns) -> None; None if there is `lines`.
        read: path -> table.
    """

    suffix: str
    shared: bool
    header: str = ""
    lines: Callable[..., str] | None = None
    takes: tuple[str, ...] = ()
    channel: tuple[str, ...] = ()
    clock: tuple[str, ...] = ()
    write: Callable[[str | os.PathLike[str], Iterable[Described], Sequence[str]], None] | None = None
    read: Callable[[Path], Table]

    @property
    def ending(self) -> str:
        """The last part of the suffix, in lower case."""
        return "." + self.suffix.lower().rpartition(".")[2]

    def columns(self, *, channels: bool = False, clock: bool = False) -> tuple[str, ...]:
        """Additional columns of a table with channels or clock times."""
        return (self.channel if channels else ()) + (self.clock if clock else ())

    def heading(self, columns: Sequence[str] = ()) -> str:
        """Text at the start of a file, with additional columns."""
        if not columns:
            return self.header
        delimiter = "," if "," in self.header else "\t"
        return self.header.rstrip("\n") + "".join(delimiter + name for name in columns) + self.header[-1:]

    def text(
        self,
        filename: str,
        events: Sequence[Event],
        duration: float | None = None,
        sample_rate: int | None = None,
        *,
        start: Start | None = None,
    ) -> str:
        """The whole file of one recording; see `part`."""
        columns = self.columns(channels=any(event.channel for event in events), clock=start is not None)
        return self.heading(columns) + self.part(
            filename, events, duration, sample_rate, start=start, columns=columns
        )

    def part(
        self,
        filename: str,
        events: Sequence[Event],
        duration: float | None = None,
        sample_rate: int | None = None,
        *,
        start: Start | None = None,
        safe_cells: bool = False,
        columns: Sequence[str] = (),
    ) -> str:
        """Text of one recording, see `lines`, with its duration (s) and sample rate (Hz), if known."""
        if self.lines is None:
            raise UsageError("this format is not text: write it with write_events")
        given: dict[str, Any] = {
            "sample_rate": sample_rate, "start": start, "safe_cells": safe_cells, "columns": columns
        }  # fmt: skip
        return self.lines(filename, events, duration, **{name: given[name] for name in self.takes})


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "tsv": Format(
            suffix=".tsv",
            shared=True,
            header=TSV_HEADER,
            lines=tsv_lines,
            takes=("safe_cells", "columns"),
            channel=CHANNEL,
            read=read_strong_labels,
        ),
        "csv": Format(
            suffix=".csv",
            shared=True,
            header=CSV_HEADER,
            lines=csv_lines,
            takes=("start", "safe_cells", "columns"),
            channel=CHANNEL,
            clock=CLOCK,
            read=read_strong_labels,
        ),
        "jsonl": Format(suffix=".jsonl", shared=True, lines=jsonl_lines, takes=("start",), read=read_jsonl),
        "audacity": Format(suffix=".txt", shared=False, lines=audacity_lines, read=read_audacity),
        "raven": Format(
            suffix=".selections.txt",
            shared=False,
            header=RAVEN_HEADER,
            lines=raven_lines,
            takes=("sample_rate", "start", "columns"),
            clock=RAVEN_CLOCK,
            read=read_raven,
        ),
        "textgrid": Format(
            suffix=".TextGrid",
            shared=False,
            header=TEXTGRID_HEADER,
            lines=textgrid_lines,
            read=read_textgrid,
        ),
        "rttm": Format(suffix=".rttm", shared=True, lines=rttm_lines, read=read_rttm),
        "webvtt": Format(
            suffix=".vtt", shared=False, header=WEBVTT_HEADER, lines=webvtt_lines, read=read_webvtt
        ),
        "parquet": Format(
            suffix=".parquet",
            shared=True,
            channel=CHANNEL,
            clock=CLOCK,
            write=write_parquet,
            read=read_parquet,
        ),
        "raven-folder": Format(
            suffix=".table.selections.txt",
            shared=True,
            clock=RAVEN_CLOCK,
            write=write_raven_folder,
            read=read_raven,
        ),
        "kaleidoscope": Format(
            suffix=".kaleidoscope.csv",
            shared=True,
            header=KALEIDOSCOPE_HEADER,
            lines=kaleidoscope_lines,
            takes=("safe_cells",),
            read=read_kaleidoscope,
        ),
        "elan": Format(suffix=".eaf", shared=False, header=ELAN_HEADER, lines=elan_lines, read=read_elan),
        "label-studio": Format(
            suffix=".labelstudio.json", shared=True, write=write_label_studio, read=read_label_studio
        ),
        "sonic-visualiser": Format(
            suffix=".svl",
            shared=False,
            header=SONIC_VISUALISER_HEADER,
            lines=sonic_visualiser_lines,
            takes=("sample_rate",),
            read=read_sonic_visualiser,
        ),
        "crowsetta": Format(suffix=".crowsetta.csv", shared=True, write=write_crowsetta, read=read_crowsetta),
        "audioset": Format(
            suffix=".strong.tsv",
            shared=True,
            header=AUDIOSET_HEADER,
            lines=audioset_lines,
            takes=("safe_cells",),
            read=read_audioset,
        ),
    }
)
"""Name on the command line -> format."""


def write_events(
    path: str | os.PathLike[str],
    events: Mapping[str, Sequence[Event]],
    format: str,
    *,
    durations: Mapping[str, float] | None = None,
    sample_rates: Mapping[str, int] | None = None,
    starts: Mapping[str, Start] | None = None,
) -> None:
    """Write the events of recordings, every file whole or not at all.

    Args:
        path: target file. For formats with one file per recording, a folder, created if missing (`path_of`),
            or for a single recording a file with the suffix of the format.
        events: recording -> its events, in any order.
        format: one of `FORMATS`.
        durations: recording -> seconds, if known; stored in JSON Lines and TextGrid.
        sample_rates: recording -> Hz, if known; half of it limits the frequencies in Raven's tables.
        starts: recording -> start, if known; adds clock times to CSV, JSON Lines, Parquet and Raven's tables.

    Raises:
        ValueError: `format` is unknown, an event has no label or not 0 <= onset < offset, or one file is
            given for several recordings.
        HtsatSedError: a file cannot be written.
    """
    of = _format(format)
    known = durations or {}
    began = starts or {}
    if of.shared:
        channels = any(event.channel for own in events.values() for event in own)
        rows = ((name, own, known.get(name)) for name, own in events.items())
        write_table(path, rows, format, starts=began, channels=channels)
    else:
        for target, name in _targets(Path(path), events, of).items():
            rate, start = (sample_rates or {}).get(name), began.get(name)
            text = of.text(name, events[name], known.get(name), rate, start=start)
            with whole_file(target) as file:
                file.write(text)


def write_table(
    path: str | os.PathLike[str],
    recordings: Iterable[tuple[str, Sequence[Event], float | None]],
    format: str,
    *,
    starts: Mapping[str, Start] | None = None,
    channels: bool = False,
    safe_cells: bool = False,
) -> None:
    """Write a table of many recordings, whole or not at all, in constant memory.

    Args:
        path: target file.
        recordings: name, events in any order, and duration in seconds (if known) of each recording.
        format: one of `FORMATS` with one file for all recordings.
        starts: recording -> start; see `write_events`.
        channels: whether events have channels.
        safe_cells: keep spreadsheets from running names and labels as formulas, in TSV and CSV.

    Raises:
        ValueError: `format` is unknown or has one file per recording; or as for `write_events`.
        HtsatSedError: the file cannot be written.
    """
    of = _format(format)
    if not of.shared:
        raise UsageError(f"wanted a format with one file for all recordings, got {format}")
    began = starts or {}
    columns = of.columns(channels=channels, clock=bool(began))
    if of.write is not None:
        found = (Described(name, own, duration, began.get(name)) for name, own, duration in recordings)
        of.write(path, found, columns)
    else:
        with whole_file(path) as file:
            file.write(of.heading(columns))
            for name, own, duration in recordings:
                start = began.get(name)
                file.write(of.part(name, own, duration, start=start, safe_cells=safe_cells, columns=columns))


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise UsageError(f"wanted a format, one of {', '.join(FORMATS)}; got {name!r}")
    return FORMATS[name]


def _targets(path: Path, events: Mapping[str, Sequence[Event]], of: Format) -> dict[Path, str]:
    """The file of each recording; creates its folder."""
    if path.suffix.lower() == of.ending and not path.is_dir():
        if len(events) != 1:
            raise UsageError(f"wanted a folder for the files of {len(events)} recordings, got {path}")
        return {path: next(iter(events))}
    targets: dict[Path, str] = {}
    for name in events:
        target = path_of(path, name, of.suffix)
        if target in targets:
            raise UsageError(f"{targets[target]} and {name} would share the file {target}")
        make_folder(target.parent)
        targets[target] = name
    return targets


def read_events(path: str | os.PathLike[str], format: str | None = None) -> Table:
    """Read events from a file of any format, or from a folder with one file per recording.

    In a folder, recordings are named by their relative path; files of other formats are ignored. In all
    formats, duplicate rows and events without duration are dropped, with a warning that counts them.

    Args:
        path: a file or a folder.
        format: one of `FORMATS`; None to detect it from the content.

    Returns:
        Recording -> its events, ordered by onset, offset and label.

    Raises:
        ValueError: `format` is unknown.
        AnnotationError: the path cannot be read, its format is unknown, or a folder has several formats; or
            as for the reader of the format.
    """
    if format is not None:
        _format(format)
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, format)
    return FORMATS[format or _recognise(path) or "tsv"].read(path)


def _read_folder(folder: Path, format: str | None) -> Table:
    suffixes = [".txt"] + [of.suffix for of in FORMATS.values() if not of.shared]
    kinds = {path: _recognise(path) for path in files_below(folder, *suffixes)}
    kinds = {path: kind for path, kind in kinds.items() if kind and not FORMATS[kind].shared}
    found = {kind for kind in kinds.values() if kind} if format is None else {format} & set(kinds.values())
    if len(found) != 1:
        several = (
            f"label files of several formats ({', '.join(sorted(found))}), which may have the same events: "
            "give a folder with one format, or a single table"
        )
        raise AnnotationError(folder, f"holds {several if found else 'no label files'}")
    events: Table = {}
    for path, kind in kinds.items():
        if kind in found:
            for name, own in FORMATS[kind].read(path).items():
                key = (path.parent.relative_to(folder) / name).as_posix()
                events[key] = sorted(events.get(key, []) + own)
    return events


def _recognise(path: Path) -> str | None:
    """Format of a file by its first line, or else by its suffix."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise AnnotationError(path, f"cannot be read: {error.strerror}") from error
    if head.startswith(b"PAR1"):
        return "parquet"
    text = head.decode("utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", errors="replace")
    first = next((line for line in text.splitlines() if line.strip()), "")
    if first.startswith("<"):
        by_suffix = next((name for name in _XML_MARKS if path.name.endswith(FORMATS[name].suffix)), None)
        return next((name for name, mark in _XML_MARKS.items() if mark in text), by_suffix)
    for name, pattern in _FIRST_LINES.items():
        if re.match(pattern, first):
            return name
    fitting = [name for name, of in FORMATS.items() if path.name.endswith(of.suffix)]
    # Any text may have the suffix .txt; an empty one is a label track without labels.
    fitting = [name for name in fitting if name != "audacity" or not first]
    return max(fitting, key=lambda name: len(FORMATS[name].suffix), default=None)


_XML_MARKS = {"elan": "<ANNOTATION_DOCUMENT", "sonic-visualiser": "<sv>"}

# Tried in this order; TSV stands for every table of strong labels, whose reader finds the delimiter.
_FIRST_LINES = {
    "webvtt": r"WEBVTT(\s|$)",
    "kaleidoscope": r"(?i).*\bIN FILE\b.*\bOFFSET\b",
    "label-studio": r"\s*\[",
    "crowsetta": r"label,.*\bnotated_path\b",
    "audioset": r"segment_id\tstart_time_seconds",
    "raven-folder": r"(?i).*Begin Time \(s\).*Begin Path\tFile Offset \(s\)",
    "textgrid": r'File type = "ooTextFile',
    "jsonl": r"\s*\{",
    "raven": r"(?i).*Begin Time \(s\)",
    "rttm": r"(;;|(SPEAKER|SPKR-INFO|LEXEME|NON-LEX|NOSCORE|NO_RT_METADATA)\s)",
    "audacity": r"\s*[-+]?[0-9.,]+(e-?[0-9]+)?(\s+[-+]?[0-9.,]+(e-?[0-9]+)?(\s|$)|\t)",
    "tsv": r"(?i).*\bfilename\b",
}
