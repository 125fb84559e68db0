"""Selection of the events of a class.

The events of a class are ordered and the first ones taken, so a larger limit adds clips and drops none. The
order does not depend on other classes. A random order is the same for the same events and seed on every
machine.
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
    """An event and the name of its recording."""

    filename: str
    event: Event


@dataclass(frozen=True, kw_only=True)
class ClipChoice:
    """Number and order of the events to select from each class.

    Attributes:
        limit: maximum number of events per class; None for all.
        order: ``highest``: descending scores, ties in random order; ``random``; ``bands``: from each band of
            scores in turn, in random order within a band, so that bands have equal shares as far as possible.
        spread: take from the recordings in turn (with ``bands``, within a band).
        bands: number of equally wide bands of scores from 0 to 1; a boundary belongs to the upper band.
        seed: random seed.
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
    """Select events.

    Args:
        table: recording -> its events.
        choice: number and order.

    Returns:
        The selected events, ordered by recording as in the table, then by onset, offset and label.
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
    """The events of a class in order of selection."""
    ordered = sorted(own)
    random.Random(f"{choice.seed} {label}").shuffle(ordered)
    if choice.order == "highest":
        ordered.sort(key=lambda found: -found.event.score)  # label tracks have no scores and stay shuffled

    def band(found: Found) -> int:
        return min(int(found.event.score * choice.bands), choice.bands - 1) if choice.order == "bands" else 0

    if choice.spread:
        ordered = _in_turn(ordered, lambda found: (band(found), found.filename))
    return _in_turn(ordered, band) if choice.order == "bands" else ordered


def _in_turn(items: Sequence[_T], group: Callable[[_T], Hashable]) -> list[_T]:
    """The first item of each group, then the second of each, and so on, in the given order."""
    seen: Counter[Hashable] = Counter()
    turns: list[tuple[int, int]] = []
    for index, item in enumerate(items):
        turns.append((seen[group(item)], index))
        seen[group(item)] += 1
    return [items[index] for _, index in sorted(turns)]
