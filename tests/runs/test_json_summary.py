"""What a run leaves for schedulers and logs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from planted import BATCH, Run, plant

from htsat_sed.cli.terminal import say, shown
from htsat_sed.runs.run import Run as RunOfRecordings


def test_counts_of_a_run_and_of_the_one_that_goes_on(
    run: Run, checkpoint: Path, few: Path, tmp_path: Path
) -> None:
    whole = (few / "3.wav").read_bytes()
    (few / "2.wav").write_bytes(b"")
    (few / "3.wav").write_bytes(whole[: len(whole) // 2])
    summary = tmp_path / "summary.json"
    command = ("detect", few, *BATCH, "-c", checkpoint, "-o", tmp_path / "a.csv", "--json-summary", summary)
    assert run(*command)[0] == 1
    first = json.loads(summary.read_text())
    counts = {"recordings": 6, "done": 5, "done_before": 0, "failed": 1, "damaged": 1, "complete": True}
    assert {name: first[name] for name in counts} == counts
    assert first["shard"] is None
    assert first["failures"] == str(tmp_path / "a.csv.failures.csv")
    assert 1.0 < first["audio_seconds"] < 3.0  # 5 of 0.2 to 0.5 s
    assert first["seconds"] > 0.0
    (few / "2.wav").write_bytes(whole)
    assert run(*command)[0] == 0
    again = json.loads(summary.read_text())
    counts = {"recordings": 6, "done": 6, "done_before": 5, "failed": 0, "damaged": 1, "complete": True}
    assert {name: again[name] for name in counts} == counts
    assert again["audio_seconds"] < 0.6


def test_a_run_that_an_error_ends_says_so(
    run: Run, checkpoint: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: RunOfRecordings, *_: object) -> None:
        raise OSError(28, "No space left on device", "disk")

    monkeypatch.setattr(RunOfRecordings, "note", full)
    summary = tmp_path / "summary.json"
    assert (
        run("tag", few, *BATCH, "-c", checkpoint, "-o", tmp_path / "a.csv", "--json-summary", summary)[0] == 1
    )
    assert json.loads(summary.read_text())["complete"] is False


def test_a_summary_goes_over_no_recording(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    plant(tmp_path, ["a.wav"], silent=True)
    before = (tmp_path / "a.wav").read_bytes()
    code, _, err = run("detect", tmp_path / "a.wav", "-c", checkpoint, "--json-summary", tmp_path / "a.wav")
    assert (code, "has the suffix of a recording" in err) == (1, True)
    assert (tmp_path / "a.wav").read_bytes() == before


def test_a_log_gets_every_message_also_with_quiet(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "\x1b[31m.wav").write_bytes(b"")
    log = tmp_path / "log.txt"
    for _ in range(2):
        code, _, err = run("tag", tmp_path / "in", "-c", checkpoint, "--quiet", "--log", log)
        assert (code, err.count("\n")) == (1, 1)
    lines = log.read_text().splitlines()
    assert len(lines) == 4
    for line in lines:
        assert re.match(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d \[\d+\] (htsat-sed tag|error: )", line
        ), line
    assert r"\x1b[31m.wav: is empty" in lines[1]
    code, _, err = run("tag", tmp_path / "in", "--log", tmp_path / "nowhere" / "log.txt")
    assert (code, "cannot be written: No such file or directory" in err) == (1, True)


def test_a_log_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    shown.log = tmp_path / "gone" / "log.txt"
    say("note", "still here")


def test_threads(run: Run, checkpoint: Path, few: Path) -> None:
    before = torch.get_num_threads()
    try:
        assert run("detect", few, *BATCH, "-c", checkpoint, "--threads", 1)[0] == 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_summary_goes_over_no_file_of_others(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    plant(tmp_path, ["a.wav"], silent=True)
    summary = tmp_path / "s.json"
    summary.write_text("{}")
    command = ("detect", tmp_path / "a.wav", "-c", checkpoint, "--json-summary", summary)
    code, _, err = run(*command)
    assert (code, "give --overwrite" in err) == (2, True)
    assert summary.read_text() == "{}"
    assert run(*command, "--overwrite")[0] == 0
    assert run(*command)[0] == 0  # its own
    assert json.loads(summary.read_text())["recordings"] == 1


def test_a_log_goes_into_no_file_of_others(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    plant(tmp_path, ["a.wav"], silent=True)
    (tmp_path / "labels.csv").write_text("filename,onset,offset,event_label\na.wav,0,1,Dog\n")
    for name in ("a.wav", "labels.csv"):
        before = (tmp_path / name).read_bytes()
        code, _, err = run("detect", tmp_path / "a.wav", "-c", checkpoint, "--log", tmp_path / name)
        assert (code, "is not a log of htsat-sed" in err) == (2, True)
        assert (tmp_path / name).read_bytes() == before
