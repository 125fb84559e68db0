"""`htsat-sed checkpoints convert`, `average` and `export`: write a checkpoint to another file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from htsat_sed.cli.calibrate_int8 import first_windows
from htsat_sed.cli.groups import with_groups
from htsat_sed.cli.run_options import OverwriteOptions
from htsat_sed.cli.terminal import remark
from htsat_sed.errors import UsageError
from htsat_sed.libraries import require
from htsat_sed.runs.output_checks import check_apart, check_files
from htsat_sed.runs.output_hashes import check_replaceable, recording_outputs

Float16 = Annotated[
    bool,
    typer.Option(
        "--float16", help="Store weights in half precision: half the size; scores change by about 0.001."
    ),
]


@with_groups
def convert(
    existing: OverwriteOptions,
    source: Annotated[str, typer.Argument(metavar="IN", help="A file, or a name that `list` shows.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Output file, ending in .safetensors.")],
    float16: Float16 = False,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Labels of an official checkpoint: one per line, or a CSV with a column label or "
            "display_name.  \\[default: AudioSet's names for 527 classes, otherwise class_000, ...]",
        ),
    ] = None,
    sample_rate: Annotated[
        int | None,
        typer.Option(
            metavar="HZ",
            min=1,
            help="Sample rate of an official checkpoint.  \\[default: from its mel matrix]",
        ),
    ] = None,
    hop_length: Annotated[
        int | None,
        typer.Option(
            metavar="SAMPLES",
            min=1,
            help="STFT hop of an official checkpoint.  \\[default: sample rate / 100]",
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="clip_bce|clip_ce",
            help=(
                "Loss of an official checkpoint: clip_bce if classes can occur together, clip_ce if a "
                "clip has exactly one class.  \\[default: clip_bce, or clip_ce for 50 classes (ESC-50)]"
            ),
        ),
    ] = None,
    post_processing: Annotated[
        Path | None,
        typer.Option(
            metavar="TOML",
            help="Thresholds and filters to store with the model, as for `detect`.",
        ),
    ] = None,
) -> None:
    """Convert a checkpoint to htsat-sed's own format.

    OUT is a safetensors file with weights, configuration, labels, post-processing and provenance.
    """
    from htsat_sed.detection.events import read_post_processing
    from htsat_sed.labels import read_labels
    from htsat_sed.model.catalogue import resolve_checkpoint
    from htsat_sed.model.checkpoint import load_checkpoint

    _check_suffix(target, ".safetensors")
    path = resolve_checkpoint(source)
    _check_target(target, [path, labels, post_processing], overwrite=existing.overwrite)
    if loss not in (None, "clip_bce", "clip_ce"):
        raise UsageError(f"wanted --loss clip_bce or clip_ce, got {loss}")
    model = load_checkpoint(
        path,
        sample_rate=sample_rate,
        hop_length=hop_length,
        labels=None if labels is None else read_labels(labels),
        loss=loss,  # type: ignore[arg-type]
    )
    if set(model.provenance) == {"source"}:  # provenance of an official file
        model.provenance = _provenance(path)
    if post_processing is not None:
        model.post_processing = read_post_processing(post_processing)
    _save(target, model, float16=float16)


@with_groups
def average(
    existing: OverwriteOptions,
    checkpoints: Annotated[
        list[str], typer.Argument(metavar="CHECKPOINT...", help="Two or more files or names.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="Output file, ending in .safetensors.")
    ],
    float16: Float16 = False,
) -> None:
    """Average the weights of several training runs of one model.

    Configuration and labels must agree. Running statistics are averaged as well.
    Post-processing is kept if all have the same; otherwise tune the result again.
    """
    from htsat_sed.model.catalogue import resolve_checkpoint
    from htsat_sed.model.checkpoint import average_checkpoints

    _check_suffix(output, ".safetensors")
    paths = [resolve_checkpoint(checkpoint) for checkpoint in checkpoints]
    _check_target(output, paths, overwrite=existing.overwrite)
    model = average_checkpoints(paths)
    model.provenance = {"average_of": [_provenance(path) for path in paths]}
    _save(output, model, float16=float16)


@with_groups
def export(
    existing: OverwriteOptions,
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Output file, ending in .onnx.")],
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            "-c",
            metavar="FILE|NAME",
            help="Checkpoint to export.  \\[default: home, the bundled one]",
            show_default=False,
        ),
    ] = None,
    opset: Annotated[
        int, typer.Option(metavar="N", min=17, max=20, help="Version of the ONNX operator set.")
    ] = 17,
    audio: Annotated[
        Path | None,
        typer.Option(
            metavar="RECORDING",
            help="Recording on which to compare ONNX Runtime with torch.  \\[default: synthetic sound]",
            show_default=False,
        ),
    ] = None,
) -> None:
    r"""Export a checkpoint as an ONNX model, for other programs and languages.

    Input: logmel (windows, 1001, 64), the log-mel spectrogram of 10 s windows in decibels.
    Outputs: presence (windows, 32, classes), clip (windows, classes), both scores in 0 to 1; embedding.

    The metadata contain labels, configuration, sample rate and window.
    The file is written only if the scores of ONNX Runtime and torch agree within 0.0001.

    Needs pip install 'htsat-sed\[onnx]'.
    """
    from htsat_sed.model.catalogue import resolve_checkpoint

    _check_suffix(target, ".onnx")
    path = resolve_checkpoint(checkpoint)
    _check_target(target, [path, audio], overwrite=existing.overwrite)
    require("onnx", "onnxruntime", purpose="the export", extra="onnx")
    import torch

    from htsat_sed.model.checkpoint import load_checkpoint
    from htsat_sed.model.onnx_core import export_onnx, made_sound

    model = load_checkpoint(path)
    waveforms = (
        made_sound(model.config) if audio is None else torch.from_numpy(first_windows(audio, model.config, 4))
    )
    provenance = model.provenance | {"exported_from": _provenance(path)}
    with recording_outputs():
        difference = export_onnx(target, model, waveforms, opset=opset, provenance=provenance)
    remark(
        f"{target}: opset {opset}, {model.config.classes} classes, {target.stat().st_size / 1e6:.1f} MB, "
        f"within {difference:.1g} of torch"
    )


def _check_suffix(target: Path, suffix: str) -> None:
    if target.suffix != suffix:
        raise UsageError(f"the name of the output must end in {suffix}, got {target}")


def _check_target(target: Path, inputs: Iterable[Path | None], *, overwrite: bool) -> None:
    check_files(target)
    check_apart([target], inputs)
    check_replaceable(target, overwrite=overwrite)


def _save(target: Path, model: Any, *, float16: bool) -> None:
    import torch

    from htsat_sed.model.checkpoint import save_checkpoint

    with recording_outputs():
        save_checkpoint(target, model, dtype=torch.float16 if float16 else torch.float32)
    megabytes = target.stat().st_size / 1e6
    remark(f"{target}: {model.config.classes} classes, {model.config.sample_rate} Hz, {megabytes:.1f} MB")


def _provenance(path: Path) -> dict[str, Any]:
    """File and hash of a source; for a known download also its page and licence."""
    from htsat_sed import __version__
    from htsat_sed.model.catalogue import CATALOGUE
    from htsat_sed.model.download import file_sha256

    digest = file_sha256(path)
    known = [{"page": entry.page, "licence": entry.licence} for entry in CATALOGUE if entry.sha256 == digest]
    about = {"source": path.name, "sha256": digest, "made_by": f"htsat-sed {__version__}"}
    return about | (known[0] if known else {})
