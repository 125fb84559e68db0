"""`htsat-sed evaluate`: scores of detections against reference labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from htsat_sed.cli import options
from htsat_sed.cli.evaluation_report import inputs, make_sure_of, show, write_csv, write_json
from htsat_sed.cli.groups import with_groups
from htsat_sed.cli.maps import detected_maps, kept_maps_rules, matching_recordings
from htsat_sed.cli.negatives import NegativesOption, false_alarm_metrics, false_outcomes, negative_maps
from htsat_sed.cli.progress import ProgressMode
from htsat_sed.cli.terminal import report
from htsat_sed.errors import AnnotationError, HtsatSedError, UsageError
from htsat_sed.runs.outputs import check_apart
from htsat_sed.runs.written import check_replaceable, recording_outputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from htsat_sed.detection.detector import Detector
    from htsat_sed.detection.events import Event, PostProcessing
    from htsat_sed.detection.presence import PresenceMap
    from htsat_sed.evaluation.reliability import Outcomes
    from htsat_sed.evaluation.report import Report, Settings

METRICS = "Metrics"
OUTPUT = "Output"


@dataclass(frozen=True)
class MetricOptions:
    """Parameters of the metrics, and what is computed beside them."""

    onset_collar: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Collar-based F1: how far an onset may be off.", rich_help_panel=METRICS
        ),
    ] = 0.2
    offset_collar: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Collar-based F1: how far an offset may be off.", rich_help_panel=METRICS
        ),
    ] = 0.2
    offset_share: Annotated[
        float,
        typer.Option(
            metavar="PART",
            help="Or by this part of the reference event's duration, if that is more.",
            rich_help_panel=METRICS,
        ),
    ] = 0.2
    segment: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Segment-based F1: length of a segment.", rich_help_panel=METRICS
        ),
    ] = 1.0
    dtc: Annotated[
        float,
        typer.Option(
            metavar="PART",
            help="Intersection-based F1: least part of an estimated event inside reference events.",
            rich_help_panel=METRICS,
        ),
    ] = 0.5
    gtc: Annotated[
        float,
        typer.Option(
            metavar="PART",
            help="Intersection-based F1: least part of a reference event that estimated ones cover.",
            rich_help_panel=METRICS,
        ),
    ] = 0.5
    cttc: Annotated[
        float,
        typer.Option(
            metavar="PART",
            help="Cross-trigger tolerance, stated with F1 though without effect on it.",
            rich_help_panel=METRICS,
        ),
    ] = 0.3
    psds_thresholds: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="PSDS: thresholds that approximate the curve, in the middle of N equal parts of 0 to 1.",
            rich_help_panel=METRICS,
        ),
    ] = 50
    bootstrap: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="95 % intervals of all averages from N resamplings of the recordings, such as 1000.",
            rich_help_panel=METRICS,
        ),
    ] = 0
    reliability: Annotated[
        bool,
        typer.Option(
            "--reliability",
            help="How often events of a score are right, by tenths of the score; false alarms count.",
            rich_help_panel=METRICS,
        ),
    ] = False
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Compute the figures with sed_eval, psds_eval and scikit-learn, too; fail if any differs by "
            r"more than 1e-9. Needs pip install 'htsat-sed\[reference]'.",
            rich_help_panel=METRICS,
        ),
    ] = False
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Of the resampling.", rich_help_panel=METRICS)
    ] = 0

    @property
    def settings(self) -> Settings:
        """The parameters alone."""
        from htsat_sed.evaluation.report import Settings

        return Settings(**{each.name: getattr(self, each.name) for each in fields(Settings)})


@dataclass(frozen=True)
class ReportFiles:
    """Files of the report, each written where it is given."""

    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Everything: figures, counts, parameters, versions, hashes of the inputs. The same input "
            "gives the same bytes.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None
    csv_file: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            help="A row for each metric, class and figure.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A picture (png, svg, pdf): F1 of each class, and the PSD-ROC.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None

    @property
    def paths(self) -> tuple[Path | None, Path | None, Path | None]:
        """The files to be, None for one that is not wanted."""
        return self.json_file, self.csv_file, self.plot

    def write(self, found: Report, asked: Mapping[str, object]) -> None:
        """Write the report.

        Args:
            found: what was computed.
            asked: inputs and parameters, for the JSON file.
        """
        if self.json_file is not None:
            with recording_outputs():
                write_json(self.json_file, found, asked)
        if self.csv_file is not None:
            with recording_outputs():
                write_csv(self.csv_file, found)
        if self.plot is not None:
            from htsat_sed.evaluation.picture import draw_report

            with recording_outputs():
                draw_report(found, self.plot)


@with_groups
def evaluate(
    reference: Annotated[
        Path | None,
        typer.Argument(
            metavar="REFERENCE",
            help="Strong labels: a table with filename, onset, offset (seconds) and event_label, as DESED's; "
            "or any format that detect writes, also a folder with one label file a recording. Or weak ones, "
            "filename and event_labels, for clip-level metrics alone. May be left out with --negatives.",
            show_default=False,
        ),
    ] = None,
    estimated: Annotated[
        Path | None,
        typer.Argument(
            metavar="ESTIMATED",
            help="Events, in the same formats, or clip scores as tag writes them.",
            show_default=False,
        ),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Presence maps as `detect --scores` keeps them: adds PSDS and clip-level metrics. Without "
            "ESTIMATED, events are found in them, by the options at the end.",
            show_default=False,
        ),
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Detect first, in the recordings below this folder that REFERENCE has: presence maps and "
            "events, by the options at the end.",
            show_default=False,
        ),
    ] = None,
    negatives: NegativesOption = None,
    durations: Annotated[
        Path | None,
        typer.Option(
            metavar="TSV",
            help="Table with filename and duration (seconds; presence maps know theirs). Events past the end "
            "are noticed, and a recording in it that REFERENCE lacks counts as one without events.",
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
    metric_options: MetricOptions = MetricOptions(),
    report_files: ReportFiles = ReportFiles(),
    checkpoint: options.Checkpoints = None,
    class_map: options.ClassMapOption = None,
    channel_options: options.ChannelOptions = options.ChannelOptions(),
    hop: options.Hop = 10.0,
    execution_options: options.ExecutionOptions = options.ExecutionOptions(),
    sample_rate: options.SampleRate = None,
    label_file: options.LabelFile = None,
    event_options: options.EventOptions = options.EventOptions(),
    overwrite: options.Overwrite = False,
    show_progress: options.ShowProgress = ProgressMode.auto,
    be_quiet: options.Quiet = False,
) -> None:
    """Score detections against reference labels: F1 of four kinds, PSDS, clip-level metrics.

    From events, with precision, recall and counts, per class, macro and micro:

    - intersection: F1 by overlap (DTC 0.5, GTC 0.5), as for HTS-AT
    - collar: event-based F1 (200 ms or 20 %), that of DCASE task 4
    - onset: the same, whatever the offset
    - segment: F1 in segments of 1 s

    From presence maps (--scores, with the -c and --map that made them, or --audio), also:

    - psds1: PSDS scenario 1 (DTC 0.7, GTC 0.7, alpha_CT 0)
    - psds2: PSDS scenario 2 (DTC 0.1, GTC 0.1, CTTC 0.3, alpha_CT 0.5)
    - both: alpha_ST 1, at most 100 false positives an hour
    - clip: mAP, AUC and d-prime; a recording's score is its highest

    From clip scores (tag): clip alone.

    From recordings without the classes (--negatives), with or without REFERENCE:

    - false_alarms: events per hour, and the share of time that they cover

    How the labels are read:

    - macro is the mean over classes with reference events; a class without
      hits counts 0; micro is of summed counts
    - a recording without events has one row with empty cells
    - a recording that only REFERENCE has counts as without detections;
      one that it lacks, and events of classes that it lacks, are left out
    - of an index that segments wrote, only what was cut is scored: events
      that nobody listened to are neither right nor wrong
    - a.wav is also known as a, as a.flac and as day/a.wav where one fits

    Warnings count what was met. docs/evaluation.md explains each metric, and why two papers' "F1" differ.

    [bold]Examples[/bold]

      htsat-sed evaluate reference.tsv events.tsv
      htsat-sed evaluate reference.tsv events.tsv --bootstrap 1000
      htsat-sed evaluate reference.tsv events.tsv --json all.json --plot f1.png
      htsat-sed evaluate reference.tsv events.tsv --onset-collar 0.5
      htsat-sed evaluate reference.tsv events.tsv --check

      htsat-sed detect recordings/ --scores maps/ -o events.tsv
      htsat-sed evaluate reference.tsv --scores maps/ -c home
      htsat-sed evaluate reference.tsv --audio recordings/ -c audioset --map desed

      htsat-sed tag recordings/ -o tags.csv
      htsat-sed evaluate weak.tsv tags.csv

      htsat-sed evaluate --negatives street/ -c home
    """
    given = [
        name for name, value in (("ESTIMATED", estimated), ("--scores", scores), ("--audio", audio)) if value
    ]
    if reference is None and (negatives is None or given):
        raise typer.BadParameter("wanted REFERENCE, or --negatives alone")
    if reference is not None and (not given or (audio is not None and len(given) > 1)):
        raise typer.BadParameter("wanted ESTIMATED, --scores, both of them, or --audio alone")
    if (
        audio is None
        and scores is None
        and negatives is None
        and (event_options.post_processing is not None or any(event_options.flags.values()))
    ):
        raise typer.BadParameter(
            "events are scored as they are: --threshold and the like want --scores or --audio"
        )
    make_sure_of(*report_files.paths)
    check_apart(
        report_files.paths,
        [
            *(
                reference,
                estimated,
                scores,
                negatives,
                durations,
                event_options.post_processing,
                class_map,
                label_file,
            ),
            *(options.checkpoint_files(checkpoint) if checkpoint else ()),
        ],
    )
    check_replaceable(*report_files.paths, overwrite=overwrite)
    if metric_options.check:
        from htsat_sed.evaluation.check import require

        if reference is None:
            raise typer.BadParameter("wanted REFERENCE: --check is for figures against reference labels")
        require()
    from htsat_sed.annotations import (
        read_durations,
        read_events,
        read_heard,
        read_presence_maps,
        read_weak_labels,
    )
    from htsat_sed.annotations.tags import is_tags, read_tags
    from htsat_sed.evaluation.report import TOLERANCE, Report
    from htsat_sed.evaluation.tables import same_names

    settings = metric_options.settings
    tagged = estimated is not None and is_tags(estimated)
    if scores is not None and tagged:
        raise typer.BadParameter("ESTIMATED has clip scores, and --scores too: leave one of them out")
    strong, weak = _reference(reference) if reference is not None else ({}, {})
    heard = None
    if strong and reference is not None and reference.is_file():
        heard = read_heard(reference)
    if strong is None and estimated is not None and not tagged:
        what = "weak labels are scored with clip scores or presence maps, not with events"
        raise AnnotationError(str(reference), what)
    tags = read_tags(estimated) if estimated is not None and tagged else None
    events = read_events(estimated) if estimated is not None and not tagged else None
    lengths = read_durations(durations) if durations is not None else {}

    @cache
    def detector() -> Detector:
        return options.make_detector(
            checkpoint,
            execution_options=execution_options,
            channel_options=channel_options,
            hop=hop,
            sample_rate=sample_rate,
            label_file=label_file,
            class_map=class_map,
            event_options=event_options,
        )

    failures: list[HtsatSedError] = []
    maps: dict[str, PresenceMap] = {}
    detection = None
    if audio is not None:
        recordings = matching_recordings(audio, weak.keys() | same_names(lengths, weak))
        maps, failures = detected_maps(detector(), recordings)
    elif scores is not None:
        maps = dict(read_presence_maps(scores))
    without = negative_maps(negatives, detector) if negatives is not None else None
    if audio is not None or (without is not None and without.detected):
        rules = detector().post_processing
        detection = {
            "hop": detector().hop,
            "class_map": class_map,
            "runtime": detector().runtime,
            "precision": execution_options.precision,
        }
    else:
        _refuse_unused(
            {
                "--hop": hop != 10.0,
                "--device": execution_options.device != "auto",
                "--batch-size": execution_options.batch_size != "auto",
                "--runtime": execution_options.runtime != "auto",
                "--precision": execution_options.precision != "float32",
                "--compile": execution_options.compile_model,
                "--sample-rate": sample_rate is not None,
                "--label-file": label_file is not None,
            }
        )
        kept = {**maps, **(without.maps if without is not None else {})}
        rules = kept_maps_rules(
            checkpoint, class_map, event_options.post_processing, event_options.flags, kept
        )
    found = Report(0, ())
    if reference is not None:
        if strong is None:
            of_tags = (label for each in (tags or {}).values() for label in each)
            known = {*of_tags, *(label for each in maps.values() for label in each.labels)}
            weak = read_weak_labels(reference, known)
        try:
            outcomes = false_outcomes(without, rules) if metric_options.reliability else None
            found = _evaluate(
                strong,
                weak,
                events,
                tags,
                maps,
                rules,
                lengths,
                only,
                settings,
                metric_options.check,
                heard,
                outcomes,
            )
        except UsageError as error:
            raise AnnotationError(reference, str(error)) from error
    if without is not None:
        failures += without.failures
        found = replace(found, metrics=(*found.metrics, *false_alarm_metrics(without, rules, only, settings)))
    asked = {
        "inputs": inputs(
            reference=reference,
            estimated=estimated,
            scores=scores,
            audio=audio,
            negatives=negatives,
            durations=durations,
            class_map=Path(class_map) if class_map is not None and Path(class_map).is_file() else None,
            checkpoints=options.checkpoint_files(checkpoint)
            if detection is not None or (maps and checkpoint)
            else None,
        ),
        "settings": asdict(settings) | {"classes": only},
        "detection": detection,
        "post_processing": rules.to_dict() if maps or without is not None else None,
    }
    report_files.write(found, asked)
    show(found)
    if found.largest_difference > TOLERANCE:
        what = f"figures differ from those of other implementations by up to {found.largest_difference:.1e}"
        failures.append(HtsatSedError(str(reference), what))
        report(failures[-1])
    raise typer.Exit(1 if failures else 0)


def _refuse_unused(given: Mapping[str, bool]) -> None:
    """Refuse options that would have no effect, as nothing is detected."""
    if unused := [name for name, used in given.items() if used]:
        raise typer.BadParameter(
            "nothing is detected here, so that this has no effect: leave it out, or give --audio",
            param_hint=", ".join(unused),
        )


def _reference(path: Path) -> tuple[dict[str, list[Event]] | None, Mapping[str, Set[str]]]:
    """The strong labels of a file, None if it has weak ones, and its weak labels."""
    from htsat_sed.annotations import read_events, read_weak_labels
    from htsat_sed.annotations.tags import is_weak

    if is_weak(path):
        return None, read_weak_labels(path)  # read once more when the classes of the other side are known
    strong = read_events(path)
    return strong, {name: {event.label for event in own} for name, own in strong.items()}


def _evaluate(
    strong: dict[str, list[Event]] | None,
    weak: Mapping[str, Set[str]],
    events: dict[str, list[Event]] | None,
    tags: dict[str, dict[str, float]] | None,
    maps: Mapping[str, PresenceMap],
    rules: PostProcessing,
    durations: Mapping[str, float],
    only: list[str] | None,
    settings: Settings,
    check: bool,
    heard: dict[str, list[Event]] | None,
    reliability: Outcomes | None,
) -> Report:
    from htsat_sed.evaluation.clip import scores_of_map
    from htsat_sed.evaluation.evaluate import evaluate_strong, evaluate_weak

    if tags is not None:
        return evaluate_weak(weak, tags, labels=only, settings=settings, check=check)
    if strong is not None:
        return evaluate_strong(
            strong,
            events,
            maps=maps,
            durations=durations,
            labels=only,
            settings=settings,
            post_processing=rules,
            check=check,
            heard=heard,
            reliability=reliability,
        )
    of_maps = {name: scores_of_map(each) for name, each in maps.items()}
    return evaluate_weak(weak, of_maps, labels=only, settings=settings, check=check)
