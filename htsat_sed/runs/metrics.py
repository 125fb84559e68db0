"""Counts of a run in the text format of Prometheus, for the textfile collector of its node exporter."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from time import time
from typing import Any

from htsat_sed.errors import UsageError
from htsat_sed.whole_file import sha256_before_naming, whole_file

# Name behind "htsat_sed_", type, help, and the entry of `Run.summary`.
_METRICS = (
    ("recordings", "gauge", "Recordings of the run.", "recordings"),
    ("recordings_done", "gauge", "Recordings that are done, including those of earlier runs.", "done"),
    ("recordings_done_before", "gauge", "Recordings that earlier runs had done.", "done_before"),
    ("recordings_failed", "gauge", "Paths and recordings that failed.", "failed"),
    ("recordings_damaged", "gauge", "Recordings that were read, but are truncated or damaged.", "damaged"),
    ("audio_seconds_total", "counter", "Seconds of sound that this run decoded.", "audio_seconds"),
    ("run_seconds_total", "counter", "Seconds since the run started.", "seconds"),
    ("run_complete", "gauge", "1 if the run has ended and its output is complete.", "complete"),
    ("run_start_timestamp_seconds", "gauge", "When the run started.", "started"),
    ("run_updated_timestamp_seconds", "gauge", "When these values were written.", "updated"),
)
_BEGIN = b"# HELP htsat_sed_"


def check_metrics(path: Path | None) -> None:
    """Refuse a file that the node exporter would not read, or that is something else.

    Raises:
        UsageError: naming the file.
    """
    if path is None:
        return
    if path.suffix != ".prom":
        raise UsageError(
            f"--metrics: the name must end in .prom for the node exporter to read it, got {path}"
        )
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(_BEGIN)) not in (b"", _BEGIN):
                raise UsageError(f"{path}: exists, but does not hold metrics of htsat-sed: name another file")


def write_metrics(path: Path, summary: Mapping[str, Any]) -> None:
    """Write the file; it appears whole.

    Args:
        path: whose name without ``.prom`` is the label ``run``: the exporter joins all files of a folder.
        summary: of `Run.summary`.

    Raises:
        HtsatSedError: it cannot be written.
    """
    values = {
        **summary,
        "complete": int(summary["complete"]),
        "started": datetime.fromisoformat(summary["started"]).timestamp(),
        "updated": round(time(), 3),
    }
    labels = {"run": path.stem} | ({} if summary["shard"] is None else {"shard": summary["shard"]})
    of = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    # The record of outputs would get a line each time.
    with sha256_before_naming(lambda *_: None), whole_file(path) as file:
        for name, kind, text, entry in _METRICS:
            file.write(f"# HELP htsat_sed_{name} {text}\n# TYPE htsat_sed_{name} {kind}\n")
            file.write(f"htsat_sed_{name}{{{of}}} {values[entry]}\n")


def _escaped(label: str) -> str:
    text = label.encode("utf-8", "backslashreplace").decode()
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
