"""Option groups that several commands share, and the detector that they describe.

A command takes the groups that it needs; `groups.with_groups` expands them into options:

    @with_groups
    def summary(
        recordings: RecordingOptions,
        channels: ChannelOptions,
        model: ModelOptions,
        events: EventOptions,
        run: RunOptions,
        messages: MessageOptions,
    ) -> None:
        found, failures = recordings.find()
        detector = model.detector(channels, events)

Options of one command alone go into a group of its own, beside the command. `Annotated[ModelOptions,
Without("hop")]` leaves an option out. Every command that takes longer than a second takes `MessageOptions`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from htsat_sed.cli.class_values import Known, parse_flags
from htsat_sed.cli.groups import REQUIRED, Without, argument, option
from htsat_sed.cli.progress import RecordingsProgress, waiting_for
from htsat_sed.cli.terminal import log_to, report, say, shown
from htsat_sed.errors import HtsatSedError, UsageError
from htsat_sed.remote import as_address
from htsat_sed.runs.output_checks import check_apart, check_files
from htsat_sed.runs.output_hashes import check_replaceable
from htsat_sed.runs.recordings import Recording, files_read, find_all
from htsat_sed.runs.run import Run, RunOfShard, beside, failures_place, open_journal

if TYPE_CHECKING:
    from htsat_sed.detection.detector import Detector
    from htsat_sed.detection.events import PostProcessing
    from htsat_sed.labels import ClassMap
    from htsat_sed.model.htsat import HTSAT
    from htsat_sed.runs.remote_output import RemoteOutput
    from htsat_sed.runs.shards import Part

RECORDINGS = "Recordings"
MODEL = "Model"
EVENTS = "From presence map to events"
OUTPUT = "Output"
MESSAGES = "Messages"

# Help of an option that several groups have.
SAFE_CELLS = (
    "In CSV and TSV, put an apostrophe before names and labels that begin with = + - or @, so that "
    "spreadsheets do not run them as formulas."
)


@dataclass(frozen=True)
class RecordingOptions:
    """Which recordings are read."""

    panel: ClassVar[str] = RECORDINGS
    paths: list[str] = argument(
        REQUIRED,
        "Recordings: files; folders, searched with their subfolders; quoted patterns ('night/**/*.wav'); "
        "URLs (s3://archive/2024/, https://host/a.wav); @list.txt, a file with one of these per line; or "
        "- for standard input.",
        metavar="PATH",
    )
    include: list[str] | None = option(
        None,
        "In folders, read only files that match this pattern: the name of a file or folder ('*.flac'), or "
        "a path relative to the folder ('2024*/**/dawn-*'). Repeatable.",
        metavar="PATTERN",
    )
    exclude: list[str] | None = option(
        None, "In folders, skip files that match this pattern. Repeatable.", metavar="PATTERN"
    )

    def find(self) -> tuple[list[Recording], list[HtsatSedError]]:
        """The recordings, and an error, already shown, for each path that has none."""
        recordings, failures = find_all(self.paths, include=self.include or (), exclude=self.exclude or ())
        for failure in failures:
            report(failure)
        return recordings, failures

    def files(self, recordings: Sequence[Recording]) -> list[str]:
        """The files that are read: recordings, and lists of such."""
        return files_read(self.paths, recordings)


@dataclass(frozen=True)
class ChannelOptions:
    """Which channel and audio track of a recording is read."""

    panel: ClassVar[str] = RECORDINGS
    channel: str = option(
        "mix",
        "Channel to read: a number from 1, or mix for the mean of all channels.",
        metavar="mix|N",
    )
    track: int | None = option(
        None,
        "Audio track to read, from 1, in files with several tracks, such as films.  \\[default: the first]",
        min=1,
        metavar="N",
    )

    def number(self) -> int | None:
        """The channel, counted from 1; None for the mean of all.

        Raises:
            typer.BadParameter: it is none.
        """
        return parse_channel(self.channel)


@dataclass(frozen=True)
class EachChannelOptions(ChannelOptions):
    """The same, for a command that can also go through all channels."""

    channel: str = option(
        "mix",
        "Channel to read: a number from 1, mix for the mean of all channels, or all for each channel "
        "separately; events then have a channel number.",
        metavar="mix|N|all",
    )

    @property
    def each(self) -> bool:
        """Whether each channel is listened to for itself."""
        return self.channel == "all"

    def settings(self) -> dict[str, Any]:
        """What events depend on that the detector does not know, for a journal."""
        return {"channel": "all"} if self.each else {}

    def check(self, recordings: Sequence[Recording], scores: Path | None) -> None:
        """Refuse what has no place for several channels.

        Raises:
            typer.BadParameter: presence maps are wanted, or standard input, which is read once, is among the
            paths.
        """
        if self.each and scores is not None:
            raise typer.BadParameter(
                "a presence map holds one channel: omit it, or choose a channel with --channel",
                param_hint="--scores",
            )
        if self.each and "-" in [recording.path for recording in recordings]:
            raise typer.BadParameter(
                "all reads a recording once per channel, and standard input can be read only once: name a "
                "file",
                param_hint="--channel",
            )

    def number(self) -> int | None:
        """See `ChannelOptions.number`; None for all."""
        return None if self.each else super().number()


@dataclass(frozen=True)
class ExecutionOptions:
    """What the model runs on, and how."""

    panel: ClassVar[str] = MODEL
    device: str = option(
        "auto",
        "Device that runs the model: auto, cpu, cuda, cuda:1 or mps. Several devices of one kind process "
        "batches in turn: cuda:0,cuda:1.",
        metavar="NAME",
    )
    batch_size: str = option(
        "auto",
        "Windows per batch: a number, or auto to suit the device. The number is halved if a batch does "
        "not fit into the device's memory.",
        metavar="N|auto",
    )
    runtime: str = option(
        "auto",
        "Library that runs the model: torch, openvino, or onnx (ONNX Runtime, on a CPU). auto selects "
        "OpenVINO on a CPU if it is installed, otherwise torch. onnx needs pip install "
        "'htsat-sed\\[onnx]'. Scores of the three agree to 0.0001.",
        metavar="NAME",
    )
    precision: str = option(
        "float32",
        "Precision of the model after the front end: float32, bfloat16, float16 or int8. bfloat16 suits "
        "GPUs, and CPUs with AVX512_BF16 or AMX; float16 runs on GPUs only. Both change scores by a few "
        "hundredths at most. int8 uses OpenVINO on a CPU and is 1.6 to 2.5 times as fast as float32; "
        "prepare the checkpoint with `htsat-sed checkpoints calibrate`.",
        metavar="TYPE",
    )
    threads: int | None = option(
        None,
        "Use at most N threads to compute on a CPU, and N to read recordings. Useful with several "
        "processes on one machine.  \\[default: one per processor core]",
        min=1,
        metavar="N",
    )
    jobs: int | None = option(
        None,
        "Read at most N recordings at once: fewer for a slow disk, more for remote storage.  \\[default: "
        "same as --threads]",
        min=1,
        metavar="N",
    )
    compile_model: bool = option(
        False,
        "Compile the model with torch first. This can take minutes and is meant for long runs on a GPU.",
        "--compile",
    )


@dataclass(frozen=True)
class EventOptions:
    """How presence maps become events: values for all classes or for one, and a file of values."""

    panel: ClassVar[str] = EVENTS
    threshold: list[str] | None = option(
        None,
        "An event is a run of scores above this, 0 to 1. LABEL=SCORE sets it for one class. Repeatable.  "
        "\\[default: the checkpoint's, else 0.5]",
        metavar="[LABEL=]SCORE",
    )
    threshold_low: list[str] | None = option(
        None,
        "Hysteresis: an event extends on both sides while scores stay above this.  \\[default: the "
        "checkpoint's, else the threshold]",
        metavar="[LABEL=]SCORE",
    )
    median_filter: list[str] | None = option(
        None,
        "Length of the median filter applied to scores before the threshold.  \\[default: the "
        "checkpoint's, else none]",
        metavar="[LABEL=]SECONDS",
    )
    min_gap: list[str] | None = option(
        None,
        "Close gaps shorter than this between events of a class.  \\[default: the checkpoint's, else none]",
        metavar="[LABEL=]SECONDS",
    )
    edge_level: list[str] | None = option(
        None,
        "Place onsets and offsets between tokens, where scores cross this fraction of the event's mean "
        "score, 0 to 0.9.  \\[default: the checkpoint's, else 0: at token edges]",
        metavar="[LABEL=]SHARE",
    )
    min_event: list[str] | None = option(
        None,
        "Drop events shorter than this.  \\[default: the checkpoint's, else none]",
        metavar="[LABEL=]SECONDS",
    )
    raw_scores: bool = option(
        False,
        "Report the model's raw scores, without the checkpoint's calibration. Thresholds always apply to "
        "raw scores.",
        "--raw-scores",
    )
    post_processing: Path | None = option(
        None,
        "File with these values for all classes or single ones, as written by `htsat-sed tune`. It "
        "overrides the checkpoint's values; the options above override the file.",
        metavar="TOML",
    )

    @property
    def flags(self) -> dict[str, list[str] | None]:
        """The values as they were typed, by the name of the post-processing value."""
        others = ("raw_scores", "post_processing")
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name not in others}

    @property
    def values(self) -> dict[str, Any]:
        """What the flags say, for `PostProcessing.override`.

        Raises:
            typer.BadParameter: a flag is no number.
        """
        from htsat_sed.post_processing import RAW_SCORES

        return parse_flags(self.flags) | (RAW_SCORES if self.raw_scores else {})

    @property
    def given(self) -> bool:
        """Whether any value or file was given."""
        return self.post_processing is not None or self.raw_scores or any(self.flags.values())

    def over(self, rules: PostProcessing, known: Known) -> PostProcessing:
        """These values over others: first the file, then the flags.

        Raises:
            ValueError: a value is out of range, or a class is not among the known ones.
            HtsatSedError: the file cannot be read.
        """
        from htsat_sed.detection.events import read_post_processing

        if self.post_processing is not None:
            values = read_post_processing(self.post_processing)
            known.check_values(values.get("classes", {}), str(self.post_processing))
            rules = rules.override(values)
        values = self.values
        known.check_values(values["classes"])
        return rules.override(values)


@dataclass(frozen=True)
class ModelOptions:
    """The checkpoints, their classes, and what they run on."""

    panel: ClassVar[str] = MODEL
    checkpoint: list[str] | None = option(
        None,
        "A checkpoint file, a name that `htsat-sed checkpoints list` shows, or hf://owner/name on the "
        "Hugging Face Hub. If given several times, the models form an ensemble: their scores are "
        "averaged.  \\[default: home, the bundled one]",
        "--checkpoint",
        "-c",
        metavar="FILE|NAME",
    )
    class_map: str | None = option(
        None,
        "Class map: desed merges AudioSet's 527 classes into DESED's 10, with the thresholds of HTS-AT's "
        "authors; or your own TOML or CSV file.",
        "--map",
        metavar="desed|FILE",
    )
    labels: list[str] | None = option(
        None,
        "Keep only this class: a label, or a file with one label per line. Repeatable.",
        "--labels",
        metavar="LABEL|FILE",
    )
    hop: float = option(
        10.0,
        "Step between the 10 s windows, rounded to whole tokens of 0.3125 s. Below 10, windows overlap, "
        "and their scores are averaged with most weight on the middle of a window.",
        metavar="SECONDS",
    )
    shifts: int = option(
        1,
        "Score each window N times, each time shifted by a fraction of a token (0.3125 s), and average "
        "the scores on this finer grid. Onsets and offsets become more exact; takes N times as long.",
        min=1,
        max=32,
        metavar="N",
    )
    execution: ExecutionOptions = ExecutionOptions()
    sample_rate: int | None = option(
        None, "Sample rate of an official .ckpt, if the file does not contain it.", metavar="HZ"
    )
    label_file: Path | None = option(
        None, "File with the class names of an official .ckpt, one per line.", metavar="FILE"
    )

    @property
    def checkpoints(self) -> list[Path]:
        """The files of the checkpoints, or the bundled one."""
        from htsat_sed.model.catalogue import resolve_checkpoint

        return [resolve_checkpoint(name) for name in self.checkpoint or ()] or [resolve_checkpoint()]

    @property
    def files(self) -> list[str | Path | None]:
        """All files that are read; also labels and names of class maps, which are none."""
        return [*self.checkpoints, *(self.labels or ()), self.label_file, self.class_map]

    def load(self) -> list[HTSAT]:
        """The models of the checkpoints."""
        from htsat_sed.labels import read_labels
        from htsat_sed.model.checkpoint import load_checkpoint

        labels = read_labels(self.label_file) if self.label_file is not None else None
        return [
            load_checkpoint(file, sample_rate=self.sample_rate, labels=labels) for file in self.checkpoints
        ]

    def mapped(self) -> ClassMap | None:
        """The class map, if one is named."""
        from htsat_sed.labels import class_map

        return class_map(self.class_map) if self.class_map is not None else None

    def rules(self, model: HTSAT, events: EventOptions) -> tuple[Known, PostProcessing]:
        """The classes that a model can find with the class map, and how their scores become events."""
        from htsat_sed.model.catalogue import BUNDLED

        mapped = self.mapped()
        known = Known(model.labels, checkpoint=self.checkpoint[0] if self.checkpoint else BUNDLED)
        if mapped is not None:
            known = Known(tuple(mapped.groups), f"class map {mapped.name}")
        return known, events.over(own_rules(model.post_processing, mapped, self.checkpoints[0]), known)

    def detector(
        self,
        channels: ChannelOptions = ChannelOptions(),
        events: EventOptions = EventOptions(),
        *,
        fill_batches: bool = False,
        deferred: bool = False,
    ) -> Detector:
        """The detector that the options describe.

        Post-processing is laid in this order, later over earlier: the defaults, the checkpoint's own (or the
        class map's thresholds), the file, the flags.

        Args:
            channels: of the recordings.
            events: how presence maps become events.
            fill_batches: see `Detector`.
            deferred: see `Detector`.
        """
        windows = parse_batch_size(self.execution.batch_size)
        channel = channels.number()
        with waiting_for("loading the model"):  # the imports, too, take seconds where a disk is slow
            from htsat_sed.detection.detector import Detector
            from htsat_sed.model.runtime import Execution

            execution = Execution(
                runtime=self.execution.runtime,  # type: ignore[arg-type]  # it refuses others
                precision=self.execution.precision,  # type: ignore[arg-type]
                compile=self.execution.compile_model,
            )
            if self.execution.threads is not None:
                import torch

                torch.set_num_threads(self.execution.threads)  # OpenVINO and ONNX Runtime ask torch
            models = self.load()
        mapped = self.mapped()
        known, rules = self.rules(models[0], events)
        detector = Detector(
            models,
            device=self.execution.device,
            batch_size=windows,
            hop=self.hop,
            shifts=self.shifts,
            post_processing=rules,
            class_map=mapped,
            labels=known.select(self.labels),
            execution=execution,
            fill_batches=fill_batches,
            workers=self.execution.jobs or self.execution.threads,
            channel=channel,
            track=channels.track,
            deferred=deferred,
        )
        if self.execution.precision != "float32":
            say("note", f"{detector.runtime} computes in {self.execution.precision}", "")
        if abs(detector.hop - self.hop) > 1e-6:
            say(
                "note",
                f"--hop {self.hop:g} is rounded to {detector.hop:g} s, a whole number of tokens",
            )
        return detector

    def settings(self, detector: Detector) -> dict[str, Any]:
        """What the scores of a detector depend on, by name, for the journal of a run."""
        from htsat_sed import __version__

        mapped = self.mapped()
        found = {
            "htsat-sed": __version__,
            "checkpoint": " + ".join(f"{file.name} (sha256 {_hash(file)})" for file in self.checkpoints),
            "sample rate": detector.config.sample_rate,
            "runtime": detector.runtime,
            "precision": detector.execution.precision,
            "class map": None if mapped is None else {name: list(own) for name, own in mapped.groups.items()},
            "labels": list(detector.labels),
            "channel": "mix" if detector.channel is None else detector.channel,
            "track": detector.track,
        }
        if detector.shifts > 1:
            found["shifts"] = detector.shifts
        if detector.execution.precision == "int8":
            from htsat_sed.model.int8 import int8_path

            found["calibration"] = " + ".join(
                f"sha256 {_hash(int8_path(model))}" for model in detector.models
            )
        return found


@dataclass(frozen=True)
class DetectorOptions:
    """What makes a detector, where the recordings come from elsewhere."""

    model: Annotated[ModelOptions, Without("labels")] = ModelOptions()
    channels: ChannelOptions = ChannelOptions()
    events: EventOptions = EventOptions()

    @property
    def files(self) -> list[Path | str | None]:
        """The files that the options name, None for one that was not given."""
        named = [self.events.post_processing, self.model.class_map, self.model.label_file]
        return [*named, *(self.model.checkpoints if self.model.checkpoint else ())]

    def detector(self) -> Detector:
        """The detector that the options describe."""
        return self.model.detector(self.channels, self.events)

    def refuse_unused(self) -> None:
        """Refuse options that would have no effect, as nothing is detected.

        Raises:
            typer.BadParameter: naming them.
        """
        named = [
            (self.model, "hop"),
            (self.model, "shifts"),
            *((self.model.execution, each.name) for each in fields(ExecutionOptions)),
        ]
        named += [(self.model, "sample_rate"), (self.model, "label_file")]
        unused = [
            "--" + name.removesuffix("_model").replace("_", "-")
            for group, name in named
            if getattr(group, name) != getattr(type(group), name)
        ]
        if unused:
            raise typer.BadParameter(
                "has no effect, because the model does not run: omit it, or give --audio",
                param_hint=", ".join(unused),
            )


@dataclass(frozen=True)
class OverwriteOptions:
    """Whether files of others are replaced."""

    panel: ClassVar[str] = OUTPUT
    overwrite: bool = option(
        False, "Also replace edited files, and files that htsat-sed did not write.", "--overwrite"
    )


@dataclass(frozen=True)
class ShardOptions:
    """Which part of the recordings is done."""

    panel: ClassVar[str] = RECORDINGS
    shard: str | None = option(
        None,
        "Process only part I of N of the recordings, such as 3/40. Run N processes, on one machine or "
        "several, each with its own shard and --output; `htsat-sed merge` joins the outputs.",
        metavar="I/N",
    )

    def take(
        self, recordings: list[Recording], *, out: Path | None, skip_existing: bool = False
    ) -> tuple[list[Recording], Part | None]:
        """The recordings of this shard, and which part of all they are; without a shard all, and None.

        Raises:
            typer.BadParameter: it is no shard, or contradicts other options.
        """
        from htsat_sed.runs.shards import Shard, part_of

        if self.shard is None:
            return recordings, None
        try:
            shard = Shard.parse(self.shard)
        except UsageError as error:
            raise typer.BadParameter(str(error), param_hint="--shard") from error
        if out is None or (out.exists() and not out.is_file() and not out.is_dir()):
            raise typer.BadParameter("a shard needs a file or folder as --output", param_hint="--shard")
        if skip_existing:
            raise typer.BadParameter("wanted --shard or --skip-existing, not both", param_hint="--shard")
        part = part_of(recordings, shard)
        return list(part.recordings), part


@dataclass(frozen=True)
class RunOptions(OverwriteOptions):
    """How a run over recordings treats what is there already, and what fails."""

    restart: bool = option(False, "Start again instead of resuming a stopped run.", "--restart")
    failures_table: Path | None = option(
        None,
        "Table of failed and damaged recordings, with reasons.  \\[default: failures.csv in the "
        "output folder, NAME.failures.csv beside the output NAME]",
        "--failures",
        metavar="CSV",
    )
    safe_cells: bool = option(
        False,
        SAFE_CELLS,
        "--safe-cells",
    )

    json_summary: Path | None = option(
        None,
        "When the run ends, write times and the numbers of recordings done, failed and damaged to this "
        "file, as JSON.",
        "--json-summary",
        metavar="FILE",
    )
    metrics: Path | None = option(
        None,
        "About every 15 s, write the numbers of recordings done, failed and damaged for Prometheus. Put "
        "the file into the folder of the node exporter's textfile collector.",
        metavar="FILE.prom",
    )

    def check_monitors(self) -> None:
        """Refuse files for monitors that cannot be written.

        Raises:
            HtsatSedError: naming the file.
            UsageError: the metrics would not be read, or replace something else.
        """
        from htsat_sed.runs.metrics import check_metrics

        check_files(self.json_summary, self.metrics)
        check_metrics(self.metrics)

    def start(
        self,
        recordings: Sequence[Recording],
        failures: Sequence[HtsatSedError],
        *,
        display: RecordingsProgress,
        out: Path | None,
        outputs: Sequence[Path],
        tables: Sequence[Path],
        inputs: Iterable[str | Path | None],
        settings: Callable[[], Mapping[str, Any]],
        is_result: Callable[[Any], bool],
        exist: Callable[[str], bool] = lambda name: True,
        skip_existing: bool = False,
        part: Part | None = None,
        written: Mapping[str, Any] | None = None,
        about: Callable[[str], Any] = lambda name: None,
        remote: RemoteOutput | None = None,
    ) -> Run:
        """A run that goes on where an earlier one was stopped, after a check of what it reads and writes.

        Args:
            recordings: all of them.
            failures: what failed before.
            display: shows progress.
            out: the output as given; None for standard output, which has no journal.
            outputs: all files that the run may write.
            tables: those that are not replaced if somebody has edited them.
            inputs: what is read.
            settings: all that results depend on, for the journal.
            is_result: whether a result in the journal has the form that the command makes.
            exist: see `Run`.
            skip_existing: see `Run`.
            part: which of several shards this is, if it is one.
            written: for `merge`, how the outputs of a shard are written.
            about: for `merge`, what else they have of a recording; anything that JSON can hold.
            remote: the store that the output belongs into.

        Raises:
            HtsatSedError: an output is among the inputs, or cannot be written.
            UsageError: an output is not to be replaced, or belongs to another run.
        """
        self.check_monitors()
        check_apart([*outputs, self.json_summary, self.metrics], inputs)
        check_replaceable(*tables, self.json_summary, overwrite=self.overwrite)
        failures_table = failures_place(self.failures_table, out, outputs)
        if remote is not None:
            remote.check_replaceable([*outputs, failures_table], overwrite=self.overwrite)
        journal = shard = None
        if out is not None and not skip_existing:
            all_settings = settings()
            if part is not None and (place := beside(out, "shard")) is not None:
                shard = RunOfShard(place, part, all_settings, written or {}, about)
                all_settings = {**all_settings, "shard": str(part.shard)}
            journal = open_journal(
                out,
                all_settings,
                restart=self.restart,
                outputs=[*outputs, failures_table, shard.path if shard is not None else None],
                is_result=is_result,
            )
        return Run(
            recordings,
            failures,
            display=display,
            journal=journal,
            exist=exist,
            skip_existing=skip_existing,
            failures_table=failures_table,
            shard=shard,
            summary=self.json_summary,
            metrics=self.metrics,
            remote=remote,
        )


@contextmanager
def opened_remote(out: Path | None, *, fetch: str | None = None) -> Iterator[RemoteOutput | None]:
    """The store that an output belongs into, if it is an address.

    Args:
        out: as given. For an address, the run writes to `RemoteOutput.path`; messages show the address.
        fetch: see `RemoteOutput`.

    Raises:
        UsageError: no outputs can go there.
        HtsatSedError: the store cannot be read.
    """
    address = None if out is None else as_address(out)
    if address is None:
        yield None
        return
    from htsat_sed.runs.remote_output import RemoteOutput

    with waiting_for(f"checking {address}"):
        remote = RemoteOutput(address, fetch=fetch)
    shown.places[str(remote.folder)] = remote.above
    with remote:
        yield remote


def _show_progress(mode: str) -> str:
    shown.progress = mode
    return mode


def _log_to(path: Path | None) -> Path | None:
    if path is not None:
        log_to(path)
    return path


def _be_quiet(quiet: bool) -> bool:
    shown.quiet = quiet
    return quiet


@dataclass(frozen=True)
class MessageOptions:
    """What is shown on standard error. Callbacks have the effect: commands need not look at the values."""

    panel: ClassVar[str] = MESSAGES
    progress: Literal["auto", "bar", "lines", "none"] = option(
        "auto",
        "Show progress on standard error as a bar, or as a line about every 30 s; auto: a bar on a "
        "terminal, else lines.",
        callback=_show_progress,
    )
    quiet: bool = option(
        False,
        "Print only errors on standard error: no progress, notes or warnings.",
        "--quiet",
        "-q",
        callback=_be_quiet,
    )
    log: Path | None = option(
        None,
        "Append all errors, warnings and notes to this file with their times, also with --quiet.",
        callback=_log_to,
        metavar="FILE",
    )


def own_rules(
    values: Mapping[str, Any] | None, class_map: ClassMap | None, checkpoint: Path | None = None
) -> PostProcessing:
    """What holds where nobody says anything else: see `default_post_processing`.

    Args:
        values: values of the checkpoint.
        class_map: class map, if any.
        checkpoint: its file, for errors.

    Raises:
        ValueError: the checkpoint has an impossible value.
    """
    from htsat_sed.detection.detector import default_post_processing

    try:
        return default_post_processing(values, class_map)
    except UsageError as error:
        mend = "replace it with `htsat-sed checkpoints convert --post-processing`"
        whose = "the checkpoint's" if checkpoint is None else f"{checkpoint}: its"
        raise UsageError(f"{whose} post-processing is invalid: {error}; {mend}") from error


def flat(post_processing: Mapping[str, Any]) -> dict[str, Any]:
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
            f"wanted mix or a channel number from 1, got {given!r}", param_hint="--channel"
        )
    return int(given)


def parse_batch_size(given: str) -> int | Literal["auto"]:
    """A number of windows, or ``auto``."""
    if given == "auto":
        return "auto"
    if not (given.isdecimal() and int(given) > 0):
        raise typer.BadParameter(
            f"wanted auto or a number of at least 1, got {given!r}", param_hint="--batch-size"
        )
    return int(given)
