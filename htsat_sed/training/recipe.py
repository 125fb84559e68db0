"""Training recipes: all settings of a run, read from a TOML file."""

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
    """A part of the data: a table and the folder of its recordings; `data` reads them.

    Attributes:
        kind: kind of table. ``weak``: filename and event_labels, as in DESED. ``strong``: filename, onset,
            offset, event_label. ``clips``: filename, label, fold, onset and offset of the active part.
            ``esc50``: filename, fold, category. ``speech-commands``: a list of paths; without a table, all
            recordings that ``validation_list.txt`` and ``testing_list.txt`` do not name. ``audioset``:
            AudioSet's segment CSVs. ``negatives``: recordings without events of the classes, see
            `read_negatives`. ``labels``: a file or folder of labels in any format that `evaluate` reads.
            ``folders``: no table; `audio` holds a folder of clips for each class, see `clip_sources`.
            ``distractors``: synthetic sounds without a class, with neither a table nor recordings; see
            `distractors`.
        table: path relative to the data folder; by default ``clips.tsv`` for clips and negatives, and
            ``meta/esc50.csv`` for esc50.
        audio: folder of the recordings, relative to the data folder.
        folds: folds to use, from 1; empty for all. For ``strong`` and ``labels``, recording i (from 0, sorted
            by name) is in fold i modulo `Recipe.fold_count` + 1. For ``folders``, the same holds for source i
            of a class.
        share: share of a batch relative to the other parts, above 0.
        balanced: draw a random clip of each class once a pass, in a new order every pass; otherwise, use each
            clip once an epoch.
        mix: cut events from these clips and mix them into soundscapes, see `SoundscapeRecipe`. All parts with
            `mix` form one part, whose share is the sum of theirs. Negatives without present labels, and
            distractors, become backgrounds.
    """

    kind: Kind
    table: str = ""
    audio: str = "audio"
    folds: tuple[int, ...] = ()
    share: float = 1.0
    balanced: bool = False
    mix: bool = False

    def __post_init__(self) -> None:
        """Validate the values.

        Raises:
            ValueError: a value is out of range, or a needed table is missing.
        """
        _one_of("kind", self.kind, get_args(Kind))
        if not self.share > 0.0:
            raise UsageError(f"wanted a share of more than 0, got {self.share}")
        if not self.table and self.kind in ("weak", "strong", "audioset", "labels"):
            raise UsageError(f"wanted a table for data of kind {self.kind}")


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """Shape of the model, see `HTSATConfig`; when fine-tuning, the starting checkpoint sets the backbone."""

    sample_rate: int = 32_000
    hop_length: int = 320
    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    drop_path: float = 0.1


@dataclass(frozen=True, kw_only=True)
class AugmentationRecipe:
    """Augmentation of clips and spectrograms; `SoundscapeRecipe` sets that of soundscapes.

    Attributes:
        time_masks: number of SpecAugment stripes of frames per example, set after `bn0`.
        time_mask: exclusive maximum width of such a stripe, frames.
        band_masks: number of SpecAugment stripes of mel bands per example.
        band_mask: exclusive maximum width of such a stripe, bands.
        mixup: parameter alpha of the beta distribution of mixup weights; 0 disables mixup.
        mixup_labels: mix each example with a random other one, and their labels too. If false, mix only the
            spectrograms, each with its counterpart in the reversed batch, as in the HTS-AT paper.
        time_shift: largest circular shift of a clip in either direction, seconds; rounded to whole tokens.
    """

    time_masks: int = 2
    time_mask: int = 64
    band_masks: int = 2
    band_mask: int = 8
    mixup: float = 0.0
    mixup_labels: bool = True
    time_shift: float = 0.0

    def __post_init__(self) -> None:
        """Validate the values.

        Raises:
            ValueError: a value is negative.
        """
        for name, value in vars(self).items():
            if value < 0:
                raise UsageError(f"wanted {name} of at least 0, got {value}")


@dataclass(frozen=True, kw_only=True)
class SoundscapeRecipe:
    """How soundscapes are mixed. Ranges are [low, high], levels are dB RMS of full scale.

    Attributes:
        seconds: duration, seconds.
        events: probabilities of 1, 2, ... events; they sum to 1.
        floor_db: range of the noise level.
        event_db: range of an event's level, which is raised to at least 6 dB above noise and backgrounds.
        speed: largest change of speed in either direction, as a natural logarithm.
        equaliser_db: standard deviation of the gain at 7 frequencies, dB.
        reverberant: probability that an event is reverberated.
        reverberation: range of the reverberation time RT60, seconds.
        direct_db: range of the direct-to-reverberant ratio, dB.
        gain_db: range of the gain of the whole soundscape, dB.
        background: probability of a background, if the data have any.
        background_db: range of the level of a background.
        silent: probability of a soundscape without events, if the data have backgrounds. It has one to three
            backgrounds, with levels from the lowest of `background_db` to the highest of `event_db`.
        validation: number of soundscapes in the validation set.
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
        """Validate the values.

        Raises:
            ValueError: a value is out of range, or the probabilities of `events` do not sum to 1.
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
                raise UsageError(f"wanted {name} to be a probability in [0, 1], got {getattr(self, name)}")
        for name in ("floor_db", "event_db", "reverberation", "direct_db", "gain_db", "background_db"):
            low, *high = getattr(self, name)
            if len(high) != 1 or high[0] < low:
                raise UsageError(f"wanted {name} to be a range [low, high], got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run.

    Attributes:
        data: parts of the training data, at least one.
        validation: parts of the validation data, which is scored after each epoch, without augmentation.
        fold_count: number of folds.
        labels: classes in order. Default: AudioSet's 527 classes if a part is of kind ``audioset``, otherwise
            all labels in the training data, sorted.
        start: starting weights: empty for random ones, a checkpoint or encoder, or ``timm:NAME``; see
            `start_model`.
        epochs: number of epochs.
        epoch_examples: examples per epoch; 0 for the number of training clips.
        batch_size: examples per step, over all processes and accumulated batches.
        learning_rate: highest learning rate.
        schedule: ``one-cycle`` rises linearly over `warm_up`, then falls as a cosine to 0. ``paper`` is the
            schedule of the HTS-AT paper, relative to `learning_rate`: 0.02, 0.05 and 0.1 for one epoch each,
            then 0.1 to epoch 10, 0.05 to epoch 20, 0.02 to epoch 30 and 0.03 from there.
        warm_up: part of the steps with a rising learning rate, in [0, 1).
        optimiser: ``adamw``; or ``muon`` for matrices with AdamW for the rest, see `muon`.
        weight_decay: weight decay of the weights that `decays` selects.
        decays: ``layers`` for the weights of layers, without biases, norms and position biases; or ``all``.
        gradient_clip: largest norm of the gradient.
        loss: clip loss: ``bce``, or ``cross-entropy`` for clips with exactly one label.
        clip_loss: weight of the clip loss.
        token_loss: weight of the token BCE, which applies to strong labels only.
        presence_bias: initial bias of a new head, about the logit of the probability that a class is present
            in a token; 0 keeps the random bias.
        average: weights to validate and save: ``ema``, an exponential moving average; ``epochs``, the mean of
            the weights at the end of the last `average_epochs` epochs; ``none``, the weights as they are.
        ema_decay: decay of the moving average per step, in [0, 1).
        average_epochs: number of epochs that ``epochs`` averages.
        patience: stop after this many epochs without a better validation; 0 disables early stopping.
        keep: ``last`` epoch, or ``best`` epoch by validation. The criterion is accuracy with cross-entropy,
            otherwise mean average precision: over tokens if labels are strong, else over clips.
        tune: tune post-processing on the validation data if it has strong labels, and save it in the model.
        frozen: parts of the names of weights to freeze, such as ``relative_position_bias_table``.
        seed: random seed, in [0, 2**32).
        model: shape of the model.
        augmentation: augmentation of clips and spectrograms.
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
        """Validate the values.

        Raises:
            ValueError: a value is out of range or inconsistent with another one.
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
    """Find the file of a recipe.

    Args:
        recipe: a path, or the name of a recipe in the package, such as ``audioset``.

    Raises:
        AnnotationError: `recipe` is a folder, or neither a file nor a known name.
    """
    if Path(recipe).is_dir():
        mend = (
            "`htsat-sed teach` takes a folder of clips for each class; a recipe names one by kind = 'folders'"
        )
        raise AnnotationError(recipe, f"is a folder, not a recipe: {mend}")
    if Path(recipe).exists():
        return Path(recipe)
    package = Path(__file__).parents[1]
    # In a clone of the repository, the recipes are beside the package.
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
        recipe: a path or a name, see `find_recipe`.

    Raises:
        AnnotationError: the file is missing, is not TOML, or has an unknown setting or an invalid value.
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
    """Check that a TOML value has the type of its field; lists become tuples."""
    parts = get_args(kind)
    if is_dataclass(kind) or any(map(is_dataclass, parts)):  # already built
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
