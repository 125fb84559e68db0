"""Reference and estimated events side by side, after the rules for labels that do not fit.

The rules, each with a warning that counts what it met:

- the recordings evaluated are those of the reference; estimated events of others are left out;
- a recording that only the reference has counts as one without estimated events;
- estimated events of classes that no reference event has, in any recording, are left out;
- where the reference tells what was heard, estimated events elsewhere are left out (`only_heard`);
- events past the end of their recording, where that is known, count as they stand;
- events of one class in one recording that overlap are joined, on both sides.
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
    """What is to be compared.

    Attributes:
        recordings: names, sorted.
        labels: classes with at least one reference event, sorted.
        reference: events of each recording.
        estimated: events of each recording, of these labels alone.
        durations: seconds of each recording; None where not known.
        silent: classes that were asked for, but have no reference event.
        remarks: what the rules met, a line for each.
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
    """Put reference and estimated events side by side.

    Args:
        reference: recording -> events; those without events have an empty list.
        estimated: likewise, recordings called as in the reference (`same_names`); onset < offset.
        durations: recording -> seconds, as far as known.
        labels: classes to be scored; default those of the reference.

    Raises:
        ValueError: the reference has no event (of these labels), or the two have no recording in common.
    """
    known = durations or {}
    present = {event.label for events in reference.values() for event in events}
    wanted = present if labels is None else set(labels)
    scored = tuple(sorted(present & wanted))
    if not scored:
        raise UsageError("wanted a reference with at least one event of the classes to be scored, got none")
    check_names(reference, estimated)
    recordings = tuple(sorted(reference))
    remarks = Remarks()
    remarks.add(
        [name for name in estimated if name not in reference], "recording", "only estimated: left out"
    )
    remarks.add(
        [name for name in reference if name not in estimated],
        "recording",
        "only in the reference: scored as without estimated events",
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
    """The same with some of the classes alone."""
    reference, estimated = (
        tuple(tuple(event for event in own if event.label in labels) for own in side)
        for side in (events.reference, events.estimated)
    )
    return replace(events, labels=tuple(labels), reference=reference, estimated=estimated)


def same_names(
    table: Mapping[str, _Value], names: Collection[str], remarks: Remarks | None = None
) -> dict[str, _Value]:
    """Call the recordings of a table as the reference does; see `htsat_sed.evaluation.names`.

    Args:
        table: recording -> anything.
        names: recordings of the reference.
        remarks: where to note that names differ.

    Raises:
        ValueError: a name fits several recordings.
    """
    match = matching_names(names, table)
    changed = [(their, our) for their, our in match.items() if their != our]
    if changed and remarks is not None:
        their, our = changed[0]
        remarks.add(changed, "recording", f"known without folder or suffix, such as {our!r} by {their!r}")
    return {match.get(name, name): value for name, value in table.items()}


def only_heard(reference: Table, estimated: Table, heard: Table, remarks: Remarks) -> dict[str, list[Event]]:
    """Leave out estimated events that nobody listened to: they are neither right nor wrong.

    An event counts if it overlaps one of the same class that was heard, a stretch in which every class was
    (`ANY_LABEL`), or a reference event of its class (which whoever listened put there).

    Args:
        reference: recording -> events, corrected by ear.
        estimated: recording -> events.
        heard: recording -> events that were listened to, as they were before.
        remarks: where to note what was left out.
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
            # Rounded to milliseconds, neighbours may overlap by one.
            counts = reach > min(_SLACK, 0.5 * (event.offset - event.onset))
            (kept[name] if counts else unheard).append(event)
    remarks.add(unheard, "estimated event", "that nobody listened to: left out")
    return kept


def _reach(event: Event, spans: Sequence[Event]) -> float:
    """Seconds of an event that spans cover, which are disjoint and in order."""
    first = bisect_right(spans, event.onset, key=lambda span: span.offset)
    last = bisect_left(spans, event.offset, key=lambda span: span.onset)
    return sum(min(s.offset, event.offset) - max(s.onset, event.onset) for s in spans[first:last])


def check_names(reference: Collection[str], estimated: Collection[str]) -> None:
    """Make sure that two tables speak of the same recordings.

    Raises:
        ValueError: both have recordings, and none in common.
    """
    if reference and estimated and not set(reference) & set(estimated):
        raise UsageError(
            "wanted recordings that both sides have, got none: "
            f"the reference has {min(reference)!r}, the other side {min(estimated)!r}"
        )


class Remarks:
    """What rules met, logged as warnings and kept."""

    def __init__(self) -> None:
        self.lines: tuple[str, ...] = ()

    def add(self, met: Sequence[object], what: str, how: str) -> None:
        """Note what a rule did, if it met anything.

        Args:
            met: what it met.
            what: a word for one of them.
            how: what about them, and what was done.
        """
        if met:
            line = f"{len(met)} {what}{'s' if len(met) > 1 else ''} {how}"
            self.lines += (line,)
            _logger.warning("%s", line)


def some(names: Iterable[str]) -> str:
    """The first few names of many."""
    distinct = sorted(set(names))
    return ", ".join(distinct[:3]) + (f" and {len(distinct) - 3} more" if len(distinct) > 3 else "")


def _misspelt(foreign: Collection[str], scored: Sequence[str], found: Collection[str]) -> str:
    """A hint at a label that the reference spells otherwise, if one seems to.

    That is one that differs by case or blanks alone, or else one that is much like a label of the reference
    that nothing estimated has.
    """
    folded = {label.strip().casefold(): label for label in scored}
    alike = [(label, folded.get(label.strip().casefold())) for label in sorted(foreign)]
    alike += [(label, most_alike(label, set(scored) - set(found))) for label in sorted(foreign)]
    pairs = (f"; is {label!r} the reference's {other!r}?" for label, other in alike if other is not None)
    return next(pairs, "")


def _fitting(
    events: Sequence[Sequence[Event]], ends: Sequence[float], what: str, remarks: Remarks
) -> tuple[tuple[Event, ...], ...]:
    """The events of each recording, those of one class disjoint, ordered."""
    late = [e for own, end in zip(events, ends, strict=True) for e in own if e.offset > end + _SLACK]
    remarks.add(late, what, "past the end of a recording: counted all the same")
    joined = [_joined(own) for own in events]
    lost = sum(map(len, events)) - sum(map(len, joined))
    remarks.add(range(lost), what, "overlapping another of the same class: joined")
    return tuple(tuple(sorted(own)) for own in joined)


def _joined(events: Sequence[Event]) -> list[Event]:
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
