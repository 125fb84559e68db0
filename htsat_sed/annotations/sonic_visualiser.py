"""Sonic Visualiser's annotation layers (.svl): one XML file per recording, one region per event.

A region has the class as its label and the score as its value. Times are samples at the recording's sample
rate, or at 44.1 kHz if unknown. Characters that XML cannot represent are escaped, see `text`. Channels are
not stored.

Source: Sonic Visualiser 5, `SVFileReader` and `RegionModel::toXml`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from htsat_sed.annotations.text import Collected, number, timed, unescape
from htsat_sed.annotations.xml import quoted, read_xml
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError

SUFFIX = ".svl"
_RATE = 44_100

SONIC_VISUALISER_HEADER = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE sonic-visualiser>\n'


def sonic_visualiser_lines(
    filename: str, events: Sequence[Event], duration: float | None = None, *, sample_rate: int | None = None
) -> str:
    """The layer of one recording, after the header."""
    rate = sample_rate or _RATE
    points, last = [], 0
    for onset, offset, event in timed(events, decimals=6):
        first = round(float(onset) * rate)
        frames = max(1, round(float(offset) * rate) - first)
        last = max(last, first + frames)
        points.append(
            f'      <point frame="{first}" value="{event.score:.6f}" duration="{frames}" '
            f"label={quoted(event.label)} />\n"
        )
    end = max(last, round((duration or 0.0) * rate))
    return (
        "<sv>\n  <data>\n"
        f'    <model id="1" name="Events" sampleRate="{rate}" start="0" end="{end}" type="sparse" '
        'dimensions="3" resolution="1" notifyOnAdd="true" dataset="0" subtype="region" '
        'valueQuantization="0" minimum="0" maximum="1" units="score" />\n'
        f'    <dataset id="0" dimensions="3">\n{"".join(points)}    </dataset>\n'
        "  </data>\n  <display>\n"
        '    <layer id="2" type="regions" name="Events" model="1" verticalScale="1" plotStyle="0" '
        'colourName="Orange" colour="#ff9600" darkBackground="false" />\n'
        "  </display>\n</sv>\n"
    )


def read_sonic_visualiser(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Read the regions of a layer with a label and a duration; values in [0, 1] are scores.

    Times have 4 decimals, since samples do not fall on milliseconds.

    Returns:
        One recording, named like the file without ``.svl``.

    Raises:
        AnnotationError: the file cannot be read or is no layer, or a number is not 0 or more.
    """
    name = Path(path).name
    recording = name[: -len(SUFFIX)] if name.lower().endswith(SUFFIX) else name
    collected = Collected(path)
    collected.recording(recording)
    root = read_xml(path, "sv")
    rates = {model.get("dataset"): model.get("sampleRate") or "" for model in root.iter("model")}
    place = 0
    for dataset in root.iter("dataset"):
        rate = number(path, 0, "sampleRate", rates.get(dataset.get("id"), ""))
        if rate < 1.0:
            raise AnnotationError(path, f"has the sample rate {rate:g}, wanted that of the recording in Hz")
        for point in dataset.iter("point"):
            place += 1
            label = unescape(point.get("label") or "")
            if not label.strip() or point.get("duration") is None:
                collected.drop(place, "without a label or duration")
                continue
            onset = number(path, place, "frame", point.get("frame") or "")
            length = number(path, place, "duration", point.get("duration") or "")
            value = point.get("value") or "1"
            score = number(path, place, "value", value) if value[:1] != "-" else 1.0
            bounds = round(onset / rate, 4), round((onset + length) / rate, 4)
            collected.add(place, recording, Event(*bounds, label, score if score <= 1.0 else 1.0))
    return collected.table()
