"""Audio clips of events, cut from their recordings: selection, file names, cutting and index."""
