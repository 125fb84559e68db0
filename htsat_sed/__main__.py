"""The program ``htsat-sed``, also as ``python -m htsat_sed``."""

from __future__ import annotations

import sys
from typing import NoReturn

from htsat_sed.libraries import failed_library


def program() -> NoReturn:
    """Run the command line; end with one line if a library that it needs from the start cannot be loaded."""
    try:
        from htsat_sed import cli
    except KeyboardInterrupt:
        sys.exit(130)
    except (Exception, SystemExit) as error:
        found = failed_library(error)
        if found is None or "--debug" in sys.argv:
            raise
        sys.exit(f"error: {found}")
    cli.program()


if __name__ == "__main__":
    program()
