"""Which recording is meant: names with and without folders and suffixes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htsat_sed.detection.events import Event
from htsat_sed.evaluation.evaluate import evaluate_strong, evaluate_weak
from htsat_sed.evaluation.names import matching_names


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (["street.wav"], ["street"], {"street": "street.wav"}),
        (["street"], ["street.FLAC"], {"street.FLAC": "street"}),
        (["street.wav"], ["street.flac"], {"street.flac": "street.wav"}),
        (["day/street.wav"], ["street"], {"street": "day/street.wav"}),
        (["street.wav"], ["/data/day/street.wav"], {"/data/day/street.wav": "street.wav"}),
        (["day/street.wav"], ["x\\day\\street.wav"], {"x\\day\\street.wav": "day/street.wav"}),
        (["a/street.wav"], ["b/street.wav"], {}),
        # What follows the last dot is no suffix of audio.
        (["Y_10.000_20.000"], ["Y_10.000_20.000.wav"], {"Y_10.000_20.000.wav": "Y_10.000_20.000"}),
        (["Y_10.000"], ["Y_10.500"], {}),
        # The nearer name comes first; what is given away is not given again.
        (["street.wav"], ["street.wav", "street.flac"], {"street.wav": "street.wav"}),
        (["a.wav", "x/a.wav"], ["a", "x/a"], {"a": "a.wav", "x/a": "x/a.wav"}),
        (["street.wav"], ["Street.wav"], {}),
        (["caf\u00e9.wav"], ["cafe\u0301.wav"], {"cafe\u0301.wav": "caf\u00e9.wav"}),
        (["x/cafe\u0301.wav"], ["caf\u00e9"], {"caf\u00e9": "x/cafe\u0301.wav"}),
    ],
)
def test_rules(ours: list[str], theirs: list[str], expected: dict[str, str]) -> None:
    assert matching_names(ours, theirs) == expected


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (["street.wav", "street.flac"], ["street"], "'street' could be 'street.flac' or 'street.wav'"),
        (["street"], ["street.wav", "street.flac"], "'street' could be 'street.flac' or 'street.wav'"),
        (["a/street.wav", "b/street.wav"], ["street.wav"], "could be 'a/street.wav' or 'b/street.wav'"),
        (["street.wav"], ["a/street.wav", "b/street.wav"], "could be 'a/street.wav' or 'b/street.wav'"),
    ],
)
def test_ambiguous_names_are_an_error(ours: list[str], theirs: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        matching_names(ours, theirs)


names = st.lists(
    st.sampled_from(["a", "a.wav", "a.mp3", "x/a.wav", "b.wav", "y/b", "x/y/b.ogg"]), unique=True
)


@given(names, names)
def test_no_name_is_given_twice_and_the_order_does_not_matter(ours: list[str], theirs: list[str]) -> None:
    try:
        found = matching_names(ours, theirs)
    except ValueError:
        with pytest.raises(ValueError, match="could be"):
            matching_names(ours[::-1], theirs[::-1])
        return
    assert found == matching_names(ours[::-1], theirs[::-1])
    assert set(found) <= set(theirs)
    assert set(found.values()) <= set(ours)
    assert len(set(found.values())) == len(found)
    assert all(found[name] == name for name in set(ours) & set(theirs))


def test_evaluation_knows_recordings_by_other_names() -> None:
    reference = {"day/a.wav": [Event(0, 1, "Dog")], "day/b.wav": []}
    estimated = {"a": [Event(0, 1, "Dog")], "b.flac": [Event(0, 1, "Dog")]}
    report = evaluate_strong(reference, estimated, durations={"a.wav": 2.0, "b.wav": 2.0, "c.wav": 2.0})
    assert report.remarks == ("2 recordings matched without folder or suffix, such as 'day/a.wav' and 'a'",)
    assert [report.metrics[0].classes["Dog"][name] for name in ("tp", "fp", "fn")] == [1.0, 1.0, 0.0]
    # A duration alone makes a recording without events, by whatever name.
    report = evaluate_strong(reference, {**estimated, "c": []}, durations={"c.wav": 2.0})
    assert report.recordings == 3
    clips = evaluate_weak({"a.wav": {"Dog"}, "b.wav": set()}, {"a": {"Dog": 0.9}, "b": {"Dog": 0.1}})
    assert clips.metrics[0].headline["map"].value == 1.0
