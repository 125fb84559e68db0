"""Seasons: how often classes sound by site, hour, day and week, beside what was recorded."""
