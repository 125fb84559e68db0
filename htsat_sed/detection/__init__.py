"""From recordings to presence maps, and from presence maps to events."""
