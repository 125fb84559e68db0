"""The bundled checkpoint, and every figure of its card.

python bench/home.py make --data data/ -o work/      train, tune, calibrate
python bench/home.py card --data data/ -o work/      score the bundled checkpoint: minutes
python bench/home.py unheard --data data/ -o work/   the same as `make` without fold 4, scored on fold 4

`data/` holds homesounds/ and elsewhere/. `make` and `unheard` train for 12 670 steps each, of which they
share the first 2800: over two hours each on two cores with bfloat16 instructions and `--processes 2`, half a
day without. `--first` is a checkpoint that has half of the first 2800 behind it. What lies in the work folder
already is not made again, and an interrupted training resumes. `--part 0.01` takes a hundredth of the steps
and soundscapes, to try the commands.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from htsat_sed.training.fit import Machine, fit
from htsat_sed.training.recipe import read_recipe

RECIPES = Path(__file__).parents[1] / "recipes"
ALL = (1, 2, 3, 4)
FIGURES = {
    "intersection": ("intersection-based macro F1 (DTC 0.5, GTC 0.5), %", "macro_f1", 100.0),
    "collar": ("collar-based macro F1 (200 ms, 20 %), %", "macro_f1", 100.0),
    "onset": ("onsets only, 200 ms, %", "macro_f1", 100.0),
    "segment": ("segment-based macro F1 (1 s), %", "macro_f1", 100.0),
    "psds1": ("PSDS scenario 1", "psds", 1.0),
    "psds2": ("PSDS scenario 2", "psds", 1.0),
    "clip": ("clip-level mAP, %", "map", 100.0),
    "false_alarms": ("false alarms an hour", "per_hour", 1.0),
}


class Bench:
    """Trains, and runs commands, in a work folder.

    Args:
        data: holds homesounds/ and elsewhere/.
        work: where results go.
        device: to train and detect on.
        part: of the steps and soundscapes, in (0, 1].
        processes: to train in.
    """

    def __init__(self, data: Path, work: Path, device: str, part: float, processes: int) -> None:
        self.data, self.work, self.device, self.part = data.resolve(), work.resolve(), device, part
        self.processes = processes
        self.options = ["--device", device]
        self.work.mkdir(parents=True, exist_ok=True)
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

    def train(self, name: str, folds: tuple[int, ...], *, start: str = "", epochs: int = 0) -> str:
        """Train by a recipe on some folds of homesounds, without validation; return the result's name."""
        result = f"{name}{suffix(folds)}.safetensors"
        if (self.work / result).exists():
            return result
        print("training", name, "on folds", *folds, flush=True)
        # In a program of its own, which each process of the training starts anew.
        stage = Stage(name, folds, start, epochs)
        command = [sys.executable, __file__, "stage", "--stage", json.dumps(asdict(stage))]
        command += ["--data", self.data, "-o", self.work, "--device", self.device]
        command += ["--part", str(self.part), "--processes", str(self.processes)]
        subprocess.run(list(map(str, command)), check=True)
        return result

    def fit(self, stage: Stage) -> None:
        """Train one stage, in this process and, where asked for, others."""
        recipe = read_recipe(RECIPES / f"{stage.recipe}.toml")
        parts = tuple(
            part if part.kind == "negatives" else replace(part, folds=tuple(stage.folds))
            for part in recipe.data
        )
        epochs = stage.epochs or recipe.epochs
        at_once = epochs if self.part < 1.0 else 1
        recipe = replace(
            recipe,
            start=stage.start and str(self.work / stage.start),
            data=parts,
            validation=(),
            tune=False,
            epochs=epochs // at_once,
            epoch_examples=max(32, round(self.part * at_once * recipe.epoch_examples)),
        )
        if self.processes > 1 and self.device == "cpu":
            torch.set_num_threads(max(1, torch.get_num_threads() // self.processes))
        name = f"{stage.recipe}{suffix(tuple(stage.folds))}"
        fit(
            recipe,
            self.data / "homesounds" if all(part.kind != "negatives" for part in parts) else self.data,
            run=self.work / f"{name}.run",
            machine=Machine(
                device=self.device, devices=self.processes, precision="auto", workers=int(self.processes == 1)
            ),
            progress=_shown,
            out=self.work / f"{name}.safetensors",
            dtype=torch.float16,
        )

    def soundscapes(self, name: str, count: int, seed: int, folds: tuple[int, ...]) -> tuple[object, ...]:
        """Soundscapes of some folds; the arguments by which commands find them."""
        only = [each for fold in folds for each in ("--fold", fold)]
        made = ("soundscapes", "home", "--data", self.data / "homesounds", "-o", name)
        self.run(name, *made, "--count", max(8, round(self.part * count)), "--seed", seed, *only)
        return f"{name}/reference.tsv", "--audio", f"{name}/audio"

    def negatives(self, table: str) -> tuple[object, ...]:
        return "--negatives", self.data / "elsewhere" / table

    def evaluate(self, result: str, on: tuple[object, ...], checkpoint: str, *more: object) -> dict[str, Any]:
        given = (*on, *self.negatives("fold4.tsv"), "-c", checkpoint, "--reliability", "--bootstrap", 1000)
        files = ("--json", result, "--plot", f"{Path(result).stem}.png")
        path = self.run(result, "evaluate", *given, *files, *more, *self.options)
        return {metric["name"]: metric for metric in json.loads(path.read_text())["metrics"]}


@dataclass(frozen=True)
class Stage:
    """One training.

    Attributes:
        recipe: name of its recipe.
        folds: of homesounds.
        start: file in the work folder to begin from, or empty.
        epochs: if not 0, instead of the recipe's.
    """

    recipe: str
    folds: tuple[int, ...]
    start: str = ""
    epochs: int = 0


def suffix(folds: tuple[int, ...]) -> str:
    return "" if folds == ALL else f"-{''.join(map(str, folds))}"


def _shown(step: int, steps: int, _: object) -> None:
    if step % 50 == 0:
        print(f"{step} of {steps} steps", flush=True)


def make(bench: Bench, folds: tuple[int, ...], first: Path | None) -> str:
    """Train, tune and calibrate a checkpoint like the bundled one on some folds; return its file."""
    if first is None:
        begun = bench.train("home", (1, 2, 3))
    else:
        begun = bench.train("home", (1, 2, 3), start=str(first.resolve()), epochs=14)
    every = bench.train("home-all", folds, start=begun)
    silent = bench.train("home-silent", folds, start=every)
    more = bench.train("home-silent-more", folds, start=silent)
    end = f"{suffix(folds)}.safetensors"
    mean = ("checkpoints", "average", silent, more, "--float16", "-o", f"home-mean{end}")
    bench.run(f"home-mean{end}", *mean)
    tuning = (
        "tune",
        *bench.soundscapes(f"tune{suffix(folds)}", 1500, 31, folds),
        "--folds",
        4,
        *bench.options,
    )
    bench.run(f"home-filters{end}", *tuning, "-c", f"home-mean{end}", "--into", f"home-filters{end}")
    bench.run(
        f"home-tuned{end}",
        *(*tuning, "--method", "threshold-alone", "--false-alarms-per-hour", 10),
        *(*bench.negatives("folds123.tsv"), "-c", f"home-filters{end}", "--into", f"home-tuned{end}"),
    )
    result = f"home-bundled{end}"
    bench.run(
        result,
        *("checkpoints", "calibrate-scores", *bench.soundscapes(f"calibrate{suffix(folds)}", 400, 33, folds)),
        *(*bench.negatives("fold4.tsv"), "--lower", 0.3, *bench.options),
        *("-c", f"home-tuned{end}", "--into", result),
    )
    return result


def card(bench: Bench, checkpoint: str) -> None:
    """Print the tables of the card: known sources, negatives, reliability, and the same with four shifts."""
    heard = bench.soundscapes("heard", 400, 32, ALL)
    found = {
        "one": bench.evaluate("one.json", heard, checkpoint),
        "four shifts": bench.evaluate("four.json", heard, checkpoint, "--shifts", 4),
    }
    show(found)
    one = found["one"]
    time = one["false_alarms"]["headline"]["time"]
    print("\nfalse alarms cover", *(f"{100 * time[name]:.1f} %" for name in ("value", "low", "high")))
    for label, own in one["present"]["classes"].items():
        print(label, own)
    print("\n| kind | recordings | share of time, % |\n|---|---|---|")
    for kind, own in one["false_alarms_by_kind"]["classes"].items():
        print(f"| {kind} | {own['recordings']:.0f} | {100 * own['time']:.1f} |")
    reliability(one)


def unheard(bench: Bench, first: Path | None) -> None:
    """Print how a model that was not trained on fold 4 scores on it, and on the folds of its training."""
    checkpoint = make(bench, (1, 2, 3), first)
    heard = bench.soundscapes("heard-123", 300, 42, (1, 2, 3))
    fourth = bench.soundscapes("fold4", 400, 43, (4,))
    found = {
        "known sources": bench.evaluate("known-sources.json", heard, checkpoint),
        "fold 4": bench.evaluate("fold-4.json", fourth, checkpoint),
    }
    show(found)
    reliability(found["fold 4"])


def reliability(found: dict[str, Any]) -> None:
    """Print how often events are right, by printed score."""
    print("\n| score | events | right, % |\n|---|---|---|")
    for interval, own in found["reliability_by_score"]["classes"].items():
        print(f"| {interval} | {own['events']:.0f} | {100 * own['right_share']:.0f} |")


def show(found: dict[str, dict[str, Any]]) -> None:
    """Print a table with a column for each evaluation."""
    print("| figure |", " | ".join(found), "|")
    print("|---" * (len(found) + 1) + "|")
    for metric, (name, figure, unit) in FIGURES.items():
        scores = [own[metric]["headline"][figure] for own in found.values()]
        digits = 1 if unit == 100.0 else 0 if metric == "false_alarms" else 3
        cells = [
            f"{unit * s['value']:.{digits}f} ({unit * s['low']:.{digits}f} to {unit * s['high']:.{digits}f})"
            for s in scores
        ]
        print("|", name, "|", " | ".join(cells), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("make", "card", "unheard", "stage"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("-c", "--checkpoint", default="home")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--part", type=float, default=1.0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--first", type=Path)
    parser.add_argument("--stage", type=json.loads, help="one training, as JSON; the other commands use it")
    given = parser.parse_args()
    bench = Bench(given.data, given.output, given.device, given.part, given.processes)
    if given.what == "stage":
        bench.fit(Stage(**given.stage))
    elif given.what == "make":
        make(bench, ALL, given.first)
    elif given.what == "card":
        card(bench, given.checkpoint)
    else:
        unheard(bench, given.first)


if __name__ == "__main__":
    main()
