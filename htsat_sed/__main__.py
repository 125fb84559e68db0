"""``python -m htsat_sed`` is ``htsat-sed``."""

from htsat_sed.cli import program

program()
