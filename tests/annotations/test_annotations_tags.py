"""Clip-level scores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from htsat_sed.annotations import long_rows, read_tags, tags_header, wide_row
from htsat_sed.errors import AnnotationError
from htsat_sed.labels import normal

LABELS = ("Dog", "Male speech, man speaking", "Cat")
SCORES = np.array([0.03125, 1.0, 0.03125], np.float32)

# Blanks at either end are not kept, and composed characters are the same as decomposed ones.
TEXTS = st.text(min_size=1, max_size=5).map(normal).filter(bool)
LABEL_LISTS = st.lists(TEXTS, min_size=1, unique=True)
SCORE = st.integers(0, 1_000_000).map(lambda millionths: millionths / 1e6)


def test_rows_are_ordered_by_score():
    assert tags_header() + long_rows("a.wav", SCORES, LABELS) == (
        "filename,event_label,score\n"
        'a.wav,"Male speech, man speaking",1.000000\na.wav,Dog,0.031250\na.wav,Cat,0.031250\n'
    )
    assert long_rows("a.wav", SCORES, LABELS, top=2).count("\n") == 2


def test_columns_are_ordered_as_the_classes():
    assert tags_header(LABELS) + wide_row("a.wav", SCORES) == (
        'filename,Dog,"Male speech, man speaking",Cat\na.wav,0.031250,1.000000,0.031250\n'
    )


@given(labels=LABEL_LISTS, filenames=st.lists(TEXTS, unique=True), data=st.data())
@settings(deadline=None, max_examples=50)
def test_what_is_written_is_what_is_read(tmp_path_factory, labels, filenames, data):
    labels = [label for label in labels if label.lower() not in ("filename", "onset", "event_label", "score")]
    tags = {name: [data.draw(SCORE) for _ in labels] for name in filenames} if labels else {}
    folder = tmp_path_factory.mktemp("tags")
    rows, columns = tags_header(), tags_header(labels)
    for name, scores in tags.items():
        rows += long_rows(name, np.array(scores), labels)
        columns += wide_row(name, np.array(scores))
    for name, text in (("rows.csv", rows), ("columns.csv", columns)):
        (folder / name).write_bytes(text.encode())
        assert read_tags(folder / name) == {n: dict(zip(labels, s, strict=True)) for n, s in tags.items()}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "filename,onset,offset,event_label,score\na,0,1,Dog,1\n",
            "is a table of events, wanted one of clip",
        ),
        ("filename,event_label,score\na,Dog,1\na,Dog,1\n", "line 3: Dog of a is given twice"),
        ("filename,event_label,score\na,,1\n", "line 2: no event_label"),
        ("filename,Dog\na,1.5\n", "line 2: score is 1.5, wanted 0 to 1"),
        ("filename,Dog,Cat\na,1\n", "line 2: Cat is not a number: ''"),
        ("file,Dog\na,1\n", "lacks the columns filename; it has file, Dog"),
    ],
)
def test_what_is_no_table_of_scores_is_an_error(tmp_path, text, reason):
    (tmp_path / "tags.csv").write_text(text)
    with pytest.raises(AnnotationError, match=reason):
        read_tags(tmp_path / "tags.csv")
