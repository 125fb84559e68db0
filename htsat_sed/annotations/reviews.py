"""Review tables: verdicts on events, exported from a page of `htsat-sed report`.

    filename,onset,offset,event_label,score,verdict,detected_onset,detected_offset,detected_label,heard
    a.wav,1.000,2.000,Dog,0.9312,right,1.000,2.000,Dog,
    a.wav,,,,0.5120,wrong,4.000,5.500,Dog,

The first four columns are strong labels, so that their readers see the corrected events. Rows of spans and of
reviewed events (see `heard`) have no verdict on an event. docs/report.md describes the table.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from htsat_sed.annotations.delimited import Row, read_rows
from htsat_sed.annotations.strong import COLUMNS
from htsat_sed.detection.events import Event
from htsat_sed.labels import normal

VERDICTS = ("right", "wrong", "unsure", "other", "missed", "listened")

_DETECTED = ("detected_onset", "detected_offset", "detected_label")


@dataclass(frozen=True)
class Reviewed:
    """A detected event with a verdict.

    Attributes:
        recording: name of the recording.
        detected: the event with its score.
        verdict: ``right``, ``wrong``, ``unsure`` or ``other`` (another label); empty if unreviewed.
    """

    recording: str
    detected: Event
    verdict: str


def read_review(path: str | os.PathLike[str]) -> list[Reviewed]:
    """Read the verdicts on detected events; missed events and spans have none.

    Returns:
        Events in the order of the file.

    Raises:
        AnnotationError: the file cannot be read or lacks a column; a verdict is unknown, or an event has no
            label, no score in [0, 1], or no times.
    """
    found = []
    for row in read_rows(path, (*COLUMNS, "score", "verdict", *_DETECTED)):
        verdict = row.text("verdict").strip().lower()
        if verdict and verdict not in VERDICTS:
            raise row.error(f"wanted a verdict, one of {', '.join(VERDICTS)}, or none; got {verdict!r:.60}")
        if verdict in ("missed", "listened") or not row.text("detected_label"):
            continue
        found.append(Reviewed(row.filename(), _detected(row), verdict))
    return found


def _detected(row: Row) -> Event:
    onset, offset, score = (row.number(name) for name in (*_DETECTED[:2], "score"))
    if score > 1.0 or offset <= onset:
        raise row.error(
            f"wanted a score of at most 1 and an onset before the offset, got {score:g}, {onset:g} s"
        )
    return Event(onset, offset, normal(row.text("detected_label")), score)
