"""`teach` beside training from scratch and logistic regression on embeddings, on clips of other sources.

    python bench/teach.py CLIPS TEST [--start home.safetensors] [--negatives FOLDER [TABLE]] [--methods ...]

CLIPS and TEST hold a folder of clips for each class, of different sources. The events of TEST are mixed into
soundscapes of 10 s with noise. NEGATIVES are recordings; the table says which classes may sound in them, as
for `evaluate --negatives`. The start must not have been trained on the classes. Runs go on where they were
stopped, in the folder --run. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from htsat_sed.annotations import read_negatives
from htsat_sed.audio import find_recordings, read
from htsat_sed.detection.detector import Detector
from htsat_sed.detection.events import Event, PostProcessing, find_events
from htsat_sed.evaluation.counting import intersection_counts
from htsat_sed.evaluation.false_alarms import count_false_alarms
from htsat_sed.evaluation.tables import pair
from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.training.collection import Collection, Labelled, collect, from_folder
from htsat_sed.training.recipe import SoundscapeRecipe
from htsat_sed.training.soundscapes import Soundscapes, read_sources
from htsat_sed.training.start import start_model
from htsat_sed.training.teaching import (
    TeachingOptions,
    as_clip,
    choose_rules,
    make_recipe,
    soundscape_maps,
    teach,
)

SOUNDSCAPES = 120
METHODS = ("logistic regression", "head only", "teach", "from scratch")


def logistic_regression(
    collection: Collection, options: TeachingOptions, run: Path
) -> tuple[HTSAT, PostProcessing]:
    """A head that is a logistic regression on the mean embedding of the active part of each clip."""
    recipe = make_recipe(collection, options, run, seed=0)

    def empty() -> HTSAT:
        config = HTSATConfig(classes=len(collection.labels), **asdict(recipe.model))
        return start_model(config, collection.labels, options.start).eval()

    base = empty()
    clips = [clip for clip in collection.clips if clip.label]
    features = np.stack([embedding(base, clip) for clip in clips])

    def fitted(among: Sequence[bool]) -> HTSAT:
        model = empty()
        rows = features[np.array(among)]
        mean, deviation = rows.mean(axis=0), rows.std(axis=0) + 1e-6
        with torch.no_grad():
            for k, label in enumerate(collection.labels):
                own = [clip.label == label for clip, kept in zip(clips, among, strict=True) if kept]
                found = LogisticRegression(max_iter=2000, class_weight="balanced")
                found.fit((rows - mean) / deviation, own)
                weight = found.coef_[0] / deviation
                # Mean over the head's window of 2 x 3 positions: 0.9 s.
                model.tscam_conv.weight[k] = torch.from_numpy(weight / 6.0).float()[:, None, None]
                model.tscam_conv.bias[k] = float(found.intercept_[0] - weight @ mean)
        return model

    folds = range(1, collection.folds + 1)
    models = [fitted([clip.fold != fold for clip in clips]) for fold in folds]
    maps, events = soundscape_maps(collection, models, options.seed)
    rules, _ = choose_rules(events, maps, {}, collection.labels, options)
    return fitted([True] * len(clips)), rules


@torch.inference_mode()
def embedding(model: HTSAT, clip: Labelled) -> np.ndarray:
    config = model.config
    samples = read(clip.path, config.sample_rate)[: config.window_samples]
    padded = np.pad(samples, (0, config.window_samples - len(samples)))
    tokens = model.token_embeddings(torch.from_numpy(padded)[None])[0].numpy()
    first = min(int(clip.onset / config.token_seconds), 31)
    return tokens[first : max(first + 1, round(clip.offset / config.token_seconds))].mean(axis=0)


def test_soundscapes(folder: Path, rate: int) -> list[tuple[np.ndarray, list[Event]]]:
    clips = collect(from_folder(folder), sample_rate=rate, folds=1).clips
    sources = read_sources([as_clip(clip) for clip in clips if clip.label], sample_rate=rate)
    series = Soundscapes(sources, SoundscapeRecipe(), sample_rate=rate, seed=77)
    return [(scene.samples, scene.events) for scene in (series[i] for i in range(SOUNDSCAPES))]


def score(
    model: HTSAT,
    rules: PostProcessing,
    scenes: Sequence[tuple[np.ndarray, list[Event]]],
    negatives: Sequence[Path],
    table: Path | None,
) -> str:
    detector = Detector(model, post_processing=rules)
    reference = {str(i): events for i, (_, events) in enumerate(scenes)}
    found = {
        str(i): detector.detect(samples, sample_rate=model.config.sample_rate)
        for i, (samples, _) in enumerate(scenes)
    }
    counts = intersection_counts(pair(reference, found)).total()
    tp, fp, fn = (values[0] for values in (counts.tp, counts.fp, counts.fn))
    f1 = 2 * tp / np.maximum(1.0, 2 * tp + fp + fn)
    told = (
        f"macro F1 {f1.mean():.3f}, precision {tp.sum() / max(1.0, tp.sum() + fp.sum()):.3f}, recall "
        f"{tp.sum() / max(1.0, tp.sum() + fn.sum()):.3f}"
    )
    if negatives:
        events, durations = {}, {}
        for path, result in detector.presence_maps(negatives):
            if not isinstance(result, Exception):
                events[Path(path).name] = find_events(result, rules)
                durations[Path(path).name] = result.duration
        known = read_negatives(table) if table is not None else {}
        alarms = count_false_alarms(events, durations, known, model.labels)
        hours = sum(durations.values()) / 3600.0
        told += f", {alarms.events.sum() / hours:.1f} false events an hour in {hours:.2f} h"
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--start", default="home")
    parser.add_argument("--negatives", nargs="+", type=Path, default=[])
    parser.add_argument("--fold", type=int, help="of the negatives' table alone")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--run", type=Path, default=Path("teach-bench"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    options = TeachingOptions(start=arguments.start)
    rate = make_recipe(
        Collection(clips=(), labels=("x",), folds=1), options, arguments.run, seed=0
    ).model.sample_rate
    collection = collect(from_folder(arguments.clips), sample_rate=rate, folds=3)
    scenes = test_soundscapes(arguments.test, rate)
    negatives = find_recordings(arguments.negatives[0])[0] if arguments.negatives else []
    table = arguments.negatives[1] if len(arguments.negatives) > 1 else None
    if arguments.fold is not None and table is not None:
        kept = {name for name, row in read_negatives(table).items() if row.fold == arguments.fold}
        negatives = [path for path in negatives if path.name in kept]
    print(f"{len(collection.clips)} clips, {len(scenes)} soundscapes, {len(negatives)} negatives", flush=True)
    for method in arguments.methods:
        begun = time.process_time()
        run = arguments.run / method.replace(" ", "-")
        if method == "logistic regression":
            model, rules = logistic_regression(collection, options, run)
        else:
            own = replace(
                options,
                head_only=method == "head only",
                start="" if method == "from scratch" else options.start,
            )
            run.mkdir(parents=True, exist_ok=True)
            model = teach(collection, own, run=run, out=run / "model.safetensors").model
            rules = PostProcessing().override(model.post_processing or {})
        seconds = time.process_time() - begun
        told = score(model, rules, scenes, negatives, table)
        print(f"{method:20} {told}; {seconds:.0f} s of processor time of the main process", flush=True)


if __name__ == "__main__":
    main()
