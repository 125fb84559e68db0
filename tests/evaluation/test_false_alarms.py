"""False alarms, counted by hand."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from htsat_sed.annotations import Negative, write_events, write_presence_map
from htsat_sed.cli import main
from htsat_sed.detection.events import Event, PostProcessing, find_events, read_post_processing
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.errors import UsageError
from htsat_sed.evaluation.class_scores import Choice
from htsat_sed.evaluation.false_alarm_limit import Limit, Point, shared_limit
from htsat_sed.evaluation.false_alarms import count_false_alarms, covered_seconds, score_false_alarms
from htsat_sed.evaluation.report import Settings
from htsat_sed.evaluation.tables import pair
from htsat_sed.evaluation.tuning import tune

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
    out = capsys.readouterr().out
    assert "false alarms in 2 negatives, 0.01 h" in out
    assert "classes without false alarms: 1 of 2" in out
    assert [line.split() for line in out.splitlines() if line.startswith((" Cat", " Dog"))] == [
        ["Dog", "2", "360.0", "25.00"]
    ]
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


def test_command_detects_in_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
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
    (tmp_path / "street" / "clips.tsv").write_text("filename\tevent_labels\na.wav\t\n")
    capsys.readouterr()
    assert run(monkeypatch, *options) == 0
    assert "1 recording of" in (err := " ".join(capsys.readouterr().err.split()))
    assert "missing in its clips.tsv: left out" in err


STEP = 0.3125


def heard(
    seed: int, recordings: int, *, active: float, noise: float = 0.65
) -> tuple[dict[str, list[Event]], dict[str, PresenceMap]]:
    """Events on the token grid, and maps that hear them and others through noise."""
    rng = np.random.default_rng(seed)
    reference: dict[str, list[Event]] = {}
    maps: dict[str, PresenceMap] = {}
    for i in range(recordings):
        there = rng.random((32, 2)) < active
        there |= np.roll(there, 1, axis=0)
        name = f"{seed}-{i}.wav"
        truth = PresenceMap(there.astype(np.float32), ("Cat", "Dog"), STEP, 10.0)
        reference[name] = find_events(truth, PostProcessing())
        scores = (0.45 * there + rng.random((32, 2)) * noise).clip(0, 1)
        maps[name] = PresenceMap(scores.astype(np.float32), ("Cat", "Dog"), STEP, 10.0)
    return reference, maps


@pytest.mark.parametrize("per_hour", [0.0, 300.0, 1500.0])
def test_tuning_keeps_to_the_limit(per_hour: float) -> None:
    reference, maps = heard(1, 12, active=0.1)
    _, quiet = heard(2, 18, active=0.0, noise=0.9)
    limit = Limit(maps=quiet, table={"2-0.wav": Negative(frozenset(["Dog"]))}, per_hour=per_hour)
    found = tune(pair(reference, {}), maps, folds=3, limit=limit)
    assert found.false_alarms is not None
    rates = [float(each.overall()[0][0]) for each in found.false_alarms]
    assert rates[1] <= per_hour
    assert (rates[1] == 0.0) == (per_hour < 1000.0)
    # What is counted is what detection with these values finds.
    rules = found.post_processing()
    events = {name: find_events(each, rules) for name, each in quiet.items()}
    again = count_false_alarms(events, dict.fromkeys(quiet, 10.0), limit.table, ("Cat", "Dog"))
    assert again.events.tolist() == found.false_alarms[1].events.tolist()
    unlimited = tune(pair(reference, {}), maps, folds=3)
    assert found.macro().fitted <= unlimited.macro().fitted + 1e-9
    if per_hour == 300.0:
        # Held out, each of the negatives has values that were chosen without it: more false alarms.
        assert rates[2] > rates[1]


def test_a_loose_limit_changes_nothing() -> None:
    reference, maps = heard(1, 12, active=0.1)
    _, quiet = heard(2, 6, active=0.0, noise=0.9)
    limit = Limit(maps=quiet, table={}, per_hour=1e6)
    found, unlimited = (tune(pair(reference, {}), maps, folds=2, limit=each) for each in (limit, None))
    assert found.macro().fitted == pytest.approx(unlimited.macro().fitted, abs=1e-9)
    none = tune(pair(reference, {}), maps, folds=2, limit=replace(limit, per_hour=0.0))
    assert none.macro().fitted < found.macro().fitted


def test_the_limit_is_shared_where_it_gains_most() -> None:
    def front(*points: tuple[float, float]) -> list[Point]:
        return [Point(n, f1, Choice(threshold=f1)) for n, f1 in points]

    # The first gains 0.2 each for two, the second 0.5 for three, the third 0.1 for one.
    fronts = [
        front((0, 0.2), (1, 0.4), (2, 0.6)),
        front((0, 0.1), (3, 0.6)),
        front((0, 0.3), (1, 0.4)),
    ]

    def shared(limit: float) -> list[float]:
        return [choice.threshold for choice in shared_limit(fronts, limit)]

    assert shared(0.0) == [0.2, 0.1, 0.3]
    assert shared(1.0) == [0.4, 0.1, 0.3]
    assert shared(3.0) == [0.6, 0.1, 0.4]
    assert shared(5.0) == [0.6, 0.6, 0.3]
    assert shared(6.0) == [0.6, 0.6, 0.4]
    assert [c.threshold for c in shared_limit([front((4, 0.3)), front((0, 0.1), (1, 0.2))], 2.0)] == [
        0.3,
        0.1,
    ]
    for wrong in ({"maps": {}, "per_hour": 2.0}, {"maps": {"a": None}, "per_hour": -1.0}):
        with pytest.raises(UsageError):
            Limit(table={}, **wrong)  # type: ignore[arg-type]


def tune_with_negatives(folder: Path) -> tuple[str, dict[str, PresenceMap]]:
    """Write labels and presence maps; the command that tunes with them, and the maps of the negatives."""
    reference, maps = heard(1, 12, active=0.1)
    _, quiet = heard(2, 18, active=0.0, noise=0.9)
    write_events(folder / "reference.tsv", reference, "tsv")
    for name_of, own in (("maps", maps), ("quiet", quiet)):
        (folder / name_of).mkdir()
        for name, each in own.items():
            write_presence_map(folder / name_of / f"{name}.npz", each, filename=name)
    command = f"htsat-sed tune {folder}/reference.tsv --scores {folder}/maps -o {folder}/tuned.toml"
    return f"{command} --negatives {folder}/quiet", quiet


def test_tune_command_with_negatives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command, quiet = tune_with_negatives(tmp_path)
    monkeypatch.setattr(sys, "argv", f"{command} --false-alarms-per-hour 40".split())
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    out = capsys.readouterr().out
    assert "false alarms in 18 negatives, 0.05 h: before " in out
    assert (tmp_path / "tuned.toml").read_text().splitlines()[1].startswith("# false alarms in 18 negatives")
    rules = PostProcessing().override(read_post_processing(tmp_path / "tuned.toml"))
    events = {name: find_events(each, rules) for name, each in quiet.items()}
    assert sum(map(len, events.values())) <= 2


@pytest.mark.parametrize(("limit", "missed"), [(40, False), (300, True)])
def test_tuning_warns_where_held_out_the_limit_is_missed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    limit: int,
    missed: bool,
) -> None:
    command, _ = tune_with_negatives(tmp_path)
    monkeypatch.setattr(sys, "argv", f"{command} --false-alarms-per-hour {limit}".split())
    with pytest.raises(SystemExit):
        main()
    out, err = capsys.readouterr()
    (rate,) = re.findall(r"held out ([0-9.]+) an hour", out)
    warning = f"held out, these values raise {rate} false alarms per hour, more than {limit}: give more"
    assert (float(rate) > limit, warning in " ".join(err.split())) == (missed, missed)


def test_tuning_warns_of_false_alarms_that_it_cannot_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, maps = heard(1, 6, active=0.1)
    cats = {name: [event for event in own if event.label == "Cat"] for name, own in reference.items()}
    write_events(tmp_path / "reference.tsv", cats, "tsv")
    silence = np.zeros((32, 2), np.float32)
    barking = silence.copy()
    barking[4:12, 1] = 1.0
    for folder, own in (("maps", maps), ("quiet", {"a.wav": silence, "b.wav": barking})):
        (tmp_path / folder).mkdir()
        for name, each in own.items():
            whole = each if isinstance(each, PresenceMap) else PresenceMap(each, ("Cat", "Dog"), STEP, 10.0)
            write_presence_map(tmp_path / folder / f"{name}.npz", whole, filename=name)
    (tmp_path / "quiet" / "clips.tsv").write_text("filename\tevent_labels\na.wav\tdog\nb.wav\t\n")
    command = f"htsat-sed tune {tmp_path}/reference.tsv --scores {tmp_path}/maps -o {tmp_path}/tuned.toml"
    monkeypatch.setattr(sys, "argv", f"{command} --negatives {tmp_path}/quiet".split())
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    warned = " ".join(capsys.readouterr().err.split())
    assert (
        "classes without labels are not tuned, and raise 180.0 false alarms per hour more: Dog (1);" in warned
    )
    assert "1 label in" in warned
    assert "that no class has: ignored (dog)" in warned
    monkeypatch.setattr(sys, "argv", f"{command} --false-alarms-per-hour 1 --overwrite".split())
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "needs --negatives" in capsys.readouterr().err
