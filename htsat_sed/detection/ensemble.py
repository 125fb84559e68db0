"""Several models heard as one: the mean of their scores, for the classes that are wanted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from htsat_sed.errors import UsageError
from htsat_sed.labels import ClassMap, select
from htsat_sed.model.htsat import HTSAT


class Ensemble:
    """Models of one task, and what is kept of their classes.

    Args:
        models: at least one.
        class_map: joins the models' classes into others.
        labels: keep only these classes (after the class map).

    Attributes:
        models: as given.
        labels: K class names, in the order of the columns of `chosen`.

    Raises:
        ValueError: there is no model, the models disagree, or a label is unknown.
    """

    def __init__(
        self, models: Sequence[HTSAT], *, class_map: ClassMap | None, labels: Sequence[str] | None
    ) -> None:
        if not models:
            raise UsageError("wanted at least one model, got none")
        self.models = list(models)
        self._orders = [_same_task(models[0], other) for other in models]
        self._class_map = class_map
        self.labels = models[0].labels
        if class_map is not None:
            no_rows = np.zeros((0, len(self.labels)), np.float32)
            _, self.labels = class_map.apply(no_rows, self.labels)
        self._columns: list[int] | None = None
        if labels is not None:
            self._columns = list(select(self.labels, labels))
            self.labels = tuple(self.labels[i] for i in self._columns)

    def mean(self, of_models: Sequence[Tensor]) -> Tensor:
        """Mean of the scores (..., K of a model) of each, with the classes in the first model's order."""
        ordered = [s if o is None else s[..., o] for s, o in zip(of_models, self._orders, strict=True)]
        return torch.stack(ordered).mean(dim=0)

    def chosen(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """(..., K of the first model) to (..., K): mapped and selected classes."""
        if self._class_map is not None:
            mapped, _ = self._class_map.apply(scores.reshape(-1, scores.shape[-1]), self.models[0].labels)
            scores = mapped.reshape(*scores.shape[:-1], -1)
        return scores if self._columns is None else scores[..., self._columns]


def _same_task(first: HTSAT, other: HTSAT) -> list[int] | None:
    """Where the first model's classes stand in another's; None if in the same places.

    Raises:
        ValueError: the two do not hear the same classes, sample rate or window.
    """
    one, two = ((m.config.sample_rate, m.config.window_samples) for m in (first, other))
    if one != two:
        raise UsageError(
            f"wanted models of one sample rate and window for an ensemble, got {one[0]} Hz with {one[1]} "
            f"samples and {two[0]} Hz with {two[1]}"
        )
    if set(first.labels) != set(other.labels):
        odd = sorted(set(first.labels) ^ set(other.labels))
        raise UsageError(
            f"wanted models of the same classes for an ensemble; only one of two knows {', '.join(odd[:3])}"
        )
    return None if first.labels == other.labels else [other.labels.index(label) for label in first.labels]
