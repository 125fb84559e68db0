"""Runs over many recordings: nothing is lost, whatever lies in the folder and whenever they are stopped.

The long versions, with the numbers of the promise, run with ``pytest --long``.
"""

import errno
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from htsat_sed.annotations import read_events, read_presence_map, read_tags
from htsat_sed.annotations.delimited import read_rows
from htsat_sed.cli import main
from htsat_sed.model.checkpoint import save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.runs.failures import check_failures, write_failures

RATE = 32_000
PROGRAM = [sys.executable, "-m", "htsat_sed"]
BATCH = ("--batch-size", "2")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `htsat-sed ...`: exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["htsat-sed", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return call


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = HTSATConfig(classes=4, embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4))
        model = HTSAT(config, ("Dog", "Cat", "Rain, light", "Owl"))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(path, model, post_processing={"threshold": 0.45})
    return path


def plant(folder: Path, names: list[str], *, silent: bool = False) -> None:
    """Recordings of 0.2 to 0.5 s, no two of a sound; silence does not pass the model, which saves time."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        rng = np.random.default_rng(i)
        samples = 0.2 * rng.standard_normal(RATE // 5 + int(rng.integers(RATE // 3))).astype("f4")
        (folder / name).parent.mkdir(exist_ok=True)
        path = os.fsencode(folder / name)  # soundfile takes no text that is none
        soundfile.write(path, samples * (not silent), RATE, format="WAV", subtype="FLOAT")


@pytest.fixture
def few(tmp_path: Path) -> Path:
    plant(tmp_path / "few", ["0.wav", "1.wav"])
    plant(tmp_path / "few", [f"{i}.wav" for i in range(2, 6)], silent=True)
    return tmp_path / "few"


def failures(path: Path) -> dict[str, str]:
    return {row.filename(): row.text("reason") for row in read_rows(path, ("filename", "reason"))}


@contextmanager
def bad_ones(folder: Path) -> Iterator[dict[str, str]]:
    """Plant 25 recordings that are none; name -> part of the reason. Some have names that are hard to write."""
    whole = (folder / "0000.wav").read_bytes()
    bad: dict[str, str] = {}

    def file(name: str, data: bytes, reason: str) -> None:
        (folder / name).write_bytes(data)
        bad[name] = reason

    for i, cut in enumerate((4, 12, 20, 36, 44)):
        file(f"truncated {i}.wav", whole[:cut], "")
    file("empty.wav", b"", "is empty")
    file("empty.flac", b"", "is empty")
    file("empty ☂\n.mp3", b"", "is empty")
    file("text.wav", b"This is no sound.\n" * 50, "")
    file("text.mp3", b"filename\tonset\toffset\n" * 50, "")
    file("picture.wav", b"\x89PNG\r\n\x1a\n" + bytes(500), "")
    file("noise.flac", np.random.default_rng(1).bytes(3000), "")
    file("zeros.m4a", bytes(4096), "")
    file('comma, "quote" and\ttab.ogg', b"OggS" + bytes(100), "")
    file("caf\udce9.wav", b"RIFF", "")
    file("two\nlines.wav", b"RIFF....WAVE", "")
    for name in ("folder.wav", "folder.flac", "night ☾.wav"):
        (folder / name).mkdir()
        bad[name] = "is a folder"
    os.mkfifo(folder / "pipe.wav")
    bad["pipe.wav"] = "is not a regular file"
    with socket.socket(socket.AF_UNIX) as listening:
        previous = Path.cwd()
        os.chdir(folder)  # the path of a socket must be short
        listening.bind("socket.wav")
        os.chdir(previous)
        bad["socket.wav"] = "is not a regular file"
        (folder / "loop.wav").symlink_to("loop.wav")
        bad["loop.wav"] = "Too many levels of symbolic links"
        (folder / "up.wav").symlink_to(folder, target_is_directory=True)
        bad["up.wav"] = "is a folder"
        (folder / "gone.wav").symlink_to("nowhere.wav")
        bad["gone.wav"] = "No such file"
        # Nobody is kept from reading when they are root, so a link that leads through a file stands for it.
        (folder / "closed.wav").symlink_to("text.wav/inside.wav")
        bad["closed.wav"] = "Not a directory"
        yield bad


@pytest.mark.parametrize("number", [40, pytest.param(1975, marks=pytest.mark.long)])
def test_bad_recordings_are_listed_and_all_others_are_there_once(
    run: Run, checkpoint: Path, tmp_path: Path, number: int
) -> None:
    folder = tmp_path / "recordings"
    odd = [
        "a b.wav",
        "line\nbreak.wav",
        "☂ umbrella.wav",
        "caf\udce8.wav",
        ' "quoted", tab\t.wav',
        "\\udce9.wav",
    ]
    names = odd + [f"{i:04d}.wav" for i in range(number - len(odd))]
    plant(folder, names)
    formats = [part for name in ("csv", "jsonl", "audacity") for part in ("-f", name)]
    with bad_ones(folder) as bad:
        assert len(bad) == 25
        code, out, err = run("detect", folder, *BATCH, "-c", checkpoint, "-o", tmp_path / "out", *formats)
    assert (code, out) == (1, "")
    listed = failures(tmp_path / "out" / "failures.csv")
    assert set(listed) == set(bad)
    for name, reason in bad.items():
        assert reason in listed[name], name
    assert f"25 of {number + 25} recordings failed:" in err.splitlines()
    for table in ("events.csv", "events.jsonl"):
        assert list(read_events(tmp_path / "out" / table)) == sorted(names)
    lines = (tmp_path / "out" / "events.jsonl").read_bytes().splitlines()
    assert len(lines) == number
    assert set(read_events(tmp_path / "out", "audacity")) == set(names)


def test_tag_lists_bad_recordings_and_all_others_once(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    names = ["0000.wav", "caf\udce8 ☂\n.wav", "b.wav"]
    plant(folder, names)
    with bad_ones(folder) as bad:
        code, _, _ = run("tag", folder, *BATCH, "-c", checkpoint, "-o", tmp_path / "tags.csv")
    assert code == 1
    assert set(failures(tmp_path / "tags.failures.csv")) == set(bad)
    assert list(read_tags(tmp_path / "tags.csv")) == sorted(names)


def test_mended_recordings_are_done_and_only_those(
    run: Run, checkpoint: Path, few: Path, tmp_path: Path
) -> None:
    undisturbed = tmp_path / "undisturbed.csv"
    assert run("detect", few, *BATCH, "-c", checkpoint, "-o", undisturbed)[0] == 0
    out = tmp_path / "out.csv"
    whole = (few / "3.wav").read_bytes()
    (few / "3.wav").write_bytes(b"")
    assert run("detect", few, *BATCH, "-c", checkpoint, "-o", out)[0] == 1
    assert set(failures(tmp_path / "out.failures.csv")) == {"3.wav"}
    assert (tmp_path / "out.csv.journal").exists()
    (few / "3.wav").write_bytes(whole)
    code, _, err = run("detect", few, *BATCH, "-c", checkpoint, "-o", out)
    assert (code, err) == (0, f"note: 5 of 6 recordings are done already: {out}.journal\n")
    assert out.read_bytes() == undisturbed.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few", "out.csv", "undisturbed.csv"]


@pytest.mark.parametrize("command", ["detect", "tag"])
def test_truncated_recordings_are_used_and_listed_until_they_are_whole(
    command: str, run: Run, checkpoint: Path, few: Path, tmp_path: Path
) -> None:
    whole = (few / "1.wav").read_bytes()
    (few / "1.wav").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "found.csv"
    given = (command, few, "-c", checkpoint, "-o", out)
    code, _, err = run(*given)
    listed = failures(tmp_path / "found.failures.csv")
    assert (code, list(listed)) == (0, ["1.wav"])
    assert listed["1.wav"].startswith("truncated, it ends at 0.")
    assert err.splitlines()[-2:] == [
        f"warning: {few}/1.wav: {listed['1.wav']}",
        f"note: truncated recordings in {tmp_path / 'found.failures.csv'}: 1",
    ]
    half = out.read_text()
    assert "1.wav" in half
    run(*given)
    assert (out.read_text(), failures(tmp_path / "found.failures.csv")) == (half, listed)
    (few / "1.wav").write_bytes(whole)
    assert run(*given)[2].startswith("note: 5 of 6 recordings are done already: ")
    assert sorted(path.name for path in tmp_path.glob("found*")) == ["found.csv"]
    assert out.read_text() != half


def test_finished_runs_do_not_hold_others_up(run: Run, checkpoint: Path, few: Path, tmp_path: Path) -> None:
    (few / "bad.wav").touch()
    for threshold in (0.4, 0.6):
        code, _, err = run(
            "detect", few, *BATCH, "-c", checkpoint, "-o", tmp_path / "a.csv", "--threshold", threshold
        )
        assert code == 1
        assert "done already" not in err
        rows = (tmp_path / "a.csv").read_text().splitlines()[1:]
        assert all(float(row.rsplit(",", 1)[1] or 1) > threshold for row in rows)


class Stopped(BaseException):
    """As a kill: nothing may catch it."""


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """End the next run with an exception when so many recordings are in the journal."""
    from htsat_sed.runs.journal import Journal

    add = Journal.add

    def stop(recordings: int) -> None:
        left = iter(range(recordings))

        def counted(self: Journal, *arguments: object) -> None:
            if next(left, None) is None:
                monkeypatch.setattr(Journal, "add", add)
                raise Stopped
            add(self, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(Journal, "add", counted)

    return stop


def half_done(run: Run, stop_after: Callable[[int], None], recordings: int, *arguments: object) -> None:
    stop_after(recordings)
    with suppress(Stopped):
        run(*arguments)
        raise AssertionError("the run was not stopped")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--threshold", "0.3"], "threshold: 0.3 was 0.45"),
        (["--threshold", "Dog=0.3"], "threshold of Dog: 0.3 was none"),
        (["--median-filter", "0.9"], "median_filter: 0.9 was 0"),
        (["--hop", "5"], "hop: 5 was 10"),
        (["--labels", "Dog"], 'labels: ["Dog"] was ["Dog", "Cat", "Rain, light", "Owl"]'),
        (["-f", "jsonl"], "format: jsonl was csv"),
        (["--scores", "maps"], "scores: "),
        (["-c", "other"], "checkpoint: other.safetensors (sha256 "),
    ],
)
def test_changed_settings_are_refused(
    run: Run,
    checkpoint: Path,
    few: Path,
    tmp_path: Path,
    stop_after: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    changed: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["detect", few, "-c", checkpoint, "-o", "out.csv", *BATCH]
    half_done(run, stop_after, 2, *command)
    if changed == ["-c", "other"]:
        model = HTSAT(
            HTSATConfig(classes=4, embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4)), tuple("abcd")
        )
        save_checkpoint("other.safetensors", model)
        changed = ["-c", "other.safetensors"]
        command[2:4] = []
    journal = Path("out.csv.journal").read_bytes()
    code, out, err = run(*command, *changed)
    assert (code, out) == (2, "")
    assert err.startswith("error: out.csv.journal: the unfinished run of 2 recordings here differs in ")
    assert message in err
    assert err.endswith(
        "Give the same values to go on with it, --restart to begin anew, or another --output\n"
    )
    assert Path("out.csv.journal").read_bytes() == journal
    assert not Path("out.csv").exists()
    code, _, err = run(*command, *changed, "--restart")
    assert (code, err) == (0, "")
    assert not Path("out.csv.journal").exists()


def test_other_recordings_are_refused_and_some_that_left_are_told(
    run: Run, checkpoint: Path, few: Path, tmp_path: Path, stop_after: Callable[[int], None]
) -> None:
    out = tmp_path / "out.csv"
    command = [*BATCH, "-c", checkpoint, "-o", out]
    half_done(run, stop_after, 3, "detect", few, *command)
    plant(tmp_path / "others", ["a.wav"])
    code, _, err = run("detect", tmp_path / "others", *command)
    assert (code, err) == (
        2,
        f"error: {out}.journal: the unfinished run here is of 3 other recordings. Give the same to go on with "
        "it, --restart to begin anew, or another --output\n",
    )
    (few / "1.wav").unlink()
    code, _, err = run("detect", few, *command)
    note = "2 of 5 recordings are done already, 1 others are not among them any more"
    assert (code, err) == (0, f"note: {note}: {out}.journal\n")
    assert list(read_events(out)) == ["0.wav", "2.wav", "3.wav", "4.wav", "5.wav"]


def test_tag_goes_on_and_refuses_likewise(
    run: Run, checkpoint: Path, few: Path, tmp_path: Path, stop_after: Callable[[int], None]
) -> None:
    assert run("tag", few, *BATCH, "-c", checkpoint, "-o", tmp_path / "a.csv", "--wide")[0] == 0
    out = tmp_path / "b.csv"
    half_done(run, stop_after, 4, "tag", few, *BATCH, "-c", checkpoint, "-o", out, "--wide")
    code, _, err = run("tag", few, *BATCH, "-c", checkpoint, "-o", out, "--pool", "mean")
    assert (code, "differs in pool: mean was max. " in err) == (2, True)
    code, _, err = run("tag", few, *BATCH, "-c", checkpoint, "-o", out, "--wide")
    assert (code, err) == (0, f"note: 4 of 6 recordings are done already: {out}.journal\n")
    assert out.read_bytes() == (tmp_path / "a.csv").read_bytes()


def test_what_changed_or_is_missing_is_done_again(
    run: Run, checkpoint: Path, few: Path, tmp_path: Path, stop_after: Callable[[int], None]
) -> None:
    out = tmp_path / "out"
    command = [
        "detect",
        few,
        "-c",
        checkpoint,
        "-o",
        out,
        "-f",
        "csv",
        "-f",
        "audacity",
        "--scores",
        out / "maps",
    ]
    half_done(run, stop_after, 5, *command)
    plant(few, ["1.wav"], silent=True)  # another recording now
    (out / "2.wav.txt").unlink()
    (out / "3.wav.txt").write_text("mended by hand\n")
    (out / "maps" / "4.wav.npz").unlink()
    code, _, err = run(*command)
    assert (code, err) == (0, f"note: 2 of 6 recordings are done already: {out}/htsat-sed.journal\n")
    assert read_events(out / "events.csv")["1.wav"] == []
    assert (out / "2.wav.txt").exists()
    assert (out / "3.wav.txt").read_text() == "mended by hand\n"
    assert {path.name for path in (out / "maps").iterdir()} == {f"{i}.wav.npz" for i in range(6)}
    assert read_presence_map(out / "maps" / "4.wav.npz").labels == ("Dog", "Cat", "Rain, light", "Owl")
    assert not (out / "htsat-sed.journal").exists()


@pytest.fixture
def heard() -> Iterator[None]:
    """A shell ignores Ctrl-C in what it runs in the background, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.long)])
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
    assert len(files[0]) == 2 + 1 + 1 + 2 * 40 * kills  # tables, failures, journal, and two a recording
    assert list(failures(out / "failures.csv")) == ["000 cut off.wav", "bad.wav"]
    for file in files[0]:
        if file.name != "htsat-sed.journal":
            assert (out / file).read_bytes() == (undisturbed / file).read_bytes(), file


@pytest.mark.parametrize("command", ["detect", "tag"])
@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("few", "is a folder: name a file for the failures"),
        ("few/0.wav", "is there, and no list of failures: name another file for them"),
        ("out.csv", "is for the results: name another file for the failures"),
        ("out.csv.journal", "is for the results: name another file for the failures"),
    ],
)
def test_failures_go_where_nothing_else_is(
    run: Run, checkpoint: Path, few: Path, tmp_path: Path, command: str, place: str, reason: str
) -> None:
    before = (few / "0.wav").read_bytes()
    table = tmp_path / place
    code, out, err = run(
        command, few, *BATCH, "-c", checkpoint, "-o", tmp_path / "out.csv", "--failures", table
    )
    assert (code, out, err) == (2, "", f"error: {table}: {reason}\n")
    assert not (tmp_path / "out.csv").exists()
    assert (few / "0.wav").read_bytes() == before


def test_a_list_of_failures_that_another_process_removes_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_file", lambda path: True)  # so it was when it was asked
    check_failures(tmp_path / "gone.csv", [])
    write_failures(tmp_path / "gone.csv", [])


def test_an_old_list_of_failures_goes_when_nothing_fails(
    run: Run, checkpoint: Path, few: Path, tmp_path: Path
) -> None:
    (tmp_path / "f.csv").write_text("filename,reason\na.wav,is empty\n")
    assert run("tag", few / "0.wav", *BATCH, "-c", checkpoint, "--failures", tmp_path / "f.csv")[0] == 0
    assert not (tmp_path / "f.csv").exists()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # as /dev/null, no file to be removed
    assert run("tag", few / "0.wav", *BATCH, "-c", checkpoint, "--failures", pipe)[0] == 0
    assert pipe.exists()


@pytest.mark.parametrize("command", ["detect", "tag"])
def test_what_a_killed_run_half_wrote_goes(
    run: Run, checkpoint: Path, few: Path, tmp_path: Path, command: str
) -> None:
    script = "import os, sys; from htsat_sed.whole_file import whole_file\nwith whole_file(sys.argv[1]): os._exit(9)"
    for name in ("out.csv", "out.failures.csv"):
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
    rest = " of 100 recordings are done; the same command goes on with the others\n"
    assert err in (f"stopped: {count}{rest}" for count in (done, done - 1))  # it may come between the two
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
        if "/compiled/" in name:
            return
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
    assert line.endswith(
        f": cannot be written: No space left on device; {expected} of 6 recordings are done; the same command "
        "goes on with the others"
    )
    assert not list(tmp_path.rglob(".*.part"))
    assert not (out / "events.csv").exists()
    code, _, err = run("detect", few, *BATCH, "-c", checkpoint, "-o", out, *formats)
    assert (code, err) == (0, f"note: {expected} of 6 recordings are done already: {out}/htsat-sed.journal\n")
    assert list(read_events(out / "events.csv")) == [f"{i}.wav" for i in range(6)]


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


def test_skip_existing(run: Run, checkpoint: Path, few: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        "detect",
        few,
        *BATCH,
        "-c",
        checkpoint,
        "-o",
        out,
        "-f",
        "audacity",
        "-f",
        "raven",
        "--skip-existing",
    ]
    (out).mkdir()
    (out / "1.wav.txt").write_text("kept\n")
    (out / "1.wav.selections.txt").write_text("kept\n")
    (out / "2.wav.txt").write_text("not alone\n")
    (few / "bad.wav").touch()
    code, _, err = run(*command)
    assert code == 1
    assert err.splitlines()[0].startswith(f"error: {few}/bad.wav: ")
    assert (out / "1.wav.txt").read_text() == "kept\n"
    assert (out / "2.wav.txt").read_text() != "not alone\n"
    assert len(list(out.iterdir())) == 2 * 6 + 1  # failures.csv
    (few / "bad.wav").unlink()
    before = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.suffix == ".txt"}
    assert run(*command) == (0, "", "")
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_skip_existing_is_not_for_tables(run: Run, checkpoint: Path, few: Path, tmp_path: Path) -> None:
    for more in (["-o", tmp_path / "out.csv"], ["-o", tmp_path / "out", "-f", "webvtt", "-f", "csv"], []):
        code, _, err = run("detect", few, "-c", checkpoint, "--skip-existing", *more)
        assert code == 2
        assert "wanted a folder for formats with one file a recording" in " ".join(
            err.replace("│", "").split()
        )


@pytest.mark.long
def test_processes_that_share_a_folder(checkpoint: Path, tmp_path: Path) -> None:
    plant(tmp_path / "many", [f"{i:02d}.wav" for i in range(16)])
    out = tmp_path / "out"
    command = [
        *PROGRAM,
        "detect",
        str(tmp_path / "many"),
        "-c",
        str(checkpoint),
        "-o",
        str(out),
        "-f",
        "webvtt",
    ]
    both = [
        subprocess.Popen([*command, "--skip-existing"], stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [process.communicate()[1] for process in both] == ["", ""]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(path.name for path in out.iterdir()) == [f"{i:02d}.wav.vtt" for i in range(16)]
    assert len(read_events(out)) == 16


def test_names_that_no_file_can_have_fail_alone(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    names = ["a.wav", "x" * 251 + ".wav", "z.wav"]
    plant(tmp_path / "recordings", names)
    code, _, err = run(
        *(
            "detect",
            tmp_path / "recordings",
            "-c",
            checkpoint,
            "-o",
            tmp_path / "out",
            "-f",
            "raven",
            "-f",
            "csv",
        ),
        *("--scores", tmp_path / "maps"),
    )
    assert code == 1
    assert "File name too long" in err
    assert set(failures(tmp_path / "out" / "failures.csv")) == {names[1]}
    assert list(read_events(tmp_path / "out" / "events.csv")) == ["a.wav", "z.wav"]


def test_a_device_takes_a_table_without_a_journal(
    run: Run, checkpoint: Path, few: Path, tmp_path: Path
) -> None:
    _, expected, _ = run("detect", few, *BATCH, "-c", checkpoint, "-f", "csv")
    reader, writer = os.pipe()
    code, _, _ = run("detect", few, *BATCH, "-c", checkpoint, "-o", f"/dev/fd/{writer}", "-f", "csv")
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert (code, pipe.read()) == (0, expected)
