"""`htsat-sed train`: a checkpoint from labelled recordings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import typer

from htsat_sed.cli.groups import REQUIRED, argument, option, with_groups
from htsat_sed.cli.options import MessageOptions
from htsat_sed.cli.progress import TrainingProgress
from htsat_sed.cli.terminal import remark, say
from htsat_sed.errors import HtsatSedError, UsageError
from htsat_sed.libraries import require
from htsat_sed.runs.outputs import check_apart, check_files

if TYPE_CHECKING:
    from htsat_sed.training.fit import Machine

PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


@dataclass(frozen=True)
class TrainingOptions:
    """What is trained on, and where the checkpoint goes."""

    data: Path = option(REQUIRED, "Where the tables and recordings that the recipe names are.", metavar="DIR")
    out: Path = option(REQUIRED, "The checkpoint to be.", "--output", "-o", metavar="SAFETENSORS")
    recipe: str | None = argument(
        None,
        "What to train on and how: a TOML file, or the name of one that comes with the package: "
        "audioset, esc50, speech-commands, desed, home, and home-all, home-silent, home-silent-more and "
        "home-unheard, which go on from it. docs/training.md says what a recipe may hold.",
        metavar="RECIPE",
    )
    named: str | None = option(None, "The same, as an option.", "--recipe", metavar="RECIPE")
    run: Path | None = option(
        None,
        "State and log (metrics.csv; TensorBoard's, if that is installed). An interrupted run goes "
        "on from here, to the same weights.  \\[default: the output with the suffix .run]",
        metavar="DIR",
    )
    restart: bool = option(False, "Train anew, whatever --run holds.")
    float16: bool = option(False, "Store the weights as float16: half the size.")

    @property
    def folder(self) -> Path:
        """Where state and log are."""
        return self.run or self.out.with_suffix(".run")


@dataclass(frozen=True)
class MachineOptions:
    """What the training runs on."""

    panel: ClassVar[str] = "Machine"
    device: str = option("auto", "auto, cpu, cuda, mps.", metavar="DEVICE")
    devices: int = option(
        1, "Processes a node, each with a GPU (or CPU share) of its own.", metavar="N", min=1
    )
    nodes: int = option(1, "Machines; start the command on each by SLURM or torchrun.", metavar="N", min=1)
    precision: str = option(
        "float32", "float32, or bfloat16 or float16 mixed with float32 weights.", metavar="TYPE"
    )
    accumulate: int = option(
        1,
        "Make each step of so many smaller batches, where the recipe's do not fit into memory.",
        metavar="N",
        min=1,
    )
    workers: int = option(1, "Processes a device that read, decode and mix recordings.", metavar="N", min=0)
    threads: int | None = option(
        None,
        "At most N threads compute on a CPU.  \\[default: one per processor core]",
        min=1,
        metavar="N",
    )

    def limit_threads(self) -> None:
        """Hold this process to `threads`."""
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)

    @property
    def machine(self) -> Machine:
        """The same for the training."""
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
def train(options: TrainingOptions, machine: MachineOptions, messages: MessageOptions) -> None:
    r"""Train a model from weak or strong labels, or on soundscapes mixed from clips.

    Labels of whole clips are enough for a model that localises in time.
    An interrupted run goes on where it stopped: give the same command again.
    How many devices a run has changes its speed, not its recipe.

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
    # Only the first of several processes logs, also how the run started.
    logging.getLogger("htsat_sed").setLevel(logging.INFO if first else logging.ERROR)
    out = options.out
    path = find_recipe(options.recipe or options.named or "")
    recipe = read_recipe(path)
    check_apart([out], [path, recipe.start])
    try:
        with TrainingProgress(recipe.epochs, shown=first) as progress:
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
        say("stopped", f"the same command goes on from what {options.folder} holds", "bold yellow")
        raise typer.Exit(130) from None
    except UsageError as error:
        raise HtsatSedError(path, str(error)) from error
    if not first:
        return
    reported = {**model.provenance["validation"], **model.provenance.get("tuned", {})}
    figures = "".join(f", {name} {value:.3f}" for name, value in reported.items() if isinstance(value, float))
    remark(f"{out}: {model.provenance['steps']} steps{figures}")


def _check(options: TrainingOptions, machine: MachineOptions) -> None:
    """Refuse what cannot be trained or written, before hours of work."""
    if (options.recipe is None) == (options.named is None):
        raise typer.BadParameter("wanted one recipe: a file or a name", param_hint="RECIPE")
    check_training(options.out, machine)


def check_training(out: Path, machine: MachineOptions) -> None:
    """Refuse a checkpoint that cannot be trained or written.

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
