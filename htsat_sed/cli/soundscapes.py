"""`htsat-sed soundscapes`: mixtures with strong labels, from labelled clips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def soundscapes(
    recipe: Annotated[
        Path,
        typer.Argument(help="A recipe, whose part [soundscapes] tells how to mix.", show_default=False),
    ],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Clips, as for train.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Gets audio/, reference.tsv and durations.tsv, as DESED has them.",
            show_default=False,
        ),
    ],
    count: Annotated[int, typer.Option(min=1, help="How many soundscapes.")] = 100,
    fold: Annotated[
        list[int] | None,
        typer.Option(
            help=r"Only clips of this fold; repeatable.  \[default: those the recipe does not train on]",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed makes other soundscapes.")] = 0,
) -> None:
    """Mix labelled clips into 10 s soundscapes with strong labels, for evaluation or training elsewhere.

    [bold]Example[/bold]

      htsat-sed soundscapes recipes/home.toml --data homesounds/ -o validation/
    """
    from htsat_sed.model.htsat import HTSATConfig
    from htsat_sed.training.clips import read_clips, read_strong
    from htsat_sed.training.recipe import read_recipe
    from htsat_sed.training.rendering import render
    from htsat_sed.training.soundscapes import Soundscapes

    made = read_recipe(recipe)
    every = range(1, made.fold_count + 1)
    folds = fold or [f for f in every if f not in made.folds] or list(every)
    rate = HTSATConfig().sample_rate
    sources = read_clips(data, sample_rate=rate, folds=folds)
    sources += read_strong(data, sample_rate=rate, folds=folds, of=made.fold_count)
    series = Soundscapes(sources, made.soundscapes, sample_rate=rate, seed=seed)
    render(series, out, count=count, sample_rate=rate, seconds=made.soundscapes.seconds)
