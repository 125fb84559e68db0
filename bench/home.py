"""The bundled checkpoint, and every figure of its card.

python bench/home.py make --data data/ -o work/      train, tune, calibrate: half a day on two cores
python bench/home.py card --data data/ -o work/      score the bundled checkpoint: minutes
python bench/home.py unheard --data data/ -o work/   score a model without fold 4 on fold 4: some hours

`data/` holds homesounds/ and elsewhere/. What lies in the work folder already is not made again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

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
    """Runs commands in a work folder.

    Args:
        data: holds homesounds/ and elsewhere/.
        work: where results go.
        options: of every command that detects or trains.
    """

    def __init__(self, data: Path, work: Path, options: list[str]) -> None:
        self.data, self.work, self.options = data.resolve(), work.resolve(), options
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

    def train(self, recipe: str, result: str, *, data: str, precision: str = "float32") -> None:
        self.run(
            result,
            *("train", RECIPES / f"{recipe}.toml", "--data", self.data / data, "-o", result, "--float16"),
            *("--precision", precision, *self.options),
        )

    def soundscapes(self, name: str, count: int, seed: int, folds: tuple[int, ...]) -> tuple[object, ...]:
        """Soundscapes of some folds; the arguments by which commands find them."""
        only = [each for fold in folds for each in ("--fold", fold)]
        made = ("soundscapes", "home", "--data", self.data / "homesounds", "-o", name)
        self.run(name, *made, "--count", count, "--seed", seed, *only)
        return f"{name}/reference.tsv", "--audio", f"{name}/audio"

    def negatives(self, table: str) -> tuple[object, ...]:
        return "--negatives", self.data / "elsewhere" / table

    def tune(self, on: tuple[object, ...], checkpoint: str, result: str, *more: object) -> None:
        limit = ("--method", "threshold-alone", "--false-alarms-per-hour", 10, "--folds", 4)
        given = (*on, *self.negatives("folds123.tsv"), *limit, *more, *self.options)
        self.run(result, "tune", *given, "-c", checkpoint, "--into", result)

    def evaluate(self, result: str, on: tuple[object, ...], checkpoint: str, *more: object) -> dict[str, Any]:
        given = (*on, *self.negatives("fold4.tsv"), "-c", checkpoint, "--reliability", "--bootstrap", 1000)
        files = ("--json", result, "--plot", f"{Path(result).stem}.png")
        path = self.run(result, "evaluate", *given, *files, *more, *self.options)
        return {metric["name"]: metric for metric in json.loads(path.read_text())["metrics"]}


def make(bench: Bench) -> None:
    """Train, tune and calibrate a checkpoint like the bundled one: work/home-bundled.safetensors."""
    bench.train("home", "home.safetensors", data="homesounds")
    bench.train("home-all", "home-all.safetensors", data="homesounds")
    bench.train("home-silent", "home-silent.safetensors", data=".", precision="bfloat16")
    bench.train("home-silent-more", "home-silent-more.safetensors", data=".", precision="bfloat16")
    stages = ("home-silent.safetensors", "home-silent-more.safetensors")
    average = ("checkpoints", "average", *stages, "--float16", "-o", "home-mean.safetensors")
    bench.run("home-mean.safetensors", *average)
    tuning = bench.soundscapes("tune", 1500, 31, ALL)
    bench.tune(tuning, "home-mean.safetensors", "home-tuned.safetensors")
    bench.run(
        "home-bundled.safetensors",
        *("checkpoints", "calibrate-scores", *bench.soundscapes("calibrate", 400, 33, ALL)),
        *(*bench.negatives("fold4.tsv"), "--lower", 0.3, *bench.options),
        *("-c", "home-tuned.safetensors", "--into", "home-bundled.safetensors"),
    )


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
    print("\n| score | events | right, % |\n|---|---|---|")
    for interval, own in one["reliability_by_score"]["classes"].items():
        print(f"| {interval} | {own['events']:.0f} | {100 * own['right_share']:.0f} |")


def unheard(bench: Bench) -> None:
    """Print how a model that was not trained on fold 4 scores on it, and on the folds of its training."""
    bench.train("home", "home.safetensors", data="homesounds")
    bench.train("home-unheard", "home-unheard.safetensors", data=".", precision="bfloat16")
    tuning = bench.soundscapes("tune3", 500, 41, (1, 2, 3))
    bench.tune(tuning, "home-unheard.safetensors", "home-unheard-tuned.safetensors")
    sets = {
        "known sources": bench.soundscapes("heard3", 300, 42, (1, 2, 3)),
        "fold 4": bench.soundscapes("fold4", 400, 43, (4,)),
    }
    show(
        {
            name: bench.evaluate(f"{name.replace(' ', '-')}.json", on, "home-unheard-tuned.safetensors")
            for name, on in sets.items()
        }
    )


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
    parser.add_argument("what", choices=("make", "card", "unheard"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("-c", "--checkpoint", default="home")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    bench = Bench(given.data, given.output, ["--device", given.device])
    if given.what == "make":
        make(bench)
    elif given.what == "card":
        card(bench, given.checkpoint)
    else:
        unheard(bench)


if __name__ == "__main__":
    main()
