"""Plots of recordings and seasons."""
