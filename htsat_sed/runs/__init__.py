"""Runs over many recordings that lose nothing: what is done, what failed, what is written when."""
