"""The int8 core: calibrated once on recordings with NNCF, saved to a file and run by OpenVINO.

    windows of recordings ─ float32 core ─▶ ranges of activations ─▶ int8 core ─▶ file

Calibration needs NNCF and takes up to a few minutes; inference needs only OpenVINO. The file is in the folder
of downloaded checkpoints. Its name is the hash of configuration and weights, so it belongs to one model only.
It is a safetensors file: OpenVINO's weights as one array of bytes, and a metadata entry ``htsat_sed_int8``
with a JSON object:

    format      1
    model       `fingerprint` of the model
    graph       OpenVINO's description of the graph, XML
    windows     number of windows it was calibrated on
    htsat_sed   version
"""

from __future__ import annotations

import json
import logging
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import safetensors.numpy
from torch import Tensor

from htsat_sed.errors import CheckpointError, HtsatSedError, UsageError
from htsat_sed.model.catalogue import checkpoint_folder
from htsat_sed.model.htsat import HTSAT, fingerprint
from htsat_sed.model.openvino_graph import openvino_graph
from htsat_sed.model.openvino_import import openvino, unreported
from htsat_sed.whole_file import whole_file

FORMAT = 1
_ENTRY = "htsat_sed_int8"
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def int8_path(model: HTSAT) -> Path:
    """Return the path of a model's int8 core; the file may be missing."""
    return checkpoint_folder() / "int8" / f"{fingerprint(model)}.safetensors"


def calibrate(model: HTSAT, windows: Sequence[Tensor]) -> openvino.Model:
    """Quantise the core of a model; the same windows give the same graph.

    Args:
        model: model on the CPU, in evaluation mode; not changed.
        windows: normalised and stretched log-mel spectrograms (1, 1024, 64) of typical recordings.

    Returns:
        The graph of `openvino_graph` with weights and most activations in int8.

    Raises:
        ValueError: there are no windows.
    """
    if not windows:
        raise UsageError("wanted at least one window to calibrate on, got none")
    with _quiet(), unreported():
        import nncf

        graph = nncf.quantize(
            openvino_graph(model),
            nncf.Dataset([window.numpy() for window in windows]),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(windows),
        )
    # OpenVINO numbers operations over all graphs of the process; number those of this graph from 0.
    for place, operation in enumerate(graph.get_ordered_ops()):
        if operation.get_type_name() != "Parameter":
            operation.set_friendly_name(f"{operation.get_type_name()}_{place}")
    return graph


def save_int8(model: HTSAT, graph: openvino.Model, *, windows: int) -> Path:
    """Save an int8 core for `load_int8`; the file is written atomically.

    Args:
        model: model that was quantised.
        graph: graph from `calibrate`.
        windows: number of windows for calibration, to record in the file.

    Returns:
        Path of the file.

    Raises:
        CheckpointError: the file cannot be written.
    """
    from htsat_sed import __version__

    path = int8_path(model)
    try:
        with TemporaryDirectory(prefix="htsat-sed-") as folder:
            xml, weights = Path(folder) / "graph.xml", Path(folder) / "graph.bin"
            openvino.serialize(graph, xml, weights)
            about = {
                "format": FORMAT,
                "model": path.stem,
                "graph": xml.read_text(encoding="utf-8"),
                "windows": windows,
                "htsat_sed": __version__,
            }
            arrays = {"weights": np.fromfile(weights, np.uint8)}
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, "wb") as file:
            file.write(safetensors.numpy.save(arrays, {_ENTRY: json.dumps(about)}))
        for each in (path.parent, path):
            with suppress(PermissionError):  # another user's folder: `load_int8` refuses it
                each.chmod(each.stat().st_mode & ~_OTHERS)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(path, f"cannot be made: {reason}") from error
    except HtsatSedError as error:
        raise CheckpointError(error.path, error.reason) from error
    return path


def load_int8(model: HTSAT) -> openvino.Model:
    """Load the int8 core of a model, from `save_int8`.

    Args:
        model: the model.

    Returns:
        The graph.

    Raises:
        CheckpointError: the model was not calibrated on this machine, the file is broken, or other users can
            write it. (Nothing in the file proves which weights it was made from.)
    """
    path = int8_path(model)
    if not path.is_file():
        raise CheckpointError(
            path,
            "does not exist: this checkpoint is not calibrated for int8 yet; run `htsat-sed checkpoints "
            "calibrate RECORDINGS` once, with the same -c",
        )
    for each in (path.parent, path):
        _refuse_others(each)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()[_ENTRY])
            weights = file.get_tensor("weights")
        if (about["format"], about["model"]) != (FORMAT, path.stem):
            raise UsageError("made from another model or by another version of htsat-sed")
        return openvino.Core().read_model(about["graph"].encode(), openvino.Tensor(weights))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            path, f"is a broken int8 core, calibrate the checkpoint again: {reason}"
        ) from error


def _refuse_others(path: Path) -> None:
    """Check that only this user and root can write a file or folder; does nothing on Windows.

    Raises:
        CheckpointError: another user owns it or can write it.
    """
    if not hasattr(os, "getuid"):
        return
    found = path.stat()
    if found.st_uid not in (0, os.getuid()):
        raise CheckpointError(path, "belongs to another user, who could change it: copy it and own the copy")
    if found.st_mode & _OTHERS:
        raise CheckpointError(
            path, f"other users can write it: run `chmod go-w {path}` if its content is yours"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress NNCF's progress bars, warnings and usage reports."""
    os.environ.setdefault("NNCF_CI", "1")  # otherwise it reports its use over the network
    muted = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), warnings.catch_warnings():  # noqa: PTH123
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(muted)
