from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htsat_sed.errors import AnnotationError, UsageError
from htsat_sed.labels import (
    ClassMap,
    audioset_labels,
    check_label_set,
    class_map,
    did_you_mean,
    read_class_map,
    read_labels,
    select,
)

LABELS = ("Dog", "Bark", "Cat", "Rain")
SCORES = np.array([[0.1, 0.7, 0.2, 0.0], [0.6, 0.3, 0.2, 0.9]], np.float32)


def test_audioset_has_527_distinct_names_in_index_order():
    labels = audioset_labels()
    assert len(labels) == len(set(labels)) == 527
    assert labels[0] == "Speech"
    assert labels[1] == "Male speech, man speaking"
    assert labels[74] == "Dog"
    assert labels[526] == "Field recording"


def test_desed_joins_the_classes_of_the_published_script():
    desed = class_map("desed")
    assert desed.groups["Cat"] == ("Cat", "Purr", "Meow", "Hiss", "Caterwaul")
    assert desed.groups["Frying"] == ("Chopping (food)", "Frying (food)", "Microwave oven")
    assert desed.groups["Alarm_bell_ringing"][:2] == ("Car alarm", "Alarm")
    assert {label: len(sources) for label, sources in desed.groups.items()} == {
        "Alarm_bell_ringing": 16,
        "Blender": 1,
        "Cat": 5,
        "Dishes": 1,
        "Dog": 6,
        "Electric_shaver_toothbrush": 1,
        "Frying": 3,
        "Running_water": 10,
        "Speech": 8,
        "Vacuum_cleaner": 1,
    }
    assert desed.thresholds["Speech"] == 0.275
    assert desed.thresholds["Vacuum_cleaner"] == 0.14


def test_desed_leaves_the_classes_it_does_not_name():
    scores = np.zeros((3, 527), np.float32)
    scores[0, 79] = 0.4  # Growling, the last of Dog
    scores[1, 80] = 0.9  # Whimper (dog), just beyond
    scores[2, 310] = 0.2  # Car alarm
    joined, labels = class_map("desed").apply(scores, audioset_labels())
    found = {(t, labels[k]): float(joined[t, k]) for t, k in np.argwhere(joined > 0.0)}
    assert found == {(0, "Dog"): pytest.approx(0.4), (2, "Alarm_bell_ringing"): pytest.approx(0.2)}


def test_a_group_scores_as_its_highest_class():
    pets = ClassMap("pets", {"Pet": ("Dog", "Bark", "Cat"), "Weather": ("Rain",)})
    joined, labels = pets.apply(SCORES, LABELS)
    assert labels == ("Pet", "Weather")
    assert joined.dtype == np.float32
    np.testing.assert_array_equal(joined, np.array([[0.7, 0.0], [0.6, 0.9]], np.float32))


@given(st.floats(0.0, 1.0, width=32))
def test_a_group_is_present_exactly_where_any_of_its_classes_is(threshold: float):
    joined, _ = ClassMap("any", {"All": LABELS}).apply(SCORES, LABELS)
    np.testing.assert_array_equal(joined[:, 0] > threshold, (threshold < SCORES).any(axis=1))


def test_an_empty_presence_map_stays_empty():
    joined, labels = ClassMap("pets", {"Pet": ("Dog",)}).apply(np.zeros((0, 4), np.float32), LABELS)
    assert joined.shape == (0, 1)
    assert labels == ("Pet",)


def test_classes_that_the_model_lacks_are_named():
    with pytest.raises(ValueError, match=r"joins classes that the model lacks: 'Brak' and 1 more; did you"):
        ClassMap("pets", {"Pet": ("Dog", "Brak"), "Bird": ("Crow",)}).apply(SCORES, LABELS)


@pytest.mark.parametrize(
    ("groups", "thresholds", "reason"),
    [
        ({}, {}, "wanted groups of at least one label"),
        ({"Pet": ()}, {}, "wanted groups of at least one label"),
        ({"Pet": ("Dog",)}, {"Bird": 0.5}, "threshold for 'Bird'"),
        ({"Pet": ("Dog",)}, {"Pet": 1.5}, r"wanted threshold in \[0, 1\], got 1.5"),
    ],
)
def test_class_maps_that_make_no_sense(groups: dict, thresholds: dict, reason: str):
    with pytest.raises(ValueError, match=reason):
        ClassMap("bad", groups, thresholds)


def test_selection_keeps_the_order_of_the_model():
    assert select(LABELS, ["Rain", "Dog", "Rain"]) == (0, 3)
    assert select(LABELS, []) == ()


def test_selection_hints_at_near_names():
    with pytest.raises(ValueError, match=r"no class 'dog' among 4 labels; did you mean 'Dog'\?"):
        select(LABELS, ["dog"])
    assert did_you_mean("zzz", LABELS) == ""


def test_labels_one_a_line(tmp_path: Path):
    path = tmp_path / "labels.txt"
    path.write_text("\ufeffDog\n\n Male speech, man speaking \r\nCat", encoding="utf-8")
    assert read_labels(path) == ("Dog", "Male speech, man speaking", "Cat")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'index,mid,display_name\n0,/m/0,Dog\n1,/m/1,"Speech, male"\n'),
        ("a.csv", 'label\nDog\n"Speech, male"\n'),
        ("a.tsv", "label\tcount\nDog\t1\nSpeech, male\t2\n"),
    ],
)
def test_labels_of_a_table(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_labels(tmp_path / name) == ("Dog", "Speech, male")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"\n", "holds no labels"),
        ("a.txt", b"Dog\nCat\nDog\n", "has the label 'Dog' twice"),
        ("a.txt", b"\xff\xfe\x00", "is not UTF-8 text"),
        ("a.csv", b"name\nDog\n", "wanted a column 'display_name' or 'label'"),
    ],
)
def test_label_files_that_are_none(tmp_path: Path, name: str, content: bytes, reason: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AnnotationError, match=reason):
        read_labels(tmp_path / name)


def test_a_missing_label_file(tmp_path: Path):
    with pytest.raises(AnnotationError, match="cannot be read: No such file"):
        read_labels(tmp_path / "none.txt")


PETS = ClassMap("pets", {"Pet": ("Dog", "Cat"), "Wet": ("Rain",)}, {"Pet": 0.25})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pets.toml", 'Pet = ["Dog", "Cat"]\nWet = ["Rain"]\n[thresholds]\nPet = 0.25\n'),
        ("pets.csv", "label,source,threshold\nPet,Dog,0.25\nPet,Cat,\nWet,Rain,\n"),
        ("pets.tsv", "label\tsource\tthreshold\nPet\tDog\t\nPet\tCat\t0.25\nWet\tRain\t\n"),
    ],
)
def test_class_maps_from_files(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_class_map(tmp_path / name) == PETS
    assert class_map(tmp_path / name) == PETS


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.toml", "Pet = 3", "wanted Pet to be a list of labels, got 3"),
        ("a.toml", 'Pet = ["Dog"]\nthresholds = 0.5', "wanted thresholds to be a table of numbers"),
        ("a.toml", 'Pet = ["Dog"]\n[thresholds]\nPet = "0.5"', "wanted thresholds to be a table of numbers"),
        ("a.toml", "Pet = [", "not a class map"),
        ("a.toml", "", "wanted groups of at least one label"),
        ("a.csv", "label\nPet\n", "wanted columns 'label' and 'source'"),
        ("a.csv", "label,source\nPet,\n", "wanted a label and a source in line 2"),
        ("a.csv", "label,source,threshold\nPet,Dog,0.1\nPet,Cat,0.2\n", "two thresholds for 'Pet'"),
        ("a.csv", "label,source,threshold\nPet,Dog,high\n", "wanted a threshold of 0 to 1 in line 2"),
    ],
)
def test_class_map_files_that_are_none(tmp_path: Path, name: str, text: str, reason: str):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(AnnotationError, match=reason):
        read_class_map(tmp_path / name)


def test_an_unknown_class_map():
    with pytest.raises(AnnotationError, match="no such class map: wanted 'desed', or a TOML or CSV file"):
        class_map("dcase")


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (("\u00e9", "e\u0301"), "twice"),  # composed in two ways
        (("Dog", "Dog "), "twice"),
        (("\u200b", "Dog"), "blank"),
        (("\u202e\u2066", "Dog"), "blank"),
        (("\x1b", "Dog"), "blank"),
        (("x" * 5_000_000, "Dog"), "at most 1000 characters"),
        ((["Dog"] * 10_000, "Dog"), "of text"),
    ],
)
def test_labels_that_no_table_can_tell_apart(labels: tuple[object, ...], reason: str):
    with pytest.raises(UsageError, match=reason) as caught:
        check_label_set(labels)
    assert len(str(caught.value)) < 200
