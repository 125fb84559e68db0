"""Where a recording was made, as its name tells."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from htsat_sed.errors import UsageError

_PREFIX = re.compile(r"(.+?)[_ -]+(?:19|20)\d\d[-_.]?\d\d[-_.]?\d\d")


def site_pattern(text: str) -> re.Pattern[str]:
    """A regular expression that finds the site in the name of a recording, as its first group if it has one.

    Raises:
        UsageError: it is none.
    """
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"--site: no regular expression: {error}") from error


def site_of(name: str, pattern: re.Pattern[str] | None = None) -> str:
    """The site of a recording.

    Args:
        name: as tables have it.
        pattern: see `site_pattern`.

    Returns:
        What the pattern finds; without one the first folder, or else what stands before the date in the name
        (``S4A03895_20190522_000000.wav``). Empty where there is nothing of the kind.
    """
    if pattern is not None:
        found = pattern.search(name)
        return "" if found is None else (found[1] if pattern.groups else found[0]) or ""
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..")]
    if len(parts) > 1:
        return parts[0]
    prefix = _PREFIX.match(parts[-1]) if parts else None
    return prefix[1] if prefix else ""
