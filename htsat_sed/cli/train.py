"""`htsat-sed train`: a checkpoint from labelled clips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from htsat_sed.cli.terminal import errors
from htsat_sed.errors import HtsatSedError


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as recipes/home.toml.", show_default=False)],
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Clips: clips.tsv (filename, label, fold, onset, offset), their recordings in audio/, and "
            "if wanted speech.tsv with strongly labelled recordings.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="SAFETENSORS", help="The checkpoint to be.", show_default=False
        ),
    ],
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Log and state; an interrupted run goes on from here.  "
            r"\[default: the output's name without suffix]",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    float16: Annotated[bool, typer.Option(help="Store the weights as float16: half the size.")] = False,
) -> None:
    r"""Train a model on soundscapes that are mixed from labelled clips as it goes.

    Needs the extra: pip install 'htsat-sed\[train]'.

    [bold]Example[/bold]

      htsat-sed train recipes/home.toml --data homesounds/ -o home.safetensors
    """
    try:
        import lightning as _  # noqa: F401
    except ModuleNotFoundError:
        raise typer.BadParameter("training needs Lightning: pip install 'htsat-sed[train]'") from None
    if not out.absolute().parent.is_dir():
        raise HtsatSedError(out, "cannot be written: its folder does not exist")
    import torch

    from htsat_sed.model.checkpoint import save_checkpoint
    from htsat_sed.training.fit import fit
    from htsat_sed.training.recipe import read_recipe

    folder = run or out.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    model = fit(read_recipe(recipe), data, run=folder, device=device, progress=errors.is_terminal)
    save_checkpoint(out, model, dtype=torch.float16 if float16 else torch.float32)
