"""Sites of recordings, from their names."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from htsat_sed.errors import UsageError

_PREFIX = re.compile(r"(.+?)[_ -]+(?:19|20)\d\d[-_.]?\d\d[-_.]?\d\d")


def site_pattern(text: str) -> re.Pattern[str]:
    """Compile the regular expression that finds the site in a recording's name, by its first group if any.

    Raises:
        UsageError: it is invalid.
    """
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"--site: invalid regular expression: {error}") from error


def site_of(name: str, pattern: re.Pattern[str] | None = None) -> str:
    """The site of a recording.

    Args:
        name: name of the recording in tables.
        pattern: see `site_pattern`.

    Returns:
        The match of the pattern. Without a pattern, the first folder, or else the part of the name before the
        date (``S4A03895_20190522_000000.wav``). Empty if there is none.
    """
    if pattern is not None:
        found = pattern.search(name)
        return "" if found is None else (found[1] if pattern.groups else found[0]) or ""
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..")]
    if len(parts) > 1:
        return parts[0]
    prefix = _PREFIX.match(parts[-1]) if parts else None
    return prefix[1] if prefix else ""
