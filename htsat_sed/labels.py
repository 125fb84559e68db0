"""Label sets, and class maps between them.

A label set is a tuple of class names in the order of a model's outputs. A class map joins some of its
classes into groups under new names, such as AudioSet's 527 into DESED's 10.
"""

from __future__ import annotations

import csv
import difflib
import reprlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from htsat_sed.errors import AnnotationError, UsageError
from htsat_sed.toml import read_toml

_LONGEST_LABEL = 1000  # characters; Parquet files with longer ones could not be read back
_MISSPELT = 5  # classes at most that a class map lacks by mistake

# AudioSet classes by index and threshold, as in the official detection script.
_DESED: dict[str, tuple[tuple[int, ...], float]] = {
    "Alarm_bell_ringing": ((310, *range(388, 403)), 0.18),
    "Blender": ((369,), 0.48),
    "Cat": (tuple(range(81, 86)), 0.51),
    "Dishes": ((364,), 0.20),
    "Dog": (tuple(range(74, 80)), 0.39),
    "Electric_shaver_toothbrush": ((382,), 0.20),
    "Frying": (tuple(range(366, 369)), 0.20),
    "Running_water": (tuple(range(288, 298)), 0.23),
    "Speech": (tuple(range(8)), 0.275),
    "Vacuum_cleaner": ((377,), 0.14),
}


def normal(text: str) -> str:
    """Text as labels and names are compared: composed Unicode (NFC), without blanks at either end."""
    return unicodedata.normalize("NFC", text).strip()


@cache
def audioset_labels() -> tuple[str, ...]:
    """The 527 AudioSet display names, in index order.

    Source: ``class_labels_indices.csv`` of AudioSet (Gemmeke et al., ICASSP 2017; CC BY 4.0).
    """
    return tuple(audioset_codes().values())


@cache
def audioset_codes() -> dict[str, str]:
    """AudioSet's codes, such as ``/m/09x0r``, with their display names; in index order."""
    text = resources.files("htsat_sed").joinpath("audioset_labels.csv").read_text(encoding="utf-8")
    return {row["mid"]: row["display_name"] for row in csv.DictReader(text.splitlines())}


def read_labels(path: str | Path) -> tuple[str, ...]:
    """Read a label set from a file.

    Args:
        path: one label a line; or ``.csv`` / ``.tsv`` whose header has a column ``display_name`` or
            ``label``, such as AudioSet's own table. Empty lines do not count. Row order is class order.

    Raises:
        AnnotationError: the file is missing, not UTF-8 text, without labels, or has one twice.
    """
    lines = _read_lines(path)
    if Path(path).suffix.lower() in (".csv", ".tsv"):
        try:
            found = _label_column(path, _table(path, lines))
        except csv.Error as error:
            raise AnnotationError(path, str(error)) from error
    else:
        found = [normal(line) for line in lines]
    labels = tuple(label for label in found if label)
    if not labels:
        raise AnnotationError(path, "holds no labels")
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise AnnotationError(path, f"has the label {twice!r} twice")
    return labels


def _label_column(path: str | Path, table: csv.DictReader[str]) -> list[str]:
    column = next((name for name in ("display_name", "label") if name in (table.fieldnames or ())), None)
    if column is None:
        raise AnnotationError(path, "wanted a column 'display_name' or 'label' in the first line")
    return [normal(row[column] or "") for row in table if _fits(path, row)]


def check_label_set(labels: Iterable[object]) -> None:
    """Refuse names that no table could hold or nobody could tell apart.

    Raises:
        UsageError: a label is no text, has no visible character, is too long, is not valid Unicode, or is
            there twice, also with other blanks at its ends or in another Unicode composition.
    """
    seen: set[str] = set()
    for label in labels:
        if not isinstance(label, str):
            raise UsageError(f"wanted labels of text, got {reprlib.repr(label)}")
        if len(label) > _LONGEST_LABEL:
            raise UsageError(
                f"wanted labels of at most {_LONGEST_LABEL} characters, got {label[:20]!r}… of {len(label)}"
            )
        if any("\ud800" <= character <= "\udfff" for character in label):
            raise UsageError(f"wanted labels of valid Unicode, got {label!r}")
        if not any(unicodedata.category(character)[0] not in "CZ" for character in label):
            raise UsageError(f"wanted labels with a name, got the blank {label!r}")
        if normal(label) in seen:
            raise UsageError(f"wanted distinct labels, got {label!r} twice")
        seen.add(normal(label))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at the known name most like a mistaken one: ``; did you mean 'Dog'?``, or nothing."""
    near = most_alike(name, known)
    return f"; did you mean {near!r}?" if near is not None else ""


def most_alike(name: str, known: Iterable[str]) -> str | None:
    """The known name that is spelt most like another, if one is at all."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    near = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[near[0]] if near else None


def select(labels: Sequence[str], wanted: Iterable[str]) -> tuple[int, ...]:
    """Find a subset of a label set.

    Args:
        labels: the label set.
        wanted: some of its labels, in any order, spelled as there.

    Returns:
        Their indices, ascending, each once.

    Raises:
        ValueError: a label is not in the set; with the nearest that is.
    """
    chosen = set(wanted)
    for label in sorted(chosen - set(labels)):
        raise UsageError(f"no class {label!r} among {len(labels)} labels{did_you_mean(label, labels)}")
    return tuple(i for i, label in enumerate(labels) if label in chosen)


@dataclass(frozen=True)
class ClassMap:
    """Groups of classes under new names.

    Attributes:
        name: what the map is called.
        groups: new label -> the labels it joins, at least one; a label may be in several groups.
        thresholds: new label -> threshold in [0, 1] (exclusive) that comes with the map; may lack some.
    """

    name: str
    groups: Mapping[str, tuple[str, ...]]
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what maps nothing.

        Raises:
            ValueError: no group, an empty one, or a threshold without group or out of range.
        """
        groups = {label: tuple(sources) for label, sources in self.groups.items()}
        if not groups or not all(groups.values()):
            raise UsageError(f"class map {self.name}: wanted groups of at least one label each")
        for label, threshold in self.thresholds.items():
            if label not in groups:
                raise UsageError(f"class map {self.name}: threshold for {label!r}, which is not a group")
            if not 0.0 <= threshold <= 1.0:
                raise UsageError(f"class map {self.name}: wanted threshold in [0, 1], got {threshold}")
        object.__setattr__(self, "groups", MappingProxyType(groups))
        object.__setattr__(self, "thresholds", MappingProxyType(dict(self.thresholds)))

    def __reduce__(self) -> tuple[type[ClassMap], tuple[object, ...]]:
        """Copy and pickle by the arguments: views of dictionaries have neither."""
        return type(self), (self.name, dict(self.groups), dict(self.thresholds))

    def apply(
        self, scores: NDArray[np.float32], labels: Sequence[str]
    ) -> tuple[NDArray[np.float32], tuple[str, ...]]:
        """Join the columns of a presence map.

        The score of a group is the highest among its classes, so it exceeds a threshold exactly where
        any of them does.

        Args:
            scores: (T, K).
            labels: K labels of the columns.

        Returns:
            (T, G) scores and the G labels of the groups, in the order of the map.

        Raises:
            ValueError: the map names labels that are not among `labels`.
        """
        joined = np.empty((len(scores), len(self.groups)), scores.dtype)
        for column, sources in enumerate(self.columns(labels)):
            joined[:, column] = scores[:, sources].max(axis=1)
        return joined, tuple(self.groups)

    def columns(self, labels: Sequence[str]) -> list[list[int]]:
        """Where the classes of each group are among the labels of a model.

        Raises:
            ValueError: the map names labels that are not among `labels`.
        """
        place = {label: i for i, label in enumerate(labels)}
        lacking = [source for sources in self.groups.values() for source in sources if source not in place]
        if lacking:
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            many = len(lacking) > _MISSPELT
            hint = "; is the map for another model?" if many else did_you_mean(lacking[0], labels)
            raise UsageError(
                f"class map {self.name} joins classes that the model lacks: {lacking[0]!r}{more}{hint}"
            )
        return [[place[source] for source in sources] for sources in self.groups.values()]


@cache
def desed_map() -> ClassMap:
    """AudioSet's 527 classes to DESED's 10, with the thresholds HTS-AT's authors used."""
    labels = audioset_labels()
    return ClassMap(
        "desed",
        {label: tuple(labels[i] for i in indices) for label, (indices, _) in _DESED.items()},
        {label: threshold for label, (_, threshold) in _DESED.items()},
    )


def class_map(name_or_path: str | Path) -> ClassMap:
    """Find a class map: ``desed``, or a file as `read_class_map` takes it.

    Raises:
        AnnotationError: neither a known name nor a readable class map.
    """
    if str(name_or_path) == "desed":
        return desed_map()
    if not Path(name_or_path).exists():
        raise AnnotationError(name_or_path, "no such class map: wanted 'desed', or a TOML or CSV file")
    return read_class_map(name_or_path)


def read_class_map(path: str | Path) -> ClassMap:
    """Read a class map from a file.

    Args:
        path: ``.csv`` or ``.tsv`` with a row for every joined class, columns ``label``, ``source`` and,
            if wanted, ``threshold`` (in one row of the label, or the same in all). Any other file is
            TOML, new label = list of source labels, with an optional table of thresholds:

                Pet = ["Dog", "Cat"]
                [thresholds]
                Pet = 0.4

    Raises:
        AnnotationError: the file is missing, malformed, or maps nothing.
    """
    tabular = Path(path).suffix.lower() in (".csv", ".tsv")
    lines = _read_lines(path) if tabular else []
    values = {} if tabular else read_toml(path, "a class map")
    try:
        groups, thresholds = _tabular_map(_table(path, lines)) if tabular else _toml_map(values)
        return ClassMap(Path(path).stem, groups, thresholds)
    except (UsageError, csv.Error) as error:
        raise AnnotationError(path, f"not a class map: {error}") from error


_Groups = tuple[dict[str, tuple[str, ...]], dict[str, float]]


def _toml_map(values: dict[str, Any]) -> _Groups:
    thresholds = values.pop("thresholds", {})
    for label, sources in values.items():
        if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
            raise UsageError(f"wanted {label} to be a list of labels, got {reprlib.repr(sources)}")
    if not isinstance(thresholds, dict) or not all(
        isinstance(t, int | float) and not isinstance(t, bool) for t in thresholds.values()
    ):
        raise UsageError("wanted thresholds to be a table of numbers")
    groups = {normal(label): tuple(map(normal, sources)) for label, sources in values.items()}
    return groups, {normal(label): threshold for label, threshold in thresholds.items()}


def _tabular_map(table: csv.DictReader[str]) -> _Groups:
    if not {"label", "source"} <= set(table.fieldnames or ()):
        raise UsageError("wanted columns 'label' and 'source' in the first line")
    groups: dict[str, tuple[str, ...]] = {}
    thresholds: dict[str, float] = {}
    for row in table:
        label, source = normal(row["label"] or ""), normal(row["source"] or "")
        if not label or not source:
            raise UsageError(f"wanted a label and a source in line {table.line_num}")
        groups[label] = (*groups.get(label, ()), source)
        if given := (row.get("threshold") or "").strip():
            try:
                threshold = float(given)
            except ValueError:
                line = table.line_num
                raise UsageError(f"wanted a threshold of 0 to 1 in line {line}, got {given!r}") from None
            if thresholds.setdefault(label, threshold) != threshold:
                raise UsageError(f"two thresholds for {label!r}, the second in line {table.line_num}")
    return groups, thresholds


def _table(path: str | Path, lines: Iterable[str]) -> csv.DictReader[str]:
    return csv.DictReader(_filled(lines), delimiter="\t" if Path(path).suffix.lower() == ".tsv" else ",")


def _fits(path: str | Path, row: Mapping[str | None, Any]) -> bool:
    """True, for a row with no more cells than columns; `csv.DictReader` keeps others' under None.

    Raises:
        AnnotationError: it has more.
    """
    if any(row.get(None) or ()):
        first = next(iter(row.values()))
        reason = f"the row of {first!r} has more cells than columns: put a label with a comma in quotes"
        raise AnnotationError(path, reason)
    return True


def _filled(lines: Iterable[str]) -> Iterator[str]:
    return (line for line in lines if line.strip())


def _read_lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise AnnotationError(path, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AnnotationError(path, "is not UTF-8 text") from error
