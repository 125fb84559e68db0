"""Sound event detection with HTS-AT: from recordings to events.

from htsat_sed import Detector

detector = Detector("home")
for event in detector.detect("street.flac"):
    print(event.onset, event.offset, event.label, event.score)
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from htsat_sed.errors import AnnotationError, AudioError, CheckpointError, HtsatSedError, UsageError

if TYPE_CHECKING:
    from htsat_sed.annotations import FORMATS, read_events, write_events
    from htsat_sed.annotations.frame import events_to_frame
    from htsat_sed.detection.detector import Detector
    from htsat_sed.detection.events import Event, PostProcessing
    from htsat_sed.detection.presence import PresenceMap
    from htsat_sed.labels import ClassMap
    from htsat_sed.model.checkpoint import load_checkpoint
    from htsat_sed.model.runtime import Execution

__all__ = [
    "FORMATS",
    "AnnotationError",
    "AudioError",
    "CheckpointError",
    "ClassMap",
    "Detector",
    "Event",
    "Execution",
    "HtsatSedError",
    "PostProcessing",
    "PresenceMap",
    "UsageError",
    "events_to_frame",
    "load_checkpoint",
    "read_events",
    "write_events",
]

__version__ = "0.2.0"

# When it is imported, ONNX Runtime reports to its makers, unless this variable is set. For OpenVINO see
# `model/openvino_import.py`.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Imported at first use: torch takes seconds, and `htsat-sed --help` needs none of it.
_HOMES = {
    "FORMATS": "htsat_sed.annotations",
    "ClassMap": "htsat_sed.labels",
    "Detector": "htsat_sed.detection.detector",
    "Event": "htsat_sed.detection.events",
    "Execution": "htsat_sed.model.runtime",
    "PostProcessing": "htsat_sed.detection.events",
    "PresenceMap": "htsat_sed.detection.presence",
    "events_to_frame": "htsat_sed.annotations.frame",
    "load_checkpoint": "htsat_sed.model.checkpoint",
    "read_events": "htsat_sed.annotations",
    "write_events": "htsat_sed.annotations",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'htsat_sed' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted(__all__)
