"""`htsat-sed checkpoints calibrate`: an int8 core of a checkpoint, from recordings."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from htsat_sed.cli.groups import Without, with_groups
from htsat_sed.cli.message_options import MessageOptions
from htsat_sed.cli.model_options import ModelOptions
from htsat_sed.cli.progress import RecordingsProgress, waiting_for
from htsat_sed.cli.recording_options import RecordingOptions
from htsat_sed.cli.terminal import emit, report, say
from htsat_sed.errors import AudioError, HtsatSedError
from htsat_sed.libraries import require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from htsat_sed.model.htsat import HTSAT, HTSATConfig

_FEW = 20  # windows below which a warning is printed
_FAR = 0.01  # mean deviation of presence scores above which a warning is printed


@with_groups
def calibrate(
    given: RecordingOptions,
    checkpoints: Annotated[
        ModelOptions, Without("class_map", "labels", "hop", "shifts", "execution", "label_file")
    ],
    messages: MessageOptions,
    windows: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Calibrate on N 10 s windows, taken from the beginnings of the recordings.",
        ),
    ] = 60,
) -> None:
    r"""Prepare a checkpoint for --precision int8, by a one-off calibration on sample recordings.

    NNCF runs the model on them to choose the ranges of 8-bit values.
    This takes up to some minutes per checkpoint, and prints the path of the result.

    Commands find the result by the weights of the checkpoint.
    Other weights, for instance after fine-tuning, need their own calibration.
    Equal recordings yield equal results, which can be copied to the same path on other machines.

    Every fourth window is held out, to compare scores with those of float32.

    Needs pip install 'htsat-sed\[int8]'. Detecting with the result needs only OpenVINO.

    [bold]Examples[/bold]

      htsat-sed checkpoints calibrate recordings/
      htsat-sed detect recordings/ --precision int8 -o events.csv
    """
    require("nncf", "openvino", purpose="calibrating", extra="int8")
    recordings, failures = given.find()
    files = sorted(recording.path for recording in recordings)
    chosen = files if len(files) <= windows else [files[i * len(files) // windows] for i in range(windows)]
    for model in checkpoints.load():
        inputs: list[Tensor] = []
        each, more = divmod(windows, max(1, len(chosen)))
        with RecordingsProgress("reading", len(chosen)) as progress:
            for place, path in enumerate(chosen):
                try:
                    inputs += _inputs(model, path, each + (place < more))
                except AudioError as error:
                    failures.append(error)
                    report(error)
                progress.done()
        if not inputs:
            raise HtsatSedError(", ".join(given.paths), "contains no sound to calibrate on")
        _calibrate(model, inputs)
    raise typer.Exit(1 if failures else 0)


def first_windows(recording: str | Path, config: HTSATConfig, count: int) -> NDArray[np.float32]:
    """At most `count` first windows of a recording, the last zero-padded: (B, window_samples).

    Raises:
        AudioError: it cannot be read.
    """
    import numpy as np

    from htsat_sed.audio import open_recording, windows

    length = config.window_samples
    with open_recording(recording, config.sample_rate) as stream:
        first = [window.samples for window in islice(windows(stream, window=length, hop=length), count)]
    return np.stack([np.pad(samples, (0, length - len(samples))) for samples in first])


def _inputs(model: HTSAT, recording: str, count: int) -> list[Tensor]:
    """Inputs of the core for the first non-silent windows of a recording: (1, 1024, 64) each."""
    import torch

    from htsat_sed.model.torch_core import core_input

    with torch.inference_mode():
        return [
            core_input(model, torch.from_numpy(window)[None])
            for window in first_windows(recording, model.config, count)
            if window.any()
        ]


def _calibrate(model: HTSAT, inputs: list[Tensor]) -> None:
    """Quantise a model, save it, print its path, and report the deviation of its scores."""
    import torch

    from htsat_sed.model.int8 import calibrate, save_int8
    from htsat_sed.model.openvino_core import openvino_core
    from htsat_sed.model.openvino_graph import openvino_graph

    tested = inputs[3::4] or inputs
    used = [window for place, window in enumerate(inputs) if place % 4 != 3]
    with waiting_for(f"calibrating on {len(used)} windows"):
        graph = calibrate(model, used)
        int8, float32 = openvino_core(graph, 1), openvino_core(openvino_graph(model), 1)
        differences = torch.cat(
            [(model.scores(int8(window)) - model.scores(float32(window))).abs() for window in tested]
        )
        path = save_int8(model, graph, windows=len(used))
    emit(f"{path}\n")
    mean, most = differences.mean().item(), differences.max().item()
    where = "on them" if tested is inputs else f"on {len(tested)} other{'s'[: len(tested) - 1]}"
    say(
        "note",
        f"calibrated on {len(used)} windows; {where}, presence scores differ from float32 by {mean:.4f} on "
        f"average, {most:.3f} at most",
        "",
    )
    if mean > _FAR:
        say("warning", "this is a large deviation: calibrate on more recordings, or use float32", "yellow")
    elif len(used) < _FEW:
        say(
            "warning",
            "few windows: some scores may change considerably; give several minutes of recordings",
            "yellow",
        )
