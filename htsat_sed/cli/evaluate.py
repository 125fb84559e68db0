"""`htsat-sed evaluate`: metrics of detections against reference labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from htsat_sed.cli.evaluation_options import EvaluatedFiles, MetricOptions, ReportFiles
from htsat_sed.cli.evaluation_report import inputs, make_sure_of, show
from htsat_sed.cli.groups import with_groups
from htsat_sed.cli.maps import detected_maps, kept_maps_rules, matching_recordings
from htsat_sed.cli.message_options import MessageOptions
from htsat_sed.cli.model_options import DetectorOptions
from htsat_sed.cli.negatives import NegativeMaps, false_alarm_metrics, false_outcomes, negative_maps
from htsat_sed.cli.run_options import OverwriteOptions
from htsat_sed.cli.terminal import report
from htsat_sed.errors import AnnotationError, HtsatSedError, UsageError
from htsat_sed.runs.output_checks import check_apart
from htsat_sed.runs.output_hashes import check_replaceable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set

    from htsat_sed.detection.events import Event, PostProcessing
    from htsat_sed.detection.presence import PresenceMap
    from htsat_sed.evaluation.report import Report

HELP = """Score detections against reference labels: four kinds of F1, PSDS, clip-level metrics.

From events, with precision, recall and counts, per class, macro and micro:

- intersection: F1 by overlap (DTC 0.5, GTC 0.5), as for HTS-AT
- collar: event-based F1 (200 ms or 20 %), as in DCASE task 4
- onset: the same without offsets
- segment: F1 in segments of 1 s

From presence maps (--scores, with the -c and --map that made them, or --audio), also:

- psds1: PSDS scenario 1 (DTC 0.7, GTC 0.7, alpha_CT 0)
- psds2: PSDS scenario 2 (DTC 0.1, GTC 0.1, CTTC 0.3, alpha_CT 0.5)
- both: alpha_ST 1, at most 100 false positives per hour; exact
- clip: mAP, AUC and d-prime of the highest score in each recording

From clip scores (tag): only clip.

With several ESTIMATED, evaluate compares the others with the first: the
difference of each figure, with interval and p-value, from the same
resamplings.

From recordings without the classes (--negatives), with or without REFERENCE:

- false_alarms: events per hour, and their share of time

Rules:

- macro is the mean over classes with reference events; a class without
  hits counts as 0; micro uses summed counts
- a recording without events has one row with empty cells
- a recording without estimated events counts as without detections;
  recordings and classes that REFERENCE lacks are left out
- with an index of segments or a review, only the parts that somebody
  listened to are scored
- a.wav also matches a, a.flac and day/a.wav if only one of them exists

Warnings state how many recordings and events they concern. docs/evaluation.md explains each metric.

[bold]Examples[/bold]

  htsat-sed evaluate reference.tsv events.tsv
  htsat-sed evaluate reference.tsv events.tsv --bootstrap 1000
  htsat-sed evaluate reference.tsv events.tsv --json all.json --plot f1.png
  htsat-sed evaluate reference.tsv events.tsv --onset-collar 0.5
  htsat-sed evaluate reference.tsv events.tsv --check
  htsat-sed evaluate reference.tsv one.tsv other.tsv --table t.tex

  htsat-sed detect recordings/ --scores maps/ -o events.tsv
  htsat-sed evaluate reference.tsv --scores maps/ -c home
  htsat-sed evaluate reference.tsv --audio recordings/ -c audioset --map desed

  htsat-sed tag recordings/ -o tags.csv
  htsat-sed evaluate weak.tsv tags.csv

  htsat-sed evaluate --negatives street/ -c home
"""


COMPARISON_SAMPLES = 1000  # of the bootstrap, without --bootstrap


@with_groups
def evaluate(
    files: EvaluatedFiles,
    metric_options: MetricOptions = MetricOptions(),
    report_files: ReportFiles = ReportFiles(),
    detector_options: DetectorOptions = DetectorOptions(),
    existing: OverwriteOptions = OverwriteOptions(),
    messages: MessageOptions = MessageOptions(),
) -> None:
    """Score detections against reference labels; the help text is `HELP`."""
    _check_usage(files, metric_options, report_files, detector_options, existing.overwrite)
    systems = files.systems()
    if len(systems) > 1:
        if metric_options.bootstrap is None:
            metric_options = replace(metric_options, bootstrap=COMPARISON_SAMPLES)
        failures = _compare(files, systems, metric_options, report_files, detector_options)
    else:
        failures = _evaluate(systems[0], metric_options, report_files, detector_options)
    raise typer.Exit(1 if failures else 0)


def _evaluate(
    files: EvaluatedFiles,
    metric_options: MetricOptions,
    report_files: ReportFiles,
    detector_options: DetectorOptions,
) -> list[HtsatSedError]:
    """Evaluate one system; return failures, which are already reported."""
    from htsat_sed.evaluation.report import TOLERANCE, Report

    settings = metric_options.settings
    given = _read(files)
    if metric_options.reliability:
        _check_scores(files, given)
    maps = _presence_maps(files, given, detector_options)
    found = Report(0, ())
    if files.reference is not None:
        found = _against_reference(files.reference, given, maps, metric_options, files.only)
    if maps.negatives is not None:
        false_alarms = false_alarm_metrics(maps.negatives, maps.rules, files.only, settings)
        found = replace(found, metrics=(*found.metrics, *false_alarms))
    asked = {
        "inputs": _inputs(files, detector_options, maps),
        "settings": asdict(settings) | {"classes": files.only},
        "detection": maps.detection,
        "post_processing": maps.rules.to_dict() if maps.any else None,
    }
    report_files.keep_scores(maps.scored)
    report_files.write(found, asked)
    show(found)
    failures = maps.failures
    if found.largest_difference > TOLERANCE:
        what = f"figures differ from those of other implementations by up to {found.largest_difference:.1e}"
        failures.append(HtsatSedError(str(files.reference), what))
        report(failures[-1])
    return failures


def _compare(
    files: EvaluatedFiles,
    systems: Sequence[EvaluatedFiles],
    metric_options: MetricOptions,
    report_files: ReportFiles,
    detector_options: DetectorOptions,
) -> list[HtsatSedError]:
    """Evaluate several systems on the same recordings, and compare them."""
    from htsat_sed.cli.comparison_report import show_comparison
    from htsat_sed.evaluation.comparison import compare, names_of
    from htsat_sed.evaluation.tables import same_names

    assert files.reference is not None  # `EvaluatedFiles` wants one beside ESTIMATED
    reports, failures, rules = {}, [], {}
    for system, each in zip(names_of([str(path) for path in files.estimated or ()]), systems, strict=True):
        given = _read(each)
        if given.strong is not None:
            # All listed recordings count for every system, with or without detections.
            listed = same_names(given.durations, given.strong)
            given = replace(given, strong={name: [] for name in listed} | given.strong)
        maps = _presence_maps(each, given, detector_options)
        reports[system] = _against_reference(files.reference, given, maps, metric_options, files.only)
        rules[system] = maps.rules.to_dict() if maps.any else None
        failures += maps.failures
    try:
        found = compare(reports, metric_options.settings)
    except UsageError as error:
        raise AnnotationError(files.reference, str(error)) from error
    asked = {
        "inputs": inputs(reference=files.reference, estimated=files.estimated, durations=files.durations),
        "settings": asdict(metric_options.settings) | {"classes": files.only},
        "post_processing": rules,
    }
    report_files.write_comparison(found, asked)
    show_comparison(found)
    return failures


def _check_usage(
    files: EvaluatedFiles,
    metric_options: MetricOptions,
    report_files: ReportFiles,
    detector_options: DetectorOptions,
    overwrite: bool,
) -> None:
    """Check the combination of options, and the outputs."""
    no_maps = files.audio is None and files.negatives is None
    no_maps &= all(each.scores is None for each in files.systems())
    if no_maps and detector_options.events.given:
        raise typer.BadParameter(
            "ESTIMATED events are scored as they are: post-processing options such as --threshold need "
            "--scores or --audio"
        )
    several = len(files.estimated or ()) > 1
    if several and (metric_options.check or metric_options.reliability or report_files.write_scores):
        raise typer.BadParameter("--check, --reliability and --write-scores work with one ESTIMATED only")
    if several and metric_options.bootstrap == 0:
        raise typer.BadParameter(
            "a comparison needs at least 1 resampling; without --bootstrap it uses 1000",
            param_hint="--bootstrap",
        )
    if report_files.table is not None and not several:
        raise typer.BadParameter("needs several ESTIMATED to compare, got one", param_hint="--table")
    make_sure_of(*report_files.paths)
    check_apart(report_files.paths, [*files.paths, *detector_options.files])
    check_replaceable(*report_files.paths, overwrite=overwrite)
    if metric_options.reliability and files.reference is None:
        raise typer.BadParameter("--reliability needs REFERENCE")
    if metric_options.check:
        from htsat_sed.evaluation.check import require

        if files.reference is None:
            raise typer.BadParameter("--check needs REFERENCE")
        require()


@dataclass(frozen=True)
class _Given:
    """Contents of the label files.

    Attributes:
        strong: the reference; None if it has weak labels.
        weak: recording -> its classes, also for a strong reference.
        heard: reviewed events, if the reference is an index of clips or a review.
        events: estimated events; None if there are none.
        tags: estimated clip scores; None if there are none.
        durations: recording -> seconds.
    """

    strong: dict[str, list[Event]] | None
    weak: Mapping[str, Set[str]]
    heard: dict[str, list[Event]] | None
    events: dict[str, list[Event]] | None
    tags: dict[str, dict[str, float]] | None
    durations: Mapping[str, float]


def _read(files: EvaluatedFiles) -> _Given:
    """Read the tables of labels and estimates."""
    from htsat_sed.annotations import read_durations, read_events, read_heard
    from htsat_sed.annotations.tags import is_tags, read_tags

    reference, estimated = files.reference, next(iter(files.estimated or ()), None)
    tagged = estimated is not None and is_tags(estimated)
    if files.scores is not None and tagged:
        raise typer.BadParameter("ESTIMATED and --scores both have clip scores: omit one of them")
    strong, weak = _reference(reference) if reference is not None else ({}, {})
    heard = None
    if strong and reference is not None and reference.is_file():
        heard = read_heard(reference)
    if strong is None and estimated is not None and not tagged:
        what = "has weak labels, which need clip scores or presence maps instead of events"
        raise AnnotationError(str(reference), what)
    return _Given(
        strong,
        weak,
        heard,
        read_events(estimated) if estimated is not None and not tagged else None,
        read_tags(estimated) if estimated is not None and tagged else None,
        read_durations(files.durations) if files.durations is not None else {},
    )


def _check_scores(files: EvaluatedFiles, given: _Given) -> None:
    """Refuse estimated events without scores, all of which would count as 1."""
    scores = {event.score for own in (given.events or {}).values() for event in own}
    if scores == {1.0}:
        what = "has no scores below 1, which --reliability needs: `htsat-sed detect -f csv` writes scores"
        raise AnnotationError(str(next(iter(files.estimated or ()))), what)


def _reference(path: Path) -> tuple[dict[str, list[Event]] | None, Mapping[str, Set[str]]]:
    """Strong labels of a file (None if it has weak labels), and weak labels."""
    from htsat_sed.annotations import read_events, read_weak_labels
    from htsat_sed.annotations.tags import is_weak

    if is_weak(path):
        return None, read_weak_labels(path)  # read again when the classes of the estimates are known
    strong = read_events(path)
    return strong, {name: {event.label for event in own} for name, own in strong.items()}


@dataclass(frozen=True)
class _Maps:
    """Presence maps, read or computed, and their post-processing.

    Attributes:
        scored: recording of the reference -> presence map.
        negatives: presence maps of negatives; None if there are none.
        rules: post-processing of both.
        detection: settings of the detector; None for maps that were read.
        failures: recordings that could not be read.
    """

    scored: Mapping[str, PresenceMap]
    negatives: NegativeMaps | None
    rules: PostProcessing
    detection: dict[str, Any] | None
    failures: list[HtsatSedError]

    @property
    def any(self) -> bool:
        """Whether there are any maps."""
        return bool(self.scored) or self.negatives is not None


def _presence_maps(files: EvaluatedFiles, given: _Given, detector_options: DetectorOptions) -> _Maps:
    """Read or compute the presence maps."""
    from htsat_sed.annotations import read_presence_maps
    from htsat_sed.evaluation.tables import same_names

    detector = cache(detector_options.detector)
    maps: dict[str, PresenceMap] = {}
    failures: list[HtsatSedError] = []
    if files.audio is not None:
        wanted = given.weak.keys() | same_names(given.durations, given.weak)
        recordings = matching_recordings(files.audio, wanted)
        maps, failures = detected_maps(detector(), recordings)
    elif files.scores is not None:
        maps = dict(read_presence_maps(files.scores))
    negatives = negative_maps(files.negatives, detector) if files.negatives is not None else None
    if negatives is not None:
        failures += negatives.failures
    if files.audio is not None or (negatives is not None and negatives.detected):
        made = {
            "hop": detector().hop,
            "shifts": detector().shifts,
            "class_map": detector_options.model.class_map,
            "runtime": detector().runtime,
            "precision": detector_options.model.execution.precision,
        }
        return _Maps(maps, negatives, detector().post_processing, made, failures)
    detector_options.refuse_unused()
    kept = {**maps, **(negatives.maps if negatives is not None else {})}
    return _Maps(maps, negatives, kept_maps_rules(detector_options, kept), None, failures)


def _against_reference(
    reference: Path, given: _Given, maps: _Maps, metric_options: MetricOptions, only: list[str] | None
) -> Report:
    """Report on events, maps or clip scores against strong or weak labels."""
    from htsat_sed.annotations import read_weak_labels
    from htsat_sed.evaluation.clip import scores_of_map
    from htsat_sed.evaluation.evaluate import evaluate_strong, evaluate_weak

    weak, tags = given.weak, given.tags
    if given.strong is None:
        of_tags = (label for each in (tags or {}).values() for label in each)
        known = {*of_tags, *(label for each in maps.scored.values() for label in each.labels)}
        weak = read_weak_labels(reference, known)
        if tags is None:
            tags = {name: scores_of_map(each) for name, each in maps.scored.items()}
    settings, check = metric_options.settings, metric_options.check
    try:
        if given.strong is None or tags is not None:
            return evaluate_weak(weak, tags or {}, labels=only, settings=settings, check=check)
        return evaluate_strong(
            given.strong,
            given.events,
            maps=maps.scored,
            durations=given.durations,
            labels=only,
            settings=settings,
            post_processing=maps.rules,
            check=check,
            heard=given.heard,
            details=metric_options.details,
            reliability=false_outcomes(maps.negatives, maps.rules) if metric_options.reliability else None,
        )
    except UsageError as error:
        raise AnnotationError(reference, str(error)) from error


def _inputs(files: EvaluatedFiles, detector_options: DetectorOptions, maps: _Maps) -> dict[str, Any]:
    """Input files with hashes."""
    class_map, checkpoint = detector_options.model.class_map, detector_options.model.checkpoint
    used = maps.detection is not None or (maps.scored and checkpoint)
    return inputs(
        reference=files.reference,
        estimated=next(iter(files.estimated or ()), None),
        scores=files.scores,
        audio=files.audio,
        negatives=files.negatives,
        durations=files.durations,
        class_map=Path(class_map) if class_map is not None and Path(class_map).is_file() else None,
        checkpoints=detector_options.model.checkpoints if used else None,
    )
