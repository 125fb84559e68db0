"""Finding the events of a presence map row by row: the same as in the whole map, without storing it.

An event is final under these conditions, by step (see `htsat_sed.detection.events`):

1. the median filter has half its width of rows before and after;
2. the run above the low threshold has ended; until then, its start and highest score are stored;
3. no other event can begin within `min_gap` after it;
4. its onset and offset are known; they depend on its mean score, and on the next event if that is close.

Memory is therefore independent of the duration: a few rows, and one open run and one open event per class.
For classes with an `edge_level`, the smoothed scores of open runs and events are stored too, 4 bytes per
token.

Boxes between change points have no such bound: with `merge_absolute` above 0, the last row of a map can
change its first box through a chain of merged gaps. For classes with a `step_filter`, all smoothed scores are
stored until the end: 4 bytes per token, 1.1 MB per class and day.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from htsat_sed.detection.change_points import Boxes
from htsat_sed.detection.edges import APART, EdgeScores, find_edges, long_ago, reach_of
from htsat_sed.detection.event_arrays import EventRules, close_gaps, find_event_arrays, find_runs, in_seconds
from htsat_sed.detection.events import Event, PostProcessing, class_rules, named
from htsat_sed.detection.median_filter import smooth
from htsat_sed.errors import UsageError

_BLOCK = 256  # rows processed at once, 80 s


class EventStream:
    """Finds the events of one recording from the rows of its presence map.

    `add` and `finish` together return the events that `find_events` finds in the whole map, for any division
    into blocks.

    Args:
        labels: K class names, in the order of the columns.
        token_seconds: duration of a token, seconds.
        post_processing: settings; values for unknown labels have no effect.
        block: rows to process at once; None for an efficient number.
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        token_seconds: float,
        post_processing: PostProcessing,
        block: int | None = None,
    ) -> None:
        self._labels = tuple(labels)
        self._step = token_seconds
        self._widths, self._rules, self._calibration = class_rules(
            self._labels, token_seconds=token_seconds, post_processing=post_processing
        )
        self._half = max(self._widths, default=1) // 2
        self._block = max(_BLOCK, self._half) if block is None else block
        self._boxed = np.flatnonzero(self._rules.sides)
        self._boxed_rules = EventRules._make(values[self._boxed] for values in self._rules)
        self._boxed_rows: list[NDArray[np.float32]] = []
        self._edged = np.flatnonzero((self._rules.edge_level > 0.0) & (self._rules.sides == 0))
        self._edge_level = np.where(self._rules.sides == 0, self._rules.edge_level, 0.0)
        self._reach = reach_of(token_seconds)
        self._edge_scores = EdgeScores(len(self._edged), self._reach)
        self._last_end = np.full(len(self._labels), long_ago(self._reach))  # end of the last final event
        self._new: list[NDArray[np.float32]] = []
        self._rows = np.zeros((0, len(self._labels)), np.float32)  # rows that the filter still needs
        self._end = 0  # token after the last of these rows
        self._smoothed = 0  # number of smoothed tokens
        self._open = _none()  # runs that touch the last smoothed token
        self._waiting = _none()  # events that are not final

    def add(self, rows: NDArray[np.float32]) -> list[Event]:
        """Add the next rows.

        Args:
            rows: (n, K) float32 scores in [0, 1].

        Returns:
            Events that are now final, in the order of columns; usually none.

        Raises:
            ValueError: the number of columns differs from the number of labels.
        """
        if rows.ndim != 2 or rows.shape[1] != len(self._labels):
            raise UsageError(
                f"wanted rows of shape (n, {len(self._labels)}), one column per label, got {rows.shape}"
            )
        self._new.append(rows)
        if sum(map(len, self._new)) < self._block:
            return []
        return self._advance(None)

    def finish(self, duration: float) -> list[Event]:
        """Return the remaining events.

        Args:
            duration: duration of the recording, seconds; within the last row.

        Raises:
            ValueError: the duration ends before the last row.
        """
        tokens = self._end + sum(map(len, self._new))
        if tokens == 0 or not self._labels:
            return []
        if duration < (tokens - 1) * self._step:
            raise UsageError(
                f"wanted a duration within the last of {tokens} rows of {self._step:g} s, got {duration:g} s"
            )
        found = self._advance(duration)
        if len(self._boxed):
            scores = np.concatenate(self._boxed_rows)
            boxes = find_event_arrays(scores, self._boxed_rules, token_seconds=self._step, duration=duration)
            found += named(boxes._replace(column=self._boxed[boxes.column]), self._labels, self._calibration)
        return found

    def preview(self, rows: NDArray[np.float32], duration: float) -> list[Event]:
        """Return the remaining events if the recording ended after the given rows; the state does not change.

        Onsets and offsets are not refined, so that the time does not grow with the duration of events.

        Args:
            rows: (n, K) float32, the next rows.
            duration: duration of the recording, seconds; within the last row.
        """
        ahead = copy.copy(self)
        ahead._new = [*self._new, rows]
        ahead._last_end = self._last_end.copy()
        ahead._edge_level = np.zeros_like(self._edge_level)
        ahead._edge_scores = EdgeScores(len(self._edged), self._reach)
        ahead._boxed_rows = list(self._boxed_rows)
        return ahead.finish(duration)

    def _advance(self, duration: float | None) -> list[Event]:
        """Process the new rows; a known duration means that they are the last."""
        rows = np.concatenate([self._rows, *self._new])
        self._new = []
        self._end += len(rows) - len(self._rows)
        first = self._end - len(rows)
        ready = self._end if duration is not None else max(self._smoothed, self._end - self._half)
        if duration is None and ready == self._smoothed:
            self._rows = rows
            return []
        smoothed = smooth(rows, widths=self._widths)[self._smoothed - first : ready - first]
        self._rows = rows[max(0, ready - self._half - first) :].copy()
        if len(self._boxed):
            self._boxed_rows.append(smoothed[:, self._boxed])
        self._edge_scores.add(smoothed[:, self._edged])

        runs = self._closed_runs(smoothed, last=duration is not None)
        kept = runs.score > self._rules.high.astype(np.float32)[runs.column]
        events = self._waiting.and_those(runs.where(kept)).in_order()
        events = close_gaps(events, self._rules, self._step)
        final = np.ones(len(events.column), bool)
        edged = self._edge_level[events.column] > 0.0
        if duration is None:
            next_start = np.full(len(self._labels), self._smoothed)
            next_start[self._open.column] = self._open.start
            last = np.append(events.column[1:] != events.column[:-1], True)[: len(final)]
            gap = next_start[events.column] - events.end
            final = ~last | (gap * self._step >= self._rules.min_gap[events.column])
            final &= ~edged | (self._smoothed - events.end > self._reach)
        onsets, offsets = self._edges(events, final)
        if duration is None:
            # The next event limits the offset of this one. An offset within the limit is final. Otherwise, it
            # depends on whether the open run becomes an event.
            limit = events.end + (gap / 2.0 - APART / 2.0)
            is_event = np.zeros(len(self._labels), bool)
            high = self._rules.high.astype(np.float32)[self._open.column]
            is_event[self._open.column] = self._open.score > high
            followed = edged & last & is_event[events.column]
            final &= ~edged | ~last | followed | (offsets <= limit)
            offsets = np.where(followed, np.minimum(offsets, limit), offsets)
        self._waiting = events.where(~final)
        self._last_end[events.column[final]] = events.end[final]  # with repeated columns, the last is kept
        self._edge_scores.keep(self._unfinished())
        # Only the last row may be truncated, and events that are final before the end do not reach it.
        end = np.full(len(self._labels), np.inf if duration is None else duration)
        edges = onsets[final], offsets[final]
        spans = in_seconds(events.where(final), edges, self._rules, token_seconds=self._step, duration=end)
        return named(spans, self._labels, self._calibration)

    def _edges(
        self, events: Boxes, final: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compute the onsets and offsets of events, tokens; valid only for final events."""
        onsets, offsets = events.start.astype(np.float64), events.end.astype(np.float64)
        wanted = np.unique(events.column[final & (self._edge_level[events.column] > 0.0)])
        for places, scores, first in self._edge_scores.of(np.searchsorted(self._edged, wanted).tolist()):
            columns = self._edged[places]
            own = np.isin(events.column, columns)
            some = events.where(own)
            onsets[own], offsets[own] = find_edges(
                scores,
                some._replace(column=np.searchsorted(columns, some.column)),
                level=self._edge_level[columns],
                reach=self._reach,
                first=first,
                before=self._last_end[columns],
            )
        return onsets, offsets

    def _unfinished(self) -> dict[int, int]:
        """Map each refined column to the start of its first run or event that is not final."""
        starts: dict[int, int] = {}
        for unfinished in (self._open, self._waiting):
            own = unfinished.where(self._edge_level[unfinished.column] > 0.0)
            places = np.searchsorted(self._edged, own.column)
            for place, start in zip(places.tolist(), own.start.tolist(), strict=True):
                starts[place] = min(start, starts.get(place, start))
        return starts

    def _closed_runs(self, smoothed: NDArray[np.float32], *, last: bool) -> Boxes:
        """Return the runs above the low threshold that end in or before these rows; `last` ends all runs."""
        low = np.where(self._rules.sides == 0, self._rules.low, np.inf)
        found = find_runs(smoothed, low)
        start, end = found.start + self._smoothed, found.end + self._smoothed
        begun = np.full(len(self._labels), -1)  # index of the column's run in `_open`
        begun[self._open.column] = np.arange(len(self._open.column))
        before = np.where(start == self._smoothed, begun[found.column], -1)
        goes_on = before >= 0
        start[goes_on] = self._open.start[before[goes_on]]
        peak = found.score.copy()
        peak[goes_on] = np.maximum(peak[goes_on], self._open.score[before[goes_on]])

        ended = np.ones(len(self._open.column), bool)
        ended[before[goes_on]] = False
        self._smoothed += len(smoothed)
        runs = self._open.where(ended).and_those(Boxes(found.column, start, end, peak))
        still_open = (runs.end == self._smoothed) & (not last)
        self._open = runs.where(still_open)
        return runs.where(~still_open)


def _none() -> Boxes:
    nothing = np.zeros(0, np.int64)
    return Boxes(nothing, nothing, nothing, np.zeros(0, np.float32))
