"""Loading, saving and averaging checkpoints: files with the weights and the description of a model.

Checkpoints of this package are safetensors files with the arrays of `HTSAT.state_dict()` and one metadata
entry ``htsat_sed``, a JSON object:

    format            1
    config            the fields of HTSATConfig
    labels            one name for each class
    post_processing   values for PostProcessing.override, or null
    provenance        origin of the weights: source, data, recipe, metrics, versions; free form

Checkpoints of the official implementation can be loaded too, see `htsat_sed.model.official`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch.overrides import TorchFunctionMode

from htsat_sed.errors import CheckpointError, HtsatSedError, UsageError
from htsat_sed.labels import audioset_labels, check_label_set
from htsat_sed.model.catalogue import resolve_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig, array_shapes
from htsat_sed.model.official import Encoder, read_encoder, read_official
from htsat_sed.model.torch_file import Arrays, shortened
from htsat_sed.whole_file import whole_file

FORMAT = 1
_ENTRY = "htsat_sed"
_LONGEST_ENTRY = 16 << 20  # characters
_WEIGHTS, _COUNTERS = ("F32", "F16", "BF16", "F64"), ("I64",)  # as safetensors calls them

Loss = Literal["clip_bce", "clip_ce"]


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """Description of a checkpoint.

    Attributes:
        kind: ``htsat-sed`` for safetensors of this package, ``official`` for a PyTorch file of the official
            code.
        config: shape and signal path of the model.
        labels: one name for each class.
        post_processing: values for `PostProcessing.override`, or None.
        provenance: origin of the weights.
        dtype: data type of the weight matrices in the file, such as ``float16``.
        parameters: number of learned values, without running statistics.
    """

    kind: Literal["htsat-sed", "official"]
    config: HTSATConfig
    labels: tuple[str, ...]
    post_processing: Mapping[str, Any] | None
    provenance: Mapping[str, Any]
    dtype: str
    parameters: int


def _file(path: str | Path) -> Path:
    """Return the file of a checkpoint: a string can be a name, but a Path is always a path."""
    return resolve_checkpoint(path) if isinstance(path, str) else path


def load_checkpoint(
    path: str | Path,
    *,
    sample_rate: int | None = None,
    hop_length: int | None = None,
    labels: Sequence[str] | None = None,
    loss: Loss | None = None,
) -> HTSAT:
    """Load a model.

    Official checkpoints lack some settings. The keyword arguments set them; `read_official` lists the
    defaults. The default labels are AudioSet's for 527 classes, otherwise ``class_000``, ``class_001`` and so
    on. Checkpoints of this package contain all settings.

    Args:
        path: path of a safetensors file of this package or of an official Lightning ``.ckpt``; or, as a
            string, a name: ``home`` for the bundled checkpoint, or a published one that was downloaded.
        sample_rate: sample rate, Hz.
        hop_length: STFT step, samples.
        labels: one name for each class.
        loss: ``clip_bce`` (multi-label) or ``clip_ce`` (single-label).

    Returns:
        The model in evaluation mode on the CPU, in float32; `post_processing` and `provenance` as saved.

    Raises:
        CheckpointError: the file is missing, broken, of another kind, or unsuitable for detection.
        ValueError: an argument contradicts the file, or the labels do not fit the classes.
    """
    path = _file(path)
    info, arrays = _read(path, sample_rate=sample_rate, hop_length=hop_length, labels=labels, loss=loss)
    shapes = {key: tuple(array.shape) for key, array in arrays.items()}
    _check_shapes(path, shapes, array_shapes(info.config))
    _check_values(path, arrays)
    with torch.random.fork_rng(devices=[]), _Uninitialised():  # all weights are replaced next
        model = HTSAT(info.config, info.labels, initialise=False)
    model.load_state_dict(arrays)
    model.post_processing = None if info.post_processing is None else dict(info.post_processing)
    model.provenance = dict(info.provenance)
    model.eval()
    return model


class _Uninitialised(TorchFunctionMode):
    """Context in which torch's layers skip the initialisation of their weights."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Return the tensor unchanged instead of calling a function of `torch.nn.init`."""
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def read_info(
    path: str | Path,
    *,
    sample_rate: int | None = None,
    hop_length: int | None = None,
    labels: Sequence[str] | None = None,
    loss: Loss | None = None,
) -> CheckpointInfo:
    """Read the description of a checkpoint without loading its weights.

    Args:
        path: path or name, see `load_checkpoint`.
        sample_rate: sample rate of an official checkpoint, Hz.
        hop_length: STFT step of an official checkpoint, samples.
        labels: one name for each class of an official checkpoint.
        loss: ``clip_bce`` or ``clip_ce``, for an official checkpoint.

    Raises:
        CheckpointError: the file is missing, broken or of another kind. The weights are not checked.
        ValueError: an argument contradicts the file, or the labels do not fit the classes.
    """
    path = _file(path)
    options = {"sample_rate": sample_rate, "hop_length": hop_length, "loss": loss}
    if _is_ours(path):
        info, _ = _read_ours(path, with_arrays=False)
        return _agreeing(info, options, labels)
    return _read_official(path, options, labels)[0]


def save_checkpoint(
    path: str | Path,
    model: HTSAT,
    *,
    post_processing: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Save a model as safetensors; the file is written atomically.

    Args:
        path: output file, usually ``.safetensors``.
        model: model on any device, in any mode.
        post_processing: values from `PostProcessing.to_dict`; None for those of the model, if any.
        provenance: JSON-compatible values; None for those of the model.
        dtype: data type of the weight matrices: float32, or float16 for half the file size. Vectors (biases,
            norms, running statistics) are always float32.

    Raises:
        CheckpointError: the file cannot be written.
        ValueError: the dtype is not supported, weights exceed its range, or values are not JSON-compatible.
    """
    if dtype not in (torch.float32, torch.float16):
        raise UsageError(f"wanted dtype torch.float32 or torch.float16, got {dtype}")
    header = {
        "format": FORMAT,
        "config": asdict(model.config),
        "labels": model.labels,
        "post_processing": model.post_processing if post_processing is None else dict(post_processing),
        "provenance": model.provenance if provenance is None else dict(provenance),
    }
    try:
        entry = json.dumps(header, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"wanted post_processing and provenance that JSON can hold: {error}") from error
    arrays = {key: array.detach().cpu().contiguous() for key, array in model.state_dict().items()}
    arrays = {key: array.to(dtype) if array.ndim > 1 else array for key, array in arrays.items()}
    for key, array in arrays.items():
        if not array.isfinite().all():
            raise UsageError(f"wanted finite weights within the range of {dtype}, got {key} beyond it")
    try:
        with whole_file(path, "wb") as file:
            file.write(safetensors.torch.save(arrays, {_ENTRY: entry}))
    except HtsatSedError as error:
        raise CheckpointError(error.path, error.reason) from error


def average_checkpoints(paths: Sequence[str | Path]) -> HTSAT:
    """Average the weights of several checkpoints of one model.

    Parameters and running statistics are averaged in float64. Batch counters and provenance are dropped.
    Post-processing is kept if it is the same in all checkpoints.

    Args:
        paths: two or more checkpoints with the same configuration and labels.

    Returns:
        The averaged model, in evaluation mode.

    Raises:
        CheckpointError: a checkpoint cannot be loaded, or differs from the first in configuration or
            labels.
        ValueError: fewer than two paths.
    """
    if len(paths) < 2:
        raise UsageError(f"wanted at least two checkpoints to average, got {len(paths)}")
    average = load_checkpoint(paths[0])
    sums = {key: array.double() for key, array in average.state_dict().items() if array.is_floating_point()}
    for path in paths[1:]:
        other = load_checkpoint(path)
        _check_same_model(path, other, paths[0], average)
        for key, array in other.state_dict().items():
            if key in sums:
                sums[key] += array.double()
        if other.post_processing != average.post_processing:
            average.post_processing = None
    means = {key: (total / len(paths)).float() for key, total in sums.items()}
    average.load_state_dict(means, strict=False)
    average.bn0.num_batches_tracked.zero_()  # type: ignore[union-attr]
    average.provenance = {}
    return average


def load_encoder(path: str | Path) -> Encoder:
    """Read a model without its head, to fine-tune it on other classes.

    Args:
        path: any checkpoint that `load_checkpoint` accepts, or a LAION or Microsoft CLAP model with an HTS-AT
            encoder.

    Raises:
        CheckpointError: the file is none of these, or its weights are invalid.
    """
    path = _file(path)
    if _is_ours(path):
        info, arrays = _read_ours(path, with_arrays=True)
        kept = {key: array for key, array in arrays.items() if not key.startswith("tscam_conv.")}
        encoder = Encoder(info.config.embed_dim, info.config.depths, info.config.heads, kept)
    else:
        encoder = read_encoder(path)
    _check_values(path, encoder.arrays)
    return encoder


def _read(path: str | Path, *, labels: Sequence[str] | None, **options: Any) -> tuple[CheckpointInfo, Arrays]:
    if not _is_ours(path):
        return _read_official(path, options, labels)
    info, arrays = _read_ours(path, with_arrays=True)
    return _agreeing(info, options, labels), arrays


def _is_ours(path: str | Path) -> bool:
    """Return True for a safetensors file, False for a PyTorch file.

    Raises:
        CheckpointError: the file is missing, empty or of another kind.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror}") from error
    if not start:
        raise CheckpointError(path, "is empty")
    if start[8:] == b"{":
        return True
    if start.startswith((b"PK\x03\x04", b"\x80\x02")):  # zip archive, or a bare pickle of old PyTorch
        return False
    raise CheckpointError(path, "is not a checkpoint: neither safetensors nor a PyTorch file")


def _read_ours(path: str | Path, *, with_arrays: bool) -> tuple[CheckpointInfo, Arrays]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            entry = (file.metadata() or {}).get(_ENTRY)
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
            shapes = {key: tuple(s.get_shape()) for key, s in slices.items()}
            types = {key: str(s.get_dtype()) for key, s in slices.items()}
            info = _described(path, entry, shapes, types)
            arrays = {}
            if with_arrays:  # the shapes have been checked, so nothing large is read
                _check_shapes(path, shapes, array_shapes(info.config))
                arrays = {key: file.get_tensor(key) for key in slices}
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(path, f"is a broken safetensors file: {error}") from error
    return info, {key: a.float() if a.is_floating_point() else a for key, a in arrays.items()}


def _described(
    path: str | Path, entry: str | None, shapes: Mapping[str, tuple[int, ...]], types: Mapping[str, str]
) -> CheckpointInfo:
    """Parse the description in the metadata of a safetensors file.

    Raises:
        CheckpointError: the description is missing or broken, or an array has an unsupported type.
    """
    if entry is None:
        raise CheckpointError(
            path, f"is a safetensors file, but not of htsat-sed: it lacks the metadata entry {_ENTRY!r}"
        )
    if len(entry) > _LONGEST_ENTRY:
        raise CheckpointError(path, f"its description has more than {_LONGEST_ENTRY >> 20} MB")
    for key, kind in types.items():
        if kind not in (_COUNTERS if key.endswith("num_batches_tracked") else _WEIGHTS):
            raise CheckpointError(path, f"holds {key} as {kind}, wanted F32, F16, or I64 for a counter")
    matrices = {kind for key, kind in types.items() if len(shapes[key]) > 1}
    numbers = {key: math.prod(shape) for key, shape in shapes.items() if "running_" not in key}
    return _parse(
        path,
        entry,
        dtype="float16" if matrices == {"F16"} else "float32",
        parameters=sum(n for key, n in numbers.items() if not key.endswith("num_batches_tracked")),
    )


def _parse(path: str | Path, entry: str, *, dtype: str, parameters: int) -> CheckpointInfo:
    try:
        header = json.loads(entry)
        if header["format"] != FORMAT:
            raise CheckpointError(
                path, f"has format {header['format']}, wanted {FORMAT}: made by another version of htsat-sed"
            )
        config, labels = _config(header["config"]), tuple(header["labels"])
        post_processing, provenance = header["post_processing"], header["provenance"]
        if not isinstance(post_processing, dict | None) or not isinstance(provenance, dict):
            raise UsageError("wanted post_processing and provenance to be tables")
        check_label_set(labels)
        if len(labels) != config.classes:
            raise UsageError(f"wanted {config.classes} labels, one per class, got {len(labels)}")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(path, f"its description is broken: {error}") from error
    return CheckpointInfo(
        kind="htsat-sed",
        config=config,
        labels=labels,
        post_processing=post_processing,
        provenance=provenance,
        dtype=dtype,
        parameters=parameters,
    )


def _config(values: Mapping[str, Any]) -> HTSATConfig:
    """Build the configuration from JSON values; lists become tuples."""
    if not isinstance(values, dict):
        raise UsageError("wanted config to be a table")
    if unknown := sorted(set(values) - {field.name for field in fields(HTSATConfig)}):
        reason = f"config has the unknown {shortened(unknown)}: made by another version of htsat-sed"
        raise UsageError(reason)
    as_tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    config = HTSATConfig(**as_tuples)
    for field in fields(HTSATConfig):
        if type(getattr(config, field.name)) is not type(field.default):
            raise UsageError(f"wanted {field.name} to be like {field.default!r}")
    return config


def _agreeing(
    info: CheckpointInfo, options: Mapping[str, Any], labels: Sequence[str] | None
) -> CheckpointInfo:
    """Return the description after a check that no argument contradicts it.

    Raises:
        ValueError: an argument differs from the description.
    """
    for name, given in options.items():
        if given is not None and given != getattr(info.config, name):
            raise UsageError(
                f"{name} {given} contradicts the checkpoint, which says {getattr(info.config, name)}: omit "
                "it, it is only for official checkpoints"
            )
    if labels is not None and tuple(labels) != info.labels:
        raise UsageError("labels contradict the checkpoint's own: omit them")
    return info


def _read_official(
    path: str | Path, options: Mapping[str, Any], labels: Sequence[str] | None
) -> tuple[CheckpointInfo, Arrays]:
    config, arrays = read_official(path, **options)
    if labels is None:
        known = config.classes == len(audioset_labels())
        labels = audioset_labels() if known else [f"class_{i:03d}" for i in range(config.classes)]
    if len(labels) != config.classes:
        raise UsageError(f"wanted {config.classes} labels, one per class of {path}, got {len(labels)}")
    numbers = {key: array.numel() for key, array in arrays.items() if "running_" not in key}
    info = CheckpointInfo(
        kind="official",
        config=config,
        labels=tuple(labels),
        post_processing=None,
        provenance={"source": Path(path).name},
        dtype="float32",
        parameters=sum(n for key, n in numbers.items() if not key.endswith("num_batches_tracked")),
    )
    return info, arrays


Shapes = Mapping[str, tuple[int, ...]]


def _check_shapes(path: str | Path, shapes: Shapes, wanted: Shapes) -> None:
    """Check that the arrays have the names and shapes of the model's.

    Raises:
        CheckpointError: an array is missing, unknown or of another shape; the message names it.
    """
    missing = [key for key in wanted if key not in shapes]
    unknown = [key for key in shapes if key not in wanted]
    problems = [f"lacks {shortened(missing)}"] if missing else []
    problems += [f"holds unknown {shortened(unknown)}"] if unknown else []
    problems = problems or [
        f"{key} has shape {shapes[key]}, wanted {shape}"
        for key, shape in wanted.items()
        if shapes[key] != shape
    ]
    if problems:
        what = "; ".join(problems) if missing or unknown else problems[0]
        raise CheckpointError(path, f"does not fit its own configuration: {what}")


# Trained weights are far below this limit, and below it no input makes a score overflow float32.
_LARGEST_WEIGHT = 1e3


def _check_values(path: str | Path, arrays: Arrays) -> None:
    """Check for weights from a diverged training or a damaged file.

    Raises:
        CheckpointError: a value is not finite or larger than 1000, or a variance is negative.
    """
    for key, array in arrays.items():
        least, most = (float(value) for value in array.aminmax())
        if not (math.isfinite(least) and math.isfinite(most)):  # a NaN anywhere makes both NaN
            raise CheckpointError(path, f"{key} holds NaN or infinity: its training diverged")
        if key.endswith("running_var"):
            if least < 0:
                raise CheckpointError(path, f"{key} holds a negative variance")
        elif array.is_floating_point() and max(-least, most) > _LARGEST_WEIGHT:
            largest = max(-least, most)
            raise CheckpointError(path, f"{key} holds {largest:.3g}, which no training produces")


def _check_same_model(path: str | Path, model: HTSAT, first_path: str | Path, first: HTSAT) -> None:
    for field in fields(HTSATConfig):
        here, there = getattr(model.config, field.name), getattr(first.config, field.name)
        if here != there:
            raise CheckpointError(
                path, f"has {field.name} {here}, {first_path} has {there}: cannot be averaged"
            )
    if model.labels != first.labels:
        raise CheckpointError(path, f"has other labels than {first_path}: cannot be averaged")
