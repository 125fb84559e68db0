"""Reliability of scores, counted by hand."""

import json
import sys
from pathlib import Path

import pytest

from htsat_sed.annotations import Negative, write_events
from htsat_sed.cli import main
from htsat_sed.detection.events import Event
from htsat_sed.evaluation.reliability import outcomes_of_negatives, outcomes_of_pair, score_reliability
from htsat_sed.evaluation.report import Settings
from htsat_sed.evaluation.tables import pair

REFERENCE = {
    "a.wav": [Event(0.0, 2.0, "Dog"), Event(3.0, 4.0, "Dog"), Event(0.0, 10.0, "Cat")],
    "b.wav": [Event(5.0, 6.0, "Dog")],
}
ESTIMATED = {
    # Half of it dogs; a third; no dog at all, though a cat.
    "a.wav": [Event(1.0, 5.0, "Dog", 0.85), Event(6.0, 9.0, "Dog", 0.4), Event(2.0, 3.0, "Cat", 1.0)],
    "b.wav": [Event(4.0, 7.0, "Dog", 0.81), Event(8.0, 9.0, "Cat", 0.45)],
}


def test_right_events_by_score() -> None:
    outcomes = outcomes_of_pair(pair(REFERENCE, ESTIMATED), dtc=0.5)
    assert outcomes == [
        [(0.85, True, "Dog"), (1.0, True, "Cat"), (0.4, False, "Dog")],
        [(0.81, False, "Dog"), (0.45, False, "Cat")],
    ]
    negatives = {
        "c.wav": [Event(0.0, 1.0, "Dog", 0.89), Event(0.0, 1.0, "Cat", 0.2)],
        "d.wav": [Event(0.0, 1.0, "Bird", 0.9)],
    }
    false = outcomes_of_negatives(negatives, {"c.wav": Negative(frozenset(["Cat"]))}, ("Cat", "Dog"))
    assert false == [[(0.89, False, "Dog")], []]
    found = score_reliability([*outcomes, *false], Settings(bootstrap=20))
    assert found.classes == {
        "0.4 to 0.5": {"events": 2.0, "mean_score": pytest.approx(0.425), "right_share": 0.0},
        "0.8 to 0.9": {"events": 3.0, "mean_score": pytest.approx(0.85), "right_share": pytest.approx(1 / 3)},
        "0.9 to 1.0": {"events": 1.0, "mean_score": 1.0, "right_share": 1.0},
    }
    error = found.headline["calibration_error"]
    assert error.value == pytest.approx((2 * 0.425 + 3 * (0.85 - 1 / 3)) / 6)
    assert error.low is not None
    assert error.high is not None
    assert error.low <= error.value <= error.high
    assert score_reliability([[]], Settings()).headline["calibration_error"].value is None


def test_command_prints_and_draws_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(tmp_path / "reference.tsv", REFERENCE, "tsv")
    write_events(tmp_path / "events.csv", ESTIMATED, "csv")
    command = ["htsat-sed", "evaluate", str(tmp_path / "reference.tsv"), str(tmp_path / "events.csv")]
    files = ["--plot", str(tmp_path / "r.png"), "--json", str(tmp_path / "r.json")]
    monkeypatch.setattr(sys, "argv", [*command, "--reliability", *files])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines() if line.startswith(" 0.8 to 0.9")]
    assert lines == [["0.8", "to", "0.9", "2", "0.8300", "50.00"]]
    metrics = {each["name"] for each in json.loads((tmp_path / "r.json").read_text())["metrics"]}
    assert "reliability_by_score" in metrics
    with_it = (tmp_path / "r.png").read_bytes()
    monkeypatch.setattr(sys, "argv", [*command, *files])
    with pytest.raises(SystemExit):
        main()
    assert len((tmp_path / "r.png").read_bytes()) < len(with_it)
    assert "reliability" not in (tmp_path / "r.json").read_text()


def test_events_without_scores_have_no_reliability(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, events in (("reference", REFERENCE), ("events", ESTIMATED)):
        write_events(tmp_path / f"{name}.tsv", events, "tsv")
    command = ["htsat-sed", "evaluate", *(str(tmp_path / f"{n}.tsv") for n in ("reference", "events"))]
    monkeypatch.setattr(sys, "argv", [*command, "--reliability"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert "events.tsv: has no scores below 1, which --reliability needs" in " ".join(
        capsys.readouterr().err.split()
    )
