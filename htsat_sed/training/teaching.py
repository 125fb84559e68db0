"""Own classes from a few clips: fine-tuned, validated on clips of other sources, with thresholds.

    clips ─ folds ─▶ one model a fold, trained on the other folds ─▶ scores of clips it was not trained on
                         └─ mean of the weights ─▶ the checkpoint      └─▶ thresholds, figures

All models begin with the same weights and take few steps, so that the mean of their weights is a model, too.
It was trained on all clips, and the figures of the models of the folds are a cautious estimate of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

import htsat_sed
from htsat_sed.audio import read
from htsat_sed.detection.events import Event, PostProcessing, find_events
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.errors import CheckpointError
from htsat_sed.evaluation.class_scores import Choice
from htsat_sed.evaluation.false_alarm_limit import Limit
from htsat_sed.evaluation.report import Settings
from htsat_sed.evaluation.tables import Pair, pair
from htsat_sed.evaluation.threshold_curves import ThresholdCurves
from htsat_sed.evaluation.tuning import tune
from htsat_sed.model.catalogue import resolve_checkpoint
from htsat_sed.model.checkpoint import load_checkpoint, save_checkpoint
from htsat_sed.model.htsat import CHUNKS, HTSAT, TOKENS, HTSATConfig, fold, stretch
from htsat_sed.training.collection import Collection, Labelled, write_tables
from htsat_sed.training.data import Clip
from htsat_sed.training.examples import ExampleShape, SoundscapeSeries
from htsat_sed.training.fit import Machine, StepProgress, fit, read_tables, series_of
from htsat_sed.training.recipe import DataRecipe, ModelRecipe, Recipe, SoundscapeRecipe
from htsat_sed.training.soundscapes import Soundscapes, read_backgrounds, read_sources
from htsat_sed.training.start import start_model
from htsat_sed.whole_file import remove_unfinished

BATCH = 16
_STEPS = 50, 160  # of a fold's model: fewest, most
_STEPS_PER_CLIP = 0.15
_HEAD_EXAMPLES = 200
_HEAD_STEPS = 300
_SOUNDSCAPES = 72  # that thresholds are chosen on, of all folds
_RESAMPLINGS = 1000
_DOUBT = 0.3  # by which another class's score exceeds that of a clip's own
_MIX = SoundscapeRecipe(silent=0.15, background=0.5)


@dataclass(frozen=True, kw_only=True)
class TeachingOptions:
    """How a model is taught.

    Attributes:
        start: checkpoint or encoder, see `start_model`; empty for a model from scratch.
        head_only: keep the encoder as it is, and train the head alone.
        keep_classes: keep the classes of `start`, whose scores stay as they were; implies `head_only`.
        precision: wanted of events, if it can be had.
        false_alarms: per hour of negatives, at most, of all classes together; None without negatives.
        steps: of training; None for a number that follows from that of the clips.
        seed: of everything random.
    """

    start: str
    head_only: bool = False
    keep_classes: bool = False
    precision: float = 0.75
    false_alarms: float = 10.0
    steps: int | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Figures:
    """How a class was found in clips that a model was not trained on.

    Attributes:
        clips: how many.
        values: precision, recall, F1 and AP -> value and its 95 % interval over sources; None where nothing
            tells.
    """

    clips: int
    values: Mapping[str, tuple[float, float, float] | None]


@dataclass(frozen=True, eq=False)
class Taught:
    """What came out.

    Attributes:
        model: with all classes; in evaluation mode.
        figures: by class, of clips.
        confusions: class, other class, clips of the first in which the second was found.
        doubtful: clips that look mislabelled: the clip, the class that scored highest, and both scores.
        event_f1: of the soundscapes that thresholds were chosen on, by class: held out by cross-validation.
        false_alarms: in negatives, per hour; None without negatives.
    """

    model: HTSAT
    figures: Mapping[str, Figures]
    confusions: Sequence[tuple[str, str, int]]
    doubtful: Sequence[tuple[Labelled, str, float, float]]
    event_f1: Mapping[str, float]
    false_alarms: float | None


def teach(
    collection: Collection,
    options: TeachingOptions,
    *,
    run: Path,
    out: Path,
    machine: Machine | None = None,
    progress: Callable[[int, int], StepProgress] = lambda fold, folds: lambda *_: None,
    restart: bool = False,
) -> Taught:
    """Teach a model; a run that was interrupted goes on where it was saved last.

    Args:
        collection: clips.
        options: how.
        run: folder for the tables and states of the folds.
        out: checkpoint to be written.
        machine: what it runs on.
        progress: makes what hears of the progress of a fold.
        restart: train anew.

    Raises:
        CheckpointError: the start cannot be read.
        HtsatSedError: `run` or `out` cannot be written.
    """
    before = load_checkpoint(resolve_checkpoint(options.start)) if options.keep_classes else None
    folds = collection.folds
    models: list[HTSAT] = []
    for number in range(1, folds + 1):
        data = run / f"fold-{number}"
        write_tables(collection, data, without=number if folds > 1 else 0)
        recipe = make_recipe(collection, options, data, seed=options.seed)
        if options.head_only or options.keep_classes:
            models.append(train_head(recipe, data, progress(number, folds)))
        else:
            state = data / "state"
            models.append(
                fit(
                    recipe,
                    data,
                    run=state,
                    machine=machine,
                    progress=progress(number, folds),
                    restart=restart,
                )
            )
    model = mean_of(models)
    taught = _validated(collection, models, model, options)
    if before is not None:
        _join_classes(model, before)
    model.provenance = _provenance(collection, taught, options)
    remove_unfinished([out])
    save_checkpoint(out, model)
    return taught


def make_recipe(collection: Collection, options: TeachingOptions, data: Path, *, seed: int) -> Recipe:
    """The recipe of one fold; `data` holds its tables."""
    steps = options.steps or round(
        min(max(_STEPS[0], _STEPS_PER_CLIP * len(collection.clips) + 38), _STEPS[1])
    )
    # Times of active parts are exact in soundscapes; clips as they are keep what the mixture changes.
    clips = DataRecipe(kind="clips", table="clips.tsv", audio=".", mix=True, share=0.75)
    parts = [clips, replace(clips, mix=False, share=0.25, balanced=True)]
    if (data / "negatives.tsv").is_file():
        negatives = DataRecipe(kind="negatives", table="negatives.tsv", audio=".", mix=True, share=0.05)
        parts += [negatives, replace(negatives, mix=False, share=0.2)]
    return Recipe(
        data=tuple(parts),
        labels=collection.labels,
        start=options.start,
        epochs=1,
        epoch_examples=steps * BATCH,
        batch_size=BATCH,
        learning_rate=5e-4,
        token_loss=2.0,
        clip_loss=0.5,
        presence_bias=-3.0,
        ema_decay=0.95,
        tune=False,
        frozen=("relative_position_bias_table",),
        seed=seed,
        model=_model_recipe(options.start),
        soundscapes=_MIX,
    )


def _model_recipe(start: str) -> ModelRecipe:
    """Sample rate and hop of a checkpoint; those of a new model for an encoder without a head.

    Without a start, the shape of the bundled checkpoint.
    """
    if not start:
        return ModelRecipe(embed_dim=48, depths=(2, 2, 2, 2), heads=(2, 4, 8, 16), drop_path=0.05)
    try:
        config = load_checkpoint(resolve_checkpoint(start)).config
    except CheckpointError:
        return ModelRecipe()
    return ModelRecipe(sample_rate=config.sample_rate, hop_length=config.hop_length)


def rate_of(start: str) -> int:
    """Sample rate of the model that starts there, Hz."""
    return _model_recipe(start).sample_rate


def train_head(recipe: Recipe, data: Path, progress: StepProgress) -> HTSAT:
    """Train the head of a model alone, on the features of soundscapes that are computed once.

    Args:
        recipe: of a fold.
        data: its tables.
        progress: as for `fit`, of examples.
    """
    tables = read_tables(recipe, data)
    held = series_of(recipe, tables)
    torch.manual_seed(recipe.seed)
    config = HTSATConfig(classes=len(tables.labels), **asdict(recipe.model))
    model = start_model(config, tables.labels, recipe.start, presence_bias=recipe.presence_bias).eval()
    shares = np.array([share for _, share in held.parts])
    part_of = np.random.default_rng(recipe.seed).choice(len(shares), _HEAD_EXAMPLES, p=shares / shares.sum())
    features, targets = [], []
    for number, part in enumerate(part_of):
        example = held.parts[part][0][number]
        with torch.inference_mode():
            features.append(_features(model, torch.from_numpy(example.waveform)[None]))
        targets.append(torch.from_numpy(example.tokens))
        progress(number + 1, _HEAD_EXAMPLES, {})
    inputs, wanted = torch.cat(features).clone(), (torch.stack(targets) > 0.5).float()
    head = model.tscam_conv
    optimiser = torch.optim.AdamW(head.parameters(), lr=5e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=_HEAD_STEPS)
    for _ in range(_HEAD_STEPS):
        rows = torch.randint(len(inputs), (64,))
        logits = head(inputs[rows]).squeeze(2).transpose(1, 2)
        loss = F.binary_cross_entropy_with_logits(logits, wanted[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return model


def _features(model: HTSAT, waveforms: torch.Tensor) -> torch.Tensor:
    """What the head sees: (B, D, 2, 32)."""
    grid = model.backbone(fold(stretch(model.normalise(model.frontend(waveforms)))))
    batch, _, dim = grid.shape
    unfolded: torch.Tensor = (
        grid.view(batch, CHUNKS, 2, 8, dim).permute(0, 4, 2, 1, 3).reshape(batch, dim, 2, TOKENS)
    )
    return unfolded


def mean_of(models: Sequence[HTSAT]) -> HTSAT:
    """A model whose weights are the means of those of some models."""
    states = [model.state_dict() for model in models]
    mean = HTSAT(models[0].config, models[0].labels)
    mean.load_state_dict(
        {
            name: torch.stack([state[name] for state in states]).mean(dim=0)
            if array.is_floating_point()
            else array
            for name, array in states[0].items()
        }
    )
    return mean.eval()


def _join_classes(model: HTSAT, old: HTSAT) -> None:
    """Put a model's classes behind those of another one with the same encoder; same names are replaced."""
    kept = [i for i, label in enumerate(old.labels) if label not in model.labels]
    head = torch.nn.Conv2d(
        model.tscam_conv.in_channels, len(kept) + len(model.labels), (2, 3), padding=(0, 1)
    )
    joined = {
        name: torch.cat([array[kept], model.tscam_conv.state_dict()[name]])
        for name, array in old.tscam_conv.state_dict().items()
    }
    head.load_state_dict(joined)
    own = PostProcessing().override(old.post_processing or {}).to_dict()
    rules = dict(own.get("classes", {})) | dict((model.post_processing or {}).get("classes", {}))
    labels = (*(old.labels[i] for i in kept), *model.labels)
    model.tscam_conv = head
    model.labels = labels
    model.config = replace(model.config, classes=len(labels))
    model.post_processing = own | {"classes": {label: rules[label] for label in labels if label in rules}}
    model.eval()


def _validated(
    collection: Collection, models: Sequence[HTSAT], model: HTSAT, options: TeachingOptions
) -> Taught:
    """Choose thresholds on soundscapes, and score clips, of sources that each model was not trained on."""
    maps, events = soundscape_maps(collection, models, options.seed)
    tested = [c for c in collection.clips if c.fold and (len(models) > 1 or not c.label)]
    of_clips = {clip.path: _map_of(models[(clip.fold - 1) % len(models)], clip) for clip in tested}
    quiet = {str(clip.path): of_clips[clip.path] for clip in tested if not clip.label}
    rules, f1 = choose_rules(events, maps, quiet, collection.labels, options)
    model.post_processing = rules.to_dict()
    found = {clip.path: {event.label for event in find_events(of_clips[clip.path], rules)} for clip in tested}
    peaks = {clip.path: of_clips[clip.path].scores.max(axis=0) for clip in tested}
    labelled = [clip for clip in tested if clip.label]
    figures = {
        label: _figures(label, k, tested, found, peaks, options.seed)
        for k, label in enumerate(collection.labels)
    }
    confusions = [
        (one, other, sum(other in found[clip.path] for clip in labelled if clip.label == one))
        for one in collection.labels
        for other in collection.labels
        if one != other
    ]
    seconds = sum(clip.duration for clip in tested if not clip.label)
    alarms = sum(len(find_events(of_clips[clip.path], rules)) for clip in tested if not clip.label)
    return Taught(
        model=model,
        figures=figures,
        confusions=sorted((c for c in confusions if c[2]), key=lambda c: -c[2]),
        doubtful=_doubtful([c for c in labelled if c.label not in found[c.path]], peaks, collection.labels),
        event_f1=f1,
        false_alarms=3600.0 * alarms / seconds if seconds else None,
    )


def as_clip(clip: Labelled) -> Clip:
    """A clip for the training, with the times of its active part."""
    events = (Event(clip.onset, clip.offset, clip.label),) if clip.label else None
    return Clip(clip.path, frozenset([clip.label]) if clip.label else frozenset(), events)


def soundscape_maps(
    collection: Collection, models: Sequence[HTSAT], seed: int
) -> tuple[dict[str, PresenceMap], dict[str, list[Event]]]:
    """Presence maps and events of soundscapes of each fold, by the model that was not trained on it."""
    maps: dict[str, PresenceMap] = {}
    events: dict[str, list[Event]] = {}
    for number, model in enumerate(models, 1):
        config = model.config
        own = [as_clip(c) for c in collection.clips if len(models) == 1 or c.fold == number]
        sources = read_sources(own, sample_rate=config.sample_rate)
        if not sources:
            continue
        series = SoundscapeSeries(
            Soundscapes(
                sources,
                _MIX,
                sample_rate=config.sample_rate,
                seed=seed + 1000 + number,
                backgrounds=read_backgrounds(own, sample_rate=config.sample_rate),
            ),
            ExampleShape(
                sample_rate=config.sample_rate,
                samples=config.window_samples,
                tokens=TOKENS,
                labels=model.labels,
            ),
        )
        for i in range(-(-_SOUNDSCAPES // len(models))):
            example = series[i]
            name = f"{number}-{i:05d}"
            maps[name] = _map(model, example.waveform)
            events[name] = list(example.events or ())
    return maps, events


@torch.inference_mode()
def _map(model: HTSAT, samples: NDArray[np.float32]) -> PresenceMap:
    """The presence map of a stretch; windows do not overlap."""
    config = model.config
    length = config.window_samples
    count = max(1, math.ceil(len(samples) / length))
    padded = np.pad(samples, (0, count * length - len(samples))).reshape(count, length)
    scores = np.concatenate(
        [model.scores(model(torch.from_numpy(window[None])).presence_logits)[0].numpy() for window in padded]
    )
    duration = len(samples) / config.sample_rate
    tokens = max(1, math.ceil(len(samples) * TOKENS / length))
    return PresenceMap(scores[:tokens], model.labels, config.token_seconds, duration)


def _map_of(model: HTSAT, clip: Labelled) -> PresenceMap:
    return _map(model, read(clip.path, model.config.sample_rate))


def choose_rules(
    events: Mapping[str, Sequence[Event]],
    maps: Mapping[str, PresenceMap],
    quiet: Mapping[str, PresenceMap],
    labels: Sequence[str],
    options: TeachingOptions,
) -> tuple[PostProcessing, dict[str, float]]:
    """Post-processing with the best F1 that precision and false alarms allow, and F1 held out by class."""
    reference = {name: list(own) for name, own in events.items()}
    if not any(reference.values()) or len(maps) < 5:
        return PostProcessing(), {}
    pairs = pair(reference, dict.fromkeys(maps, ()))
    limit = Limit(maps=quiet, table={}, per_hour=options.false_alarms) if quiet else None
    tuning = tune(pairs, maps, limit=limit, seed=options.seed)
    rules = tuning.post_processing().to_dict()
    for label, choice in zip(tuning.labels, tuning.choices, strict=True):
        rules["classes"][label] = _precise(pairs, maps, label, choice, options.precision).values()
    held_out = {label: worth.held_out for label, worth in tuning.by_class().items()}
    return PostProcessing().override(rules), {label: held_out.get(label, math.nan) for label in labels}


def _precise(
    events: Pair, maps: Mapping[str, PresenceMap], label: str, choice: Choice, precision: float
) -> Choice:
    """The choice, with the lowest threshold from its own on that has the wanted precision, if any has."""
    curves = ThresholdCurves(events, maps, label, "intersection", Settings())
    for threshold in [choice.threshold, *np.arange(0.05, 1.0, 0.025)]:
        candidate = replace(choice, threshold=float(threshold))
        counts = curves.counts(candidate)
        tp, fp = float(counts.tp.sum()), float(counts.fp.sum())
        if threshold >= choice.threshold and tp > 0.0 and tp >= precision * (tp + fp):
            return candidate
    return choice


def _figures(
    label: str,
    column: int,
    clips: Sequence[Labelled],
    found: Mapping[Path, set[str]],
    peaks: Mapping[Path, NDArray[np.float32]],
    seed: int,
) -> Figures:
    """Precision, recall, F1 and AP of a class over clips, with intervals over resamplings of sources."""
    is_own = np.array([clip.label == label for clip in clips], np.bool_)
    if not is_own.any():
        return Figures(0, dict.fromkeys(("precision", "recall", "F1", "AP")))
    is_found = np.array([label in found[clip.path] for clip in clips])
    scores = np.array([peaks[clip.path][column] for clip in clips])
    names = sorted({clip.source for clip in clips})
    source = np.array([names.index(clip.source) for clip in clips])
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(names), np.full(len(names), 1.0 / len(names)), _RESAMPLINGS)[:, source]
    order = np.argsort(-scores, kind="stable")
    drawn = np.stack([_values(is_own, is_found, order, w) for w in weights])
    whole = _values(is_own, is_found, order, np.ones(len(clips)))
    values: dict[str, tuple[float, float, float] | None] = {}
    for i, name in enumerate(("precision", "recall", "F1", "AP")):
        if np.isnan(whole[i]):
            values[name] = None
        else:
            low, high = np.nanquantile(drawn[:, i], (0.025, 0.975))
            values[name] = float(whole[i]), float(low), float(high)
    return Figures(int(is_own.sum()), values)


def _values(
    is_own: NDArray[np.bool_], is_found: NDArray[np.bool_], order: NDArray[np.int64], weights: NDArray[Any]
) -> NDArray[np.float64]:
    """Precision, recall, F1 and AP of clips that count by weights; NaN where nothing tells."""
    tp = float(weights[is_own & is_found].sum())
    positive, claimed = float(weights[is_own].sum()), float(weights[is_found].sum())
    ranked, hits = np.cumsum(weights[order]), np.cumsum((weights * is_own)[order])
    gained = (weights * is_own)[order]
    average = float((gained * hits / np.maximum(ranked, 1.0)).sum()) / positive if positive else np.nan
    return np.array(
        [
            tp / claimed if claimed else np.nan,
            tp / positive if positive else np.nan,
            2.0 * tp / (positive + claimed) if positive + claimed else np.nan,
            average,
        ]
    )


def _doubtful(
    clips: Sequence[Labelled], peaks: Mapping[Path, NDArray[np.float32]], labels: Sequence[str]
) -> list[tuple[Labelled, str, float, float]]:
    """Of clips in which their class was not found, those where another one scores far higher."""
    doubtful: list[tuple[Labelled, str, float, float]] = []
    for clip in clips:
        scores = peaks[clip.path]
        best, own = int(scores.argmax()), float(scores[list(labels).index(clip.label)])
        if float(scores[best]) - own > _DOUBT:
            doubtful.append((clip, labels[best], float(scores[best]), own))
    return sorted(doubtful, key=lambda d: d[3] - d[2])


def _provenance(collection: Collection, taught: Taught, options: TeachingOptions) -> dict[str, Any]:
    return {
        "taught": asdict(options),
        "clips": {label: len(collection.of(label)) for label in collection.labels},
        "negatives": len(collection.of("")),
        "folds": collection.folds,
        "validation": {
            label: {name: None if v is None else v[0] for name, v in own.values.items()}
            for label, own in taught.figures.items()
        },
        "event F1": {label: value for label, value in taught.event_f1.items() if not math.isnan(value)},
        "false alarms per hour": taught.false_alarms,
        "versions": {"htsat_sed": htsat_sed.__version__, "torch": torch.__version__},
    }
