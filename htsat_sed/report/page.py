"""Building report pages: recordings, scores, events and viewer in one HTML file.

A page loads nothing from elsewhere: its Content-Security-Policy allows only the embedded script and style, by
their hashes. The data are in ``<script type="application/json">``. Tiles, scores and sound are base64 in
elements of their own, which the script decodes on demand.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from htsat_sed import __version__
from htsat_sed.audio.opus import PACKET_SECONDS, TYPE
from htsat_sed.detection.change_points import step_filter_tokens
from htsat_sed.detection.events import Event, PostProcessing, find_events
from htsat_sed.detection.median_filter import median_filter_tokens
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.pictures.spectrogram import hertz_ticks, slaney_mel
from htsat_sed.report.sketch import BANDS, QUIETEST, TILE, Sketch, stretches

AudioMode = Literal["auto", "whole", "events", "link", "none"]

_LEAST_SCORE = 0.05  # a class without a higher score in a recording is left out, unless it can have events
_LONGEST = (60.0, 30.0, 20.0, 10.0, 5.0, 3.0)  # longest sound of an event, seconds, tried in turn


@dataclass(frozen=True, eq=False)
class Shown:
    """A recording on a page.

    Attributes:
        name: name of the recording in tables.
        presence_map: scores of the whole recording, before smoothing.
        sketch: spectrogram, waveform and sound of the whole recording.
        reference: reference events to compare with; None for no comparison.
        begins: local time of its start, ISO 8601; None if unknown.
        link: address of the audio file relative to the page, to play it from there; None for no link.
    """

    name: str
    presence_map: PresenceMap
    sketch: Sketch
    reference: Sequence[Event] | None = None
    begins: str | None = None
    link: str | None = None


@dataclass(frozen=True)
class Listed:
    """A recording in an index.

    Attributes:
        name: name of the recording in tables.
        link: address of its page relative to the index.
        duration: duration, seconds.
        events: detected events, sorted by onset.
        begins: local time of its start, ISO 8601; None if unknown.
        site: site of the recording, see `site_of`.
    """

    name: str
    link: str
    duration: float
    events: Sequence[Event]
    begins: str | None = None
    site: str = ""


def rule_values(
    labels: Sequence[str], post_processing: PostProcessing, token_seconds: float
) -> list[dict[str, float | None]]:
    """Convert post-processing to the values that the page's script uses.

    Args:
        labels: classes.
        post_processing: settings to convert.
        token_seconds: duration of a token, seconds.

    Returns:
        Values of each class: filter lengths in tokens, the others unchanged.
    """
    found = []
    for label in labels:
        own = post_processing.of(label)
        found.append(
            {
                "threshold": own.threshold,
                "threshold_low": own.threshold_low,
                "median": median_filter_tokens(own.median_filter, token_seconds),
                "min_gap": own.min_gap,
                "min_event": own.min_event,
                "side": step_filter_tokens(own.step_filter, token_seconds) if own.step_filter else 0,
                "merge_absolute": own.merge_absolute,
                "merge_relative": own.merge_relative,
                "edge_level": own.edge_level,
                "score_slope": own.score_slope,
                "score_offset": own.score_offset,
            }
        )
    return found


class _Parts:
    """The binary parts of a page, by name."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def add(self, data: bytes) -> str:
        name = f"part{len(self.data)}"
        self.data[name] = data
        return name

    def elements(self) -> Iterator[str]:
        for name, data in self.data.items():
            text = base64.b64encode(data).decode()
            yield f'<script type="application/octet-stream" id="{name}">{text}</script>\n'


def page(
    recordings: Sequence[Shown],
    *,
    title: str,
    post_processing: PostProcessing,
    audio: AudioMode = "auto",
    limit: float = 12e6,
    padding: float = 2.0,
) -> Iterator[str]:
    """Build a report page.

    Args:
        recordings: recordings of the page, at least one, all with the same classes.
        title: title of the page.
        post_processing: initial settings; they can be changed in the page.
        audio: sound in the page: ``whole`` recordings, ``events`` with padding, ``link`` to the audio files,
            ``none``, or ``auto`` for whole recordings if they fit `limit` and events otherwise.
        limit: size limit of the sound, bytes. Long events are cut until it is met, to 3 s at the shortest.
        padding: sound to keep before and after an event, seconds.

    Yields:
        Pieces of the HTML text.
    """
    parts = _Parts()
    labels = recordings[0].presence_map.labels
    token = recordings[0].presence_map.token_seconds
    heard = _heard(recordings, post_processing, audio, limit, padding)
    data: dict[str, Any] = {
        "version": __version__,
        "title": title,
        "labels": labels,
        "token": token,
        "tile": TILE,
        "bands": BANDS,
        "quietest": -QUIETEST,
        "least": _LEAST_SCORE,
        "rules": rule_values(labels, post_processing, token),
        "post_processing": post_processing.to_dict(),
        "recordings": [
            _recording(shown, own, parts, post_processing)
            for shown, own in zip(recordings, heard, strict=True)
        ],
    }
    digest = hashlib.sha256(json.dumps(data).encode())
    for part in parts.data.values():
        digest.update(part)
    data["key"] = digest.hexdigest()[:16]
    script = "\n".join(_source(name) for name in ("rules.js", "review.js", "page.js"))
    links = audio == "link"
    before, after = _document("page.html", title, _source("page.css"), script, data, links=links)
    yield before
    yield from parts.elements()
    yield after


def index(
    listed: Sequence[Listed],
    *,
    title: str,
    labels: Sequence[str],
    unread: Sequence[tuple[str, str]] = (),
) -> str:
    """Build the index of a folder of pages.

    Args:
        listed: recordings with a page.
        title: title of the index.
        labels: classes of the events.
        unread: (name, reason) of each recording without a page.

    Returns:
        The HTML text.
    """
    data = {
        "title": title,
        "labels": labels,
        "unread": unread,
        "recordings": [
            {
                "name": each.name,
                "link": each.link,
                "duration": each.duration,
                "begins": each.begins,
                "site": each.site,
                "events": [
                    [round(e.onset, 2), round(e.offset, 2), labels.index(e.label)] for e in each.events
                ],
            }
            for each in listed
        ],
    }
    style, script = _source("page.css"), _source("index.js")
    return "".join(_document("index.html", title, style, script, data, links=False))


def _source(name: str) -> str:
    return files("htsat_sed.report").joinpath(name).read_text(encoding="utf-8")


def _document(
    template: str, title: str, style: str, script: str, data: Mapping[str, Any], *, links: bool
) -> tuple[str, str]:
    """Fill a template; return the text before and after the binary parts."""
    style, script = f"\n{style}", f"\n{script}"
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data: blob:; "
        f"media-src data: blob:{' file: https: http:' if links else ''}; base-uri 'none'; form-action 'none'"
    )
    values = {
        "policy": policy,
        "title": _escaped(title),
        "style": style,
        "script": script,
        "data": _json(data),
    }
    source = _source(template).replace("{{head}}", _source("head.html"))
    before, _, after = source.partition("{{parts}}")
    # A single pass, so that a title such as {{data}} is not replaced.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], before), after


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _escaped(text: str) -> str:
    table = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}
    readable = text.encode("utf-8", "backslashreplace").decode()
    return "".join(table.get(character, character) for character in readable)


def _json(data: Mapping[str, Any]) -> str:
    """Return JSON for a script element; text in it cannot close the element."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c").replace("&", "\\u0026")


def _heard(
    recordings: Sequence[Shown], rules: PostProcessing, audio: AudioMode, limit: float, padding: float
) -> list[list[tuple[int, int]] | None]:
    """Choose the packets of sound to keep of each recording, see `stretches`; None for no sound."""
    encoders = [shown.sketch.opus for shown in recordings]
    if audio in ("link", "none") or any(encoder is None for encoder in encoders):
        return [None] * len(recordings)
    packets = [encoder.packets for encoder in encoders if encoder is not None]
    whole = [[(0, len(own))] for own in packets]
    if audio == "whole" or (audio == "auto" and _bytes(packets, whole) <= limit):
        return [*whole]
    events = [
        [(e.onset, e.offset) for e in (*find_events(each.presence_map, rules), *(each.reference or ()))]
        for each in recordings
    ]
    for longest in _LONGEST:
        parts = [
            [
                (first, min(end, len(own)))
                for first, end in stretches(
                    found, duration=shown.presence_map.duration, padding=padding, longest=longest
                )
            ]
            for shown, found, own in zip(recordings, events, packets, strict=True)
        ]
        if _bytes(packets, parts) <= limit:
            break
    return [*parts]


def _bytes(packets: Sequence[Sequence[bytes]], parts: Sequence[Sequence[tuple[int, int]]]) -> int:
    return sum(
        len(packet)
        for own, chosen in zip(packets, parts, strict=True)
        for first, end in chosen
        for packet in own[first:end]
    )


def _recording(
    shown: Shown, heard: list[tuple[int, int]] | None, parts: _Parts, rules: PostProcessing
) -> dict[str, Any]:
    sketch, presence = shown.sketch, shown.presence_map
    quiet, loud = sketch.loudness()
    return {
        "name": shown.name,
        "duration": presence.duration,
        "begins": shown.begins,
        "spectrogram": {
            "quiet": quiet,
            "loud": loud,
            "columns": sketch.frames,
            "levels": [
                {"seconds": level.seconds, "tiles": [parts.add(tile) for tile in level.tiles]}
                for level in sketch.levels()
            ],
            "ticks": _ticks(sketch.fmin, sketch.fmax),
        },
        "peaks": base64.b64encode(sketch.peaks().tobytes()).decode(),
        "scores": _scores(presence, parts, rules),
        "audio": _audio(shown, heard, parts),
        "reference": None
        if shown.reference is None
        else [[e.onset, e.offset, e.label] for e in shown.reference],
    }


def _audio(shown: Shown, heard: list[tuple[int, int]] | None, parts: _Parts) -> dict[str, Any] | None:
    if heard is None or shown.sketch.opus is None:
        return {"link": shown.link} if shown.link is not None else None
    if not heard:
        return None
    place, stretches_of = 0.0, []
    for first, end in heard:
        length = (end - first) * PACKET_SECONDS
        stretches_of.append([round(first * PACKET_SECONDS, 2), round(place, 2), round(length, 2)])
        place += length
    return {"type": TYPE, "part": parts.add(shown.sketch.opus.file(heard)), "stretches": stretches_of}


def _scores(presence: PresenceMap, parts: _Parts, rules: PostProcessing) -> dict[str, Any]:
    """Encode the scores of classes that can have events, see `_deflated`."""
    highest = presence.scores.max(axis=0, initial=0.0)
    lowest = []
    for label in presence.labels:
        own = rules.of(label)
        lowest.append(own.threshold if own.threshold_low is None else own.threshold_low)
    kept = np.flatnonzero(highest > np.minimum(_LEAST_SCORE, lowest))
    columns = np.ascontiguousarray(presence.scores[:, kept].T, dtype="<f4")
    return {
        "tokens": len(presence.scores),
        "classes": kept.tolist(),
        "part": parts.add(_deflated(columns)),
    }


def _deflated(values: NDArray[np.float32]) -> bytes:
    """Compress floats: all first bytes, then all second bytes and so on, as a raw deflate stream."""
    planes = values.view(np.uint8).reshape(-1, 4).T.tobytes()
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return packer.compress(planes) + packer.flush()


def _ticks(fmin: float, fmax: float) -> list[list[float]]:
    """Return round frequencies in Hz with their positions: 0 at the bottom of the image, 1 at the top."""
    low, high = slaney_mel([fmin, fmax]).tolist()
    half = (high - low) / (BANDS + 1) / 2  # half the distance between the centres of two bands
    low, high = low + half, high - half
    hertz = hertz_ticks(fmin, fmax)
    places = (slaney_mel(hertz) - low) / (high - low)
    return [[float(f), float(place)] for f, place in zip(hertz, places, strict=True)]
