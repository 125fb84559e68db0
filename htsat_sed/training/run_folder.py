"""The folder of a training run: its lock, recipe, description of the data, saved state and metrics."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any

import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from htsat_sed.errors import AnnotationError, CheckpointError, HtsatSedError
from htsat_sed.model.catalogue import resolve_checkpoint
from htsat_sed.training.data import Clip
from htsat_sed.training.recipe import DataRecipe, Recipe
from htsat_sed.training.start import TIMM
from htsat_sed.whole_file import remove_unfinished, whole_file

LAST, BEST, FINISHED, METRICS = "last.ckpt", "best.ckpt", "finished.json", "metrics.csv"
_RECIPE, _DATA, _LOCK = "recipe.json", "data.json", "lock"
_FILES = (LAST, BEST, FINISHED, METRICS, _RECIPE, _DATA)
_FOLDERS = ("tensorboard",)
_CONTENT, _MOST_CONTENTS = 1024, 20_000  # bytes of a recording that are compared, and recordings
_MEND = "give --restart to train again, or name another -o or --run"

# Variables of torchrun, Lightning and SLURM; only in the first process is each of them 0 or unset.
_RANKS = ("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "SLURM_PROCID")


def is_first_process() -> bool:
    """Return whether this process is the first of its run; only the first one writes files."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


@contextmanager
def open_run(run: Path, recipe: Recipe, data: Mapping[str, Any], *, restart: bool) -> Iterator[Path | None]:
    """Lock the folder of a run for training, and check that an earlier run in it can be resumed.

    Args:
        run: folder of the run; created if missing.
        recipe: recipe of the run.
        data: description of the data, from `describe`.
        restart: remove the files of an earlier run.

    Yields:
        The state to resume from; None for a new run.

    Raises:
        AnnotationError: the folder holds a run with another recipe or other data, or files that are not from
            a run.
        HtsatSedError: another process trains in the folder, or it cannot be written.
    """
    plan = json.loads(json.dumps({_RECIPE: asdict(recipe), _DATA: data}))
    with ExitStack() as stack:
        if is_first_process():
            try:
                _check_owned(run)
                run.mkdir(parents=True, exist_ok=True)
                stack.enter_context(_locked(run))
                remove_unfinished(run / name for name in _FILES)
                if restart:
                    _clear(run)
            except OSError as error:
                raise HtsatSedError(run, f"cannot be written: {error.strerror}") from error
            if not isinstance(_read(run / FINISHED, {}), dict):
                raise AnnotationError(run / FINISHED, f"cannot be read: {_MEND}")
        state = run / LAST
        if state.exists() and not (restart and not is_first_process()):
            _compare(run, plan)
            yield state
            return
        if is_first_process():
            (run / FINISHED).unlink(missing_ok=True)  # left when only the state was removed
            for name, values in plan.items():
                with whole_file(run / name) as file:
                    json.dump(values, file, indent=1)
        yield None


def describe(
    labels: Sequence[str], start: str, parts: Iterable[tuple[DataRecipe, Sequence[Clip]]], folder: Path
) -> dict[str, Any]:
    """Describe the data of a run, so that `open_run` can refuse to resume it with other data.

    Args:
        labels: classes in order.
        start: starting weights, see `Recipe.start`; the content of a file is hashed.
        parts: parts of the training and validation data, each with its clips.
        folder: folder that the tables are relative to; the description does not depend on its location.

    Returns:
        Classes; number of clips and SHA-256 of labels, file sizes and samples of the contents of each part;
        SHA-256 of the start.
    """
    tables = []
    for part, clips in parts:
        table, recordings = hashlib.sha256(), hashlib.sha256()
        contents = _contents(clips)
        for clip in clips:
            name = str(clip.path).removeprefix(str(folder))
            values = [_plain(getattr(clip, f.name)) for f in fields(clip) if f.name != "path"]
            table.update(repr((name, values)).encode("utf-8", "surrogateescape") + b"\n")
            with suppress(OSError):
                recordings.update(f"{clip.path.stat().st_size}\n".encode())
        tables.append(
            {
                "table": part.table or part.kind,
                "clips": len(clips),
                "labels": table.hexdigest(),
                "recordings": recordings.hexdigest(),
                "contents": contents,
            }
        )
    described: dict[str, Any] = {"classes": list(labels), "tables": tables}
    if start and not start.startswith(TIMM):
        with resolve_checkpoint(start).open("rb") as file:
            described["start"] = hashlib.file_digest(file, "sha256").hexdigest()
    return described


def _contents(clips: Sequence[Clip]) -> str:
    """Return a hash of some bytes from the middle of each recording, or of about 20 000 of them.

    A recording that was normalised or cleaned often has the same size as before.
    """
    paths = list(dict.fromkeys(clip.path for clip in clips))
    found = hashlib.sha256()
    for path in paths[:: max(1, len(paths) // _MOST_CONTENTS)]:
        with suppress(OSError), path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _CONTENT) // 2)
            found.update(file.read(_CONTENT))
    return found.hexdigest()


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, frozenset) else value


def _compare(run: Path, plan: Mapping[str, Any]) -> None:
    """Check that the run in a folder has the same recipe and data.

    Raises:
        AnnotationError: they differ, or cannot be read.
    """
    default = asdict(Recipe(data=(DataRecipe(kind="clips"),)))
    recipe = list(_unlike(_read(run / _RECIPE, plan[_RECIPE]), plan[_RECIPE], default))
    if recipe:
        raise AnnotationError(run, f"holds a run of another recipe ({', '.join(recipe)} differ): {_MEND}")
    before, now = _read(run / _DATA, plan[_DATA]), plan[_DATA]
    if before != now:
        try:
            _without_contents(before, now)
            if before == now:
                return
            what = ", ".join(_changed(before, now)) or "tables"
        except (AttributeError, KeyError, TypeError) as error:
            raise AnnotationError(run / _DATA, f"cannot be read: {_MEND}") from error
        raise AnnotationError(run, f"holds a run on other data ({what} differ): {_MEND}")


def _without_contents(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Leave hashes of contents out where a run of an earlier version has none."""
    for old, new in zip(before["tables"], now["tables"], strict=False):
        if "contents" not in old:
            new.pop("contents")


def _changed(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Yield the names of the parts of the data that differ, for a message."""
    yield from (name for name in ("classes", "start") if before.get(name) != now.get(name))
    for old, new in zip(before["tables"], now["tables"], strict=False):
        of = ["labels"] * (old["labels"] != new["labels"])
        if any(old[key] != new[key] for key in ("recordings", "contents") if key in new):
            of.append("recordings")
        if of:
            yield f"{' and '.join(of)} of {new['table']}"


def _read(path: Path, default: Any) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default
    except (OSError, ValueError, RecursionError) as error:
        raise AnnotationError(path, f"cannot be read: {_MEND}") from error


def _unlike(before: Any, now: Any, default: Any, name: str = "") -> Iterator[str]:
    """Yield the names of the values that differ; a value that `before` lacks counts as its default."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in now:
            known = default.get(key) if isinstance(default, dict) else None
            yield from _unlike(before.get(key, known), now[key], known, f"{name}.{key}" if name else key)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        usual = default[0] if isinstance(default, tuple) and default else None
        for i, (old, new) in enumerate(zip(before, now, strict=True)):
            if old != new:
                yield from _unlike(old, new, usual, f"{name}[{i + 1}]")
    elif before != (list(now) if isinstance(now, tuple) else now):
        yield name


def _check_owned(run: Path) -> None:
    """Check that a folder is missing, empty or the folder of a run.

    Raises:
        AnnotationError: it is a file, or holds other files.
    """
    if not run.exists():
        return
    if not run.is_dir():
        raise AnnotationError(run, "is a file, not the folder of a run: name another -o or --run")
    own = any((run / name).exists() for name in (LAST, _RECIPE, _LOCK))
    if not own and any(run.iterdir()):
        raise AnnotationError(run, "holds other files, and no training run: name another -o or --run")


def _clear(run: Path) -> None:
    for name in _FILES:
        (run / name).unlink(missing_ok=True)
    for name in _FOLDERS:
        shutil.rmtree(run / name, ignore_errors=True)


@contextmanager
def _locked(run: Path) -> Iterator[None]:
    """Lock a folder against other processes; the system releases the lock when the process ends.

    Raises:
        HtsatSedError: another process holds the lock.
    """
    with (run / _LOCK).open("a+", encoding="utf-8") as file:
        if not _lock(file):
            file.seek(0)
            by = f" (process {number})" if (number := file.read().strip()) else ""
            raise HtsatSedError(
                run, f"another process is training here{by}: wait for it, or name another --run"
            )
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _lock(file: IO[str]) -> bool:
    """Lock a file; return False if another process holds the lock, True if the file system has no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 20)  # other processes cannot read a locked range: lock one beyond the text
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            # flock would keep the lock in the data-loading processes of a killed process.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return True
    return True


def load_state(path: Path) -> dict[str, Any]:
    """Read a saved state; never executes pickled code.

    Args:
        path: file of the state.

    Raises:
        CheckpointError: the state cannot be read.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types
        raise CheckpointError(path, f"cannot be read: {_MEND}") from error
    return state


class WholeCheckpoints(TorchCheckpointIO):  # type: ignore[misc]
    """Writes states atomically: the previous state is kept until the new one is on the disk."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a state.

        Args:
            checkpoint: state to save.
            path: output file.
            storage_options: ignored.

        Raises:
            HtsatSedError: the file cannot be written, for example because the disk is full.
        """
        buffer = io.BytesIO()  # torch.save would not raise OSError when the disk is full
        torch.save(checkpoint, buffer)
        with whole_file(path, "wb") as file:
            file.write(buffer.getbuffer())


class MetricsTable(Logger):  # type: ignore[misc]
    """Logger that writes losses and metrics to ``metrics.csv`` each time a state is saved.

    Args:
        run: folder of the run.
        first: steps already done; rows of an earlier table from this step on are dropped.

    Raises:
        AnnotationError: the table of the resumed run cannot be read.
    """

    def __init__(self, run: Path, first: int) -> None:
        super().__init__()
        self._path = run / METRICS
        self._rows: list[dict[str, Any]] = []
        if first and self._path.exists():
            try:
                with self._path.open(encoding="utf-8", newline="") as file:
                    rows = [row for row in csv.DictReader(file) if row["step"] and int(row["step"]) < first]
            except (OSError, KeyError, ValueError, csv.Error) as error:
                raise AnnotationError(self._path, f"cannot be read: {_MEND}") from error
            self._rows = [{name: value for name, value in row.items() if value} for row in rows]

    @property
    def name(self) -> str:
        """Name of the logger; empty, because Lightning would create a folder of that name."""
        return ""

    @property
    def version(self) -> str:
        """Version of the logger; empty, because Lightning would create a folder of that name."""
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Do nothing: ``recipe.json`` holds the hyperparameters."""

    @rank_zero_only  # type: ignore[untyped-decorator]
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row; `save` writes it."""
        self._rows.append({name: float(value) for name, value in metrics.items()} | {"step": step})

    @rank_zero_only  # type: ignore[untyped-decorator]
    def save(self) -> None:
        """Write all rows.

        Raises:
            HtsatSedError: the table cannot be written.
        """
        with whole_file(self._path) as file:
            table = csv.DictWriter(file, sorted({name for row in self._rows for name in row}))
            table.writeheader()
            table.writerows(self._rows)

    @rank_zero_only  # type: ignore[untyped-decorator]
    def finalize(self, status: str) -> None:
        """Write all rows at the end."""
        self.save()
