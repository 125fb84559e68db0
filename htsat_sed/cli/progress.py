"""Progress on standard error: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TransferSpeedColumn,
)
from rich.table import Column

from htsat_sed.cli.terminal import clock, errors, output, printable, remark, report, say, shown
from htsat_sed.errors import HtsatSedError

_BAR = 20  # characters
_EVERY, _APART = 30.0, 10.0  # seconds between lines: at most where anything moves, at least
_STRIDE, _MEMORY = 1.0, 60.0  # seconds between the marks of a pace, and that they reach back


@contextmanager
def waiting_for(what: str) -> Iterator[None]:
    """Show that something takes its time, such as ``loading the model``; without a bar every 30 s."""
    way = shown.way()
    if way == "bar":
        with errors.status(what):
            yield
        return
    over = threading.Event()

    def beat() -> None:
        begun = time.monotonic()
        while not over.wait(_EVERY):
            remark(f"{what}: {_span(time.monotonic() - begun)} so far")

    if way == "lines":
        threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        over.set()


class Pace:
    """How fast it goes, from how long the last stretch took; batches make progress come in bursts.

    What comes before the first second of progress is left out: a model is compiled, queues fill.
    """

    def __init__(self) -> None:
        self._begun: float | None = None
        self._marks: deque[tuple[float, float]] = deque()

    def note(self, now: float, done: float) -> None:
        """Note how much is done by now, in seconds on some clock; it never becomes less."""
        self._begun = now if self._begun is None else self._begun
        if now - self._begun < _STRIDE:
            self._marks.clear()
        elif len(self._marks) > 1 and now - self._marks[-2][0] < _STRIDE:
            self._marks.pop()
        self._marks.append((now, done))
        while len(self._marks) > 1 and now - self._marks[1][0] > _MEMORY:
            self._marks.popleft()

    def stretch(self) -> tuple[float, float] | None:
        """Seconds of the last stretch, and how much was done in it; None while it is too short."""
        if not self._marks:
            return None
        (since, before), (now, done) = self._marks[0], self._marks[-1]
        return (now - since, done - before) if now - since >= _STRIDE and done > before else None

    def left(self, total: float) -> float | None:
        """Seconds until all is done; None while nothing tells."""
        if (stretch := self.stretch()) is None:
            return None
        seconds, done = stretch
        return (total - self._marks[-1][1]) * seconds / done


class _Progress:
    """A bar, lines or nothing over work of a known amount.

    Lines come 30 s apart, or 10 s where 10 % more is done: a short run prints none.

    Args:
        doing: what is done, such as ``detecting``.
        total: how much there is; None while nobody knows.
        unit: what is counted, such as ``recordings``.
        columns: of the bar, between the bar itself and the time that is left.
        hidden: show nothing whatever the options say.
    """

    def __init__(
        self,
        doing: str,
        total: float | None,
        unit: str,
        columns: list[ProgressColumn],
        *,
        hidden: bool = False,
    ) -> None:
        way = "none" if hidden else shown.way()
        self._bar = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True), markup=False),
            BarColumn(bar_width=_BAR),
            *columns,
            TextColumn("{task.fields[left]}", style="progress.remaining", table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[time]}", table_column=Column(no_wrap=True), markup=False),
            # A long name is cut, not the bar.
            TextColumn(
                "{task.fields[name]}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            expand=True,
            console=errors if errors.is_terminal else Console(stderr=True, force_terminal=True),
            transient=True,
            redirect_stdout=False,  # else what goes to a pipe would end up beside the bar
            disable=way != "bar",
        )
        self._task = self._bar.add_task(doing, total=total, name="", time="", left=_span(None))
        self._lines = way == "lines"
        self._doing, self._total, self._unit = doing, total, unit
        self._done = self._before = 0.0
        self._pace = Pace()
        self._begun = self._last = time.monotonic()
        self._tenth = 0
        self._printed = False

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()
        if self._printed and exception[:1] == (None,):
            remark(f"{self._doing}: {self._count(self._done)} in {_span(time.monotonic() - self._begun)}")

    def done_before(self, amount: int) -> None:
        """Note what an earlier run did, which tells nothing about the pace of this one."""
        self._done += amount
        self._before += amount
        self._bar.update(self._task, completed=self._done)

    def _move(self, done: float, *, time_text: str = "", name: str = "", about: str = "") -> None:
        """Show that so much is done, parts included.

        Args:
            done: in all.
            time_text: where in the recording.
            name: of the recording, or other words behind the bar.
            about: words for the end of a line.
        """
        now = time.monotonic()
        self._pace.note(now, done - self._before)
        left = None if self._total is None else self._pace.left(self._total - self._before)
        self._bar.update(
            self._task,
            description=self._doing,
            total=self._total,
            completed=done,
            left=_span(left),
            time=time_text,
            name=name,
        )
        if not (self._lines and self._total):
            return
        share = min(done / self._total, 1.0)
        further = int(10.0 * share) > self._tenth and now - self._last >= _APART
        if share < 1.0 and (further or now - self._last >= _EVERY):
            self._last, self._tenth, self._printed = now, int(10.0 * share), True
            parts = [f"{self._count(done)} ({share:.0%})", self._rate(), f"{_span(left)} left", about]
            remark(f"{self._doing}: {', '.join(part for part in parts if part)}")

    def _count(self, done: float) -> str:
        return f"{int(done)} of {self._total} {self._unit}"

    def _rate(self) -> str:
        """How fast it goes, as ``12.5 recordings/min``."""
        if (stretch := self._pace.stretch()) is None:
            return ""
        seconds, done = stretch
        for factor, of in ((1, "s"), (60, "min"), (3600, "h")):
            if done * factor >= seconds or of == "h":
                return f"{done * factor / seconds:.3g} {self._unit}/{of}"
        return ""


class RecordingsProgress(_Progress):
    """Progress over recordings, which moves within long ones too.

    Args:
        doing: what is done, such as ``detecting``.
        total: number of recordings.
        unit: what is counted, if not recordings.
    """

    def __init__(self, doing: str, total: int, unit: str = "recordings") -> None:
        super().__init__(doing, total, unit, [MofNCompleteColumn(table_column=Column(no_wrap=True))])
        self._name = self._time = ""

    def heard(self, path: object, seconds: float, expected: float | None) -> None:
        """Note how far a recording has been heard; see `Detector.presence_maps`."""
        part = min(seconds / expected, 1.0) if expected else 0.0
        of = f" of {clock(expected)}" if expected else ""
        self._name, self._time = printable(Path(str(path)).name), f"{clock(seconds)}{of}"
        self._show(self._done + part)

    def done(self, recordings: int = 1) -> None:
        """Note that more recordings are through, well or not."""
        self._done += recordings
        self._show(self._done)

    def _show(self, done: float) -> None:
        about = f"{self._name} {self._time}" if self._name else ""
        self._move(done, time_text=self._time, name=self._name, about=about)

    def note(self, message: str) -> None:
        """Show a remark."""
        say("note", message)

    def failed(self, error: HtsatSedError) -> None:
        """Show why a recording failed."""
        report(error)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bar away while data is printed, if that goes to the terminal too."""
        if not output.is_terminal:
            yield
            return
        self._bar.stop()
        yield
        self._bar.start()


class DownloadProgress(_Progress):
    """Progress of a download, in bytes.

    Args:
        name: what is downloaded.
        size: bytes, if known.
    """

    def __init__(self, name: str, size: int | None) -> None:
        super().__init__(name, size, "MB", [DownloadColumn(), TransferSpeedColumn()])

    def update(self, there: int, wanted: int | None) -> None:
        """Note how many bytes are there; the first call says where an earlier download stopped."""
        if not self._done:
            self._before = float(there)
        self._done, self._total = float(there), wanted
        self._move(there)

    def _count(self, done: float) -> str:
        return f"{done / 1e6:.1f} of {(self._total or 0) / 1e6:.1f} MB"

    def _rate(self) -> str:
        stretch = self._pace.stretch()
        return "" if stretch is None else f"{stretch[1] / stretch[0] / 1e6:.3g} MB/s"


class TrainingProgress(_Progress):
    """Progress over the steps of a training run, with its losses.

    Args:
        epochs: that the steps make up.
        shown: false for all but one of several processes.
        doing: words for what is trained, in place of the epoch.
        unit: what is counted.
    """

    def __init__(self, epochs: int, *, shown: bool, doing: str = "", unit: str = "steps") -> None:
        super().__init__("reading data", None, unit, [MofNCompleteColumn()], hidden=not shown)
        self._epochs = epochs
        self._named = doing

    def update(self, step: int, steps: int, figures: Mapping[str, float]) -> None:
        """Note how far it is; see `htsat_sed.training.fit.fit`.

        Steps before the first call are an earlier run's.
        """
        if self._total is None:
            self._before = max(0, step - 1)
        epoch = min(self._epochs, 1 + step * self._epochs // steps)
        self._doing = self._named or f"epoch {epoch} of {self._epochs}"
        self._total, self._done = steps, step
        text = " ".join(f"{name} {figures[name]:.3f}" for name in _FIGURES if name in figures)
        self._move(step, name=text, about=text)


_FIGURES = ("clip_loss", "token_loss", "accuracy", "mAP", "token_mAP")


def _span(seconds: float | None) -> str:
    """Seconds as ``1:02:03``."""
    if seconds is None:
        return "-:--:--"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
