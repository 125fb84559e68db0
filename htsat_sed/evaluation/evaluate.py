"""Evaluation: all metrics, with intervals.

    report = evaluate_strong(read_events("reference.tsv"), read_events("events.tsv"))
    report.metrics[0].headline["macro_f1"].value

Intervals are described in `htsat_sed.evaluation.bootstrap`; all metrics use the same resamplings.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from itertools import product
from typing import Any

from htsat_sed.detection.events import PostProcessing, find_events
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.errors import UsageError
from htsat_sed.evaluation.bootstrap import Resampling
from htsat_sed.evaluation.check import check_clips, check_strong
from htsat_sed.evaluation.clip import ClipFigures, ClipScores, clip_scores, d_prime, scores_of_map
from htsat_sed.evaluation.counting import collar_counts, intersection_counts, segment_counts
from htsat_sed.evaluation.counts import (
    Counts,
    Floats,
    event_numbers,
    f1,
    f_beta,
    macro,
    mean_of_defined,
    ratio,
)
from htsat_sed.evaluation.details import detail_metrics
from htsat_sed.evaluation.psds import (
    PI_MEDIAN_FILTERS,
    SCENARIOS,
    Curve,
    Scenario,
    detections,
    operating_points,
    psds_areas,
    psds_curve,
)
from htsat_sed.evaluation.reliability import Outcomes, outcomes_of_pair, score_reliability
from htsat_sed.evaluation.report import Metric, Report, Settings
from htsat_sed.evaluation.tables import Pair, Remarks, Table, only_heard, pair, same_names, some

_logger = logging.getLogger("htsat_sed")

Maps = Mapping[str, PresenceMap]
Tags = Mapping[str, Mapping[str, float]]

_NOT_COMPLETELY_HEARD = "they require recordings that were listened to completely"


def evaluate_strong(
    reference: Table,
    estimated: Table | None = None,
    *,
    maps: Maps | None = None,
    durations: Mapping[str, float] | None = None,
    labels: Sequence[str] | None = None,
    settings: Settings | None = None,
    post_processing: PostProcessing | None = None,
    check: bool = False,
    heard: Table | None = None,
    reliability: Outcomes | None = None,
    details: bool = False,
) -> Report:
    """Score events and presence maps against strong labels.

    Args:
        reference: recording -> events; see `htsat_sed.evaluation.tables` for labels that do not match.
        estimated: recording -> events; None to find them in the maps.
        maps: recording -> presence map, for PSDS and clip-level metrics.
        durations: recording -> seconds, in addition to those of maps. An estimated recording listed here but
            not in the reference counts as one without reference events.
        labels: classes to score; by default those of the reference.
        settings: parameters of the metrics.
        post_processing: post-processing of the maps, also at every threshold of a PSDS.
        check: also compute the figures by other implementations; see `htsat_sed.evaluation.check`.
        heard: recording -> events that somebody listened to, with the names of the reference. If given,
            events elsewhere do not count (`only_heard`), and metrics of whole recordings are omitted.
        reliability: outcomes in negatives, possibly empty, for the reliability of scores; None to omit it.
        details: also compute the metrics of `htsat_sed.evaluation.details`.

    Raises:
        ValueError: neither events nor maps are given; or as for `pair`.
    """
    if estimated is None and not maps:
        raise UsageError("wanted estimated events or presence maps, got neither")
    chosen, rules, remarks = settings or Settings(), post_processing or PostProcessing(), Remarks()
    events, reference, given = _beside(
        reference, estimated, maps or {}, durations or {}, labels, rules, heard, remarks
    )
    lines = remarks.lines + events.remarks
    counts = count_events(events, chosen)
    metrics = score_events(events, chosen, counts)
    rocs: dict[str, Curve] = {}
    clips: ClipScores | None = None
    if given and heard is not None:
        lines += (_warned(f"no PSDS or clip-level metrics: {_NOT_COMPLETELY_HEARD}"),)
        given = {}
    if given:
        lacking = Remarks()
        scored = {label for each in given.values() for label in each.labels}
        absent = [label for label in events.labels if label not in scored]
        lacking.add(
            absent,
            "label",
            f"of the reference not in the presence maps ({some(absent)}): scored as never found",
        )
        lines += lacking.lines
        of_psds, rocs = score_psds(events, given, chosen, rules)
        metrics += of_psds
        weak = {name: {event.label for event in own} for name, own in reference.items()}
        own_scores = {name: scores_of_map(each) for name, each in given.items() if name in reference}
        try:
            clips = clip_scores(weak, own_scores, labels=events.labels)
        except UsageError as error:
            lines += (_warned(f"no clip-level metrics: {error}"),)
        else:
            metrics.append(score_clips(clips, chosen))
            lines += clips.remarks
    if details:
        metrics += detail_metrics(events, given, counts, chosen, rules)
    if reliability is not None:
        outcomes = outcomes_of_pair(events, dtc=chosen.dtc)
        metrics.append(score_reliability([*outcomes, *reliability], chosen))
    compared = check_strong(events, given, clips, metrics, chosen, rules) if check else ()
    lines = tuple(dict.fromkeys(lines))
    return Report(len(events.recordings), tuple(metrics), events.silent, rocs, lines, compared)


def _beside(
    reference: Table,
    estimated: Table | None,
    maps: Maps,
    durations: Mapping[str, float],
    labels: Sequence[str] | None,
    rules: PostProcessing,
    heard: Table | None,
    remarks: Remarks,
) -> tuple[Pair, Table, dict[str, PresenceMap]]:
    """Matched events, the reference, and the maps by the names of the reference.

    Arguments as for `evaluate_strong`.
    """
    reference = {**dict.fromkeys(heard or {}, ()), **reference}
    listed = same_names(durations, reference)
    names = reference.keys() | listed.keys()
    given = same_names(maps, names, remarks)
    if estimated is None:
        estimated = {name: find_events(each, rules) for name, each in given.items()}
    else:
        estimated = same_names(estimated, names, remarks)
    if heard is not None:
        estimated = only_heard(reference, estimated, heard, remarks)
    quiet = sorted((estimated.keys() | given.keys()) & (listed.keys() - reference.keys()))
    remarks.add(quiet, "recording", "with a duration but not in the reference: scored as without events")
    reference = {**reference, **dict.fromkeys(quiet, ())}
    known = {name: each.duration for name, each in given.items()} | listed
    return pair(reference, estimated, durations=known, labels=labels), reference, given


def _warned(line: str) -> str:
    """Log a line as a warning and return it."""
    _logger.warning("%s", line)
    return line


def evaluate_weak(
    weak: Mapping[str, Set[str]],
    tags: Tags,
    *,
    labels: Sequence[str] | None = None,
    settings: Settings | None = None,
    check: bool = False,
) -> Report:
    """Score clip scores against weak labels.

    Args:
        weak: recording -> its classes.
        tags: recording -> class -> score in [0, 1].
        labels: classes to score; by default those of the weak labels.
        settings: bootstrap and seed.
        check: also compute the figures by scikit-learn.

    Raises:
        ValueError: as for `clip_scores`.
    """
    remarks = Remarks()
    clips = clip_scores(weak, same_names(tags, weak, remarks), labels=labels)
    metrics = (score_clips(clips, settings or Settings()),)
    compared = check_clips(clips, metrics) if check else ()
    return Report(len(weak), metrics, remarks=remarks.lines + clips.remarks, compared=compared)


def count_events(events: Pair, settings: Settings) -> dict[str, Counts]:
    """Counts by intersections, by collars with and without offsets, and by segments."""
    s = settings
    return {
        "intersection": intersection_counts(events, dtc=s.dtc, gtc=s.gtc),
        "collar": collar_counts(
            events,
            onset_collar=s.onset_collar,
            offset_collar=s.offset_collar,
            offset_share=s.offset_share,
        ),
        "onset": collar_counts(events, onset_collar=s.onset_collar, offset=False),
        "segment": segment_counts(events, resolution=s.segment),
    }


def score_events(
    events: Pair, settings: Settings, counts: Mapping[str, Counts] | None = None
) -> list[Metric]:
    """Intersection-based, collar-based (with and without offsets) and segment-based F1.

    Args:
        events: reference and estimated events.
        settings: parameters.
        counts: from `count_events`; None to compute them.
    """
    s = settings
    offset = f"offset {_ms(s.offset_collar)} or {s.offset_share:.0%}"
    described: list[tuple[str, str, tuple[str, ...]]] = [
        (
            "intersection",
            f"intersection-based F1 (DTC {s.dtc:g}, GTC {s.gtc:g}, CTTC {s.cttc:g})",
            ("dtc", "gtc", "cttc"),
        ),
        (
            "collar",
            f"collar-based F1 (onset {_ms(s.onset_collar)}, {offset})",
            ("onset_collar", "offset_collar", "offset_share"),
        ),
        ("onset", f"collar-based F1, onsets only ({_ms(s.onset_collar)})", ("onset_collar",)),
        ("segment", f"segment-based F1 ({s.segment:g} s)", ("segment",)),
    ]
    draws = Resampling.of(len(events.recordings), settings)
    counted = counts or count_events(events, settings)
    estimated = event_numbers(events.estimated, events.labels)
    found = []
    for name, title, names in described:
        parameters = {each: getattr(s, each) for each in names}
        if s.beta != 1.0:
            parameters["beta"] = s.beta
            title += f", F-beta with beta {s.beta:g}"
        own = counted[name]
        found.append(_of_counts(name, title, parameters, own, events.labels, draws, estimated, s.beta))
    return found


def score_psds(
    events: Pair, maps: Maps, settings: Settings, post_processing: PostProcessing
) -> tuple[list[Metric], dict[str, Curve]]:
    """PSDS of both scenarios, and their PSD-ROCs.

    Args:
        events: the reference, with durations.
        maps: recording -> presence map.
        settings: parameters.
        post_processing: post-processing at every threshold.
    """
    metrics: list[Metric] = []
    rocs: dict[str, Curve] = {}
    draws = Resampling.of(len(events.recordings), settings)
    count = settings.psds_thresholds
    found = detections(events, maps, count=count, post_processing=post_processing)
    variants = {"psds": [found]}
    if settings.pi_psds:
        variants["pi_psds"] = [
            detections(events, maps, count=count, post_processing=PostProcessing(median_filter=seconds))
            for seconds in PI_MEDIAN_FILTERS
        ]
    for (kind, lives), (number, scenario) in product(variants.items(), enumerate(SCENARIOS.values(), 1)):
        name = f"{kind}{number}"
        points = [operating_points(events, each, scenario) for each in lives]
        areas = psds_areas(points, draws.weights)
        metrics.append(
            draws.metric(
                name,
                _psds_title(name, scenario, count),
                asdict(scenario) | {"thresholds": count or "all"},
                {"psds": areas.overall},
                labels=events.labels,
                by_class={"psds": areas.by_class},
            )
        )
        rocs[name] = psds_curve(points)
    return metrics, rocs


def score_clips(clips: ClipScores, settings: Settings) -> Metric:
    """Clip-level average precision, AUC and d-prime; the headline has the d-prime of the mean AUC.

    Args:
        clips: clip scores with weak labels.
        settings: bootstrap and seed.
    """
    draws = Resampling.of(len(clips.present), settings)
    figures = clips.figures(draws.weights)
    return draws.metric(
        "clip",
        "clip-level average precision, AUC and d-prime",
        {},
        _clip_headline(figures),
        labels=clips.labels,
        by_class={"ap": figures.ap, "auc": figures.auc, "d_prime": d_prime(figures.auc)},
        numbers={"recordings": clips.present.sum(axis=0)},
        totals={"recordings": float(len(clips.present)), "positives": float(clips.present.sum())},
        left_out=clips.left_out,
    )


def _clip_headline(figures: ClipFigures) -> dict[str, Floats]:
    auc = mean_of_defined(figures.auc)
    return {
        "map": mean_of_defined(figures.ap),
        "auc": auc,
        "d_prime": d_prime(auc),
        "micro_ap": figures.micro_ap,
        "micro_auc": figures.micro_auc,
    }


def _of_counts(
    name: str,
    title: str,
    parameters: Mapping[str, Any],
    counts: Counts,
    labels: Sequence[str],
    draws: Resampling,
    estimated: Floats,
    beta: float,
) -> Metric:
    drawn = counts.resampled(draws.weights)
    tp, fp, fn = drawn.tp[0], drawn.fp[0], drawn.fn[0]
    numbers = {
        "reference": tp + fn,
        "estimated": tp + fp if name == "segment" else estimated.sum(axis=0),
        "tp": tp,
        "fp": fp,
        "fn": fn,
    }
    return draws.metric(
        name,
        title,
        parameters,
        _f1_headline(drawn, beta),
        labels=labels,
        by_class={
            "f1": f1(drawn),
            **({"f_beta": f_beta(drawn, beta)} if beta != 1.0 else {}),
            "precision": ratio(drawn.tp, drawn.tp + drawn.fp),
            "recall": ratio(drawn.tp, drawn.tp + drawn.fn),
        },
        numbers=numbers,
        totals={key: float(values.sum()) for key, values in numbers.items()},
    )


def _f1_headline(counts: Counts, beta: float) -> dict[str, Floats]:
    """Averages of (S, K) counts, (S,) each."""
    joined = Counts(counts.tp.sum(-1), counts.fp.sum(-1), counts.fn.sum(-1))
    found = {
        "macro_f1": macro(counts, f1(counts)),
        "macro_precision": macro(counts, ratio(counts.tp, counts.tp + counts.fp)),
        "macro_recall": macro(counts, ratio(counts.tp, counts.tp + counts.fn)),
        "micro_f1": f1(joined),
        "micro_precision": ratio(joined.tp, joined.tp + joined.fp),
        "micro_recall": ratio(joined.tp, joined.tp + joined.fn),
    }
    if beta != 1.0:
        found |= {"macro_f_beta": macro(counts, f_beta(counts, beta)), "micro_f_beta": f_beta(joined, beta)}
    return found


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:g} ms"


def _psds_title(name: str, s: Scenario, count: int) -> str:
    how = f"approximated by {count} thresholds" if count else "exact"
    kind = "post-processing independent PSDS" if name.startswith("pi") else "PSDS"
    return (
        f"{kind} scenario {name[-1]} (DTC {s.dtc:g}, GTC {s.gtc:g}, CTTC {s.cttc:g}, "
        f"alpha_CT {s.alpha_ct:g}, alpha_ST {s.alpha_st:g}, {how})"
    )
