"""How a presence map becomes events: the values that checkpoints, tuning, files and flags share.

`PostProcessing` is the one place that lists them, with the range of each; what they do is in
`htsat_sed.detection.events`.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from htsat_sed.errors import AnnotationError, UsageError
from htsat_sed.toml import read_toml

LONGEST_FILTER = 600.0  # seconds; time and memory grow with a filter's length


def _share(default: float | None, *, highest: float = 1.0) -> Any:
    """A value from 0 to `highest`; None is possible where it is the default."""
    return field(default=default, metadata={"highest": highest, "wanted": f"in [0, {highest:g}]"})


def _seconds(*, highest: float | None = None) -> Any:
    """A duration, 0 by default, up to `highest` seconds."""
    wanted = "0 or more" if highest is None else f"0 to {highest:g}"
    limit = sys.float_info.max if highest is None else highest
    return field(default=0.0, metadata={"highest": limit, "wanted": f"in seconds, {wanted}"})


def _slope() -> Any:
    return field(default=1.0, metadata={"lowest": 0.01, "highest": 100.0, "wanted": "in [0.01, 100]"})


def _offset() -> Any:
    return field(default=0.0, metadata={"lowest": -100.0, "highest": 100.0, "wanted": "in [-100, 100]"})


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
            effect.
        merge_absolute: in [0, 1]; boxes become one if the mean score of the gap between them is less than
            this below the lower of theirs.
        merge_relative: in [0, 1]; likewise, as a part of that lower score. Either is enough.
        edge_level: in [0, 0.9]; above 0, an event begins and ends where scores, interpolated between the
            middles of tokens, cross this part of its mean score, at most 4 tokens away; 0 for whole tokens.
            Gaps may so become shorter than `min_gap`.
        score_slope: with `score_offset`, calibrates the score of an event: its logit times the slope plus the
            offset is the logit of the chance that the event is right. Which events are found stays the same.
        score_offset: see `score_slope`.
        clip_slope: the same for clip-level scores.
        clip_offset: see `clip_slope`.
        classes: label -> the attributes above that differ for it.
    """

    threshold: float = _share(0.5)
    threshold_low: float | None = _share(None)
    median_filter: float = _seconds(highest=LONGEST_FILTER)
    min_event: float = _seconds()
    min_gap: float = _seconds()
    step_filter: float = _seconds(highest=LONGEST_FILTER)
    merge_absolute: float = _share(0.0)
    merge_relative: float = _share(0.0)
    edge_level: float = _share(0.0, highest=0.9)
    score_slope: float = _slope()
    score_offset: float = _offset()
    clip_slope: float = _slope()
    clip_offset: float = _offset()
    classes: Mapping[str, Mapping[str, float]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check every value, for all classes and for each exception.

        Raises:
            ValueError: naming the value, what was wanted and what was given.
        """
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "classes" or (value is None and each.default is None):
                continue
            lowest = each.metadata.get("lowest", 0.0)
            if not (_is_number(value) and lowest <= value <= each.metadata["highest"]):
                raise UsageError(f"wanted {each.name} {each.metadata['wanted']}, got {_shown(value)}")
        if self.threshold_low is not None and self.threshold_low > self.threshold:
            raise UsageError(
                f"wanted threshold_low of at most threshold ({self.threshold}), got {self.threshold_low}"
            )
        frozen = MappingProxyType({label: MappingProxyType(dict(v)) for label, v in self.classes.items()})
        object.__setattr__(self, "classes", frozen)
        for label, own in self.classes.items():
            try:
                if set(own) - set(VALUES):
                    raise UsageError(_unknown(own))
                self.of(label)
            except UsageError as error:
                raise UsageError(f"class {label!r}: {error}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by plain values: the read-only view of `classes` allows neither."""
        return _restored, (self.to_dict(),)

    def of(self, label: str) -> PostProcessing:
        """The values that hold for one class, without exceptions."""
        given = self.classes.get(label, {})
        own: dict[str, Any] = {"threshold_low": self.threshold_low} | dict(given)
        if "threshold_low" not in given:
            _lower(own, own.get("threshold"))
        return replace(self, classes={}, **own)

    def of_each(self, labels: Sequence[str]) -> list[PostProcessing]:
        """The values that hold for each of several classes."""
        others = replace(self, classes={})
        return [self.of(label) if label in self.classes else others for label in labels]

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
        if set(given) - set(VALUES):
            raise UsageError(_unknown(given))
        tables = _class_tables(values)
        classes = {
            label: {name: value for name, value in own.items() if name not in given}
            for label, own in self.classes.items()
        }
        for label, own in tables.items():
            classes[label] = classes.get(label, {}) | dict(own)
        everywhere = {name: getattr(self, name) for name in VALUES} | given
        if "threshold_low" not in given:
            _lower(everywhere, everywhere["threshold"])
        for label, own in classes.items():
            if "threshold_low" not in tables.get(label, {}):
                _lower(own, own.get("threshold", everywhere["threshold"]))
        return PostProcessing(**everywhere, classes={label: own for label, own in classes.items() if own})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as TOML and JSON hold them; `override` takes them back."""
        values = {name: getattr(self, name) for name in VALUES if getattr(self, name) is not None}
        classes = {label: dict(own) for label, own in self.classes.items()}
        return values | ({"classes": classes} if classes else {})


VALUES = tuple(each.name for each in fields(PostProcessing) if each.name != "classes")
"""Names of the values, in order."""

RAW_SCORES = {"score_slope": 1.0, "score_offset": 0.0, "clip_slope": 1.0, "clip_offset": 0.0}
"""Values for `PostProcessing.override` that leave scores as the model computes them."""


def read_post_processing(path: str | Path) -> dict[str, Any]:
    """Read post-processing values from TOML, for `PostProcessing.override`.

    Args:
        path: a file with some of the attributes of `PostProcessing` at the top and exceptions in
            tables such as ``[classes.Speech]``.

    Raises:
        AnnotationError: the file is missing, not TOML, or holds an unknown or impossible value.
    """
    values = read_toml(path, "a post-processing file")
    try:
        PostProcessing().override(values)
    except UsageError as error:
        raise AnnotationError(path, f"not a post-processing file: {error}") from error
    return values


def _restored(values: Mapping[str, Any]) -> PostProcessing:
    return PostProcessing(**values)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """A value as a message can hold it: nested or endless ones cut short."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer of more digits than Python converts
        return "an integer of thousands of digits"


def _unknown(values: Mapping[str, Any]) -> str:
    unknown = ", ".join(sorted(set(values) - set(VALUES)))
    return f"unknown post-processing value {unknown}: wanted some of {', '.join(VALUES)}"


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
