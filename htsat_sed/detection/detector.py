"""The detector: composes audio, model and post-processing.

Windows of different recordings share batches, so short clips use the device as efficiently as long
recordings. Results are in the order of the recordings. Memory does not grow with the duration of a recording,
unless its whole presence map is requested.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any, Literal, TypeVar, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from htsat_sed.audio import AudioStream, InMemory, Window, check_choice, open_recording, windows
from htsat_sed.detection.calibration import clip_calibration
from htsat_sed.detection.devices import Compute, Devices, best_device
from htsat_sed.detection.ensemble import ClassSelection, Ensemble
from htsat_sed.detection.events import Event, PostProcessing, find_events
from htsat_sed.detection.pooling import Embeddings, Pooling
from htsat_sed.detection.presence import PresenceMap, stitch
from htsat_sed.detection.scheduler import (
    AnyPath,
    Defective,
    RecordingProgress,
    ScoredRecording,
    Windowing,
    scored_recordings,
)
from htsat_sed.detection.streaming import EventStream
from htsat_sed.errors import CheckpointError, HtsatSedError, UsageError
from htsat_sed.labels import ClassMap
from htsat_sed.model.catalogue import CATALOGUE, pull
from htsat_sed.model.checkpoint import load_checkpoint
from htsat_sed.model.htsat import HTSAT, TOKENS
from htsat_sed.model.runtime import Execution, Runtime

AnyModel = HTSAT | str | os.PathLike[str]
Sound = AnyPath | bytes | IO[bytes] | NDArray[Any] | Tensor
Rows = Callable[[AnyPath, NDArray[np.float32]], None]
Tap = Callable[[AudioStream, Iterator[Window]], Iterator[Window]]
Found = Callable[[AnyPath, list[Event]], bool]
OnError = Literal["raise", "yield"]
_Result = TypeVar("_Result")

_MOST_SHIFTS = 32  # gives rows of 10 ms, the duration of a spectrogram frame

_logger = logging.getLogger("htsat_sed")


@dataclass(frozen=True)
class Detection:
    """Events of one recording.

    Attributes:
        events: events ordered by onset, offset and label.
        duration: duration of the recording, seconds.
        sample_rate: sample rate of the recording, Hz, if known.
    """

    events: list[Event]
    duration: float
    sample_rate: int | None = field(default=None, compare=False)


class Detector:
    """Runs one model, or an ensemble, over recordings.

    Args:
        model: name of a checkpoint, such as ``home``, its path, or a model from `load_checkpoint`. Several
            form an ensemble, whose scores are the mean over the models; they must agree in labels, sample
            rate and window. A published checkpoint that is not on disk is downloaded, with a log message.
        device: ``auto`` (CUDA, else Apple's MPS, else the CPU) or a device of torch; several, separated by
            commas (``cuda:0,cuda:1``), take turns.
        batch_size: windows per batch; ``auto`` for a number that suits the device. It is halved, with a
            warning, whenever a batch does not fit in the device's memory.
        hop: seconds between the starts of two windows, more than 0 and at most a window (10 s); rounded
            to whole tokens (0.3125 s), at least one. Less than a window makes windows overlap.
        shifts: number of windows at each position, each 1 / `shifts` of a token later than the previous one.
            Presence maps then have `shifts` rows per token, each the mean of the tokens that cover it.
            Computation takes `shifts` times as long.
        post_processing: post-processing and calibration of scores; None for the checkpoint's own, or the
            class map's thresholds. An ensemble uses the post-processing and calibration of its first model.
        class_map: mapping that merges the model's classes into others.
        labels: classes to keep, after the class map; None for all.
        workers: threads that read, decode and resample; None for one per processor core. Results do not
            depend on it.
        execution: runtime and precision; None for float32 by OpenVINO on a CPU if installed, otherwise by
            torch. Runtimes other than torch copy the weights at construction.
        fill_batches: compute the last batch in full size as well: slower for a single short recording, but
            scores then do not depend in the last bit on other recordings in the batch.
        channel: channel to read, from 1; None for the mean of all channels.
        track: audio track to read from recordings with several, from 1; None for the first.
        deferred: put nothing on the device and compile nothing before the first call. This is for a Detector
            that other processes will copy; the device need not exist in this process.

    A Detector is thread-safe. It is pickled and copied by its arguments, including weights, so it can be
    passed to spawned processes. In a forked child it raises UsageError. The given models are copied: they are
    neither moved to the device nor put into evaluation mode.

    Attributes:
        models: models, as given or loaded.
        config: configuration of the model, or of the first of an ensemble.
        labels: K class names, in the column order of all results.
        hop: hop rounded to whole tokens, seconds.
        shifts: number of windows at each position.
        token_seconds: duration of a row of presence maps, seconds.
        post_processing: post-processing of `detect`.
        execution: requested runtime and precision.
        runtime: runtime of the models.
        channel: channel to read, from 1; None for the mean.
        track: audio track to read, from 1; None for the first.

    Raises:
        ValueError: an argument is out of range, the models disagree, a label is unknown, or `execution` is
            not possible on the device.
    """

    def __init__(
        self,
        model: AnyModel | Sequence[AnyModel],
        *,
        device: str = "auto",
        batch_size: int | Literal["auto"] = "auto",
        hop: float = 10.0,
        shifts: int = 1,
        post_processing: PostProcessing | None = None,
        class_map: ClassMap | None = None,
        labels: Sequence[str] | None = None,
        workers: int | None = None,
        execution: Execution | None = None,
        fill_batches: bool = False,
        channel: int | None = None,
        track: int | None = None,
        deferred: bool = False,
    ) -> None:
        self._arguments = {name: value for name, value in locals().items() if name != "self"}
        self._process = os.getpid()
        _check_types(
            ("device", device, str, "a str such as 'cpu'"),
            ("batch_size", batch_size, int | str, "an int or 'auto'"),
            ("hop", hop, int | float, "seconds as a float"),
            ("post_processing", post_processing, PostProcessing | None, "a PostProcessing"),
            (
                "class_map",
                class_map,
                ClassMap | None,
                "a ClassMap, such as htsat_sed.labels.class_map('desed')",
            ),
            ("execution", execution, Execution | None, "an Execution"),
        )
        if isinstance(labels, str):
            raise UsageError(f"wanted labels as a list of str, got the str {labels!r}")
        check_choice(channel, track)
        self.channel, self.track = channel, track
        several = isinstance(model, Sequence) and not isinstance(model, str)
        given = cast("Sequence[AnyModel]", model if several else [model])
        models = [_loaded(each) for each in given]
        classes = ClassSelection.of(models, class_map=class_map, labels=labels)
        self.models, self.labels = models, classes.labels
        self._fill_batches = fill_batches
        self._workers = _cores() if workers is None else workers
        if self._workers < 1:
            raise UsageError(f"wanted at least one worker, got {workers}")
        self.config = self.models[0].config
        seconds = self.config.window_seconds
        if not 0.0 < hop <= seconds:
            raise UsageError(f"wanted a hop of more than 0 and at most {seconds:g} s, got {hop:g}")
        self._hop_tokens = max(1, round(hop / self.config.token_seconds))
        self.hop = self._hop_tokens * self.config.token_seconds
        if not 1 <= shifts <= _MOST_SHIFTS:
            raise UsageError(f"wanted 1 to {_MOST_SHIFTS} shifts, got {shifts}")
        self.shifts = shifts
        self.token_seconds = self.config.token_seconds / shifts
        self.post_processing = post_processing or default_post_processing(
            self.models[0].post_processing, class_map
        )
        self.execution = execution or Execution()
        self._classes = classes
        if deferred:
            self.runtime: Runtime = self.execution.on(self.device)
        else:
            self.runtime = self._devices.ensembles[0].models[0].runtime

    def __reduce__(self) -> tuple[object, ...]:
        """Copy and pickle by the arguments, including models; the copy is constructed in its own process."""
        return _made_of, (type(self), self._arguments)

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of the constructor by name, including models."""
        return dict(self._arguments)

    @property
    def device(self) -> torch.device:
        """Device of the model; the first of several."""
        if "_devices" in vars(self):
            return self._devices.ensembles[0].device
        name = self._arguments["device"].partition(",")[0]
        return best_device() if name == "auto" else torch.device(name)

    @cached_property
    def _devices(self) -> Devices:
        given = self._arguments
        return Devices(self.models, given["device"], given["batch_size"], self.execution, self._classes)

    def detect(self, sound: Sound, *, sample_rate: int | None = None) -> list[Event]:
        """Detect events in one recording; memory does not grow with its duration.

        Args:
            sound: a path, or ``-`` for standard input; samples as a NumPy array or a torch tensor, (n,) or
                (n, channels), floating point in [-1, 1] or signed integers; the bytes of a recording in any
                format; or a file object in binary mode.
            sample_rate: sample rate, Hz, if `sound` is samples; otherwise None.

        Returns:
            Events ordered by onset, offset and label.

        Raises:
            AudioError: the recording cannot be read.
            UsageError: `sound` has another type, or `sample_rate` is missing or superfluous.
        """
        return _only(self.detections([_as_path(sound, sample_rate)])).events

    def presence_map(self, sound: Sound, *, sample_rate: int | None = None) -> PresenceMap:
        """Compute the presence map of one recording; arguments and errors as for `detect`."""
        return _only(self.presence_maps([_as_path(sound, sample_rate)]))

    def clip_scores(self, sound: Sound, *, sample_rate: int | None = None) -> NDArray[np.float32]:
        """Compute the clip-level scores (K,) of one recording; arguments and errors as for `detect`."""
        return _only(self.all_clip_scores([_as_path(sound, sample_rate)]))

    def embeddings(
        self, sound: Sound, *, sample_rate: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Compute embeddings of the windows of one recording; arguments and errors as for `detect`.

        Returns:
            (windows, D) float32, concatenated over the models of an ensemble, 0 for windows of digital
            silence; and (windows,) start times in seconds.
        """
        return _only(self.embeddings_many([_as_path(sound, sample_rate)]))

    @overload
    def embeddings_many(
        self, sounds: Iterable[Sound], *, sample_rate: int | None = ..., on_error: Literal["raise"]
    ) -> Iterator[tuple[Sound, tuple[NDArray[np.float32], NDArray[np.float64]]]]: ...

    @overload
    def embeddings_many(
        self, sounds: Iterable[Sound], *, sample_rate: int | None = ..., on_error: OnError = ...
    ) -> Iterator[tuple[Sound, tuple[NDArray[np.float32], NDArray[np.float64]] | HtsatSedError]]: ...

    def embeddings_many(
        self, sounds: Iterable[Sound], *, sample_rate: int | None = None, on_error: OnError = "yield"
    ) -> Iterator[tuple[Sound, tuple[NDArray[np.float32], NDArray[np.float64]] | HtsatSedError]]:
        """Compute embeddings of many recordings, see `embeddings`; arguments as for `detect_many`."""
        return _as_given(self._embeddings(_several(sounds, sample_rate, on_error)), on_error)

    def _embeddings(
        self, paths: Iterable[AnyPath]
    ) -> Generator[tuple[AnyPath, tuple[NDArray[np.float32], NDArray[np.float64]] | HtsatSedError]]:
        silent = np.zeros(sum(model.backbone.out_dim for model in self.models), np.float32)
        scored = self._scored(paths, self._windows, Ensemble.embedding, silent, None, None)
        with closing(scored) as through:
            for recording, windows_of in through:
                rows = list(windows_of)
                starts = np.arange(len(rows), dtype=np.float64) * np.float64(self.hop)
                yield recording.path, recording.end.error or (np.stack(rows), starts)

    def all_embeddings(
        self,
        paths: Iterable[AnyPath],
        *,
        window: float = 10.0,
        hop: float | None = None,
        start: float = 0.0,
        end: float = math.inf,
        progress: RecordingProgress | None = None,
        defective: Defective | None = None,
    ) -> Iterator[tuple[AnyPath, Embeddings | HtsatSedError]]:
        """Compute embeddings of segments of many recordings: means over the tokens of a segment.

        Unlike in `embeddings`, padding after the end of a recording does not count. If the last segment does
        not end with the recording, a further segment of the same duration does.

        Args:
            paths: recordings.
            window: duration of a segment in seconds, rounded to whole tokens; infinite for one segment.
            hop: time between the starts of two segments in seconds, rounded to whole tokens; None for
                `window`.
            start: start of the part of the recording to divide into segments, seconds; rounded down to a
                token.
            end: end of that part, seconds; rounded up to a token.
            progress: see `presence_maps`.
            defective: see `detections`.

        Yields:
            Each path with its embeddings, or with its error.

        Raises:
            UsageError: a duration is out of range.
        """
        step = self.config.token_seconds
        if not (0.0 < (hop or window) <= window and 0.0 <= start < end):
            raise UsageError(
                f"wanted 0 < hop <= window and 0 <= start < end, got {hop or window:g}, {window:g}, "
                f"{start:g} and {end:g} s"
            )
        silent = np.zeros((TOKENS, sum(model.backbone.out_dim for model in self.models)), np.float32)
        cut = self._between(start, end)
        with closing(self._scored(paths, cut, Ensemble.tokens, silent, progress, defective)) as through:
            for recording, scores in through:
                pooling = Pooling(step, window=window, hop=hop or window, start=start, end=end)
                for block in self._rows(recording, scores):
                    pooling.add(block)
                yield recording.path, recording.end.error or pooling.finish(recording.end.duration)

    @overload
    def detect_many(
        self, sounds: Iterable[Sound], *, sample_rate: int | None = ..., on_error: Literal["raise"]
    ) -> Iterator[tuple[Sound, list[Event]]]: ...

    @overload
    def detect_many(
        self, sounds: Iterable[Sound], *, sample_rate: int | None = ..., on_error: OnError = ...
    ) -> Iterator[tuple[Sound, list[Event] | HtsatSedError]]: ...

    def detect_many(
        self,
        sounds: Iterable[Sound],
        *,
        sample_rate: int | None = None,
        on_error: OnError = "yield",
    ) -> Iterator[tuple[Sound, list[Event] | HtsatSedError]]:
        """Detect events in many recordings, in their order; their windows share batches.

        Args:
            sounds: recordings, see `detect`.
            sample_rate: sample rate of recordings given as samples, Hz.
            on_error: ``yield`` a recording that cannot be read with its error, and continue; or ``raise`` the
                error.

        Yields:
            Each recording as given, with its events.

        Raises:
            AudioError: with ``raise``, a recording cannot be read.
            UsageError: `sounds` is a single recording, contains values that `detect` does not accept, or
                `on_error` is invalid.
        """
        found = _as_given(self.detections(_several(sounds, sample_rate, on_error)), on_error)
        return ((sound, each.events if isinstance(each, Detection) else each) for sound, each in found)

    def events(self, presence_map: PresenceMap) -> list[Event]:
        """Find the events of a presence map with this detector's post-processing."""
        return find_events(presence_map, self.post_processing)

    def detections(
        self,
        paths: Iterable[AnyPath],
        *,
        progress: RecordingProgress | None = None,
        rows: Rows | None = None,
        defective: Defective | None = None,
        found: Found | None = None,
    ) -> Generator[tuple[AnyPath, Detection | HtsatSedError]]:
        """Detect events in many recordings, in their order.

        The windows of all recordings share batches. A recording that cannot be read yields its error, and
        processing continues.

        Args:
            paths: recordings.
            progress: see `presence_maps`.
            rows: called with a path and the next (n, K) float32 rows of its presence map, in order. All calls
                for a recording come between the previous recording's result and its own. Some rows may
                precede an error.
            defective: called with the path of a truncated or damaged recording, or one with invalid samples,
                and a description, before its result is yielded. Its readable part is used.
            found: called with a path and its events as soon as they are final; returns whether it accepted
                them. Accepted events are not in the result, so that memory does not grow with their number.

        Yields:
            Each path with its detection or error.
        """
        with closing(self._presence_of(paths, self._shifted_windows, progress, defective)) as through:
            for recording, blocks in through:
                stream = EventStream(
                    self.labels,
                    token_seconds=self.token_seconds,
                    post_processing=self.post_processing,
                    **({} if found is None else {"block": 1}),
                )
                events: list[Event] = []

                def take(new: list[Event], path: AnyPath = recording.path) -> list[Event]:
                    return [] if found is not None and new and found(path, sorted(new)) else new

                for block in blocks:
                    if rows is not None:
                        rows(recording.path, block)
                    events += take(stream.add(block))
                end = recording.end
                if end.error is None:
                    events += take(stream.finish(end.duration))
                yield recording.path, end.error or Detection(sorted(events), end.duration, end.sample_rate)

    @overload
    def presence_maps(
        self,
        sounds: Iterable[Sound],
        *,
        sample_rate: int | None = ...,
        on_error: Literal["raise"],
        start: float = ...,
        end: float = ...,
        progress: RecordingProgress | None = ...,
        defective: Defective | None = ...,
        tap: Tap | None = ...,
    ) -> Iterator[tuple[Sound, PresenceMap]]: ...

    @overload
    def presence_maps(
        self,
        sounds: Iterable[Sound],
        *,
        sample_rate: int | None = ...,
        on_error: OnError = ...,
        start: float = ...,
        end: float = ...,
        progress: RecordingProgress | None = ...,
        defective: Defective | None = ...,
        tap: Tap | None = ...,
    ) -> Iterator[tuple[Sound, PresenceMap | HtsatSedError]]: ...

    def presence_maps(
        self,
        sounds: Iterable[Sound],
        *,
        sample_rate: int | None = None,
        on_error: OnError = "yield",
        start: float = 0.0,
        end: float = math.inf,
        progress: RecordingProgress | None = None,
        defective: Defective | None = None,
        tap: Tap | None = None,
    ) -> Iterator[tuple[Sound, PresenceMap | HtsatSedError]]:
        """Compute the presence maps of many recordings, in their order; their windows share batches.

        Args:
            sounds: see `detect_many`.
            sample_rate: see `detect_many`.
            on_error: see `detect_many`.
            start: start of the time range to score, seconds. Scores inside the range equal those of the whole
                recording. Windows outside are not computed, and tokens that only they cover score 0.
            end: end of the time range, seconds.
            progress: called for each window with a path, the seconds processed, and the expected duration in
                seconds, or None if unknown.
            defective: see `detections`.
            tap: called in a worker with a recording and its windows; must yield the windows, and can compute
                something else from them, so that a recording is decoded only once.

        Yields:
            Each recording as given, with its presence map or its error.
        """
        cut = self._between(start, end, tap, shifted=True)
        found = self._presence_maps(_several(sounds, sample_rate, on_error), cut, progress, defective)
        return _as_given(found, on_error)

    def _presence_maps(
        self,
        paths: Iterable[AnyPath],
        cut: Windowing,
        progress: RecordingProgress | None,
        defective: Defective | None,
    ) -> Generator[tuple[AnyPath, PresenceMap | HtsatSedError]]:
        with closing(self._presence_of(paths, cut, progress, defective)) as through:
            for recording, blocks in through:
                rows = np.concatenate([np.zeros((0, len(self.labels)), np.float32), *blocks])
                yield (
                    recording.path,
                    recording.end.error
                    or PresenceMap(rows, self.labels, self.token_seconds, recording.end.duration),
                )

    def all_clip_scores(
        self,
        paths: Iterable[AnyPath],
        *,
        pool: Literal["max", "mean"] = "max",
        shifts: int = 1,
        progress: RecordingProgress | None = None,
        defective: Defective | None = None,
    ) -> Iterator[tuple[AnyPath, NDArray[np.float32] | HtsatSedError]]:
        """Compute the clip-level scores of many recordings, in their order.

        A recording of up to one window is scored as in the official code, which repeats the spectrogram of a
        shorter recording as often as it fits. A longer recording is divided into windows without overlap,
        except that the last one ends with the recording; its score is the maximum or mean over the windows.

        Args:
            paths: recordings.
            pool: pooling over the windows of a long recording.
            shifts: number of copies of each window, cyclically shifted by 0, 100, 300, 600, ... samples,
                whose scores are averaged. The published results on AudioSet use 10, which takes ten times as
                long.
            progress: see `presence_maps`.
            defective: see `detections`.

        Yields:
            Each path with its (K,) float32 scores in [0, 1], calibrated by `post_processing`, or with its
            error.

        Raises:
            UsageError: `shifts` is less than 1.
        """
        if shifts < 1:
            raise UsageError(f"wanted at least one shift, got {shifts}")
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

        silent = np.zeros(len(self.labels), np.float32)
        clip = partial(Ensemble.clip, shifts=shifts)
        calibration = clip_calibration(self.post_processing.of_each(self.labels))
        with closing(self._scored(paths, cut, clip, silent, progress, defective)) as through:
            for recording, scored in through:
                score = silent
                for count, of_window in enumerate(scored, 1):
                    if pool == "max":
                        score = np.maximum(score, of_window)
                    else:
                        score = score + (of_window - score) / np.float32(count)
                yield recording.path, recording.end.error or calibration.apply(score)

    @contextmanager
    def scoring(self) -> Iterator[Callable[[NDArray[np.float32]], NDArray[np.float32]]]:
        """Score single windows, such as those of a live stream.

        Yields:
            A function of (n,) float32 samples, at most `config.window_samples`, that returns presence scores
            (32, K), 0 for digital silence. They equal those of `detections`.
        """
        silent = np.zeros((TOKENS, len(self.labels)), np.float32)
        with self._devices.computing(Ensemble.presence) as launch:
            yield lambda samples: launch([samples])()[0] if samples.any() else silent

    @property
    def hop_samples(self) -> int:
        """Samples between the starts of two windows."""
        return self._hop_tokens * self.config.window_samples // TOKENS

    def _windows(self, stream: AudioStream) -> Iterator[Window]:
        return windows(stream, window=self.config.window_samples, hop=self.hop_samples)

    def _between(
        self, start: float, end: float, tap: Tap | None = None, *, shifted: bool = False
    ) -> Windowing:
        """Return a function that cuts windows, and silences those outside a time range to skip them."""
        rate = self.config.sample_rate

        def cut(stream: AudioStream) -> Iterator[Window]:
            through = self._shifted_windows(stream) if shifted else self._windows(stream)
            for window in through if tap is None else tap(stream, through):
                wanted = window.start < end * rate and window.start + len(window.samples) > start * rate
                yield window if wanted else Window(window.start, np.zeros_like(window.samples))

        return cut

    def _shifted_windows(self, stream: AudioStream) -> Iterator[Window]:
        """Yield the windows of each position, one per shift."""
        length, part = self.config.window_samples, self.config.window_samples / (TOKENS * self.shifts)
        later = [round(shift * part) for shift in range(self.shifts)]
        hop = self._hop_tokens * length // TOKENS
        for window in windows(stream, window=length + later[-1], hop=hop):
            for start in later:
                samples = window.samples[start : start + length]
                # A window after the end of the recording is silence and covers nothing.
                yield Window(window.start + min(start, len(window.samples)), samples)

    def _presence_of(
        self,
        paths: Iterable[AnyPath],
        cut: Windowing,
        progress: RecordingProgress | None,
        defective: Defective | None = None,
    ) -> Generator[tuple[ScoredRecording, Iterator[NDArray[np.float32]]]]:
        """Yield each recording with the blocks of rows of its presence map, as soon as they are final."""
        silent = np.zeros((TOKENS, len(self.labels)), np.float32)
        with closing(self._scored(paths, cut, Ensemble.presence, silent, progress, defective)) as through:
            for recording, scored in through:
                yield recording, self._rows(recording, scored)

    def _rows(
        self, recording: ScoredRecording, scored: Iterator[NDArray[np.float32]]
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the blocks of rows of a presence map, truncated at the end of the recording."""
        yielded = 0
        for block in stitch(scored, hop=self._hop_tokens, shifts=self.shifts):
            tokens = -(-recording.reached * TOKENS * self.shifts // self.config.window_samples)
            block = block[: tokens - yielded]
            yielded += len(block)
            if len(block):
                yield block

    def _scored(
        self,
        paths: Iterable[AnyPath],
        cut: Windowing,
        compute: Compute,
        silent: NDArray[np.float32],
        progress: RecordingProgress | None,
        defective: Defective | None,
    ) -> Generator[tuple[ScoredRecording, Iterator[NDArray[np.float32]]]]:
        """Yield each recording with the scores of its windows, which must be consumed completely."""
        if os.getpid() != self._process:
            raise UsageError(
                "this Detector was created before a fork, and its threads do not survive one: create it "
                "in the process that uses it, or start processes with spawn"
            )
        rate = self.config.sample_rate

        def scores(recording: ScoredRecording) -> Iterator[NDArray[np.float32]]:
            for part, of_window in recording.windows():
                if progress is not None:
                    progress(recording.path, part.end / rate, part.expected_duration)
                yield of_window
            if defective is not None and recording.end.defect is not None:
                defective(recording.path, recording.end.defect)

        with self._devices.computing(compute) as launch:
            through = scored_recordings(
                paths,
                open_stream=lambda path: open_recording(path, rate, channel=self.channel, track=self.track),
                cut=cut,
                launch=launch,
                silent=silent,
                batch_size=lambda: self._devices.batch_size,
                in_flight=self._devices.in_flight,
                workers=self._workers,
                fill=self._fill_batches,
            )
            with closing(through):
                for recording in through:
                    yield recording, scores(recording)


def _check_types(*arguments: tuple[str, object, Any, str]) -> None:
    """Check the types of arguments, given as name, value, type and description.

    Raises:
        UsageError: a type is wrong.
    """
    for name, value, kind, words in arguments:
        if not isinstance(value, kind):
            raise UsageError(f"wanted {name} as {words}, got {type(value).__name__}")


def _made_of(kind: type[Detector], arguments: Mapping[str, Any]) -> Detector:
    return kind(**arguments)


def _loaded(model: AnyModel) -> HTSAT:
    """Load a model by name or path, or return it.

    Raises:
        CheckpointError: the model cannot be loaded or downloaded.
        UsageError: the argument has another type.
    """
    if isinstance(model, HTSAT):
        return model
    if not isinstance(model, str | os.PathLike):
        raise UsageError(
            "wanted a model, or the name or path of a checkpoint such as 'home', or several; got "
            f"{type(model).__name__}"
        )
    for entry in CATALOGUE:
        if entry.name == model and not entry.path.is_file():
            _logger.warning("downloading the checkpoint %s to %s", entry.name, entry.path)
            pull(entry)
    loaded = load_checkpoint(model if isinstance(model, str) else Path(model))
    try:
        PostProcessing().override(loaded.post_processing or {})
    except UsageError as error:
        raise CheckpointError(os.fspath(model), f"its post-processing is invalid: {error}") from error
    return loaded


def _as_path(sound: Sound, sample_rate: int | None) -> AnyPath:
    """Return a path unchanged, and wrap any other recording as one in memory.

    Raises:
        UsageError: see `Detector.detect`.
    """
    if not isinstance(sound, str | os.PathLike):
        return InMemory(sound, sample_rate)
    if sample_rate is not None:
        raise UsageError("wanted no sample_rate: it is only for samples, and a recording states its own")
    return sound


def _several(sounds: Iterable[Sound], sample_rate: int | None, on_error: OnError) -> Iterator[AnyPath]:
    """Apply `_as_path` to several recordings.

    Raises:
        UsageError: see `Detector.detect_many`.
    """
    if isinstance(sounds, str | os.PathLike | bytes) or hasattr(sounds, "read") or _is_samples(sounds):
        raise UsageError("wanted several recordings, got one: put it into a list, or call the method for one")
    if not isinstance(sounds, Iterable):
        raise UsageError(f"wanted several recordings, such as a list of paths; got {type(sounds).__name__}")
    if on_error not in ("raise", "yield"):
        raise UsageError(f"wanted on_error 'raise' or 'yield', got {on_error!r}")
    return (_as_path(sound, sample_rate if _is_samples(sound) else None) for sound in sounds)


def _as_given(
    results: Generator[tuple[AnyPath, _Result | HtsatSedError]], on_error: OnError
) -> Iterator[tuple[Sound, _Result | HtsatSedError]]:
    """Yield results with the recordings as given; raise the first error if requested."""
    with closing(results) as found:
        for path, result in found:
            if isinstance(result, HtsatSedError) and on_error == "raise":
                raise result
            yield path.sound if isinstance(path, InMemory) else path, result


def _is_samples(sound: object) -> bool:
    return isinstance(sound, np.ndarray | Tensor)


def default_post_processing(
    own: Mapping[str, Any] | None, class_map: ClassMap | None = None
) -> PostProcessing:
    """Return the default post-processing: the thresholds of the class map, or the values of the checkpoint.

    Args:
        own: values of the checkpoint, for `PostProcessing.override`.
        class_map: class map, if any.

    Raises:
        ValueError: a value is invalid.
    """
    if class_map is None:
        return PostProcessing().override(own or {})
    classes = {label: {"threshold": threshold} for label, threshold in class_map.thresholds.items()}
    return PostProcessing().override({"classes": classes})


def _cores() -> int:
    """Return the number of processor cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _only(results: Iterator[tuple[object, _Result | HtsatSedError]]) -> _Result:
    ((_, result),) = results
    if isinstance(result, HtsatSedError):
        raise result
    return result
