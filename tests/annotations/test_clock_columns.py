"""Clock times in tables of events."""

import json
from datetime import datetime
from zoneinfo import ZoneInfo

from htsat_sed.annotations import FORMATS, read_events, write_events
from htsat_sed.clock import Start
from htsat_sed.detection.events import Event

TABLE = {
    "a.wav": [Event(0.3125, 3600.0, "Dog", 0.5, 2)],
    "b.wav": [],
    "c.wav": [Event(1, 2, "Cat", 0.25)],
}
STARTS = {
    "a.wav": Start(datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")), "guano"),
    "b.wav": Start(datetime(2026, 5, 12, 4, 30), "name"),
}
DURATIONS = {"a.wav": 3600.0, "b.wav": 60.0}


def test_csv(tmp_path):
    path = tmp_path / "e.csv"
    write_events(path, TABLE, "csv", starts=STARTS, durations=DURATIONS)
    assert path.read_text() == (
        "filename,onset,offset,event_label,score,channel,begin,end,clock,recording_duration\n"
        "a.wav,0.312,3600.000,Dog,0.5000,2,2026-10-25T02:30:00.312+02:00,2026-10-25T02:30:00.000+01:00,guano,"
        "3600.000\n"
        "b.wav,,,,,,2026-05-12T04:30:00.000,2026-05-12T04:31:00.000,name,60.000\n"
        "c.wav,1.000,2.000,Cat,0.2500,,,,,\n"
    )
    assert read_events(path)["a.wav"] == [Event(0.312, 3600.0, "Dog", 0.5, 2)]


def test_jsonl(tmp_path):
    path = tmp_path / "e.jsonl"
    write_events(path, TABLE, "jsonl", starts=STARTS, durations=DURATIONS)
    a, b, c = map(json.loads, path.read_text().splitlines())
    assert (a["begin"], a["clock"], b["begin"], b["clock"]) == (
        *("2026-10-25T02:30:00.000+02:00", "guano"),
        *("2026-05-12T04:30:00.000", "name"),
    )
    assert a["events"][0] | {"begin": "2026-10-25T02:30:00.312+02:00", "channel": 2} == a["events"][0]
    assert "begin" not in c
    assert "begin" not in c["events"][0]
    assert read_events(path) == TABLE


def test_parquet(tmp_path):
    import pyarrow.parquet as parquet

    path = tmp_path / "e.parquet"
    write_events(path, TABLE, "parquet", starts=STARTS, durations=DURATIONS)
    rows = parquet.read_table(path).to_pylist()
    assert [(row["begin"], row["clock"], row["recording_duration"], row["channel"]) for row in rows] == [
        ("2026-10-25T02:30:00.312+02:00", "guano", 3600.0, 2),
        ("2026-05-12T04:30:00.000", "name", 60.0, None),
        (None, None, None, None),
    ]
    assert read_events(path) == TABLE


def test_raven(tmp_path):
    write_events(tmp_path, TABLE, "raven", starts=STARTS)
    header, row = (tmp_path / "a.wav.selections.txt").read_text().splitlines()
    assert header.endswith("\tBegin File\tBegin Clock Time\tBegin Date")
    assert (
        row
        == "1\tSpectrogram 1\t2\t0.312\t3600.000\t50.0\t14000.0\tDog\t0.5000\ta.wav\t02:30:00.312\t2026/10/25"
    )
    assert "Clock" not in (tmp_path / "c.wav.selections.txt").read_text()


def test_nothing_changes_where_no_time_and_no_channel_is_known(tmp_path):
    events = {name: [Event(e.onset, e.offset, e.label, e.score) for e in own] for name, own in TABLE.items()}
    for format in ("tsv", "csv", "jsonl"):
        write_events(tmp_path / "plain", events, format)
        write_events(tmp_path / "empty", events, format, starts={})
        assert (tmp_path / "plain").read_bytes() == (tmp_path / "empty").read_bytes()
        assert (tmp_path / "plain").read_text().startswith(FORMATS[format].header)


def test_a_data_frame_has_channels_and_clock_times_where_there_are_some():
    from htsat_sed import events_to_frame

    plain = {"a.wav": [Event(0.5, 1.0, "Dog", 0.25)], "silence.wav": []}
    assert list(events_to_frame(plain)) == ["filename", "onset", "offset", "event_label", "score"]
    assert events_to_frame(plain).iloc[0].tolist() == ["a.wav", 0.5, 1.0, "Dog", 0.25]
    stereo = {"a.wav": [Event(0.5, 3600.0, "Dog", 0.25, 2)], "b.wav": [Event(0.0, 1.0, "Dog")]}
    zone = ZoneInfo("Europe/Berlin")
    start = Start(datetime(2026, 10, 25, 2, 30, tzinfo=zone), "audiomoth")
    frame = events_to_frame(stereo, starts={"a.wav": start})
    assert list(frame)[5:] == ["channel", "begin", "end", "clock"]
    assert frame.channel.tolist() == [2, 0]
    assert frame.begin[0].isoformat() == "2026-10-25T02:30:00.500000+02:00"
    assert frame.end[0].isoformat() == "2026-10-25T02:30:00+01:00"  # the clock was set back meanwhile
    assert frame.clock[0] == "audiomoth"
    assert frame[["begin", "end", "clock"]].iloc[1].isna().all()
    assert list(events_to_frame({}, starts={})) == [*list(events_to_frame(plain)), "begin", "end", "clock"]
