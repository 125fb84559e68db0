"""Reference and estimated events side by side, after the rules for labels that do not fit.

The rules, each with a warning that counts what it met:

- the recordings evaluated are those of the reference; estimated events of others are left out;
- a recording that only the reference has counts as one without estimated events;
- estimated events of classes that no reference event has, in any recording, are left out;
- events of one class in one recording that overlap are joined, on both sides;
- events past the end of a recording, where durations are known, count as they stand.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from htsat_sed.detection.events import Event

_logger = logging.getLogger("htsat_sed")

_SLACK = 1e-3  # seconds: tables have three decimals

Table = Mapping[str, Sequence[Event]]


@dataclass(frozen=True)
class Pair:
    """What is to be compared.

    Attributes:
        recordings: names, sorted.
        labels: classes with at least one reference event, sorted.
        reference: events of each recording.
        estimated: events of each recording, of these labels alone.
        durations: seconds of each recording; None where not known.
        silent: classes that were asked for, but have no reference event.
    """

    recordings: tuple[str, ...]
    labels: tuple[str, ...]
    reference: tuple[tuple[Event, ...], ...]
    estimated: tuple[tuple[Event, ...], ...]
    durations: tuple[float | None, ...]
    silent: tuple[str, ...] = ()


def pair(
    reference: Table,
    estimated: Table,
    *,
    durations: Mapping[str, float] | None = None,
    labels: Sequence[str] | None = None,
) -> Pair:
    """Put reference and estimated events side by side.

    Args:
        reference: recording -> events; those without events have an empty list.
        estimated: likewise.
        durations: recording -> seconds, as far as known.
        labels: classes to be scored; default those of the reference.

    Raises:
        ValueError: the reference has no recording or no event (of these labels).
    """
    known = durations or {}
    present = {event.label for events in reference.values() for event in events}
    wanted = present if labels is None else set(labels)
    scored = tuple(sorted(present & wanted))
    if not scored:
        raise ValueError("wanted a reference with at least one event of the classes to be scored, got none")
    recordings = tuple(sorted(reference))
    _warn(
        sum(name not in reference for name in estimated),
        "recordings",
        "estimated but not in the reference; left out",
    )
    _warn(
        sum(name not in estimated for name in reference),
        "recordings",
        "in the reference alone; scored as without estimated events",
    )
    foreign = [e.label for name in recordings for e in estimated.get(name, ()) if e.label not in scored]
    _warn(
        len(foreign), "estimated events", f"of classes without reference events ({_some(foreign)}); left out"
    )
    kept: dict[str, list[tuple[Event, ...]]] = {}
    for side, table in (("reference", reference), ("estimated", estimated)):
        own = [[e for e in table.get(name, ()) if e.label in scored] for name in recordings]
        late = sum(
            e.offset > known.get(name, math.inf) + _SLACK
            for name, events in zip(recordings, own, strict=True)
            for e in events
        )
        _warn(late, f"{side} events", "past the end of their recording; counted as they stand")
        joined = [_joined(events) for events in own]
        lost = sum(map(len, own)) - sum(map(len, joined))
        _warn(lost, f"{side} events", "overlapping another of the same class; joined with it")
        kept[side] = [tuple(sorted(events)) for events in joined]
    return Pair(
        recordings,
        scored,
        tuple(kept["reference"]),
        tuple(kept["estimated"]),
        tuple(known.get(name) for name in recordings),
        tuple(sorted(wanted - present)),
    )


def _joined(events: list[Event]) -> list[Event]:
    """Join events of one class that overlap."""
    joined: list[Event] = []
    for _, same in groupby(sorted(events, key=lambda e: (e.label, e.onset, e.offset)), key=lambda e: e.label):
        open_event: Event | None = None
        for event in same:
            if open_event is not None and event.onset < open_event.offset:
                joined[-1] = open_event = replace(
                    open_event,
                    offset=max(open_event.offset, event.offset),
                    score=max(open_event.score, event.score),
                )
            else:
                joined.append(event)
                open_event = event
    return joined


def _warn(count: int, what: str, how: str) -> None:
    if count:
        _logger.warning("%d %s are %s", count, what, how)


def _some(labels: Sequence[str]) -> str:
    distinct = sorted(set(labels))
    return ", ".join(distinct[:3]) + (f" and {len(distinct) - 3} more" if len(distinct) > 3 else "")
