"""Clip-level metrics against weak labels: average precision, AUC and d-prime.

Figures of all resamplings of the recordings are computed at once; a recording drawn twice counts twice. Tests
compare the figures with scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from htsat_sed.detection.presence import PresenceMap
from htsat_sed.errors import UsageError
from htsat_sed.evaluation.counts import Floats, ratio
from htsat_sed.evaluation.tables import Remarks, check_names, some

Ints = NDArray[np.int64]


class ClipFigures(NamedTuple):
    """Average precision and area under the ROC of S resamplings; NaN without positives or negatives.

    Attributes:
        ap: (S, K) average precision of each class.
        auc: (S, K) area under the ROC of each class.
        micro_ap: (S,) average precision of all pairs of recording and class in one ranking.
        micro_auc: (S,) area under the ROC of all pairs.
    """

    ap: Floats
    auc: Floats
    micro_ap: Floats
    micro_auc: Floats


@dataclass(frozen=True, eq=False)
class ClipScores:
    """Clip scores of recordings with their weak labels.

    Attributes:
        labels: K classes that occur in some but not all recordings.
        present: (R, K) 0 or 1.
        scores: (R, K) in [0, 1].
        left_out: classes in none or all of the recordings, which have no AP or AUC.
        remarks: messages about recordings and labels that do not match.
    """

    labels: tuple[str, ...]
    present: Floats
    scores: Floats
    left_out: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def figures(self, weights: Floats | None = None) -> ClipFigures:
        """Average precision and AUC.

        Args:
            weights: (S, R), number of times each recording counts; None for once.
        """
        recordings, classes = self.present.shape
        drawn = np.ones((recordings, 1)) if weights is None else np.ascontiguousarray(weights.T)
        every = np.arange(recordings)
        of_class = [
            ranking(y, s, every, drawn)[:2] for y, s in zip(self.present.T, self.scores.T, strict=True)
        ]
        ap, auc = (np.stack(values, axis=1) for values in zip(*of_class, strict=True))
        together = ranking(self.present.ravel(), self.scores.ravel(), np.repeat(every, classes), drawn)
        return ClipFigures(ap, auc, *together[:2])


_CELLS = 4_000_000  # numbers held at a time


def ranking(
    present: Floats, scores: Floats, recording: Ints, weights: Floats, *, limit: float = 1.0
) -> tuple[Floats, Floats, Floats]:
    """Average precision and AUC of one ranking, by cumulative sums of weights.

    Average precision is the mean, over the positives, of the precision among scores at least as high. The AUC
    is the share of pairs of a positive and a negative in the right order; ties count half.

    Args:
        present: (n,) 0 or 1.
        scores: (n,).
        recording: (n,) row in the weights.
        weights: (R, S).
        limit: false positive rate.

    Returns:
        (S,) each: average precision, AUC, and the partial AUC up to a false positive rate of `limit`, divided
        by `limit`.
    """
    order = np.argsort(-scores, kind="stable")
    true, recording = present[order] > 0.0, recording[order]
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0.0, True)) + 1  # of equal scores
    starts = np.append(0, ends[:-1])
    number = np.append(0, np.cumsum(true))
    positive_ties = number[ends] > number[starts]  # others neither raise precision nor form pairs
    starts, ends = starts[positive_ties], ends[positive_ties]
    parts = []
    size = max(1, _CELLS // len(true))
    for first in range(0, weights.shape[1], size):
        some = weights[:, first : first + size]
        every, positive = _running(some[recording]), _running(some[recording[true]])
        before, through = positive[number[starts]], positive[number[ends]]
        rise = through - before
        # Negatives with lower scores, and half of those with equal ones.
        negatives = every[-1] - positive[-1]
        below = negatives - (every[starts] - before + every[ends] - through) / 2.0
        precision = np.where(rise > 0.0, ratio(through, every[ends]), 0.0)
        # False positive rates at which the true positive rate rises.
        rates = np.minimum(ratio(every[ends] - through, np.broadcast_to(negatives, rise.shape)), limit)
        parts.append(
            (
                ratio((rise * precision).sum(axis=0), positive[-1]),
                ratio((rise * below).sum(axis=0), positive[-1] * negatives),
                ratio((rise * (limit - rates)).sum(axis=0), positive[-1] * limit),
            )
        )
    ap, auc, low = (np.concatenate(values) for values in zip(*parts, strict=True))
    return ap, auc, low


def _running(values: Floats) -> Floats:
    """Sums of the first 0 to n rows: (n, S) to (n + 1, S)."""
    sums = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=sums[1:])
    return sums


def d_prime(auc: Floats) -> Floats:
    """d-prime of an area under the ROC: sqrt(2) probit(auc)."""
    separation: Floats = np.sqrt(2.0) * ndtri(auc)
    return separation


def scores_of_map(presence_map: PresenceMap) -> dict[str, float]:
    """Clip scores of a presence map: the highest score of each class over all tokens."""
    highest = presence_map.scores.max(axis=0, initial=0.0)
    return dict(zip(presence_map.labels, highest.tolist(), strict=True))


def clip_scores(
    weak: Mapping[str, Set[str]],
    scores: Mapping[str, Mapping[str, float]],
    *,
    labels: Sequence[str] | None = None,
) -> ClipScores:
    """Match weak labels and clip scores.

    Args:
        weak: recording -> its classes.
        scores: recording -> class -> score. Recordings without weak labels are left out, and missing scores
            count as 0; warnings count both.
        labels: classes to score; by default those of the weak labels.

    Raises:
        ValueError: no class occurs in some but not all recordings, or the two have no recording in common.
    """
    recordings = sorted(weak)
    wanted = sorted({label for own in weak.values() for label in own} if labels is None else set(labels))
    present = np.array([[float(label in weak[name]) for label in wanted] for name in recordings])
    values = np.array([[scores.get(name, {}).get(label, 0.0) for label in wanted] for name in recordings])
    present, values = (a.reshape(len(recordings), len(wanted)) for a in (present, values))
    number = present.sum(axis=0)
    scored = (number > 0) & (number < len(recordings))
    if not scored.any():
        raise UsageError("wanted a class that some recordings have and others lack, got none")
    check_names(weak, scores)
    remarks = Remarks()
    remarks.add([n for n in scores if n not in weak], "recording", "with clip scores only: left out")
    remarks.add([n for n in recordings if n not in scores], "recording", "without clip scores: scored as 0")
    known = {label for name in recordings for label in scores.get(name, ())}
    unknown = [label for label in wanted if label not in known]
    remarks.add(unknown, "label", f"without clip scores ({some(unknown)}): scored as 0")
    return ClipScores(
        tuple(np.array(wanted, object)[scored]),
        present[:, scored],
        values[:, scored],
        tuple(np.array(wanted, object)[~scored]),
        remarks.lines,
    )
