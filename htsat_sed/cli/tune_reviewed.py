"""`htsat-sed tune --reviewed`: thresholds that mean precision, from a review."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import typer

from htsat_sed.cli.groups import option
from htsat_sed.cli.terminal import clock, output, remark, say
from htsat_sed.errors import AnnotationError

if TYPE_CHECKING:
    from htsat_sed.detection.events import Event
    from htsat_sed.evaluation.reviewed import ClassThreshold
    from htsat_sed.post_processing import PostProcessing


@dataclass(frozen=True)
class ReviewOptions:
    """A review, in place of a reference."""

    panel: ClassVar[str] = "From a review"
    reviewed: Path | None = option(
        None,
        "A review table that a page of `htsat-sed report` exported, in place of REFERENCE: finds for each "
        "class the lowest threshold with the wanted --precision.",
        "--reviewed",
        metavar="CSV",
    )

    next_events: Path | None = option(
        None, "With --reviewed: write the events to judge next to this table.", "--next", metavar="CSV"
    )

    def check(self, reference: Path | None, others: Sequence[object]) -> None:
        """Refuse a review beside what only a reference needs, or neither of both.

        Args:
            reference: as given.
            others: values of options that need a reference, None for those not given.

        Raises:
            typer.BadParameter: saying what is wanted.
        """
        if (self.reviewed is None) == (reference is None):
            raise typer.BadParameter("wanted either REFERENCE or --reviewed")
        if self.reviewed is not None and any(value is not None for value in others):
            raise typer.BadParameter(
                "a review has its scores in it: --scores, --audio, --negatives and --into are for REFERENCE",
                param_hint="--reviewed",
            )
        if self.reviewed is None and self.next_events is not None:
            raise typer.BadParameter("wanted --reviewed with it", param_hint="--next")


def wanted_precision(given: str) -> float:
    """The part of events that are to be right, from the option that otherwise names a type of numbers.

    Raises:
        typer.BadParameter: it is not between 0 and 1.
    """
    if given == "float32":  # the option's default
        return 0.9
    try:
        precision = float(given)
    except ValueError:
        precision = float("nan")
    if not 0.0 < precision < 1.0:
        raise typer.BadParameter(
            f"wanted the part of events that are to be right, between 0 and 1, got {given!r}",
            param_hint="--precision",
        )
    return precision


def find_thresholds(options: ReviewOptions, precision: float, seed: int) -> list[ClassThreshold]:
    """Thresholds of all classes of a review.

    Raises:
        AnnotationError: it cannot be read, or holds no verdict on a detected event.
    """
    from htsat_sed.annotations.reviews import read_review
    from htsat_sed.evaluation.reviewed import precision_thresholds

    assert options.reviewed is not None
    reviewed = read_review(options.reviewed)
    if not any(each.verdict for each in reviewed):
        raise AnnotationError(options.reviewed, "holds no verdict on a detected event")
    return precision_thresholds(reviewed, precision, seed=seed)


def write_thresholds(
    found: Sequence[ClassThreshold], before: PostProcessing, precision: float, path: Path
) -> None:
    """Write the values for `detect --post-processing`; events reach as far as before, only fewer remain."""
    from htsat_sed.runs.written import recording_outputs
    from htsat_sed.whole_file import whole_file

    fitted = [each for each in found if each.threshold is not None]
    with recording_outputs(), whole_file(path) as file:
        file.write(f"# Lowest thresholds with a precision of {precision:g}, from a review.\n")
        for each in fitted:
            assert each.threshold is not None
            own = before.of(each.label)
            low = own.threshold if own.threshold_low is None else own.threshold_low
            # A JSON string is a TOML one.
            file.write(f"\n[classes.{json.dumps(each.label, ensure_ascii=False)}]\n")
            threshold = _presence(each.threshold, own)
            file.write(f"threshold = {threshold!r}\nthreshold_low = {min(low, threshold)!r}\n")
    remark(f"{path}: thresholds of {len(fitted)} classes, for detect --post-processing")


def _presence(threshold: float, own: PostProcessing) -> float:
    """The presence score for a threshold of event scores, which a checkpoint may calibrate."""
    if threshold in (0.0, 1.0) or (own.score_slope, own.score_offset) == (1.0, 0.0):
        return threshold
    logit = math.log(threshold / (1.0 - threshold))
    return 1.0 / (1.0 + math.exp((own.score_offset - logit) / own.score_slope))


def write_next(found: Sequence[ClassThreshold], path: Path) -> None:
    """List the events to hear next as a table of events."""
    from htsat_sed.annotations import write_table
    from htsat_sed.runs.written import recording_outputs

    events: dict[str, list[Event]] = {}
    for each in found:
        for one in each.following if each.too_few else ():
            events.setdefault(one.recording, []).append(one.detected)
    with recording_outputs():
        write_table(path, ((name, own, None) for name, own in events.items()), "csv")


def show_thresholds(found: Sequence[ClassThreshold], precision: float) -> None:
    """Print a row for each class, and what to hear next where too little was heard."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1))
    table.add_column("class", no_wrap=True, min_width=max(len(each.label) for each in found))
    for name in ("right", "heard", "events", "threshold", "kept", "precision", "95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for each in found:
        low, high = each.interval
        interval = f"{low:.2f} to {high:.2f}" if low == low else "-"
        shown = "-" if each.threshold is None else f"{each.threshold:g}"
        estimate = f"{each.precision:.2f}" if each.precision == each.precision else "-"
        counts = map(str, (each.right, each.heard, each.events))
        values = (shown, str(each.kept), estimate, interval, _remark(each))
        table.add_row(each.label, *counts, *values)
    output.print(table)
    if any(each.threshold == 1.0 for each in found):
        say(
            "note", f"classes that no threshold gives a precision of {precision:g} become silent: threshold 1"
        )
    if any(each.threshold is None for each in found):
        say("note", "classes of which too few were heard stay as before")
    for each in found:
        if each.too_few and each.following:
            some = ", ".join(
                f"{one.recording} {clock(one.detected.onset)} ({one.detected.score:.2f})"
                for one in each.following[:5]
            )
            say("hear next", f"{each.label}: {some}")


def _remark(found: ClassThreshold) -> str:
    if found.threshold is None:
        return "too few heard"
    if found.threshold == 1.0:
        return "becomes silent"
    return "wide" if found.too_few else ""
