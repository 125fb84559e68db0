"""TOML files, read so that whatever a file holds is a table or one line that names the file."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from htsat_sed.errors import AnnotationError

_DEEPEST = 20  # parts of a dotted key; tomllib takes time that grows with their square
_TEXTS_AND_COMMENTS = re.compile(
    r'''"""(?:\\.|[^\\])*?"""|"(?:\\.|[^"\\\n])*"|'''  # escaped
    r"""'''.*?'''|'[^'\n]*'|\#[^\n]*""",
    re.DOTALL,
)


def read_toml(path: str | Path, what: str) -> dict[str, Any]:
    """Read a TOML file.

    Args:
        path: the file, UTF-8, with or without a byte order mark.
        what: what it should be, such as ``a class map``, for the error.

    Raises:
        AnnotationError: the file cannot be read, is not TOML, or is nested too deeply.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        bare = _TEXTS_AND_COMMENTS.sub("", text)
        if any(part.count(".") > _DEEPEST for part in re.split(r"[=,\n]", bare)):
            raise RecursionError
        return tomllib.loads(text)
    except OSError as error:
        raise AnnotationError(path, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AnnotationError(path, "is not UTF-8 text") from error
    except RecursionError:
        raise AnnotationError(path, f"not {what}: nested too deeply") from None
    except ValueError as error:  # also what tomllib raises
        raise AnnotationError(path, f"not {what}: {error}") from error
