"""`htsat-sed tune`: thresholds and filters that fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from htsat_sed.cli import options
from htsat_sed.cli.options import MODEL
from htsat_sed.cli.recordings import find_all
from htsat_sed.cli.terminal import RecordingsProgress, output, report
from htsat_sed.errors import AnnotationError, HtsatSedError

if TYPE_CHECKING:
    from htsat_sed.detection.presence import PresenceMap
    from htsat_sed.evaluation.tuning import Tuning

METHODS = ("threshold", "change-points", "both")
METRICS = ("intersection", "collar", "segment")


def tune(
    reference: Annotated[Path, typer.Argument(help="Strong labels, as for evaluate.", show_default=False)],
    scores: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Presence maps of `detect --scores`.", show_default=False),
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Recordings to make presence maps of.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="TOML",
            help="The values, for `detect --post-processing`.",
            show_default=False,
        ),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="SAFETENSORS",
            help="Also keep the values in a copy of the checkpoint (-c): this file.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        str, typer.Option(help="Whose F1 is to be highest: intersection, collar or segment.")
    ] = "intersection",
    method: Annotated[
        str,
        typer.Option(
            help="threshold (runs of high scores), change-points (boxes between changes, cSEBBs), or both: "
            "whichever suits a class better.",
        ),
    ] = "threshold",
    folds: Annotated[int, typer.Option(min=2, help="Parts of the cross-validation over recordings.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the parts.")] = 0,
    onset_collar: Annotated[float, typer.Option(metavar="SECONDS", help="Of the collar-based F1.")] = 0.2,
    offset_collar: Annotated[float, typer.Option(metavar="SECONDS", help="Of the collar-based F1.")] = 0.2,
    offset_share: Annotated[float, typer.Option(metavar="PART", help="Of the collar-based F1.")] = 0.2,
    segment: Annotated[float, typer.Option(metavar="SECONDS", help="Of the segment-based F1.")] = 1.0,
    dtc: Annotated[float, typer.Option(help="Of the intersection-based F1.")] = 0.5,
    gtc: Annotated[float, typer.Option(help="Of the intersection-based F1.")] = 0.5,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            "-c",
            metavar="FILE|NAME",
            help=r"For --audio and --into.  \[default: home, the bundled one]",
            show_default=False,
            rich_help_panel=MODEL,
        ),
    ] = None,
    class_map: options.ClassMapOption = None,
    hop: options.Hop = 10.0,
    device: options.Device = "auto",
    batch_size: options.BatchSize = 8,
) -> None:
    """Find the threshold, hysteresis, median filter, gap and shortest event that suit each class.

    Thresholds are searched exactly, among all scores that occur; the others among a few values.
    Shown are the F1 before, on the recordings the values were chosen on, and held out:
    chosen on the other parts of a cross-validation. Only the last is what to expect elsewhere.

    [bold]Examples[/bold]

      htsat-sed detect recordings/ --scores maps/ -o events.tsv
      htsat-sed tune reference.tsv --scores maps/ -o tuned.toml
      htsat-sed detect more/ --post-processing tuned.toml
    """
    if (scores is None) == (audio is None):
        raise typer.BadParameter("wanted either --scores or --audio")
    if method not in METHODS:
        raise typer.BadParameter(f"wanted one of {', '.join(METHODS)}; got {method!r}", param_hint="--method")
    if metric not in METRICS:
        raise typer.BadParameter(f"wanted one of {', '.join(METRICS)}; got {metric!r}", param_hint="--metric")
    from htsat_sed.annotations import read_events, read_presence_maps
    from htsat_sed.detection.events import PostProcessing
    from htsat_sed.evaluation.report import Settings
    from htsat_sed.evaluation.tables import pair
    from htsat_sed.evaluation.tuning import tune as search

    failures: list[HtsatSedError] = []
    before = PostProcessing()
    maps: dict[str, PresenceMap] = {}
    if scores is not None:
        maps = dict(read_presence_maps(scores))
    elif audio is not None:
        detector = options.make_detector(
            None if checkpoint is None else [checkpoint],
            device=device,
            batch_size=batch_size,
            hop=hop,
            class_map=class_map,
        )
        before = detector.post_processing
        recordings, failures = find_all([str(audio)])
        with RecordingsProgress("detecting", len(recordings)) as progress:
            results = detector.presence_maps([r.path for r in recordings], progress=progress.heard)
            for recording, (_, result) in zip(recordings, results, strict=True):
                progress.done()
                if isinstance(result, HtsatSedError):
                    failures.append(result)
                    report(result)
                else:
                    maps[recording.name] = result
    strong = read_events(reference)
    mapless = [name for name in strong if name not in maps]
    if mapless:
        report(AnnotationError(reference, f"{len(mapless)} of its recordings have no presence map; left out"))
    try:
        events = pair({name: own for name, own in strong.items() if name in maps}, dict.fromkeys(maps, ()))
        found = search(
            events,
            maps,
            metric=metric,  # type: ignore[arg-type]
            method=method,  # type: ignore[arg-type]
            settings=Settings(
                onset_collar=onset_collar,
                offset_collar=offset_collar,
                offset_share=offset_share,
                segment=segment,
                dtc=dtc,
                gtc=gtc,
            ),
            start=before,
            folds=folds,
            seed=seed,
        )
    except ValueError as error:
        raise AnnotationError(reference, str(error)) from error
    _show(found, metric, folds)
    if out is not None:
        _write_toml(found, metric, out)
    if into is not None:
        _write_checkpoint(found, checkpoint, into)
    raise typer.Exit(1 if failures or mapless else 0)


def _show(found: Tuning, metric: str, folds: int) -> None:
    from rich.table import Table

    untuned, fitted, held_out = (100 * value for value in found.macro())
    output.print(
        f"{metric} macro F1: {untuned:.2f} % before, {fitted:.2f} % on the recordings tuned on, "
        f"{held_out:.2f} % held out ({folds} folds)",
        style="bold",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=None, padding=(0, 1))
    table.add_column("class", no_wrap=True, min_width=max(map(len, found.labels)))
    for name in ("before", "fitted", "held out", "threshold", "low", "median", "gap", "event"):
        table.add_column(name, justify="right")
    scores = found.by_class()
    for label, choice in zip(found.labels, found.choices, strict=True):
        table.add_row(
            label,
            *(f"{100 * value:.2f}" for value in scores[label]),
            f"{choice.threshold:.3f}",
            f"{choice.low_share * choice.threshold:.3f}",
            *(f"{seconds:g}" for seconds in (choice.median_filter, choice.min_gap, choice.min_event)),
        )
    output.print(table)


def _write_toml(found: Tuning, metric: str, path: Path) -> None:
    import json

    from htsat_sed.whole_file import whole_file

    with whole_file(path) as file:
        _, _, held_out = found.macro()
        file.write(f"# Tuned for {metric} F1: macro {100 * held_out:.2f} % held out.\n")
        for label, choice in zip(found.labels, found.choices, strict=True):
            # A JSON string is a TOML one.
            file.write(f"\n[classes.{json.dumps(label, ensure_ascii=False)}]\n")
            file.writelines(f"{name} = {value!r}\n" for name, value in choice.values().items())


def _write_checkpoint(found: Tuning, checkpoint: str | None, path: Path) -> None:
    import torch

    from htsat_sed.model.catalogue import resolve_checkpoint
    from htsat_sed.model.checkpoint import load_checkpoint, read_info, save_checkpoint

    source = resolve_checkpoint(checkpoint)
    half = read_info(source).dtype == "float16"
    values = found.post_processing().to_dict()
    dtype = torch.float16 if half else torch.float32
    save_checkpoint(path, load_checkpoint(source), post_processing=values, dtype=dtype)
