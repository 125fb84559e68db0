"""What a person sees on standard error: warnings, errors, progress."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from htsat_sed.errors import HtsatSedError

if TYPE_CHECKING:
    from htsat_sed.runs.run import Run

_LISTED = 30  # failures in a summary
_BAR = 20  # characters
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

errors = Console(stderr=True)
output = Console()
if not output.is_terminal:
    output.width = 120  # reports in a pipe or a file; nobody knows how wide they are shown


def printable(text: str) -> str:
    """Text as one line: line ends, control characters and bytes that are no text become escapes."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(kind: str, message: object, style: str) -> None:
    """Print one line such as ``warning: street.wav: ends at 3.2 s``; never wrapped when piped."""
    errors.print(Text.assemble((f"{kind}: ", style), printable(str(message))), soft_wrap=True)


def report(error: Exception) -> None:
    """Print an error as one line."""
    say("error", error, "bold red")


class _Warnings(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say("warning" if record.levelno >= logging.WARNING else "note", record.getMessage(), "yellow")


def show_warnings() -> None:
    """Send what the package logs to standard error."""
    logger = logging.getLogger("htsat_sed")
    logger.handlers = [_Warnings()]
    logger.propagate = False


def summarise(run: Run, out: Path | None, table: Path | None) -> None:
    """Show what became of a run that is finished.

    What failed is listed once more, as it may have scrolled away among other output.

    Args:
        run: after `Run.finish`.
        out: its output; None for standard output.
        table: file that lists the failures, too.
    """
    if run.failures and run.done + len(run.failures) > 1:
        errors.print(
            f"{len(run.failures)} of {run.done + len(run.failures)} recordings failed:", style="bold red"
        )
        for _, failure in run.failures[:_LISTED]:
            say("  failed", failure, "red")
        if len(run.failures) > _LISTED:
            say("  failed", f"and {len(run.failures) - _LISTED} more", "red")
        if table is not None:
            say("  listed", table, "red")
    if run.defects and table is not None:
        say("note", f"read, but truncated or damaged, and listed in {table}: {run.defects}", "")
    if out is not None and run.done and errors.is_terminal:
        say("done", f"{run.done} of {len(run.recordings)} recordings: {out}", "green")


def emit(text: str) -> None:
    """Write data to standard output at once.

    Raises:
        HtsatSedError: it cannot be written: disk full, ...
    """
    if sys.stdout is None:
        raise HtsatSedError("standard output", "is closed: give it a place to go, or an --output")
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        # Python would try again at exit, and complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise HtsatSedError("standard output", f"cannot be written: {error.strerror}") from error


def clock(seconds: float) -> str:
    """Seconds as ``1:02:03.25``, without hours where there are none."""
    minutes, rest = divmod(round(seconds, 2), 60.0)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:05.2f}" if hours else f"{minutes}:{rest:05.2f}"


@contextmanager
def waiting_for(what: str) -> Iterator[None]:
    """Show that something takes its time, such as ``loading the model``; nothing where nobody watches."""
    if not errors.is_terminal:
        yield
        return
    with errors.status(what):
        yield


class Pace:
    """How long the rest takes, from how long the last stretch took; batches make progress come in bursts.

    What comes before the first second of progress tells nothing: a model is compiled, queues fill.
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

    def left(self, total: float) -> float | None:
        """Seconds until all is done; None while nothing tells."""
        if not self._marks:
            return None
        (since, before), (now, done) = self._marks[0], self._marks[-1]
        long_enough = now - since >= _STRIDE and done > before
        return (total - done) * (now - since) / (done - before) if long_enough else None


_STRIDE, _MEMORY = 1.0, 60.0  # seconds between marks, and that they reach back


class RecordingsProgress:
    """A bar over recordings that moves within long ones too; invisible where nobody watches.

    Args:
        doing: what is done with the recordings, such as ``detecting``.
        total: number of recordings.
    """

    def __init__(self, doing: str, total: int) -> None:
        self._bar = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=_BAR),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[left]}", style="progress.remaining", table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[time]}", table_column=Column(no_wrap=True)),
            # A long name is cut, not the bar.
            TextColumn(
                "{task.fields[name]}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            expand=True,
            console=errors,
            transient=True,
            redirect_stdout=False,  # else what goes to a pipe would end up beside the bar
            disable=not errors.is_terminal,
        )
        self._total = total
        self._task = self._bar.add_task(doing, total=total, name="", time="", left=_span(None))
        self._name = self._time = ""
        self._done = 0
        self._before = 0
        self._pace = Pace()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def heard(self, path: object, seconds: float, expected: float | None) -> None:
        """Note how far a recording has been heard; see `Detector.presence_maps`."""
        part = min(seconds / expected, 1.0) if expected else 0.0
        of = f" of {clock(expected)}" if expected else ""
        self._name, self._time = printable(Path(str(path)).name), f"{clock(seconds)}{of}"
        self._note(self._done + part)

    def done(self, recordings: int = 1) -> None:
        """Note that more recordings are through, well or not."""
        self._done += recordings
        self._note(self._done)

    def done_before(self, recordings: int) -> None:
        """Note what an earlier run did, which tells nothing about the pace of this one."""
        self._done += recordings
        self._before += recordings
        self._bar.update(self._task, completed=self._done)

    def note(self, message: str) -> None:
        """Show a remark."""
        say("note", message, "")

    def failed(self, error: HtsatSedError) -> None:
        """Show why a recording failed."""
        report(error)

    def _note(self, done: float) -> None:
        self._pace.note(time.monotonic(), done - self._before)
        left = _span(self._pace.left(self._total - self._before))
        self._bar.update(self._task, completed=done, left=left, name=self._name, time=self._time)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bar away while data is printed, if that goes to the terminal too."""
        if not output.is_terminal:
            yield
            return
        self._bar.stop()
        yield
        self._bar.start()


def _span(seconds: float | None) -> str:
    """Seconds as ``1:02:03``."""
    if seconds is None:
        return "-:--:--"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


class TrainingProgress:
    """A bar over the steps of a training run, with its losses; invisible where nobody watches.

    Args:
        epochs: that the steps make up.
        shown: false for all but one of several processes.
    """

    def __init__(self, epochs: int, *, shown: bool) -> None:
        self._epochs = epochs
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            console=errors,
            transient=True,
            disable=not (shown and errors.is_terminal),
        )
        self._task = self._bar.add_task("reading data", total=None, figures="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def told(self, step: int, steps: int, figures: Mapping[str, float]) -> None:
        """Note how far it is; see `htsat_sed.training.fit.fit`."""
        epoch = min(self._epochs, 1 + step * self._epochs // steps)
        shown = " ".join(f"{name} {figures[name]:.3f}" for name in _FIGURES if name in figures)
        text = f"epoch {epoch} of {self._epochs}"
        self._bar.update(self._task, description=text, completed=step, total=steps, figures=shown)


_FIGURES = ("clip_loss", "token_loss", "accuracy", "mAP", "token_mAP")
