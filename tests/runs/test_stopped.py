"""Killed, interrupted or out of disk: nothing is lost.

The long version, with the numbers of the promise, runs with ``pytest --long``.
"""

import errno
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from planted import BATCH, PROGRAM, Run, failures, plant

from htsat_sed.annotations import read_events


@pytest.fixture
def heard() -> Iterator[None]:
    """A shell ignores Ctrl-C in what it runs in the background, nohup SIGHUP, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    hang_up = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before)
    signal.signal(signal.SIGHUP, hang_up)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.long
@pytest.mark.parametrize("kills", [1, 10])
def test_killed_at_random_and_resumed_the_output_is_the_same_to_the_byte(
    run: Run, checkpoint: Path, tmp_path: Path, kills: int
) -> None:
    folder = tmp_path / "recordings"
    plant(folder, [f"{i:03d}.wav" for i in range(40 * kills - 1)])
    (folder / "000 cut off.wav").write_bytes((folder / "000.wav").read_bytes()[:9000])
    (folder / "bad.wav").touch()
    arguments = [*BATCH, "-c", str(checkpoint), "-f", "csv", "-f", "jsonl", "-f", "textgrid"]
    out, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    for place in (undisturbed, out):
        place.mkdir()
    chance = random.Random(5)
    journal = out / "htsat-sed.journal"
    command = ["detect", str(folder), *arguments, "-o", str(out), "--scores", str(out / "maps")]
    for _ in range(kills):
        process = subprocess.Popen([*PROGRAM, *command], stderr=subprocess.DEVNULL)
        before = max(1, lines(journal))
        while process.poll() is None and lines(journal) <= before:
            time.sleep(0.001)  # a kill before anything is done proves little
        time.sleep(chance.uniform(0.0, 0.1))
        process.kill()
        process.wait()
    assert journal.exists()
    assert not (out / "events.csv").exists()
    script = "import os, sys; from htsat_sed.whole_file import whole_file\nwith whole_file(sys.argv[1]): os._exit(9)"
    for name in ("events.csv", "maps/000.wav.npz", "000.wav.TextGrid"):  # as if killed while writing them
        subprocess.run([sys.executable, "-c", script, out / name], check=False)
    assert len(list(out.rglob(".*.part"))) >= 3
    done = lines(journal) - 1
    code, _, err = run(*command)
    assert code == 1
    assert f" of {40 * kills + 1} recordings are done already" in err
    assert 0 < done < 40 * kills
    assert run("detect", folder, *arguments, "-o", undisturbed, "--scores", undisturbed / "maps")[0] == 1
    files = [
        sorted(p.relative_to(place) for p in place.rglob("*") if p.is_file()) for place in (undisturbed, out)
    ]
    assert files[0] == files[1]
    assert (
        len(files[0]) == 2 + 1 + 1 + 2 + 2 * 40 * kills
    )  # tables, failures, journal, records, two a recording
    assert list(failures(out / "failures.csv")) == ["bad.wav", "000 cut off.wav"]
    for file in files[0]:
        if file.name not in ("htsat-sed.journal", ".htsat-sed.outputs"):
            assert (out / file).read_bytes() == (undisturbed / file).read_bytes(), file


@pytest.mark.parametrize("command", ["detect", "tag"])
def test_what_a_killed_run_half_wrote_goes(
    run: Run, checkpoint: Path, few: Path, tmp_path: Path, command: str
) -> None:
    script = "import os, sys; from htsat_sed.whole_file import whole_file\nwith whole_file(sys.argv[1]): os._exit(9)"
    for name in ("out.csv", "out.csv.failures.csv"):
        subprocess.run([sys.executable, "-c", script, tmp_path / name], check=False)
    assert len(list(tmp_path.glob(".*.part"))) == 2
    assert run(command, few, *BATCH, "-c", checkpoint, "-o", tmp_path / "out.csv")[0] == 0
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.usefixtures("heard")
def test_ctrl_c_ends_the_run_with_what_is_done(checkpoint: Path, tmp_path: Path) -> None:
    plant(tmp_path / "many", [f"{i:04d}.wav" for i in range(100)])
    journal = tmp_path / "out.csv.journal"
    command = [
        "detect",
        str(tmp_path / "many"),
        *BATCH,
        "-c",
        str(checkpoint),
        "-o",
        str(tmp_path / "out.csv"),
    ]
    process = subprocess.Popen([*PROGRAM, *command], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (journal.exists() and len(journal.read_bytes().splitlines()) > 1):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    done = len(journal.read_bytes().splitlines()) - 1
    assert 0 < done < 100
    rest = " of 100 recordings are done; the same command resumes with the others\n"
    assert err in (f"stopped: {count}{rest}" for count in (done, done - 1))  # it may come between the two
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_obeyed_even_where_the_main_thread_is_busy(number: signal.Signals) -> None:
    script = (
        "import ctypes\n"
        "from htsat_sed.cli.interruption import Interruptible\n"
        "with Interruptible() as stop:\n"
        "    stop.left = lambda: 'all is well'\n"
        "    while True:\n"
        "        try:\n"
        "            print('busy', flush=True)\n"
        "            ctypes.CDLL(None).sleep(100)\n"
        "        except KeyboardInterrupt: pass\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "busy\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "stopped: all is well\n")


def test_before_anything_is_done_a_signal_ends_at_once() -> None:
    script = (
        "import os, signal, sys\n"
        "from htsat_sed.cli.interruption import Interruptible\n"
        "with Interruptible():\n"
        "    try: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    except BaseException as error: print(error, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (130, "stopped: nothing was done yet\n")


def test_sigterm_ends_other_commands_as_ctrl_c_does() -> None:
    script = (
        "import os, signal\n"
        "import htsat_sed.cli as cli\n"
        "def main():\n"
        "    try: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    except KeyboardInterrupt: print('in order', flush=True)\n"
        "cli.main = main\n"
        "cli.program()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "in order\n", "")


@pytest.mark.parametrize("fills", ["journal", "table", "labels", "maps"])
def test_a_full_disk_is_one_line_and_no_loss(
    run: Run, checkpoint: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fills: str
) -> None:
    out = tmp_path / "out"
    formats = ["-f", "csv", "-f", "audacity", "--scores", tmp_path / "maps"]
    expected = {"journal": 2, "table": 6, "labels": 2, "maps": 2}[fills]
    calls = iter(range(1000))
    sync = os.fsync

    def full(handle: int) -> None:
        """No room from the third recording on, or for the table."""
        name = str(Path(f"/proc/self/fd/{handle}").readlink())
        of = "journal" if name.endswith("journal") else "maps" if "/maps/" in name else "labels"
        if of != "journal" and not name.endswith(".part"):
            of = "folder"
        after = {"journal": 3, "labels": 2, "maps": 2, "table": 6}[fills]
        if of in (fills, "labels" if fills == "table" else fills) and next(calls) >= after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        patch.setattr("htsat_sed.runs.journal._SYNC_EVERY", 0.0)
        code, _, err = run("detect", few, *BATCH, "-c", checkpoint, "-o", out, *formats)
    assert code == 1
    (line,) = err.splitlines()
    assert line.startswith(f"error: {tmp_path}/")
    assert f": cannot be written: No space left on device; {expected} of 6 recordings are done; " in line
    assert not list(tmp_path.rglob(".*.part"))
    assert not (out / "events.csv").exists()
    code, _, err = run("detect", few, *BATCH, "-c", checkpoint, "-o", out, *formats)
    assert (code, err) == (0, f"note: {expected} of 6 recordings are done already: {out}/htsat-sed.journal\n")
    assert list(read_events(out / "events.csv")) == [f"{i}.wav" for i in range(6)]


def test_standard_output_that_is_closed(few: Path, checkpoint: Path) -> None:
    command = shlex.join([*PROGRAM, "detect", str(few), "-c", str(checkpoint)])
    done = subprocess.run(f"{command} >&-", shell=True, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    reason = "is closed: redirect it to a file, or give --output"  # found before the first recording
    assert done.stderr == f"error: standard output: {reason}\n"


@pytest.mark.usefixtures("heard")
def test_a_closed_terminal_leaves_no_half_written_file(tmp_path: Path) -> None:
    script = (
        "import os, sys, signal\n"
        "import htsat_sed.cli\n"
        "from htsat_sed.whole_file import whole_file\n"
        "def main():\n"
        "    with whole_file(sys.argv[1]) as file:\n"
        "        file.write('half')\n"
        "        os.kill(os.getpid(), signal.SIGHUP)\n"
        "        signal.pause()\n"
        "htsat_sed.cli.main = main\n"
        "htsat_sed.cli.program()\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "out.csv")], timeout=60)
    assert done.returncode == 130
    assert list(tmp_path.iterdir()) == []


def test_a_report_for_a_standard_output_that_is_closed(tmp_path: Path) -> None:
    (tmp_path / "r.tsv").write_text("filename\tonset\toffset\tevent_label\na.wav\t0\t1\tDog\n")
    command = shlex.join([*PROGRAM, "evaluate", "r.tsv", "r.tsv"])
    done = subprocess.run(f"{command} >&-", shell=True, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output: is closed")


def test_a_working_folder_that_was_deleted(few: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    command = shlex.join([*PROGRAM, "detect", str(few.absolute()), "-c", str(checkpoint.absolute())])
    delete = f"cd {shlex.quote(str(tmp_path / 'gone'))} && rmdir ../gone && {command} -o events.csv"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        delete, shell=True, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr == "error: the current folder: does not exist any more: change to another one\n"


def test_standard_output_that_is_full() -> None:
    script = (
        "from htsat_sed.cli.terminal import emit\n"
        "from htsat_sed.errors import HtsatSedError\n"
        "import sys\n"
        "try: emit('data')\n"
        "except HtsatSedError as error: print(error, file=sys.stderr)\n"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", script], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0  # Python does not try again at exit
    assert done.stderr == "standard output: cannot be written: No space left on device\n"
