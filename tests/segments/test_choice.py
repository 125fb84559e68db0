"""Which events are cut out."""

from __future__ import annotations

from collections import Counter

import pytest
from events_made import at
from hypothesis import given
from hypothesis import strategies as st

from htsat_sed import Event
from htsat_sed.segments.choice import ClipChoice, Found, choose

SCORES = {"a.wav": [0.95, 0.91, 0.55], "b.wav": [0.58, 0.92, 0.64]}


TABLE = {name: [at(i, score) for i, score in enumerate(scores)] for name, scores in SCORES.items()}


def scores(choice: ClipChoice) -> list[float]:
    return sorted(found.event.score for found in choose(TABLE, choice))


def test_all_events_stay_in_order_where_there_is_no_limit() -> None:
    wanted = [Found(name, event) for name, events in TABLE.items() for event in events]
    assert choose(TABLE, ClipChoice()) == choose(TABLE, ClipChoice(order="random")) == wanted


def test_the_highest_scores() -> None:
    assert scores(ClipChoice(limit=3)) == [0.91, 0.92, 0.95]


def test_the_highest_scores_of_the_recordings_in_turn() -> None:
    assert scores(ClipChoice(limit=2, spread=True)) == [0.92, 0.95]
    assert scores(ClipChoice(limit=3, spread=True)) == [0.91, 0.92, 0.95]
    assert scores(ClipChoice(limit=4, spread=True)) == [0.64, 0.91, 0.92, 0.95]


def test_of_equal_scores_chance_decides() -> None:
    table = {name: [at(i) for i in range(5)] for name in ("a.wav", "b.wav")}
    drawn = {tuple(choose(table, ClipChoice(limit=2, seed=seed))) for seed in range(20)}
    assert {found.filename for chosen in drawn for found in chosen} == {"a.wav", "b.wav"}
    assert len(drawn) > 10


def test_a_limit_holds_for_each_class() -> None:
    table = {"a.wav": [at(0, 0.9), at(1, 0.8), at(0, 0.3, "Cat"), at(1, 0.4, "Cat")]}
    assert [found.event for found in choose(table, ClipChoice(limit=1))] == [at(0, 0.9), at(1, 0.4, "Cat")]


def test_score_bands_have_the_same_share() -> None:
    """Of bands of 0.1: three scores of 0.9 to 1, one of 0.6 to 0.7, two of 0.5 to 0.6."""
    for seed in range(20):
        band = Counter(int(score * 10) for score in scores(ClipChoice(limit=5, order="bands", seed=seed)))
        assert band == {9: 2, 6: 1, 5: 2}
        assert sum(score < 0.9 for score in scores(ClipChoice(limit=3, order="bands", seed=seed))) == 2


def test_in_a_band_the_recordings_take_turns() -> None:
    for seed in range(20):
        chosen = choose(TABLE, ClipChoice(limit=5, order="bands", spread=True, seed=seed))
        assert sorted(f.filename for f in chosen if f.event.score >= 0.9) == ["a.wav", "b.wav"]


def test_the_score_1_belongs_to_the_highest_band() -> None:
    table = {"a.wav": [at(0, 1.0), at(1, 0.95), at(2, 0.1)]}
    assert at(2, 0.1) in {found.event for found in choose(table, ClipChoice(limit=2, order="bands"))}


def test_chance_depends_on_the_seed_alone() -> None:
    cats = {"c.wav": [at(i, 0.5, "Cat") for i in range(9)]}
    few = ClipChoice(limit=2, order="random", seed=3)
    dogs = choose(TABLE, few)
    backwards = {name: TABLE[name][::-1] for name in reversed(TABLE)}
    assert set(choose(backwards, few)) == set(dogs)
    assert [found for found in choose(TABLE | cats, few) if found.event.label == "Dog"] == dogs
    assert len({tuple(choose(TABLE, ClipChoice(limit=2, order="random", seed=s))) for s in range(20)}) > 5


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 99), st.sampled_from(["Dog", "Cat"]))),
    st.sampled_from(["highest", "random", "bands"]),
    st.booleans(),
    st.integers(1, 9),
)
def test_a_larger_limit_only_adds(
    rows: list[tuple[str, int, str]], order: str, spread: bool, limit: int
) -> None:
    table: dict[str, list[Event]] = {}
    for name, score, label in sorted(set(rows)):
        table.setdefault(name, []).append(at(score, score / 100, label))
    fewer = choose(table, ClipChoice(limit=limit, order=order, spread=spread))  # type: ignore[arg-type]
    more = choose(table, ClipChoice(limit=limit + 1, order=order, spread=spread))  # type: ignore[arg-type]
    assert set(fewer) <= set(more)
    there = Counter(event.label for events in table.values() for event in events)
    assert Counter(f.event.label for f in fewer) == {k: min(n, limit) for k, n in there.items()}


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"limit": 0}, "wanted a limit of 1 or more, got 0"),
        ({"order": "best"}, "wanted an order, one of highest, random, bands; got 'best'"),
        ({"bands": 0}, "wanted 1 band or more, got 0"),
    ],
)
def test_impossible_choices_are_refused(wrong: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ClipChoice(**wrong)  # type: ignore[arg-type]
