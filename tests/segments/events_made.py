"""Events to be cut out."""

from __future__ import annotations

from htsat_sed import Event


def at(onset: float, score: float = 1.0, label: str = "Dog") -> Event:
    return Event(onset, onset + 0.5, label, score)
