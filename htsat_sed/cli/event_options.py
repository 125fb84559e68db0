"""Options of post-processing, and the values that hold without them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from htsat_sed.cli.class_values import Known, parse_flags
from htsat_sed.cli.groups import EVENTS, option
from htsat_sed.errors import UsageError

if TYPE_CHECKING:
    from htsat_sed.detection.events import PostProcessing
    from htsat_sed.labels import ClassMap


@dataclass(frozen=True)
class EventOptions:
    """How presence maps become events: values for all classes or for one, and a file of values."""

    panel: ClassVar[str] = EVENTS
    threshold: list[str] | None = option(
        None,
        "An event is a run of scores above this, 0 to 1. LABEL=SCORE sets it for one class. Repeatable.  "
        "\\[default: the checkpoint's, else 0.5]",
        metavar="[LABEL=]SCORE",
    )
    threshold_low: list[str] | None = option(
        None,
        "Hysteresis: an event extends on both sides while scores stay above this.  \\[default: the "
        "checkpoint's, else the threshold]",
        metavar="[LABEL=]SCORE",
    )
    median_filter: list[str] | None = option(
        None,
        "Length of the median filter applied to scores before the threshold.  \\[default: the "
        "checkpoint's, else none]",
        metavar="[LABEL=]SECONDS",
    )
    min_gap: list[str] | None = option(
        None,
        "Close gaps shorter than this between events of a class.  \\[default: the checkpoint's, else none]",
        metavar="[LABEL=]SECONDS",
    )
    edge_level: list[str] | None = option(
        None,
        "Place onsets and offsets between tokens, where scores cross this fraction of the event's mean "
        "score, 0 to 0.9.  \\[default: the checkpoint's, else 0: at token edges]",
        metavar="[LABEL=]SHARE",
    )
    min_event: list[str] | None = option(
        None,
        "Drop events shorter than this.  \\[default: the checkpoint's, else none]",
        metavar="[LABEL=]SECONDS",
    )
    raw_scores: bool = option(
        False,
        "Report the model's raw scores, without the checkpoint's calibration. Thresholds always apply to "
        "raw scores.",
        "--raw-scores",
    )
    post_processing: Path | None = option(
        None,
        "File with these values for all classes or single ones, as written by `htsat-sed tune`. It "
        "overrides the checkpoint's values; the options above override the file.",
        metavar="TOML",
    )

    @property
    def flags(self) -> dict[str, list[str] | None]:
        """The values as they were typed, by the name of the post-processing value."""
        others = ("raw_scores", "post_processing")
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name not in others}

    @property
    def values(self) -> dict[str, Any]:
        """What the flags say, for `PostProcessing.override`.

        Raises:
            typer.BadParameter: a flag is no number.
        """
        from htsat_sed.post_processing import RAW_SCORES

        return parse_flags(self.flags) | (RAW_SCORES if self.raw_scores else {})

    @property
    def given(self) -> bool:
        """Whether any value or file was given."""
        return self.post_processing is not None or self.raw_scores or any(self.flags.values())

    def over(self, rules: PostProcessing, known: Known) -> PostProcessing:
        """These values over others: first the file, then the flags.

        Raises:
            ValueError: a value is out of range, or a class is not among the known ones.
            HtsatSedError: the file cannot be read.
        """
        from htsat_sed.detection.events import read_post_processing

        if self.post_processing is not None:
            values = read_post_processing(self.post_processing)
            known.check_values(values.get("classes", {}), str(self.post_processing))
            rules = rules.override(values)
        values = self.values
        known.check_values(values["classes"])
        try:
            return rules.override(values)
        except UsageError as error:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name, own in self.flags.items() if own)
            raise UsageError(f"{flags}: {error}") from error


def own_rules(
    values: Mapping[str, Any] | None, class_map: ClassMap | None, checkpoint: Path | None = None
) -> PostProcessing:
    """What holds where nobody says anything else: see `default_post_processing`.

    Args:
        values: values of the checkpoint.
        class_map: class map, if any.
        checkpoint: its file, for errors.

    Raises:
        ValueError: the checkpoint has an impossible value.
    """
    from htsat_sed.detection.detector import default_post_processing

    try:
        return default_post_processing(values, class_map)
    except UsageError as error:
        mend = "replace it with `htsat-sed checkpoints convert --post-processing`"
        whose = "the checkpoint's" if checkpoint is None else f"{checkpoint}: its"
        raise UsageError(f"{whose} post-processing is invalid: {error}; {mend}") from error


def flat(post_processing: Mapping[str, Any]) -> dict[str, Any]:
    """Post-processing values with those of classes under names of their own."""
    values = {name: value for name, value in post_processing.items() if name != "classes"}
    for label, own in post_processing.get("classes", {}).items():
        values |= {f"{name} of {label}": value for name, value in own.items()}
    return values
