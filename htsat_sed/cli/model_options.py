"""Options of checkpoint, device and runtime, and the detector that they describe."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from htsat_sed.cli.class_values import Known
from htsat_sed.cli.event_options import EventOptions, own_rules
from htsat_sed.cli.groups import MODEL, Without, option
from htsat_sed.cli.progress import waiting_for
from htsat_sed.cli.recording_options import ChannelOptions
from htsat_sed.cli.terminal import say

if TYPE_CHECKING:
    from htsat_sed.detection.detector import Detector
    from htsat_sed.detection.events import PostProcessing
    from htsat_sed.labels import ClassMap
    from htsat_sed.model.htsat import HTSAT


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


def _hash(path: Path | str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def parse_batch_size(given: str) -> int | Literal["auto"]:
    """A number of windows, or ``auto``."""
    if given == "auto":
        return "auto"
    if not (given.isdecimal() and int(given) > 0):
        raise typer.BadParameter(
            f"wanted auto or a number of at least 1, got {given!r}", param_hint="--batch-size"
        )
    return int(given)
