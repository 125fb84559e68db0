"""Classes, and values for all or for some of them, as a command line names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

_FEW = 10  # classes that fit into a message


def parse_flags(flags: dict[str, list[str] | None]) -> dict[str, Any]:
    """Values such as ``0.3`` and ``Dog=0.3``, by option, as `PostProcessing.override` takes them."""
    values: dict[str, Any] = {"classes": {}}
    for name, given in flags.items():
        for text in given or []:
            label, _, number = text.rpartition("=")
            try:
                value = float(number)
            except ValueError:
                option = "--" + name.replace("_", "-")
                raise typer.BadParameter(
                    f"wanted a number or LABEL=NUMBER, got {text!r}", param_hint=option
                ) from None
            if label:
                values["classes"].setdefault(label, {})[name] = value
            else:
                values[name] = value
    return values


def check_labels(classes: dict[str, dict[str, Any]], known: tuple[str, ...], where: str = "") -> None:
    """Refuse values for classes that the model does not have; without a file, they came by flags."""
    for label, own in classes.items():
        check_label(label, known, where or ", ".join(f"--{name.replace('_', '-')}" for name in own))


def check_label(label: str, known: tuple[str, ...], source: str) -> None:
    """Refuse a class that the model does not have; `source` is where it was named."""
    from htsat_sed.labels import did_you_mean

    if label not in known:
        few = f"; it has {', '.join(known)}" if len(known) <= _FEW else ""
        hint = did_you_mean(label, known) or few or "; `htsat-sed checkpoints info NAME --labels` lists them"
        raise typer.BadParameter(f"{source}: no class {label!r} in this model{hint}")


def expand_labels(given: list[str] | None) -> list[str] | None:
    """Labels, or files that hold one a line, as one list."""
    from htsat_sed.labels import read_labels

    if not given:
        return None
    labels: list[str] = []
    for each in given:
        labels += read_labels(each) if Path(each).is_file() else [each]
    return labels
