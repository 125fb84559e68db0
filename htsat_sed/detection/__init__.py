"""Detection: computing presence maps of recordings, and finding events in presence maps."""
