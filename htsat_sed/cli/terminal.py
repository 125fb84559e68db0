"""What a person sees on standard error: warnings, errors, progress."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from htsat_sed.errors import HtsatSedError

errors = Console(stderr=True)
output = Console()


def say(kind: str, message: object, style: str) -> None:
    """Print one line such as ``warning: street.wav: ends at 3.2 s``; never wrapped when piped."""
    # A file name may hold bytes that are no text: they are shown as escapes.
    text = str(message).encode("utf-8", "backslashreplace").decode("utf-8")
    errors.print(Text.assemble((f"{kind}: ", style), text), soft_wrap=True)


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


def summarise_failures(failures: Sequence[HtsatSedError], done: int) -> None:
    """List once more what failed, when it may have scrolled away among other output."""
    if failures and done + len(failures) > 1:
        errors.print(f"{len(failures)} of {done + len(failures)} recordings failed:", style="bold red")
        for failure in failures:
            say("  failed", failure, "red")


def progress_bar() -> Progress:
    """A bar of recordings with the seconds of audio heard; invisible where nobody watches."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[heard]}"),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )
