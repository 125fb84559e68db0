"""Read the files whose kinds and paths come in on standard input; answer each with a line of JSON.

An answer is ``ok``, ``refused`` (one of the package's own errors, in one line) or ``finding`` (anything else).
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
import warnings
from pathlib import Path

from fuzz.readers import READERS

from htsat_sed.errors import HtsatSedError, UsageError


def outcome(kind: str, path: Path) -> tuple[str, str]:
    """What reading a file came to, and in what words."""
    try:
        READERS[kind].read(path)
    except (HtsatSedError, UsageError) as error:
        if "\n" in str(error).strip():
            return "finding", f"an error of several lines: {str(error)!r}"
        if len(str(error)) > 4000:
            return "finding", f"an error of {len(str(error))} characters: {str(error)[:200]!r}"
        return "refused", str(error)
    except Exception:
        return "finding", traceback.format_exc()
    return "ok", ""


def most_memory() -> int:
    """The largest resident memory of this process so far, in bytes; 0 where /proc does not report it.

    `resource.getrusage` also counts the parent's memory at the fork.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def main() -> None:
    """Answer until standard input ends."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # a library that prints does not disturb the answers
    for line in sys.stdin:
        kind, path = json.loads(line)
        what, words = outcome(kind, Path(path))
        print(json.dumps([what, words, most_memory()]), file=answers)


if __name__ == "__main__":
    main()
