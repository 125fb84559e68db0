"""Train and score the bundled checkpoint.

python bench/home.py make --data data/ -o work/  train, tune and calibrate it anew
python bench/home.py card --data data/ -o work/  print the figures of its card (minutes)

`make` writes work/home-bundled.safetensors. `card` scores the bundled checkpoint; for yours, add
`-c work/home-bundled.safetensors`. `data/` holds homesounds/ and elsewhere/; the script writes three tables
to elsewhere/. Training takes 12 670 steps: about two hours on two cores with bfloat16 instructions (fastest
with `--processes 2`), half a day without.
`--first FILE` replaces the first half of home.toml's 2800 steps: FILE is a checkpoint trained for as many on
the same folds, such as the first home.safetensors in the history of this repository. Repeat a command to
resume it. `--part 0.01` is a trial with 1 % of the steps and soundscapes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from htsat_sed.annotations.strong import read_strong_labels
from htsat_sed.model.catalogue import resolve_checkpoint
from htsat_sed.model.checkpoint import load_checkpoint, save_checkpoint
from htsat_sed.post_processing import PostProcessing
from htsat_sed.training.fit import Machine, fit
from htsat_sed.training.recipe import read_recipe

RECIPES = Path(__file__).parents[1] / "recipes"
TRAINED, HELD_OUT = (1, 2, 3), (4,)  # folds of homesounds
REST_EPOCHS = 14  # of the 28 in home.toml, after --first
# Starting values for `tune`: the defaults with an edge level, so that the values in --first have no effect.
UNTUNED = """\
threshold = 0.5
threshold_low = 0.5
median_filter = 0.0
min_gap = 0.0
min_event = 0.0
edge_level = 0.6
"""
# Thresholds tuned on soundscapes of short clips miss steady rain.
RAIN = {"threshold": 0.5, "threshold_low": 0.2}
FIGURES = {
    "intersection": ("intersection-based macro F1 (DTC 0.5, GTC 0.5), %", "macro_f1", 100.0),
    "collar": ("collar-based macro F1 (200 ms, 20 %), %", "macro_f1", 100.0),
    "onset": ("onsets only, 200 ms, %", "macro_f1", 100.0),
    "segment": ("segment-based macro F1 (1 s), %", "macro_f1", 100.0),
    "psds1": ("PSDS scenario 1", "psds", 1.0),
    "psds2": ("PSDS scenario 2", "psds", 1.0),
    "clip": ("clip-level mAP, %", "map", 100.0),
    "false_alarms": ("false alarms per hour", "per_hour", 1.0),
}


@dataclass(frozen=True)
class Stage:
    """A training run.

    Attributes:
        recipe: name of its recipe.
        start: checkpoint to start from, relative to the work folder or absolute; empty for random weights.
        epochs: number of epochs; 0 for the recipe's.
    """

    recipe: str
    start: str = ""
    epochs: int = 0

    @property
    def result(self) -> str:
        return f"{self.recipe}.safetensors"


class Bench:
    """Runs training stages and commands in a work folder.

    Args:
        data: holds homesounds/ and elsewhere/.
        work: where results go.
        device: to train and detect on.
        part: fraction of the steps and soundscapes, in (0, 1].
        processes: number of training processes.
    """

    def __init__(self, data: Path, work: Path, device: str, part: float, processes: int) -> None:
        self.data, self.work, self.device, self.part = data.resolve(), work.resolve(), device, part
        self.processes = processes
        self.work.mkdir(parents=True, exist_ok=True)

    def check_settings(self, first: Path | None) -> None:
        """Refuse a work folder with results of other settings."""
        settings = self.work / "settings.json"
        begin = hashlib.sha256(first.read_bytes()).hexdigest() if first else ""
        wanted = json.dumps({"part": self.part, "first": begin})
        if settings.exists() and settings.read_text() != wanted:
            raise SystemExit(f"{self.work} has results of another --part or --first: name another folder")
        settings.write_text(wanted)

    def write_tables(self) -> None:
        """Write the tables of elsewhere, and the starting values for `tune`."""
        (self.work / "untuned.toml").write_text(UNTUNED)
        elsewhere = self.data / "elsewhere"
        labels = elsewhere / "labels.tsv"
        shutil.copyfile(RECIPES / "elsewhere.tsv", labels)
        header, *rows = labels.read_text().splitlines()
        fourth = [row for row in rows if row.split("\t")[3] == "4"]
        others = [row for row in rows if row not in fourth]
        for name, some in (("fold4.tsv", fourth), ("folds123.tsv", others)):
            (elsewhere / name).write_text("\n".join([header, *some, ""]))

    def run(self, result: str, *arguments: object) -> Path:
        """Run htsat-sed in the work folder unless its result is there."""
        path = self.work / result
        if not path.exists():
            command = ["htsat-sed", *map(str, arguments)]
            print("$", shlex.join(command), flush=True)
            subprocess.run([sys.executable, "-m", "htsat_sed", *command[1:]], cwd=self.work, check=True)
        return path

    def train(self, stage: Stage) -> str:
        """Train a stage unless its result is there; return the result's name."""
        if not (self.work / stage.result).exists():
            print("training", stage.recipe, flush=True)
            # In a process of its own, since Lightning starts the script again for each further process.
            command = [sys.executable, __file__, "stage", "--stage", json.dumps(asdict(stage))]
            command += ["--data", str(self.data), "-o", str(self.work), "--device", self.device]
            command += ["--part", str(self.part), "--processes", str(self.processes)]
            subprocess.run(command, check=True)
        return stage.result

    def train_stage(self, stage: Stage) -> None:
        """Train a stage in `processes` processes, without validation."""
        recipe = read_recipe(RECIPES / f"{stage.recipe}.toml")
        epochs = stage.epochs or recipe.epochs
        merged = epochs if self.part < 1.0 else 1  # a part of one epoch could be less than a batch
        recipe = replace(
            recipe,
            start=stage.start and str(self.work / stage.start),
            validation=(),
            tune=False,
            epochs=epochs // merged,
            epoch_examples=max(32, round(self.part * merged * recipe.epoch_examples)),
        )
        alone = self.processes == 1
        fit(
            recipe,
            self.data / "homesounds" if all(part.kind != "negatives" for part in recipe.data) else self.data,
            run=self.work / f"{stage.recipe}.run",
            machine=Machine(
                device=self.device, devices=self.processes, precision="auto", workers=1 if alone else 0
            ),
            progress=print_progress,
            out=self.work / stage.result,
            dtype=torch.float16,
        )

    def with_rain(self, checkpoint: str) -> str:
        """Set the thresholds of rain; return the result's name."""
        result = "home-rain.safetensors"
        if not (self.work / result).exists():
            model = load_checkpoint(self.work / checkpoint)
            rules = PostProcessing().override(model.post_processing or {})
            model.post_processing = rules.override({"classes": {"Rain": RAIN}}).to_dict()
            save_checkpoint(self.work / result, model, dtype=torch.float16)
        return result

    def soundscapes(self, name: str, count: int, seed: int, folds: tuple[int, ...]) -> tuple[object, ...]:
        """Mix soundscapes of some folds; return the arguments that name them."""
        only = [each for fold in folds for each in ("--fold", fold)]
        made = ("soundscapes", "home", "--data", self.data / "homesounds", "-o", name)
        reference = f"{name}/reference.tsv"
        self.run(reference, *made, "--count", max(8, round(self.part * count)), "--seed", seed, *only)
        return reference, "--audio", f"{name}/audio"

    def negatives(self, table: str) -> tuple[object, ...]:
        return "--negatives", self.data / "elsewhere" / table

    def evaluate(self, name: str, on: tuple[object, ...], checkpoint: str) -> dict[str, Any]:
        # Named after the weights, so that figures of another checkpoint are not taken for these.
        weights = hashlib.sha256(resolve_checkpoint(checkpoint).read_bytes()).hexdigest()[:8]
        result = f"{Path(checkpoint).stem}-{weights}-{name}.json"
        given = (*on, *self.negatives("fold4.tsv"), "-c", checkpoint, "--reliability", "--bootstrap", 1000)
        files = ("--json", result, "--plot", f"{Path(result).stem}.png")
        path = self.run(result, "evaluate", *given, *files, "--device", self.device)
        return {metric["name"]: metric for metric in json.loads(path.read_text())["metrics"]}


def print_progress(step: int, steps: int, _: object) -> None:
    if step % 50 == 0:
        print(f"{step} of {steps} steps", flush=True)


def make(bench: Bench, first: Path | None) -> None:
    """Train, tune and calibrate the checkpoint."""
    if first is None:
        trained = bench.train(Stage("home"))
    else:
        trained = bench.train(Stage("home", str(first.resolve()), REST_EPOCHS))
    trained = bench.train(Stage("home-all", trained))
    silent = bench.train(Stage("home-silent", trained))
    more = bench.train(Stage("home-silent-more", silent))
    mean, filters, tuned = "home-mean.safetensors", "home-filters.safetensors", "home-tuned.safetensors"
    bench.run(mean, "checkpoints", "average", silent, more, "--float16", "-o", mean)
    on = ("--device", bench.device)
    tuning = ("tune", *bench.soundscapes("tune", 1500, 31, TRAINED), "--folds", 4, *on)
    bench.run(filters, *tuning, "--post-processing", "untuned.toml", "-c", mean, "--into", filters)
    bench.run(
        tuned,
        *(*tuning, "--method", "threshold-alone", "--false-alarms-per-hour", 10),
        *(*bench.negatives("folds123.tsv"), "-c", filters, "--into", tuned),
    )
    rain = bench.with_rain(tuned)
    result = "home-bundled.safetensors"
    bench.run(
        result,
        *("checkpoints", "calibrate-scores", *bench.soundscapes("calibrate", 400, 33, TRAINED)),
        *(*bench.negatives("fold4.tsv"), "--lower", 0.5, *on, "-c", rain, "--into", result),
    )


def card(bench: Bench, checkpoint: str) -> None:
    """Print the tables of the card: training and held-out sources, negatives, reliability.

    Both columns have the same negatives (fold 4 of elsewhere), which the calibration also used.
    """
    known = bench.soundscapes("known", 300, 42, TRAINED)
    fourth = bench.soundscapes("held-out", 400, 43, HELD_OUT)
    found = bench.evaluate("held-out", fourth, checkpoint)
    show({"training sources": bench.evaluate("known", known, checkpoint), "held-out sources": found})
    time = found["false_alarms"]["headline"]["time"]
    print("\nfalse alarms cover", *(f"{100 * time[name]:.1f} %" for name in ("value", "low", "high")))
    for label, own in found["present"]["classes"].items():
        print(f"{label}, {own['recordings']:.0f} recordings, {own['seconds']:.0f} s:", end=" ")
        print(f"{100 * own['found_time']:.1f} % found")
    print("\n| kind | recordings | seconds | time with false alarms, % |\n|---|---|---|---|")
    kinds = found["false_alarms_by_kind"]["classes"]
    for kind, own in sorted(kinds.items(), key=lambda each: -each[1]["seconds"]):
        print(f"| {kind} | {own['recordings']:.0f} | {own['seconds']:.0f} | {100 * own['time']:.1f} |")
    print("\n| class | held-out sources | intersection-based F1, % |\n|---|---|---|")
    numbers = held_out_sources(bench.data / "homesounds")
    for label, own in sorted(found["intersection"]["classes"].items(), key=lambda each: -each[1]["f1"]):
        print(f"| {label} | {numbers[label]} | {100 * own['f1']:.0f} |")
    reliability(found)


def held_out_sources(homesounds: Path) -> Counter[str]:
    """Count the held-out sources of each class: sources of clips, and meetings for speech."""
    clips = pd.read_csv(homesounds / "clips.tsv", sep="\t")
    pairs = clips[clips["fold"].isin(HELD_OUT)][["label", "source"]].drop_duplicates()
    meetings = read_strong_labels(homesounds / "speech.tsv")
    held_out = sum(i % 4 + 1 in HELD_OUT for i in range(len(meetings)))  # as data of kind "strong"
    return Counter(pairs["label"]) + Counter({"Speech": held_out})


def reliability(found: dict[str, Any]) -> None:
    """Print how often events are right, by printed score."""
    print("\n| score | events | right, % |\n|---|---|---|")
    for interval, own in found["reliability_by_score"]["classes"].items():
        print(f"| {interval} | {own['events']:.0f} | {100 * own['right_share']:.0f} |")
    error = found["reliability_by_score"]["headline"]["calibration_error"]["value"]
    print(f"\ncalibration error: {error:.3f}")


def show(found: dict[str, dict[str, Any]]) -> None:
    """Print a table with a column for each evaluation."""
    print("| figure |", " | ".join(found), "|")
    print("|---" * (len(found) + 1) + "|")
    for metric, (name, figure, factor) in FIGURES.items():
        scores = [own[metric]["headline"][figure] for own in found.values()]
        digits = 1 if factor == 100.0 else 0 if metric == "false_alarms" else 3
        cells = [
            "{} ({} to {})".format(*(f"{factor * s[each]:.{digits}f}" for each in ("value", "low", "high")))
            for s in scores
        ]
        print("|", name, "|", " | ".join(cells), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", metavar="make|card", choices=("make", "card", "stage"))
    parser.add_argument("--data", type=Path, required=True, help="folder with homesounds/ and elsewhere/")
    parser.add_argument("-o", "--output", type=Path, required=True, help="work folder, for all results")
    parser.add_argument("-c", "--checkpoint", default="home", help="for card (default: the bundled one)")
    parser.add_argument("--first", type=Path, help="for make: checkpoint to start from")
    parser.add_argument("--device", default="auto", help="to train and detect on (default: auto)")
    parser.add_argument("--part", type=float, default=1.0, help="fraction of steps and soundscapes")
    parser.add_argument("--processes", type=int, default=1, help="number of training processes")
    parser.add_argument("--stage", type=json.loads, help=argparse.SUPPRESS)  # of `stage`, which `make` runs
    given = parser.parse_args()
    bench = Bench(given.data, given.output, given.device, given.part, given.processes)
    if given.what == "stage":
        bench.train_stage(Stage(**given.stage))
        return
    bench.write_tables()
    if given.what == "make":
        bench.check_settings(given.first)
        make(bench, given.first)
    else:
        named = Path(given.checkpoint)
        card(bench, str(named.resolve()) if named.is_file() else given.checkpoint)


if __name__ == "__main__":
    main()
