"""From a presence map to events: smoothing, thresholds with hysteresis, shortest gap, shortest event.

The steps, class by class and in this order:

1. median filter over time;
2. runs of tokens above the low threshold, kept if any of their tokens is above the high one;
3. gaps shorter than `min_gap` are closed;
4. with an `edge_level`, events begin and end between tokens, see `htsat_sed.detection.edges`;
5. events shorter than `min_event` are dropped.

With a `step_filter`, step 2 finds boxes between change points instead, and keeps those whose score is
above the threshold; see `htsat_sed.detection.change_points`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from htsat_sed.detection.change_points import step_filter_tokens
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.detection.spans import SLACK, SpanRules, Spans, find_spans
from htsat_sed.errors import AnnotationError, UsageError

LONGEST_FILTER = 600.0  # seconds; time and memory grow with a filter's length


@dataclass(frozen=True, order=True)
class Event:
    """One sound event.

    Attributes:
        onset: seconds from the start of the recording.
        offset: seconds, exclusive; onset < offset.
        label: class name.
        score: in [0, 1], the highest smoothed presence score inside the event, or of a box between change
            points the mean one; 1.0 for a reference event.
    """

    onset: float
    offset: float
    label: str
    score: float = 1.0


@dataclass(frozen=True, kw_only=True)
class PostProcessing:
    """How a presence map becomes events; values for all classes, and exceptions for some.

    Attributes:
        threshold: an event has at least one token whose smoothed score is above this (exclusive).
        threshold_low: hysteresis: the event reaches as far as scores stay above this (exclusive), at
            most `threshold`; None for the same as `threshold`.
        median_filter: width of the median filter in seconds, rounded to the nearest odd number of
            tokens (halves upwards), at most 600; 0 for none. Beyond both ends the map is mirrored (the
            first and last tokens repeat: ``b a | a b c``).
        min_event: seconds; shorter events are dropped, after gaps were closed.
        min_gap: seconds; shorter gaps between two events of a class are closed.
        step_filter: seconds, at most 600; above 0, events are boxes between change points that a step filter
            of this length finds, and `threshold` holds for the mean score of a box; `threshold_low` has no
            part.
        merge_absolute: in [0, 1]; boxes become one if the mean score of the gap between them is less than
            this below the lower of theirs.
        merge_relative: in [0, 1]; likewise, as a part of that lower score. Either is enough.
        edge_level: in [0, 0.9]; above 0, an event begins and ends where scores, interpolated between the
            middles of tokens, cross this part of its mean score, at most 4 tokens away; 0 for whole tokens.
            Gaps may so become shorter than `min_gap`.
        classes: label -> the attributes above that differ for it.
    """

    threshold: float = 0.5
    threshold_low: float | None = None
    median_filter: float = 0.0
    min_event: float = 0.0
    min_gap: float = 0.0
    step_filter: float = 0.0
    merge_absolute: float = 0.0
    merge_relative: float = 0.0
    edge_level: float = 0.0
    classes: Mapping[str, Mapping[str, float]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check every value, for all classes and for each exception.

        Raises:
            ValueError: naming the value, what was wanted and what was given.
        """
        for name in ("threshold", "threshold_low", "merge_absolute", "merge_relative"):
            value = getattr(self, name)
            if value is None and name == "threshold_low":
                continue
            if not (_is_number(value) and 0.0 <= value <= 1.0):
                raise UsageError(f"wanted {name} in [0, 1], got {value!r}")
        if not (_is_number(self.edge_level) and 0.0 <= self.edge_level <= 0.9):
            raise UsageError(f"wanted edge_level in [0, 0.9], got {self.edge_level!r}")
        if self.threshold_low is not None and self.threshold_low > self.threshold:
            raise UsageError(
                f"wanted threshold_low of at most threshold ({self.threshold}), got {self.threshold_low}"
            )
        for name in ("min_event", "min_gap"):
            value = getattr(self, name)
            if not (_is_number(value) and 0.0 <= value < float("inf")):
                raise UsageError(f"wanted {name} in seconds, 0 or more, got {value!r}")
        for name in ("median_filter", "step_filter"):
            value = getattr(self, name)
            if not (_is_number(value) and 0.0 <= value <= LONGEST_FILTER):
                raise UsageError(f"wanted {name} in seconds, 0 to {LONGEST_FILTER:g}, got {value!r}")
        frozen = MappingProxyType({label: MappingProxyType(dict(v)) for label, v in self.classes.items()})
        object.__setattr__(self, "classes", frozen)
        for label in self.classes:
            try:
                self.of(label)
            except (TypeError, ValueError) as error:
                reason = _unknown(self.classes[label]) if isinstance(error, TypeError) else str(error)
                raise UsageError(f"class {label!r}: {reason}") from None

    def of(self, label: str) -> PostProcessing:
        """The values that hold for one class, without exceptions."""
        own = dict(self.classes.get(label, {}))
        if "threshold" in own and "threshold_low" not in own and self.threshold_low is not None:
            own["threshold_low"] = min(self.threshold_low, own["threshold"])
        return replace(self, classes={}, **own)

    def override(self, values: Mapping[str, Any]) -> PostProcessing:
        """Lay further values over these.

        A value for all classes replaces this one's and its exceptions; exceptions replace only their
        class. An inherited `threshold_low` above a new `threshold` is lowered to it.

        Args:
            values: attribute -> value, and ``classes`` -> label -> attribute -> value; as in TOML.

        Raises:
            ValueError: an attribute is unknown or a value out of its range.
        """
        given = {name: value for name, value in values.items() if name != "classes"}
        if set(given) - set(_VALUES):
            raise UsageError(_unknown(given))
        classes = {
            label: {name: value for name, value in own.items() if name not in given}
            for label, own in self.classes.items()
        }
        for label, own in _class_tables(values).items():
            classes[label] = classes.get(label, {}) | dict(own)
        everywhere = {name: getattr(self, name) for name in _VALUES} | given
        if "threshold_low" not in given:
            _lower(everywhere, everywhere["threshold"])
        for label, own in classes.items():
            threshold = own.get("threshold", everywhere["threshold"])
            if "threshold_low" not in _class_tables(values).get(label, {}):
                _lower(own, threshold)
        return PostProcessing(**everywhere, classes={label: own for label, own in classes.items() if own})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as TOML and JSON hold them; `override` takes them back."""
        values = {name: getattr(self, name) for name in _VALUES if getattr(self, name) is not None}
        classes = {label: dict(own) for label, own in self.classes.items()}
        return values | ({"classes": classes} if classes else {})


_VALUES = tuple(f.name for f in fields(PostProcessing) if f.name != "classes")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _unknown(values: Mapping[str, Any]) -> str:
    unknown = ", ".join(sorted(set(values) - set(_VALUES)))
    return f"unknown post-processing value {unknown}: wanted some of {', '.join(_VALUES)}"


def _lower(values: dict[str, Any], threshold: Any) -> None:
    """Keep an inherited low threshold at or below a threshold given after it."""
    low = values.get("threshold_low")
    if low is not None and _is_number(threshold) and low > threshold:
        values["threshold_low"] = threshold


def _class_tables(values: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    tables = values.get("classes", {})
    if not isinstance(tables, Mapping) or not all(isinstance(own, Mapping) for own in tables.values()):
        raise UsageError("wanted classes to be a table of tables, such as [classes.Speech]")
    return tables


def read_post_processing(path: str | Path) -> dict[str, Any]:
    """Read post-processing values from TOML, for `PostProcessing.override`.

    Args:
        path: a file with some of the attributes of `PostProcessing` at the top and exceptions in
            tables such as ``[classes.Speech]``.

    Raises:
        AnnotationError: the file is missing, not TOML, or holds an unknown or impossible value.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        PostProcessing().override(values)
    except OSError as error:
        raise AnnotationError(path, f"cannot be read: {error.strerror}") from error
    except ValueError as error:  # also what tomllib and the decoding raise
        raise AnnotationError(path, f"not a post-processing file: {error}") from error
    return values


def median_filter_tokens(seconds: float, token_seconds: float) -> int:
    """Width of a median filter in tokens: the odd number nearest to `seconds`, halves upwards."""
    return max(1, 2 * int(np.floor(seconds / token_seconds / 2.0 + SLACK)) + 1) if seconds > 0.0 else 1


def smooth(scores: NDArray[np.float32], *, widths: Sequence[int]) -> NDArray[np.float32]:
    """Median-filter each class over time.

    Args:
        scores: (T, K).
        widths: K odd widths in tokens.

    Returns:
        (T, K); beyond both ends the map counts as mirrored.
    """
    smoothed = scores.copy()
    of_class = np.asarray(widths)
    for width in set(widths) - {1}:
        columns = of_class == width
        smoothed[:, columns] = median_filter(scores[:, columns], size=(width, 1), mode="reflect")
    return smoothed


class ClassRules(NamedTuple):
    """Post-processing of K classes.

    Attributes:
        widths: (K,) widths of the median filter, tokens.
        spans: all other values.
    """

    widths: tuple[int, ...]
    spans: SpanRules


@lru_cache(maxsize=16)
def class_rules(
    labels: tuple[str, ...], *, token_seconds: float, post_processing: PostProcessing
) -> ClassRules:
    """What holds for each class; kept, since to lay out 527 of them takes longer than to use them."""
    others = replace(post_processing, classes={})
    rules = [post_processing.of(k) if k in post_processing.classes else others for k in labels]
    widths = tuple(median_filter_tokens(rule.median_filter, token_seconds) for rule in rules)
    return ClassRules(widths, span_rules(rules, token_seconds))


def span_rules(rules: Sequence[PostProcessing], token_seconds: float) -> SpanRules:
    """The values of each of K classes, without the median filter, as arrays."""
    lows = [r.threshold if r.threshold_low is None else r.threshold_low for r in rules]
    sides = [step_filter_tokens(r.step_filter, token_seconds) if r.step_filter else 0 for r in rules]
    return SpanRules(
        np.array([r.threshold for r in rules]),
        np.array(lows),
        np.array([r.min_gap for r in rules]),
        np.array([r.min_event for r in rules]),
        np.array(sides, np.int64),
        np.array([r.merge_absolute for r in rules]),
        np.array([r.merge_relative for r in rules]),
        np.array([r.edge_level for r in rules]),
    )


def find_events(presence_map: PresenceMap, post_processing: PostProcessing) -> list[Event]:
    """Turn a presence map into events.

    Args:
        presence_map: scores of one recording.
        post_processing: see there; exceptions for labels that the map lacks are without effect.

    Returns:
        Events ordered by onset, offset and label, none beyond the recording's end; events of one
        label never touch or overlap.
    """
    tokens, classes = presence_map.scores.shape
    if tokens == 0 or classes == 0:
        return []
    step = presence_map.token_seconds
    rules = class_rules(tuple(presence_map.labels), token_seconds=step, post_processing=post_processing)
    smoothed = smooth(presence_map.scores, widths=rules.widths)
    found = find_spans(smoothed, rules.spans, token_seconds=step, duration=presence_map.duration)
    return sorted(named(found, presence_map.labels))


def named(found: Spans, labels: Sequence[str]) -> list[Event]:
    """The same as events, in the order of the columns."""
    return [
        Event(onset, offset, labels[column], peak)
        for column, onset, offset, peak in zip(*[values.tolist() for values in found], strict=True)
    ]
