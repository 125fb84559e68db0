"""`htsat-sed teach`: a checkpoint for own classes from a folder of clips."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

import typer

from htsat_sed.cli.groups import REQUIRED, Without, argument, option, with_groups
from htsat_sed.cli.message_options import MessageOptions
from htsat_sed.cli.progress import RecordingsProgress, TrainingProgress, waiting_for
from htsat_sed.cli.run_options import OverwriteOptions
from htsat_sed.cli.terminal import output, remark, report, say
from htsat_sed.cli.train import PRECISION, MachineOptions, check_training, remark_precision
from htsat_sed.errors import HtsatSedError, UsageError, counted
from htsat_sed.runs.output_checks import check_apart
from htsat_sed.runs.output_hashes import check_replaceable, recording_outputs

if TYPE_CHECKING:
    from htsat_sed.training.clip_figures import ClassFigures
    from htsat_sed.training.collection import Collection
    from htsat_sed.training.fit import Machine, StepProgress
    from htsat_sed.training.teaching import Taught, TeachingOptions

_LISTED = 10  # false alarms, confusions, and clips that look mislabelled


@dataclass(frozen=True)
class TeachOptions:
    """What is taught, and where the checkpoint goes."""

    clips: Path = argument(
        REQUIRED,
        "Folder with a subfolder of clips for each class; or labels of recordings, in any format that "
        "evaluate reads, with --audio.",
        metavar="CLIPS",
    )
    out: Path = option(REQUIRED, "Checkpoint to write.", "--output", "-o", metavar="SAFETENSORS")
    audio: Path | None = option(
        None, "Folder of the recordings, if CLIPS are labels: the events are cut out of them.", metavar="DIR"
    )
    start: str = option(
        "home",
        "Starting checkpoint, or a CLAP model with an HTS-AT audio encoder.",
        "--checkpoint",
        "-c",
        metavar="FILE|NAME",
    )
    head_only: bool = option(
        False,
        "Train only the head: several times as fast but less accurate, for a first look.",
        "--head-only",
    )
    keep_classes: bool = option(
        False,
        "Keep the classes of the starting checkpoint and their scores, and add the new ones. Trains only the "
        "head.",
        "--keep-classes",
    )
    add: Path | None = option(
        None,
        "Checkpoint made by teach: train also on its clips.",
        metavar="SAFETENSORS",
    )
    folds: int = option(
        3, "Number of models, each trained without one fold of the sources.", min=2, metavar="N"
    )
    min_precision: float = option(
        0.75,
        "Minimum precision of events; thresholds are chosen to reach it where possible.",
        min=0.0,
        max=1.0,
    )
    false_alarms: float = option(
        10.0,
        "Maximum false alarms per hour in negatives and synthetic sounds, over all classes.",
        min=0.0,
        metavar="N",
    )
    caution: float = option(
        0.2,
        "Without negatives, raise thresholds as long as the F1 falls by no more than this fraction: fewer "
        "false alarms, but fewer events found.",
        min=0.0,
        max=1.0,
    )
    steps: int | None = option(
        None,
        "Training steps per fold; no effect with --head-only.  \\[default: 45 to 160, depending on the "
        "number of clips]",
        min=1,
    )
    seed: int = option(0, "Random seed.")
    run: Path | None = option(
        None,
        "Folder for the state, from which a stopped run resumes.  \\[default: the output with the suffix "
        ".run]",
        metavar="DIR",
    )
    restart: bool = option(False, "Discard the state in --run and start again.", "--restart")

    panel: ClassVar[str] = "Options"

    @property
    def head_alone(self) -> bool:
        """Whether the encoder stays as it is; such a training is not kept when it is stopped."""
        return self.head_only or self.keep_classes

    @property
    def folder(self) -> Path:
        """Where tables and state are."""
        return self.run or self.out.with_suffix(".run")

    @property
    def teaching(self) -> TeachingOptions:
        """The same for the training."""
        from htsat_sed.training.teaching import TeachingOptions

        return TeachingOptions(
            start=self.start,
            head_only=self.head_only,
            keep_classes=self.keep_classes,
            precision=self.min_precision,
            false_alarms=self.false_alarms,
            caution=self.caution,
            steps=self.steps,
            seed=self.seed,
        )


@dataclass(frozen=True)
class TeachMachineOptions(MachineOptions):
    """Hardware options, with defaults for a short training."""

    precision: str = option("auto", PRECISION, metavar="TYPE")

    @property
    def machine(self) -> Machine:
        """The options as `Machine`; each worker gets a core of its own."""
        return replace(super().machine, yields=True)


@with_groups
def teach(
    options: TeachOptions,
    overwrite: OverwriteOptions,
    machine: Annotated[TeachMachineOptions, Without("devices", "nodes", "accumulate")],
    messages: MessageOptions,
) -> None:
    r"""Train a model on classes of your own, from a folder of clips for each class.

    Ten clips per class are enough to start; twenty from different recordings are
    better. Put sounds that are not events into a folder named _background or other;
    without one, synthetic sounds are used. Each model is trained without one fold of
    the sources and validated on it. The checkpoint averages the weights of the models,
    and has thresholds for the target precision and calibrated scores.
    To resume a stopped run, give the same command again. With --head-only or
    --keep-classes, it starts again.

    Needs the extra: pip install 'htsat-sed\[train]'.

    [bold]Examples[/bold]

      htsat-sed teach birds/ -o birds.safetensors
      htsat-sed teach labels.txt --audio recordings/ -o yard.safetensors
      htsat-sed teach door/ -o home-door.safetensors --keep-classes
    """
    check_training(options.out, machine)
    check_replaceable(options.out, overwrite=overwrite.overwrite)
    logging.getLogger("htsat_sed").setLevel(logging.WARNING)
    with waiting_for("loading"):
        from htsat_sed.training.teaching import teach as teach_model
    machine.limit_threads()
    if not options.head_alone and not options.restart and any(options.folder.glob("fold-*/state")):
        remark(f"resumes from {options.folder}")
    check_apart([options.out], [options.clips, options.audio, options.start, options.add])
    collection = _collection(options)
    for failure in collection.failures:
        report(failure)
    if collection.failures:
        remark(f"left out: {counted(len(collection.failures), 'clip')}")
    for line in _counts(collection):
        remark(line)
    if not options.head_alone:
        remark_precision(machine)
    try:
        with recording_outputs(), _FoldProgress("head" if options.head_alone else "model") as progress:
            taught = teach_model(
                collection,
                options.teaching,
                run=options.folder,
                out=options.out,
                machine=machine.machine,
                progress=progress.of_fold,
                restart=options.restart,
            )
    except KeyboardInterrupt:
        kept = f"resumes from {options.folder}"
        again = "starts again, because training only the head keeps no state" if options.head_alone else kept
        say("stopped", f"the same command {again}", "bold yellow")
        raise typer.Exit(130) from None
    except UsageError as error:
        raise HtsatSedError(options.clips, str(error)) from error
    _show(collection, taught, limit=options.false_alarms)
    remark(f"{options.out}: {counted(len(taught.model.labels), 'class', 'classes')}")
    raise typer.Exit(1 if collection.failures else 0)


class _FoldProgress:
    """The progress of one fold after the other.

    Args:
        what: is trained on each fold.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._bars = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.close()

    def of_fold(self, fold: int, folds: int) -> StepProgress:
        """Begin a fold; returns what notes its steps."""
        self._bars.close()
        doing = f"{self._what} {fold} of {folds}" if folds > 1 else f"the {self._what}"
        unit = "windows" if self._what == "head" else "steps"
        bar = TrainingProgress(1, shown=True, doing=doing, unit=unit)
        return self._bars.enter_context(bar).update


def _counts(collection: Collection) -> Iterator[str]:
    """How many clips and sources each class has."""
    for label in collection.labels:
        own = collection.of(label)
        sources = counted(len({clip.source for clip in own}), "source")
        yield f"{label}: {counted(len(own), 'clip')} of {sources}"
    hint = "" if collection.of("") else " (put such clips into a folder named _background)"
    yield f"negatives: {counted(len(collection.of('')), 'clip')}{hint}"


def _collection(options: TeachOptions) -> Collection:
    """The clips that the options name."""
    from htsat_sed.annotations import read_events, read_heard
    from htsat_sed.training.clip_sources import from_folder, from_labels, from_tables
    from htsat_sed.training.collection import collect
    from htsat_sed.training.teaching import rate_of

    rate = rate_of(options.start)
    if options.audio is not None:
        table = read_events(options.clips)
        delimited = options.clips.is_file() and options.clips.suffix.lower() in (".csv", ".tsv")
        heard = read_heard(options.clips) if delimited else None
        found = from_labels(table, options.audio, options.folder / "cut", sample_rate=rate, heard=heard)
    elif options.clips.is_dir():
        found = from_folder(options.clips)
    else:
        if not options.clips.exists():
            raise UsageError(f"{options.clips}: does not exist")
        raise UsageError(
            f"{options.clips}: wanted a folder with a subfolder for each class, or labels with --audio"
        )
    if options.add is not None:
        for label, clips in from_tables(options.add.with_suffix(".run")).items():
            found.setdefault(label, []).extend(clips)
    with RecordingsProgress("reading", sum(map(len, found.values())), "clips") as bar:
        return collect(found, sample_rate=rate, folds=options.folds, progress=bar.done)


def _show(collection: Collection, taught: Taught, *, limit: float) -> None:
    """How each class is found in clips that the models were not trained on."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    for column in ("clips", "precision", "recall", "F1", "AP", "F1 of events"):
        table.add_column(column, justify="right")
    for label, figures in taught.figures.items():
        event_f1 = taught.event_f1.get(label, float("nan"))
        table.add_row(
            label,
            str(figures.clips),
            *_cells(figures),
            "" if event_f1 != event_f1 else f"{event_f1:.2f}",
        )
    output.print(table)
    output.print(means(taught.figures))
    if taught.false_alarms is not None:
        seconds = taught.negative_seconds
        number = round(taught.false_alarms * seconds / 3600.0)
        output.print(
            f"false alarms in negatives: {number} in {seconds:.0f} s, {taught.false_alarms:.1f} an hour"
        )
    if taught.synthetic_alarms is not None:
        output.print(f"false alarms in synthetic sounds: {taught.synthetic_alarms:.1f} an hour")
    if max(taught.false_alarms or 0.0, taught.synthetic_alarms or 0.0) > limit:
        say(
            "warning",
            f"above the limit of {limit:g} false alarms an hour: add background or raise --min-precision",
            "yellow",
        )
    for clip, label, score, _ in taught.alarms[:_LISTED]:
        output.print(f"found in a negative: {clip.path}: {label} {score:.2f}")
    for one, other, count in taught.confusions[:_LISTED]:
        output.print(f"{other} found in {count} of {counted(taught.figures[one].clips, 'clip')} of {one}")
    for clip, label, score, own in taught.doubts[:_LISTED]:
        output.print(f"looks mislabelled: {clip.path}: {label} {score:.2f}, {clip.label} {own:.2f}")
    if collection.folds > 1:
        output.print(
            f"Each clip was scored by a model trained without its source ({collection.folds} models); the "
            "checkpoint is the mean of them. Intervals are 95 %, over sources."
        )
    else:
        output.print("The model was trained on all clips, so its accuracy on other recordings is unknown.")


def _cells(figures: ClassFigures) -> list[str]:
    return [
        "" if value is None else f"{value[0]:.2f} ({value[1]:.2f}-{value[2]:.2f})"
        for value in figures.values.values()
    ]


def means(figures: Mapping[str, ClassFigures]) -> str:
    """Precision, recall, F1 and mAP over the classes in which they are defined."""
    told = []
    for name, shown in (("precision", "precision"), ("recall", "recall"), ("F1", "F1"), ("AP", "mAP")):
        known = [own.values[name] for own in figures.values()]
        values = [value[0] for value in known if value is not None]
        of = f" ({len(values)} of {len(known)} classes)" if 0 < len(values) < len(known) else ""
        told.append(f"{shown} {sum(values) / len(values):.2f}{of}" if values else f"{shown} unknown")
    return f"mean over classes: {', '.join(told)}"
