"""Options of what is shown on standard error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from htsat_sed.cli.groups import MESSAGES, option
from htsat_sed.cli.terminal import log_to, shown


def _show_progress(mode: str) -> str:
    shown.progress = mode
    return mode


def _log_to(path: Path | None) -> Path | None:
    if path is not None:
        log_to(path)
    return path


def _be_quiet(quiet: bool) -> bool:
    shown.quiet = quiet
    return quiet


@dataclass(frozen=True)
class MessageOptions:
    """What is shown on standard error. Callbacks have the effect: commands need not look at the values."""

    panel: ClassVar[str] = MESSAGES
    progress: Literal["auto", "bar", "lines", "none"] = option(
        "auto",
        "Show progress on standard error as a bar, or as a line about every 30 s; auto: a bar on a "
        "terminal, else lines.",
        callback=_show_progress,
    )
    quiet: bool = option(
        False,
        "Print only errors on standard error: no progress, notes or warnings.",
        "--quiet",
        "-q",
        callback=_be_quiet,
    )
    log: Path | None = option(
        None,
        "Append all errors, warnings and notes to this file with their times, also with --quiet.",
        callback=_log_to,
        metavar="FILE",
    )
