"""Events as a pandas data frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from htsat_sed.clock import Start
from htsat_sed.detection.events import Event
from htsat_sed.libraries import load

if TYPE_CHECKING:
    import pandas as pd


def events_to_frame(
    events: Mapping[str, Sequence[Event]], *, starts: Mapping[str, Start] | None = None
) -> pd.DataFrame:
    """Events of recordings as a data frame.

    Args:
        events: recording -> its events, such as `read_events` returns.
        starts: recording -> its start, if known.

    Returns:
        One row per event in the given order: ``filename``, ``onset`` and ``offset`` (seconds),
        ``event_label``, ``score``; ``channel``, from 1, if events have channels; and with `starts`
        ``begin`` and ``end``, times to the millisecond, and ``clock``, their source.

    Raises:
        UsageError: pandas is not installed.
    """
    pandas = load("pandas", purpose="a data frame", extra="parquet")
    rows = [(name, event) for name, own in events.items() for event in own]
    columns: dict[str, list[Any]] = {
        "filename": [name for name, _ in rows],
        "onset": [event.onset for _, event in rows],
        "offset": [event.offset for _, event in rows],
        "event_label": [event.label for _, event in rows],
        "score": [event.score for _, event in rows],
    }
    if any(event.channel for _, event in rows):
        columns["channel"] = [event.channel for _, event in rows]
    if starts is not None:
        known = [starts.get(name) for name, _ in rows]
        for column, bounds in (("begin", columns["onset"]), ("end", columns["offset"])):
            columns[column] = [
                None if start is None else start.at(round(seconds, 3))
                for start, seconds in zip(known, bounds, strict=True)
            ]
        columns["clock"] = [None if start is None else start.source for start in known]
    frame: pd.DataFrame = pandas.DataFrame(columns)
    return frame
