"""Label Studio's JSON: one file for all recordings, one task per recording, for import into a project.

The events of a task are regions of the control ``label`` (Labels) on ``audio`` (Audio), as in Label Studio's
exports. Times and scores have 6 decimals; channels are numbered from 0. Exports can be read as JSON, with the
last annotation of each task or else its last prediction, and as JSON-MIN.

Source: HumanSignal, "Label Studio JSON format of annotated tasks"; label_studio_sdk.converter.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import reprlib
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from htsat_sed.annotations.text import Collected, Described, escape, number, read_text, timed, unescape
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError
from htsat_sed.whole_file import whole_file

SUFFIX = ".labelstudio.json"


def write_label_studio(
    path: str | os.PathLike[str], recordings: Iterable[Described], columns: object = ()
) -> None:
    """Write the tasks of all recordings.

    Raises:
        HtsatSedError: the file cannot be written.
    """
    with whole_file(path) as file:
        file.write("[")
        for index, each in enumerate(recordings):
            file.write(
                (",\n" if index else "\n") + json.dumps({"id": index + 1} | _task(each), ensure_ascii=False)
            )
        file.write("\n]\n")


def _task(each: Described) -> dict[str, Any]:
    filename = escape(each.filename)
    regions = []
    for onset, offset, event in timed(each.events, decimals=6):
        value = {"start": float(onset), "end": float(offset), "labels": [escape(event.label)]}
        if event.channel:
            value["channel"] = event.channel - 1
        key = f"{filename} {onset} {offset} {event.label!r} {event.channel} {event.score}"
        region = {
            "id": hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:10],
            "from_name": "label",
            "to_name": "audio",
            "type": "labels",
            "value": value,
            "score": round(event.score, 6),
        }
        if each.duration is not None:
            region["original_length"] = round(each.duration, 6)
        regions.append(region)
    return {"data": {"audio": filename}, "annotations": [{"result": regions}]}


def read_label_studio(path: str | os.PathLike[str]) -> dict[str, list[Event]]:
    """Read tasks with their annotations.

    Recordings are named after ``audio``: for an upload or a URL the file name without Label Studio's prefix,
    for local storage the path; other names are unchanged.

    Returns:
        As for `read_strong_labels`; line numbers are those of tasks, from 1.

    Raises:
        AnnotationError: the file cannot be read, is no list of tasks, or a region is invalid.
    """
    collected = Collected(path)
    place = 0
    try:
        tasks = json.loads(read_text(path))
        if not isinstance(tasks, list):
            raise TypeError("no list of tasks")
        for place, task in enumerate(tasks, start=1):
            data = task.get("data", task)
            audio = data["audio"] if "audio" in data else next(v for v in data.values() if _is_path(v))
            filename = _name(str(audio))
            collected.recording(filename)
            for region in _regions(task):
                value = region.get("value", region)
                onset, offset = (number(path, place, key, str(value[key])) for key in ("start", "end"))
                score = region.get("score")
                certainty = 1.0 if score is None else number(path, place, "score", str(score))
                channel = value.get("channel")
                own = channel + 1 if type(channel) is int and channel >= 0 else 0
                for label in value.get("labels") or value.get("hypertextlabels") or ():
                    if not isinstance(label, str):
                        reason = f"task {place}: wanted labels of text, got {reprlib.repr(label)}"
                        raise AnnotationError(path, reason)
                    collected.add(place, filename, Event(onset, offset, unescape(label), certainty, own))
    except RecursionError as error:
        raise AnnotationError(path, "is not Label Studio JSON: nested too deeply") from error
    except json.JSONDecodeError as error:
        raise AnnotationError(path, f"is not Label Studio JSON: {error}"[:300]) from error
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, StopIteration) as error:
        reason = f"task {place} has no recording, or no regions as Label Studio writes them"
        reason = f"is not Label Studio JSON: {reason if place else error}"
        raise AnnotationError(path, reason[:300]) from error
    return collected.table()


def _regions(task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The regions of the last annotation or prediction of a task, or those of JSON-MIN."""
    if "data" in task:
        results = [each for each in task.get("annotations") or () if not each.get("was_cancelled")]
        results = results or task.get("predictions") or []
        regions = results[-1]["result"] if results else []
    else:
        lists = (value for value in task.values() if isinstance(value, list) and value)
        regions = next((each for each in lists if isinstance(each[0], dict) and "start" in each[0]), [])
    yield from (region for region in regions if "start" in region.get("value", region))


def _is_path(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _name(audio: str) -> str:
    parts = urlsplit(audio) if re.match(r"(https?|s3|gs)://|/data/", audio) else None
    if parts is None:
        return unescape(audio)
    if local := parse_qs(parts.query).get("d"):
        return local[0]
    return re.sub(r"^[0-9a-f]{8}-", "", PurePosixPath(unquote(parts.path)).name)
