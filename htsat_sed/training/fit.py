"""Training a model by a recipe, with Lightning."""

from __future__ import annotations

import csv
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch.utils.data import DataLoader

import htsat_sed
from htsat_sed.detection.events import Event
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.errors import AnnotationError, CheckpointError
from htsat_sed.evaluation.tables import pair
from htsat_sed.evaluation.tuning import tune
from htsat_sed.labels import audioset_labels, did_you_mean
from htsat_sed.model.checkpoint import save_checkpoint
from htsat_sed.model.htsat import HTSAT, TOKENS, HTSATConfig
from htsat_sed.training.batches import Batches, Deal, ValidationBatches
from htsat_sed.training.data import Clip, read_clips
from htsat_sed.training.examples import ClipSeries, Series, SoundscapeSeries, Window
from htsat_sed.training.module import MONITOR, Training
from htsat_sed.training.recipe import DataRecipe, Recipe
from htsat_sed.training.soundscapes import Soundscapes, read_backgrounds, read_sources
from htsat_sed.training.start import set_presence_bias, start_model
from htsat_sed.whole_file import whole_file

_LAST, _BEST, _FINISHED = "last.ckpt", "best.ckpt", "finished.json"
_FOLDS = 5  # of the tuning

Progress = Callable[[int, int, Mapping[str, float]], None]

# What Lightning warns of and this module means to do.
_EXPECTED = (
    r"Found \d+ module\(s\) in eval mode",  # the averaged weights
    r"The '\w+_dataloader' does not have many workers",
    r"You defined a `validation_step` but have no `val_dataloader`",
    r"Checkpoint directory .* exists and is not empty",  # a resumed run
    r"Experiment logs directory .* exists and is not empty",
    r"GPU available but not used",
    r".*isinstance\(treespec, LeafSpec\).* is deprecated",
    r"Starting from v1.9.0, `tensorboardX` has been removed",
    r"It is recommended to use `self.log\(.*, sync_dist=True\)`",  # each process validates the whole
)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a run runs on; none of it changes the recipe.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda``, ``mps``: Lightning's accelerator.
        devices: processes a node, each with a device of its own.
        nodes: machines, each started with the same command by a cluster's launcher.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        accumulate: batches whose gradients make one step; `Recipe.batch_size` stays the whole.
        workers: processes a device that read and mix.
    """

    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    precision: str = "32-true"
    accumulate: int = 1
    workers: int = 1


@dataclass(frozen=True)
class _Data:
    """The series of a run, by part."""

    labels: tuple[str, ...]
    parts: tuple[tuple[Series, float], ...]
    validation: tuple[tuple[Series, int], ...]
    clips: int
    summary: tuple[dict[str, Any], ...]


def fit(
    recipe: Recipe,
    data: Path,
    *,
    run: Path,
    machine: Machine | None = None,
    progress: Progress | None = None,
    out: Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> HTSAT:
    """Train a model; a run that was interrupted goes on where it was saved last.

    Args:
        recipe: how.
        data: folder that the recipe's tables are relative to.
        run: folder of the run: its recipe, log (``metrics.csv``; TensorBoard's, if installed) and state.
        machine: what it runs on.
        progress: called by the first process after every step with the steps done, the steps there are,
            and the latest losses and validation figures.
        out: checkpoint to be written at the end, by the first process alone.
        dtype: of its weights.

    Returns:
        The model with averaged weights, in evaluation mode; `provenance` tells recipe, data and validation.

    Raises:
        AnnotationError: a table is missing or malformed, or `run` holds another recipe's run.
        CheckpointError: the start cannot be read.
        KeyboardInterrupt: the run was interrupted; what was saved last stays.
        ValueError: the data do not fit the recipe.
    """
    machine = machine or Machine()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its tips
    torch.manual_seed(recipe.seed)
    window = _window(recipe)
    held = _read_data(recipe, data, window)
    config = HTSATConfig(
        classes=len(held.labels),
        loss="clip_ce" if recipe.loss == "cross-entropy" else "clip_bce",
        **asdict(recipe.model),
    )
    model = start_model(config, held.labels, recipe.start)
    if recipe.presence_bias and not recipe.start:
        set_presence_bias(model, recipe.presence_bias)
    epoch_steps = max(1, (recipe.epoch_examples or held.clips) // recipe.batch_size)
    training = Training(model, recipe, epoch_steps=epoch_steps)
    steps = recipe.epochs * epoch_steps
    first, resumed = _state(run, recipe, restore=training)
    finished = run / _FINISHED
    trainer = lightning.Trainer(
        accelerator=machine.device,
        devices=machine.devices,
        num_nodes=machine.nodes,
        strategy="ddp" if machine.devices * machine.nodes > 1 else "auto",
        sync_batchnorm=machine.devices * machine.nodes > 1 and machine.device != "cpu",
        precision=machine.precision,
        accumulate_grad_batches=machine.accumulate,
        max_steps=steps,
        gradient_clip_val=recipe.gradient_clip,
        callbacks=_callbacks(recipe, run, epoch_steps, progress),
        logger=_loggers(run, first),
        log_every_n_steps=min(20, epoch_steps),
        val_check_interval=epoch_steps * machine.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(recipe.validation),
        use_distributed_sampler=False,
    )
    deal = Deal(
        first=first,
        steps=steps,
        accumulate=machine.accumulate,
        rank=trainer.global_rank,
        world=trainer.world_size,
    )
    batches = Batches(held.parts, size=recipe.batch_size, deal=deal)
    validation = ValidationBatches(held.validation, size=recipe.batch_size)
    if not finished.exists():
        with warnings.catch_warnings():
            for known in _EXPECTED:
                warnings.filterwarnings("ignore", message=known)
            try:
                trainer.fit(
                    training,
                    _loader(batches, machine),
                    _loader(validation, machine) if held.validation else None,
                    ckpt_path=resumed,
                    weights_only=True,
                )
            except SystemExit as stopped:  # what Lightning makes of Ctrl-C
                raise KeyboardInterrupt from stopped
        if trainer.is_global_zero:
            told = {
                "steps": training.global_step,
                "left_out": len(training.broken),
                "validation": training.metrics,
            }
            with whole_file(finished) as file:
                json.dump(told, file)
        trainer.strategy.barrier()
    best = run / _BEST
    if recipe.keep == "best" and best.exists():
        training.load_state_dict(torch.load(best, map_location="cpu", weights_only=True)["state_dict"])
    trained = training.averaged.cpu().eval()
    trained.provenance = {
        "recipe": asdict(recipe),
        "data": list(held.summary),
        **json.loads(finished.read_text(encoding="utf-8")),
        "versions": {m.__name__: m.__version__ for m in (htsat_sed, torch, lightning)},
    }
    if trainer.is_global_zero:
        if recipe.tune:
            _tune(trained, held.validation)
        if out is not None:
            save_checkpoint(out, trained, dtype=dtype)
    return trained


def _window(recipe: Recipe) -> Window:
    """Shape of an example; its labels are not known yet."""
    shape = replace(HTSATConfig(), sample_rate=recipe.model.sample_rate, hop_length=recipe.model.hop_length)
    return Window(sample_rate=shape.sample_rate, samples=shape.window_samples, tokens=TOKENS, labels=())


def _read_data(recipe: Recipe, folder: Path, window: Window) -> _Data:
    def read(parts: Sequence[DataRecipe]) -> list[tuple[DataRecipe, list[Clip]]]:
        return [(part, read_clips(part, folder, fold_count=recipe.fold_count)) for part in parts]

    data, validation = read(recipe.data), read(recipe.validation)
    every = {label for _, clips in data for clip in clips for label in clip.labels}
    labels = recipe.labels or (
        audioset_labels() if any(part.kind == "audioset" for part in recipe.data) else tuple(sorted(every))
    )
    window = replace(window, labels=labels)
    for part, clips in (*data, *validation):
        for label in {label for clip in clips for label in clip.labels | clip.unknown} - set(labels):
            raise AnnotationError(
                folder / (part.table or part.kind),
                f"has a label {label!r} that the recipe lacks{did_you_mean(label, labels)}",
            )
        if recipe.loss == "cross-entropy" and any(len(clip.labels) != 1 for clip in clips):
            raise AnnotationError(
                folder / (part.table or part.kind), "wanted exactly one label a clip for cross-entropy"
            )

    def mixed(parts: list[tuple[DataRecipe, list[Clip]]], seed: int) -> list[tuple[Series, float]]:
        """All parts to be mixed, as one series of soundscapes, with the sum of their shares."""
        clips = [clip for part, own in parts if part.mix for clip in own]
        if not clips:
            return []
        sources = read_sources(clips, sample_rate=window.sample_rate)
        silent = [clip for part, own in parts if part.mix and part.kind == "negatives" for clip in own]
        soundscapes = Soundscapes(
            sources,
            recipe.soundscapes,
            sample_rate=window.sample_rate,
            seed=seed,
            backgrounds=read_backgrounds(silent, sample_rate=window.sample_rate),
        )
        return [(SoundscapeSeries(soundscapes, window), sum(part.share for part, _ in parts if part.mix))]

    parts = mixed(data, recipe.seed)
    for i, (part, clips) in enumerate(data):
        if not part.mix:
            shift = recipe.augmentation.time_shift
            series = ClipSeries(clips, window, seed=recipe.seed + i, balanced=part.balanced, time_shift=shift)
            parts.append((series, part.share))
    held_out: list[tuple[Series, int]] = [
        (series, recipe.soundscapes.validation) for series, _ in mixed(validation, recipe.seed + 1)
    ]
    for part, clips in validation:
        if not part.mix:
            held_out.append((ClipSeries(clips, window, seed=0, random=False), len(clips)))
    summary = tuple({"kind": p.kind, "table": p.table, "folds": p.folds, "clips": len(c)} for p, c in data)
    return _Data(labels, tuple(parts), tuple(held_out), sum(len(clips) for _, clips in data), summary)


def _loader(batches: Batches | ValidationBatches, machine: Machine) -> DataLoader[Any]:
    workers = machine.workers
    return DataLoader(batches, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None)


class _Saving(Callback):  # type: ignore[misc]
    """Saves the state within epochs; at their ends it is saved after validation, which is part of it."""

    def __init__(self, path: Path, *, every: int, epoch_steps: int, validated: bool) -> None:
        self._path = path
        self._every = every
        self._left_out = epoch_steps if validated else sys.maxsize
        self._saved = 0

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        step = trainer.global_step
        if step != self._saved and step % self._every == 0 and step % self._left_out:
            self._saved = step
            trainer.save_checkpoint(self._path)


class _Telling(Callback):  # type: ignore[misc]
    """Passes on how far training is."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.is_global_zero:
            figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self._progress(trainer.global_step, trainer.max_steps, figures)


def _callbacks(recipe: Recipe, run: Path, epoch_steps: int, progress: Progress | None) -> list[Callback]:
    validated = bool(recipe.validation)
    every = max(1, min(100, epoch_steps))
    callbacks: list[Callback] = [
        _Saving(run / _LAST, every=every, epoch_steps=epoch_steps, validated=validated)
    ]
    if validated:
        callbacks.append(
            ModelCheckpoint(
                dirpath=run,
                filename="best",
                monitor=MONITOR,
                mode="max",
                save_top_k=int(recipe.keep == "best"),
                save_last=True,
                save_on_train_epoch_end=False,
                enable_version_counter=False,
            )
        )
    if recipe.patience:
        callbacks.append(EarlyStopping(MONITOR, mode="max", patience=recipe.patience))
    if progress is not None:
        callbacks.append(_Telling(progress))
    return callbacks


def _loggers(run: Path, first: int) -> list[Logger]:
    """Where losses and metrics go; a resumed run keeps the rows from before it."""
    log = run / "metrics.csv"
    before: list[dict[str, Any]] = []
    if first and log.exists():
        with log.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["step"] and int(row["step"]) < first]
        before = [{name: value for name, value in row.items() if value} for row in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = CSVLogger(run, name="", version="")
        table.experiment.metrics = before
    boards = [TensorBoardLogger(run, name="", version="tensorboard")] if find_spec("tensorboard") else []
    return [table, *boards]


def _state(run: Path, recipe: Recipe, *, restore: Training) -> tuple[int, Path | None]:
    """Steps done and the state to go on from, if the folder holds an unfinished run of this recipe.

    A finished run is restored at once.
    """
    told = json.loads(json.dumps(asdict(recipe)))
    kept = run / "recipe.json"
    if (run / _LAST).exists():
        before = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else told
        unlike = [name for name in told if before.get(name) != told[name]]
        if unlike:
            raise AnnotationError(
                run, f"holds a run of another recipe ({', '.join(unlike)} differ): name another --run folder"
            )
        try:
            state = torch.load(run / _LAST, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises all sorts
            raise CheckpointError(run / _LAST, "cannot be read: delete it to begin anew") from error
        restore.load_state_dict(state["state_dict"])
        return int(state["global_step"]), run / _LAST
    run.mkdir(parents=True, exist_ok=True)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        kept.write_text(json.dumps(told, indent=1), encoding="utf-8")
    return 0, None


@torch.inference_mode()
def _tune(model: HTSAT, validation: Sequence[tuple[Series, int]]) -> None:
    """Choose post-processing on the examples with strong labels, and note what it is worth."""
    maps: dict[str, PresenceMap] = {}
    events: dict[str, list[Event]] = {}
    step = model.config.token_seconds
    for series, count in validation:
        for number in range(count):
            example = series[number]
            if example.events is not None:
                name = f"{len(maps):06d}"
                scores = model.scores(model(torch.from_numpy(example.waveform)[None]).presence_logits)
                maps[name] = PresenceMap(scores[0].numpy(), model.labels, step, model.config.window_seconds)
                events[name] = list(example.events)
    if len(maps) < _FOLDS or not any(events.values()):
        return
    found = tune(pair(events, dict.fromkeys(maps, ())), maps, folds=_FOLDS)
    model.post_processing = found.post_processing().to_dict()
    worth = found.macro()._asdict()
    model.provenance["tuned"] = {"metric": "intersection macro F1", **worth}
