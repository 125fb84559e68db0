"""Events as a table of pandas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from htsat_sed.detection.events import Event
from htsat_sed.libraries import load

if TYPE_CHECKING:
    import pandas as pd


def events_to_frame(events: Mapping[str, Sequence[Event]]) -> pd.DataFrame:
    """Events of recordings as a data frame.

    Args:
        events: recording -> its events, such as `read_events` returns.

    Returns:
        One row an event in the order given: ``filename``, ``onset`` and ``offset`` (seconds),
        ``event_label``, ``score``.

    Raises:
        UsageError: pandas is not installed.
    """
    pandas = load("pandas", purpose="a data frame", extra="parquet")
    rows = [
        (name, event.onset, event.offset, event.label, event.score)
        for name, own in events.items()
        for event in own
    ]
    frame: pd.DataFrame = pandas.DataFrame(
        rows, columns=["filename", "onset", "offset", "event_label", "score"]
    )
    return frame
