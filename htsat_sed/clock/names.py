"""Start times in the names of recordings.

A name holds a date and a time, to the minute or the second, with or without separators, and with or without
an offset from UTC:

    20260512_043000.WAV                  AudioMoth; 24F31903_20260512_043000T.WAV
    S4A03895_20190522_000000.wav         Song Meter; STATION_0+1_20190522$000000.wav with GPS
    20191026T000000+1000_REC.flac        Frontier Labs
    2026-05-12T04:30:00Z, 2026-05-12 04.30.00, 2026-05-12-birdnet-04:30:00
    5147.260512043000.wav                SoundTrap
    5AF65A70.WAV                         AudioMoth before firmware 1.2: seconds since 1970

Times without seconds need separators, since ``20190522_0430`` may be a date and a number.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import PurePath

from htsat_sed.clock.metadata import moment, offset
from htsat_sed.errors import UsageError

_NAME = re.compile(
    r"(?<!\d)((?:19|20)\d\d)([-_.]?)(\d\d)\2(\d\d)"
    r"(?:_?T|__?|[ $-]|_-_|-birdnet-|)(?P<hour>[01]\d|2[0-3])"
    r"(?:(?P<sep>[-:._h])(?P<min>[0-5]\d)(?:(?P=sep)(?P<sec>[0-5]\d))?|(?P<m2>[0-5]\d)(?P<s2>[0-5]\d))"
    r"(?:[.,]?(?P<fraction>\d{3}|[.,]\d{6}))?(?!\d)"
    r"(?:_?(?P<zone>Z(?![A-Za-z])|[+-](?:0\d|1[0-4]):?(?:00|15|30|45)(?!\d)))?",
    re.IGNORECASE,
)
_SOUNDTRAP = re.compile(r"\d{3,10}\.(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?!\d)")
_HEXADECIMAL = re.compile(r"[0-9A-F]{8}\.WAV")
_FIRST, _LAST = 1_483_228_800, 2_051_222_400  # 2017, when AudioMoth came out, to 2035
_DIRECTIVES = {
    "Y": r"\d{4}", "y": r"\d\d", "m": r"\d\d", "d": r"\d\d", "j": r"\d{3}", "H": r"\d\d", "I": r"\d\d",
    "M": r"\d\d", "S": r"\d\d", "f": r"\d{1,6}", "p": r"[AaPp][Mm]", "z": r"(?:Z|[+-]\d\d:?\d\d)",
    "b": r"[^\W\d_]{3,4}", "B": r"[^\W\d_]+", "a": r"[^\W\d_]+", "A": r"[^\W\d_]+", "%": "%",
}  # fmt: skip


def named_time(path: str, time_format: str | None = None) -> datetime | None:
    """The time in the name of a recording; naive if the name has no zone.

    Args:
        path: path of the recording.
        time_format: a `datetime.strptime` format (``%d-%m-%Y %H.%M``) that matches part of the name, or
            of the path if the format contains ``/``; None for the forms above.

    Raises:
        UsageError: the format has an unknown directive or lacks one of date and time.
    """
    if time_format is not None:
        return _formatted(path, time_format)
    name = PurePath(path).name
    if _HEXADECIMAL.fullmatch(name) and _FIRST <= int(name[:8], 16) < _LAST:
        return datetime.fromtimestamp(int(name[:8], 16), UTC)
    if found := _SOUNDTRAP.match(name):
        return moment((f"20{found[1]}", *found.groups()[1:]))
    for found in _NAME.finditer(name):
        part = found.groupdict()
        numbers = (found[1], found[3], found[4], part["hour"])
        minutes = (part["min"] or part["m2"], part["sec"] or part["s2"])
        fraction = (part["fraction"] or "").strip(".,")
        zone = offset(part["zone"]) if part["zone"] else None
        if (time := moment((*numbers, *minutes), fraction, zone)) is not None:
            return time
    return None


def _formatted(path: str, time_format: str) -> datetime | None:
    pattern = check_format(time_format)
    where = PurePath(path).as_posix() if "/" in time_format else PurePath(path).name
    for found in pattern.finditer(where):
        try:
            return datetime.strptime(found[0], time_format)
        except ValueError:
            continue
    return None


def check_format(time_format: str) -> re.Pattern[str]:
    """Regular expression of a time format.

    Raises:
        UsageError: it has an unknown directive or lacks one of date and time.
    """
    parts = re.split(r"%(.?)", time_format)
    directives = parts[1::2]
    if unknown := sorted(set(directives) - set(_DIRECTIVES)):
        known = " ".join(f"%{each}" for each in _DIRECTIVES)
        raise UsageError(f"--time-format: %{unknown[0]} is not one of {known}")
    dated = {"j"} & set(directives) or ({"d"} <= set(directives) and {"m", "b", "B"} & set(directives))
    if not (dated and {"Y", "y"} & set(directives) and {"H", "I"} & set(directives)):
        raise UsageError(
            f"--time-format: wanted a year, month, day and hour, such as %Y%m%d_%H%M%S; got {time_format}"
        )
    texts = [_DIRECTIVES[part] if index % 2 else re.escape(part) for index, part in enumerate(parts)]
    return re.compile("".join(texts))
