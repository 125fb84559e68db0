"""Held-out scores of clips, negatives and soundscapes, and the post-processing that is tuned on them.

Each recording is scored by a model that was not trained on its source.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from htsat_sed.audio import read
from htsat_sed.detection.devices import start_lanes
from htsat_sed.detection.events import Event, PostProcessing, find_events
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.class_scores import Choice
from htsat_sed.evaluation.false_alarm_limit import Limit
from htsat_sed.evaluation.reliability import outcomes_of_negatives, outcomes_of_pair
from htsat_sed.evaluation.report import Settings
from htsat_sed.evaluation.score_calibration import calibrate_scores, outcomes_of_clips
from htsat_sed.evaluation.tables import pair
from htsat_sed.evaluation.threshold_curves import ThresholdCurves, between
from htsat_sed.evaluation.tuning import tune
from htsat_sed.model.htsat import HTSAT, TOKENS
from htsat_sed.model.runtime import Inference
from htsat_sed.training.collection import Collection, Labelled
from htsat_sed.training.data import Clip
from htsat_sed.training.distractors import distractor
from htsat_sed.training.examples import ExampleShape, SoundscapeSeries
from htsat_sed.training.recipe import SoundscapeRecipe
from htsat_sed.training.soundscapes import Soundscapes, read_backgrounds, read_sources

_SOUNDSCAPES, _DISTRACTORS = 72, 72  # over all folds
_BATCH = 8  # windows
_DTC = 0.5  # detection tolerance: least part of a correct event that reference events cover


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of one recording.

    Attributes:
        presence_map: token scores of K classes.
        clip: (K,) clip-level scores in [0, 1].
    """

    presence_map: PresenceMap
    clip: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Scores by models that were not trained on the sources.

    Attributes:
        events: maps the name of a soundscape to its reference events.
        soundscapes: maps the name of a soundscape to its scores.
        clips: clips of classes, and their scores.
        negatives: clips without a class, and their scores.
        distractors: maps the name of a distractor to its scores.
    """

    events: Mapping[str, list[Event]]
    soundscapes: Mapping[str, Scored]
    clips: Sequence[tuple[Labelled, Scored]]
    negatives: Sequence[tuple[Labelled, Scored]]
    distractors: Mapping[str, Scored]

    @property
    def silent(self) -> dict[str, Scored]:
        """Scores of negatives and distractors by name: every event in them is a false alarm."""
        return {str(clip.path): scored for clip, scored in self.negatives} | dict(self.distractors)


def score_held_out(
    collection: Collection, models: Sequence[HTSAT], mix: SoundscapeRecipe, *, seed: int
) -> HeldOut:
    """Score the clips and negatives of each fold, and new soundscapes of them, by the fold's model.

    Args:
        collection: clips and negatives.
        models: one model per fold, which was not trained on that fold. A single model was trained on all
            clips; with it, only negatives, soundscapes and distractors are scored.
        mix: settings of the soundscapes.
        seed: random seed of the training; soundscapes and distractors use other seeds derived from it.

    Returns:
        The scores.

    Raises:
        AudioError: a clip cannot be read.
    """
    events: dict[str, list[Event]] = {}
    soundscapes: dict[str, Scored] = {}
    scorers = [_Scorer(model) for model in models]
    threads = torch.get_num_threads()
    with start_lanes(threads, threads) as pool:
        for name, own, scored in _soundscapes(collection, scorers, mix, seed, pool):
            events[name], soundscapes[name] = own, scored
        tested = [clip for clip in collection.clips if clip.fold and (len(models) > 1 or not clip.label)]
        scores = pool.map(lambda clip: scorers[(clip.fold - 1) % len(models)].clip(clip), tested)
        pairs = list(zip(tested, scores, strict=True))
        distractors = _distractors(scorers, seed, pool)
    return HeldOut(
        events,
        soundscapes,
        [each for each in pairs if each[0].label],
        [each for each in pairs if not each[0].label],
        distractors,
    )


def _soundscapes(
    collection: Collection, scorers: Sequence[_Scorer], mix: SoundscapeRecipe, seed: int, pool: Executor
) -> Iterator[tuple[str, list[Event], Scored]]:
    """Yield name, reference events and scores of each soundscape."""
    for number, scorer in enumerate(scorers, 1):
        config, labels = scorer.model.config, scorer.model.labels
        own = [as_clip(c) for c in collection.clips if len(scorers) == 1 or c.fold == number]
        sources = read_sources(own, sample_rate=config.sample_rate)
        if not sources:
            continue
        shape = ExampleShape(
            sample_rate=config.sample_rate, samples=config.window_samples, tokens=TOKENS, labels=labels
        )
        mixed = Soundscapes(
            sources,
            mix,
            sample_rate=config.sample_rate,
            seed=seed + 1000 + number,
            backgrounds=read_backgrounds(own, sample_rate=config.sample_rate),
        )
        series = SoundscapeSeries(mixed, shape)
        made = partial(_soundscape, series, scorer)
        for i, (events, scored) in enumerate(pool.map(made, range(-(-_SOUNDSCAPES // len(scorers))))):
            yield f"{number}-{i:05d}", events, scored


def _soundscape(series: SoundscapeSeries, scorer: _Scorer, number: int) -> tuple[list[Event], Scored]:
    example = series[number]
    return list(example.events or ()), scorer.samples(example.waveform)


def _distractors(scorers: Sequence[_Scorer], seed: int, pool: Executor) -> dict[str, Scored]:
    """Score distractors that no model was trained on."""
    found: dict[str, Scored] = {}
    for number, scorer in enumerate(scorers, 1):
        scored = pool.map(
            partial(_distractor, scorer, seed + 1000 + number), range(-(-_DISTRACTORS // len(scorers)))
        )
        found |= {f"distractor {number}-{i:05d}": own for i, own in enumerate(scored)}
    return found


def _distractor(scorer: _Scorer, seed: int, number: int) -> Scored:
    config = scorer.model.config
    return scorer.samples(
        distractor(seed, number, samples=config.window_samples, sample_rate=config.sample_rate)
    )


def alarms_per_hour(silent: Sequence[Scored], rules: PostProcessing) -> float | None:
    """Compute the rate of false alarms.

    Args:
        silent: scores of recordings without events.
        rules: post-processing that finds events.

    Returns:
        Events per hour over all classes; None if there are no recordings.
    """
    seconds = sum(scored.presence_map.duration for scored in silent)
    events = sum(len(find_events(scored.presence_map, rules)) for scored in silent)
    return 3600.0 * events / seconds if seconds else None


def as_clip(clip: Labelled) -> Clip:
    """Convert a clip for training: the active part becomes its event, and a negative gets no labels."""
    events = (Event(clip.onset, clip.offset, clip.label),) if clip.label else None
    return Clip(clip.path, frozenset([clip.label]) if clip.label else frozenset(), events)


class _Scorer:
    """A model that scores recordings on the CPU, in windows that do not overlap.

    Args:
        model: model in evaluation mode; a reference is kept.
    """

    def __init__(self, model: HTSAT) -> None:
        self.model = model
        self._inference = Inference(model, torch.device("cpu"))

    def clip(self, clip: Labelled) -> Scored:
        """Score a clip; raises AudioError if it cannot be read."""
        return self.samples(read(clip.path, self.model.config.sample_rate))

    def samples(self, samples: NDArray[np.float32]) -> Scored:
        """Score (n,) mono samples in [-1, 1] at the model's sample rate.

        Returns:
            Token scores of all windows in sequence, and the highest clip-level score of each class.
        """
        config = self.model.config
        length = config.window_samples
        count = max(1, math.ceil(len(samples) / length))
        padded = np.pad(samples, (0, count * length - len(samples))).reshape(count, length)
        parts = torch.split(torch.from_numpy(padded), _BATCH)
        logits = torch.cat([self._inference.presence_logits(part) for part in parts])
        presence = self.model.scores(logits).flatten(0, 1).numpy()
        clip = self.model.scores(logits.mean(dim=1)).amax(dim=0).numpy()
        tokens = max(1, math.ceil(len(samples) * TOKENS / length))
        duration = len(samples) / config.sample_rate
        return Scored(PresenceMap(presence[:tokens], self.model.labels, config.token_seconds, duration), clip)


def choose_post_processing(
    held_out: HeldOut,
    labels: Sequence[str],
    *,
    precision: float,
    false_alarms: float,
    caution: float,
    seed: int,
) -> tuple[PostProcessing, dict[str, float]]:
    """Tune post-processing for the best F1 under limits on precision and false alarms; calibrate scores.

    Args:
        held_out: scores to tune on.
        labels: classes.
        precision: target precision of events, in [0, 1]; ignored for a class if no threshold reaches it.
        false_alarms: upper limit of false alarms per hour of negatives and distractors, over all classes.
        caution: part of the F1 to give up for higher thresholds if there are no negatives, in [0, 1]. Real
            surroundings contain more sounds that resemble a class than distractors do.
        seed: random seed of the cross-validation folds.

    Returns:
        The post-processing, and the F1 of each class; NaN where undefined. The F1 is cross-validated over
        soundscapes, or that of the final threshold if `precision` and `caution` make it lower.
        With fewer than five soundscapes or no events: the defaults, and no F1.
    """
    maps = {name: scored.presence_map for name, scored in held_out.soundscapes.items()}
    if not any(held_out.events.values()) or len(maps) < 5:
        return PostProcessing(), {}
    pairs = pair(held_out.events, dict.fromkeys(maps, ()))
    quiet = {name: scored.presence_map for name, scored in held_out.silent.items()}
    limit = Limit(maps=quiet, table={}, per_hour=false_alarms) if quiet else None
    tuning = tune(pairs, maps, limit=limit, seed=seed)
    rules = tuning.post_processing().to_dict()
    worth = {label: each.held_out for label, each in tuning.by_class().items()}
    every = np.ones(len(maps), np.bool_)
    for label, choice in zip(tuning.labels, tuning.choices, strict=True):
        curves = ThresholdCurves(pairs, maps, label, "intersection", Settings())
        choice = _precise(curves, choice, precision)
        if not held_out.negatives:
            choice = _cautious(curves, choice, len(maps), caution)
        rules["classes"][label] = choice.values()
        worth[label] = min(worth[label], curves.f1(choice, every))
    chosen = _calibrated(PostProcessing().override(rules), held_out, labels)
    return chosen, {label: worth.get(label, math.nan) for label in labels}


def _precise(curves: ThresholdCurves, choice: Choice, precision: float) -> Choice:
    """Raise the threshold to the lowest that reaches the precision; unchanged if none does."""
    for threshold in [choice.threshold, *np.arange(0.05, 1.0, 0.025)]:
        candidate = replace(choice, threshold=float(threshold))
        counts = curves.counts(candidate)
        tp, fp = float(counts.tp.sum()), float(counts.fp.sum())
        if threshold >= choice.threshold and tp > 0.0 and tp >= precision * (tp + fp):
            return candidate
    return choice


def _cautious(curves: ThresholdCurves, choice: Choice, soundscapes: int, caution: float) -> Choice:
    """Raise the threshold to the highest that costs at most the part `caution` of the F1."""
    every = np.ones(soundscapes, np.bool_)
    threshold, f1, _ = curves.steps(choice, every)
    enough = f1 >= (1.0 - caution) * curves.f1(choice, every)
    places = np.flatnonzero(enough & (threshold >= choice.threshold))
    return replace(choice, threshold=between(threshold, int(places[-1]))) if len(places) else choice


def _calibrated(rules: PostProcessing, held_out: HeldOut, labels: Sequence[str]) -> PostProcessing:
    """Add calibration, which maps scores of events and clips to the probability that they are correct."""
    found = {name: find_events(own.presence_map, rules) for name, own in held_out.soundscapes.items()}
    false = {name: find_events(own.presence_map, rules) for name, own in held_out.silent.items()}
    of_events = [
        *outcomes_of_pair(pair(held_out.events, found), dtc=_DTC),
        *outcomes_of_negatives(false, {}, labels),
    ]
    clips = {str(clip.path): (scored.clip, {clip.label}) for clip, scored in held_out.clips}
    mixed = {
        name: (scored.clip, {event.label for event in held_out.events[name]})
        for name, scored in held_out.soundscapes.items()
    }
    silent = {name: (scored.clip, set[str]()) for name, scored in held_out.silent.items()}
    every = clips | mixed | silent
    of_clips = outcomes_of_clips(
        {name: scores for name, (scores, _) in every.items()},
        {name: present for name, (_, present) in every.items()},
        {},
        labels,
    )
    columns = [
        column.tolist()
        for outcomes in (of_events, of_clips)
        for column in calibrate_scores(outcomes, labels).calibration
    ]
    names = ("score_slope", "score_offset", "clip_slope", "clip_offset")
    classes = {
        label: {name: round(value, 4) for name, value in zip(names, own, strict=True)}
        for label, *own in zip(labels, *columns, strict=True)
    }
    return rules.override({"classes": classes})
