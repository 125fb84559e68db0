"""Seasons: counts by hour, day, week and site, beside the effort; a calculation in pandas finds the same."""

import csv
import random
import re
from datetime import UTC, date, datetime, timedelta
from importlib.util import find_spec
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htsat_sed.annotations import write_events
from htsat_sed.clock import Start
from htsat_sed.detection.events import Event
from htsat_sed.summary.counts import PERIODS, Hour, Recording, Tally, count, rows, tally
from htsat_sed.summary.sites import site_of, site_pattern

BERLIN = ZoneInfo("Europe/Berlin")


def made_up_season():
    """3 sites x 30 days x 24 h of 10 minutes, begun at 3 or 55 minutes past, over a change of the clock."""
    chance = random.Random(1)
    first = datetime(2026, 10, 10, tzinfo=UTC)
    for site in ("meadow", "river", "wood"):
        for hour in range(30 * 24):
            if (site == "river" and 240 <= hour < 340) or (site == "wood" and hour % 24 in (11, 12)):
                continue
            begin = first + timedelta(hours=hour, minutes=55 if site == "meadow" else 3)
            events = []
            for label, often in (("Blackbird", 3), ("Owl", 1)):
                at = 0.0
                for _ in range(chance.randint(0, often)):
                    at = round(at + chance.uniform(0.5, 150), 3)
                    end = round(at + chance.uniform(0.5, 70), 3)
                    if end < 600:
                        events.append(Event(at, end, label, 0.5))
                    at = end
            yield Recording(site, begin, 600.0, sorted(events))


def pieces(frame):
    """Each row once for every minute of the clock that it reaches into, with the seconds in it."""
    minutes = [
        pd.date_range(b.floor("min"), e.ceil("min"), freq="min", inclusive="left")
        for b, e in zip(frame["begin"], frame["end"], strict=True)
    ]
    frame = frame.assign(minute=minutes).explode("minute")
    frame["minute"] = pd.to_datetime(frame["minute"], utc=True)
    ends = frame["minute"] + pd.Timedelta("1min")
    inside = frame["end"].where(frame["end"] < ends, ends) - frame["begin"].where(
        frame["begin"] > frame["minute"], frame["minute"]
    )
    clock = frame["minute"].dt.tz_convert("Europe/Berlin")
    week = clock.dt.isocalendar()
    return frame.assign(
        seconds=inside.dt.total_seconds(),
        date=clock.dt.strftime("%Y-%m-%d"),
        hour=clock.dt.strftime("%H"),
        week=week["year"].astype(str) + "-W" + week["week"].astype(str).str.zfill(2),
    )


@pytest.fixture(scope="module")
def by_pandas():
    recordings = list(made_up_season())
    made = pd.DataFrame(
        [(r.site, r.start, r.start + timedelta(seconds=r.duration)) for r in recordings],
        columns=["site", "begin", "end"],
    )
    events = pd.DataFrame(
        [
            (r.site, e.label, r.start + timedelta(seconds=e.onset), r.start + timedelta(seconds=e.offset))
            for r in recordings
            for e in r.events
        ],
        columns=["site", "label", "begin", "end"],
    )
    return recordings, pieces(made), pieces(events), events


@pytest.mark.parametrize("period", PERIODS, ids=lambda period: period.name)
def test_a_season_is_what_pandas_counts(period, by_pandas):
    recordings, made, heard, events = by_pandas
    assert len(recordings) > 1900
    season = count(recordings, BERLIN)
    found = {
        (row.site, *row.period, row.label): (
            row.counted.events,
            round(row.counted.seconds, 3),
            row.counted.minutes,
            round(row.recorded.seconds, 3),
            row.recorded.minutes,
        )
        for row in rows(season, period)
    }
    keys = ["site", *period.columns]
    effort = made.groupby(keys).agg(seconds=("seconds", "sum"), minutes=("minute", "nunique"))
    sums = heard.groupby([*keys, "label"]).agg(seconds=("seconds", "sum"), minutes=("minute", "nunique"))
    clock = events["begin"].dt.tz_convert("Europe/Berlin")
    week = clock.dt.isocalendar()
    begun = events.assign(
        date=clock.dt.strftime("%Y-%m-%d"),
        hour=clock.dt.strftime("%H"),
        week=week["year"].astype(str) + "-W" + week["week"].astype(str).str.zfill(2),
    )
    numbers = begun.groupby([*keys, "label"]).size().to_dict()
    expected = {}
    for key, recorded in effort.iterrows():
        place = key if isinstance(key, tuple) else (key,)
        for label in ("Blackbird", "Owl"):
            own = sums.loc[(*place, label)] if (*place, label) in sums.index else {"seconds": 0, "minutes": 0}
            expected[*place, label] = (
                numbers.get((*place, label), 0),
                round(float(own["seconds"]), 3),
                int(own["minutes"]),
                round(float(recorded["seconds"]), 3),
                int(recorded["minutes"]),
            )
    assert found == expected


def test_overlapping_recordings_count_once():
    start = datetime(2026, 5, 12, 4, 59)
    dog = [Event(30.0, 90.0, "Dog")]
    season = count([Recording("a", start, 120.0, dog), Recording("a", start, 120.0, dog)], None)
    four, five = Hour(start.date(), 4), Hour(start.date(), 5)
    assert season.effort == {"a": {four: Tally(2, 60.0, 1), five: Tally(0, 60.0, 1)}}
    assert season.counts == {("a", "Dog"): {four: Tally(2, 30.0, 1), five: Tally(0, 30.0, 1)}}


def test_the_hour_that_is_repeated_has_two():
    begin, end = (datetime(2026, 10, day, tzinfo=BERLIN).timestamp() for day in (25, 26))
    hours = tally([(begin, end)], BERLIN)
    assert hours[Hour(datetime(2026, 10, 25).date(), 2)] == Tally(0, 7200.0, 120)
    assert sum(each.seconds for each in hours.values()) == 25 * 3600
    assert len(hours) == 24


@given(
    st.lists(st.tuples(st.integers(0, 200_000), st.integers(1, 9_000)), max_size=6),
    st.sampled_from([None, BERLIN, ZoneInfo("Asia/Kathmandu"), ZoneInfo("Australia/Lord_Howe")]),
)
def test_hours_add_up(spans, zone):
    base = 1_790_000_000
    bounds = [(float(base + begin), float(base + begin + length)) for begin, length in spans]
    seconds = {s for begin, end in bounds for s in range(int(begin), int(end))}
    hours = tally(bounds, zone)
    assert sum(each.seconds for each in hours.values()) == len(seconds)
    assert sum(each.minutes for each in hours.values()) == len({s // 60 for s in seconds})
    assert sum(each.events for each in hours.values()) == len(bounds)


@pytest.mark.parametrize(
    ("name", "pattern", "site"),
    [
        ("meadow/2026/a.wav", None, "meadow"),
        ("S4A03895_20190522_000000.wav", None, "S4A03895"),
        ("river east_2026-05-12T04-30-00.wav", None, "river east"),
        ("20190522_000000.wav", None, ""),
        ("a-7_20190522_000000.wav", "-([0-9])", "7"),
        ("a-7_20190522_000000.wav", "^[a-z]", "a"),
        ("x.wav", "y", ""),
    ],
)
def test_sites(name, pattern, site):
    assert site_of(name, None if pattern is None else site_pattern(pattern)) == site


TABLE = {
    "meadow/20260512_043000.WAV": [Event(1.0, 62.5, "Dog", 0.9), Event(5.0, 6.0, "Cat", 0.25)],
    "river/20260513_233000.WAV": [],
}


def test_the_command(run, tmp_path):
    events, out = tmp_path / "e.jsonl", tmp_path / "season"
    write_events(events, TABLE, "jsonl", durations=dict.fromkeys(TABLE, 3600.0))
    arguments = ("summary", events, "-o", out, "--timezone", "Europe/Berlin")
    place = ("--latitude", "52.5", "--longitude", "13.4") if find_spec("astral") else ()
    code, _, err = run(*arguments, *place, "--min-score", "0.5")
    assert (code, "2 recordings, 2.0 h, 2 sites, 2 classes" in err) == (0, True)
    with (out / "hours.csv").open() as file:
        found = [tuple(row.values()) for row in csv.DictReader(file)]
    assert found[:3] == [
        ("meadow", "2026-05-12", "04", "Dog", "1", "61.500", "2", "1800.000", "30"),
        ("meadow", "2026-05-12", "04", "Cat", "0", "0.000", "0", "1800.000", "30"),
        ("meadow", "2026-05-12", "05", "Dog", "0", "0.000", "0", "1800.000", "30"),
    ]
    assert (out / "effort.csv").read_text().splitlines()[-1] == "river,2026-05-14,00,1800.000,30"
    for name in ("daily.png", "heatmap_Dog.png", "heatmap_Cat.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert run(*arguments, "--pictures", "0")[0] == 0  # our own files are replaced


def test_recordings_that_do_not_count_are_named(run, tmp_path):
    events, out = tmp_path / "e.csv", tmp_path / "season"
    write_events(events, {**TABLE, "unnamed.wav": []}, "csv")
    (tmp_path / "d.tsv").write_text("filename\tduration\nmeadow/20260512_043000.WAV\t60\nunnamed.wav\t60\n")
    code, _, err = run("summary", events, "-o", out, "--durations", tmp_path / "d.tsv", "--pictures", "0")
    assert code == 1
    assert "1 of 3 recordings are left out because their start is unknown: unnamed.wav" in " ".join(
        err.split()
    )
    assert "their duration is unknown: river/20260513_233000.WAV" in " ".join(err.split())
    assert len((out / "effort.csv").read_text().splitlines()) == 2
    assert run("summary", events, "-o", out, "--latitude", "1")[0] == 2
    assert run("summary", events, "-o", out, "--latitude", "1", "--longitude", "1")[0] == 2
    assert run("summary", events, "-o", out, "--site", "(")[0] == 2


def test_starts_of_the_tables_come_first(run, tmp_path):
    events, out = tmp_path / "e.csv", tmp_path / "season"
    starts = {name: Start(datetime(2026, 1, 1, 12, tzinfo=UTC), "guano") for name in TABLE}
    write_events(events, TABLE, "csv", starts=starts, durations=dict.fromkeys(TABLE, 60.0))
    assert run("summary", events, "-o", out, "--timezone", "Asia/Tokyo", "--pictures", "0")[0] == 0
    assert (out / "effort.csv").read_text().splitlines()[1] == "meadow,2026-01-01,21,60.000,1"


def test_the_sun_by_astral():
    pytest.importorskip("astral", reason="the extra field is not installed")
    from htsat_sed.summary.sun import sun_hours

    (rise, fall), (never, _) = (
        sun_hours([datetime(2026, 6, 21).date()], latitude, 13.4, BERLIN)[0] for latitude in (52.5, 80.0)
    )
    assert rise == pytest.approx(4 + 43 / 60, abs=0.1)  # 04:43 and 21:33 in Berlin, by the almanac
    assert fall == pytest.approx(21 + 33 / 60, abs=0.1)
    assert never != never


@pytest.mark.parametrize("count_of_days", [1, 2, 5, 6, 40, 400])
def test_the_axis_of_dates_has_no_hours(tmp_path, count_of_days):
    """Hours are the other axis."""
    from htsat_sed.pictures.season import draw_heat_map

    days = [date(2026, 5, 12) + timedelta(days=day) for day in range(count_of_days)]
    path = tmp_path / "a.svg"
    draw_heat_map(path, "Dog", days, {"": np.zeros((24, count_of_days))}, zone="UTC")
    texts = re.findall("<!-- (.*?) -->", path.read_text())
    assert any("202" in text for text in texts)
    assert not [text for text in texts if ":" in text]


def test_curves_stay_in_their_panels(tmp_path, monkeypatch):
    """A site with more minutes than the first one; panels share the axis."""
    from htsat_sed.pictures import season

    figures = []
    monkeypatch.setattr(season, "save", lambda figure, path: figures.append(figure))
    shares = {"meadow": {"Owl": np.full(24, 5.0)}, "wood": {"Owl": np.linspace(0.0, 90.0, 24)}}
    season.draw_daily_curves(tmp_path / "daily.png", shares, zone="UTC")
    for axes in figures[0].axes:
        low, high = axes.get_ylim()
        assert low == 0.0
        assert high >= max(line.get_ydata().max() for line in axes.get_lines()) > 0.0
