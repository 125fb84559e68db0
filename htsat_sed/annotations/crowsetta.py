"""crowsetta's generic sequences: one CSV for all recordings, one row per event.

    label,onset_s,offset_s,notated_path,annot_path,sequence,annotation
    Speech,0.312,1.250,day1/street.wav,events.csv,0,0

``annotation`` counts the recordings. A recording without events has no row. Scores and channels are not
stored.

Source: crowsetta 5, `crowsetta.formats.seq.generic`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from htsat_sed.annotations.delimited import read_rows, row
from htsat_sed.annotations.text import Collected, Described, timed
from htsat_sed.detection.events import Event
from htsat_sed.whole_file import whole_file

SUFFIX = ".crowsetta.csv"
_COLUMNS = ("label", "onset_s", "offset_s", "notated_path", "annot_path", "sequence", "annotation")


def write_crowsetta(
    path: str | os.PathLike[str], recordings: Iterable[Described], columns: object = ()
) -> None:
    """Write a table of all recordings.

    Raises:
        HtsatSedError: the file cannot be written.
    """
    with whole_file(path) as file:
        file.write(row(_COLUMNS, ","))
        number = 0
        for each in recordings:
            place = (each.filename, Path(path).name, "0", str(number))
            for onset, offset, event in timed(each.events, decimals=3):
                file.write(row((event.label, onset, offset, *place), ","))
            number += bool(each.events)


def read_crowsetta(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Read a table of generic sequences whose times are in seconds.

    Returns:
        As `read_strong_labels`, under the same rules for events.

    Raises:
        AnnotationError: as `read_strong_labels`.
    """
    collected = Collected(path)
    for cells in read_rows(path, _COLUMNS[:4]):
        if not (filename := cells.text("notated_path")):
            raise cells.error("no notated_path")
        bounds = cells.number("onset_s"), cells.number("offset_s")
        collected.add(cells.line, filename, Event(*bounds, cells.text("label")))
    return collected.table()
