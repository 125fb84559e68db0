"""Messages on standard error and reports on standard output; names and labels are plain text."""

from __future__ import annotations

import logging
import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from htsat_sed.errors import HtsatSedError, UsageError

if TYPE_CHECKING:
    from htsat_sed.runs.run import Run

_LISTED = 30  # failures in a summary
_SCREEN = 20  # recordings whose messages are still on the screen at the end
# Control characters, line separators, marks that reverse the direction of text, and bytes that are no text.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_CLOSED = "is closed: redirect it to a file, or give --output"
_ALWAYS = ("error", "stopped")  # what --quiet leaves
_LOG_LINE = re.compile(rb"\d{4}-\d\d-\d\dT[\d:]+[-+][\d:]+ \[\d+\] ")  # how a line of a log begins


def printable(text: str) -> str:
    """Text as one line: line ends, control characters and bytes that are no text become escapes."""
    return _CONTROL.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


class _PlainConsole(Console):
    """A console that prints strings as they are: no markup, no emoji codes, control characters as escapes.

    So a label such as ``[music]`` is shown in full, also in the cells of a table.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **given: Any) -> Text:
        """Render a string, line ends in it as they are."""
        return super().render_str("\n".join(map(printable, text.split("\n"))), **given)

    def print(self, *objects: Any, **given: Any) -> None:
        """Print, as rich does.

        Raises:
            HtsatSedError: it is standard output, and closed.
        """
        if not self.stderr and sys.stdout is None:
            raise HtsatSedError("standard output", _CLOSED)
        super().print(*objects, **given)


errors = _PlainConsole(stderr=True)
output = _PlainConsole()
if not output.is_terminal:
    output.width = 120  # reports in a pipe or a file; nobody knows how wide they are shown


@dataclass
class Shown:
    """What is shown on standard error, as --quiet and --progress say.

    Attributes:
        quiet: errors alone.
        progress: auto, bar, lines or none; auto is a bar on a terminal, else lines.
        log: file that gets every message, too.
        places: temporary folder -> the address that it stands for, shown in its place.
    """

    quiet: bool = False
    progress: str = "auto"
    log: Path | None = None
    places: dict[str, str] = field(default_factory=dict)

    def text(self, message: object) -> str:
        """A message with addresses in place of temporary folders."""
        text = str(message)
        for folder, address in self.places.items():
            text = text.replace(folder, address)
        return text

    def way(self) -> str:
        """How progress is shown: bar, lines or none."""
        if self.quiet:
            return "none"
        if self.progress == "auto":
            return "bar" if errors.is_terminal else "lines"
        return self.progress


shown = Shown()


def use_utf8() -> None:
    """Write UTF-8 to standard output and error whatever the locale; what is no text, as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def say(kind: str, message: object, style: str = "") -> None:
    """Print one line such as ``warning: street.wav: ends at 3.2 s``; never wrapped when piped.

    With --quiet, only errors are printed.
    """
    text = shown.text(message)
    _log(f"{kind}: {text}")
    if not shown.quiet or kind in _ALWAYS:
        errors.print(Text.assemble((f"{kind}: ", style), printable(text)), soft_wrap=True)


def report(error: Exception) -> None:
    """Print an error as one line."""
    say("error", error, "bold red")


def remark(message: str) -> None:
    """Print a line about what was written or found; nothing with --quiet."""
    message = shown.text(message)
    _log(message)
    if not shown.quiet:
        errors.print(message, soft_wrap=True)


def log_to(path: Path) -> None:
    """Append every message to a file from now on, the command first.

    Raises:
        UsageError: the file exists and is no such log, for example a recording.
        HtsatSedError: it cannot be written.
    """
    try:
        if path.is_file():
            with path.open("rb") as file:
                begin = file.read(64)
            if begin and not _LOG_LINE.match(begin):
                raise UsageError(f"{path}: exists and is not a log of htsat-sed: name another file for --log")
    except OSError as error:
        raise HtsatSedError(path, f"cannot be read: {error.strerror}") from error
    shown.log = path
    try:
        _append(path, " ".join(["htsat-sed", *sys.argv[1:]]))
    except OSError as error:
        shown.log = None
        raise HtsatSedError(path, f"cannot be written: {error.strerror}") from error


def _log(message: str) -> None:
    if shown.log is not None:
        with suppress(OSError):  # a full disk ends no run that writes elsewhere
            _append(shown.log, message)


def _append(path: Path, message: str) -> None:
    """Write a line at the end of a file, by one call, since several processes may share it."""
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(handle, f"{now} [{os.getpid()}] {printable(message)}\n".encode())
    finally:
        os.close(handle)


class _Warnings(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say("warning" if record.levelno >= logging.WARNING else "note", record.getMessage(), "yellow")


def show_warnings() -> None:
    """Send what the package logs to standard error."""
    logger = logging.getLogger("htsat_sed")
    logger.handlers = [_Warnings()]
    logger.propagate = False


def summarise(run: Run, out: Path | None) -> None:
    """Show what became of a run that is finished.

    Where many recordings failed or were done, failures are listed once more: they may have scrolled away.

    Args:
        run: after `Run.finish`.
        out: its output; None for standard output.
    """
    table = run.failures_table
    if shown.quiet:
        return
    every = run.done + len(run.failures)
    if run.failures and every > 1:
        again = every > _SCREEN
        count = f"{len(run.failures)} of {every} recordings failed"
        errors.print(count + (":" if again or table is not None else ""), style="bold red")
        for _, failure in run.failures[: _LISTED if again else 0]:
            say("  failed", failure, "red")
        if again and len(run.failures) > _LISTED:
            say("  failed", f"and {len(run.failures) - _LISTED} more", "red")
        if table is not None:
            say("  listed", table, "red")
    if run.defects and table is not None:
        say("note", f"read, but truncated or damaged, and listed in {table}: {run.defects}", "")
    if out is not None and run.done and errors.is_terminal:
        say("done", f"{run.done} of {len(run.recordings)} recordings: {out}", "green")


def emit(text: str) -> None:
    """Write data to standard output at once; on a terminal with escapes for control characters.

    Raises:
        HtsatSedError: it cannot be written: disk full, ...
    """
    if sys.stdout is None:
        raise HtsatSedError("standard output", _CLOSED)
    if output.is_terminal:
        text = _CONTROL.sub(lambda found: found[0] if found[0] in "\t\n" else _escaped(found), text)
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
