"""Messages of errors: one line, of a bounded length, and still the same after pickling."""

import pickle

from htsat_sed.errors import AudioError, UsageError, counted


def test_a_message_of_several_lines_becomes_one() -> None:
    error = AudioError("x.parquet", "cannot be read: no such type\n  Reading the header failed.\r\n")
    assert str(error) == "x.parquet: cannot be read: no such type Reading the header failed."
    assert str(UsageError("wanted\u2028one\n\nline")) == "wanted one line"


def test_a_message_has_a_bounded_length() -> None:
    assert len(str(AudioError("x.csv", "no number: " + "9" * 100_000))) < 2100
    assert len(str(UsageError("9" * 100_000))) < 2100


def test_an_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(AudioError("x.csv", "is empty")))
    assert (type(error), error.path, error.reason, str(error)) == (
        AudioError,
        "x.csv",
        "is empty",
        "x.csv: is empty",
    )
    assert str(pickle.loads(pickle.dumps(UsageError("wanted more")))) == "wanted more"


def test_a_number_has_its_noun_in_the_right_form() -> None:
    assert [counted(n, "clip") for n in (0, 1, 2)] == ["0 clips", "1 clip", "2 clips"]
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
