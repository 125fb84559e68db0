"""Classes, and values for all or for some of them, as a command line names them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from htsat_sed.errors import UsageError

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


@dataclass(frozen=True)
class Known:
    """Classes that can be named.

    Attributes:
        labels: their labels.
        of: what has them, such as ``this model``.
        checkpoint: name or file of the model, for a hint.
    """

    labels: tuple[str, ...]
    of: str = "this model"
    checkpoint: str | None = None

    def check(self, label: str, source: str) -> None:
        """Refuse a class that is not among them; `source` is where it was named.

        Raises:
            ValueError: naming the source, the class, and one like it or where to find those there are.
        """
        from htsat_sed.labels import did_you_mean

        if label in self.labels:
            return
        hint = did_you_mean(label, self.labels)
        if not hint and len(self.labels) <= _FEW:
            hint = f"; its classes are {' · '.join(self.labels)}"
        elif not hint and self.checkpoint is not None:
            name = shlex.quote(self.checkpoint)
            hint = f"; `htsat-sed checkpoints info {name} --labels` lists its classes"
        raise UsageError(f"{source}: no class {label!r} in {self.of}{hint}")

    def check_values(self, classes: dict[str, dict[str, Any]], where: str = "") -> None:
        """Refuse values for classes that are not among them; without a file, they came by flags.

        Raises:
            ValueError: as `check`.
        """
        for label, own in classes.items():
            self.check(label, where or ", ".join(f"--{name.replace('_', '-')}" for name in own))

    def select(self, given: list[str] | None) -> list[str] | None:
        """Labels, and those of files that hold one a line, as one list; None for none.

        Raises:
            AnnotationError: a file cannot be read.
            ValueError: as `check`.
        """
        from htsat_sed.labels import read_labels

        wanted: list[str] = []
        for each in given or ():
            file = Path(each).is_file()
            for label in read_labels(each) if file else [each]:
                self.check(label, each if file else "--labels")
                wanted.append(label)
        return wanted or None
