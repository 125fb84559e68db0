"""What the paths of a command line stand for."""

import os
import socket
from pathlib import Path

import pytest

from htsat_sed.runs.recordings import find_all


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``night/{a.wav,b.flac,notes.txt,deep/{c.wav,x.dat}}`` and ``day/a b.wav``, from above them."""
    for name in ("night/a.wav", "night/b.flac", "night/notes.txt", "night/deep/c.wav", "night/deep/x.dat"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "a b.wav").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*paths: str, include: list[str] | None = None, exclude: list[str] | None = None) -> list[str]:
    recordings, failures = find_all(paths, include=include or [], exclude=exclude or [])
    assert failures == []
    return [recording.name for recording in recordings]


def failure(*paths: str, include: list[str] | None = None) -> str:
    recordings, failures = find_all(paths, include=include or [])
    assert recordings == []
    (error,) = failures
    return str(error)


@pytest.mark.usefixtures("tree")
def test_files_folders_and_standard_input() -> None:
    assert names("night/a.wav", "-") == ["a.wav", "stdin"]
    assert names("night") == ["a.wav", "b.flac", "deep/c.wav"]
    assert names("night", "./night/a.wav", f"{Path.cwd()}/night/b.flac") == ["a.wav", "b.flac", "deep/c.wav"]
    assert names("none.wav") == ["none.wav"]


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("night/*.wav", ["a.wav"]),
        ("night/*", ["a.wav", "b.flac", "deep/c.wav"]),
        ("night/**", ["a.wav", "b.flac", "deep/c.wav"]),
        ("night/**/*.wav", ["a.wav", "deep/c.wav"]),
        ("**/*.wav", ["day/a b.wav", "night/a.wav", "night/deep/c.wav"]),
        ("*/deep", ["night/deep/c.wav"]),
        ("**/deep", ["night/deep/c.wav"]),
        ("night/**/*.dat", ["deep/x.dat"]),
        ("[dn]*/a*", ["day/a b.wav", "night/a.wav"]),
        ("night/?.*", ["a.wav", "b.flac"]),
    ],
)
def test_patterns(pattern: str, expected: list[str]) -> None:
    assert names(pattern) == expected


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["*.flac"], [], ["b.flac"]),
        (["*.flac", "deep"], [], ["b.flac", "deep/c.wav"]),
        ([], ["deep"], ["a.wav", "b.flac"]),
        ([], ["deep/*.wav"], ["a.wav", "b.flac"]),
        ([], ["**/c.wav"], ["a.wav", "b.flac"]),
        (["*.wav"], ["deep/**"], ["a.wav"]),
        (["/c.wav", "a.wav"], [], ["a.wav"]),
    ],
)
def test_include_and_exclude(include: list[str], exclude: list[str], expected: list[str]) -> None:
    assert names("night", include=include, exclude=exclude) == expected
    assert names("night/**", include=include, exclude=exclude) == expected


def test_what_exists_is_no_pattern_and_no_list(tree: Path) -> None:
    for name in ("song[1].wav", "@home.wav"):
        (tree / name).touch()
    assert names("song[1].wav", "@home.wav") == ["song[1].wav", "@home.wav"]


def test_list_file(tree: Path) -> None:
    (tree / "day" / "caf\udce9 ☂.wav").touch()
    lines = [
        "# all of it",
        "",
        "../night/a.wav\r",
        "a b.wav",
        f"{tree}/night/b.flac",
        "../night/deep",
        "c*.wav",
    ]
    text = "\ufeff" + "\n".join([*lines, "caf\udce9 ☂.wav", "gone.wav"])
    (tree / "day" / "list.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert names("@day/list.txt") == ["a.wav", "a b.wav", "b.flac", "c.wav", "caf\udce9 ☂.wav", "gone.wav"]


def test_list_of_names_below_folders_keeps_them(tree: Path) -> None:
    (tree / "list.txt").write_text("night/a.wav\r\nnight/deep/c.wav\r\n", encoding="utf-16")
    assert names("@list.txt") == ["night/a.wav", "night/deep/c.wav"]


@pytest.mark.usefixtures("tree")
def test_names_that_two_would_share_become_paths() -> None:
    Path("day/a.wav").touch()
    assert names("night", "day") == ["night/a.wav", "b.flac", "deep/c.wav", "a b.wav", "day/a.wav"]


def test_no_two_ever_share_a_name(tree: Path) -> None:
    for path in ("top/day/x.wav", "day/x.wav", "night/x.wav"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    # As files of the same name two become day/x.wav and night/x.wav, which is what the folder's is called.
    expected = [f"{tree}/top/day/x.wav", f"{tree}/day/x.wav", "night/x.wav"]
    assert names("top", "day/x.wav", "night/x.wav") == expected


def test_what_stands_for_nothing_says_so(tree: Path) -> None:
    (tree / "empty").mkdir()
    (tree / "bare.txt").write_text("# nothing\n")
    (tree / "sound.txt").write_bytes(b"RIFF\0\0\0\0WAVE")
    assert failure("@").startswith("@: is not a list file")
    assert failure("empty") == "empty: holds no recordings: no file here has an audio suffix"
    assert failure("night/*.WAV").startswith("night/*.WAV: matches nothing: no file in night ")
    assert failure("nigth/*.wav").startswith("nigth/*.wav: matches nothing: the folder nigth ")
    assert failure("*/*.t?t").startswith("*/*.t?t: matches no recordings")
    assert failure("night", include=["*.mp3"]) == (
        "night: holds 3 recordings, all left out by --include, --exclude"
    )
    assert failure("night/*", include=["*.mp3"]) == (
        "night/*: matches 3 recordings, all left out by --include, --exclude"
    )
    assert failure("@none.txt") == "none.txt: the list cannot be read: No such file or directory"
    assert failure("@night") == "night: the list cannot be read: Is a directory"
    assert failure("@bare.txt").startswith("bare.txt: lists no recordings")
    assert failure("@sound.txt").startswith("sound.txt: is not a list of recordings: ")


def test_odd_files_are_listed_and_not_opened(tree: Path) -> None:
    os.mkfifo(tree / "day" / "pipe.wav")
    (tree / "day" / "folder.wav").mkdir()
    (tree / "day" / "loop.wav").symlink_to("loop.wav")
    (tree / "day" / "up.wav").symlink_to(tree / "day", target_is_directory=True)
    (tree / "day" / "gone.wav").symlink_to("nowhere.wav")
    (tree / "day" / "two\nlines \udcff.wav").touch()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("day/socket.wav")
        expected = ["a b", "folder", "gone", "loop", "pipe", "socket", "two\nlines \udcff", "up"]
        for path in ("day", "day/*", "day/**/*.wav", "**/day"):
            assert names(path, exclude=["night"])[-8:] == [
                ("day/" if path == "**/day" else "") + f"{name}.wav" for name in expected
            ]


def test_closed_folder_is_a_failure_beside_the_rest(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for path in ("night", "night/**"):
        recordings, failures = find_all([path])
        assert [recording.name for recording in recordings] == ["a.wav", "b.flac"]
        assert [str(error) for error in failures] == ["night/deep: cannot be listed: Permission denied"]
    assert str(find_all(["night/deep"])[1][0]) == "night/deep: cannot be listed: Permission denied"
