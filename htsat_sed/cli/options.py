"""Options that several commands share, and the detector they describe."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from htsat_sed.cli.class_values import Known, parse_flags
from htsat_sed.cli.progress import ProgressMode, waiting_for
from htsat_sed.cli.terminal import say, shown
from htsat_sed.errors import UsageError

if TYPE_CHECKING:
    from htsat_sed.detection.detector import Detector
    from htsat_sed.detection.events import PostProcessing
    from htsat_sed.labels import ClassMap
    from htsat_sed.model.htsat import HTSAT

RECORDINGS = "Recordings"
MODEL = "Model"
EVENTS = "From presence map to events"
MESSAGES = "Messages"

Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH",
        help="Recordings; folders, searched with all below them; patterns in quotes ('night/**/*.wav'); "
        "@list.txt with one of these a line; or - for standard input.",
        show_default=False,
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="In folders, take only what fits this: a name of a file or folder ('*.flac'), or a path below "
        "the folder ('2024*/**/dawn-*'). Repeatable.",
        show_default=False,
        rich_help_panel=RECORDINGS,
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="In folders, leave out what fits this. Repeatable.",
        show_default=False,
        rich_help_panel=RECORDINGS,
    ),
]
Channel = Annotated[
    str,
    typer.Option(
        metavar="mix|N",
        help="Which channel of a recording to listen to: mix for the mean of all, or a number from 1 on.",
        rich_help_panel=RECORDINGS,
    ),
]
Track = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Which audio track of a film or other file with several, from 1 on.  \\[default: the first]",
        show_default=False,
        rich_help_panel=RECORDINGS,
    ),
]
Restart = Annotated[
    bool,
    typer.Option(
        "--restart",
        help="Begin anew, rather than go on with a run that was stopped.",
        rich_help_panel="Output",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Also replace files that htsat-sed did not write, or that were edited since.",
        rich_help_panel="Output",
    ),
]
SafeCells = Annotated[
    bool,
    typer.Option(
        "--safe-cells",
        help="In CSV and TSV, put an apostrophe before names and labels that a spreadsheet would run as a "
        "formula: those that begin with = + - or @.",
        rich_help_panel="Output",
    ),
]
FailuresTable = Annotated[
    Path | None,
    typer.Option(
        "--failures",
        metavar="CSV",
        help="Where to list what failed or is damaged, with reasons.  \\[default: failures.csv in the "
        "output folder, NAME.failures.csv beside the output NAME]",
        show_default=False,
        rich_help_panel="Output",
    ),
]
Checkpoints = Annotated[
    list[str] | None,
    typer.Option(
        "--checkpoint",
        "-c",
        metavar="FILE|NAME",
        help="A checkpoint file, or a name that `htsat-sed checkpoints list` shows. Given several times, the "
        "models make an ensemble: their scores are averaged.  \\[default: home, the bundled one]",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="auto, cpu, cuda, cuda:1, mps: where the model runs; several of one kind take turns: "
        "cuda:0,cuda:1.",
        rich_help_panel=MODEL,
    ),
]
BatchSize = Annotated[
    str,
    typer.Option(
        metavar="N|auto",
        help="Windows that pass the model at once: a number, or auto for one that suits the device. It is "
        "halved where they do not fit into the device's memory.",
        rich_help_panel=MODEL,
    ),
]
Runtime = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="What computes the model: torch, openvino, or onnx (ONNX Runtime, on a CPU); auto takes "
        "OpenVINO on a CPU where it is installed, else torch. ONNX Runtime comes with pip install "
        "'htsat-sed\\[onnx]'. Scores agree to 0.0001.",
        rich_help_panel=MODEL,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        metavar="TYPE",
        help="Of the model behind the front end: float32, bfloat16, float16 or int8. bfloat16 is for GPUs "
        "and for CPUs with AVX512_BF16 or AMX, float16 for GPUs; scores move by some hundredths at most. "
        "int8 is OpenVINO's on a CPU, 1.6 to 2.5 times as fast as float32, for a checkpoint prepared by "
        "`htsat-sed checkpoints calibrate`.",
        rich_help_panel=MODEL,
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the model with torch first: takes minutes at times; for long runs on a GPU.",
        rich_help_panel=MODEL,
    ),
]
Hop = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        help="Step between the 10 s windows; less than 10 makes them overlap, and overlapped scores are "
        "averaged with most weight on the middle of a window. Rounded to whole tokens of 0.3125 s.",
        rich_help_panel=MODEL,
    ),
]
SampleRate = Annotated[
    int | None,
    typer.Option(
        metavar="HZ",
        help="Sample rate of an official .ckpt, where the file cannot tell.",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
LabelFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Names of the classes of an official .ckpt, one a line.",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
ClassMapOption = Annotated[
    str | None,
    typer.Option(
        "--map",
        metavar="desed|FILE",
        help="Join classes: desed makes AudioSet's 527 into DESED's 10 with the thresholds of the HTS-AT "
        "authors; or a TOML or CSV file of your own.",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--labels",
        metavar="LABEL|FILE",
        help="Keep only this class; repeat it for more, or name a file with one label a line.",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
Threshold = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[LABEL=]SCORE",
        help="An event has a score above this, 0 to 1; LABEL=SCORE for one class. Repeatable.  "
        "\\[default: the checkpoint's, else 0.5]",
        show_default=False,
        rich_help_panel=EVENTS,
    ),
]
ThresholdLow = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[LABEL=]SCORE",
        help="Hysteresis: an event reaches as far as scores stay above this.  \\[default: the checkpoint's, "
        "else the threshold]",
        show_default=False,
        rich_help_panel=EVENTS,
    ),
]
MedianFilter = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[LABEL=]SECONDS",
        help="Median filter over the scores before the threshold.  \\[default: the checkpoint's, else none]",
        show_default=False,
        rich_help_panel=EVENTS,
    ),
]
EdgeLevel = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[LABEL=]SHARE",
        help="Begin and end events between tokens, where scores cross this share of an event's mean score, "
        "0 to 0.9.  "
        "\\[default: the checkpoint's, else 0, at the edges of tokens]",
        show_default=False,
        rich_help_panel=EVENTS,
    ),
]
MinEvent = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[LABEL=]SECONDS",
        help="Drop events shorter than this.  \\[default: the checkpoint's, else none]",
        show_default=False,
        rich_help_panel=EVENTS,
    ),
]
MinGap = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[LABEL=]SECONDS",
        help="Close gaps shorter than this between events of a class.  \\[default: the checkpoint's, else "
        "none]",
        show_default=False,
        rich_help_panel=EVENTS,
    ),
]
PostProcessingFile = Annotated[
    Path | None,
    typer.Option(
        "--post-processing",
        metavar="TOML",
        help="A file with these values, for all classes and for each, as `htsat-sed tune` writes it. It "
        "overrides the checkpoint's own; the options above override it.",
        show_default=False,
        rich_help_panel=EVENTS,
    ),
]


def _show_progress(mode: ProgressMode) -> ProgressMode:
    shown.progress = mode.value
    return mode


def _be_quiet(quiet: bool) -> bool:
    shown.quiet = quiet
    return quiet


# Their callbacks have the effect: commands need not look at the values.
ShowProgress = Annotated[
    ProgressMode,
    typer.Option(
        "--progress",
        callback=_show_progress,
        help="Show progress on standard error as a bar, or as a line about every 30 s; auto: a bar on a "
        "terminal, else lines.",
        rich_help_panel=MESSAGES,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        callback=_be_quiet,
        help="Print errors alone on standard error: no progress, notes or warnings.",
        rich_help_panel=MESSAGES,
    ),
]


@dataclass(frozen=True)
class ChannelOptions:
    """Which channel and audio track of a recording is read."""

    channel: Channel = "mix"
    track: Track = None


@dataclass(frozen=True)
class ExecutionOptions:
    """What the model runs on, and how."""

    device: Device = "auto"
    batch_size: BatchSize = "auto"
    runtime: Runtime = "auto"
    precision: Precision = "float32"
    compile_model: Compile = False


@dataclass(frozen=True)
class EventOptions:
    """How presence maps become events: values for all classes or for one, and a file of values."""

    threshold: Threshold = None
    threshold_low: ThresholdLow = None
    median_filter: MedianFilter = None
    min_gap: MinGap = None
    edge_level: EdgeLevel = None
    min_event: MinEvent = None
    post_processing: PostProcessingFile = None

    @property
    def flags(self) -> dict[str, list[str] | None]:
        """The values as they were typed, by the name of the post-processing value."""
        return {
            each.name: getattr(self, each.name) for each in fields(self) if each.name != "post_processing"
        }

    @property
    def given(self) -> bool:
        """Whether any value or file was given."""
        return self.post_processing is not None or any(self.flags.values())


@dataclass(frozen=True)
class DetectorOptions:
    """What makes a detector: models, classes, how they run, and how their maps become events."""

    checkpoint: Checkpoints = None
    class_map: ClassMapOption = None
    channel_options: ChannelOptions = ChannelOptions()
    hop: Hop = 10.0
    execution_options: ExecutionOptions = ExecutionOptions()
    sample_rate: SampleRate = None
    label_file: LabelFile = None
    event_options: EventOptions = EventOptions()

    @property
    def paths(self) -> list[Path | str | None]:
        """The files that the options name, None for one that was not given."""
        named = [self.event_options.post_processing, self.class_map, self.label_file]
        return [*named, *(checkpoint_files(self.checkpoint) if self.checkpoint else ())]

    def detector(self) -> Detector:
        """The detector that the options describe."""
        return make_detector(
            self.checkpoint,
            execution_options=self.execution_options,
            channel_options=self.channel_options,
            hop=self.hop,
            sample_rate=self.sample_rate,
            label_file=self.label_file,
            class_map=self.class_map,
            event_options=self.event_options,
        )

    def refuse_unused(self) -> None:
        """Refuse options that would have no effect, as nothing is detected.

        Raises:
            typer.BadParameter: naming them.
        """
        unused = ["--hop"] if self.hop != DetectorOptions.hop else []
        for each in fields(self.execution_options):
            if getattr(self.execution_options, each.name) != each.default:
                unused.append("--" + each.name.removesuffix("_model").replace("_", "-"))
        unused += ["--sample-rate"] if self.sample_rate is not None else []
        unused += ["--label-file"] if self.label_file is not None else []
        if unused:
            raise typer.BadParameter(
                "nothing is detected here, so that this has no effect: leave it out, or give --audio",
                param_hint=", ".join(unused),
            )


def load_models(
    checkpoints: list[str] | None, *, sample_rate: int | None = None, label_file: Path | None = None
) -> list[HTSAT]:
    """Load the checkpoints of an ensemble, or the bundled one."""
    from htsat_sed.labels import read_labels
    from htsat_sed.model.checkpoint import load_checkpoint

    labels = read_labels(label_file) if label_file is not None else None
    files = checkpoint_files(checkpoints)
    return [load_checkpoint(file, sample_rate=sample_rate, labels=labels) for file in files]


def checkpoint_files(names: list[str] | None) -> list[Path]:
    """The files of the checkpoints that were named, or the bundled one."""
    from htsat_sed.model.catalogue import resolve_checkpoint

    return [resolve_checkpoint(name) for name in names] if names else [resolve_checkpoint()]


def own_rules(values: Mapping[str, Any] | None, class_map: ClassMap | None) -> PostProcessing:
    """What holds where nobody says anything else: see `default_post_processing`.

    Raises:
        ValueError: the checkpoint has an impossible value.
    """
    from htsat_sed.detection.detector import default_post_processing

    try:
        return default_post_processing(values, class_map)
    except UsageError as error:
        mend = "give it others with `htsat-sed checkpoints convert --post-processing`"
        raise UsageError(f"the checkpoint's own post-processing: {error}; {mend}") from error


def make_detector(
    checkpoints: list[str] | None,
    *,
    execution_options: ExecutionOptions,
    channel_options: ChannelOptions,
    hop: float,
    sample_rate: int | None = None,
    label_file: Path | None = None,
    class_map: str | None = None,
    labels: list[str] | None = None,
    event_options: EventOptions = EventOptions(),
    fill_batches: bool = False,
) -> Detector:
    """The detector that the options describe.

    Post-processing is laid in this order, later over earlier: the defaults, the checkpoint's own (or the
    class map's thresholds), the file, the flags.
    """
    from htsat_sed.labels import class_map as find_class_map

    windows = parse_batch_size(execution_options.batch_size)
    listened = parse_channel(channel_options.channel)
    with waiting_for("loading the model"):  # the imports, too, take seconds where a disk is slow
        from htsat_sed.detection.detector import Detector
        from htsat_sed.detection.events import read_post_processing
        from htsat_sed.model.runtime import Execution

        execution = Execution(
            runtime=execution_options.runtime,  # type: ignore[arg-type]  # it refuses others
            precision=execution_options.precision,  # type: ignore[arg-type]
            compile=execution_options.compile_model,
        )
        models = load_models(checkpoints, sample_rate=sample_rate, label_file=label_file)
    mapped = find_class_map(class_map) if class_map is not None else None
    known = Known(models[0].labels)
    if mapped is not None:
        known = Known(tuple(mapped.groups), f"class map {mapped.name}")
    rules = own_rules(models[0].post_processing, mapped)
    if event_options.post_processing is not None:
        values = read_post_processing(event_options.post_processing)
        known.check_values(values.get("classes", {}), str(event_options.post_processing))
        rules = rules.override(values)
    values = parse_flags(event_options.flags)
    known.check_values(values["classes"])
    detector = Detector(
        models,
        device=execution_options.device,
        batch_size=windows,
        hop=hop,
        post_processing=rules.override(values),
        class_map=mapped,
        labels=known.select(labels),
        execution=execution,
        fill_batches=fill_batches,
        channel=listened,
        track=channel_options.track,
    )
    if execution_options.precision != "float32":
        say("note", f"{detector.runtime} computes in {execution_options.precision}", "")
    return detector


def settings(detector: Detector, checkpoints: list[str] | None, class_map: str | None) -> dict[str, Any]:
    """What the scores of a detector depend on, by name, for the journal of a run."""
    from htsat_sed import __version__
    from htsat_sed.labels import class_map as find_class_map

    files = checkpoint_files(checkpoints)
    mapped = find_class_map(class_map) if class_map is not None else None
    found = {
        "htsat-sed": __version__,
        "checkpoint": " + ".join(f"{file.name} (sha256 {_hash(file)})" for file in files),
        "sample rate": detector.config.sample_rate,
        "runtime": detector.runtime,
        "precision": detector.execution.precision,
        "class map": None if mapped is None else {name: list(own) for name, own in mapped.groups.items()},
        "labels": list(detector.labels),
        "channel": "mix" if detector.channel is None else detector.channel,
        "track": detector.track,
    }
    if detector.execution.precision == "int8":
        from htsat_sed.model.int8 import int8_path

        found["calibration"] = " + ".join(f"sha256 {_hash(int8_path(model))}" for model in detector.models)
    return found


def flat(post_processing: dict[str, Any]) -> dict[str, Any]:
    """Post-processing values with those of classes under names of their own."""
    values = {name: value for name, value in post_processing.items() if name != "classes"}
    for label, own in post_processing.get("classes", {}).items():
        values |= {f"{name} of {label}": value for name, value in own.items()}
    return values


def _hash(path: Path | str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def parse_channel(given: str) -> int | None:
    """A channel counted from 1, or None for ``mix``."""
    if given == "mix":
        return None
    if not (given.isascii() and given.isdecimal() and int(given) > 0):
        raise typer.BadParameter(
            f"wanted mix, or a channel by its number from 1 on, got {given!r}", param_hint="--channel"
        )
    return int(given)


def parse_batch_size(given: str) -> int | Literal["auto"]:
    """A number of windows, or ``auto``."""
    if given == "auto":
        return "auto"
    if not (given.isdecimal() and int(given) > 0):
        raise typer.BadParameter(
            f"wanted a number of windows, 1 or more, or auto, got {given!r}", param_hint="--batch-size"
        )
    return int(given)
