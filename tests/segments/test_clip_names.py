"""What clips are called."""

from __future__ import annotations

import pytest
from events_made import at
from hypothesis import given, settings
from hypothesis import strategies as st

from htsat_sed import Event
from htsat_sed.segments.names import clip_names, safe


def test_names_tell_the_event_and_can_be_taken_apart() -> None:
    event = Event(2.0, 3.75, "Baby cry, infant cry", 0.93117)
    (name,) = clip_names({"day1/site_7 north.WAV": [event]}, ".flac").values()
    assert name == (
        "Baby-cry-infant-cry/day1-site_7-north_00002.000_00003.750_Baby-cry-infant-cry_0.931.flac"
    )
    stem = name.partition("/")[2].removesuffix(".flac")
    assert stem.rsplit("_", 4) == [
        "day1-site_7-north",
        "00002.000",
        "00003.750",
        "Baby-cry-infant-cry",
        "0.931",
    ]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("R&B", "R-B"),
        ('a/b\\c:d*e?f"g<h>i|j\x00k\nl\x7f\udcff', "a-b-c-d-e-f-g-h-i-j-k-l"),
        ("../../etc/passwd", "etc-passwd"),
        ("-rf ~", "rf"),
        (" dots... ", "dots"),
        (".hidden", "hidden"),
        ("aux", "aux-"),
        ("Con.x", "Con-.x"),
        ("LPT9", "LPT9-"),
        ("console", "console"),
        ("Ga\u0308nse, 鵞鳥", "G\u00e4nse-鵞鳥"),
        ("हिन्दी", "हिन्दी"),
        ("🐕", "unnamed"),
        ("???", "unnamed"),
    ],
)
def test_names_suit_every_file_system(text: str, name: str) -> None:
    assert safe(text, limit=40) == name


def test_long_names_are_cut_between_characters() -> None:
    assert safe("ä" * 30, limit=41) == "ä" * 20
    assert safe("x" * 30 + "/2024", limit=10, end=True) == "xxxxx-2024"


def test_names_that_would_be_one_on_some_file_system_get_numbers() -> None:
    table = {
        "a.wav": [Event(0, 1, "dog"), Event(0, 1, "Dog"), Event(0, 1, "Dog!"), Event(0.0001, 1, "dog")],
        "a.flac": [Event(0, 1, "dog")],
    }
    names = clip_names(table, ".wav")
    assert [(found.filename, found.event.label, name) for found, name in names.items()] == [
        ("a.flac", "dog", "dog-3/a_00000.000_00001.000_dog_1.000.wav"),
        ("a.wav", "Dog", "Dog/a_00000.000_00001.000_Dog_1.000.wav"),
        ("a.wav", "Dog!", "Dog-2/a_00000.000_00001.000_Dog_1.000.wav"),
        ("a.wav", "dog", "dog-3/a_00000.000_00001.000_dog_1.000-2.wav"),
        ("a.wav", "dog", "dog-3/a_00000.000_00001.000_dog_1.000-3.wav"),
    ]


@settings(max_examples=30)
@given(
    st.dictionaries(
        st.text(min_size=1),
        st.lists(st.builds(at, st.floats(0, 1e4), st.floats(0, 1), st.text(min_size=1)), unique=True),
    )
)
def test_no_two_clips_share_a_name(table: dict[str, list[Event]]) -> None:
    names = list(clip_names(table, ".wav").values())
    assert len({name.casefold() for name in names}) == sum(map(len, table.values()))
    for name in names:
        folder, _, file = name.partition("/")
        assert folder
        assert file
        assert "/" not in file
        assert len(file.encode()) <= 200
        assert not set(name) & set('\\:*?"<>|\x00\n\udcff')


def test_names_with_clock_times():
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from htsat_sed.clock import Start

    berlin = datetime(2026, 10, 25, 2, 59, 59, tzinfo=ZoneInfo("Europe/Berlin"))
    starts = {"a/x.wav": Start(berlin, "name"), "y.wav": Start(datetime(2026, 5, 12, 4, 30), "name")}
    table = {name: [Event(1.25, 2.5, "Dog", 0.5)] for name in ("a/x.wav", "y.wav", "z.wav")}
    assert sorted(clip_names(table, ".wav", starts).values()) == [
        "Dog/a-x_20261025T020000.250+0100_00001.250_00002.500_Dog_0.500.wav",
        "Dog/y_20260512T043001.250_00001.250_00002.500_Dog_0.500.wav",
        "Dog/z_00001.250_00002.500_Dog_0.500.wav",
    ]
