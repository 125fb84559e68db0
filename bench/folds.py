"""Cross-validation of a recipe: a model for each held-out fold, evaluated on that fold.

python bench/folds.py recipes/home.toml --data homesounds/ -o folds/ [--count 200] [--device cpu --devices 2]

Trains what is not there yet (an interrupted run goes on), then scores each model on soundscapes of the fold
that it has not heard, with post-processing tuned on the other models' soundscapes of the folds that they have
not heard. Last, the post-processing tuned on all folds
is written: it suits a model of the same recipe trained on all of them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from htsat_sed.detection.events import Event, PostProcessing
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.evaluate import evaluate_strong
from htsat_sed.evaluation.report import Report, Settings
from htsat_sed.evaluation.tables import pair
from htsat_sed.evaluation.tuning import tune
from htsat_sed.model.checkpoint import load_checkpoint
from htsat_sed.model.htsat import HTSAT
from htsat_sed.training.data import read_clips
from htsat_sed.training.fit import Machine, fit
from htsat_sed.training.recipe import DataRecipe, Recipe, read_recipe
from htsat_sed.training.soundscapes import Soundscapes, read_sources

Reference = dict[str, list[Event]]
Maps = dict[str, PresenceMap]
FIGURES = (("intersection", "macro_f1"), ("collar", "macro_f1"), ("segment", "macro_f1"), ("clip", "map"))


def with_folds(parts: tuple[DataRecipe, ...], folds: tuple[int, ...]) -> tuple[DataRecipe, ...]:
    return tuple(replace(part, folds=folds) for part in parts)


def left_out(recipe: Recipe, fold: int) -> Recipe:
    """The recipe with one fold for validation and the others for training."""
    others = tuple(f for f in range(1, recipe.fold_count + 1) if f != fold)
    return replace(
        recipe,
        data=with_folds(recipe.data, others),
        validation=with_folds(recipe.data, (fold,)),
        tune=False,
        keep="last",
        patience=0,
    )


@torch.inference_mode()
def listen(model: HTSAT, recipe: Recipe, data: Path, *, fold: int, count: int) -> tuple[Reference, Maps]:
    """References and presence maps of soundscapes of one fold."""
    parts = with_folds(recipe.data, (fold,))
    clips = [c for part in parts for c in read_clips(part, data, fold_count=recipe.fold_count)]
    sources = read_sources(clips, sample_rate=recipe.model.sample_rate)
    series = Soundscapes(
        sources, recipe.soundscapes, sample_rate=recipe.model.sample_rate, seed=recipe.seed + fold
    )
    reference: Reference = {}
    maps: Maps = {}
    for number in range(count):
        samples, events, _ = series[number]
        scores = model(torch.from_numpy(samples)[None]).presence_logits[0].sigmoid().numpy()
        name = f"{fold}-{number:04d}"
        reference[name] = events
        maps[name] = PresenceMap(scores, model.labels, model.config.token_seconds, recipe.soundscapes.seconds)
    return reference, maps


def tuned(reference: Reference, maps: Maps) -> PostProcessing:
    return tune(pair(reference, dict.fromkeys(maps, ())), maps).post_processing()


def cells(report: Report) -> str:
    found = {metric.name: metric.headline for metric in report.metrics}
    scores = [found[metric][figure] for metric, figure in FIGURES]
    return " | ".join(f"{100 * s.value:.1f} ({100 * s.low:.1f} to {100 * s.high:.1f})" for s in scores)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("recipe", type=Path)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("-o", "--output", type=Path, required=True)
    arguments.add_argument("--count", type=int, default=200)
    arguments.add_argument("--only", type=int, action="append", help="train this fold's model and stop")
    arguments.add_argument("--device", default="auto")
    arguments.add_argument("--devices", type=int, default=1)
    asked = arguments.parse_args()
    recipe = read_recipe(asked.recipe)
    folds = range(1, recipe.fold_count + 1)
    asked.output.mkdir(parents=True, exist_ok=True)
    for fold in asked.only or folds:
        path = asked.output / f"{fold}.safetensors"
        if not path.exists():
            machine = Machine(device=asked.device, devices=asked.devices)
            fit(left_out(recipe, fold), asked.data, run=path.with_suffix(""), machine=machine, out=path)
    if asked.only:
        return
    heard = {
        fold: listen(
            load_checkpoint(asked.output / f"{fold}.safetensors"),
            recipe,
            asked.data,
            fold=fold,
            count=asked.count,
        )
        for fold in folds
    }
    settings = Settings(bootstrap=1000, psds_thresholds=1)
    print("held-out fold | intersection F1, % | collar F1, % | segment F1, % | clip mAP, %")
    every: tuple[Reference, Maps] = ({}, {})
    for fold in folds:
        others: tuple[Reference, Maps] = ({}, {})
        for other in folds:
            if other != fold:
                others[0].update(heard[other][0])
                others[1].update(heard[other][1])
        every[0].update(heard[fold][0])
        every[1].update(heard[fold][1])
        report = evaluate_strong(
            heard[fold][0], maps=heard[fold][1], post_processing=tuned(*others), settings=settings
        )
        print(f"{fold} | {cells(report)}", flush=True)
    values = tuned(*every)
    (asked.output / "post_processing.json").write_text(json.dumps(values.to_dict(), indent=1))
    report = evaluate_strong(every[0], maps=every[1], post_processing=values, settings=settings)
    print(f"all, tuned on the same | {cells(report)}")


if __name__ == "__main__":
    main()
