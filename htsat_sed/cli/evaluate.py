"""`htsat-sed evaluate`: scores of detections against reference labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from htsat_sed.cli import options
from htsat_sed.cli.recordings import find_all
from htsat_sed.cli.terminal import RecordingsProgress, errors, output, report
from htsat_sed.errors import AnnotationError, HtsatSedError

if TYPE_CHECKING:
    from htsat_sed.detection.events import Event, PostProcessing
    from htsat_sed.detection.presence import PresenceMap
    from htsat_sed.evaluation.counts import Floats
    from htsat_sed.evaluation.report import Metric, Report, Score

METRICS = "Metrics"
OUTPUT = "Output"


def evaluate(
    reference: Annotated[
        Path,
        typer.Argument(
            help="Strong labels (DESED TSV: filename, onset, offset, event_label; or any format that detect "
            "writes), or weak ones (filename, event_labels) for clip-level metrics alone.",
            show_default=False,
        ),
    ],
    estimated: Annotated[
        Path | None,
        typer.Argument(
            help="Events as detect writes them, or clip scores as tag writes them.", show_default=False
        ),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Presence maps as `detect --scores` keeps them: adds PSDS and clip-level metrics. Without "
            "ESTIMATED, events are found in them.",
            show_default=False,
        ),
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Recordings to detect in first, with the options of detect below.",
            show_default=False,
        ),
    ] = None,
    durations: Annotated[
        Path | None,
        typer.Option(
            metavar="TSV",
            help="Table of filename and duration, for PSDS rates and to notice events past the end. Presence "
            "maps know theirs.",
            show_default=False,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="LABEL",
            help=r"Score only this class; repeatable.  \[default: all of the reference]",
            show_default=False,
        ),
    ] = None,
    onset_collar: Annotated[
        float, typer.Option(metavar="SECONDS", help="Collar-based F1: onset.", rich_help_panel=METRICS)
    ] = 0.2,
    offset_collar: Annotated[
        float, typer.Option(metavar="SECONDS", help="Collar-based F1: offset.", rich_help_panel=METRICS)
    ] = 0.2,
    offset_share: Annotated[
        float,
        typer.Option(
            metavar="PART",
            help="Offset collar as a part of the reference event; the larger counts.",
            rich_help_panel=METRICS,
        ),
    ] = 0.2,
    segment: Annotated[
        float, typer.Option(metavar="SECONDS", help="Segment-based F1: segment.", rich_help_panel=METRICS)
    ] = 1.0,
    dtc: Annotated[
        float, typer.Option(help="Intersection-based F1: detection tolerance.", rich_help_panel=METRICS)
    ] = 0.5,
    gtc: Annotated[
        float, typer.Option(help="Intersection-based F1: ground truth coverage.", rich_help_panel=METRICS)
    ] = 0.5,
    cttc: Annotated[
        float,
        typer.Option(help="Cross-trigger tolerance (no part of F1).", rich_help_panel=METRICS),
    ] = 0.3,
    psds_thresholds: Annotated[
        int,
        typer.Option(min=1, help="Thresholds that approximate the PSD-ROC.", rich_help_panel=METRICS),
    ] = 50,
    bootstrap: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="95 % intervals from N resamplings of the recordings, such as 1000.",
            rich_help_panel=METRICS,
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the resampling.", rich_help_panel=METRICS)] = 0,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Everything, with parameters and versions.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    csv_file: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            help="A row for each metric and class.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A picture (png, svg, pdf): F1 of each class, and the PSD-ROC.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    checkpoint: options.Checkpoints = None,
    class_map: options.ClassMapOption = None,
    hop: options.Hop = 10.0,
    device: options.Device = "auto",
    batch_size: options.BatchSize = 8,
    sample_rate: options.SampleRate = None,
    label_file: options.LabelFile = None,
    threshold: options.Threshold = None,
    threshold_low: options.ThresholdLow = None,
    median_filter: options.MedianFilter = None,
    min_gap: options.MinGap = None,
    min_event: options.MinEvent = None,
    post_processing: options.PostProcessingFile = None,
) -> None:
    """Score detections against reference labels.

    From events:

    - intersection-based F1 (psds_eval; DTC 0.5, GTC 0.5): the "F1" of the HTS-AT paper
    - collar-based, or event-based, F1 (sed_eval; 200 ms, offset 200 ms or 20 %): that of DCASE task 4
    - the same for onsets alone
    - segment-based F1 (sed_eval; 1 s)

    From presence maps (--scores, --audio), also:

    - PSDS scenarios 1 and 2 (psds_eval)
    - clip-level mAP, AUC and d-prime (scikit-learn)

    Macro averages leave out classes without reference events.
    Recordings that only REFERENCE has count as without detections.
    docs/evaluation.md explains each metric, and why two "F1" differ.

    [bold]Examples[/bold]

      htsat-sed evaluate reference.tsv events.tsv
      htsat-sed evaluate reference.tsv events.tsv --bootstrap 1000 --json scores.json
      htsat-sed evaluate reference.tsv --scores maps/ --median-filter 0.9
      htsat-sed evaluate reference.tsv --audio recordings/ -c audioset --map desed
      htsat-sed evaluate weak.tsv tags.csv
    """
    given = [
        name for name, value in (("ESTIMATED", estimated), ("--scores", scores), ("--audio", audio)) if value
    ]
    if not given or (audio is not None and len(given) > 1):
        raise typer.BadParameter("wanted ESTIMATED, --scores, both of them, or --audio alone")
    flags = {
        "threshold": threshold,
        "threshold_low": threshold_low,
        "median_filter": median_filter,
        "min_gap": min_gap,
        "min_event": min_event,
    }
    from htsat_sed.evaluation.report import Settings

    settings = Settings(
        onset_collar=onset_collar,
        offset_collar=offset_collar,
        offset_share=offset_share,
        segment=segment,
        dtc=dtc,
        gtc=gtc,
        cttc=cttc,
        psds_thresholds=psds_thresholds,
        bootstrap=bootstrap,
        seed=seed,
    )
    failures: list[HtsatSedError] = []
    maps: dict[str, PresenceMap] = {}
    if audio is not None:
        detector = options.make_detector(
            checkpoint,
            device=device,
            batch_size=batch_size,
            hop=hop,
            sample_rate=sample_rate,
            label_file=label_file,
            class_map=class_map,
            post_processing_file=post_processing,
            flags=flags,
        )
        rules = detector.post_processing
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
    else:
        rules = _rules(post_processing, flags)
        if scores is not None:
            from htsat_sed.annotations import read_presence_maps

            maps = dict(read_presence_maps(scores))
            if not maps:
                raise AnnotationError(scores, "holds no presence maps: keep them with `detect --scores`")
    found = _evaluate(reference, estimated, maps, rules, durations, only, settings)
    _write(found, json_file, csv_file, plot)
    _show(found)
    raise typer.Exit(1 if failures else 0)


def _rules(file: Path | None, flags: dict[str, list[str] | None]) -> PostProcessing:
    from htsat_sed.detection.events import PostProcessing, read_post_processing

    rules = PostProcessing()
    if file is not None:
        rules = rules.override(read_post_processing(file))
    return rules.override(options.parse_flags(flags))


def _evaluate(
    reference: Path,
    estimated: Path | None,
    maps: Mapping[str, PresenceMap],
    rules: PostProcessing,
    durations: Path | None,
    only: list[str] | None,
    settings: object,
) -> Report:
    from htsat_sed.annotations import read_durations, read_events, read_weak_labels
    from htsat_sed.annotations.tags import is_tags, is_weak, read_tags
    from htsat_sed.detection.events import find_events
    from htsat_sed.evaluation.clip import clip_scores, scores_of_map
    from htsat_sed.evaluation.report import Report, Settings, evaluate_clips, evaluate_events, evaluate_psds
    from htsat_sed.evaluation.tables import pair

    assert isinstance(settings, Settings)
    tags = read_tags(estimated) if estimated is not None and is_tags(estimated) else None
    by_clip = tags or {name: scores_of_map(each) for name, each in maps.items()}
    strong: dict[str, list[Event]] | None = None if is_weak(reference) else read_events(reference)
    if strong is None:
        weak = read_weak_labels(reference)
    else:
        weak = {name: {event.label for event in own} for name, own in strong.items()}
    metrics: list[Metric] = []
    rocs: dict[str, tuple[Floats, Floats]] = {}
    left_out: tuple[str, ...] = ()
    try:
        if strong is not None and tags is None:
            table = (
                read_events(estimated)
                if estimated is not None
                else {name: find_events(each, rules) for name, each in maps.items()}
            )
            known = {name: each.duration for name, each in maps.items()}
            if durations is not None:
                known |= read_durations(durations)
            events = pair(strong, table, durations=known, labels=only)
            left_out = events.silent
            metrics += evaluate_events(events, settings)
            if maps:
                found, rocs = evaluate_psds(events, maps, settings, rules)
                metrics += found
        if by_clip:
            clips = clip_scores(weak, by_clip, labels=only)
            left_out = tuple(sorted({*left_out, *(label for label in clips.left_out if strong is None)}))
            metrics.append(evaluate_clips(clips, settings))
    except ValueError as error:
        if metrics:  # a set in which every recording has every class has no clip-level figures
            report(error)
        else:
            raise AnnotationError(reference, str(error)) from error
    if not metrics:
        raise AnnotationError(
            reference, "weak labels are scored with clip scores or presence maps, not events"
        )
    return Report(len(weak), tuple(metrics), left_out, rocs)


def _write(found: Report, json_file: Path | None, csv_file: Path | None, plot: Path | None) -> None:
    from htsat_sed.annotations.delimited import row
    from htsat_sed.whole_file import whole_file

    if json_file is not None:
        with whole_file(json_file) as file:
            file.write(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) + "\n")
    if csv_file is not None:
        with whole_file(csv_file) as file:
            file.write(row(("metric", "class", "figure", "value"), ","))
            for metric in found.metrics:
                for label, figures in metric.classes.items():
                    for name, value in figures.items():
                        file.write(
                            row((metric.name, label, name, "" if value is None else f"{value:.6g}"), ",")
                        )
    if plot is not None:
        from htsat_sed.evaluation.picture import draw_report

        draw_report(found, plot)


def _show(found: Report) -> None:
    from rich.table import Table

    output.print(f"{found.recordings} recordings", style="bold")
    for metric in found.metrics:
        output.print()
        output.print(metric.title, style="bold", highlight=False)
        for name, score in metric.headline.items():
            output.print(f"  {name.replace('_', ' ')}: {_figure(name, score)}", highlight=False)
        if metric.classes:
            table = Table(box=None, padding=(0, 1))
            table.add_column("class", no_wrap=True, min_width=max(map(len, metric.classes)))
            for name in next(iter(metric.classes.values())):
                table.add_column(name, justify="right")
            for label, figures in metric.classes.items():
                table.add_row(label, *(_cell(name, value) for name, value in figures.items()))
            output.print(table)
    if found.left_out:
        errors.print(
            f"note: no reference events of {', '.join(found.left_out)}: left out of every average",
            highlight=False,
        )


def _figure(name: str, score: Score) -> str:
    if score.value is None:
        return "not defined"
    scale, decimals, unit = (1.0, 3, "") if name == "d_prime" else (100.0, 2, " %")
    text = f"{scale * score.value:.{decimals}f}{unit}"
    if score.low is None or score.high is None:
        return text
    return f"{text}  (95 %: {scale * score.low:.{decimals}f} to {scale * score.high:.{decimals}f})"


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name in ("reference", "tp", "fp", "fn", "recordings"):
        return f"{value:.0f}"
    return f"{value:.3f}" if name == "d_prime" else f"{100 * value:.2f}"
