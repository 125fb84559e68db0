"""`htsat-sed convert`: formats, merging, renaming, filtering, clock times."""

import numpy as np
import pytest
import soundfile

from htsat_sed.annotations import FORMATS, read_events, write_events
from htsat_sed.clock import Start, parse_time
from htsat_sed.detection.events import Event

TABLE = {
    "day1/a_20261025_013000.wav": [Event(0.5, 1.5, "Dog", 0.75), Event(2, 3, "Speech", 0.5)],
    "silence.wav": [],
}


@pytest.fixture
def labels(tmp_path):
    write_events(tmp_path / "e.csv", TABLE, "csv")
    return tmp_path / "e.csv"


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_all_formats(format, labels, run, tmp_path):
    of = FORMATS[format]
    for name in TABLE:
        (tmp_path / "audio" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "audio" / name, np.zeros(24_000), 8000)
    target = tmp_path / (f"out{of.suffix}" if of.shared else "out")
    arguments = ("convert", labels, "-f", format, "-o", target, "-a", tmp_path / "audio")
    code, out, err = run(*arguments)
    assert (code, out) == (0, "")
    assert "2 events of 2 recordings" in err
    found = read_events(target)["day1/a_20261025_013000.wav"]
    assert [(e.onset, e.offset, e.label) for e in found] == [(0.5, 1.5, "Dog"), (2.0, 3.0, "Speech")]
    again = tmp_path / "again.csv"
    assert run("convert", target, "-o", again)[0] == 0
    assert read_events(again) == read_events(target)
    if of.shared:  # the suffix tells the format
        target.unlink()
        assert run("convert", labels, "-o", target, "-a", tmp_path / "audio")[0] == 0
        assert read_events(target, format)


def test_merging_renaming_and_filtering(labels, run, tmp_path):
    write_events(tmp_path / "more.jsonl", {"silence.wav": [Event(1, 2, "Cat", 0.9)], "b.wav": []}, "jsonl")
    (tmp_path / "map.csv").write_text("label,source\nAnimal,Dog\nAnimal,Cat\n")
    out = tmp_path / "out.csv"
    code, _, err = run(
        "convert", labels, tmp_path / "more.jsonl", labels, "-o", out, "--map", tmp_path / "map.csv"
    )
    assert (code, "Speech" in err) == (0, True)
    assert read_events(out) == {
        "day1/a_20261025_013000.wav": [Event(0.5, 1.5, "Animal", 0.75)],
        "silence.wav": [Event(1, 2, "Animal", 0.9)],
        "b.wav": [],
    }
    run("convert", labels, tmp_path / "more.jsonl", "-o", out, "--min-score", "0.6", "--exclude", "b.wav")
    assert [e.label for own in read_events(out).values() for e in own] == ["Dog", "Cat"]
    assert "b.wav" not in read_events(out)
    run("convert", labels, "-o", out, "--labels", "Speech")
    assert [e.label for own in read_events(out).values() for e in own] == ["Speech"]
    assert run("convert", labels, "-o", out, "--labels", "Spech")[0] == 2


def test_recordings_are_called_as_their_files(labels, run, tmp_path):
    """A label track lacks folder and suffix, BirdNET-Analyzer has the path on another machine."""
    name = "day1/a_20261025_013000.wav"
    (tmp_path / "audio" / name).parent.mkdir(parents=True)
    soundfile.write(tmp_path / "audio" / name, np.zeros(24_000), 8000)
    (tmp_path / "a_20261025_013000.txt").write_text("0.5\t1.5\tCat\n")
    birdnet = "Start (s),End (s),Scientific name,Common name,Confidence,File\n"
    birdnet += f"0.0,3.0,Troglodytes troglodytes,Eurasian Wren,0.81,C:\\card\\{name.replace('/', chr(92))}\n"
    (tmp_path / "BirdNET_CombinedTable.csv").write_text(birdnet)
    given = [labels, tmp_path / "a_20261025_013000.txt", tmp_path / "BirdNET_CombinedTable.csv"]
    out = tmp_path / "out.csv"
    code, _, err = run("convert", *given, "-o", out, "-a", tmp_path / "audio")
    assert (code, "holds no recordings for 1 of the 4 names: silence.wav" in err) == (1, True)
    found = read_events(out)
    assert list(found) == [name, "silence.wav"]
    assert [(e.label, e.score) for e in found[name]] == [
        ("Eurasian Wren", 0.81), ("Cat", 1.0), ("Dog", 0.75), ("Speech", 0.5),
    ]  # fmt: skip
    assert run("convert", *given, "-o", out)[0] == 0
    assert len(read_events(out)) == 4


def test_a_raven_table_of_a_folder_needs_the_recordings(labels, run, tmp_path):
    code, _, err = run("convert", labels, "-f", "raven-folder", "-o", tmp_path / "out.txt")
    assert (code, "--audio" in err) == (2, True)
    assert not (tmp_path / "out.txt").exists()
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "a_20261025_013000.wav", np.zeros(24_000), 8000)
    arguments = (
        "convert",
        labels,
        "-f",
        "raven-folder",
        "-o",
        tmp_path / "out.txt",
        "-a",
        tmp_path / "audio",
    )
    code, _, err = run(*arguments)
    assert (code, "left out because their duration is unknown: silence.wav" in err) == (1, True)
    assert list(read_events(tmp_path / "out.txt")) == ["a_20261025_013000.wav"]


def test_clock_times(labels, run, tmp_path):
    out = tmp_path / "out.csv"
    assert run("convert", labels, "-o", out)[0] == 0
    assert out.read_text() == labels.read_text()
    assert run("convert", labels, "-o", out, "--timezone", "Europe/Berlin")[0] == 0
    assert ",2026-10-25T01:30:00.500+02:00,2026-10-25T01:30:01.500+02:00,name," in out.read_text()
    assert run("convert", out, "-o", tmp_path / "utc.jsonl", "--timezone", "UTC")[0] == 0
    assert '"begin": "2026-10-24T23:30:00.000+00:00", "clock": "name"' in (tmp_path / "utc.jsonl").read_text()
    assert run("convert", labels, "-o", out, "--timezone", "Berlin")[0] == 2


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_clock_times_are_read_back(format, tmp_path):
    from htsat_sed.annotations.recorded import Recorded, read_recorded

    path = tmp_path / f"e.{format}"
    starts = {name: Start(parse_time("2026-05-12T04:30:00.250+02:00"), "guano") for name in TABLE}
    durations = dict.fromkeys(TABLE, 60.0)
    write_events(path, TABLE, format, starts=starts, durations=durations)
    assert read_recorded(path) == {name: Recorded(starts[name], 60.0) for name in TABLE}
    write_events(path, TABLE, format)
    assert not any(each.start or each.duration for each in read_recorded(path).values())


def test_what_cannot_be_read_is_reported_and_the_rest_goes_on(labels, run, tmp_path):
    out = tmp_path / "out.csv"
    code, _, err = run("convert", tmp_path / "missing.csv", labels, "-o", out)
    assert (code, "missing.csv: cannot be read" in err) == (1, True)
    assert read_events(out) == read_events(labels)
    assert run("convert", labels, "-o", labels)[0] == 1  # what is read is never replaced
    assert run("convert", labels, "-o", tmp_path / "out.xyz")[0] == 2
    out.write_text("mine")
    assert run("convert", labels, "-o", out)[0] == 2
    assert out.read_text() == "mine"
