"""The one composition: recordings in, presence maps, events and clip scores out.

Windows of different recordings share batches, so that short clips fill the device as well as long
recordings do; results come back in the order of the recordings.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from htsat_sed.audio import AudioStream, Window, open_recording, windows
from htsat_sed.detection.events import Event, PostProcessing, find_events
from htsat_sed.detection.presence import PresenceMap, stitch
from htsat_sed.errors import HtsatSedError
from htsat_sed.labels import ClassMap, select
from htsat_sed.model.htsat import HTSAT, TOKENS, stretch

AnyPath = str | os.PathLike[str]
Samples = NDArray[np.float32]
Progress = Callable[[AnyPath, float, float | None], None]
Rows = Callable[[AnyPath, NDArray[np.float32]], None]
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Detection:
    """What was found in one recording.

    Attributes:
        events: ordered by onset, offset and label.
        duration: of the recording, seconds.
    """

    events: list[Event]
    duration: float


@dataclass
class _Reading:
    """A recording on its way: what has come back of its windows."""

    path: AnyPath
    scores: list[NDArray[np.float32] | None] = field(default_factory=list)
    duration: float = 0.0
    read: bool = False
    error: HtsatSedError | None = None

    @property
    def complete(self) -> bool:
        return self.read and (self.error is not None or all(s is not None for s in self.scores))


class Detector:
    """Runs one model, or an ensemble, over recordings.

    Args:
        model: from `load_checkpoint`; several make an ensemble, whose scores are the mean of theirs.
            They must agree in labels, sample rate and window.
        device: ``auto`` (CUDA, else Apple's MPS, else the CPU) or any name that torch knows.
        batch_size: windows that pass the model at once.
        hop: seconds between the starts of two windows, more than 0 and at most a window (10 s); rounded
            to whole tokens (0.3125 s), at least one. Less than a window makes windows overlap.
        post_processing: how presence maps become events; None for the checkpoint's own, or the class
            map's thresholds.
        class_map: joins the model's classes into others.
        labels: keep only these classes (after the class map).

    Attributes:
        config: of the model, or the first of an ensemble.
        labels: K class names, in the order of every result's columns.
        hop: seconds, as rounded.
        post_processing: as used by `detect`.

    Raises:
        ValueError: an argument is out of range, the models disagree, or a label is unknown.
    """

    def __init__(
        self,
        model: HTSAT | Sequence[HTSAT],
        *,
        device: str = "auto",
        batch_size: int = 8,
        hop: float = 10.0,
        post_processing: PostProcessing | None = None,
        class_map: ClassMap | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        self._models = [model] if isinstance(model, HTSAT) else list(model)
        if not self._models:
            raise ValueError("wanted at least one model, got none")
        if batch_size < 1:
            raise ValueError(f"wanted batch_size of at least 1, got {batch_size}")
        self.config = self._models[0].config
        seconds = self.config.window_seconds
        if not 0.0 < hop <= seconds:
            raise ValueError(f"wanted a hop of more than 0 and at most {seconds:g} s, got {hop:g}")
        self._hop_tokens = max(1, round(hop / self.config.token_seconds))
        self.hop = self._hop_tokens * self.config.token_seconds
        self._batch_size = batch_size
        self._class_map = class_map
        self._orders = [_same_task(self._models[0], other) for other in self._models]
        self.labels = self._models[0].labels
        if class_map is not None:
            no_rows = np.zeros((0, len(self.labels)), np.float32)
            _, self.labels = class_map.apply(no_rows, self.labels)
        self._columns: list[int] | None = None
        if labels is not None:
            self._columns = list(select(self.labels, labels))
            self.labels = tuple(self.labels[i] for i in self._columns)
        self.post_processing = post_processing or default_post_processing(
            self._models[0].post_processing, class_map
        )
        self._device = _device(device)
        for each in self._models:
            each.to(self._device).eval()

    def presence_map(self, path: AnyPath) -> PresenceMap:
        """Presence map of one recording.

        Args:
            path: a recording, or ``-`` for standard input.

        Raises:
            AudioError: the recording cannot be read.
        """
        return _only(self.presence_maps([path]))

    def detect(self, path: AnyPath) -> list[Event]:
        """Events of one recording, ordered by onset; see `presence_map` for arguments and errors."""
        return self.events(self.presence_map(path))

    def clip_scores(self, path: AnyPath) -> NDArray[np.float32]:
        """Clip-level scores of one recording, (K,); see `presence_map` for arguments and errors."""
        return _only(self.all_clip_scores([path]))

    def events(self, presence_map: PresenceMap) -> list[Event]:
        """Events of a presence map, by this detector's post-processing."""
        return find_events(presence_map, self.post_processing)

    def detections(
        self,
        paths: Iterable[AnyPath],
        *,
        progress: Progress | None = None,
        rows: Rows | None = None,
    ) -> Iterator[tuple[AnyPath, Detection | HtsatSedError]]:
        """Events of many recordings, in their order.

        The windows of all recordings share batches. A recording that cannot be read yields its error
        and the others go on.

        Args:
            paths: recordings.
            progress: as in `presence_maps`.
            rows: called with a path and the next (n, K) float32 rows of its presence map, whenever some
                are known: all rows of a recording in order, after the result of the one before it was
                yielded and before its own is. Some rows may come before an error.

        Yields:
            Each path with what was found, or with the error that kept it from being read.
        """
        for path, found in self.presence_maps(paths, progress=progress):
            if isinstance(found, HtsatSedError):
                yield path, found
                continue
            if rows is not None:
                rows(path, found.scores)
            yield path, Detection(self.events(found), found.duration)

    def presence_maps(
        self,
        paths: Iterable[AnyPath],
        *,
        start: float = 0.0,
        end: float = math.inf,
        progress: Progress | None = None,
    ) -> Iterator[tuple[AnyPath, PresenceMap | HtsatSedError]]:
        """Presence maps of many recordings, in their order.

        The windows of all recordings share batches. A recording that cannot be read yields its error
        and the others go on.

        Args:
            paths: recordings.
            start: seconds; with `end`, the stretch whose scores are wanted. Inside they are those of the
                whole recording. Windows that lie outside do not pass the model: what only they cover
                scores 0.
            end: seconds, exclusive.
            progress: called after every window with a path, the seconds of it read so far, and its
                duration as far as its header tells, else None.

        Yields:
            Each path with its presence map, or with the error that kept it from being read.
        """
        config = self.config
        step = self._hop_tokens * config.window_samples // TOKENS
        first, last = start * config.sample_rate, end * config.sample_rate

        def cut(stream: AudioStream) -> Iterator[Window]:
            for window in windows(stream, window=config.window_samples, hop=step):
                wanted = window.start < last and window.start + len(window.samples) > first
                yield window if wanted else Window(window.start, np.zeros_like(window.samples))

        for reading in self._read(paths, cut, self._presence, (TOKENS, len(self.labels)), progress):
            if reading.error is not None:
                yield reading.path, reading.error
                continue
            rows = stitch((s for s in reading.scores if s is not None), hop=self._hop_tokens)
            tokens = -(-round(reading.duration * config.sample_rate) * TOKENS // config.window_samples)
            scores = np.concatenate(list(rows))[:tokens]
            yield reading.path, PresenceMap(scores, self.labels, config.token_seconds, reading.duration)

    def all_clip_scores(
        self,
        paths: Iterable[AnyPath],
        *,
        pool: Literal["max", "mean"] = "max",
        progress: Progress | None = None,
    ) -> Iterator[tuple[AnyPath, NDArray[np.float32] | HtsatSedError]]:
        """Clip-level scores of many recordings, in their order.

        A recording of up to one window is scored as the official code does: the spectrogram of a short
        one is repeated as often as it fits. A longer one is cut into windows without overlap, the last
        of which ends with the recording and so may overlap the one before; its score is the highest, or
        the mean, over the windows.

        Args:
            paths: recordings.
            pool: how the windows of a long recording become one score.
            progress: as in `presence_maps`.

        Yields:
            Each path with its (K,) float32 scores in [0, 1], or with its error.
        """
        config = self.config
        shortest = config.n_fft

        def cut(stream: AudioStream) -> Iterator[Window]:
            before = np.zeros(0, np.float32)
            for window in windows(stream, window=config.window_samples, hop=config.window_samples):
                samples = window.samples
                if len(samples) < config.window_samples and len(before):
                    samples = np.concatenate([before, samples])[-config.window_samples :]
                start = window.start + len(window.samples) - len(samples)
                yield Window(start, np.pad(samples, (0, max(0, shortest - len(samples)))))
                before = window.samples

        for reading in self._read(paths, cut, self._clip, (len(self.labels),), progress):
            if reading.error is not None:
                yield reading.path, reading.error
                continue
            scores = np.stack([s for s in reading.scores if s is not None])
            yield reading.path, scores.max(axis=0) if pool == "max" else scores.mean(axis=0)

    def _read(
        self,
        paths: Iterable[AnyPath],
        cut: Callable[[AudioStream], Iterator[Window]],
        infer: Callable[[list[Samples]], NDArray[np.float32]],
        shape: tuple[int, ...],
        progress: Progress | None,
    ) -> Iterator[_Reading]:
        """Pass every recording's windows through `infer` in shared batches; yield the complete ones."""
        under_way: deque[_Reading] = deque()
        batch: list[tuple[_Reading, int, Samples]] = []

        def run() -> None:
            results = infer([samples for _, _, samples in batch])
            for (reading, place, _), scores in zip(batch, results, strict=True):
                reading.scores[place] = scores
            batch.clear()

        for path in paths:
            reading = _Reading(path)
            under_way.append(reading)
            try:
                with open_recording(path, self.config.sample_rate) as stream:
                    for window in cut(stream):
                        if window.samples.any():
                            batch.append((reading, len(reading.scores), window.samples))
                            reading.scores.append(None)
                        else:  # nothing sounds in digital silence, whatever a model makes of -100 dB
                            reading.scores.append(np.zeros(shape, np.float32))
                        if len(batch) == self._batch_size:
                            run()
                        if progress is not None:
                            end = window.start + len(window.samples)
                            progress(path, end / self.config.sample_rate, stream.expected_duration)
                reading.duration = stream.duration
            except HtsatSedError as error:
                reading.error = error
                batch[:] = [entry for entry in batch if entry[0] is not reading]
            reading.read = True
            while under_way and under_way[0].complete:
                yield under_way.popleft()
        if batch:
            run()
        yield from under_way

    @torch.inference_mode()
    def _presence(self, batch: list[Samples]) -> NDArray[np.float32]:
        """Presence scores (B, 32, K) of windows, zero-padded to full length."""
        padded = np.zeros((len(batch), self.config.window_samples), np.float32)
        for row, samples in zip(padded, batch, strict=True):
            row[: len(samples)] = samples
        waveforms = torch.from_numpy(padded).to(self._device)
        return self._mean([model(waveforms).presence_logits.sigmoid() for model in self._models])

    @torch.inference_mode()
    def _clip(self, batch: list[Samples]) -> NDArray[np.float32]:
        """Clip scores (B, K) of windows of any length: each is stretched before they share a batch."""
        scores = []
        for model in self._models:
            waveforms = (torch.from_numpy(samples).to(self._device)[None] for samples in batch)
            logmel = torch.cat([stretch(model.normalise(model.frontend(waveform))) for waveform in waveforms])
            scores.append(model.clip_scores(model.from_normalised(logmel).clip_logits))
        return self._mean(scores)

    def _mean(self, of_models: list[torch.Tensor]) -> NDArray[np.float32]:
        """Mean over the ensemble, (..., K of the model) to (..., K): mapped and selected classes."""
        ordered = [s if o is None else s[..., o] for s, o in zip(of_models, self._orders, strict=True)]
        scores: NDArray[np.float32] = torch.stack(ordered).mean(dim=0).float().cpu().numpy()
        if self._class_map is not None:
            mapped, _ = self._class_map.apply(scores.reshape(-1, scores.shape[-1]), self._models[0].labels)
            scores = mapped.reshape(*scores.shape[:-1], -1)
        return scores if self._columns is None else scores[..., self._columns]


def default_post_processing(
    own: Mapping[str, Any] | None, class_map: ClassMap | None = None
) -> PostProcessing:
    """What holds where the caller says nothing: the class map's thresholds, or those of the checkpoint."""
    if class_map is None:
        return PostProcessing().override(own or {})
    classes = {label: {"threshold": threshold} for label, threshold in class_map.thresholds.items()}
    return PostProcessing().override({"classes": classes})


def _same_task(first: HTSAT, other: HTSAT) -> list[int] | None:
    """Where the first model's classes stand in another's; None if in the same places.

    Raises:
        ValueError: the two do not hear the same classes, sample rate or window.
    """
    one, two = ((m.config.sample_rate, m.config.window_samples) for m in (first, other))
    if one != two:
        raise ValueError(
            f"wanted models of one sample rate and window for an ensemble, got {one[0]} Hz with {one[1]} "
            f"samples and {two[0]} Hz with {two[1]}"
        )
    if set(first.labels) != set(other.labels):
        odd = sorted(set(first.labels) ^ set(other.labels))
        raise ValueError(
            f"wanted models of the same classes for an ensemble; only one of two knows {', '.join(odd[:3])}"
        )
    return None if first.labels == other.labels else [other.labels.index(label) for label in first.labels]


def _device(name: str) -> torch.device:
    if name != "auto":
        try:
            device = torch.device(name)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"wanted a device that torch can use here, got {name!r}: {reason}") from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _only(results: Iterator[tuple[AnyPath, _Result | HtsatSedError]]) -> _Result:
    ((_, result),) = results
    if isinstance(result, HtsatSedError):
        raise result
    return result
