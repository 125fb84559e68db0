"""Clip-level metrics by class: precision, recall, F1, average precision, confusions and doubtful labels.

A class counts as found in a clip if the clip has an event of the class. Average precision ranks clips by the
highest token score of the class.
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
_DOUBT = 0.3  # least score margin of another class over the clip's own class


class ScoredClip(NamedTuple):
    """The held-out scores of a clip.

    Attributes:
        clip: the clip.
        peaks: (K,) highest token score of each class, in [0, 1].
        found: classes with at least one event in the clip.
    """

    clip: Labelled
    peaks: NDArray[np.float32]
    found: frozenset[str]


@dataclass(frozen=True, eq=False)
class ClassFigures:
    """Metrics of a class on held-out clips.

    Attributes:
        clips: number of clips of the class.
        values: maps each name in `FIGURES` to (value, lower, upper), all in [0, 1], where the bounds are
            those of the 95 % bootstrap interval over sources; None where the metric is undefined.
    """

    clips: int
    values: Mapping[str, tuple[float, float, float] | None]


class Doubt(NamedTuple):
    """A clip that may be mislabelled.

    Attributes:
        clip: the clip.
        label: class with the highest score.
        score: score of `label`, in [0, 1].
        own: score of the clip's own class, in [0, 1]; 0 for a negative.
    """

    clip: Labelled
    label: str
    score: float
    own: float


def class_figures(
    scored: Sequence[ScoredClip], labels: Sequence[str], *, seed: int
) -> dict[str, ClassFigures]:
    """Compute the metrics of each class, with 95 % intervals from a bootstrap over sources.

    Args:
        scored: clips of classes, and negatives.
        labels: K classes, in the order of `ScoredClip.peaks`.
        seed: random seed of the bootstrap.

    Returns:
        Metrics by class, in the order of `labels`.
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
    """Return precision, recall, F1 and AP of weighted clips; NaN where undefined."""
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


def alarms(scored: Sequence[ScoredClip], labels: Sequence[str]) -> list[Doubt]:
    """List negatives with an event of a class, with their best class; the highest scores first.

    Args:
        scored: clips and negatives.
        labels: classes.
    """
    found = []
    for clip, peaks, classes in scored:
        if not clip.label and classes:
            score, label = max((float(peaks[list(labels).index(label)]), label) for label in classes)
            found.append(Doubt(clip, label, score, 0.0))
    return sorted(found, key=lambda each: -each.score)


def confusions(scored: Sequence[ScoredClip], labels: Sequence[str]) -> list[tuple[str, str, int]]:
    """Count confusions between classes.

    Args:
        scored: clips of classes.
        labels: classes.

    Returns:
        (class, other class, number of clips of the class with an event of the other class), the most
        frequent first; pairs without such clips are omitted.
    """
    counts = [
        (one, other, sum(each.clip.label == one and other in each.found for each in scored))
        for one in labels
        for other in labels
        if one != other
    ]
    return sorted((each for each in counts if each[2]), key=lambda each: -each[2])


def doubts(scored: Sequence[ScoredClip], labels: Sequence[str]) -> list[Doubt]:
    """List clips that may be mislabelled: their class was not found and another scores more than 0.3 higher.

    Args:
        scored: clips; negatives are skipped.
        labels: K classes, in the order of `ScoredClip.peaks`.

    Returns:
        Doubtful clips, the largest margin first.
    """
    doubtful = []
    for clip, peaks, found in scored:
        if not clip.label or clip.label in found:
            continue
        best, own = int(peaks.argmax()), float(peaks[list(labels).index(clip.label)])
        if float(peaks[best]) - own > _DOUBT:
            doubtful.append(Doubt(clip, labels[best], float(peaks[best]), own))
    return sorted(doubtful, key=lambda each: each.own - each.score)
