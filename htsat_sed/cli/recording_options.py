"""Options that select recordings and their channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import typer

from htsat_sed.cli.groups import RECORDINGS, REQUIRED, argument, option
from htsat_sed.cli.terminal import report
from htsat_sed.errors import HtsatSedError
from htsat_sed.runs.recordings import Recording, files_read, find_all


@dataclass(frozen=True)
class RecordingOptions:
    """Which recordings are read."""

    panel: ClassVar[str] = RECORDINGS
    paths: list[str] = argument(
        REQUIRED,
        "Recordings: files; folders, searched with their subfolders; quoted patterns ('night/**/*.wav'); "
        "URLs (s3://archive/2024/, https://host/a.wav); @list.txt, a file with one of these per line; or "
        "- for standard input.",
        metavar="PATH",
    )
    include: list[str] | None = option(
        None,
        "In folders, read only files that match this pattern: the name of a file or folder ('*.flac'), or "
        "a path relative to the folder ('2024*/**/dawn-*'). Repeatable.",
        metavar="PATTERN",
    )
    exclude: list[str] | None = option(
        None, "In folders, skip files that match this pattern. Repeatable.", metavar="PATTERN"
    )

    def find(self) -> tuple[list[Recording], list[HtsatSedError]]:
        """The recordings, and an error, already shown, for each path that has none."""
        recordings, failures = find_all(self.paths, include=self.include or (), exclude=self.exclude or ())
        for failure in failures:
            report(failure)
        return recordings, failures

    def files(self, recordings: Sequence[Recording]) -> list[str]:
        """The files that are read: recordings, and lists of such."""
        return files_read(self.paths, recordings)


@dataclass(frozen=True)
class ChannelOptions:
    """Which channel and audio track of a recording is read."""

    panel: ClassVar[str] = RECORDINGS
    channel: str = option(
        "mix",
        "Channel to read: a number from 1, or mix for the mean of all channels.",
        metavar="mix|N",
    )
    track: int | None = option(
        None,
        "Audio track to read, from 1, in files with several tracks, such as films.  \\[default: the first]",
        min=1,
        metavar="N",
    )

    def number(self) -> int | None:
        """The channel, counted from 1; None for the mean of all.

        Raises:
            typer.BadParameter: it is none.
        """
        return parse_channel(self.channel)


@dataclass(frozen=True)
class EachChannelOptions(ChannelOptions):
    """The same, for a command that can also go through all channels."""

    channel: str = option(
        "mix",
        "Channel to read: a number from 1, mix for the mean of all channels, or all for each channel "
        "separately; events then have a channel number.",
        metavar="mix|N|all",
    )

    @property
    def each(self) -> bool:
        """Whether each channel is listened to for itself."""
        return self.channel == "all"

    def settings(self) -> dict[str, Any]:
        """What events depend on that the detector does not know, for a journal."""
        return {"channel": "all"} if self.each else {}

    def check(self, recordings: Sequence[Recording], scores: Path | None) -> None:
        """Refuse what has no place for several channels.

        Raises:
            typer.BadParameter: presence maps are wanted, or standard input, which is read once, is among the
            paths.
        """
        if self.each and scores is not None:
            raise typer.BadParameter(
                "a presence map holds one channel: omit it, or choose a channel with --channel",
                param_hint="--scores",
            )
        if self.each and "-" in [recording.path for recording in recordings]:
            raise typer.BadParameter(
                "all reads a recording once per channel, and standard input can be read only once: name a "
                "file",
                param_hint="--channel",
            )

    def number(self) -> int | None:
        """See `ChannelOptions.number`; None for all."""
        return None if self.each else super().number()


def parse_channel(given: str) -> int | None:
    """A channel counted from 1, or None for ``mix``."""
    if given == "mix":
        return None
    if not (given.isascii() and given.isdecimal() and int(given) > 0):
        raise typer.BadParameter(
            f"wanted mix or a channel number from 1, got {given!r}", param_hint="--channel"
        )
    return int(given)
