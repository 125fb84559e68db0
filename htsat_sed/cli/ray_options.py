"""`--ray`: recordings scored by the workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, TypeVar

import typer

from htsat_sed.cli.groups import MODEL, option
from htsat_sed.cli.model_options import ExecutionOptions
from htsat_sed.cli.terminal import say
from htsat_sed.runs.recordings import STDIN, Recording
from htsat_sed.runs.run import Results

if TYPE_CHECKING:
    from htsat_sed.detection.detector import Detector

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class RayOptions:
    """Whether the workers of a Ray cluster score."""

    panel: ClassVar[str] = MODEL
    ray: str | None = option(
        None,
        "Score on a Ray cluster: its address (host:port), auto for the cluster that this machine belongs "
        "to, or local to start one on this machine. There is one worker per GPU, or without GPUs per "
        "--threads cores. Give --device cuda if the cluster has GPUs but this machine has none.  "
        "\\[default: score in this process]",
        "--ray",
        metavar="local|ADDRESS",
    )

    @property
    def given(self) -> bool:
        """Whether workers score, and this process only writes."""
        return self.ray is not None

    def check(self, recordings: Sequence[Recording], execution: ExecutionOptions) -> None:
        """Refuse what workers cannot do.

        Raises:
            typer.BadParameter: standard input is among the recordings, or the device is one of several.
        """
        if self.ray is None:
            return
        if STDIN in [recording.path for recording in recordings]:
            raise typer.BadParameter(
                "Ray workers cannot read standard input: name a file", param_hint="--ray"
            )
        if execution.device not in ("auto", "cpu", "cuda"):
            raise typer.BadParameter(
                f"--ray supports auto, cpu and cuda, got {execution.device!r}", param_hint="--device"
            )

    @contextmanager
    def scoring(
        self,
        detector: Detector,
        score: Callable[..., Results[_Result]],
        execution: ExecutionOptions,
        *,
        rows: bool = False,
    ) -> Iterator[Callable[..., Results[_Result]]]:
        """What scores paths: the detector here, or workers; how many of these were lost is said at the end.

        Args:
            detector: what scores.
            score: its method, or a function of it, that scores paths, such as `Detector.detections`.
            execution: how many cores a worker has.
            rows: whether presence maps are wanted.

        Yields:
            `score` without its first argument.

        Raises:
            UsageError: Ray is not installed.
        """
        if self.ray is None:
            yield partial(score, detector)
            return
        from htsat_sed.runs.ray import RayWorkers

        threads = execution.threads or 1
        with RayWorkers(self.ray, detector, score, threads=threads, rows=rows, note=_note) as workers:
            yield workers.results
        if workers.lost:
            _note(f"workers lost: {workers.lost}; others scored their recordings again")


def _note(message: str) -> None:
    say("note", message)
