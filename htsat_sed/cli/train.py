"""`htsat-sed train`: a checkpoint from labelled recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from htsat_sed.cli import options
from htsat_sed.cli.progress import ProgressMode, TrainingProgress
from htsat_sed.cli.terminal import remark, say
from htsat_sed.errors import HtsatSedError, UsageError
from htsat_sed.runs.outputs import check_apart, check_files

MACHINE = "Machine"
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


def train(
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Where the tables and recordings that the recipe names are.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="SAFETENSORS", help="The checkpoint to be.", show_default=False
        ),
    ],
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="What to train on and how: a TOML file, or the name of one that comes with the package: "
            "audioset, esc50, speech-commands, desed, home, home-all, home-silent. docs/training.md says "
            "what a recipe may hold.",
            show_default=False,
        ),
    ] = None,
    named: Annotated[
        str | None,
        typer.Option("--recipe", metavar="RECIPE", help="The same, as an option.", show_default=False),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="State and log (metrics.csv; TensorBoard's, if that is installed). An interrupted run goes "
            "on from here, to the same weights.  \\[default: the output with the suffix .run]",
            show_default=False,
        ),
    ] = None,
    restart: Annotated[bool, typer.Option(help="Train anew, whatever --run holds.")] = False,
    float16: Annotated[bool, typer.Option(help="Store the weights as float16: half the size.")] = False,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, mps.", rich_help_panel=MACHINE)
    ] = "auto",
    devices: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Processes a node, each with a GPU (or CPU share) of its own.",
            rich_help_panel=MACHINE,
        ),
    ] = 1,
    nodes: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Machines; start the command on each by SLURM or torchrun.",
            rich_help_panel=MACHINE,
        ),
    ] = 1,
    precision: Annotated[
        str,
        typer.Option(
            metavar="TYPE",
            help="float32, or bfloat16 or float16 mixed with float32 weights.",
            rich_help_panel=MACHINE,
        ),
    ] = "float32",
    accumulate: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Make each step of so many smaller batches, where the recipe's do not fit into memory.",
            rich_help_panel=MACHINE,
        ),
    ] = 1,
    workers: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Processes a device that read, decode and mix recordings.",
            rich_help_panel=MACHINE,
        ),
    ] = 1,
    show_progress: options.ShowProgress = ProgressMode.auto,
    be_quiet: options.Quiet = False,
) -> None:
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
    if (recipe is None) == (named is None):
        raise typer.BadParameter("wanted one recipe: a file or a name", param_hint="RECIPE")
    if precision not in PRECISIONS:
        raise typer.BadParameter(
            f"wanted one of {', '.join(PRECISIONS)}; got {precision!r}", param_hint="--precision"
        )
    try:
        import lightning as _  # noqa: F401
    except ModuleNotFoundError:
        raise typer.BadParameter("training needs Lightning: pip install 'htsat-sed[train]'") from None
    if out.suffix != ".safetensors":
        raise typer.BadParameter(f"wanted a file ending in .safetensors, got {out}", param_hint="--output")
    check_files(out)
    import logging

    import torch

    from htsat_sed.training.fit import Machine, fit
    from htsat_sed.training.recipe import find_recipe, read_recipe
    from htsat_sed.training.run_folder import is_first_process

    speaker = is_first_process()
    # Only the first of several processes logs, also what the start took.
    logging.getLogger("htsat_sed").setLevel(logging.INFO if speaker else logging.ERROR)
    folder = run or out.with_suffix(".run")
    path = find_recipe(recipe or named or "")
    made = read_recipe(path)
    check_apart([out], [path, made.start])
    try:
        with TrainingProgress(made.epochs, shown=speaker) as progress:
            model = fit(
                made,
                data,
                run=folder,
                machine=Machine(
                    device=device,
                    devices=devices,
                    nodes=nodes,
                    precision=PRECISIONS[precision],
                    accumulate=accumulate,
                    workers=workers,
                ),
                progress=progress.told,
                out=out,
                dtype=torch.float16 if float16 else torch.float32,
                restart=restart,
            )
    except KeyboardInterrupt:
        say("stopped", f"the same command goes on from what {folder} holds", "bold yellow")
        raise typer.Exit(130) from None
    except UsageError as error:
        raise HtsatSedError(path, str(error)) from error
    if not speaker:
        return
    told = {**model.provenance["validation"], **model.provenance.get("tuned", {})}
    figures = "".join(f", {name} {value:.3f}" for name, value in told.items() if isinstance(value, float))
    remark(f"{out}: {model.provenance['steps']} steps{figures}")
