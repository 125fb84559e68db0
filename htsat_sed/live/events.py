"""Provisional and final events of a stream.

Final events equal those of the saved recording: the same windows pass through the model, and the same code
stitches their scores and finds events. Provisional events are those of a recording that ended now. Each is
reported once, when it begins, with a number that its final event shares. It is withdrawn if later sound
removes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from htsat_sed.detection.edges import reach_of
from htsat_sed.detection.events import Event, PostProcessing, class_rules
from htsat_sed.detection.presence import Stitcher
from htsat_sed.detection.streaming import EventStream
from htsat_sed.errors import UsageError

State = Literal["begin", "final", "withdrawn", "gap"]


@dataclass(frozen=True)
class Rules:
    """Settings that can be changed during a stream.

    Attributes:
        labels: classes to report.
        post_processing: how their scores become events.
    """

    labels: tuple[str, ...]
    post_processing: PostProcessing

    def __post_init__(self) -> None:
        """Refuse rules whose events are known only at the end of a recording.

        Raises:
            UsageError: a class has a `step_filter`.
        """
        for label in self.labels:
            if self.post_processing.of(label).step_filter:
                raise UsageError(
                    f"class {label!r} has a step_filter, whose events are known only at the end of a "
                    "recording: set it to 0 in a file for --post-processing"
                )

    def look_ahead(self, token_seconds: float) -> float:
        """Longest delay in seconds between the end of an event and its final report.

        The delay is longer while scores of its class follow closely enough to be merged with it.
        """
        rules = class_rules(self.labels, token_seconds=token_seconds, post_processing=self.post_processing)
        spans, reach = rules.events, reach_of(token_seconds)
        gaps = np.ceil(spans.min_gap / token_seconds)
        edges = np.where(spans.edge_level > 0.0, 2 * reach + 1, 1)
        tokens = np.asarray(rules.widths) // 2 + np.maximum(gaps, edges)
        return float(tokens.max(initial=0)) * token_seconds


@dataclass(frozen=True)
class Change:
    """A change in the state of an event.

    Attributes:
        state: ``begin``, ``final`` or ``withdrawn``.
        number: number of the event, from 1.
        event: as known so far.
    """

    state: State
    number: int
    event: Event


class LiveEvents:
    """Finds the events of one stream, window by window.

    Args:
        labels: the K classes, in the order of the score columns.
        rules: classes to report and their post-processing.
        tokens: tokens in a window.
        hop: tokens between the starts of two windows.
        token_seconds: duration of a token.
    """

    def __init__(
        self, labels: Sequence[str], rules: Rules, *, tokens: int, hop: int, token_seconds: float
    ) -> None:
        self._labels = tuple(labels)
        self._step = token_seconds
        self._stitcher = Stitcher(tokens, hop)
        self._rows = 0  # rows of final scores
        self._numbers = count(1)
        self._ongoing: dict[str, list[Change]] = {}
        self._begin_with(rules)

    def _begin_with(self, rules: Rules) -> None:
        self._base = self._rows * self._step  # start of the event stream, seconds
        self._columns = [self._labels.index(label) for label in rules.labels]
        self._stream = EventStream(
            rules.labels, token_seconds=self._step, post_processing=rules.post_processing, block=1
        )

    def add(self, scores: NDArray[np.float32] | None, tokens: int, duration: float) -> list[Change]:
        """Add the scores of the next window.

        Args:
            scores: (n, K); None for a skipped window.
            tokens: tokens of the stream up to the end of the window; the last may be incomplete.
            duration: seconds of the stream up to the end of the window.
        """
        rows = self._stitcher.add(scores, len(self._labels))[: tokens - self._rows]
        self._rows += len(rows)
        changes = self._settled(self._stream.add(rows[:, self._columns]))
        rest = self._rest()[: tokens - self._rows]
        preview = self._stream.preview(rest[:, self._columns], max(0.0, duration - self._base))
        return changes + self._compared(self._moved(preview))

    def finish(self, tokens: int, duration: float) -> list[Change]:
        """Close the stream and return the remaining changes; see `add`."""
        rows = self._rest()[: tokens - self._rows]
        self._rows += len(rows)
        found = self._stream.add(rows[:, self._columns]) + self._stream.finish(duration - self._base)
        return self._settled(found) + self._withdrawn(math.inf)

    def change(self, rules: Rules) -> list[Change]:
        """Continue with other rules; ongoing events end at the last final token."""
        found = self._stream.finish(self._rows * self._step - self._base)
        changes = self._settled(found)
        self._begin_with(rules)
        return changes

    def _rest(self) -> NDArray[np.float32]:
        rest = self._stitcher.rest()
        return np.zeros((0, len(self._labels)), np.float32) if rest is None else rest

    def _moved(self, events: Iterable[Event]) -> list[Event]:
        base = self._base
        if base:
            events = (replace(each, onset=each.onset + base, offset=each.offset + base) for each in events)
        return sorted(events)

    def _settled(self, events: list[Event]) -> list[Change]:
        """Changes due to final events."""
        changes = []
        for event in self._moved(events):
            own = self._ongoing.setdefault(event.label, [])
            mates = [each for each in own if _overlap(each.event, event)]
            self._ongoing[event.label] = [each for each in own if each not in mates]
            number = mates[0].number if mates else next(self._numbers)
            if not mates:
                changes.append(Change("begin", number, event))
            changes.append(Change("final", number, event))
            changes += [replace(each, state="withdrawn") for each in mates[1:]]
        return changes

    def _compared(self, events: list[Event]) -> list[Change]:
        """Changes due to provisional events."""
        changes = []
        seen: dict[str, list[Change]] = {}
        for event in events:
            own = self._ongoing.setdefault(event.label, [])
            mates = [each for each in own if _overlap(each.event, event)]
            self._ongoing[event.label] = [each for each in own if each not in mates]
            number = mates[0].number if mates else next(self._numbers)
            change = Change("begin", number, event)
            seen.setdefault(event.label, []).append(change)
            changes += [] if mates else [change]
            changes += [replace(each, state="withdrawn") for each in mates[1:]]
        changes += self._withdrawn(self._rows * self._step)
        for label, own in seen.items():
            self._ongoing[label] = sorted(
                [*self._ongoing[label], *own], key=lambda change: change.event.onset
            )
        return changes

    def _withdrawn(self, until: float) -> list[Change]:
        """Begun events that the scores, final up to second `until`, do not confirm."""
        gone = [
            replace(each, state="withdrawn")
            for own in self._ongoing.values()
            for each in own
            if each.event.offset <= until
        ]
        self._ongoing = {
            label: [each for each in own if each.event.offset > until] for label, own in self._ongoing.items()
        }
        return gone


def _overlap(one: Event, other: Event) -> bool:
    return one.onset < other.offset and other.onset < one.offset
