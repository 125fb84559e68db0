"""`htsat-sed soundscapes`: mixes labelled clips into soundscapes with strong labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from htsat_sed.cli.groups import REQUIRED, argument, option, with_groups
from htsat_sed.cli.message_options import MessageOptions
from htsat_sed.cli.progress import RecordingsProgress
from htsat_sed.errors import HtsatSedError, UsageError

if TYPE_CHECKING:
    from htsat_sed.training.recipe import Recipe


@dataclass(frozen=True)
class MixingOptions:
    """Clips to mix, number of soundscapes, and output."""

    recipe: str = argument(
        REQUIRED,
        "Recipe, as for train. Its clips are mixed according to its section \\[soundscapes].",
        metavar="RECIPE",
    )
    data: Path = option(REQUIRED, "Folder of the clips, as for train.", metavar="DIR")
    out: Path = option(
        REQUIRED,
        "Output folder without earlier soundscapes. Receives audio/, reference.tsv and durations.tsv, as "
        "in DESED.",
        "--output",
        "-o",
        metavar="DIR",
    )
    count: int = option(100, "Number of soundscapes to mix.", min=1, metavar="N")
    fold: list[int] | None = option(
        None,
        r"Mix only clips of this fold. Repeatable.  \[default: folds that the recipe does not train on]",
        metavar="N",
    )
    seed: int = option(0, "Random seed of the soundscapes.", metavar="N")


@with_groups
def soundscapes(options: MixingOptions, messages: MessageOptions) -> None:
    """Mix labelled clips into 10 s soundscapes with strong labels, for evaluation or training elsewhere.

    [bold]Example[/bold]

      htsat-sed soundscapes home --data homesounds/ -o scenes/
    """
    from htsat_sed.training.data import read_clips
    from htsat_sed.training.recipe import read_recipe
    from htsat_sed.training.rendering import render
    from htsat_sed.training.soundscapes import Soundscapes, read_sources

    made, data, out, fold = read_recipe(options.recipe), options.data, options.out, options.fold
    _check_place(out, data, made)
    trained = {f for part in made.data for f in part.folds}
    every = range(1, made.fold_count + 1)
    folds = tuple(fold or [f for f in every if f not in trained] or every) if trained or fold else ()
    rate = made.model.sample_rate
    try:
        clips = [
            clip
            for part in [part for part in made.data if part.mix] or made.data
            if part.kind != "negatives"  # a reference cannot express possible classes
            for clip in read_clips(replace(part, folds=folds), data, fold_count=made.fold_count)
        ]
        sources = read_sources(clips, sample_rate=rate)
        series = Soundscapes(sources, made.soundscapes, sample_rate=rate, seed=options.seed)
    except UsageError as error:
        raise HtsatSedError(data, str(error)) from error
    with RecordingsProgress("mixing", options.count, "soundscapes") as progress:
        seconds = made.soundscapes.seconds
        render(series, out, count=options.count, sample_rate=rate, seconds=seconds, progress=progress.done)


def _check_place(out: Path, data: Path, recipe: Recipe) -> None:
    """Refuse a folder with other soundscapes, or with the clips to mix."""
    from htsat_sed.training.rendering import AUDIO, REFERENCE

    if (out / REFERENCE).exists():  # written last; an interrupted run lacks it and is repeated
        raise HtsatSedError(out / REFERENCE, "exists: name another folder")
    audio = out / AUDIO
    sources = [folder for folder in (data, *(data / part.audio for part in recipe.data)) if folder.is_dir()]
    if audio.is_dir() and any(audio.samefile(folder) for folder in sources):
        raise HtsatSedError(audio, "holds the clips to mix: name another folder")
