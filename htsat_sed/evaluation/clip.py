"""Clip-level scores against weak labels: mAP, AUC and d-prime, with scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.counts import Floats


@dataclass(frozen=True, eq=False)
class ClipScores:
    """Scores of recordings beside what is in them.

    Attributes:
        labels: K classes that occur in some recordings and not in others.
        present: (R, K) 0 or 1.
        scores: (R, K) in [0, 1].
        left_out: classes that occur in none or in all of the recordings, which have no AP or AUC.
    """

    labels: tuple[str, ...]
    present: Floats
    scores: Floats
    left_out: tuple[str, ...] = ()

    def average_precision(self, weights: Floats | None = None) -> Floats:
        """Average precision of each class, (K,); NaN for one that weighted recordings lack."""
        return self._by_class(average_precision_score, weights)

    def auc(self, weights: Floats | None = None) -> Floats:
        """Area under the ROC of each class, (K,)."""
        return self._by_class(roc_auc_score, weights)

    def _by_class(self, metric: object, weights: Floats | None) -> Floats:
        assert callable(metric)
        kept = slice(None) if weights is None else weights > 0.0
        present, scores = self.present[kept], self.scores[kept]
        values = np.full(len(self.labels), np.nan)
        for k in range(len(self.labels)):
            if 0 < present[:, k].sum() < len(present):
                weight = None if weights is None else weights[kept]
                values[k] = metric(present[:, k], scores[:, k], sample_weight=weight)
        return values


def d_prime(auc: Floats) -> Floats:
    """Separation of two unit normal distributions with that area under the ROC: sqrt(2) probit(auc)."""
    separation: Floats = np.sqrt(2.0) * norm.ppf(auc)
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
            missing of the others counts as 0.
        labels: classes to be scored; default those of the weak labels.

    Raises:
        ValueError: no class is present in some recordings and absent from others.
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
    return ClipScores(
        tuple(np.array(wanted, object)[scored]),
        present[:, scored],
        values[:, scored],
        tuple(np.array(wanted, object)[~scored]),
    )
