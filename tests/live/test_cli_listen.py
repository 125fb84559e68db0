"""`htsat-sed listen` as a program: output, signals, closed pipes and full disks."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from golden.reference_state import recording

from htsat_sed.annotations import read_events

RATE = 32_000
PROGRAM = [sys.executable, "-c", "from htsat_sed.cli import program; program()"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def options(checkpoint: Path) -> list[str]:
    return ["-c", str(checkpoint), "--hop", "2.5", "--runtime", "torch"]


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path | bytes], None]:
    def give(data: Path | bytes) -> None:
        content = data.read_bytes() if isinstance(data, Path) else data

        class Input:
            buffer = io.BytesIO(content)
            isatty = staticmethod(lambda: False)

        monkeypatch.setattr(sys, "stdin", Input)

    return give


def test_final_events_are_those_of_detect(
    run: Run, options: list[str], street: Path, tmp_path: Path, piped: Callable[[Path | bytes], None]
) -> None:
    code, _, _ = run("detect", street, *options, "--batch-size", 1, "-o", tmp_path / "events.csv")
    assert code == 0
    piped(street)
    code, out, err = run("listen", "-", *options)
    assert code == 0
    assert err.splitlines()[-1].startswith("note: hop 2.5 s; final events are reported at most ")
    lines = [json.loads(line) for line in out.splitlines()]
    found = sorted(
        (f"{line['onset']:.3f}", f"{line['offset']:.3f}", line["label"])
        for line in lines
        if line["state"] == "final"
    )
    (expected,) = read_events(tmp_path / "events.csv").values()
    assert found == sorted((f"{e.onset:.3f}", f"{e.offset:.3f}", e.label) for e in expected)
    assert len(found) > 5


def test_raw_samples_one_class_and_a_start(
    run: Run, options: list[str], street: Path, piped: Callable[[Path | bytes], None]
) -> None:
    _, expected, _ = run("detect", street, *options, "--batch-size", 1, "--labels", "Cat", "-f", "jsonl")
    samples, _ = soundfile.read(street, dtype="int16")
    piped(np.repeat(samples[:, None], 2, axis=1).astype(">i2").tobytes())
    raw = ["--raw", "s16be", "--raw-channels", 2, "--channel", 2, "--start", "2026-01-02T03:04:05+0000"]
    code, out, _ = run("listen", "-", *options, *raw, "--labels", "Cat", "--quiet")
    assert code == 0
    final = [line for line in map(json.loads, out.splitlines()) if line["state"] == "final"]
    assert sorted((each["onset"], each["offset"]) for each in final) == sorted(
        (each["onset"], each["offset"]) for each in json.loads(expected)["events"]
    )
    assert {each["label"] for each in final} == {"Cat"}
    assert all(each["begin"].startswith("2026-01-02T03:04:") for each in final)
    assert all(each["begin"].endswith("+00:00") for each in final)


def test_clips_and_commands(
    run: Run, options: list[str], street: Path, tmp_path: Path, piped: Callable[[Path | bytes], None]
) -> None:
    piped(street)
    script = f"import sys; open({str(tmp_path / 'log')!r}, 'a').write(sys.stdin.read() + chr(10))"
    command = f'{sys.executable} -S -c "{script}"'
    arguments = ["--save", tmp_path / "clips", "--exec", command, "--labels", "Dog", "--threshold", "0.8"]
    code, out, _ = run("listen", "-", *options, *arguments)
    assert code == 0
    final = [line for line in out.splitlines() if json.loads(line)["state"] == "final"]
    assert (tmp_path / "log").read_text().splitlines() == final
    assert all(Path(json.loads(line)["clip"]).is_file() for line in final)
    assert final


def test_the_live_view_shows_level_classes_and_events(
    run: Run, options: list[str], street: Path, piped: Callable[[Path | bytes], None]
) -> None:
    piped(street)
    code, out, _ = run("listen", "-", *options, "--view", "live")
    assert code == 0
    assert "final" in out
    assert "Cat" in out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-", "--latency", "3"], "wanted at least "),
        (["-", "--raw", "mp3"], "wanted raw samples as one of"),
        (["-", "--input", "1"], "selects a microphone"),
        (["-", "--webhook", "nowhere"], "--webhook: wanted a URL"),
        (["-", "--hop", "11"], "wanted a hop of more than 0 and at most 10 s"),
        (["-", "--labels", "Dug"], "no class 'Dug'"),
        (["http://h/", "--raw", "u8"], "raw samples come from standard input"),
    ],
)
def test_impossible_options(run: Run, checkpoint: Path, arguments: list[str], reason: str) -> None:
    code, out, err = run("listen", *arguments[:1], "-c", checkpoint, "--hop", 5, *arguments[1:])
    assert (code, out) == (2, "")
    assert reason in " ".join(err.replace("│", " ").split())


def test_boxes_are_refused(run: Run, options: list[str], tmp_path: Path) -> None:
    (tmp_path / "boxes.toml").write_text("step_filter = 1.0\n")
    code, _, err = run("listen", "-", *options, "--post-processing", tmp_path / "boxes.toml")
    assert code == 2
    assert "has a step_filter, whose events are known only at the end" in err


def test_what_comes_is_no_recording(
    run: Run, options: list[str], piped: Callable[[Path | bytes], None]
) -> None:
    piped(b"hello " * 1000)
    code, out, err = run("listen", "-", *options)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].endswith("is a text file, not a recording")


@contextmanager
def listening(
    options: list[str], *more: str, **how: object
) -> Iterator[tuple[subprocess.Popen, threading.Event]]:
    """The program on an endless pipe; the event ends the sound."""
    process = subprocess.Popen(
        [*PROGRAM, "listen", "-", "--raw", "s16le", *options, *more],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **how,
    )
    over = threading.Event()
    second = [(20_000 * recording(1.0, RATE, seed)).astype("<i2").tobytes() for seed in range(7)]

    def send() -> None:
        number = 0
        try:
            while not over.is_set():
                process.stdin.write(second[number % 7])
                number += 1
        except OSError:
            pass

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield process, over
    finally:
        over.set()
        process.kill()
        thread.join()
        for stream in (process.stdin, process.stdout, process.stderr):
            try:
                if stream is not None:
                    stream.close()
            except OSError:
                pass
        process.wait()


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM], ids=str
)
def test_a_signal_finishes_the_open_events(options: list[str], number: signal.Signals) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in the background
    try:
        with listening(options, stdout=subprocess.PIPE) as (process, _):
            first = process.stdout.readline()
            process.send_signal(number)
            rest = process.stdout.read()
            err = process.stderr.read().decode()
            assert process.wait(60) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    states: dict[int, str] = {}
    for line in (first + rest).splitlines():
        report = json.loads(line)
        states[report["number"]] = report["state"]
    assert set(states.values()) <= {"final", "withdrawn"}
    assert err.splitlines()[-1].startswith("stopped: ")
    assert err.splitlines()[-1].endswith(" events")


def test_sighup_reads_thresholds_again(options: list[str], tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text("threshold = 0.0\n")
    more = ["--post-processing", str(rules), "--labels", "Dog"]
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
    try:
        with listening(options, *more, stdout=subprocess.PIPE) as (process, over):
            assert json.loads(process.stdout.readline())["state"] == "begin"
            rules.write_text("threshold = wrong\n")
            process.send_signal(signal.SIGHUP)
            messages = iter(process.stderr.readline, b"")
            assert any(b"labels and thresholds are unchanged" in line for line in messages)
            rules.write_text("threshold = 1.0\n")
            process.send_signal(signal.SIGHUP)
            assert any(b"labels and thresholds were reloaded" in line for line in messages)
            final = json.loads(process.stdout.readline())
            over.set()
            process.stdin.close()
            rest = process.stdout.read()
            assert process.wait(60) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert final["state"] == "final"
    assert rest == b""


def test_a_closed_pipe_ends_it(options: list[str]) -> None:
    with listening(options, stdout=subprocess.PIPE) as (process, _):
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 1
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")  # noqa: PTH110
def test_a_full_disk_behind_standard_output_is_one_line(options: list[str]) -> None:
    with open("/dev/full", "w") as full, listening(options, stdout=full) as (process, _):  # noqa: PTH123
        assert process.wait(60) == 1
        last = process.stderr.read().decode().splitlines()[-1]
    assert last == "error: standard output: cannot be written: No space left on device"
