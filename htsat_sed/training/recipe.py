"""A training recipe: all settings of a run, as a TOML file."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from htsat_sed.errors import AnnotationError, UsageError
from htsat_sed.labels import did_you_mean
from htsat_sed.toml import read_toml

Kind = Literal[
    "weak",
    "strong",
    "clips",
    "esc50",
    "speech-commands",
    "audioset",
    "negatives",
    "labels",
    "folders",
    "distractors",
]
TABLES: dict[str, str] = {"clips": "clips.tsv", "esc50": "meta/esc50.csv", "negatives": "clips.tsv"}


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """A part of the data: a table and the folder of its recordings; how to read them, see `data`.

    Attributes:
        kind: of table. ``weak``: filename and event_labels, as DESED has them. ``strong``: filename, onset,
            offset, event_label. ``clips``: filename, label, fold, onset and offset of the active part.
            ``esc50``: filename, fold, category. ``speech-commands``: a list of paths, or without a table all
            recordings that ``validation_list.txt`` and ``testing_list.txt`` do not name. ``audioset``: its
            segment CSVs. ``negatives``: recordings without events of the classes, see `read_negatives`.
            ``labels``: a file or folder of labels in any format that `evaluate` reads. ``folders``: a folder
            of clips for each class in `audio`, without a table; see `collection`. ``distractors``: synthetic
            sounds of no class, which need neither a table nor recordings; see `distractors`.
        table: below the data folder; default ``clips.tsv`` for clips and negatives, ``meta/esc50.csv`` for
            esc50.
        audio: folder of the recordings, below the data folder.
        folds: only these; none given: all. Strong tables and labels have no folds: there, recording i, in the
            order of names, belongs to fold i modulo `Recipe.fold_count` + 1; of folders, source i of a class.
        share: of a batch, relative to that of the other parts.
        balanced: draw from each class in turn, in a new order each pass, one of its clips; else each clip
            comes once an epoch.
        mix: cut events from these clips and mix them into soundscapes, see `SoundscapeRecipe`. All such parts
            together are one part, whose share is the sum of theirs. Of negatives, recordings with present
            labels are cut as well; the others are backgrounds, and so are distractors.
    """

    kind: Kind
    table: str = ""
    audio: str = "audio"
    folds: tuple[int, ...] = ()
    share: float = 1.0
    balanced: bool = False
    mix: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be read.

        Raises:
            ValueError: naming the value, what was wanted and what was given.
        """
        _one_of("kind", self.kind, get_args(Kind))
        if not self.share > 0.0:
            raise UsageError(f"wanted a share of more than 0, got {self.share}")
        if not self.table and self.kind in ("weak", "strong", "audioset", "labels"):
            raise UsageError(f"wanted a table for data of kind {self.kind}")


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """Shape of the model; see `HTSATConfig`. When fine-tuning, taken from the starting checkpoint."""

    sample_rate: int = 32_000
    hop_length: int = 320
    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    drop_path: float = 0.1


@dataclass(frozen=True, kw_only=True)
class AugmentationRecipe:
    """Augmentation of clips and spectrograms; soundscapes are varied further, see `SoundscapeRecipe`.

    Attributes:
        time_masks: SpecAugment after `bn0`: stripes narrower than `time_mask`.
        time_mask: frames.
        band_masks: stripes narrower than `band_mask`.
        band_mask: bands.
        mixup: alpha of the beta distribution that two spectrograms are mixed by; 0 for none.
        mixup_labels: mix the labels as well, each example with a random other one. Without, spectrograms
            alone are mixed, each with its counterpart in the reversed batch, as published.
        time_shift: clips are shifted round by up to so many seconds either way, in whole tokens.
    """

    time_masks: int = 2
    time_mask: int = 64
    band_masks: int = 2
    band_mask: int = 8
    mixup: float = 0.0
    mixup_labels: bool = True
    time_shift: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be done.

        Raises:
            ValueError: naming the value, what was wanted and what was given.
        """
        for name, value in vars(self).items():
            if value < 0:
                raise UsageError(f"wanted {name} of at least 0, got {value}")


@dataclass(frozen=True, kw_only=True)
class SoundscapeRecipe:
    """How soundscapes are mixed.

    Attributes:
        seconds: duration.
        events: probability of 1, 2, ... events.
        floor_db: range of the noise level, dB RMS below full scale.
        event_db: range of an event's level, dB RMS; at least 6 dB above the noise.
        speed: largest change of speed, as a natural logarithm.
        equaliser_db: standard deviation of the gain at 7 frequencies.
        reverberant: chance that an event sounds in a room.
        reverberation: range of the seconds in which the room's response falls by 60 dB.
        direct_db: range of the level of the direct sound over that of the room.
        gain_db: range of the gain of the whole.
        background: chance that a recording without events plays below, where a part of the data has such.
        background_db: range of its level, dB RMS; events are at least 6 dB above it.
        silent: chance of a soundscape without events, where there are backgrounds: one to three of them then
            have levels between the lowest of `background_db` and the highest of `event_db`.
        validation: how many make a validation set.
    """

    seconds: float = 10.0
    events: tuple[float, ...] = (0.12, 0.22, 0.26, 0.2, 0.12, 0.08)
    floor_db: tuple[float, float] = (-65.0, -38.0)
    event_db: tuple[float, float] = (-36.0, -14.0)
    speed: float = 0.2
    equaliser_db: float = 5.0
    reverberant: float = 0.3
    reverberation: tuple[float, float] = (0.1, 0.8)
    direct_db: tuple[float, float] = (-3.0, 15.0)
    gain_db: tuple[float, float] = (-8.0, 4.0)
    background: float = 0.5
    background_db: tuple[float, float] = (-55.0, -26.0)
    silent: float = 0.0
    validation: int = 200

    def __post_init__(self) -> None:
        """Refuse what cannot be mixed.

        Raises:
            ValueError: probabilities that do not sum to 1, or no duration.
        """
        if abs(sum(self.events) - 1.0) > 1e-6 or min(self.events, default=-1.0) < 0.0:
            raise UsageError(f"wanted events to be probabilities that sum to 1, got {self.events}")
        if not self.seconds > 0.0:
            raise UsageError(f"wanted seconds of more than 0, got {self.seconds}")
        if self.validation < 1:
            raise UsageError(f"wanted validation of at least 1 soundscape, got {self.validation}")
        for name in ("speed", "equaliser_db"):
            if getattr(self, name) < 0.0:
                raise UsageError(f"wanted {name} of at least 0, got {getattr(self, name)}")
        for name in ("background", "silent"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"wanted {name} to be a chance in [0, 1], got {getattr(self, name)}")
        for name in ("floor_db", "event_db", "reverberation", "direct_db", "gain_db", "background_db"):
            low, *high = getattr(self, name)
            if len(high) != 1 or high[0] < low:
                raise UsageError(f"wanted {name} to be a range [low, high], got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run.

    Attributes:
        data: what is trained on.
        validation: scored after each epoch, in the same form; without augmentation.
        fold_count: folds there are.
        labels: classes in order; default AudioSet's 527 where a part is of kind audioset, else those that
            occur, sorted.
        start: empty for scratch; a checkpoint or encoder, see `start`; or ``timm:NAME``.
        epochs: of `epoch_examples` examples each.
        epoch_examples: 0 for the number of clips trained on.
        batch_size: examples a step, over all processes and accumulated parts.
        learning_rate: highest.
        schedule: ``one-cycle`` rises over `warm_up` of the steps, then falls as a cosine to 0. ``paper``
            holds 0.02, 0.05 and 0.1 of `learning_rate` for an epoch each, 0.1 to epoch 10, 0.05 to 20, 0.02
            to 30, then 0.03, as published.
        warm_up: part of the steps.
        optimiser: ``adamw``, or ``muon`` for the matrices and AdamW for the rest, with one learning rate: see
            `muon`.
        weight_decay: of the weights that `decays` names.
        decays: ``layers``: weights of layers, not biases, norms and position biases; or ``all``.
        gradient_clip: largest norm of the gradient.
        loss: of clips: ``bce``, or ``cross-entropy`` for exactly one label a clip.
        clip_loss: weight of the clip loss.
        token_loss: weight of the token BCE, where labels are strong.
        presence_bias: bias of the head where it is new, with a start too; about the logit of a token's chance
            to be active. 0 leaves it random.
        average: weights that are validated and saved: ``ema``, a moving average; ``epochs``, the mean of
            those at the end of the last `average_epochs`; ``none``, the weights as they are.
        ema_decay: of the moving average.
        average_epochs: see `average`.
        patience: stop after so many epochs without a better validation; 0 for never.
        keep: ``last``, or the ``best`` epoch by validation: by accuracy with cross-entropy, else by mean
            average precision, of tokens where labels are strong, else of clips.
        tune: where validation has strong labels, choose post-processing on it and save that with the model.
        frozen: parts of the names of weights that are not trained, such as ``relative_position_bias_table``.
        seed: of everything random.
        model: shape of the model.
        augmentation: of clips and spectrograms.
        soundscapes: how soundscapes are mixed.
    """

    data: tuple[DataRecipe, ...]
    validation: tuple[DataRecipe, ...] = ()
    fold_count: int = 4
    labels: tuple[str, ...] = ()
    start: str = ""
    epochs: int = 20
    epoch_examples: int = 0
    batch_size: int = 32
    learning_rate: float = 1e-3
    schedule: Literal["one-cycle", "paper"] = "one-cycle"
    warm_up: float = 0.08
    optimiser: Literal["adamw", "muon"] = "adamw"
    weight_decay: float = 0.05
    decays: Literal["layers", "all"] = "layers"
    gradient_clip: float = 1.0
    loss: Literal["bce", "cross-entropy"] = "bce"
    clip_loss: float = 1.0
    token_loss: float = 1.0
    presence_bias: float = 0.0
    average: Literal["ema", "epochs", "none"] = "ema"
    ema_decay: float = 0.999
    average_epochs: int = 5
    patience: int = 0
    keep: Literal["last", "best"] = "last"
    tune: bool = True
    frozen: tuple[str, ...] = ()
    seed: int = 0
    model: ModelRecipe = field(default_factory=ModelRecipe)
    augmentation: AugmentationRecipe = field(default_factory=AugmentationRecipe)
    soundscapes: SoundscapeRecipe = field(default_factory=SoundscapeRecipe)

    def __post_init__(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            ValueError: naming the value, what was wanted and what was given.
        """
        if not self.data:
            raise UsageError("wanted at least one [[data]] table: what to train on")
        for name in ("epochs", "batch_size", "fold_count", "average_epochs"):
            if getattr(self, name) < 1:
                raise UsageError(f"wanted {name} of at least 1, got {getattr(self, name)}")
        if not 0 <= self.seed < 1 << 32:
            raise UsageError(f"wanted a seed from 0 to {(1 << 32) - 1}, got {self.seed}")
        for name in ("epoch_examples", "patience", "clip_loss", "token_loss", "weight_decay"):
            if getattr(self, name) < 0:
                raise UsageError(f"wanted {name} of at least 0, got {getattr(self, name)}")
        for part in (*self.data, *self.validation):
            if not set(part.folds) <= set(range(1, self.fold_count + 1)):
                raise UsageError(f"wanted folds among 1 to {self.fold_count}, got {part.folds}")
        for name in ("warm_up", "ema_decay"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UsageError(f"wanted {name} in [0, 1), got {getattr(self, name)}")
        for name in ("learning_rate", "gradient_clip"):
            if not getattr(self, name) > 0.0:
                raise UsageError(f"wanted {name} of more than 0, got {getattr(self, name)}")
        for name, kind in get_type_hints(type(self)).items():
            if choices := get_args(kind) if isinstance(getattr(self, name), str) else ():
                _one_of(name, getattr(self, name), choices)
        for part in self.validation:
            if part.kind in ("negatives", "distractors"):
                raise UsageError(
                    f"wanted [[validation]] data of another kind than {part.kind}: see evaluate --negatives"
                )
        if not self.validation and (self.patience or self.keep == "best"):
            raise UsageError("wanted [[validation]] data for patience and keep = 'best'")


def find_recipe(recipe: str | Path) -> Path:
    """The file of a recipe: a path, or the name of one that comes with the package, such as ``audioset``.

    Raises:
        AnnotationError: there is neither.
    """
    if Path(recipe).is_dir():
        mend = (
            "`htsat-sed teach` takes a folder of clips for each class; a recipe names one by kind = 'folders'"
        )
        raise AnnotationError(recipe, f"is a folder, not a recipe: {mend}")
    if Path(recipe).exists():
        return Path(recipe)
    package = Path(__file__).parents[1]
    # From a clone, recipes lie beside the package.
    bundled = {
        path.stem: path for at in (package, package.parent) for path in (at / "recipes").glob("*.toml")
    }
    if (name := str(recipe)) in bundled:
        return bundled[name]
    known = did_you_mean(name, bundled) or f"; recipes of that kind are {', '.join(sorted(bundled))}"
    raise AnnotationError(recipe, f"is neither a file nor the name of a recipe{known}")


def read_recipe(recipe: str | Path) -> Recipe:
    """Read a recipe.

    Args:
        recipe: a file, or a name; see `find_recipe`.

    Raises:
        AnnotationError: the file is missing, not TOML, or holds an unknown or impossible value.
    """
    path = find_recipe(recipe)
    values = read_toml(path, "a recipe")
    try:
        for name in ("data", "validation"):
            parts = values.get(name, [])
            if not isinstance(parts, list):
                raise UsageError(f"wanted [[{name}]], with two brackets: there may be several")
            values[name] = tuple(_build(DataRecipe, part, f"{name}.") for part in parts)
        for name, kind in _PARTS.items():
            values[name] = _build(kind, values.get(name, {}), f"{name}.")
        made: Recipe = _build(Recipe, values, "")
        return made
    except (TypeError, ValueError, OverflowError) as error:
        raise AnnotationError(path, f"not a recipe: {error}") from error


_PARTS = {"model": ModelRecipe, "augmentation": AugmentationRecipe, "soundscapes": SoundscapeRecipe}


def _build(kind: Any, values: Mapping[str, Any], prefix: str) -> Any:
    if not isinstance(values, Mapping):
        raise UsageError(f"wanted a table {prefix.rstrip('.')}, got {reprlib.repr(values)}")
    known = [f.name for f in fields(kind)]
    for name in values:
        if name not in known:
            hint = (
                did_you_mean(prefix + name, [prefix + k for k in known]) or f"; known are {', '.join(known)}"
            )
            raise UsageError(f"unknown value {prefix}{name}{hint}")
    hints = get_type_hints(kind)
    return kind(**{name: _typed(prefix + name, value, hints[name]) for name, value in values.items()})


_WORDS = {bool: "true or false", int: "an integer", float: "a finite number", str: "text"}


def _typed(name: str, value: Any, kind: Any) -> Any:
    """A value of a TOML file as the field's type has it; lists become tuples."""
    parts = get_args(kind)
    if is_dataclass(kind) or any(map(is_dataclass, parts)):  # made before
        return value
    if get_origin(kind) is Literal:
        kind = str
    elif parts:
        each = parts[:1] if parts[-1] is Ellipsis else parts
        wanted = "a list" if parts[-1] is Ellipsis else f"a list of {len(parts)} values"
        if not isinstance(value, list) or (parts[-1] is not Ellipsis and len(value) != len(parts)):
            raise UsageError(f"wanted {name} to be {wanted}, got {reprlib.repr(value)}")
        return tuple(_typed(f"{name}[{i + 1}]", item, each[i % len(each)]) for i, item in enumerate(value))
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool) or (kind is float and not isfinite(value)):
        raise UsageError(f"wanted {name} to be {_WORDS[kind]}, got {reprlib.repr(value)}")
    return value


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"wanted {name} to be one of {', '.join(choices)}; got {value!r}")
