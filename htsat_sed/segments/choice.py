"""Which events of a class are cut out.

Whatever the order, it is one list a class whose beginning is taken: a larger limit adds clips and drops
none. The order of a class does not depend on the other classes, and by chance it is the same for the same
events and seed on every machine.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar, get_args

from htsat_sed.detection.events import Event
from htsat_sed.errors import UsageError

Order = Literal["highest", "random", "bands"]

_T = TypeVar("_T")


class Found(NamedTuple):
    """An event and the recording it is in."""

    filename: str
    event: Event


@dataclass(frozen=True, kw_only=True)
class ClipChoice:
    """How many events of each class, and which.

    Attributes:
        limit: at most so many events a class; None for all.
        order: ``highest`` scores first, equal ones at random; at ``random``; or from the score ``bands`` in
            turn, at random within each, so that all have the same share as far as they have events.
        spread: take from the recordings in turn (within a band where there are bands).
        bands: number of equally wide bands between the scores 0 and 1. A score between two bands belongs
            to the upper one.
        seed: of chance.
    """

    limit: int | None = None
    order: Order = "highest"
    spread: bool = False
    bands: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"wanted a limit of 1 or more, got {self.limit}")
        if self.order not in get_args(Order):
            raise UsageError(f"wanted an order, one of {', '.join(get_args(Order))}; got {self.order!r}")
        if self.bands < 1:
            raise UsageError(f"wanted 1 band or more, got {self.bands}")


def choose(table: Mapping[str, Sequence[Event]], choice: ClipChoice) -> list[Found]:
    """Choose events.

    Args:
        table: recording -> its events.
        choice: how.

    Returns:
        Those chosen, by recording as in the table and then by onset, offset and label.
    """
    classes: dict[str, list[Found]] = {}
    for filename, events in table.items():
        for event in events:
            classes.setdefault(event.label, []).append(Found(filename, event))
    taken = {
        found for label, own in classes.items() for found in _ordered(label, own, choice)[: choice.limit]
    }
    return [
        found for name, events in table.items() for e in sorted(events) if (found := Found(name, e)) in taken
    ]


def _ordered(label: str, own: Iterable[Found], choice: ClipChoice) -> list[Found]:
    """The events of a class in the order in which they are taken."""
    ordered = sorted(own)
    random.Random(f"{choice.seed} {label}").shuffle(ordered)
    if choice.order == "highest":
        ordered.sort(key=lambda found: -found.event.score)  # label tracks have no scores: chance decides

    def band(found: Found) -> int:
        return min(int(found.event.score * choice.bands), choice.bands - 1) if choice.order == "bands" else 0

    if choice.spread:
        ordered = _in_turn(ordered, lambda found: (band(found), found.filename))
    return _in_turn(ordered, band) if choice.order == "bands" else ordered


def _in_turn(items: Sequence[_T], group: Callable[[_T], Hashable]) -> list[_T]:
    """First the first of each group, then the second of each, ...; the order is kept otherwise."""
    seen: Counter[Hashable] = Counter()
    turns: list[tuple[int, int]] = []
    for index, item in enumerate(items):
        turns.append((seen[group(item)], index))
        seen[group(item)] += 1
    return [items[index] for _, index in sorted(turns)]
