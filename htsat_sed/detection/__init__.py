"""Detection: recordings to presence maps, and presence maps to events."""
