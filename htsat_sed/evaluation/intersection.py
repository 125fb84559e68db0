"""Intersection-based counts, as psds_eval counts them.

Source: Bilen et al., *A Framework for the Robust Evaluation of Sound Event Detection*, ICASSP 2020
(arXiv 1910.08440).

An estimated event meets the detection tolerance criterion (DTC) if at least that part of it lies in
reference events of its class. A reference event is found (a true positive) if estimated events that meet
the DTC cover at least the ground truth criterion's (GTC) part of it. An estimated event that fails the DTC
is a false positive. The cross-trigger criterion (CTTC) plays no part in F1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from psds_eval import PSDSEval
from psds_eval.psds import WORLD

from htsat_sed.detection.events import Event
from htsat_sed.evaluation.counts import Counts, Floats, event_numbers
from htsat_sed.evaluation.tables import Pair

Ints = NDArray[np.int64]


class CountedEvents(NamedTuple):
    """What psds_eval counts, one row each; recordings and labels by their places, labels sorted.

    Attributes:
        found: (n, 2) recording and label of true positives.
        failed: (n, 2) recording and label of false positives.
        crossed: (n, 3) recording, estimated label and reference label of cross-triggers.
    """

    found: Ints
    failed: Ints
    crossed: Ints


class CountedPSDSEval(PSDSEval):  # type: ignore[misc]
    """psds_eval, handing out its counts by recording.

    Repeats the steps of its `_evaluate_detections`, hence the pinned version; the tests hold the sums
    against what it computes by itself.
    """

    def count(self, detections: pd.DataFrame) -> CountedEvents:
        """Count detections.

        Args:
            detections: from `detection_table`; no two events of a class may overlap.
        """
        crossed = self._ground_truth_intersections(detections, self.ground_truth)
        found, met = self._detection_and_ground_truth_criteria(crossed)
        failed = self._cross_trigger_criterion(crossed, found, met)
        failed = failed.drop_duplicates(["id_det", "event_label_gt"])
        world = failed.event_label_gt == WORLD
        return CountedEvents(
            self._places(found.drop_duplicates("id_gt"), "event_label_gt"),
            self._places(failed[world], "event_label_det"),
            self._places(failed[~world], "event_label_det", "event_label_gt"),
        )

    def _places(self, table: pd.DataFrame, *columns: str) -> Ints:
        labels = pd.Index(sorted(set(self.class_names) - {WORLD}))
        places = [table.filename.to_numpy(), *(labels.get_indexer(table[name]) for name in columns)]
        return np.stack(places, axis=1).astype(np.int64)


def psds_evaluator(
    reference: Sequence[Sequence[Event]],
    durations: Sequence[float],
    *,
    dtc: float,
    gtc: float,
    cttc: float,
) -> CountedPSDSEval:
    """psds_eval with the reference in it, recordings called by their places.

    Args:
        reference: events of each recording.
        durations: of the recordings, seconds.
        dtc: detection tolerance criterion, 0 to 1.
        gtc: ground truth criterion, 0 to 1.
        cttc: cross-trigger tolerance criterion, 0 to 1.
    """
    return CountedPSDSEval(
        dtc_threshold=dtc,
        gtc_threshold=gtc,
        cttc_threshold=cttc,
        ground_truth=_table(reference),
        metadata=pd.DataFrame({"filename": range(len(durations)), "duration": durations}),
    )


def known_durations(events: Pair) -> list[float]:
    """Seconds of each recording; one whose duration is not known counts as ending with its last event."""
    rows = zip(events.durations, events.reference, events.estimated, strict=True)
    return [
        max((e.offset for e in (*reference, *estimated)), default=0.0) if known is None else known
        for known, reference, estimated in rows
    ]


def intersection_counts(events: Pair, *, dtc: float = 0.5, gtc: float = 0.5, cttc: float = 0.3) -> Counts:
    """Intersection-based counts.

    Args:
        events: what to compare.
        dtc: detection tolerance criterion, 0 to 1.
        gtc: ground truth criterion, 0 to 1.
        cttc: cross-trigger tolerance criterion, 0 to 1; without effect on these counts.
    """
    # An event past the end of its recording is a false positive like any other.
    ends = known_durations(replace(events, durations=(None,) * len(events.durations)))
    evaluator = psds_evaluator(events.reference, ends, dtc=dtc, gtc=gtc, cttc=cttc)
    counted = evaluator.count(detection_table(_table(events.estimated)))
    tp, fp = _by_recording(counted.found, events), _by_recording(counted.failed, events)
    return Counts(tp, fp, event_numbers(events.reference, events.labels) - tp)


def detection_table(table: pd.DataFrame) -> pd.DataFrame:
    """Events, ordered by recording and onset, with the columns that psds_eval computes from them."""
    return table.assign(duration=table.offset - table.onset, id=np.arange(len(table)))


def _table(events: Sequence[Sequence[Event]]) -> pd.DataFrame:
    """The events of each recording as the table that psds_eval takes."""
    rows = [(i, e.onset, e.offset, e.label) for i, own in enumerate(events) for e in own]
    table = pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"])
    kinds: dict[str, Any] = {"filename": np.int64, "onset": float, "offset": float, "event_label": object}
    return table.astype(kinds)


def _by_recording(places: Ints, events: Pair) -> Floats:
    """How often each recording and label occurs, (R, K)."""
    numbers = np.zeros((len(events.recordings), len(events.labels)))
    np.add.at(numbers, tuple(places.T), 1.0)
    return numbers
