"""`teach` beside a head alone, logistic regression and training from scratch, on classes new to the start.

    python bench/teach.py HOMESOUNDS ELSEWHERE -o teach-bench/ [--start-steps 240] [--rows ...]

Four classes are held back. The start is trained on the other 27 classes of folds 1 to 3, by the recipes home
and home-silent, for a stated number of steps. Taught are 20 clips of each held-back class, of folds 1 to 3.
The test is 120 soundscapes mixed from clips of fold 4, and the recordings of fold 4 of ELSEWHERE.

Every part that is finished is kept in the folder, and a training resumes where it was saved last: run the
same command again to go on. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from htsat_sed.annotations import read_negatives
from htsat_sed.audio import read
from htsat_sed.detection.detector import Detector
from htsat_sed.detection.events import Event, PostProcessing, find_events
from htsat_sed.evaluation.counting import intersection_counts
from htsat_sed.evaluation.false_alarms import count_false_alarms
from htsat_sed.evaluation.tables import pair
from htsat_sed.model.checkpoint import load_checkpoint, save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.training.clip_sources import from_folder
from htsat_sed.training.collection import Collection, Labelled, collect
from htsat_sed.training.fit import Machine, fit
from htsat_sed.training.held_out import as_clip, choose_post_processing, score_held_out
from htsat_sed.training.recipe import DataRecipe, SoundscapeRecipe, read_recipe
from htsat_sed.training.soundscapes import Soundscapes, read_sources
from htsat_sed.training.start import start_model
from htsat_sed.training.teaching import TeachingOptions, make_recipe, teach

HELD_BACK = ("Bark", "Book pages", "Chainsaw", "Sneeze")
CLIPS = 20  # a class
SOUNDSCAPES = 120
TABLE = Path(__file__).parents[1] / "recipes" / "elsewhere.tsv"
ROWS = ("logistic regression", "head only", "teach", "from scratch")


def lay_out(homesounds: Path, folder: Path) -> None:
    """Folders of clips to teach and to test with; a folder a source, as a user has them."""
    taught: Counter[str] = Counter()
    with (homesounds / "clips.tsv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["label"] in HELD_BACK]
    for row in rows:
        label, is_test = row["label"], row["fold"] == "4"
        if not is_test and taught[label] == CLIPS:
            continue
        taught[label] += not is_test
        place = folder / ("test" if is_test else "clips") / label / row["source"].split()[0].replace(":", "_")
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(homesounds / "audio" / row["filename"], place)


def make_start(
    homesounds: Path, elsewhere: Path, folder: Path, steps: int, machine: Machine, out: Path
) -> None:
    """Train a model that has never heard the held-back classes."""
    folder.mkdir(parents=True, exist_ok=True)
    _without_held_back(homesounds / "clips.tsv", folder / "clips.tsv")
    _without_held_back(TABLE, folder / "elsewhere.tsv")
    clips = DataRecipe(
        kind="clips",
        table=str(folder.absolute() / "clips.tsv"),
        audio=str((homesounds / "audio").absolute()),
        folds=(1, 2, 3),
        mix=True,
        share=0.75,
    )
    speech = replace(
        clips,
        kind="strong",
        table=str((homesounds / "speech.tsv").absolute()),
        audio=str(homesounds.absolute()),
        share=0.05,
    )
    negatives = replace(
        clips,
        kind="negatives",
        table=str(folder.absolute() / "elsewhere.tsv"),
        audio=str((elsewhere / "audio").absolute()),
        share=0.05,
    )
    recipe = replace(
        read_recipe("home"),
        data=(clips, speech, negatives, replace(negatives, mix=False, share=0.15)),
        validation=(),
        epochs=1,
        epoch_examples=16 * steps,
        tune=False,
        ema_decay=0.98,
        soundscapes=read_recipe("home-silent").soundscapes,
    )

    def shown(step: int, steps: int, _: object) -> None:
        if step % 20 == 0:
            print(f"start: {step} of {steps} steps", flush=True)

    fit(recipe, folder, run=folder / "run", machine=machine, progress=shown, out=out)


def _without_held_back(table: Path, out: Path) -> None:
    """A copy of a table without the clips of the held-back classes, or without their names."""
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    kept = [row for row in rows if row.get("label") not in HELD_BACK]
    for row in kept:
        for column in {"event_labels", "present_labels"} & set(row):
            row[column] = "|".join(name for name in row[column].split("|") if name not in HELD_BACK)
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)


def logistic_regression(collection: Collection, options: TeachingOptions, run: Path) -> HTSAT:
    """A head that is a logistic regression on the mean embedding of the active part of each clip."""
    recipe = make_recipe(collection, options, run)

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

    models = [fitted([clip.fold != fold for clip in clips]) for fold in range(1, collection.folds + 1)]
    held_out = score_held_out(collection, models, recipe.soundscapes, seed=options.seed)
    rules, _ = choose_post_processing(
        held_out,
        collection.labels,
        precision=options.precision,
        false_alarms=options.false_alarms,
        caution=options.caution,
        seed=options.seed,
    )
    model = fitted([True] * len(clips))
    model.post_processing = rules.to_dict()
    return model


@torch.inference_mode()
def embedding(model: HTSAT, clip: Labelled) -> np.ndarray:
    """Mean embedding (D,) of the active part of a clip."""
    config = model.config
    samples = read(clip.path, config.sample_rate)[: config.window_samples]
    padded = np.pad(samples, (0, config.window_samples - len(samples)))
    tokens = model.token_embeddings(torch.from_numpy(padded)[None])[0].numpy()
    first = min(int(clip.onset / config.token_seconds), 31)
    return tokens[first : max(first + 1, round(clip.offset / config.token_seconds))].mean(axis=0)


def score(model: HTSAT, test: Path, elsewhere: Path) -> dict[str, float]:
    """Intersection-based figures on soundscapes of the test clips, and false events in other recordings."""
    rate = model.config.sample_rate
    clips = collect(from_folder(test), sample_rate=rate, folds=1).clips
    sources = read_sources([as_clip(clip) for clip in clips], sample_rate=rate)
    series = Soundscapes(sources, SoundscapeRecipe(), sample_rate=rate, seed=77)
    detector = Detector(model, post_processing=PostProcessing().override(model.post_processing or {}))
    reference: dict[str, list[Event]] = {}
    found: dict[str, list[Event]] = {}
    for i in range(SOUNDSCAPES):
        samples, reference[str(i)], _ = series[i]
        found[str(i)] = detector.detect(samples, sample_rate=rate)
    counts = intersection_counts(pair(reference, found)).total()
    tp, fp, fn = (values[0] for values in (counts.tp, counts.fp, counts.fn))
    known = {name: row for name, row in read_negatives(TABLE).items() if row.fold == 4}
    events, durations = {}, {}
    for path, result in detector.presence_maps([elsewhere / "audio" / name for name in sorted(known)]):
        if not isinstance(result, Exception):
            events[Path(path).name] = find_events(result, detector.post_processing)
            durations[Path(path).name] = result.duration
    alarms = count_false_alarms(events, durations, known, model.labels).events.sum()
    return {
        "macro_f1": float((2 * tp / np.maximum(1.0, 2 * tp + fp + fn)).mean()),
        "precision": float(tp.sum() / max(1.0, tp.sum() + fp.sum())),
        "recall": float(tp.sum() / max(1.0, tp.sum() + fn.sum())),
        "false_events_an_hour": float(3600.0 * alarms / sum(durations.values())),
        "hours": sum(durations.values()) / 3600.0,
    }


def train_row(name: str, clips: Path, start: Path, run: Path, machine: Machine) -> float:
    """Train the model of a row into its folder; returns seconds of processor time of the last run."""
    run.mkdir(parents=True, exist_ok=True)
    begun = time.process_time()
    options = TeachingOptions(
        start="" if name == "from scratch" else str(start), head_only=name == "head only"
    )
    collection = collect(from_folder(clips), sample_rate=32_000, folds=3)
    if name == "logistic regression":
        save_checkpoint(run / "model.safetensors", logistic_regression(collection, options, run))
    else:
        progress = _lines(name)
        teach(collection, options, run=run, out=run / "model.safetensors", machine=machine, progress=progress)
    return time.process_time() - begun


def _lines(name: str) -> Callable[[int, int], Callable[..., None]]:
    def of_fold(fold: int, folds: int) -> Callable[..., None]:
        def shown(step: int, steps: int, _: object) -> None:
            if step % 20 == 0:
                print(f"{name}, {fold} of {folds}: {step} of {steps}", flush=True)

        return shown

    return of_fold


def main() -> None:
    """Do what is not done yet, and print all that is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("homesounds", type=Path)
    parser.add_argument("elsewhere", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("teach-bench"))
    parser.add_argument("--start-steps", type=int, default=240)
    parser.add_argument("--rows", nargs="*", default=ROWS, choices=ROWS)
    parser.add_argument("--precision", default="auto", help="of training: auto, 32-true or bf16-mixed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder, elsewhere = arguments.output, arguments.elsewhere
    machine = Machine(device="cpu", precision=arguments.precision, yields=True)
    if not (folder / "clips").is_dir():
        lay_out(arguments.homesounds, folder)
    start = folder / "start" / "start.safetensors"
    if not start.is_file():
        make_start(arguments.homesounds, elsewhere, start.parent, arguments.start_steps, machine, start)
    for row in arguments.rows:
        run = folder / row.replace(" ", "-")
        if not (run / "model.safetensors").is_file():
            seconds = train_row(row, folder / "clips", start, run, machine)
            (run / "seconds.json").write_text(json.dumps(seconds))
        if not (run / "figures.json").is_file():
            figures = score(load_checkpoint(run / "model.safetensors"), folder / "test", elsewhere)
            (run / "figures.json").write_text(json.dumps(figures))
    print(f"{'':20} macro F1  precision  recall  false events/h  processor s, main process, last run")
    for row in ROWS:
        run = folder / row.replace(" ", "-")
        if (run / "figures.json").is_file():
            own, seconds = (json.loads((run / f"{name}.json").read_text()) for name in ("figures", "seconds"))
            print(
                f"{row:20} {own['macro_f1']:8.3f}  {own['precision']:9.3f}  {own['recall']:6.3f}"
                f"  {own['false_events_an_hour']:14.1f}  {seconds:9.0f}"
            )


if __name__ == "__main__":
    main()
