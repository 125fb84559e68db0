"""Matching of reference and estimated events, with rules for labels that do not match.

The rules, each with a warning that counts its cases:

- recordings without reference are left out;
- recordings of the reference without estimates are scored as without estimated events;
- estimated events of classes without any reference event are left out;
- if the reference lists reviewed events, estimated events elsewhere are left out (`only_heard`);
- events past the end of a recording of known duration are scored unchanged;
- overlapping events of one class in one recording are merged, in reference and estimates.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeVar

from htsat_sed.annotations.heard import ANY_LABEL
from htsat_sed.detection.events import Event
from htsat_sed.errors import UsageError
from htsat_sed.evaluation.names import matching_names
from htsat_sed.labels import most_alike

_logger = logging.getLogger("htsat_sed")

_SLACK = 1e-3  # seconds: tables have three decimals

Table = Mapping[str, Sequence[Event]]
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Pair:
    """Matched reference and estimated events.

    Attributes:
        recordings: names, sorted.
        labels: classes with at least one reference event, sorted.
        reference: reference events of each recording.
        estimated: estimated events of each recording, of these labels only.
        durations: duration of each recording in seconds; None if unknown.
        silent: requested classes without reference events.
        remarks: messages of the rules.
    """

    recordings: tuple[str, ...]
    labels: tuple[str, ...]
    reference: tuple[tuple[Event, ...], ...]
    estimated: tuple[tuple[Event, ...], ...]
    durations: tuple[float | None, ...]
    silent: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def pair(
    reference: Table,
    estimated: Table,
    *,
    durations: Mapping[str, float] | None = None,
    labels: Sequence[str] | None = None,
) -> Pair:
    """Match reference and estimated events.

    Args:
        reference: recording -> events; recordings without events have an empty list.
        estimated: likewise, with the names of the reference (`same_names`); onset < offset.
        durations: recording -> seconds, if known.
        labels: classes to score; by default those of the reference.

    Raises:
        ValueError: the reference has no event (of these labels), or the two have no recording in common.
    """
    known = durations or {}
    present = {event.label for events in reference.values() for event in events}
    wanted = present if labels is None else set(labels)
    scored = tuple(sorted(present & wanted))
    if not scored:
        raise UsageError("wanted a reference with at least one event of the scored classes, got none")
    check_names(reference, estimated)
    recordings = tuple(sorted(reference))
    remarks = Remarks()
    remarks.add(
        [name for name in estimated if name not in reference], "recording", "without reference: left out"
    )
    remarks.add(
        [name for name in reference if name not in estimated],
        "recording",
        "without estimates: scored as without estimated events",
    )
    foreign = [e.label for name in recordings for e in estimated.get(name, ()) if e.label not in present]
    found = {e.label for name in recordings for e in estimated.get(name, ())}
    hint = _misspelt(found - present, scored, found)
    what = f"of classes without reference events ({some(foreign)}): left out{hint}"
    remarks.add(foreign, "estimated event", what)
    kept: dict[str, tuple[tuple[Event, ...], ...]] = {}
    for side, table in (("reference", reference), ("estimated", estimated)):
        own = [[e for e in table.get(name, ()) if e.label in scored] for name in recordings]
        ends = [known.get(name, math.inf) for name in recordings]
        kept[side] = _fitting(own, ends, f"{side} event", remarks)
    return Pair(
        recordings,
        scored,
        kept["reference"],
        kept["estimated"],
        tuple(known.get(name) for name in recordings),
        tuple(sorted(wanted - present)),
        remarks.lines,
    )


def of_labels(events: Pair, labels: Sequence[str]) -> Pair:
    """The events of some of the classes."""
    reference, estimated = (
        tuple(tuple(event for event in own if event.label in labels) for own in side)
        for side in (events.reference, events.estimated)
    )
    return replace(events, labels=tuple(labels), reference=reference, estimated=estimated)


def same_names(
    table: Mapping[str, _Value], names: Collection[str], remarks: Remarks | None = None
) -> dict[str, _Value]:
    """Rename the recordings of a table to those of the reference; see `htsat_sed.evaluation.names`.

    Args:
        table: recording -> value.
        names: recordings of the reference.
        remarks: collects a message about different names.

    Raises:
        ValueError: a name matches several recordings.
    """
    match = matching_names(names, table)
    changed = [(their, our) for their, our in match.items() if their != our]
    if changed and remarks is not None:
        their, our = changed[0]
        remarks.add(changed, "recording", f"matched without folder or suffix, such as {our!r} and {their!r}")
    return {match.get(name, name): value for name, value in table.items()}


def only_heard(reference: Table, estimated: Table, heard: Table, remarks: Remarks) -> dict[str, list[Event]]:
    """Drop estimated events that nobody listened to: they are neither right nor wrong.

    An event is kept if it overlaps a reviewed event of its class, a span reviewed for all classes
    (`ANY_LABEL`), or a reference event of its class, which a reviewer added.

    Args:
        reference: recording -> events, corrected by ear.
        estimated: recording -> events.
        heard: recording -> reviewed events, before corrections.
        remarks: collects a message about dropped events.
    """
    kept: dict[str, list[Event]] = {}
    unheard: list[Event] = []
    for name, events in estimated.items():
        spans: dict[str, list[Event]] = {}
        for span in _joined([*heard.get(name, ()), *reference.get(name, ())]):
            spans.setdefault(span.label, []).append(span)
        kept[name] = []
        for event in events:
            reach = max(_reach(event, spans.get(label, [])) for label in (event.label, ANY_LABEL))
            # Neighbours rounded to milliseconds may overlap by one.
            counts = reach > min(_SLACK, 0.5 * (event.offset - event.onset))
            (kept[name] if counts else unheard).append(event)
    remarks.add(unheard, "estimated event", "that nobody listened to: left out")
    return kept


def _reach(event: Event, spans: Sequence[Event]) -> float:
    """Seconds of an event covered by disjoint, ordered spans."""
    first = bisect_right(spans, event.onset, key=lambda span: span.offset)
    last = bisect_left(spans, event.offset, key=lambda span: span.onset)
    return sum(min(s.offset, event.offset) - max(s.onset, event.onset) for s in spans[first:last])


def check_names(reference: Collection[str], estimated: Collection[str]) -> None:
    """Check that two tables have recordings in common.

    Raises:
        ValueError: both have recordings, but none in common.
    """
    if reference and estimated and not set(reference) & set(estimated):
        raise UsageError(
            f"reference and estimates have no recording in common: the reference has {min(reference)!r}, "
            f"the estimates {min(estimated)!r}"
        )


class Remarks:
    """Messages of the rules, also logged as warnings."""

    def __init__(self) -> None:
        self.lines: tuple[str, ...] = ()

    def add(self, met: Sequence[object], what: str, how: str) -> None:
        """Add a message if a rule has cases.

        Args:
            met: the cases.
            what: a word for one case.
            how: description of the cases and how they are treated.
        """
        if met:
            line = f"{len(met)} {what}{'s' if len(met) > 1 else ''} {how}"
            self.lines += (line,)
            _logger.warning("%s", line)


def some(names: Iterable[str]) -> str:
    """The first three names and the number of the others."""
    distinct = sorted(set(names))
    return ", ".join(distinct[:3]) + (f" and {len(distinct) - 3} more" if len(distinct) > 3 else "")


def _misspelt(foreign: Collection[str], scored: Sequence[str], found: Collection[str]) -> str:
    """A hint about a label that the reference seems to spell differently.

    The label differs only in case or whitespace, or resembles a reference label without estimated events.
    """
    folded = {label.strip().casefold(): label for label in scored}
    alike = [(label, folded.get(label.strip().casefold())) for label in sorted(foreign)]
    alike += [(label, most_alike(label, set(scored) - set(found))) for label in sorted(foreign)]
    pairs = (f"; is {label!r} the reference's {other!r}?" for label, other in alike if other is not None)
    return next(pairs, "")


def _fitting(
    events: Sequence[Sequence[Event]], ends: Sequence[float], what: str, remarks: Remarks
) -> tuple[tuple[Event, ...], ...]:
    """The ordered events of each recording, with overlapping ones of a class merged."""
    late = [e for own, end in zip(events, ends, strict=True) for e in own if e.offset > end + _SLACK]
    remarks.add(late, what, "past the end of a recording: scored unchanged")
    joined = [_joined(own) for own in events]
    lost = sum(map(len, events)) - sum(map(len, joined))
    remarks.add(range(lost), what, "overlapping another of the same class: merged")
    return tuple(tuple(sorted(own)) for own in joined)


def _joined(events: Sequence[Event]) -> list[Event]:
    """Merge overlapping events of one class."""
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
