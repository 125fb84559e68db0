"""Sound event detection with HTS-AT."""

__version__ = "0.1.0"
