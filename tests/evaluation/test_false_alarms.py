"""False alarms, counted by hand."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from htsat_sed.annotations import Negative, write_presence_map
from htsat_sed.cli import main
from htsat_sed.detection.events import Event
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.errors import UsageError
from htsat_sed.evaluation.false_alarms import count_false_alarms, covered_seconds, score_false_alarms
from htsat_sed.evaluation.report import Settings

EVENTS = {
    "street.wav": [Event(0.0, 4.0, "Dog"), Event(2.0, 6.0, "Cat"), Event(8.0, 9.0, "Dog")],
    "park.wav": [Event(1.0, 2.0, "Dog"), Event(5.0, 6.0, "Cat"), Event(7.0, 9.0, "Bird")],
    "rain.wav": [Event(0.0, 15.0, "Rain"), Event(18.0, 20.0, "Rain"), Event(3.0, 4.0, "Cat")],
    "quiet.wav": [],
}
SECONDS = {"street.wav": 10.0, "park.wav": 10.0, "rain.wav": 20.0, "quiet.wav": 60.0}
TABLE = {
    "street.wav": Negative(frozenset(), kind="town"),
    "park.wav": Negative(frozenset(["Dog"]), kind="park"),
    "rain.wav": Negative(frozenset(), frozenset(["Rain"]), kind="weather"),
}
LABELS = ("Cat", "Dog", "Rain")


def test_false_alarms_by_class_and_overall() -> None:
    found = count_false_alarms(EVENTS, SECONDS, TABLE, LABELS)
    assert found.recordings == ("park.wav", "quiet.wav", "rain.wav", "street.wav")
    # The dog may be in the park, the bird is no class, and it rains.
    assert found.events.tolist() == [[1, 0, 0], [0, 0, 0], [1, 0, 0], [1, 2, 0]]
    assert found.covered.tolist() == [1.0, 0.0, 1.0, 7.0]
    rate, share = found.overall()
    assert rate[0] == pytest.approx(5 * 36.0)
    assert share[0] == pytest.approx(0.09)
    rates, shares = found.by_class()
    assert rates == pytest.approx([3 * 36.0, 2 * 40.0, 0.0])
    assert shares == pytest.approx([0.06, 5 / 90, 0.0])
    with pytest.raises(UsageError, match="at least one negative"):
        count_false_alarms({}, {}, {}, LABELS)


def test_seconds_that_events_cover() -> None:
    assert covered_seconds([Event(1.0, 3.0, "a"), Event(2.0, 2.5, "b"), Event(5.0, 6.0, "a")]) == 3.0
    assert covered_seconds([]) == 0.0


def test_figures_by_kind_recording_and_what_is_present() -> None:
    every, by_kind, most, present = score_false_alarms(EVENTS, SECONDS, TABLE, LABELS, Settings(bootstrap=50))
    assert every.headline["time"].value == pytest.approx(0.09)
    low, high = every.headline["time"].low, every.headline["time"].high
    assert low is not None
    assert high is not None
    assert low < 0.09 < high
    assert every.classes["Dog"] == {"false_alarms": 2.0, "per_hour": 80.0, "time": pytest.approx(5 / 90)}
    assert list(by_kind.classes) == ["other", "park", "town", "weather"]
    assert by_kind.classes["town"]["time"] == pytest.approx(0.7)
    assert list(most.classes) == ["street.wav", "park.wav", "rain.wav"]
    assert present.classes == {"Rain": {"recordings": 1.0, "seconds": 20.0, "found_time": 0.85}}
    alone = score_false_alarms({"quiet.wav": []}, SECONDS, {}, LABELS, Settings())
    assert [metric.name for metric in alone] == ["false_alarms"]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["htsat-sed", "evaluate", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """A dog heard in both of two recordings, 2.5 s each."""
    (tmp_path / "maps").mkdir()
    for name in ("a.wav", "b.wav"):
        scores = np.zeros((32, 2), np.float32)
        scores[8:16, 0] = 0.8
        presence = PresenceMap(scores, ("Dog", "Cat"), 0.3125, 10.0)
        write_presence_map(tmp_path / "maps" / f"{name}.npz", presence, filename=name)
    return tmp_path / "maps"


def test_command_with_presence_maps(
    maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def figures(place: Path, *more: object) -> list[float]:
        found = tmp_path / "found.json"
        assert run(monkeypatch, "--negatives", place, "--json", found, *more) == 0
        headline = json.loads(found.read_text())["metrics"][-1 if more else 0]["headline"]
        return [headline[name]["value"] for name in ("per_hour", "time")]

    assert figures(maps) == [360.0, 0.25]
    assert "false alarms in 2 negatives, 0.01 h" in capsys.readouterr().out
    (maps / "clips.tsv").write_text("filename\tevent_labels\na.wav\tDog\nb.wav\t\nc.wav\t\n")
    assert figures(maps) == [180.0, 0.125]
    assert "1 negative of the table missing" in capsys.readouterr().err
    (maps / "one.tsv").write_text("filename\tevent_labels\nb.wav\t\n")
    assert figures(maps / "one.tsv") == [360.0, 0.25]

    # Beside a reference: the same figures after its own.
    (tmp_path / "reference.tsv").write_text("filename\tonset\toffset\tevent_label\na.wav\t2.5\t5\tDog\n")
    found = tmp_path / "both.json"
    both = (tmp_path / "reference.tsv", "--scores", maps, "--negatives", maps / "one.tsv", "--json", found)
    assert run(monkeypatch, *both) == 0
    read = {each["name"]: each for each in json.loads(found.read_text())["metrics"]}
    assert read["intersection"]["headline"]["macro_f1"]["value"] == 1.0
    assert read["false_alarms"]["headline"]["time"]["value"] == 0.25

    assert run(monkeypatch) == 2
    assert run(monkeypatch, "--negatives", maps, "--scores", maps) == 2
    assert run(monkeypatch, "--negatives", tmp_path / "none") == 1
    (maps / "clips.tsv").write_text("filename\tevent_labels\nc.wav\t\n")
    assert run(monkeypatch, "--negatives", maps) == 1
    assert "none of its 1 recordings is below" in capsys.readouterr().err


def test_command_detects_in_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "street").mkdir()
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "street" / "a.wav", 0.1 * rng.standard_normal(32_000), 32_000)
    found = tmp_path / "found.json"
    options = ("--negatives", tmp_path / "street", "--json", found, "--threshold", "0.000001")
    assert run(monkeypatch, *options) == 0
    read = json.loads(found.read_text())
    assert read["metrics"][0]["headline"]["time"]["value"] == 1.0
    assert read["post_processing"]["threshold"] == 1e-6
    (tmp_path / "street" / "b.wav").write_bytes(b"no audio")
    assert run(monkeypatch, *options) == 1
