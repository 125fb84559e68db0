"""Importing OpenVINO without its telemetry.

If `openvino_telemetry` is installed, importing OpenVINO sends an identifier of the user, the system and the
version to its makers. The module is hidden during this import only; other code can still use it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TELEMETRY = "openvino_telemetry"


@contextmanager
def unreported() -> Iterator[None]:
    """Context in which importing OpenVINO's telemetry fails."""
    absent = object()
    before: Any = sys.modules.get(_TELEMETRY, absent)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # None makes an import fail
    try:
        yield
    finally:
        if before is absent:
            del sys.modules[_TELEMETRY]
        else:
            sys.modules[_TELEMETRY] = before


with unreported():
    import openvino
    from openvino import opset13 as ops

__all__ = ["openvino", "ops", "unreported"]
