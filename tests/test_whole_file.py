"""Files appear whole or not at all."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from htsat_sed.errors import HtsatSedError
from htsat_sed.whole_file import remove_unfinished, whole_file


def test_the_name_is_taken_when_the_block_has_ended(tmp_path):
    path = tmp_path / "events.tsv"
    with whole_file(path) as file:
        file.write("Grüße 🐦\r\n")
        assert not path.exists()
    assert path.read_bytes() == "Grüße 🐦\r\n".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["events.tsv"]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    def leave(path):
        script = (
            "import os, sys; from htsat_sed.whole_file import whole_file\n"
            "with whole_file(sys.argv[1]): os._exit(9)"
        )
        assert subprocess.run([sys.executable, "-c", script, path], check=False).returncode == 9

    long = "ü" * 120 + ".tsv"
    for name in ("events.tsv", "events.tsv", long, "other.tsv"):
        leave(tmp_path / name)
    (tmp_path / ".mine.part").touch()
    (tmp_path / "link.tsv").symlink_to("events.tsv")
    assert len(list(tmp_path.glob(".*.part"))) == 5
    remove_unfinished([tmp_path / "link.tsv", tmp_path / long, tmp_path / "nowhere" / "a.tsv"])
    with whole_file(tmp_path / "other.tsv"):
        assert len(list(tmp_path.glob(".*.part"))) == 3  # of other.tsv two, and .mine.part
    remove_unfinished([tmp_path / "other.tsv"])
    assert [p.name for p in tmp_path.glob(".*.part")] == [".mine.part"]


def test_bytes(tmp_path):
    with whole_file(tmp_path / "a.bin", "wb") as file:
        file.write(b"\xff\x00")
    assert (tmp_path / "a.bin").read_bytes() == b"\xff\x00"


@pytest.mark.parametrize("failure", [RuntimeError("no"), KeyboardInterrupt()])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    path = tmp_path / "events.tsv"
    path.write_text("old")

    def fail():
        with whole_file(path) as file:
            file.write("half of the n")
            raise failure

    with pytest.raises(type(failure)):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["events.tsv"]


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "events.tsv"
    with (
        pytest.raises(HtsatSedError, match=r"events\.tsv: cannot be written: No space left"),
        whole_file(path),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_trouble_with_another_file_keeps_its_own_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"other\.wav"), whole_file(tmp_path / "events.tsv"):
        (tmp_path / "other.wav").read_bytes()


def test_a_broken_connection_is_not_taken_for_a_failed_write(tmp_path):
    with pytest.raises(ConnectionResetError), whole_file(tmp_path / "weights.bin", "wb"):
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


def test_a_missing_folder_is_an_error(tmp_path):
    path = tmp_path / "missing" / "events.tsv"
    with (
        pytest.raises(HtsatSedError, match=r"events\.tsv: cannot be written: No such file"),
        whole_file(path),
    ):
        raise AssertionError("unreached")


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "events.tsv"
    with (
        pytest.raises(HtsatSedError, match=r"events\.tsv: cannot be written: Not a directory"),
        whole_file(path),
    ):
        raise AssertionError("unreached")


def test_a_name_too_long_is_an_error(tmp_path):
    path = tmp_path / ("x" * 300)
    with (
        pytest.raises(HtsatSedError, match="cannot be written: File name too long"),
        whole_file(path) as file,
    ):
        file.write("x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_replaced(tmp_path):
    with (
        pytest.raises(HtsatSedError, match="cannot be written: Is a directory"),
        whole_file(tmp_path) as file,
    ):
        file.write("x")
    assert list(tmp_path.parent.glob(".*.part")) == []


def test_a_link_stays_one(tmp_path):
    target, link = tmp_path / "target.tsv", tmp_path / "link.tsv"
    target.write_text("old")
    link.symlink_to(target)
    with whole_file(link) as file:
        file.write("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_device_is_written_to_and_stays_one():
    with whole_file("/dev/null") as file:
        file.write("gone")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_pipe_behind_standard_output():
    code = "from htsat_sed.whole_file import whole_file\nwith whole_file('/dev/stdout') as f: f.write('row')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "row"


def test_a_device_that_is_full_is_an_error():
    path = "/dev/full"
    with (
        pytest.raises(HtsatSedError, match="/dev/full: cannot be written: No space left"),
        whole_file(path) as f,
    ):
        f.write("x")


def test_another_mode_is_refused(tmp_path):
    with pytest.raises(ValueError, match="wanted mode 'w' or 'wb', got 'a'"), whole_file(tmp_path / "x", "a"):
        raise AssertionError("unreached")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_without_fsync_is_written_to(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refused)
    with whole_file(tmp_path / "a.txt") as file:
        file.write("text")
    assert (tmp_path / "a.txt").read_text() == "text"
