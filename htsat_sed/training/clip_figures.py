"""How well each class is found in clips: precision, recall, F1, average precision, and what is confused.

A class is found in a clip if it has an event there. Average precision ranks clips by the highest score of the
class in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from htsat_sed.training.collection import Labelled

FIGURES = ("precision", "recall", "F1", "AP")
_RESAMPLINGS = 1000
_DOUBT = 0.3  # by which the score of another class exceeds that of the clip's own


class ScoredClip(NamedTuple):
    """A clip, scored by a model that was not trained on its source.

    Attributes:
        clip: the clip.
        peaks: (K,) highest score of each class.
        found: classes with an event in it.
    """

    clip: Labelled
    peaks: NDArray[np.float32]
    found: frozenset[str]


@dataclass(frozen=True, eq=False)
class ClassFigures:
    """How a class was found in clips that a model was not trained on.

    Attributes:
        clips: number of clips of the class.
        values: precision, recall, F1 and AP -> value and both ends of its 95 % interval over sources; None
            where the clips do not determine it.
    """

    clips: int
    values: Mapping[str, tuple[float, float, float] | None]


class Doubt(NamedTuple):
    """A clip that looks mislabelled.

    Attributes:
        clip: the clip.
        label: class with the highest score.
        score: that score.
        own: score of the clip's own class.
    """

    clip: Labelled
    label: str
    score: float
    own: float


def class_figures(
    scored: Sequence[ScoredClip], labels: Sequence[str], *, seed: int
) -> dict[str, ClassFigures]:
    """Figures of each class over clips, with intervals over resamplings of sources.

    Args:
        scored: clips, negatives included.
        labels: K classes, in the order of `ScoredClip.peaks`.
        seed: of the resamplings.
    """
    if not scored:
        return {label: ClassFigures(0, dict.fromkeys(FIGURES)) for label in labels}
    names = sorted({each.clip.source for each in scored})
    source = np.array([names.index(each.clip.source) for each in scored])
    drawn = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1.0 / len(names)), _RESAMPLINGS
    )
    peaks = np.stack([each.peaks for each in scored])
    figures = {}
    for k, label in enumerate(labels):
        is_own = np.array([each.clip.label == label for each in scored], np.bool_)
        is_found = np.array([label in each.found for each in scored], np.bool_)
        if is_own.any():
            values = _with_intervals(is_own, is_found, peaks[:, k], drawn[:, source])
        else:
            values = dict.fromkeys(FIGURES)
        figures[label] = ClassFigures(int(is_own.sum()), values)
    return figures


def _with_intervals(
    is_own: NDArray[np.bool_],
    is_found: NDArray[np.bool_],
    scores: NDArray[np.float32],
    weights: NDArray[np.int64],
) -> dict[str, tuple[float, float, float] | None]:
    order = np.argsort(-scores, kind="stable")
    drawn = np.stack([_values(is_own, is_found, order, own) for own in weights])
    whole = _values(is_own, is_found, order, np.ones(len(is_own)))
    values: dict[str, tuple[float, float, float] | None] = {}
    for name, value, column in zip(FIGURES, whole, drawn.T, strict=True):
        if np.isnan(value):
            values[name] = None
        else:
            low, high = np.nanquantile(column, (0.025, 0.975))
            values[name] = float(value), float(low), float(high)
    return values


def _values(
    is_own: NDArray[np.bool_], is_found: NDArray[np.bool_], order: NDArray[np.int64], weights: NDArray[Any]
) -> NDArray[np.float64]:
    """Precision, recall, F1 and AP of weighted clips; NaN where undefined."""
    tp = float(weights[is_own & is_found].sum())
    positive, claimed = float(weights[is_own].sum()), float(weights[is_found].sum())
    ranked, hits = np.cumsum(weights[order]), np.cumsum((weights * is_own)[order])
    gained = (weights * is_own)[order]
    average = float((gained * hits / np.maximum(ranked, 1.0)).sum()) / positive if positive else np.nan
    return np.array(
        [
            tp / claimed if claimed else np.nan,
            tp / positive if positive else np.nan,
            2.0 * tp / (positive + claimed) if positive + claimed else np.nan,
            average,
        ]
    )


def confusions(scored: Sequence[ScoredClip], labels: Sequence[str]) -> list[tuple[str, str, int]]:
    """Class, other class, clips of the first in which the second was found; the most frequent first."""
    counts = [
        (one, other, sum(each.clip.label == one and other in each.found for each in scored))
        for one in labels
        for other in labels
        if one != other
    ]
    return sorted((each for each in counts if each[2]), key=lambda each: -each[2])


def doubts(scored: Sequence[ScoredClip], labels: Sequence[str]) -> list[Doubt]:
    """Clips in which their class was not found and another one scores far higher; the clearest first."""
    doubtful = []
    for clip, peaks, found in scored:
        if not clip.label or clip.label in found:
            continue
        best, own = int(peaks.argmax()), float(peaks[list(labels).index(clip.label)])
        if float(peaks[best]) - own > _DOUBT:
            doubtful.append(Doubt(clip, labels[best], float(peaks[best]), own))
    return sorted(doubtful, key=lambda each: each.own - each.score)
