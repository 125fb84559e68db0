"""Teaching a model own classes from a few clips: cross-validated fine-tuning with tuned thresholds.

    clips ─ folds ─▶ one model per fold, trained on the other folds ─▶ held-out scores
                         └─ mean of the weights ─▶ checkpoint            └─▶ thresholds, calibration, metrics

All models start from the same weights and take few steps, so the mean of their weights works as a model. It
has been trained on all clips. The metrics of the fold models are a conservative estimate of its metrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import htsat_sed
from htsat_sed.detection.events import find_events
from htsat_sed.errors import CheckpointError
from htsat_sed.model.catalogue import resolve_checkpoint
from htsat_sed.model.checkpoint import load_checkpoint, save_checkpoint
from htsat_sed.model.htsat import HTSAT
from htsat_sed.post_processing import PostProcessing
from htsat_sed.training.clip_figures import (
    ClassFigures,
    Doubt,
    ScoredClip,
    alarms,
    class_figures,
    confusions,
    doubts,
)
from htsat_sed.training.collection import Collection, write_tables
from htsat_sed.training.fit import Machine, StepProgress, fit
from htsat_sed.training.head import join_classes, train_head
from htsat_sed.training.held_out import (
    HeldOut,
    alarms_per_hour,
    choose_post_processing,
    score_held_out,
)
from htsat_sed.training.recipe import DataRecipe, ModelRecipe, Recipe, SoundscapeRecipe
from htsat_sed.whole_file import remove_unfinished

BATCH = 16
_STEPS = 45, 160  # fewest and most steps of a fold
_STEPS_PER_CLIP = 0.15
# A few clips do not improve the lower half of a trained encoder; its gradients take half the time of a step.
_FROZEN = ("relative_position_bias_table", "bn0", "patch_embed", "layers.0.", "layers.1.")
_MIX = SoundscapeRecipe(silent=0.15, background=0.5)


@dataclass(frozen=True, kw_only=True)
class TeachingOptions:
    """Settings of `teach`.

    Attributes:
        start: checkpoint or encoder, see `start_model`; empty for random weights.
        head_only: freeze the encoder and train only the head.
        keep_classes: keep the classes of `start`, whose scores do not change; implies `head_only`.
        precision: target precision of events, in [0, 1]; ignored for a class if no threshold reaches it.
        false_alarms: upper limit of false alarms per hour of negatives and distractors, over all classes.
        caution: part of the F1 to give up for fewer false alarms if there are no negatives, in [0, 1].
        steps: training steps per fold; None for 45 to 160, depending on the number of clips.
        seed: random seed.
    """

    start: str
    head_only: bool = False
    keep_classes: bool = False
    precision: float = 0.75
    false_alarms: float = 10.0
    caution: float = 0.2
    steps: int | None = None
    seed: int = 0

    @property
    def head_alone(self) -> bool:
        """Whether only the head is trained."""
        return self.head_only or self.keep_classes


@dataclass(frozen=True, eq=False)
class Taught:
    """A taught model and its held-out metrics.

    Attributes:
        model: model with all classes, in evaluation mode.
        figures: clip-level metrics by class.
        confusions: (class, other class, clips of the class with an event of the other class).
        doubts: clips that may be mislabelled.
        alarms: negatives with an event of a class.
        event_f1: event F1 by class on soundscapes, see `choose_post_processing`.
        false_alarms: false alarms per hour of negatives; None without negatives.
        synthetic_alarms: false alarms per hour of distractors.
        negative_seconds: duration of the negatives.
    """

    model: HTSAT
    figures: Mapping[str, ClassFigures]
    confusions: Sequence[tuple[str, str, int]]
    doubts: Sequence[Doubt]
    alarms: Sequence[Doubt]
    event_f1: Mapping[str, float]
    false_alarms: float | None
    synthetic_alarms: float | None
    negative_seconds: float


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
    """Teach a model and write its checkpoint.

    An interrupted run resumes from its last saved state, unless only the head is trained.

    Args:
        collection: clips of the classes, and negatives.
        options: settings.
        run: folder for the tables and states of the folds; created if missing.
        out: checkpoint file to write.
        machine: hardware settings, see `fit`; ignored if only the head is trained.
        progress: called with the number of a fold, from 1, and the number of folds; returns the function that
            is called after each step, see `fit`.
        restart: discard the states of an earlier run.

    Returns:
        The model and its metrics.

    Raises:
        CheckpointError: the start cannot be read.
        HtsatSedError: `run` or `out` cannot be written.
    """
    before = load_checkpoint(resolve_checkpoint(options.start)) if options.keep_classes else None
    models: list[HTSAT] = []
    write_all_tables(collection, run)
    for number in range(1, collection.folds + 1):
        data = run / f"fold-{number}"
        recipe = make_recipe(collection, options, data)
        shown = progress(number, collection.folds)
        if options.head_alone:
            models.append(train_head(recipe, data, shown))
        else:
            state = data / "state"
            models.append(fit(recipe, data, run=state, machine=machine, progress=shown, restart=restart))
    model = mean_of(models)
    held_out = score_held_out(collection, models, _MIX, seed=options.seed)
    rules, event_f1 = choose_post_processing(
        held_out,
        collection.labels,
        precision=options.precision,
        false_alarms=options.false_alarms,
        caution=options.caution,
        seed=options.seed,
    )
    model.post_processing = rules.to_dict()
    taught = _taught(model, held_out, rules, collection.labels, event_f1, seed=options.seed)
    if before is not None:
        join_classes(model, before)
    model.provenance = _provenance(collection, taught, options)
    remove_unfinished([out])
    save_checkpoint(out, model)
    return taught


def write_all_tables(collection: Collection, run: Path) -> None:
    """Write the tables of all folds, and remove those that a run with more folds left."""
    for number in range(1, collection.folds + 1):
        write_tables(collection, run / f"fold-{number}", without=number if collection.folds > 1 else 0)
    known = {f"fold-{number}" for number in range(1, collection.folds + 1)}
    for table in run.glob("fold-*/*.tsv"):
        if table.parent.name not in known and table.name in ("clips.tsv", "negatives.tsv"):
            table.unlink()


def _taught(
    model: HTSAT,
    held_out: HeldOut,
    rules: PostProcessing,
    labels: Sequence[str],
    event_f1: Mapping[str, float],
    *,
    seed: int,
) -> Taught:
    """Compute the held-out metrics of a model."""
    scored = [
        ScoredClip(
            clip,
            own.presence_map.scores.max(axis=0),
            frozenset(event.label for event in find_events(own.presence_map, rules)),
        )
        for clip, own in (*held_out.clips, *held_out.negatives)
    ]
    labelled = [each for each in scored if each.clip.label]
    return Taught(
        model=model,
        figures=class_figures(scored, labels, seed=seed),
        confusions=confusions(labelled, labels),
        doubts=doubts(labelled, labels),
        alarms=alarms(scored, labels),
        event_f1=event_f1,
        false_alarms=alarms_per_hour([own for _, own in held_out.negatives], rules),
        synthetic_alarms=alarms_per_hour(list(held_out.distractors.values()), rules),
        negative_seconds=sum(own.presence_map.duration for _, own in held_out.negatives),
    )


def make_recipe(collection: Collection, options: TeachingOptions, data: Path) -> Recipe:
    """Make the recipe of a fold.

    Args:
        collection: clips of all folds.
        options: settings.
        data: folder with the tables of the fold, see `write_tables`.
    """
    steps = options.steps or round(
        min(max(_STEPS[0], _STEPS_PER_CLIP * len(collection.clips) + 33), _STEPS[1])
    )
    # Soundscapes have exact onsets and offsets; unmixed clips keep the original level and noise.
    clips = DataRecipe(kind="clips", table="clips.tsv", audio=".", mix=True, share=0.75)
    distractors = DataRecipe(kind="distractors", mix=True, share=0.05)
    parts = [
        clips,
        replace(clips, mix=False, share=0.25, balanced=True),
        distractors,
        replace(distractors, mix=False, share=0.2),
    ]
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
        frozen=_FROZEN if options.start else (),
        seed=options.seed,
        model=_model_recipe(options.start),
        soundscapes=_MIX,
    )


def _model_recipe(start: str) -> ModelRecipe:
    """Return sample rate and hop length of a checkpoint, or the defaults for an encoder without a head.

    Without a start, return the shape of the bundled checkpoint.
    """
    if not start:
        return ModelRecipe(embed_dim=48, depths=(2, 2, 2, 2), heads=(2, 4, 8, 16), drop_path=0.05)
    try:
        config = load_checkpoint(resolve_checkpoint(start)).config
    except CheckpointError:
        return ModelRecipe()
    return ModelRecipe(sample_rate=config.sample_rate, hop_length=config.hop_length)


def rate_of(start: str) -> int:
    """Return the sample rate of the model that training starts with, Hz.

    Args:
        start: see `TeachingOptions.start`.
    """
    return _model_recipe(start).sample_rate


def mean_of(models: Sequence[HTSAT]) -> HTSAT:
    """Average the weights of models.

    Args:
        models: at least one, all with the same configuration and classes.

    Returns:
        A new model in evaluation mode; its integer buffers come from the first model.
    """
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
        "false alarms per hour of distractors": taught.synthetic_alarms,
        "versions": {"htsat_sed": htsat_sed.__version__, "torch": torch.__version__},
    }
