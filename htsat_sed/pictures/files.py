"""Picture files."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from htsat_sed.errors import UsageError
from htsat_sed.whole_file import whole_file

FORMATS = ("png", "svg", "pdf")

_DPI = 150

_logger = logging.getLogger("htsat_sed")


def save(figure: Figure, path: Path) -> None:
    """Write a picture, whole or not at all; the same figure yields the same bytes.

    Args:
        figure: the picture.
        path: target file; its suffix selects the format: .png, .svg or .pdf.

    Raises:
        ValueError: another suffix.
        HtsatSedError: the file cannot be written.
    """
    kind = picture_format(path)
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with (
        warnings.catch_warnings(record=True) as caught,
        whole_file(path, "wb") as file,
        # TrueType fonts, since some publishers refuse others in a PDF.
        rc_context({"svg.hashsalt": "htsat-sed", "pdf.fonttype": 42}),
    ):
        warnings.simplefilter("always")
        figure.savefig(file, format=kind, dpi=_DPI, metadata=metadata)
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        _logger.warning("%s: %s", path, message)


def picture_format(path: Path) -> str:
    """Picture format of a path's suffix, one of `FORMATS`.

    Raises:
        ValueError: another suffix, or none.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise UsageError(f"wanted a picture with the suffix .png, .svg or .pdf, got {path}")
    return kind
