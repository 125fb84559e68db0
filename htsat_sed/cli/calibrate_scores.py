"""`htsat-sed checkpoints calibrate-scores`: scores that say how often they are right."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from htsat_sed.cli.event_options import EventOptions, own_rules
from htsat_sed.cli.groups import MODEL, REQUIRED, Without, argument, option, with_groups
from htsat_sed.cli.maps import matching_recordings
from htsat_sed.cli.message_options import MessageOptions
from htsat_sed.cli.model_options import ModelOptions
from htsat_sed.cli.negatives import NegativesOption, negative_recordings
from htsat_sed.cli.progress import RecordingsProgress
from htsat_sed.cli.recording_options import ChannelOptions
from htsat_sed.cli.run_options import OverwriteOptions
from htsat_sed.cli.terminal import output, remark, report
from htsat_sed.errors import AnnotationError, HtsatSedError, UsageError
from htsat_sed.runs.output_checks import check_apart, check_files
from htsat_sed.runs.output_hashes import check_replaceable, recording_outputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from htsat_sed.detection.detector import Detector
    from htsat_sed.detection.events import Event
    from htsat_sed.evaluation.reliability import Outcomes
    from htsat_sed.evaluation.score_calibration import Calibrated
    from htsat_sed.runs.recordings import Recording


@dataclass(frozen=True)
class CalibrationOptions:
    """What scores are calibrated on, and where the checkpoint goes."""

    reference: Path = argument(REQUIRED, "Strong labels, as for evaluate.", metavar="REFERENCE")
    audio: Path = option(REQUIRED, "Folder of the recordings of REFERENCE.", metavar="DIR")
    into: Path = option(
        REQUIRED, "Write a copy of the checkpoint with the calibration to this file.", metavar="SAFETENSORS"
    )
    negatives: NegativesOption = None
    lower: float = option(
        0.0,
        "Subtract this from the logits, if the model was trained on these recordings: its precision is "
        "lower on others.",
        metavar="LOGITS",
    )
    dtc: float = option(
        0.5, "An event is right if at least this fraction of it lies in reference events.", metavar="PART"
    )
    folds: int = option(5, "Folds of the cross-validation over recordings.", min=2, metavar="N")
    seed: int = option(0, "Random seed of the folds.", min=0, metavar="N")
    checkpoint: str | None = option(
        None,
        r"Checkpoint to calibrate.  \[default: home, the bundled one]",
        "--checkpoint",
        "-c",
        metavar="FILE|NAME",
        rich_help_panel=MODEL,
    )

    def check(self, *, overwrite: bool) -> None:
        """Refuse an output that cannot be, before minutes of work.

        Raises:
            typer.BadParameter: it is no checkpoint.
            HtsatSedError: it cannot be written, or is among what is read.
        """
        from htsat_sed.model.catalogue import resolve_checkpoint

        if self.into.suffix != ".safetensors":
            raise typer.BadParameter(
                f"wanted a file ending in .safetensors, got {self.into}", param_hint="--into"
            )
        check_files(self.into)
        source = resolve_checkpoint(self.checkpoint)
        check_apart([self.into], [self.reference, self.audio, self.negatives, source])
        check_replaceable(self.into, overwrite=overwrite)


@with_groups
def calibrate_scores(
    given: CalibrationOptions,
    model: Annotated[
        ModelOptions,
        Without("checkpoint", "class_map", "labels", "hop", "shifts", "sample_rate", "label_file"),
    ],
    channels: ChannelOptions,
    overwriting: OverwriteOptions,
    messages: MessageOptions,
) -> None:
    r"""Calibrate the scores that detect and tag print to the share of right events.

    On similar recordings, about 80 % of events with a score of 0.8 are then right.
    The events and their order within a class stay the same.
    detect --raw-scores prints the model's own scores.

    Give recordings that the model was not trained on, and negatives, so that false alarms count.
    Each class has its own curve; with few events it is close to the curve of all classes.

    The tables compare raw with calibrated scores, cross-validated over recordings.

    [bold]Examples[/bold]

      htsat-sed checkpoints calibrate-scores reference.tsv --audio yard/ --into mine.safetensors
      htsat-sed checkpoints calibrate-scores reference.tsv --audio yard/ --negatives street/ \
          -c mine.safetensors --into calibrated.safetensors
    """
    given.check(overwrite=overwriting.overwrite)
    from htsat_sed.annotations import read_events
    from htsat_sed.evaluation.reliability import outcomes_of_negatives, outcomes_of_pair
    from htsat_sed.evaluation.score_calibration import calibrate_scores as fit
    from htsat_sed.evaluation.score_calibration import outcomes_of_clips
    from htsat_sed.evaluation.tables import pair
    from htsat_sed.model.catalogue import resolve_checkpoint

    negatives, into, source = given.negatives, given.into, resolve_checkpoint(given.checkpoint)
    strong = read_events(given.reference)
    recordings = matching_recordings(given.audio, strong)
    quiet, table, failures = negative_recordings(negatives) if negatives is not None else ([], {}, [])
    named = replace(model, checkpoint=None if given.checkpoint is None else [given.checkpoint])
    detector = named.detector(channels, EventOptions(raw_scores=True))
    found, scores, failed = _heard(detector, recordings)
    false, quiet_scores, failed_too = _heard(detector, quiet)
    failures += failed + failed_too
    labels = detector.labels
    try:
        events = pair({name: strong[name] for name in found}, found)
    except UsageError as error:
        raise AnnotationError(given.reference, str(error)) from error
    of_events = [*outcomes_of_pair(events, dtc=given.dtc), *outcomes_of_negatives(false, table, labels)]
    present = {name: {event.label for event in strong[name]} for name in scores}
    of_clips = outcomes_of_clips(scores, present, {}, labels) + outcomes_of_clips(
        quiet_scores,
        {name: each.present for name, each in table.items()},
        {name: each.possible for name, each in table.items()},
        labels,
    )
    event_fit = fit(of_events, labels, lower=given.lower, folds=given.folds, seed=given.seed)
    clip_fit = fit(of_clips, labels, lower=given.lower, folds=given.folds, seed=given.seed)
    _write(source, into, labels, event_fit, clip_fit, given.lower, len(found), len(false))
    _show("events", of_events, event_fit)
    _show("clip scores", of_clips, clip_fit)
    remark(f"{into}: {source.name} with calibrated scores")
    raise typer.Exit(1 if failures else 0)


def _heard(
    detector: Detector, recordings: Sequence[Recording]
) -> tuple[dict[str, list[Event]], dict[str, NDArray[np.float32]], list[HtsatSedError]]:
    """Events and clip scores of recordings, by name; and an error, already shown, for each that failed."""
    events: dict[str, list[Event]] = {}
    scores: dict[str, NDArray[np.float32]] = {}
    failures: list[HtsatSedError] = []
    paths = [each.path for each in recordings]
    with RecordingsProgress("detecting", 2 * len(recordings)) as progress:
        results = detector.detections(paths, progress=progress.heard)
        for recording, (_, result) in zip(recordings, results, strict=True):
            progress.done()
            if isinstance(result, HtsatSedError):
                failures.append(result)
                report(result)
            else:
                events[recording.name] = result.events
        tags = detector.all_clip_scores(paths, progress=progress.heard)
        for recording, (_, score) in zip(recordings, tags, strict=True):
            progress.done()
            if not isinstance(score, HtsatSedError):
                scores[recording.name] = score
    return events, scores, failures


def _write(
    source: Path,
    into: Path,
    labels: Sequence[str],
    events: Calibrated,
    clips: Calibrated,
    lower: float,
    recordings: int,
    negatives: int,
) -> None:
    """Write a copy of the checkpoint that differs in the calibration alone."""
    import torch

    from htsat_sed.evaluation.reliability import score_reliability
    from htsat_sed.evaluation.report import Settings
    from htsat_sed.model.checkpoint import load_checkpoint, read_info, save_checkpoint

    model = load_checkpoint(source)
    values = zip(
        labels, *(each.tolist() for fitted in (events, clips) for each in fitted.calibration), strict=True
    )
    names = ("score_slope", "score_offset", "clip_slope", "clip_offset")
    classes = {label: dict(zip(names, map(_rounded, own), strict=True)) for label, *own in values}
    rules = own_rules(model.post_processing, None, source).override({"classes": classes})
    note = {
        "recordings": recordings,
        "negatives": negatives,
        "lower": lower,
        "calibration_error_held_out": score_reliability(events.held_out, Settings())
        .headline["calibration_error"]
        .value,
    }
    with recording_outputs():
        save_checkpoint(
            into,
            model,
            post_processing=rules.to_dict(),
            provenance={**model.provenance, "score_calibration": note},
            dtype=torch.float16 if read_info(source).dtype == "float16" else torch.float32,
        )


def _rounded(value: float) -> float:
    return round(value, 4)


def _show(what: str, before: Outcomes, fitted: Calibrated) -> None:
    """Print how many scores there are in each interval, and how many of them are right."""
    from rich.table import Table

    from htsat_sed.evaluation.reliability import score_reliability
    from htsat_sed.evaluation.report import Settings

    metrics = [score_reliability(each, Settings()) for each in (before, fitted.held_out)]
    errors = [metric.headline["calibration_error"].value for metric in metrics]
    words = [f"{error:.4f}" if error is not None else "unknown" for error in errors]
    output.print(
        f"{what}: calibration error {words[0]} before, {words[1]} held out", style="bold", soft_wrap=True
    )
    table = Table(box=None, padding=(0, 1))
    for name in ("score", "before", "right, %", "held out", "right, %"):
        table.add_column(name, justify="right", no_wrap=True)
    for interval in sorted(set(metrics[0].classes) | set(metrics[1].classes)):
        row = [interval]
        for metric in metrics:
            own = metric.classes.get(interval, {})
            row += [f"{own.get('events') or 0:.0f}", f"{100 * (own.get('right_share') or 0.0):.0f}"]
        table.add_row(*row)
    output.print(table)
    output.print()
