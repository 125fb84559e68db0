"""`htsat-sed train`: trains a checkpoint on labelled recordings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import typer

from htsat_sed.cli.groups import REQUIRED, argument, option, with_groups
from htsat_sed.cli.message_options import MessageOptions
from htsat_sed.cli.progress import TrainingProgress
from htsat_sed.cli.run_options import OverwriteOptions
from htsat_sed.cli.terminal import remark, say
from htsat_sed.errors import HtsatSedError, UsageError
from htsat_sed.libraries import require
from htsat_sed.runs.output_checks import check_apart, check_files
from htsat_sed.runs.output_hashes import check_replaceable, recording_outputs

if TYPE_CHECKING:
    from htsat_sed.training.fit import Machine

PRECISION = (
    "Precision: float32; bfloat16 or float16, mixed with float32 weights; auto: bfloat16 if the device has "
    "instructions for it, else float32."
)
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed", "auto": "auto"}


@dataclass(frozen=True)
class TrainingOptions:
    """Training data, recipe and output."""

    data: Path = option(REQUIRED, "Folder of the tables and recordings in the recipe.", metavar="DIR")
    out: Path = option(REQUIRED, "Checkpoint to write.", "--output", "-o", metavar="SAFETENSORS")
    recipe: str | None = argument(
        None,
        "Data and settings of the training: a TOML file, or the name of a bundled recipe: audioset, "
        "esc50, speech-commands, desed, home, and home-all, home-silent and home-silent-more, which "
        "fine-tune home. docs/training.md describes recipes.",
        metavar="RECIPE",
    )
    named: str | None = option(None, "RECIPE as an option.", "--recipe", metavar="RECIPE")
    run: Path | None = option(
        None,
        "Folder for state and log (metrics.csv; TensorBoard's, if installed). An interrupted run resumes "
        "from it, with the same resulting weights.  \\[default: the output with the suffix .run]",
        metavar="DIR",
    )
    restart: bool = option(False, "Discard the state in --run and start again.")
    float16: bool = option(False, "Store the weights as float16: half the size.")

    @property
    def folder(self) -> Path:
        """Folder of state and log."""
        return self.run or self.out.with_suffix(".run")


@dataclass(frozen=True)
class MachineOptions:
    """Hardware of the training."""

    panel: ClassVar[str] = "Machine"
    device: str = option("auto", "Device to train on: auto, cpu, cuda or mps.", metavar="DEVICE")
    devices: int = option(
        1, "Processes per node, each with its own GPU (or share of the CPU).", metavar="N", min=1
    )
    nodes: int = option(
        1, "Number of machines; start the command on each with SLURM or torchrun.", metavar="N", min=1
    )
    precision: str = option(
        "float32",
        PRECISION,
        metavar="TYPE",
    )
    accumulate: int = option(
        1,
        "Accumulate each step over N smaller batches, if the recipe's batches do not fit in memory.",
        metavar="N",
        min=1,
    )
    workers: int = option(1, "Processes per device that read, decode and mix recordings.", metavar="N", min=0)
    threads: int | None = option(
        None,
        "Use at most N threads to compute on a CPU.  \\[default: one per processor core]",
        min=1,
        metavar="N",
    )

    def limit_threads(self) -> None:
        """Hold this process, and those that train with it, to `threads` each."""
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)
            # Without it, Lightning divides the cores among several processes.
            os.environ["OMP_NUM_THREADS"] = str(self.threads)

    @property
    def machine(self) -> Machine:
        """The options as `Machine`."""
        from htsat_sed.training.fit import Machine

        return Machine(
            device=self.device,
            devices=self.devices,
            nodes=self.nodes,
            precision=PRECISIONS[self.precision],
            accumulate=self.accumulate,
            workers=self.workers,
        )


@with_groups
def train(
    options: TrainingOptions, overwrite: OverwriteOptions, machine: MachineOptions, messages: MessageOptions
) -> None:
    r"""Train a model from weak or strong labels, or on soundscapes mixed from clips.

    Weak labels suffice for a model that localises events in time.
    To resume an interrupted run, give the same command again.
    The number of devices affects only the speed.

    Needs the extra: pip install 'htsat-sed\[train]'.

    [bold]Examples[/bold]

      htsat-sed train home --data homesounds/ -o home.safetensors
      htsat-sed train esc50 --data ESC-50/ -o esc50.safetensors
      htsat-sed train mine.toml --data . -o mine.safetensors --devices 4
    """
    _check(options, machine)
    import logging

    import torch

    from htsat_sed.training.fit import fit
    from htsat_sed.training.recipe import find_recipe, read_recipe
    from htsat_sed.training.run_folder import is_first_process

    machine.limit_threads()
    first = is_first_process()
    if first:
        remark_precision(machine)
    # Only the first of several processes logs.
    logging.getLogger("htsat_sed").setLevel(logging.INFO if first else logging.ERROR)
    out = options.out
    path = find_recipe(options.recipe or options.named or "")
    recipe = read_recipe(path)
    check_apart([out], [path, recipe.start])
    if first:
        check_replaceable(out, overwrite=overwrite.overwrite)
    try:
        with recording_outputs(out), TrainingProgress(recipe.epochs, shown=first) as progress:
            model = fit(
                recipe,
                options.data,
                run=options.folder,
                machine=machine.machine,
                progress=progress.update,
                out=out,
                dtype=torch.float16 if options.float16 else torch.float32,
                restart=options.restart,
            )
    except KeyboardInterrupt:
        say("stopped", f"the same command resumes from {options.folder}", "bold yellow")
        raise typer.Exit(130) from None
    except UsageError as error:
        raise HtsatSedError(path, str(error)) from error
    if not first:
        return
    reported = {**model.provenance["validation"], **model.provenance.get("tuned", {})}
    figures = "".join(f", {name} {value:.3f}" for name, value in reported.items() if isinstance(value, float))
    remark(f"{out}: {model.provenance['steps']} steps{figures}")


def _check(options: TrainingOptions, machine: MachineOptions) -> None:
    """Check the options before training."""
    if (options.recipe is None) == (options.named is None):
        raise typer.BadParameter("give one recipe: a file or a name", param_hint="RECIPE")
    check_training(options.out, machine)


def remark_precision(machine: MachineOptions) -> None:
    """Report a precision other than float32."""
    chosen = machine.machine.chosen_precision
    name = next(name for name, value in PRECISIONS.items() if value == chosen)
    if name != "float32":
        remark(f"precision: {name}")


def check_training(out: Path, machine: MachineOptions) -> None:
    """Check that a checkpoint can be trained and written.

    Raises:
        typer.BadParameter: an option is impossible, or Lightning is missing.
        HtsatSedError: the file cannot be written.
    """
    if machine.precision not in PRECISIONS:
        raise typer.BadParameter(
            f"wanted one of {', '.join(PRECISIONS)}; got {machine.precision!r}", param_hint="--precision"
        )
    require("lightning", purpose="training", extra="train")
    if out.suffix != ".safetensors":
        raise typer.BadParameter(f"wanted a file ending in .safetensors, got {out}", param_hint="--output")
    check_files(out)
