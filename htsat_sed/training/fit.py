"""Training a model from a recipe, with Lightning."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

import htsat_sed
from htsat_sed.detection.events import Event
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.errors import CheckpointError
from htsat_sed.evaluation.tables import pair
from htsat_sed.evaluation.tuning import tune
from htsat_sed.model.checkpoint import save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.model.torch_core import has_bfloat16
from htsat_sed.training.batches import (
    Batches,
    Deal,
    ValidationBatches,
    can_have_workers,
    fits_shared_memory,
    loader,
)
from htsat_sed.training.examples import Series
from htsat_sed.training.module import MONITOR, PROGRESS, Training
from htsat_sed.training.recipe import Recipe
from htsat_sed.training.run_data import RunData, read_tables, series_of, window_of
from htsat_sed.training.run_folder import (
    BEST,
    FINISHED,
    LAST,
    MetricsTable,
    WholeCheckpoints,
    describe,
    is_first_process,
    load_state,
    open_run,
)
from htsat_sed.training.start import start_model
from htsat_sed.whole_file import remove_unfinished, whole_file

_FOLDS = 5  # cross-validation folds of the tuning

StepProgress = Callable[[int, int, Mapping[str, float]], None]

_logger = logging.getLogger("htsat_sed")

# Lightning's warnings about settings that are intended here.
_EXPECTED = (
    r"Found \d+ module\(s\) in eval mode",  # the averaged weights
    r"The '\w+_dataloader' does not have many workers",
    r"You defined a `validation_step` but have no `val_dataloader`",
    r"GPU available but not used",
    r".*isinstance\(treespec, LeafSpec\).* is deprecated",
    r"Starting from v1.9.0, `tensorboardX` has been removed",
    r"It is recommended to use `self.log\(.*, sync_dist=True\)`",  # each process validates all examples
)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Hardware settings of a run; they leave the recipe unchanged.

    Attributes:
        device: Lightning's accelerator: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        devices: processes per node, each with its own device.
        nodes: number of machines; a cluster's launcher runs the same command on each.
        precision: ``32-true``, ``bf16-mixed``, ``16-mixed``, or ``auto`` for ``bf16-mixed`` where the device
            multiplies in bfloat16, else ``32-true``.
        accumulate: batches per step, whose gradients are averaged. `Recipe.batch_size` counts the examples of
            all of them.
        workers: data-loading processes per device.
        yields: compute with one thread fewer per worker, which leaves it a core. On few cores, a thread that
            shares its core with a worker holds up all others.
    """

    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    precision: str = "32-true"
    accumulate: int = 1
    workers: int = 1
    yields: bool = False

    @property
    def has_gpu(self) -> bool:
        """Whether the run uses CUDA GPUs."""
        return self.device in ("cuda", "gpu") or (self.device == "auto" and torch.cuda.is_available())

    @property
    def chosen_precision(self) -> str:
        """The precision, with ``auto`` resolved for the device."""
        if self.precision != "auto":
            return self.precision
        if self.has_gpu:
            able = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            able = self.device != "mps" and has_bfloat16()
        return "bf16-mixed" if able else "32-true"


def fit(
    recipe: Recipe,
    data: Path,
    *,
    run: Path,
    machine: Machine | None = None,
    progress: StepProgress | None = None,
    out: Path | None = None,
    dtype: torch.dtype = torch.float32,
    restart: bool = False,
) -> HTSAT:
    """Train a model; an interrupted run resumes from its last saved state.

    Args:
        recipe: settings of the training.
        data: folder that the recipe's tables are relative to.
        run: folder of the run. It receives the recipe, the state, ``metrics.csv`` and, if TensorBoard is
            installed, its log.
        machine: hardware settings; by default one process on the best device.
        progress: called after every step, in the first process only, with the steps done, the total number of
            steps, and the latest losses and validation metrics.
        out: checkpoint file to write at the end; only the first process writes it.
        dtype: data type of the weights in `out`.
        restart: discard an earlier run in `run`.

    Returns:
        The model with averaged weights, in evaluation mode. Its `provenance` records recipe, data and
        validation metrics.

    Raises:
        AnnotationError: a table is missing or malformed; or `run` holds a run with another recipe or other
            data, or files that are not from a run.
        CheckpointError: the start or the state cannot be read.
        HtsatSedError: another process trains in `run`, or a file cannot be written.
        KeyboardInterrupt: the run was interrupted; its last saved state is kept.
        ValueError: the recipe does not fit the data or the number of processes.
    """
    machine = machine or Machine()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its tips
    tables = read_tables(recipe, data)
    described = describe(tables.labels, recipe.start, (*tables.data, *tables.validation), data)
    with open_run(run, recipe, described, restart=restart) as state:
        torch.manual_seed(recipe.seed)
        series = series_of(recipe, tables)
        config = HTSATConfig(
            classes=len(tables.labels),
            loss="clip_ce" if recipe.loss == "cross-entropy" else "clip_bce",
            **asdict(recipe.model),
        )
        model = start_model(config, tables.labels, recipe.start, presence_bias=recipe.presence_bias)
        epoch_steps = max(1, (recipe.epoch_examples or series.clips) // recipe.batch_size)
        training = Training(model, recipe, epoch_steps=epoch_steps)
        if not (run / FINISHED).exists():
            _train(training, series, run=run, state=state, machine=machine, progress=progress)
        best = run / BEST
        restore(training, best if recipe.keep == "best" and best.exists() else run / LAST)
        trained = training.averaged.cpu().eval()
        trained.provenance = {
            "recipe": asdict(recipe),
            "data": list(series.summary),
            **json.loads((run / FINISHED).read_text(encoding="utf-8")),
            "versions": {m.__name__: m.__version__ for m in (htsat_sed, torch, lightning)},
        }
        if is_first_process():
            if recipe.tune:
                _tune(trained, series.validation)
            if out is not None:
                remove_unfinished([out])  # left by a killed run; the lock of `run` excludes others
                save_checkpoint(out, trained, dtype=dtype)
    return trained


def _train(
    training: Training,
    series: RunData,
    *,
    run: Path,
    state: Path | None,
    machine: Machine,
    progress: StepProgress | None,
) -> None:
    """Train from a state or from the start to the last step, and write the results to ``finished.json``."""
    recipe, epoch_steps = training.recipe, training.epoch_steps
    first = 0 if state is None else restore(training, state)
    steps = recipe.epochs * epoch_steps
    several = machine.devices * machine.nodes > 1
    boards = [TensorBoardLogger(run, name="", version="tensorboard")] if find_spec("tensorboard") else []
    trainer = lightning.Trainer(
        accelerator=machine.device,
        devices=machine.devices,
        num_nodes=machine.nodes,
        strategy="ddp" if several else "auto",
        sync_batchnorm=several and machine.has_gpu,  # for CPUs, see Training.on_after_backward
        precision=machine.chosen_precision,
        accumulate_grad_batches=machine.accumulate,
        max_steps=steps,
        gradient_clip_val=recipe.gradient_clip,
        callbacks=_callbacks(recipe, run, epoch_steps, progress),
        plugins=[WholeCheckpoints()],
        logger=[MetricsTable(run, first), *boards],
        log_every_n_steps=min(20, epoch_steps),
        val_check_interval=epoch_steps * machine.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,  # see _Keeper
        use_distributed_sampler=False,
    )
    deal = Deal(
        first=first,
        steps=steps,
        accumulate=machine.accumulate,
        rank=trainer.global_rank,
        world=trainer.world_size,
    )
    batches = Batches(series.parts, size=recipe.batch_size, deal=deal)
    validation = ValidationBatches(series.validation, size=recipe.batch_size)
    workers = machine.workers if machine.workers and can_have_workers() else 0
    if workers < machine.workers:
        _logger.warning(
            "/dev/shm is not writable: the training process reads the recordings, as with --workers 0"
        )
    shared = fits_shared_memory(
        recipe.batch_size * 4 * window_of(recipe).samples,  # a validation batch, the larger kind
        readers=2 * workers * machine.devices,  # for training and validation
    )
    with warnings.catch_warnings(), threads_left(workers if machine.yields else 0):
        for known in _EXPECTED:
            warnings.filterwarnings("ignore", message=known)
        try:
            trainer.fit(
                training,
                loader(batches, workers=workers, shared=shared),
                loader(validation, workers=workers, shared=shared) if series.validation else None,
                ckpt_path=state,
                weights_only=True,
            )
        except SystemExit as stopped:  # Lightning raises it on Ctrl-C
            raise KeyboardInterrupt from stopped
    if trainer.is_global_zero:
        best = run / BEST
        kept = load_state(best) if recipe.keep == "best" and best.exists() else {}
        ended = {
            "steps": training.global_step,
            "left_out": len(training.broken),
            "validation": kept.get(PROGRESS, {}).get("metrics", training.metrics),
        }
        with whole_file(run / FINISHED) as file:
            json.dump(ended, file)
    trainer.strategy.barrier()


@contextmanager
def threads_left(others: int) -> Iterator[None]:
    """Reduce torch's threads by `others` inside the block, but to half at least."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // 2, threads - others))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def restore(training: Training, path: Path) -> int:
    """Load the weights and metrics of a saved state into a training module.

    Args:
        training: module to load into.
        path: file of the state.

    Returns:
        The number of steps done.

    Raises:
        CheckpointError: the state cannot be read or belongs to another model.
    """
    state = load_state(path)
    try:
        training.load_state_dict(state["state_dict"])
        training.on_load_checkpoint(state)
        return int(state["global_step"])
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise CheckpointError(path, "belongs to another model: give --restart, or another --run") from error


class _Keeper(Callback):  # type: ignore[misc]
    """Saves the latest state and the best epoch, and stops early.

    The state is saved every 100 steps, or about five times in a run of fewer than 500 steps, and at the end
    of each epoch, after validation if there is any. Training stops after `Recipe.patience` epochs without a
    better validation.
    """

    def __init__(self, run: Path, recipe: Recipe, epoch_steps: int) -> None:
        self._run = run
        self._recipe = recipe
        self._epoch_steps = epoch_steps
        self._every = min(100, max(10, recipe.epochs * epoch_steps // 5))
        self._saved = 0
        self._best: float | None = None
        self._waited = 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "waited": self._waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best, self._waited = state_dict["best"], state_dict["waited"]

    def on_train_start(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        self._saved = trainer.global_step
        self._stop(trainer)  # the run may have been killed between its last save and its early stop

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        step = trainer.global_step
        ends = step % self._epoch_steps == 0
        if step == self._saved or (ends and self._recipe.validation):
            return
        if ends or step % self._every == 0:
            self._save(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        score = trainer.callback_metrics.get(MONITOR)
        if score is not None and (self._best is None or float(score) > self._best):
            self._best, self._waited = float(score), 0
            if self._recipe.keep == "best":
                trainer.save_checkpoint(self._run / BEST, weights_only=True)
        else:
            self._waited += 1
        self._save(trainer)
        self._stop(trainer)

    def _save(self, trainer: lightning.Trainer) -> None:
        self._saved = trainer.global_step
        for logger in trainer.loggers:
            logger.save()  # a resumed run reads the rows before its state
        trainer.save_checkpoint(self._run / LAST)

    def _stop(self, trainer: lightning.Trainer) -> None:
        enough = 0 < self._recipe.patience <= self._waited
        trainer.should_stop = trainer.strategy.reduce_boolean_decision(enough, all=False)


class _Reporter(Callback):  # type: ignore[misc]
    """Calls `progress` after every step."""

    def __init__(self, progress: StepProgress) -> None:
        self._progress = progress

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.is_global_zero:
            figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self._progress(trainer.global_step, trainer.max_steps, figures)


def _callbacks(recipe: Recipe, run: Path, epoch_steps: int, progress: StepProgress | None) -> list[Callback]:
    callbacks: list[Callback] = [_Keeper(run, recipe, epoch_steps)]
    if progress is not None:
        callbacks.append(_Reporter(progress))
    return callbacks


@torch.inference_mode()
def _tune(model: HTSAT, validation: Sequence[tuple[Series, int]]) -> None:
    """Tune post-processing on the examples with strong labels, and record the cross-validated score."""
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
    model.provenance["tuned"] = {"metric": "intersection macro F1", **found.macro()._asdict()}
