"""The core in int8: quantised once by NNCF on recordings, kept in a file, computed by OpenVINO.

    windows of recordings ─ float32 core ─▶ ranges of what lies between its layers ─▶ int8 core ─▶ file

To calibrate takes NNCF and up to some minutes; to compute takes OpenVINO alone. The file lies in the folder
of downloaded checkpoints and is named after the weights it was made from, so that a checkpoint finds its
own and none that is another's. It is safetensors: OpenVINO's weights as one array of bytes, and one metadata
entry ``htsat_sed_int8`` with a JSON object:

    format      1
    model       `fingerprint` of the model
    graph       OpenVINO's description of the graph, XML
    windows     how many it was calibrated on
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
    """Where a model's int8 core lies, or would."""
    return checkpoint_folder() / "int8" / f"{fingerprint(model)}.safetensors"


def calibrate(model: HTSAT, windows: Sequence[Tensor]) -> openvino.Model:
    """Quantise the core of a model.

    The same windows give the same graph.

    Args:
        model: on the CPU, in evaluation mode; read only.
        windows: normalised and stretched log-mel, (1, 1024, 64) each, of recordings like those to come.

    Returns:
        What `openvino_graph` draws, with weights and most activations in int8.

    Raises:
        ValueError: no windows.
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
    # OpenVINO names operations by a count over all graphs of a process.
    for place, operation in enumerate(graph.get_ordered_ops()):
        if operation.get_type_name() != "Parameter":
            operation.set_friendly_name(f"{operation.get_type_name()}_{place}")
    return graph


def save_int8(model: HTSAT, graph: openvino.Model, *, windows: int) -> Path:
    """Keep an int8 core for `load_int8`; the file appears whole or not at all.

    Args:
        model: that the core is of.
        graph: as of `calibrate`.
        windows: how many it was calibrated on.

    Returns:
        The file.

    Raises:
        CheckpointError: it cannot be written.
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
    """The int8 core of a model, as `save_int8` kept it.

    Raises:
        CheckpointError: it was not calibrated on this machine, the file is broken, or another user could have
            written it: nothing in it shows which recordings and weights it was made from.
    """
    path = int8_path(model)
    if not path.is_file():
        raise CheckpointError(
            path,
            "not there: this checkpoint is not calibrated for int8 yet; run `htsat-sed checkpoints calibrate "
            "RECORDINGS` once, with the same -c",
        )
    for each in (path.parent, path):
        _refuse_others(each)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()[_ENTRY])
            weights = file.get_tensor("weights")
        if (about["format"], about["model"]) != (FORMAT, path.stem):
            raise UsageError("of another model or another version of htsat-sed")
        return openvino.Core().read_model(about["graph"].encode(), openvino.Tensor(weights))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            path, f"is a broken int8 core, calibrate the checkpoint anew: {reason}"
        ) from error


def _refuse_others(path: Path) -> None:
    """Refuse a file or folder that others than this user and root can write. Windows has no such bits."""
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
    """NNCF without progress bars on standard output, warnings, or reports to its makers."""
    os.environ.setdefault("NNCF_CI", "1")  # else it reports its use over the network
    muted = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), warnings.catch_warnings():  # noqa: PTH123
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(muted)
