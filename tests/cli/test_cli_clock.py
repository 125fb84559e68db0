"""Clock times in what `detect` writes."""

import csv
import json

import pytest

RATE = 8000


@pytest.fixture
def card(tmp_path):
    """A folder as from a memory card, on both sides of a change of the clock."""
    import numpy as np
    import soundfile

    sound = 0.1 * np.random.default_rng(1).normal(size=3 * RATE)
    for name in ("site1/S4A_20261025_013000.wav", "site2/20260701_043000.WAV", "site2/unnamed.wav"):
        (tmp_path / "card" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "card" / name, sound, RATE, format="WAV")
    return tmp_path / "card"


ARGUMENTS = ("--threshold", "0.0", "--labels", "Rain")


def test_tables_have_clock_times_where_they_are_known(card, run, tmp_path):
    out = tmp_path / "e.csv"
    code, _, err = run("detect", card, "-o", out, "--timezone", "Europe/Berlin", *ARGUMENTS)
    assert code == 0, err
    with out.open() as file:
        rows = {row["filename"]: row for row in csv.DictReader(file)}
    assert [(row["begin"], row["end"], row["clock"], row["recording_duration"]) for row in rows.values()] == [
        ("2026-10-25T01:30:00.000+02:00", "2026-10-25T01:30:03.000+02:00", "name", "3.000"),
        ("2026-07-01T04:30:00.000+02:00", "2026-07-01T04:30:03.000+02:00", "name", "3.000"),
        ("", "", "", "3.000"),
    ]
    code, printed, _ = run("detect", card, "-f", "csv", "--timezone", "Europe/Berlin", *ARGUMENTS)
    assert (code, printed) == (0, out.read_text())


def test_without_known_times_nothing_changes(card, run, tmp_path):
    plain, other = tmp_path / "a.csv", tmp_path / "b.csv"
    run("detect", card / "site2" / "unnamed.wav", "-o", plain, *ARGUMENTS)
    assert plain.read_text().splitlines()[0] == "filename,onset,offset,event_label,score"
    run("detect", card, "-o", other, "--no-clock", *ARGUMENTS)
    assert other.read_text().splitlines()[0] == "filename,onset,offset,event_label,score"


def test_files_of_one_recording(card, run, tmp_path):
    code, _, _ = run("detect", card, "-o", tmp_path / "out", "-f", "raven", "-f", "jsonl", *ARGUMENTS)
    assert code == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "events.jsonl").read_text().splitlines()]
    assert [line.get("begin") for line in lines] == [
        "2026-10-25T01:30:00.000",
        "2026-07-01T04:30:00.000",
        None,
    ]
    table = (tmp_path / "out" / "site2" / "20260701_043000.WAV.selections.txt").read_text()
    assert table.splitlines()[1].endswith("\t04:30:00.000\t2026/07/01")
    assert "Clock" not in (tmp_path / "out" / "site2" / "unnamed.wav.selections.txt").read_text()


def test_time_formats_and_mistakes(card, run, tmp_path):
    (card / "site2" / "unnamed.wav").rename(card / "site2" / "1 July 04h30.wav")
    out = tmp_path / "e.jsonl"
    run("detect", card / "site2" / "1 July 04h30.wav", "-o", out, "--time-format", "%d %B %Hh%M", *ARGUMENTS)
    assert not out.exists()  # no year
    assert run("detect", card, "-o", out, "--timezone", "Nowhere/Land", *ARGUMENTS)[0] == 2


def test_clips_with_clock_times(card, run, tmp_path):
    from htsat_sed.annotations import write_events
    from htsat_sed.detection.events import Event

    write_events(tmp_path / "e.csv", {"site2/20260701_043000.WAV": [Event(0.5, 1.0, "Dog")]}, "csv")
    arguments = ("segments", tmp_path / "e.csv", "-a", card, "-o", tmp_path / "clips", "--clock-names")
    assert run(*arguments, "--timezone", "Europe/Berlin")[0] == 0
    (clip,) = (tmp_path / "clips" / "Dog").glob("*.wav")
    assert clip.name == "site2-20260701_043000_20260701T043000.500+0200_00000.500_00001.000_Dog_1.000.wav"
