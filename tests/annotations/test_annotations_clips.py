"""Weak labels and durations."""

import pytest

from htsat_sed.annotations import read_durations, read_weak_labels
from htsat_sed.errors import AnnotationError


def write(tmp_path, text):
    path = tmp_path / "clips.tsv"
    path.write_text(text)
    return path


def test_weak_labels_stand_in_one_cell(tmp_path):
    text = "filename\tevent_labels\na.wav\tDog,Speech\nb.wav\t\na.wav\tCat\n"
    assert read_weak_labels(write(tmp_path, text)) == {"a.wav": {"Cat", "Dog", "Speech"}, "b.wav": set()}


def test_a_comma_before_a_space_belongs_to_the_label(tmp_path):
    text = 'filename,event_labels\na.wav,"Male speech, man speaking,Dog"\n'
    assert read_weak_labels(write(tmp_path, text)) == {"a.wav": {"Male speech, man speaking", "Dog"}}


def test_strong_labels_serve_as_weak_ones(tmp_path):
    text = "filename\tonset\toffset\tevent_label\na.wav\t0\t1\tDog\na.wav\t1\t2\tDog\nb.wav\n"
    assert read_weak_labels(write(tmp_path, text)) == {"a.wav": {"Dog"}, "b.wav": set()}


def test_weak_labels_want_a_column_of_labels(tmp_path):
    with pytest.raises(
        AnnotationError, match="lacks a column event_labels or event_label; it has filename, x"
    ):
        read_weak_labels(write(tmp_path, "filename\tx\na.wav\t1\n"))


def test_durations(tmp_path):
    text = "filename\tduration\na.wav\t10.0\nb.wav\t2.5\na.wav\t10\n"
    assert read_durations(write(tmp_path, text)) == {"a.wav": 10.0, "b.wav": 2.5}


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("", "line 3: duration is not a number: ''"),
        ("0", "line 3: duration is 0, wanted more"),
        ("nan", "line 3: duration is nan, wanted 0 or more"),
        ("11", "line 3: duration 11, but an earlier line has 10 for a.wav"),
    ],
)
def test_durations_that_cannot_be(tmp_path, cell, reason):
    with pytest.raises(AnnotationError, match=reason):
        read_durations(write(tmp_path, f"filename\tduration\na.wav\t10\na.wav\t{cell}\n"))
