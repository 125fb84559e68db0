"""Clip-level scores against weak labels: average precision, AUC and d-prime.

For resamplings of the recordings, all at once: a recording that is drawn twice counts twice. The tests hold
the figures to scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.counts import Floats, ratio
from htsat_sed.evaluation.tables import Remarks, check_names, some


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

    def average_precision(self, weights: Floats | None = None) -> Floats:
        """Average precision of each class; NaN for one that weighted recordings lack.

        Args:
            weights: (S, R) how often each recording counts; None for once.

        Returns:
            (S, K), or (1, K).
        """
        return self._by_class(_average_precision, weights)

    def auc(self, weights: Floats | None = None) -> Floats:
        """Area under the ROC of each class; arguments and shape as of `average_precision`."""
        return self._by_class(_auc, weights)

    def micro_average_precision(self, weights: Floats | None = None) -> Floats:
        """Average precision of all pairs of recording and class as one ranking, (S,) or (1,)."""
        return self._of_all(_average_precision, weights)

    def micro_auc(self, weights: Floats | None = None) -> Floats:
        """Area under the ROC of all pairs of recording and class as one ranking, (S,) or (1,)."""
        return self._of_all(_auc, weights)

    def _by_class(self, metric: _Ranked, weights: Floats | None) -> Floats:
        given = np.ones((1, len(self.present))) if weights is None else weights
        return np.stack([metric(y, s, given) for y, s in zip(self.present.T, self.scores.T, strict=True)], 1)

    def _of_all(self, metric: _Ranked, weights: Floats | None) -> Floats:
        given = np.ones((1, len(self.present))) if weights is None else weights
        size = max(1, _CELLS // self.present.size)
        parts = [
            metric(self.present.ravel(), self.scores.ravel(), np.repeat(some, len(self.labels), axis=1))
            for some in (given[i : i + size] for i in range(0, len(given), size))
        ]
        return np.concatenate(parts)


_Ranked = Callable[[Floats, Floats, Floats], Floats]

_CELLS = 4_000_000  # numbers held at a time


def _ranked(present: Floats, scores: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weights of positives and of negatives among the highest scores, (S, number of distinct scores)."""
    order = np.argsort(-scores, kind="stable")
    last: NDArray[np.int64] = np.flatnonzero(np.append(np.diff(scores[order]) != 0.0, True))
    drawn, true = weights[:, order], present[order]
    return np.cumsum(drawn * true, axis=1)[:, last], np.cumsum(drawn * (1.0 - true), axis=1)[:, last]


def _average_precision(present: Floats, scores: Floats, weights: Floats) -> Floats:
    """Mean over the positives of the precision among the scores at least as high as theirs, (S,)."""
    tp, fp = _ranked(present, scores, weights)
    rise = np.diff(tp, axis=1, prepend=0.0)
    precision = np.where(rise > 0.0, ratio(tp, tp + fp), 0.0)
    return ratio((rise * precision).sum(axis=1), tp[:, -1])


def _auc(present: Floats, scores: Floats, weights: Floats) -> Floats:
    """Share of pairs of a positive and a negative that are in order, equal scores counting half, (S,)."""
    tp, fp = _ranked(present, scores, weights)
    before = tp - np.diff(tp, axis=1, prepend=0.0) / 2.0
    ordered = (before * np.diff(fp, axis=1, prepend=0.0)).sum(axis=1)
    return ratio(ordered, tp[:, -1] * fp[:, -1])


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
        raise ValueError("wanted a class that some recordings have and others lack, got none")
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
