"""Finding events in presence maps: median filter, thresholds with hysteresis, shortest gap and event.

The steps for each class, in this order:

1. median filter over time;
2. runs of tokens above the low threshold are kept if any of their tokens is above the high one;
3. gaps shorter than `min_gap` are closed;
4. with an `edge_level`, onsets and offsets are refined, see `htsat_sed.detection.edges`;
5. events shorter than `min_event` are dropped.

With a `step_filter`, step 2 instead keeps boxes between change points whose score is above the threshold; see
`htsat_sed.detection.change_points`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from htsat_sed.detection.calibration import Calibration, event_calibration
from htsat_sed.detection.change_points import step_filter_tokens
from htsat_sed.detection.event_arrays import EventArrays, EventRules, find_event_arrays
from htsat_sed.detection.median_filter import median_filter_tokens, smooth
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.post_processing import PostProcessing as PostProcessing
from htsat_sed.post_processing import read_post_processing as read_post_processing


@dataclass(frozen=True, order=True)
class Event:
    """A sound event.

    Attributes:
        onset: start, seconds from the start of the recording.
        offset: end, seconds from the start of the recording, exclusive; after `onset`.
        label: class.
        score: score in [0, 1]: the maximum of the smoothed presence scores in the event, or their mean for a
            box between change points; calibrated if the post-processing has a calibration. Reference events
            have 1.0.
        channel: channel of the recording, from 1; 0 for all channels or if unknown.
    """

    onset: float
    offset: float
    label: str
    score: float = 1.0
    channel: int = 0


def smoothed(presence_map: PresenceMap, post_processing: PostProcessing) -> PresenceMap:
    """Apply the median filter of each class to a presence map; thresholds apply to the result."""
    step = presence_map.token_seconds
    rules = class_rules(tuple(presence_map.labels), token_seconds=step, post_processing=post_processing)
    return replace(presence_map, scores=smooth(presence_map.scores, widths=rules.widths))


class ClassRules(NamedTuple):
    """Post-processing of K classes.

    Attributes:
        widths: K widths of the median filter, tokens.
        events: rules for finding events.
        calibration: calibration of event scores.
    """

    widths: tuple[int, ...]
    events: EventRules
    calibration: Calibration


@lru_cache(maxsize=16)
def class_rules(
    labels: tuple[str, ...], *, token_seconds: float, post_processing: PostProcessing
) -> ClassRules:
    """Prepare the rules of each class; cached, because preparing 527 classes takes longer than applying them.

    Args:
        labels: K classes.
        token_seconds: duration of a token, seconds.
        post_processing: post-processing of all classes.
    """
    rules = post_processing.of_each(labels)
    widths = tuple(median_filter_tokens(rule.median_filter, token_seconds) for rule in rules)
    return ClassRules(widths, event_rules(rules, token_seconds), event_calibration(rules))


def event_rules(rules: Sequence[PostProcessing], token_seconds: float) -> EventRules:
    """Convert the post-processing of each of K classes to arrays, without the median filter.

    Args:
        rules: post-processing of each class.
        token_seconds: duration of a token, seconds.
    """
    lows = [r.threshold if r.threshold_low is None else r.threshold_low for r in rules]
    sides = [step_filter_tokens(r.step_filter, token_seconds) if r.step_filter else 0 for r in rules]
    return EventRules(
        np.array([r.threshold for r in rules]),
        np.array(lows),
        np.array([r.min_gap for r in rules]),
        np.array([r.min_event for r in rules]),
        np.array(sides, np.int64),
        np.array([r.merge_absolute for r in rules]),
        np.array([r.merge_relative for r in rules]),
        np.array([r.edge_level for r in rules]),
    )


def find_events(presence_map: PresenceMap, post_processing: PostProcessing) -> list[Event]:
    """Find the events of a presence map.

    Args:
        presence_map: scores of one recording.
        post_processing: settings; values for labels that the map lacks have no effect.

    Returns:
        Events ordered by onset, offset and label, none beyond the recording's end; events of one
        label never touch or overlap.
    """
    tokens, classes = presence_map.scores.shape
    if tokens == 0 or classes == 0:
        return []
    step = presence_map.token_seconds
    rules = class_rules(tuple(presence_map.labels), token_seconds=step, post_processing=post_processing)
    smoothed = smooth(presence_map.scores, widths=rules.widths)
    found = find_event_arrays(smoothed, rules.events, token_seconds=step, duration=presence_map.duration)
    return sorted(named(found, presence_map.labels, rules.calibration))


def named(found: EventArrays, labels: Sequence[str], calibration: Calibration) -> list[Event]:
    """Convert arrays to events with calibrated scores.

    Args:
        found: event arrays.
        labels: K classes of the columns.
        calibration: calibration of the K columns.

    Returns:
        Events in the order of the arrays.
    """
    scores = calibration.of(found.column).apply(found.peak)
    return [
        Event(onset, offset, labels[column], score)
        for column, onset, offset, score in zip(
            *[values.tolist() for values in found[:3]], scores.tolist(), strict=True
        )
    ]
