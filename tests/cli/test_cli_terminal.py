"""What a person sees: how far it is, how long the rest takes, and names as they are."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from htsat_sed.cli import progress as progress_module
from htsat_sed.cli.progress import DownloadProgress, Pace, RecordingsProgress, TrainingProgress
from htsat_sed.cli.terminal import output, remark, say, shown


def test_the_rest_takes_as_long_as_what_is_done() -> None:
    pace = Pace()
    assert pace.left(10.0) is None
    pace.note(104.0, 2.0)
    assert pace.left(10.0) is None
    pace.note(108.0, 4.0)
    assert pace.left(10.0) == 12.0


@pytest.mark.parametrize(("first", "then"), [(60.0, 4.0), (4.0, 0.3)])
def test_bursts_count_from_the_first_one(first: float, then: float) -> None:
    pace = Pace()
    for batch in range(10):  # of eight windows
        for window in range(8):
            pace.note(first + then * batch + window / 1000, (8 * batch + window + 1) / 360)
    assert pace.left(1.0) == pytest.approx(then * 280 / 8, rel=0.02)


def test_the_last_minute_counts() -> None:
    pace = Pace()
    for second in range(1, 301):  # at first ten times as fast
        pace.note(float(second), 10.0 * min(second, 200) + max(0, second - 200))
    assert pace.left(2200.0) == pytest.approx(100.0)


@given(st.floats(0.01, 50.0), st.floats(0.001, 10.0), st.integers(2, 400))
def test_an_even_pace_is_told_exactly(stride: float, speed: float, steps: int) -> None:
    pace = Pace()
    for step in range(1, steps + 1):
        pace.note(step * stride, step * stride * speed)
    left = pace.left(1e5)
    if left is None:
        assert steps * stride < 2.5 + 2 * stride
    else:
        assert left == pytest.approx(1e5 / speed - steps * stride, rel=1e-6)


def test_what_was_done_before_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recordings that are there already come between those that are not, as with --skip-existing."""
    now = 0.0
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now)
    progress = RecordingsProgress("detecting", total=100)
    progress.done_before(20)
    for _ in range(10):
        now += 2.0
        progress.done()
        progress.done_before(3)
    (task,) = progress._bar.tasks
    assert task.completed == 60
    assert task.fields["left"] == "0:01:26"  # for all 43 that were left then: nobody knows which are there


def test_without_a_terminal_there_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now)
    with RecordingsProgress("detecting", total=100) as progress:
        for _ in range(50):  # 10 % every 20 s
            now += 2.0
            progress.done()
        for _ in range(50):  # 10 % every 200 s, so that every 30 s is earlier
            now += 20.0
            progress.done()
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[:2] == [
        "detecting: 10 of 100 recordings (10%), 30 recordings/min, 0:03:00 left",
        "detecting: 20 of 100 recordings (20%), 30 recordings/min, 0:02:40 left",
    ]
    assert len(lines) == 5 + 24 + 1
    assert lines[-1] == "detecting: 100 of 100 recordings in 0:18:20"


@pytest.mark.parametrize("way", ["auto", "lines"])
def test_a_short_run_prints_no_line(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown.progress = way
    with RecordingsProgress("detecting", total=100) as progress:
        progress.done(100)
    shown.progress = "auto"
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("options", [{"quiet": True}, {"progress": "none"}])
def test_progress_can_be_switched_off(
    options: dict[str, object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now)
    for name, value in options.items():
        monkeypatch.setattr(shown, name, value)
    for progress in (RecordingsProgress("detecting", 9), TrainingProgress(2, shown=True)):
        with progress:
            for step in range(9):
                now += 100.0
                if isinstance(progress, TrainingProgress):
                    progress.update(step, 9, {})
                else:
                    progress.done()
    assert capsys.readouterr() == ("", "")


def test_lines_of_downloads_and_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now)
    with DownloadProgress("audioset", 100_000_000) as download:
        for megabytes in (50, 60, 70):  # 49 MB were there already
            now += 10.0
            download.update(megabytes * 1_000_000, 100_000_000)
    with TrainingProgress(1, shown=True, doing="head 2 of 3", unit="windows") as training:
        for step in (1, 100):
            now += 20.0
            training.update(step, 200, {})
    with TrainingProgress(4, shown=True) as training:
        for step in (101, 102, 104):
            now += 20.0
            training.update(step, 400, {"clip_loss": 0.25, "rate": 1.0})
    assert capsys.readouterr().err.splitlines() == [
        "audioset: 50.0 of 100.0 MB (50%), -:--:-- left",
        "audioset: 60.0 of 100.0 MB (60%), 1 MB/s, 0:00:40 left",
        "audioset: 70.0 of 100.0 MB (70%), 1 MB/s, 0:00:30 left",
        "audioset: 70.0 of 100.0 MB in 0:00:30",
        "head 2 of 3: 100 of 200 windows (50%), 4.95 windows/s, 0:00:20 left",
        "head 2 of 3: 100 of 200 windows in 0:00:40",
        "epoch 2 of 4: 101 of 400 steps (25%), -:--:-- left, clip_loss 0.250",
        "epoch 2 of 4: 104 of 400 steps (26%), 4.5 steps/min, 1:05:47 left, clip_loss 0.250",
        "epoch 2 of 4: 104 of 400 steps in 0:01:00",
    ]


@pytest.mark.parametrize(
    "command",
    [
        ["detect"],
        ["tag"],
        ["evaluate"],
        ["plot"],
        ["tune"],
        ["segments"],
        ["soundscapes"],
        ["train"],
        ["checkpoints", "pull"],
        ["checkpoints", "calibrate"],
    ],
    ids=" ".join,
)
def test_every_command_that_takes_long_can_be_told_how_to_show_it(
    command: list[str], run: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, _ = run(*command, "--help")
    assert (code, "--progress" in out, "--quiet" in out) == (0, True, True)


def test_quiet_leaves_errors_alone(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    reference, estimated = tmp_path / "reference.tsv", tmp_path / "estimated.tsv"
    reference.write_text("filename\tonset\toffset\tevent_label\na.wav\t0\t1\tDog\n")
    estimated.write_text("filename\tonset\toffset\tevent_label\na.wav\t0\t1\tDog\nb.wav\t0\t1\tDog\n")
    assert "warning: " in run("evaluate", reference, estimated)[2]
    code, out, err = run("evaluate", reference, estimated, "--quiet")
    assert (code, err, "Dog" in out) == (0, "", True)
    code, out, err = run("evaluate", reference, tmp_path / "nothing.tsv", "-q")
    assert (code, out, err.startswith(f"error: {tmp_path / 'nothing.tsv'}: ")) == (1, "", True)


ODD = "[music] [/b] :dog: \x1b[31mred\x1b[0m\x07"


def test_names_and_labels_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("class", title=ODD)
    table.add_row(ODD)
    output.print(ODD)
    output.print(table)
    say("note", ODD)
    remark(ODD)
    out, err = capsys.readouterr()
    plain = "[music] [/b] :dog: \\x1b[31mred\\x1b[0m\\x07"
    assert out.count(plain) == 3
    assert err == f"note: {plain}\n{plain}\n"


@pytest.mark.parametrize("argument", [("detect", "--hop", "\x1b[31m"), ("\x1b[31m",), ("--\x1b[31m",)])
def test_usage_errors_print_no_control_characters(
    argument: tuple[str, ...], run: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, err = run(*argument, "x.wav")
    assert (code, out, "\x1b" in err) == (2, "", False)


@pytest.mark.parametrize(
    "locale",
    [{"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["cp1252", "ascii"],
)
def test_output_is_utf8_whatever_the_locale(locale: dict[str, str], tmp_path: Path) -> None:
    names = ["Übung ☂.wav", "caf\udce9.wav"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    table = "filename\tonset\toffset\tevent_label\nÜbung ☂.wav\t0\t1\tKäuzchen\n".encode()
    (tmp_path / "labels.tsv").write_bytes(table)
    environment = {key: os.environ[key] for key in ("PATH", "HTSAT_SED_HOME") if key in os.environ} | locale

    def done(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "htsat_sed", *arguments]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=False)

    scored = done("evaluate", "labels.tsv", "labels.tsv")
    assert (scored.returncode, scored.stderr) == (0, b"")
    assert " Käuzchen " in scored.stdout.decode()
    found = done("tag", ".")
    assert found.returncode == 1
    assert "error: Übung ☂.wav: is empty" in found.stderr.decode()
    assert "error: caf\\udce9.wav: is empty" in found.stderr.decode()


def test_commands_print_through_what_escapes() -> None:
    """No bare print, no console that interprets markup, no rich text that was not made printable."""
    folder = Path(progress_module.__file__).parent
    for path in folder.glob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        for line in lines:
            bare = re.match(r"\s*print\(", line) and path.name != "terminal.py"
            assert not bare, f"{path.name}: {line}"
            assert not re.search(r"\bText\((?!printable)|markup=True|from_markup", line), (
                f"{path.name}: {line}"
            )
