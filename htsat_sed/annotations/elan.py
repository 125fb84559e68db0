"""ELAN's EAF: one XML file per recording, one tier per class.

A tier is named after its class; overlapping events are in further tiers, ``Speech (2)``, as in `textgrid`. A
channel has its own tiers, ``Speech [1]``, with PARTICIPANT ``channel 1``. Times are whole milliseconds.
Scores are not stored. Characters that XML cannot represent are escaped, see `text`.

Source: H. Sloetjes, "ELAN Annotation Format, EAF 3.0", and its schema EAFv3.0.xsd.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePath
from xml.sax.saxutils import escape as with_entities

from htsat_sed.annotations.text import Collected, logger, number, timed, unescape
from htsat_sed.annotations.textgrid import tiers_of
from htsat_sed.annotations.xml import held, quoted, read_xml
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError

SUFFIX = ".eaf"

ELAN_HEADER = '<?xml version="1.0" encoding="UTF-8"?>\n'
_UNIT = "milliseconds"
_CHANNEL = re.compile(r"channel ([1-9][0-9]{0,4})")
_TYPE = '    <LINGUISTIC_TYPE GRAPHIC_REFERENCES="false" LINGUISTIC_TYPE_ID="event" TIME_ALIGNABLE="true"/>\n'


def elan_lines(filename: str, events: Sequence[Event], duration: float | None = None) -> str:
    """The document of one recording, after the header."""
    tiers: list[tuple[str, int, list[tuple[str, str, str]]]] = []
    for channel in sorted({event.channel for event in events}) or [0]:
        own = [event for event in events if event.channel == channel]
        intervals = [(onset, offset, event.label) for onset, offset, event in timed(own, decimals=3)]
        mark = f" [{channel}]" if channel else ""
        tiers += [(name + mark, channel, held_) for name, held_ in tiers_of(intervals).items()]
    slots: list[str] = []
    bodies: list[str] = []
    for name, channel, intervals in tiers:
        who = f' PARTICIPANT="channel {channel}"' if channel else ""
        bodies.append(
            f'    <TIER DEFAULT_LOCALE="en" LINGUISTIC_TYPE_REF="event"{who} TIER_ID={quoted(name)}>\n'
        )
        for onset, offset, label in intervals:
            first = len(slots) + 1
            slots += [_slot(first, onset), _slot(first + 1, offset)]
            bodies.append(
                f'        <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a{first // 2 + 1}" '
                f'TIME_SLOT_REF1="ts{first}" TIME_SLOT_REF2="ts{first + 1}">'
                f"<ANNOTATION_VALUE>{with_entities(held(label))}</ANNOTATION_VALUE>"
                "</ALIGNABLE_ANNOTATION></ANNOTATION>\n"
            )
        bodies.append("    </TIER>\n")
    return _document(PurePath(filename).name, "".join(slots), "".join(bodies), len(slots) // 2)


def _slot(number_: int, seconds: str) -> str:
    return f'        <TIME_SLOT TIME_SLOT_ID="ts{number_}" TIME_VALUE="{round(float(seconds) * 1000)}"/>\n'


def _document(name: str, slots: str, tiers: str, annotations: int) -> str:
    kind = "audio/x-wav" if name.lower().endswith(".wav") else "audio/*"
    url = quoted(f"./{name}")
    return (
        '<ANNOTATION_DOCUMENT AUTHOR="htsat-sed" DATE="1970-01-01T00:00:00+00:00" FORMAT="3.0" VERSION="3.0" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        'xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv3.0.xsd">\n'
        '    <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">\n'
        f'        <MEDIA_DESCRIPTOR MEDIA_URL={url} MIME_TYPE="{kind}" RELATIVE_MEDIA_URL={url}/>\n'
        f'        <PROPERTY NAME="lastUsedAnnotationId">{annotations}</PROPERTY>\n'
        "    </HEADER>\n"
        f"    <TIME_ORDER>\n{slots}    </TIME_ORDER>\n"
        f"{tiers}{_TYPE}"
        '    <LOCALE COUNTRY_CODE="US" LANGUAGE_CODE="en"/>\n'
        "</ANNOTATION_DOCUMENT>\n"
    )


def read_elan(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Read an EAF.

    Every annotation with text and its own times is an event with this label, in any tier. Annotations that
    refer to others, and those without a time, are skipped with a warning.

    Returns:
        One recording, named like the file without ``.eaf``.

    Raises:
        AnnotationError: the file cannot be read or is no EAF, its times are not in milliseconds, or a time is
            no number of 0 or more.
    """
    name = Path(path).name
    recording = name[: -len(SUFFIX)] if name.lower().endswith(SUFFIX) else name
    collected = Collected(path)
    collected.recording(recording)
    root = read_xml(path, "ANNOTATION_DOCUMENT")
    for header in root.iter("HEADER"):
        if (unit := header.get("TIME_UNITS") or _UNIT) != _UNIT:
            reason = f"has times in {unit:.40}, wanted {_UNIT}: save it in ELAN's present format"
            raise AnnotationError(path, reason)
    times = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
    skipped = len(list(root.iter("REF_ANNOTATION")))
    place = 0
    for tier in root.iter("TIER"):
        found = _CHANNEL.fullmatch(tier.get("PARTICIPANT") or "")
        for annotation in tier.iter("ALIGNABLE_ANNOTATION"):
            place += 1
            bounds = [times.get(annotation.get(f"TIME_SLOT_REF{end}")) for end in (1, 2)]
            label = (annotation.findtext("ANNOTATION_VALUE") or "").strip()
            if None in bounds:
                skipped += 1
            elif label:
                onset, offset = (number(path, place, "TIME_VALUE", str(time)) / 1000 for time in bounds)
                channel = int(found[1]) if found else 0
                collected.add(place, recording, Event(onset, offset, unescape(label), 1.0, channel))
    if skipped:
        logger.warning("%s: annotations without times of their own skipped: %d", path, skipped)
    return collected.table()
