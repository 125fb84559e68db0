"""AudioSet's strong labels: one table for all segments, one row per event, classes as codes (MIDs).

    segment_id	start_time_seconds	end_time_seconds	label
    b0RFKhbpFJA_30000	0.000	10.000	/m/03m9d0z

The codes of AudioSet's 527 classes are converted to their names, and back; other codes and labels are
unchanged. Segments without events have no row. Scores are not stored.

Source: Google Research, "AudioSet: Temporally-strong labels", audioset_train_strong.tsv.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from htsat_sed.annotations.delimited import read_rows, row
from htsat_sed.annotations.text import Collected, timed
from htsat_sed.detection.events import Event
from htsat_sed.labels import audioset_codes

SUFFIX = ".strong.tsv"
_COLUMNS = ("segment_id", "start_time_seconds", "end_time_seconds", "label")

AUDIOSET_HEADER = row(_COLUMNS, "\t")


def audioset_lines(
    filename: str, events: Sequence[Event], duration: float | None = None, *, safe_cells: bool = False
) -> str:
    """The rows of one segment."""
    codes = {name: code for code, name in audioset_codes().items()}
    return "".join(
        row((filename, onset, offset, codes.get(event.label, event.label)), "\t", safe_cells=safe_cells)
        for onset, offset, event in timed(events, decimals=3)
    )


def read_audioset(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Read a table of AudioSet's strong labels.

    Returns:
        As `read_strong_labels`, under the same rules for events.

    Raises:
        AnnotationError: as `read_strong_labels`.
    """
    collected, names = Collected(path), audioset_codes()
    for cells in read_rows(path, _COLUMNS):
        if not (segment := cells.text("segment_id")):
            raise cells.error("no segment_id")
        label = cells.text("label")
        bounds = cells.number("start_time_seconds"), cells.number("end_time_seconds")
        collected.add(cells.line, segment, Event(*bounds, names.get(label, label)))
    return collected.table()
