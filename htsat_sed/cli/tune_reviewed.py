"""`htsat-sed tune --reviewed`: thresholds with a target precision, from a review."""

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
from htsat_sed.errors import AnnotationError, counted

if TYPE_CHECKING:
    from htsat_sed.detection.events import Event
    from htsat_sed.evaluation.reviewed import ClassThreshold
    from htsat_sed.post_processing import PostProcessing


@dataclass(frozen=True)
class ReviewOptions:
    """A review instead of a reference."""

    panel: ClassVar[str] = "From a review"
    reviewed: Path | None = option(
        None,
        "A review exported from a page of `htsat-sed report`, instead of REFERENCE: find the lowest "
        "threshold of each class that reaches --precision.",
        "--reviewed",
        metavar="CSV",
    )

    next_events: Path | None = option(
        None,
        "With --reviewed: write a table of the events that you should review next.",
        "--next",
        metavar="CSV",
    )

    def check(self, reference: Path | None, others: Sequence[object]) -> None:
        """Check that there is either a review or a reference, and no option that excludes the review.

        Args:
            reference: as given.
            others: values of options that need a reference; None if not given.

        Raises:
            typer.BadParameter: the options exclude each other.
        """
        if (self.reviewed is None) == (reference is None):
            raise typer.BadParameter("wanted either REFERENCE or --reviewed")
        if self.reviewed is not None and any(value is not None for value in others):
            raise typer.BadParameter(
                "a review includes scores: --scores, --audio, --negatives and --into need REFERENCE",
                param_hint="--reviewed",
            )
        if self.reviewed is None and self.next_events is not None:
            raise typer.BadParameter("needs --reviewed", param_hint="--next")


def wanted_precision(given: str) -> float:
    """Wanted precision, from the option that otherwise selects a number type.

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
            f"wanted a share of right events between 0 and 1, got {given!r}",
            param_hint="--precision",
        )
    return precision


def find_thresholds(options: ReviewOptions, precision: float, seed: int) -> list[ClassThreshold]:
    """Thresholds of all classes of a review.

    Raises:
        AnnotationError: it cannot be read, or has no verdict on a detected event.
    """
    from htsat_sed.annotations.reviews import read_review
    from htsat_sed.evaluation.reviewed import precision_thresholds

    assert options.reviewed is not None
    reviewed = read_review(options.reviewed)
    if not any(each.verdict for each in reviewed):
        raise AnnotationError(options.reviewed, "has no verdict on a detected event")
    return precision_thresholds(reviewed, precision, seed=seed)


def write_thresholds(
    found: Sequence[ClassThreshold], before: PostProcessing, precision: float, path: Path
) -> None:
    """Write the values for `detect --post-processing`; low thresholds, and so extents, are unchanged.

    The review and the printed table have calibrated scores. `detect` compares thresholds with presence
    scores, before calibration. The file has these, and a comment with the other one where they differ.
    """
    from htsat_sed.runs.output_hashes import recording_outputs
    from htsat_sed.whole_file import whole_file

    fitted = [each for each in found if each.threshold is not None]
    with recording_outputs(), whole_file(path) as file:
        file.write(f"# Lowest thresholds with a precision of {precision:g}, from a review.\n")
        file.write("# They apply to presence scores, before calibration, as detect compares them.\n")
        for each in fitted:
            assert each.threshold is not None
            own = before.of(each.label)
            low = own.threshold if own.threshold_low is None else own.threshold_low
            # A JSON string is a TOML one.
            file.write(f"\n[classes.{json.dumps(each.label, ensure_ascii=False)}]\n")
            threshold = _presence(each.threshold, own)
            shown = "" if threshold == each.threshold else f"  # {each.threshold:g} in calibrated scores"
            if each.kept == each.events and threshold > own.threshold:
                # Nothing lower was reviewed, so nothing speaks for a higher threshold.
                threshold, shown = own.threshold, "  # as before: all events have the precision"
            file.write(f"threshold = {threshold!r}{shown}\nthreshold_low = {min(low, threshold)!r}\n")
    remark(f"{path}: thresholds of {counted(len(fitted), 'class', 'classes')}, for detect --post-processing")


def _presence(threshold: float, own: PostProcessing) -> float:
    """Threshold of presence scores for a threshold of event scores, which may be calibrated."""
    if threshold in (0.0, 1.0) or (own.score_slope, own.score_offset) == (1.0, 0.0):
        return threshold
    logit = math.log(threshold / (1.0 - threshold))
    return 1.0 / (1.0 + math.exp((own.score_offset - logit) / own.score_slope))


def write_next(found: Sequence[ClassThreshold], path: Path) -> None:
    """List the events to hear next as a table of events."""
    from htsat_sed.annotations import write_table
    from htsat_sed.runs.output_hashes import recording_outputs

    events: dict[str, list[Event]] = {}
    for each in found:
        for one in each.following if each.too_few else ():
            events.setdefault(one.recording, []).append(one.detected)
    with recording_outputs():
        write_table(path, ((name, own, None) for name, own in events.items()), "csv")
    if events:
        remark(f"{path}: {counted(sum(map(len, events.values())), 'event')} to review next")
    elif any(each.too_few for each in found):
        reason = "all events of the classes with too few verdicts have one"
        remedy = "make the page with a lower --threshold, or of more recordings"
        say("note", f"{path}: has only a header, since {reason}: {remedy}")
    else:
        say("note", f"{path}: has only a header, since no class needs more verdicts")


def show_thresholds(found: Sequence[ClassThreshold], precision: float) -> None:
    """Print a row for each class, and events to review next for classes with too few verdicts."""
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
        say("note", f"classes without a threshold of precision {precision:g} become silent: threshold 1")
    if any(each.threshold is None for each in found):
        say("note", "classes with too few verdicts are unchanged")
    for each in found:
        if each.too_few and each.following:
            some = ", ".join(
                f"{one.recording} {clock(one.detected.onset)} ({one.detected.score:.2f})"
                for one in each.following[:5]
            )
            say("review next", f"{each.label}: {some}")


def _remark(found: ClassThreshold) -> str:
    if found.threshold is None:
        return "too few verdicts"
    if found.threshold == 1.0:
        return "becomes silent"
    if found.kept == found.events:
        return "wide, not raised" if found.too_few else "not raised"
    return "wide" if found.too_few else ""
