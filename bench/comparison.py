"""HTS-AT beside a CRNN of the DCASE baseline's kind, and recipes beside each other, for the same time.

python bench/comparison.py recipes/home.toml --data homesounds/ [--minutes 20] [--only 0]

Every variant is trained from scratch on one thread. Data, soundscapes, masks, shape of the model, losses,
batch size, highest learning rate and decay are the recipe's; the optimiser is the variant's, weights are not
averaged and heads begin at 0, lest a variant gain by what was chosen for another. Thresholds and filters
are tuned on some soundscapes of the recipe's validation folds and scored on others. Time is the processor's,
so that other work does not count.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from htsat_sed.detection.events import Event
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.evaluate import evaluate_strong
from htsat_sed.evaluation.report import Settings
from htsat_sed.evaluation.tables import pair
from htsat_sed.evaluation.tuning import tune
from htsat_sed.model.frontend import LogMel
from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.training.augmentation import masked
from htsat_sed.training.batches import Batches, Deal
from htsat_sed.training.data import read_clips
from htsat_sed.training.examples import Example, SoundscapeSeries, Window
from htsat_sed.training.module import make_optimiser
from htsat_sed.training.recipe import DataRecipe, Recipe, read_recipe
from htsat_sed.training.soundscapes import Soundscapes, read_sources

TOKENS = 250  # of the CRNN a window: 40 ms each
CHANNELS = (16, 32, 64, 128, 128, 128, 128)
POOLING = ((2, 2), (2, 2), (1, 2), (1, 2), (1, 2), (1, 2), (1, 1))  # time, frequency
TUNED_ON = 150


class Out(NamedTuple):
    """Logits of tokens (B, T, K) and of clips (B, K)."""

    presence_logits: Tensor
    clip_logits: Tensor


class CRNN(nn.Module):
    """Seven gated convolutions, two bidirectional GRUs, a strong output and an attention-pooled weak one."""

    def __init__(self, config: HTSATConfig) -> None:
        super().__init__()
        self.frontend = LogMel(
            sample_rate=config.sample_rate,
            n_fft=config.n_fft,
            hop_length=config.hop_length,
            mel_bands=config.mel_bands,
            fmin=config.fmin,
            fmax=config.fmax,
        )
        self.bn0 = nn.BatchNorm1d(config.mel_bands)
        layers: list[nn.Module] = []
        for before, channels, pooling in zip((1, *CHANNELS), CHANNELS, POOLING, strict=False):
            layers += [
                nn.Conv2d(before, 2 * channels, 3, padding=1),
                nn.BatchNorm2d(2 * channels),
                nn.GLU(dim=1),
                nn.Dropout(0.5),
                nn.AvgPool2d(pooling),
            ]
        self.cnn = nn.Sequential(*layers)
        self.rnn = nn.GRU(CHANNELS[-1], 128, 2, batch_first=True, bidirectional=True)
        self.strong = nn.Linear(256, config.classes)
        self.attention = nn.Linear(256, config.classes)

    def normalise(self, logmel: Tensor) -> Tensor:
        return self.bn0(logmel.mT).mT

    def from_normalised(self, logmel: Tensor) -> Out:
        grid = self.cnn(logmel[:, None, : 4 * TOKENS])  # (B, C, T, 1)
        hidden, _ = self.rnn(grid.squeeze(3).mT)
        hidden = F.dropout(hidden, 0.5, self.training)
        logits = self.strong(hidden)
        weights = self.attention(hidden).softmax(dim=1)
        pooled = (weights * logits.sigmoid()).sum(dim=1).clamp(1e-6, 1 - 1e-6)
        return Out(logits, pooled.logit())


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the table."""

    model: str = "htsat"
    labels: str = "strong"
    optimiser: str = "muon"
    augmented: bool = True
    one_cycle: bool = True

    def __str__(self) -> str:
        plain = "" if self.augmented else ", no augmentation"
        rate = "" if self.one_cycle else ", constant rate"
        return f"{self.model}, {self.labels}, {self.optimiser}{plain}{rate}"


VARIANTS = (
    Variant(),
    Variant(labels="weak"),
    Variant(model="crnn", optimiser="adamw"),
    Variant(model="crnn", labels="weak", optimiser="adamw"),
    Variant(augmented=False),
    Variant(one_cycle=False),
    Variant(optimiser="adamw"),
)


def without_augmentation(recipe: Recipe) -> Recipe:
    """Clips are placed and levelled at random all the same: that is what makes them soundscapes."""
    return replace(
        recipe,
        augmentation=replace(recipe.augmentation, time_masks=0, band_masks=0),
        soundscapes=replace(recipe.soundscapes, speed=0.0, equaliser_db=0.0, reverberant=0.0),
    )


def train(
    model: HTSAT | CRNN, recipe: Recipe, variant: Variant, loader: DataLoader, *, seconds: float
) -> int:
    """Train until the processor time is spent; the number of steps."""
    optimiser = make_optimiser(model, recipe)
    token_loss, clip_loss = (
        (recipe.token_loss, recipe.clip_loss) if variant.labels == "strong" else (0.0, 1.0)
    )
    model.train()
    started = time.process_time()
    steps = 0
    for batch in loader:
        done = (time.process_time() - started) / seconds
        if done >= 1.0:
            break
        fall = 0.5 * (1 + math.cos(math.pi * (done - 0.08) / 0.92)) if variant.one_cycle else 1.0
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * (done / 0.08 if done < 0.08 else fall)
        with torch.no_grad():
            logmel = model.frontend(batch.waveforms)
        out = model.from_normalised(masked(model.normalise(logmel), recipe.augmentation))
        tokens = F.binary_cross_entropy_with_logits(out.presence_logits, batch.tokens)
        clip = F.binary_cross_entropy_with_logits(out.clip_logits, batch.clip)
        optimiser.zero_grad()
        (token_loss * tokens + clip_loss * clip).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
        optimiser.step()
        steps += 1
    return steps


@torch.inference_mode()
def maps_of(
    model: HTSAT | CRNN, examples: list[Example], window: Window
) -> tuple[dict[str, list[Event]], dict[str, PresenceMap]]:
    """References and presence maps of soundscapes."""
    model.eval()
    reference, maps = {}, {}
    for number, example in enumerate(examples):
        name = f"{number:04d}"
        logmel = model.frontend(torch.from_numpy(example.waveform)[None])
        scores = model.from_normalised(model.normalise(logmel)).presence_logits.sigmoid()[0].numpy()
        reference[name] = list(example.events or ())
        maps[name] = PresenceMap(scores, window.labels, window.token_seconds, 10.0)
    return reference, maps


def score(model: HTSAT | CRNN, series: SoundscapeSeries, count: int, window: Window) -> str:
    """Tune on the first soundscapes, score the others."""
    reference, maps = maps_of(model, [series[i] for i in range(TUNED_ON)], window)
    tuned = tune(pair(reference, dict.fromkeys(maps, ())), maps).post_processing()
    reference, maps = maps_of(model, [series[i] for i in range(TUNED_ON, TUNED_ON + count)], window)
    report = evaluate_strong(
        reference, maps=maps, post_processing=tuned, settings=Settings(bootstrap=1000, psds_thresholds=1)
    )
    cells = []
    for metric, figure in (("intersection", "macro_f1"), ("collar", "macro_f1"), ("clip", "map")):
        found = next(m for m in report.metrics if m.name == metric).headline[figure]
        cells.append(f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})")
    return " | ".join(cells)


def soundscapes(recipe: Recipe, parts: tuple[DataRecipe, ...], data: Path, *, seed: int) -> Soundscapes:
    clips = [c for part in parts for c in read_clips(part, data, fold_count=recipe.fold_count)]
    sources = read_sources(clips, sample_rate=recipe.model.sample_rate)
    return Soundscapes(sources, recipe.soundscapes, sample_rate=recipe.model.sample_rate, seed=seed)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("recipe", type=Path)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--minutes", type=float, default=20.0)
    arguments.add_argument("--count", type=int, default=200)
    arguments.add_argument("--only", type=int, action="append", help="a row of the table, from 0; repeatable")
    asked = arguments.parse_args()
    torch.set_num_threads(1)
    recipe = read_recipe(asked.recipe)
    unheard = soundscapes(recipe, recipe.validation, asked.data, seed=1)
    config = HTSATConfig(classes=len(unheard.labels), **vars(recipe.model))
    print("variant | parameters | steps | intersection F1, % | collar F1, % | clip mAP, %")
    for variant in [VARIANTS[row] for row in asked.only] if asked.only else VARIANTS:
        own = replace(
            recipe if variant.augmented else without_augmentation(recipe),
            optimiser=variant.optimiser,
        )
        window = Window(
            sample_rate=config.sample_rate,
            samples=config.window_samples,
            tokens=TOKENS if variant.model == "crnn" else 32,
            labels=unheard.labels,
        )
        torch.manual_seed(0)
        model = CRNN(config) if variant.model == "crnn" else HTSAT(config, unheard.labels)
        series = SoundscapeSeries(soundscapes(own, own.data, asked.data, seed=0), window)
        deal = Deal(first=0, steps=10**6, accumulate=1, rank=0, world=1)
        batches = Batches([(series, 1.0)], size=recipe.batch_size, deal=deal)
        loader = DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=4)
        steps = train(model, own, variant, loader, seconds=60 * asked.minutes)
        parameters = sum(p.numel() for p in model.parameters()) / 1e6
        found = score(model, SoundscapeSeries(unheard, window), asked.count, window)
        print(f"{variant} | {parameters:.1f} M | {steps} | {found}", flush=True)


if __name__ == "__main__":
    main()
