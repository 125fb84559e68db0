"""Clip-level scores against weak labels: average precision, AUC and d-prime.

For resamplings of the recordings, all at once: a recording that is drawn twice counts twice. The tests hold
the figures to scikit-learn's.
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
    """Average precision and area under the ROC, of S resamplings; NaN where one lacks positives or negatives.

    Attributes:
        ap: (S, K) average precision of each class.
        auc: (S, K) area under the ROC of each class.
        micro_ap: (S,) average precision of all pairs of recording and class as one ranking.
        micro_auc: (S,) area under the ROC of all pairs.
    """

    ap: Floats
    auc: Floats
    micro_ap: Floats
    micro_auc: Floats


@dataclass(frozen=True, eq=False)
class ClipScores:
    """Scores of recordings beside what is in them.

    Attributes:
        labels: K classes that occur in some recordings and not in others.
        present: (R, K) 0 or 1.
        scores: (R, K) in [0, 1].
        left_out: classes that occur in none or in all of the recordings, which have no AP or AUC.
        remarks: what the rules for recordings that do not fit met, a line for each.
    """

    labels: tuple[str, ...]
    present: Floats
    scores: Floats
    left_out: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def figures(self, weights: Floats | None = None) -> ClipFigures:
        """Average precision and AUC.

        Args:
            weights: (S, R) how often each recording counts; None for once.
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
    """Average precision and AUC of one ranking, by sums of weights down it.

    Average precision is the mean, over the positives, of the precision among the scores at least as high; the
    AUC is the share of pairs of a positive and a negative that are in order, equal scores counting half.

    Args:
        present: (n,) 0 or 1.
        scores: (n,).
        recording: (n,) row of the weights.
        weights: (R, S).
        limit: false positive rate.

    Returns:
        (S,) each: average precision, AUC, and the area under the staircase of true positive rates up to
        `limit`, as a part of `limit`.
    """
    order = np.argsort(-scores, kind="stable")
    true, recording = present[order] > 0.0, recording[order]
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0.0, True)) + 1  # of equal scores
    starts = np.append(0, ends[:-1])
    number = np.append(0, np.cumsum(true))
    heard = number[ends] > number[starts]  # the others neither raise precision nor make a pair
    starts, ends = starts[heard], ends[heard]
    parts = []
    size = max(1, _CELLS // len(true))
    for first in range(0, weights.shape[1], size):
        some = weights[:, first : first + size]
        every, positive = _running(some[recording]), _running(some[recording[true]])
        before, through = positive[number[starts]], positive[number[ends]]
        rise = through - before
        # Negatives below, and half of those beside.
        negatives = every[-1] - positive[-1]
        below = negatives - (every[starts] - before + every[ends] - through) / 2.0
        precision = np.where(rise > 0.0, ratio(through, every[ends]), 0.0)
        # False positive rates at which the true positive rate rises, for a staircase.
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
    """Separation of two unit normal distributions with that area under the ROC: sqrt(2) probit(auc)."""
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
    """Put weak labels and scores side by side.

    Args:
        weak: recording -> the classes in it.
        scores: recording -> class -> score; recordings without weak labels are left out, and what is
            missing of the others counts as 0, each with a warning that counts them.
        labels: classes to be scored; default those of the weak labels.

    Raises:
        ValueError: no class is present in some recordings and absent from others, or no recording is in
            both.
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
