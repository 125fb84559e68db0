"""`htsat-sed tune`: post-processing tuned for each class."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from htsat_sed.cli.evaluation_options import ToleranceOptions
from htsat_sed.cli.groups import MODEL, OUTPUT, Without, argument, option, with_groups
from htsat_sed.cli.maps import bundled_info, detected_maps, matching_recordings, post_processing_of
from htsat_sed.cli.message_options import MessageOptions
from htsat_sed.cli.model_options import ModelOptions
from htsat_sed.cli.negatives import NegativesOption, negative_maps
from htsat_sed.cli.progress import RecordingsProgress
from htsat_sed.cli.recording_options import ChannelOptions
from htsat_sed.cli.run_options import OverwriteOptions
from htsat_sed.cli.terminal import output, remark, say
from htsat_sed.cli.tune_reviewed import (
    ReviewOptions,
    find_thresholds,
    show_thresholds,
    wanted_precision,
    write_next,
    write_thresholds,
)
from htsat_sed.errors import AnnotationError, HtsatSedError, UsageError, counted
from htsat_sed.runs.output_checks import check_apart, check_files
from htsat_sed.runs.output_hashes import check_replaceable, recording_outputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set

    from htsat_sed.detection.detector import Detector
    from htsat_sed.detection.events import Event, PostProcessing
    from htsat_sed.detection.presence import PresenceMap
    from htsat_sed.evaluation.class_scores import Choice
    from htsat_sed.evaluation.false_alarm_limit import Limit
    from htsat_sed.evaluation.false_alarms import FalseAlarms
    from htsat_sed.evaluation.report import Settings
    from htsat_sed.evaluation.tuning import Tuning, Worth
    from htsat_sed.model.checkpoint import CheckpointInfo

METHODS = ("threshold", "change-points", "both", "threshold-alone")
DEFAULT_LIMIT = 2.0  # false alarms per hour
METRICS = ("intersection", "collar", "segment", "psds1", "psds2")

SEARCH = "Search"


@dataclass(frozen=True)
class TuningInputs:
    """The reference, presence maps or recordings, and the previous values."""

    reference: Path | None = argument(None, "Strong labels, as for evaluate.", metavar="REFERENCE")
    scores: Path | None = option(None, "Presence maps from `detect --scores`, or score files.", metavar="DIR")
    audio: Path | None = option(
        None, "Folder of the recordings of REFERENCE, to compute their presence maps.", metavar="DIR"
    )
    before: Path | None = option(
        None,
        "Previous values, instead of the checkpoint's; a class keeps them unless others are better.",
        "--post-processing",
        metavar="TOML",
    )

    @property
    def labels(self) -> Path:
        """The reference; checks that there is one.

        Raises:
            typer.BadParameter: both presence maps and recordings are given, or neither.
        """
        if (self.scores is None) == (self.audio is None):
            raise typer.BadParameter("give either --scores or --audio")
        assert self.reference is not None
        return self.reference


@dataclass(frozen=True)
class TunedFiles:
    """Files for the tuned values."""

    panel: ClassVar[str] = OUTPUT
    out: Path | None = option(
        None,
        "Write the values to this file, for `detect --post-processing`.",
        "--output",
        "-o",
        metavar="TOML",
    )
    into: Path | None = option(
        None, "Write a copy of the checkpoint (-c) with the values to this file.", metavar="SAFETENSORS"
    )


@dataclass(frozen=True)
class SearchOptions:
    """The metric and method of the search."""

    panel: ClassVar[str] = SEARCH
    metric: str = option(
        "intersection",
        "Metric to maximise: intersection, collar or segment for that kind of F1; psds1 or psds2 to "
        "choose filters and gaps for the exact PSDS, and thresholds for the highest F1 under the criteria "
        "of that scenario.",
        metavar="METRIC",
    )
    method: str = option(
        "threshold",
        "threshold (runs of high scores), change-points (boxes between changes, cSEBBs), or both (the "
        "better for each class); threshold-alone tunes only thresholds, needs fewer recordings and takes "
        "seconds.",
        metavar="METHOD",
    )
    negatives: NegativesOption = None
    false_alarms_per_hour: float | None = option(
        None,
        "With --negatives: maximum false alarms per hour of all tuned classes together.  \\[default: 2]",
        min=0.0,
        metavar="N",
    )
    folds: int = option(
        5, "Folds of the cross-validation over recordings, at most one per recording.", min=2, metavar="N"
    )
    seed: int = option(0, "Random seed of the folds.", min=0, metavar="N")
    tolerances: ToleranceOptions = ToleranceOptions()

    def __post_init__(self) -> None:
        """Check the names of metric and method, and that the limit has negatives.

        Raises:
            typer.BadParameter: a name is unknown, or there are no negatives.
        """
        for name, value, known in (("method", self.method, METHODS), ("metric", self.metric, METRICS)):
            if value not in known:
                raise typer.BadParameter(
                    f"wanted one of {', '.join(known)}; got {value!r}", param_hint=f"--{name}"
                )
        if self.false_alarms_per_hour is not None and self.negatives is None:
            raise typer.BadParameter("needs --negatives", param_hint="--false-alarms-per-hour")

    @property
    def settings(self) -> Settings:
        """Parameters of the metrics."""
        from htsat_sed.evaluation.report import Settings

        return Settings(**asdict(self.tolerances))


@dataclass(frozen=True)
class OneDetectorOptions:
    """A detector of one checkpoint."""

    panel: ClassVar[str] = MODEL
    checkpoint: str | None = option(
        None,
        "Checkpoint for --audio and --into; with --scores, the one that computed them, for previous values.  "
        "\\[default: home, the bundled one; with --scores alone none]",
        "--checkpoint",
        "-c",
        metavar="FILE|NAME",
    )
    model: Annotated[
        ModelOptions, Without("checkpoint", "labels", "sample_rate", "label_file", "precision")
    ] = ModelOptions()
    channels: ChannelOptions = ChannelOptions()
    precision: str = option(
        "float32",
        "With --reviewed: required share of right events; the default is 0.9. With --audio: precision of "
        "the model after the front end, float32, bfloat16, float16 or int8.",
        metavar="PART|TYPE",
        rich_help_panel=MODEL,
    )

    def detector(self) -> Detector:
        """The detector that the options describe."""
        checkpoint = None if self.checkpoint is None else [self.checkpoint]
        execution = replace(self.model.execution, precision=self.precision)
        return replace(self.model, checkpoint=checkpoint, execution=execution).detector(self.channels)


HELP = """Tune threshold, hysteresis, median filter, minimum gap and minimum event of each class.

The search for thresholds is exact; the other values are chosen from a few candidates.

The table shows each F1 three times:

- before: with the previous values
- fitted: with tuned values on the recordings used for tuning; optimistic
- held out: each fold with values tuned on the others; the F1 to expect

The gain is held out minus before, with its 95 % interval over recordings.

With --reviewed, thresholds come from verdicts on events: for each class,
the lowest threshold with the target precision, and the interval of the
precision. For classes with too few verdicts, tune lists the events to review
next.

With --negatives, tune finds the highest F1 within --false-alarms-per-hour.
A class that no values keep within the limit becomes silent; more negatives,
or a higher limit, can prevent this.

[bold]Examples[/bold]

  htsat-sed detect recordings/ --scores maps/ -o events.tsv
  htsat-sed tune reference.tsv --scores maps/ -o tuned.toml
  htsat-sed detect more/ --post-processing tuned.toml
  htsat-sed tune reference.tsv --scores maps/ -c home --into mine.safetensors
  htsat-sed tune reference.tsv --audio recordings/ --metric collar
  htsat-sed tune reference.tsv --audio yard/ --negatives street/ -o t.toml
  htsat-sed tune --reviewed review.csv --precision 0.9 -o tuned.toml
"""


@with_groups
def tune(
    given: TuningInputs,
    files: TunedFiles = TunedFiles(),
    search: SearchOptions = SearchOptions(),
    review: ReviewOptions = ReviewOptions(),
    detector_options: OneDetectorOptions = OneDetectorOptions(),
    existing: OverwriteOptions = OverwriteOptions(),
    messages: MessageOptions = MessageOptions(),
) -> None:
    """Tune the post-processing of each class; the help text is `HELP`."""
    checkpoint, class_map = detector_options.checkpoint, detector_options.model.class_map
    _check(files, class_map)
    review.check(given.reference, [given.scores, given.audio, search.negatives, files.into])
    if review.reviewed is not None:
        precision = wanted_precision(detector_options.precision)
        check_replaceable(files.out, review.next_events, overwrite=existing.overwrite)
        _tune_reviewed(review, precision, given.before, checkpoint, class_map, files.out, search.seed)
        raise typer.Exit(0)
    reference = given.labels
    from htsat_sed.annotations import read_events, read_heard
    from htsat_sed.model.catalogue import resolve_checkpoint
    from htsat_sed.model.checkpoint import read_info

    settings = search.settings
    described = given.audio is not None or files.into is not None or checkpoint is not None
    file = resolve_checkpoint(checkpoint) if described else None
    check_apart(
        [files.out, files.into],
        [reference, given.scores, search.negatives, given.before, class_map, file],
    )
    check_replaceable(files.out, files.into, overwrite=existing.overwrite)
    strong = read_events(reference)
    if reference.is_file() and read_heard(reference) is not None:
        logging.getLogger("htsat_sed").warning(
            "%s: lists events that were listened to, but tuning needs recordings that were listened to "
            "completely: events that nobody listened to count as false positives",
            reference,
        )
    info = read_info(file) if file is not None else None
    maps, limit, failures = _presence_maps(given, search, detector_options, strong)
    if info is None and class_map is None and (info := bundled_info(maps)) is None and given.before is None:
        say("note", "without -c, the previous value is a threshold of 0.5 for all classes", "")
    old = post_processing_of(info, class_map, given.before)
    if info is not None and files.into is not None:
        _check_labels({event.label for own in strong.values() for event in own}, maps, info)
    try:
        found = _search(strong, maps, search, settings=settings, before=old, limit=limit)
    except UsageError as error:
        raise AnnotationError(reference, str(error)) from error
    if files.out is not None:
        _write_toml(found, search.metric, files.out)
    if files.into is not None:
        _write_checkpoint(found, search.metric, checkpoint, files.into)
    _show(found, search.metric)
    if limit is not None:
        _warn_of_missed(limit, found)
        _warn_of_untuned(limit, found.labels, old)
    raise typer.Exit(1 if failures else 0)


def _tune_reviewed(
    review: ReviewOptions,
    precision: float,
    before: Path | None,
    checkpoint: str | None,
    class_map: str | None,
    out: Path | None,
    seed: int,
) -> None:
    """Thresholds with the target precision, from a review."""
    from htsat_sed.model.catalogue import resolve_checkpoint
    from htsat_sed.model.checkpoint import read_info

    check_files(out, review.next_events)
    check_apart([out, review.next_events], [review.reviewed, before, class_map])
    found = find_thresholds(review, precision, seed)
    info: CheckpointInfo | None = read_info(resolve_checkpoint(checkpoint))
    if checkpoint is None and info is not None and not {each.label for each in found} <= set(info.labels):
        info = None
    show_thresholds(found, precision)
    if out is not None:
        write_thresholds(found, post_processing_of(info, class_map, before), precision, out)
    if review.next_events is not None:
        write_next(found, review.next_events)


def _check(files: TunedFiles, class_map: str | None) -> None:
    """Check the outputs."""
    into = files.into
    if into is not None and into.suffix != ".safetensors":
        raise typer.BadParameter(f"wanted a file ending in .safetensors, got {into}", param_hint="--into")
    if into is not None and class_map is not None:
        reason = "the classes of --map are not the checkpoint's: write the values to a TOML file (-o)"
        raise typer.BadParameter(reason, param_hint="--into")
    check_files(files.out, into)


def _presence_maps(
    given: TuningInputs,
    search: SearchOptions,
    detector_options: OneDetectorOptions,
    strong: Mapping[str, Sequence[Event]],
) -> tuple[dict[str, PresenceMap], Limit | None, list[HtsatSedError]]:
    """Presence maps of recordings, the limit of false alarms, and failures."""
    from htsat_sed.annotations import read_presence_maps

    detector = cache(detector_options.detector)
    failures: list[HtsatSedError] = []
    maps: dict[str, PresenceMap] = {}
    if given.audio is not None:
        recordings = matching_recordings(given.audio, strong)
        maps, failures = detected_maps(detector(), recordings)
    elif given.scores is not None:
        maps = dict(read_presence_maps(given.scores))
    if search.negatives is None:
        return maps, None, failures
    from htsat_sed.evaluation.false_alarm_limit import Limit

    quiet = negative_maps(search.negatives, detector)
    per_hour = DEFAULT_LIMIT if search.false_alarms_per_hour is None else search.false_alarms_per_hour
    limit = Limit(maps=quiet.maps, table=quiet.table, per_hour=per_hour)
    return maps, limit, failures + quiet.failures


def _search(
    strong: Mapping[str, Sequence[Event]],
    maps: Mapping[str, PresenceMap],
    search: SearchOptions,
    *,
    settings: Settings,
    before: PostProcessing,
    limit: Limit | None,
) -> Tuning:
    """Tune on the recordings that have both labels and a presence map."""
    from htsat_sed.evaluation.tables import Remarks, check_names, pair, same_names
    from htsat_sed.evaluation.tuning import tune as tuned

    maps = same_names(maps, strong)
    check_names(strong, maps)
    mapless = [name for name in strong if name not in maps]
    Remarks().add(mapless, "recording", "of the reference without a presence map: left out")
    events = pair({name: own for name, own in strong.items() if name in maps}, dict.fromkeys(maps, ()))
    with RecordingsProgress("tuning", len(events.labels), "classes") as progress:
        return tuned(
            events,
            maps,
            metric=search.metric,  # type: ignore[arg-type]
            method=search.method,  # type: ignore[arg-type]
            settings=settings,
            before=before,
            folds=max(2, min(search.folds, len(events.recordings))),
            seed=search.seed,
            limit=limit,
            progress=progress.done,
        )


def _check_labels(wanted: Set[str], maps: Mapping[str, PresenceMap], info: CheckpointInfo) -> None:
    """Refuse presence maps of another checkpoint."""
    heard = {label for each in maps.values() for label in each.labels}
    odd = sorted((wanted & heard) - set(info.labels))
    if odd:
        lacking = f"the presence maps have a class {odd[0]!r} that the checkpoint lacks"
        reason = f"{lacking}: give the one that computed them with -c"
        raise typer.BadParameter(reason, param_hint="--into")


def _warn_of_missed(limit: Limit, found: Tuning) -> None:
    """Warn where the limit is kept only in the negatives that it was tuned on."""
    assert found.false_alarms is not None
    (rate,), _ = found.false_alarms[2].overall()
    if rate > limit.per_hour:
        fact = f"held out, these values raise {rate:.1f} false alarms per hour, more than {limit.per_hour:g}"
        say("warning", f"{fact}: give more negatives, or a lower limit", "yellow")


def _warn_of_untuned(limit: Limit, tuned: Sequence[str], rules: PostProcessing) -> None:
    """Warn of false alarms of classes without labels: they keep their values, and the limit ignores them."""
    from htsat_sed.detection.events import find_events
    from htsat_sed.evaluation.false_alarms import count_false_alarms

    others = sorted({label for each in limit.maps.values() for label in each.labels} - set(tuned))
    events = {name: find_events(each, rules) for name, each in limit.maps.items()}
    durations = {name: each.duration for name, each in limit.maps.items()}
    false = count_false_alarms(events, durations, limit.table, others)
    (rate,), _ = false.overall()
    if rate:
        numbers = zip(others, false.events.sum(axis=0), strict=True)
        named = ", ".join(f"{label} ({number:.0f})" for label, number in numbers if number)
        say(
            "warning",
            f"classes without labels are not tuned, and raise {rate:.1f} false alarms per hour more: "
            f"{named}; raise their thresholds with `detect --threshold LABEL=SCORE`",
            "yellow",
        )


def _show(found: Tuning, metric: str) -> None:
    """Print the effect of tuning overall, by fold and by class; and the values."""
    from rich.table import Table

    macro = found.macro()
    gain, low, high = (100 * value for value in found.gain())
    output.print(
        f"{_figure(metric)}: {100 * macro.before:.2f} % before, {100 * macro.held_out:.2f} % held out; "
        f"gain {gain:+.2f} points (95 %: {low:+.2f} to {high:+.2f})",
        style="bold",
        soft_wrap=True,
    )
    if found.false_alarms is not None:
        output.print(_false_alarms_line(found.false_alarms), highlight=False, soft_wrap=True)
    if gain < 0.0:
        worse = "worse" if high < 0.0 else "no better"
        advice = "keep the previous ones, or give more labels"
        say("warning", f"held out, these values are {worse} than the previous ones: {advice}", "yellow")
    table = Table(box=None, padding=(0, 1))
    table.add_column("PSDS, %" if metric.startswith("psds") else "macro F1, %", no_wrap=True)
    for name in ("recordings", "before", "fitted", "held out"):
        table.add_column(name, justify="right", no_wrap=True)
    for fold, worth in enumerate(found.by_fold()):
        number = int((found.fold_of == fold).sum())
        table.add_row(f"fold {fold + 1}", str(number), *_percent(worth))
    table.add_section()
    table.add_row("all", str(len(found.fold_of)), *_percent(macro))
    output.print(table)
    output.print()
    used = _used(found.choices)
    table = Table(box=None, padding=(0, 1))
    table.add_column("class", no_wrap=True, min_width=max(map(len, found.labels)))
    for name in ("before", "fitted", "held out", *_COLUMNS):
        if name not in _COLUMNS or name in used:
            table.add_column(name, justify="right")
    worths = found.by_class()
    for label, choice in zip(found.labels, found.choices, strict=True):
        values = choice.values()
        cells = (f"{values[_COLUMNS[name]]:{'.3f' if name in _SCORES else 'g'}}" for name in used)
        table.add_row(label, *_percent(worths[label]), *cells)
    output.print(table)


def _false_alarms_line(found: tuple[FalseAlarms, FalseAlarms, FalseAlarms]) -> str:
    words = []
    for name, each in zip(("before", "fitted", "held out"), found, strict=True):
        (rate,), (share,) = each.overall()
        words.append(f"{name} {rate:.1f} an hour, {100 * share:.2f} % of the time")
    hours = found[0].durations.sum() / 3600.0
    negatives = counted(len(found[0].recordings), "negative")
    return f"false alarms in {negatives}, {hours:.2f} h: {'; '.join(words)}"


# Heading -> value of `PostProcessing`.
_COLUMNS = {
    "threshold": "threshold",
    "low": "threshold_low",
    "median": "median_filter",
    "gap": "min_gap",
    "edge": "edge_level",
    "event": "min_event",
    "step": "step_filter",
    "merge": "merge_relative",
    "merge abs.": "merge_absolute",
}


_SCORES = ("threshold", "low")  # the others are seconds or shares, of few digits


def _used(choices: tuple[Choice, ...]) -> list[str]:
    """Columns to show; those of edges and boxes only if used."""
    values = [choice.values() for choice in choices]
    plain = ("threshold", "low", "median", "gap", "event")
    return [name for name in _COLUMNS if name in plain or any(v[_COLUMNS[name]] for v in values)]


def _percent(worth: Worth) -> list[str]:
    return [f"{100 * value:.2f}" if value == value else "-" for value in worth]


def _figure(metric: str) -> str:
    """Name of the metric in messages."""
    return f"PSDS scenario {metric[-1]}" if metric.startswith("psds") else f"{metric} macro F1"


def _write_toml(found: Tuning, metric: str, path: Path) -> None:
    import json

    from htsat_sed.whole_file import whole_file

    with recording_outputs(), whole_file(path) as file:
        worth = found.macro()
        what, average = (_figure(metric), "") if metric.startswith("psds") else (f"{metric} F1", "macro ")
        file.write(
            f"# Tuned for {what} on {len(found.fold_of)} recordings: {average}{100 * worth.held_out:.2f} % "
            f"held out, {100 * worth.before:.2f} % before.\n"
        )
        if found.false_alarms is not None:
            file.write(f"# {_false_alarms_line(found.false_alarms)}.\n")
        for label, choice in zip(found.labels, found.choices, strict=True):
            # A JSON string is a TOML one.
            file.write(f"\n[classes.{json.dumps(label, ensure_ascii=False)}]\n")
            file.writelines(f"{name} = {value!r}\n" for name, value in choice.values().items())
    remark(f"{path}: values of {len(found.labels)} classes, for detect --post-processing")


def _write_checkpoint(found: Tuning, metric: str, checkpoint: str | None, path: Path) -> None:
    """Write a copy of the checkpoint with the values of the tuned classes."""
    import torch

    from htsat_sed.model.catalogue import resolve_checkpoint
    from htsat_sed.model.checkpoint import load_checkpoint, read_info, save_checkpoint

    source = resolve_checkpoint(checkpoint)
    model = load_checkpoint(source)
    figure = "psds_held_out" if metric.startswith("psds") else "macro_f1_held_out"
    note = {"metric": metric, "recordings": len(found.fold_of), figure: found.macro().held_out}
    if found.false_alarms is not None:
        rates, shares = zip(*(each.overall() for each in found.false_alarms), strict=True)
        note["negatives"] = len(found.false_alarms[0].recordings)
        note["false_alarms_per_hour_held_out"] = float(rates[2][0])
        note["false_time_held_out"] = float(shares[2][0])
    with recording_outputs():
        save_checkpoint(
            path,
            model,
            post_processing=found.post_processing().to_dict(),
            provenance={**model.provenance, "tuning": note},
            dtype=torch.float16 if read_info(source).dtype == "float16" else torch.float32,
        )
    others = len(model.labels) - len(found.labels)
    rest = f"; others unchanged: {others}" if others else ""
    remark(f"{path}: {source.name} with the values of {len(found.labels)} classes{rest}")
