"""Counts of events by site, hour, day and week, with the recording effort."""
