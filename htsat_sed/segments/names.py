"""Names of clips: ``Dog/street_00002.000_00003.750_Dog_0.500.wav``.

Each class has a folder. A name joins the recording without its suffix, onset, offset, label and score by
``_``, so that names sort by recording and time, and ``name.rsplit("_", 4)`` splits them. The clock time of
the onset, if requested, follows the recording: ``street_20260512T043002.000+0200_00002.000_...``. Names suit
every file system: letters and digits of any script, ``.``, ``+`` and ``=`` are kept, in the recording also
``_``; other characters become ``-``. No two names differ in case alone, none exceeds 200 bytes, and none is
reserved on Windows.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from types import MappingProxyType

from htsat_sed.audio import has_audio_suffix
from htsat_sed.clock import Start
from htsat_sed.detection.events import Event
from htsat_sed.segments.choice import Found

_RECORDING_BYTES = 80
_LABEL_BYTES = 40
_RESERVED = re.compile(r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9¹²³])(?=\.|$)", re.IGNORECASE)


def clip_names(
    table: Mapping[str, Sequence[Event]], suffix: str, starts: Mapping[str, Start] = MappingProxyType({})
) -> dict[Found, str]:
    """Name the clip of every event.

    A name depends on the whole table and not on the selection, so an event of the same table always has the
    same name.

    Args:
        table: recording -> its events, without duplicates.
        suffix: file suffix, with the dot.
        starts: recording -> start, for names with clock times.

    Returns:
        Event -> relative path of its clip, with ``/``. Of equal names the second, by recording and time, ends
        in ``-2``, and so on.
    """
    labels = sorted({event.label for events in table.values() for event in events})
    folders = dict(zip(labels, _distinct(safe(label, limit=_LABEL_BYTES) for label in labels), strict=True))
    found = [Found(filename, event) for filename, events in sorted(table.items()) for event in sorted(events)]
    stems = _distinct(
        f"{folders[each.event.label]}/{_stem(each, starts.get(each.filename))}" for each in found
    )
    return {each: stem + suffix for each, stem in zip(found, stems, strict=True)}


def _stem(found: Found, start: Start | None) -> str:
    filename, event = found
    bare = str(PurePosixPath(filename).with_suffix("")) if has_audio_suffix(filename) else filename
    recording = safe(bare, limit=_RECORDING_BYTES, also="_", end=True)
    label = safe(event.label, limit=_LABEL_BYTES)
    if start is not None:
        moment = start.at(round(event.onset, 3))
        zone = moment.strftime("%z")
        recording += f"_{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03d}{zone}"
    return f"{recording}_{event.onset:09.3f}_{event.offset:09.3f}_{label}_{event.score:.3f}"


def safe(text: str, *, limit: int, also: str = "", end: bool = False) -> str:
    """Make part of a file name.

    Args:
        text: any text.
        limit: maximum length in bytes.
        also: further characters to keep.
        end: truncate at the start instead of the end.

    Returns:
        Composed Unicode (NFC), not empty, without leading or trailing ``-`` or ``.``.
    """
    kept = (
        c if unicodedata.category(c)[0] in "LNM" or c in ".+=" + also else "-"
        for c in unicodedata.normalize("NFC", text)
    )
    name = re.sub("-+", "-", "".join(kept)).strip("-.").encode()
    short = (name[-limit:] if end else name[:limit]).decode(errors="ignore").strip("-.")
    return _RESERVED.sub(r"\1-", short) or "unnamed"


def _distinct(names: Iterable[str]) -> list[str]:
    """Number the names that a file system might equate with an earlier one."""
    taken: set[str] = set()
    distinct = []
    for name in names:
        numbered = (f"{name}-{n}" for n in itertools.count(2))
        free = next(each for each in itertools.chain([name], numbered) if _folded(each) not in taken)
        taken.add(_folded(free))
        distinct.append(free)
    return distinct


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
