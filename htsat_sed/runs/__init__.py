"""Runs over many recordings: journals, failures, shards and output files."""
