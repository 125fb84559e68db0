"""Reports the events of a live stream; skips windows when computing falls behind."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from htsat_sed.audio import AudioStream, cut
from htsat_sed.detection.detector import Detector
from htsat_sed.live.clips import Clips, Ring
from htsat_sed.live.events import Change, LiveEvents, Rules, State
from htsat_sed.live.feed import Clock, Feed
from htsat_sed.model.htsat import TOKENS

_WARN_EVERY = 60.0  # seconds between two warnings of falling behind
_LONGEST_WAIT = 60.0  # seconds of sound that are queued before the reader waits

Source = Callable[[ExitStack], AudioStream]
_logger = logging.getLogger("htsat_sed")


@dataclass(frozen=True)
class Report:
    """A line of the output.

    Attributes:
        state: ``begin``: an event begins; ``final``: the event is final; ``withdrawn``: a begun event was not
            confirmed; ``gap``: the source was interrupted.
        number: number of the event, from 1; 0 for a gap.
        label: class; empty for a gap.
        onset: seconds of the stream.
        offset: seconds of the stream; None while the event goes on.
        begin: the onset by the wall clock.
        end: the offset by the wall clock.
        score: highest so far, in [0, 1]; 0 for a gap.
        clip: path of the audio clip, if one was written.
    """

    state: State
    number: int
    label: str
    onset: float
    offset: float | None
    begin: datetime
    end: datetime | None
    score: float
    clip: str | None = None

    def json(self) -> str:
        """One line of JSON, without a line break."""
        return json.dumps(
            {
                "state": self.state,
                "number": self.number,
                "label": self.label,
                "onset": round(self.onset, 6),
                "offset": None if self.offset is None else round(self.offset, 6),
                "begin": self.begin.isoformat(timespec="milliseconds"),
                "end": None if self.end is None else self.end.isoformat(timespec="milliseconds"),
                "score": round(self.score, 6),
                "clip": self.clip,
            },
            ensure_ascii=False,
        )


@dataclass(frozen=True)
class Saving:
    """Which clips of events are saved.

    Attributes:
        clips: writes them.
        before: seconds of sound before an event.
        after: seconds of sound after an event.
        longest: longest part of an event in seconds, counted back from its end.
    """

    clips: Clips
    before: float
    after: float
    longest: float


@dataclass(frozen=True)
class Pace:
    """When windows are computed.

    Attributes:
        hop: tokens between the starts of two windows.
        slack: seconds that computing may lag behind the stream.
        drop: whether to skip windows beyond that; otherwise the source waits.
    """

    hop: int
    slack: float
    drop: bool


@dataclass
class Counts:
    """Progress of a listener.

    Attributes:
        windows: windows received.
        dropped: windows skipped.
        events: final events.
        seconds: duration of the stream.
        level: level of the last 250 ms, dB relative to full scale.
        scores: (K,), the highest scores in the last second of the newest window.
        behind: seconds of queued sound.
    """

    windows: int = 0
    dropped: int = 0
    events: int = 0
    seconds: float = 0.0
    level: float = -math.inf
    scores: NDArray[np.float32] | None = None
    behind: float = 0.0


class Listener:
    """Detects the events of one stream.

    Args:
        detector: computes scores of all classes that may be reported.
        rules: classes to report and their post-processing.
        pace: when windows are computed.
        clock: clock of the stream.
        report: called with each report, in order.
        saving: which clips of events are saved; None for none.

    Attributes:
        counts: progress so far.
    """

    def __init__(
        self,
        detector: Detector,
        rules: Rules,
        pace: Pace,
        *,
        clock: Clock,
        report: Callable[[Report], None],
        saving: Saving | None = None,
    ) -> None:
        config = detector.config
        self.counts = Counts()
        self._detector, self._rules, self._pace = detector, rules, pace
        self._clock, self._report, self._saving = clock, report, saving
        self._rate, self._window = config.sample_rate, config.window_samples
        self._hop = pace.hop * self._window // TOKENS
        self._events = LiveEvents(
            detector.labels, rules, tokens=TOKENS, hop=pace.hop, token_seconds=config.token_seconds
        )
        self._feed = Feed(round((_LONGEST_WAIT if pace.drop else max(1.0, pace.slack)) * self._rate))
        self._ring = Ring(self._ring_samples())
        self._held: deque[Report] = deque()  # final events whose clip is not complete
        self._gaps: deque[tuple[float, float]] = deque()
        self._new_rules: Rules | None = None
        self._warned = -math.inf

    def _ring_samples(self) -> int:
        if self._saving is None:
            return self._rate  # for the level
        look_ahead = self._rules.look_ahead(self._detector.config.token_seconds)
        own = self._saving.before + self._saving.after + self._saving.longest
        return round((own + look_ahead + 3 * self._detector.config.window_seconds) * self._rate)

    def stop(self) -> None:
        """End the stream now; may be called by a signal handler."""
        self._feed.close()

    def change(self, rules: Rules) -> None:
        """Use other rules from the next window on; may be called by a signal handler."""
        self._new_rules = rules

    def gap(self, at: float, seconds: float) -> None:
        """Record an interruption of `seconds` at second `at`; may be called by any thread."""
        self._gaps.append((at, seconds))

    def listen(self, source: Source, idle: Callable[[], None] = lambda: None) -> None:
        """Listen until the stream ends or `stop` is called; then finish the ongoing events.

        Args:
            source: opens a stream at the model's sample rate and registers on the given stack what must be
                closed; runs in the reading thread, since it may have to wait.
            idle: called while no sound arrives, and after each window.

        Raises:
            HtsatSedError: the stream cannot be opened, or broke off for good; raised after ongoing events
                are finished.
        """
        stream: AudioStream | None = None

        def read() -> Iterator[NDArray[np.float32]]:
            nonlocal stream
            with ExitStack() as stack:
                stream = source(stack)
                yield from stream.blocks()

        threading.Thread(target=self._feed.fill, args=(read,), name="source", daemon=True).start()
        error: BaseException | None = None

        def blocks() -> Iterator[NDArray[np.float32]]:
            nonlocal error
            try:
                for block in self._feed.blocks(idle):
                    self._ring.add(block)
                    arrived = (self._ring.end + self._feed.waiting) / self._rate
                    self._clock.arrived(arrived, time.time())
                    yield block
            except Exception as broken:
                error = broken

        tokens = 0
        with self._detector.scoring() as score:
            for window in cut(blocks(), window=self._window, hop=self._hop):
                if not len(window.samples):
                    break
                reached = window.start + len(window.samples)
                tokens = -(-reached * TOKENS // self._window)
                if self._new_rules is not None:
                    self._rules, self._new_rules = self._new_rules, None
                    self._report_changes(self._events.change(self._rules))
                scores = self._scores(window.samples, score)
                self._report_changes(self._events.add(scores, tokens, reached / self._rate))
                self._note(scores, reached)
                idle()
        complete = error is None and not self._feed.closed
        duration = stream.duration if complete and stream is not None else self._ring.end / self._rate
        if tokens:
            self._report_changes(self._events.finish(tokens, duration))
        self._report_complete(math.inf)
        if error is not None:
            raise error

    def _scores(
        self, samples: NDArray[np.float32], score: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    ) -> NDArray[np.float32] | None:
        """Scores of a window; None if it is skipped."""
        counts, pace = self.counts, self._pace
        counts.windows += 1
        counts.behind = self._feed.waiting / self._rate
        if pace.drop and counts.behind > pace.slack:
            counts.dropped += 1
            self._warn_behind(
                f"{counts.behind:.1f} s of sound queued; {counts.dropped} of {counts.windows} windows skipped"
            )
            return None
        begun = time.monotonic()
        scores = score(samples)
        taken, hop = time.monotonic() - begun, self._hop / self._rate
        if taken > hop and counts.windows > 1 and not pace.drop:
            self._warn_behind(
                f"a window takes {taken:.2f} s, longer than the hop of {hop:g} s: the source must wait"
            )
        return scores

    def _warn_behind(self, what: str) -> None:
        now = time.monotonic()
        if now - self._warned >= _WARN_EVERY:
            self._warned = now
            _logger.warning("falling behind: %s", what)

    def _note(self, scores: NDArray[np.float32] | None, reached: int) -> None:
        counts = self.counts
        counts.seconds = reached / self._rate
        latest = self._ring.between(self._ring.end - self._rate // 4, self._ring.end)
        power = float(np.dot(latest, latest)) / max(1, len(latest))
        counts.level = 10.0 * math.log10(power) if power > 0.0 else -math.inf
        if scores is not None:
            last = -(-reached * TOKENS // self._window) - (
                -(-(reached - self._window) * TOKENS // self._window)
            )
            counts.scores = scores[max(0, min(TOKENS, last) - 4) : min(TOKENS, last)].max(axis=0)

    def _report_changes(self, changes: list[Change]) -> None:
        """Report changes; a final event once its clip is complete."""
        while self._gaps:
            at, seconds = self._gaps.popleft()
            times = self._clock.at(at), self._clock.at(at + seconds)
            self._report(Report("gap", 0, "", at, at + seconds, *times, 0.0))
        for change in changes:
            event = change.event
            final = change.state == "final"
            self.counts.events += final
            report = Report(
                change.state,
                change.number,
                event.label,
                event.onset,
                event.offset if final else None,
                self._clock.at(event.onset),
                self._clock.at(event.offset) if final else None,
                event.score,
            )
            if final and self._saving is not None:
                self._held.append(report)
            else:
                self._report(report)
        self._report_complete(self._ring.end / self._rate)

    def _report_complete(self, seconds: float) -> None:
        """Report final events whose clip is complete within the first `seconds` of the stream."""
        if self._saving is None:
            return
        for report in list(self._held):
            assert report.offset is not None
            if report.offset + self._saving.after > seconds:
                continue
            self._held.remove(report)
            first = max(report.onset, report.offset - self._saving.longest) - self._saving.before
            samples = self._ring.between(
                round(max(0.0, first) * self._rate),
                round((report.offset + self._saving.after) * self._rate),
            )
            path = self._saving.clips.write(samples, report.label, report.begin)
            self._report(replace(report, clip=None if path is None else str(path)))


def measured_hop(detector: Detector, wanted: float = 1.0) -> tuple[float, float]:
    """Measure the hop that this machine keeps up with.

    Args:
        detector: computes the scores.
        wanted: shortest hop in seconds; it is lengthened where a window takes more than half of it.

    Returns:
        Hop and computing time of a window, seconds.
    """
    samples = np.random.default_rng(0).standard_normal(detector.config.window_samples).astype(np.float32)
    taken = []
    with detector.scoring() as score:
        for _ in range(4):
            begun = time.monotonic()
            score(0.01 * samples)
            taken.append(time.monotonic() - begun)
    typical = sorted(taken[1:])[1]  # without the first, which includes preparation
    return min(detector.config.window_seconds, max(wanted, 2.0 * typical)), typical
