"""`htsat-sed checkpoints`: lists, describes and manages checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from htsat_sed.cli.calibrate_int8 import calibrate
from htsat_sed.cli.calibrate_scores import calibrate_scores
from htsat_sed.cli.convert_checkpoints import average, convert, export
from htsat_sed.cli.groups import with_groups
from htsat_sed.cli.message_options import MessageOptions
from htsat_sed.cli.progress import DownloadProgress
from htsat_sed.cli.terminal import emit, output, printable

if TYPE_CHECKING:
    from htsat_sed.model.checkpoint import CheckpointInfo

app = typer.Typer(
    no_args_is_help=True,
    help="List, describe, download, convert, average, export and calibrate trained models.\n\n"
    "A checkpoint is the bundled [bold]home[/bold], a name that [bold]list[/bold] shows, or a file: "
    "htsat-sed's own safetensors or a .ckpt of HTS-AT's authors.\n\n"
    "To detect AudioSet's 527 classes:\n\n"
    "  htsat-sed checkpoints pull audioset\n\n"
    "  htsat-sed detect street.wav -c audioset",
    rich_markup_mode="rich",
)

Checkpoint = Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A file, or a name that `list` shows.")]


@app.command("list")
def list_checkpoints(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the checkpoints known by name, and whether they are on this machine.

    Prints a table on a terminal, and tab-separated values with a header in a pipe.
    """
    from htsat_sed.model.catalogue import BUNDLED, CATALOGUE, bundled_checkpoint

    bundled = bundled_checkpoint()
    rows = [
        {
            "name": BUNDLED,
            "state": "bundled" if bundled else "not in this installation",
            "size": bundled.stat().st_size if bundled else None,
            "path": str(bundled) if bundled else None,
            "licence": "see its model card",
            "summary": "included in htsat-sed; the default checkpoint",
        }
    ]
    for entry in CATALOGUE:
        there = entry.path.is_file()
        rows.append(
            {
                "name": entry.name,
                "state": "downloaded" if there else "not downloaded",
                "size": entry.path.stat().st_size if there else entry.size,
                "path": str(entry.path) if there else None,
                "licence": entry.licence,
                "summary": entry.summary,
            }
        )
    if as_json:
        emit(json.dumps(rows, indent=2) + "\n")
    elif output.is_terminal:
        _print_table(rows)
    else:
        emit("\t".join(rows[0]) + "\n")
        for row in rows:
            emit("\t".join("" if cell is None else printable(str(cell)) for cell in row.values()) + "\n")


@app.command()
def info(
    checkpoint: Checkpoint,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, including labels.")] = False,
    labels: Annotated[
        bool, typer.Option("--labels", help="Print only the labels, one per line, in class order.")
    ] = False,
) -> None:
    """Describe a checkpoint: configuration, labels, post-processing, provenance, SHA-256."""
    from htsat_sed.model.catalogue import resolve_checkpoint
    from htsat_sed.model.checkpoint import read_info

    path = resolve_checkpoint(checkpoint)
    description = read_info(path)
    if labels:
        emit("".join(f"{printable(label)}\n" for label in description.labels))
    elif as_json:
        emit(json.dumps(_as_dict(path, description), indent=2, ensure_ascii=False) + "\n")
    else:
        _print_description(_as_dict(path, description))


@app.command()
@with_groups
def pull(
    messages: MessageOptions,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that `list` shows.")],
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Use this manually downloaded file, after verifying it.",
        ),
    ] = None,
) -> None:
    """Download a published checkpoint, verify it, and print its path.

    An interrupted download is resumed.
    The file is renamed into place after its SHA-256 has been verified.

    If a download fails, the error names the file to download manually; give that file with --file.

    Downloads are stored in $HTSAT_SED_HOME, or in the user's cache folder.
    """
    from htsat_sed.model import catalogue

    entry = catalogue.find_download(name)
    with DownloadProgress(entry.name, entry.size) as progress:
        path = catalogue.pull(entry, file=file, progress=progress.update)
    emit(f"{path}\n")


for command in (convert, average, export, calibrate, calibrate_scores):
    app.command()(command)


def _as_dict(path: Path, description: CheckpointInfo) -> dict[str, Any]:
    from dataclasses import asdict

    from htsat_sed.model.download import file_sha256

    return {
        "path": str(path),
        "kind": description.kind,
        "size": path.stat().st_size,
        "sha256": file_sha256(path),
        "parameters": description.parameters,
        "dtype": description.dtype,
        "config": asdict(description.config),
        "post_processing": description.post_processing,
        "provenance": description.provenance,
        "labels": list(description.labels),
    }


def _print_description(description: dict[str, Any]) -> None:
    """Print one ``name: value`` per line; entries of tables as ``table.name: value``."""
    for name, value in description.items():
        if name == "labels":
            shown = " · ".join(value[:5]) + (" · ..." if len(value) > 5 else "")
            lines = [f"labels: {len(value)} ({shown})"]
        elif isinstance(value, dict) and value:
            lines = [f"{name}.{line}" for inner, own in value.items() for line in _lines(inner, own)]
        else:
            lines = [f"{name}: {value if value else 'none'}"]
        emit("".join(f"{printable(line)}\n" for line in lines))


def _lines(name: str, value: Any) -> list[str]:
    """A value as a line, or a line for each entry of a table of tables."""
    if isinstance(value, dict) and value and all(isinstance(own, dict) for own in value.values()):
        return [
            f"{name}.{entry}: "
            + ", ".join(
                f"{key} {each:.4g}" if isinstance(each, float) else f"{key} {each}"
                for key, each in own.items()
            )
            for entry, own in value.items()
        ]
    return [f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"]


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table("name", "state", "size", "licence", "summary")
    for row in rows:
        size = f"{row['size'] / 1e6:.1f} MB" if row["size"] else "?"
        table.add_row(row["name"], row["state"], size, row["licence"], row["summary"])
    output.print(table)
