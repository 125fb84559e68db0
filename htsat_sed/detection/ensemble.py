"""Ensembles: averaging the scores of several models, and selecting classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from htsat_sed.errors import UsageError
from htsat_sed.labels import ClassMap, select
from htsat_sed.model.htsat import HTSAT
from htsat_sed.model.runtime import Inference

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class ClassSelection:
    """Mapping from the classes of several models to the K columns of a result.

    Attributes:
        labels: K class names.
        orders: for each model, the indices of the first model's classes in it; None if they are in order.
        columns: for each of the K columns, the first model's classes whose highest score it is; None if the
            columns are the first model's classes.
    """

    labels: tuple[str, ...]
    orders: tuple[list[int] | None, ...]
    columns: tuple[list[int], ...] | None

    @classmethod
    def of(
        cls, models: Sequence[HTSAT], *, class_map: ClassMap | None, labels: Sequence[str] | None
    ) -> ClassSelection:
        """Make the class selection of an ensemble.

        Args:
            models: models, at least one.
            class_map: mapping that merges the models' classes into others.
            labels: classes to keep, after the class map; None for all.

        Raises:
            ValueError: there is no model, the models disagree, or a label is unknown.
        """
        if not models:
            raise UsageError("wanted at least one model, got none")
        own = models[0].labels
        orders = tuple(_same_task(models[0], other) for other in models)
        if class_map is None and labels is None:
            return cls(own, orders, None)
        columns = [[i] for i in range(len(own))] if class_map is None else class_map.columns(own)
        known = own if class_map is None else tuple(class_map.groups)
        kept = range(len(known)) if labels is None else select(known, labels)
        return cls(tuple(known[i] for i in kept), orders, tuple(columns[i] for i in kept))


class Ensemble:
    """Models on one device whose scores are averaged.

    Args:
        models: models, at least one, all for the same classes.
        device: device of the models.
        classes: selection of classes.

    Attributes:
        models: models of the ensemble.
        device: device of the models.
    """

    def __init__(self, models: Sequence[Inference], device: torch.device, classes: ClassSelection) -> None:
        self.models = list(models)
        self.device = device
        self._orders = [None if order is None else self._index(order) for order in classes.orders]
        self._columns: list[Tensor] | Tensor | None = None
        if classes.columns is not None:
            single = all(len(column) == 1 for column in classes.columns)
            self._columns = (
                self._index([column[0] for column in classes.columns])
                if single
                else [self._index(column) for column in classes.columns]
            )

    def presence(self, windows: Sequence[Samples]) -> Tensor:
        """Compute presence scores (B, 32, K) of windows, which are zero-padded to full length."""
        waveforms = self._whole(windows)
        return self._chosen(self._mean([model.presence_scores(waveforms) for model in self.models]))

    def clip(self, windows: Sequence[Samples], *, shifts: int = 1) -> Tensor:
        """Compute clip scores (B, K) of windows; the spectrogram of a short window is repeated and stretched.

        Args:
            windows: B windows of any length up to the full one.
            shifts: number of copies of each window, cyclically shifted by 0, 100, 300, 600, ... samples,
                whose scores are averaged.
        """
        waveforms = [self._tensor([samples], len(samples)) for samples in windows]
        scores = []
        for shift in range(shifts):
            # Each copy is a shift of the previous one, as in the official code.
            waveforms = [waveform.roll(-100 * shift, dims=-1) for waveform in waveforms]
            scores.append(self._mean([model.clip_scores(waveforms) for model in self.models]))
        return self._chosen(torch.stack(scores).mean(dim=0))

    def embedding(self, windows: Sequence[Samples]) -> Tensor:
        """Compute embeddings (B, D of all models) of windows, which are zero-padded to full length."""
        waveforms = self._whole(windows)
        return torch.cat([model.embeddings(waveforms) for model in self.models], dim=1)

    def tokens(self, windows: Sequence[Samples]) -> Tensor:
        """Compute token embeddings (B, 32, D of all models) of windows, zero-padded to full length."""
        waveforms = self._whole(windows)
        return torch.cat([model.token_embeddings(waveforms) for model in self.models], dim=2)

    def _mean(self, of_models: Sequence[Tensor]) -> Tensor:
        """Average the scores (..., K of a model) of all models, in the first model's order of classes."""
        ordered = [s if o is None else s[..., o] for s, o in zip(of_models, self._orders, strict=True)]
        return torch.stack(ordered).mean(dim=0)

    def _chosen(self, scores: Tensor) -> Tensor:
        """Map and select classes: (..., K of the first model) to (..., K)."""
        if self._columns is None:
            return scores
        if isinstance(self._columns, Tensor):
            return scores[..., self._columns]
        return torch.stack([scores[..., column].amax(dim=-1) for column in self._columns], dim=-1)

    def _whole(self, windows: Sequence[Samples]) -> Tensor:
        return self._tensor(windows, self.models[0].window_samples)

    def _tensor(self, windows: Sequence[Samples], length: int) -> Tensor:
        """Copy windows to the device as (B, length), zero-padded."""
        padded = torch.zeros(len(windows), length, pin_memory=self.device.type == "cuda")
        for row, samples in zip(padded.numpy(), windows, strict=True):
            row[: len(samples)] = samples
        return padded.to(self.device, non_blocking=True)

    def _index(self, places: list[int]) -> Tensor:
        return torch.tensor(places, dtype=torch.int64, device=self.device)


def _same_task(first: HTSAT, other: HTSAT) -> list[int] | None:
    """Return the indices of the first model's classes in another model; None if they are in order.

    Raises:
        ValueError: the two do not have the same classes, sample rate or window.
    """
    one, two = ((m.config.sample_rate, m.config.window_samples) for m in (first, other))
    if one != two:
        raise UsageError(
            f"wanted models with the same sample rate and window for an ensemble, got {one[0]} Hz with "
            f"{one[1]} samples and {two[0]} Hz with {two[1]}"
        )
    if set(first.labels) != set(other.labels):
        odd = sorted(set(first.labels) ^ set(other.labels))
        raise UsageError(
            f"wanted models with the same classes for an ensemble; only one of two has {', '.join(odd[:3])}"
        )
    return None if first.labels == other.labels else [other.labels.index(label) for label in first.labels]
