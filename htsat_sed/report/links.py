"""Links into the pages of `report`: to a stretch of a recording, or to an hour in an index.

A fragment after the address of the page gives the place, as key=value pairs joined by ``&``:

    street.wav.html#class=Dog&t=12.500-15.000               the event of this class at 12.5 to 15 s
    report.html#recording=street.wav&t=12.500-15.000        the same, on a page of several recordings
    index.html#class=Dog&date=2026-05-12&hour=04            recordings in which the class begins in this hour

``report/page.js`` and ``report/index.js`` read it.
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
    """Links from the files of a folder into a report.

    Attributes:
        report: the page; or the folder of pages.
        beside: the folder of the files that have the links. Links are relative to it.

    Raises:
        HtsatSedError: there is no report at this path.
    """

    report: Path
    beside: Path

    def __post_init__(self) -> None:
        if not (self.report.is_file() or (self.report / INDEX).is_file()):
            raise HtsatSedError(self.report, f"is neither a page of report nor a folder with an {INDEX}")

    def event(self, recording: str, event: Event) -> str:
        """Link to an event; empty if the folder has no page of its recording."""
        fragment = {"class": event.label, "t": f"{event.onset:.3f}-{event.offset:.3f}"}
        if self.report.is_file():
            return _joined(self._address(self.report), {"recording": recording} | fragment)
        page = path_of(self.report, recording, ".html")
        return _joined(self._address(page), fragment) if page.is_file() else ""

    def period(self, label: str, *, date: str, hour: str, site: str) -> str:
        """Link to the recordings in which events of a class begin in a period.

        Args:
            label: the class.
            date: a date, or the first and last joined by a comma; empty for all.
            hour: of the day, 00 to 23; empty for all.
            site: empty for all.
        """
        values = {"class": label, "date": date, "hour": hour, "site": site}
        return _joined(
            self._address(self.report / INDEX), {key: text for key, text in values.items() if text}
        )

    def _address(self, page: Path) -> str:
        return quote(Path(os.path.relpath(page, self.beside)).as_posix(), errors="surrogateescape")


def _joined(address: str, fragment: dict[str, str]) -> str:
    return f"{address}#{urlencode(fragment, quote_via=quote, errors='surrogateescape', safe='')}"
