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
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from psds_eval import PSDSEval
from psds_eval.psds import WORLD

from htsat_sed.detection.events import Event
from htsat_sed.evaluation.counts import Counts
from htsat_sed.evaluation.tables import Pair

COLUMNS = ["filename", "onset", "offset", "event_label"]


class CountedEvents(NamedTuple):
    """Numbers of events, as tables by recording and class.

    Attributes:
        found: true positives by (filename, label).
        failed: false positives by (filename, label).
        crossed: cross-triggers by (filename, estimated label, reference label).
    """

    found: pd.Series[int]
    failed: pd.Series[int]
    crossed: pd.Series[int]


class CountedPSDSEval(PSDSEval):  # type: ignore[misc]
    """psds_eval, keeping its counts by recording.

    Repeats the steps of its `_evaluate_detections`, hence the pinned version; the tests hold the sums
    against `compute_macro_f_score`.

    Attributes:
        counted: of the detections evaluated last.
    """

    counted: CountedEvents

    def _evaluate_detections(self, det_t: pd.DataFrame) -> Any:
        crossed = self._ground_truth_intersections(det_t, self.ground_truth)
        found, met = self._detection_and_ground_truth_criteria(crossed)
        failed = self._cross_trigger_criterion(crossed, found, met)
        failed = failed.drop_duplicates(["id_det", "event_label_gt"])
        found = found.drop_duplicates("id_gt")
        world = failed.event_label_gt == WORLD
        self.counted = CountedEvents(
            found.groupby(["filename", "event_label_gt"]).size(),
            failed[world].groupby(["filename", "event_label_det"]).size(),
            failed[~world].groupby(["filename", "event_label_det", "event_label_gt"]).size(),
        )
        return self._confusion_matrix_and_rates(found, failed)

    def count(self, detections: pd.DataFrame) -> CountedEvents:
        """Count detections without making them an operating point."""
        self._evaluate_detections(self._init_det_table(detections))
        return self.counted


def psds_evaluator(events: Pair, *, dtc: float, gtc: float, cttc: float) -> CountedPSDSEval:
    """psds_eval with the reference in it.

    A recording whose duration is not known counts as ending with its last event.
    """
    ends = [
        max((e.offset for e in (*r, *d)), default=1.0)
        for r, d in zip(events.reference, events.estimated, strict=True)
    ]
    durations = [end if known is None else known for known, end in zip(events.durations, ends, strict=True)]
    return CountedPSDSEval(
        dtc_threshold=dtc,
        gtc_threshold=gtc,
        cttc_threshold=cttc,
        ground_truth=frame(events.recordings, events.reference),
        metadata=pd.DataFrame({"filename": list(events.recordings), "duration": durations}),
        class_names=list(events.labels),
    )


def intersection_counts(events: Pair, *, dtc: float = 0.5, gtc: float = 0.5, cttc: float = 0.3) -> Counts:
    """Intersection-based counts.

    Args:
        events: what to compare.
        dtc: detection tolerance criterion, 0 to 1.
        gtc: ground truth criterion, 0 to 1.
        cttc: cross-trigger tolerance criterion, 0 to 1; without effect on these counts.
    """
    evaluator = psds_evaluator(events, dtc=dtc, gtc=gtc, cttc=cttc)
    counted = evaluator.count(frame(events.recordings, events.estimated))
    tp, fp = label_matrix(counted.found, events), label_matrix(counted.failed, events)
    reference = np.array(
        [[sum(e.label == label for e in own) for label in events.labels] for own in events.reference]
    )
    return Counts(tp, fp, reference - tp)


def frame(recordings: Sequence[str], events: Sequence[Sequence[Event]]) -> pd.DataFrame:
    """Events as the table that psds_eval takes."""
    rows = [
        (name, e.onset, e.offset, e.label) for name, own in zip(recordings, events, strict=True) for e in own
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.astype({"onset": float, "offset": float, "filename": object, "event_label": object})


def label_matrix(sizes: Any, events: Pair) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Numbers by (filename, label) as a (R, K) matrix."""
    row = {name: i for i, name in enumerate(events.recordings)}
    column = {label: i for i, label in enumerate(events.labels)}
    matrix = np.zeros((len(row), len(column)))
    for (name, label), size in sizes.items():
        matrix[row[name], column[label]] = size
    return matrix
