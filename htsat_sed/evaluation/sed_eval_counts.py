"""Collar-based and segment-based counts, as sed_eval counts them.

Source: Mesaros, Heittola and Virtanen, *Metrics for Polyphonic Sound Event Detection*, Applied Sciences
6(6), 2016.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from htsat_sed.detection.events import Event
from htsat_sed.evaluation.counts import Counts
from htsat_sed.evaluation.tables import Pair

with warnings.catch_warnings():
    # dcase_util still imports pkg_resources, which announces its end.
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    from dcase_util.containers import MetaDataContainer
    from sed_eval.sound_event import EventBasedMetrics, SegmentBasedMetrics


class _TwoCollars(EventBasedMetrics):  # type: ignore[misc]
    """sed_eval's metric with a collar of its own for offsets."""

    offset_collar: float

    def validate_offset(
        self, reference_event: Any, estimated_event: Any, t_collar: float, percentage_of_length: float
    ) -> bool:
        return bool(
            EventBasedMetrics.validate_offset(
                reference_event, estimated_event, self.offset_collar, percentage_of_length
            )
        )


def collar_counts(
    events: Pair,
    *,
    onset_collar: float = 0.2,
    offset_collar: float = 0.2,
    offset_share: float = 0.2,
    offset: bool = True,
) -> Counts:
    """Collar-based (event-based) counts.

    An estimated event matches a reference event of its class if their onsets differ by at most
    `onset_collar`, and their offsets by at most the larger of `offset_collar` and `offset_share` of the
    reference event's duration; pairs are chosen so that as many as possible match.

    Args:
        events: what to compare.
        onset_collar: seconds, more than 0.
        offset_collar: seconds, more than 0.
        offset_share: part of the reference event's duration, 0 to 1.
        offset: whether offsets have to match at all.
    """
    metric = _TwoCollars(
        event_label_list=[],
        t_collar=float(onset_collar),
        percentage_of_length=float(offset_share),
        evaluate_offset=offset,
        event_matching_type="optimal",
    )
    metric.offset_collar = float(offset_collar)
    return _by_recording(metric, events)


def segment_counts(events: Pair, *, resolution: float = 1.0) -> Counts:
    """Segment-based counts: activity in cells of `resolution` seconds, from 0 to the last offset.

    Args:
        events: what to compare.
        resolution: seconds a segment, more than 0.
    """
    metric = SegmentBasedMetrics(event_label_list=[], time_resolution=float(resolution))
    return _by_recording(metric, events)


def _by_recording(metric: Any, events: Pair) -> Counts:
    """Evaluate one recording after the other and note what sed_eval counts."""
    place = {label: k for k, label in enumerate(events.labels)}
    counts = np.zeros((3, len(events.recordings), len(events.labels)))
    for i, (reference, estimated) in enumerate(zip(events.reference, events.estimated, strict=True)):
        # It visits every class in every recording; those without events count nothing. Classes go by number,
        # since dcase_util strips labels.
        heard = sorted({place[event.label] for event in (*reference, *estimated)})
        metric.event_label_list = [str(k) for k in heard]
        if heard:
            metric.reset()
            metric.evaluate(*(_container(own, place) for own in (reference, estimated)))
        for k in heard:
            own = metric.class_wise[str(k)]
            counts[:, i, k] = own["Ntp"], own["Nfp"], own["Nfn"]
    return Counts(*counts)


def _container(events: Sequence[Event], place: Mapping[str, int]) -> MetaDataContainer:
    rows = [{"onset": e.onset, "offset": e.offset, "event_label": str(place[e.label])} for e in events]
    return MetaDataContainer(rows)
