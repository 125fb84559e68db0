"""From a presence map to events: smoothing, thresholds with hysteresis, shortest gap, shortest event."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Event:
    """One sound event.

    Attributes:
        onset: seconds from the start of the recording.
        offset: seconds, exclusive; onset < offset.
        label: class name.
        score: in [0, 1], the highest smoothed presence score inside the event; 1.0 for a reference event.
    """

    onset: float
    offset: float
    label: str
    score: float = 1.0
