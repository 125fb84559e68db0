"""Whatever lies in a folder, the run goes on and lists what failed.

The long version, with the numbers of the promise, runs with ``pytest --long``.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from planted import BATCH, Run, failures, plant

from htsat_sed.annotations import read_events, read_tags
from htsat_sed.runs.failures import check_failures, write_failures


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
    assert set(failures(tmp_path / "tags.csv.failures.csv")) == set(bad)
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
    assert set(failures(tmp_path / "out.csv.failures.csv")) == {"3.wav"}
    assert (tmp_path / "out.csv.journal").exists()
    (few / "3.wav").write_bytes(whole)
    code, _, err = run("detect", few, *BATCH, "-c", checkpoint, "-o", out)
    assert (code, err) == (0, f"note: 5 of 6 recordings are done already: {out}.journal\n")
    assert out.read_bytes() == undisturbed.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["few", "out.csv", "undisturbed.csv"]


@pytest.mark.parametrize("command", ["detect", "tag"])
def test_truncated_recordings_are_used_and_listed_until_they_are_whole(
    command: str, run: Run, checkpoint: Path, few: Path, tmp_path: Path
) -> None:
    whole = (few / "1.wav").read_bytes()
    (few / "1.wav").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "found.csv"
    given = (command, few, "-c", checkpoint, "-o", out)
    code, _, err = run(*given)
    listed = failures(tmp_path / "found.csv.failures.csv")
    assert (code, list(listed)) == (0, ["1.wav"])
    assert listed["1.wav"].startswith("used, but truncated, it ends at 0.")
    assert err.splitlines()[-2:] == [
        f"warning: {few}/1.wav: {listed['1.wav'].removeprefix('used, but ')}",
        f"note: read, but truncated or damaged, and listed in {tmp_path / 'found.csv.failures.csv'}: 1",
    ]
    half = out.read_text()
    assert "1.wav" in half
    run(*given)
    assert (out.read_text(), failures(tmp_path / "found.csv.failures.csv")) == (half, listed)
    (few / "1.wav").write_bytes(b"")
    assert run(*given)[0] == 1
    assert "1.wav" not in out.read_text()
    assert failures(tmp_path / "found.csv.failures.csv")["1.wav"].startswith("is empty")
    (few / "1.wav").write_bytes(whole)
    assert run(*given)[2].startswith("note: 5 of 6 recordings are done already: ")
    assert sorted(path.name for path in tmp_path.glob("found*")) == ["found.csv"]
    assert out.read_text() != half


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


@pytest.mark.parametrize("command", ["detect", "tag"])
@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("few", "is a folder: name a file for the failures"),
        ("few/0.wav", "exists and is not a list of failures: name another file"),
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


def test_the_list_of_another_output_stays(run: Run, checkpoint: Path, few: Path, tmp_path: Path) -> None:
    bad = few / "bad.wav"
    bad.touch()
    assert run("detect", few, *BATCH, "-c", checkpoint, "-o", tmp_path / "out.csv")[0] == 1
    bad.unlink()
    assert run("detect", few, *BATCH, "-c", checkpoint, "-o", tmp_path / "out.jsonl")[0] == 0
    assert set(failures(tmp_path / "out.csv.failures.csv")) == {"bad.wav"}


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
