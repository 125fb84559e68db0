"""Links to events in report pages, and to periods in their index.

The fragment of the address has key=value pairs joined by ``&``:

    street.wav.html#class=Dog&t=12.500-15.000               event of this class from 12.5 to 15 s
    report.html#recording=street.wav&t=12.500-15.000        the same on a page with several recordings
    index.html#class=Dog&date=2026-05-12&hour=04            recordings with an onset of the class in this hour

``report/page.js`` and ``report/index.js`` parse it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from htsat_sed.annotations import path_of
from htsat_sed.detection.events import Event
from htsat_sed.errors import HtsatSedError

INDEX = "index.html"


@dataclass(frozen=True)
class ReportLinks:
    """Makes links to a report, for files in another folder.

    Attributes:
        report: a report page, or a folder of pages with an index.
        beside: folder of the files that contain the links; links are relative to it.

    Raises:
        HtsatSedError: there is no report at this path.
    """

    report: Path
    beside: Path

    def __post_init__(self) -> None:
        if not (self.report.is_file() or (self.report / INDEX).is_file()):
            raise HtsatSedError(self.report, f"is neither a page of report nor a folder with an {INDEX}")

    def event(self, recording: str, event: Event) -> str:
        """Return the link to an event; empty if the folder has no page of its recording.

        Args:
            recording: name of the recording in tables.
            event: the event.
        """
        fragment = {"class": event.label, "t": f"{event.onset:.3f}-{event.offset:.3f}"}
        if self.report.is_file():
            return _joined(self._address(self.report), {"recording": recording} | fragment)
        page = path_of(self.report, recording, ".html")
        return _joined(self._address(page), fragment) if page.is_file() else ""

    def period(self, label: str, *, date: str, hour: str, site: str) -> str:
        """Return the link to the recordings with onsets of a class in a period.

        Args:
            label: class.
            date: ISO date, or first and last date joined by a comma; empty for all dates.
            hour: hour of the day, 00 to 23; empty for all hours.
            site: site of the recordings; empty for all sites.
        """
        values = {"class": label, "date": date, "hour": hour, "site": site}
        return _joined(
            self._address(self.report / INDEX), {key: text for key, text in values.items() if text}
        )

    def _address(self, page: Path) -> str:
        return quote(Path(os.path.relpath(page, self.beside)).as_posix(), errors="surrogateescape")


def _joined(address: str, fragment: dict[str, str]) -> str:
    return f"{address}#{urlencode(fragment, quote_via=quote, errors='surrogateescape', safe='')}"
