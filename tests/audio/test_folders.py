"""Recordings in folders, found by their suffixes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from recordings_made import encode, tones

from htsat_sed.audio import find_recordings, open_recording, read
from htsat_sed.errors import AudioError


def plant(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def below(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_recordings(folder)[0]]


def test_recordings_are_found_by_suffix_in_order(tmp_path):
    plant(tmp_path, "b.wav", "a/x.FLAC", "a/deep/y.m4a", "c d\n.Opus", "notes.txt", "wav", "b.wav.part")
    assert below(tmp_path) == ["a/deep/y.m4a", "a/x.FLAC", "b.wav", "c d\n.Opus"]


def test_hidden_files_and_folders_do_not_count(tmp_path):
    plant(tmp_path, "a.wav", "._a.wav", ".cache/b.wav")
    assert below(tmp_path) == ["a.wav"]


def test_links_are_followed_and_loops_survived(tmp_path):
    plant(tmp_path, "data/a.wav", "elsewhere/b.wav")
    (tmp_path / "data" / "up").symlink_to(tmp_path / "data", target_is_directory=True)
    (tmp_path / "data" / "there").symlink_to("../elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "back").symlink_to("../data", target_is_directory=True)
    (tmp_path / "data" / "b.wav").symlink_to("../elsewhere/b.wav")
    (tmp_path / "data" / "self").symlink_to("self")
    (tmp_path / "data" / "all").symlink_to("..", target_is_directory=True)
    assert below(tmp_path / "data") == ["a.wav", "b.wav", "there/b.wav"]


def test_folders_that_are_linked_into_each_other_are_walked_through_once(tmp_path):
    plant(tmp_path, "a/x.wav", "b/y.wav", "elsewhere/deep/z.wav")
    top = tmp_path / "top"
    (tmp_path / "a").rename(tmp_path / "b" / "a")
    (tmp_path / "b").rename(top)
    (top / "a" / "back").symlink_to("..", target_is_directory=True)
    (top / "0").symlink_to("a", target_is_directory=True)
    (top / "one").symlink_to("../elsewhere/deep", target_is_directory=True)
    (top / "two").symlink_to("../elsewhere", target_is_directory=True)
    assert below(top) == ["a/x.wav", "one/z.wav", "y.wav"]


def test_what_only_looks_like_a_recording_is_not_passed_over_in_silence(tmp_path):
    plant(tmp_path, "full.wav/inside.wav")
    (tmp_path / "empty.wav").mkdir()
    (tmp_path / "gone.wav").symlink_to("nowhere")
    (tmp_path / "self.wav").symlink_to("self.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    found, _ = find_recordings(tmp_path)
    assert below(tmp_path) == ["empty.wav", "full.wav/inside.wav", "gone.wav", "pipe.wav", "self.wav"]
    for path in found:
        with pytest.raises(AudioError):
            open_recording(path, 32_000)


def test_names_that_are_no_unicode(tmp_path):
    plant(tmp_path, os.fsdecode(b"caf\xe9.wav"))
    assert [os.fsencode(path.name) for path in find_recordings(tmp_path)[0]] == [b"caf\xe9.wav"]


def test_folder_that_cannot_be_listed(tmp_path):
    with pytest.raises(AudioError, match="cannot be listed: No such file or directory"):
        find_recordings(tmp_path / "nowhere")
    plant(tmp_path, "a.wav")
    with pytest.raises(AudioError, match="cannot be listed: Not a directory"):
        find_recordings(tmp_path / "a.wav")


def test_folder_below_that_cannot_be_listed_is_an_error_beside_the_rest(tmp_path, monkeypatch):
    plant(tmp_path, "a.wav", "closed/b.wav")
    listed = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found, closed = find_recordings(tmp_path)
    assert found == [tmp_path / "a.wav"]
    assert [str(error) for error in closed] == [f"{tmp_path / 'closed'}: cannot be listed: Permission denied"]


def test_films_and_whatever_else_can_be_read_is_found(tmp_path):
    names = sorted(
        f"a.{suffix}"
        for suffix in [
            "ts",
            "mts",
            "m2ts",
            "mpg",
            "mpeg",
            "vob",
            "flv",
            "f4v",
            "3gp",
            "3g2",
            "asf",
            "wmv",
            "amr",
            "wma",
            "mka",
            "opus",
            "oga",
            "spx",
            "caf",
            "w64",
            "rf64",
            "bwf",
            "au",
            "snd",
            "sph",
            "aifc",
            "mxf",
            "m4b",
            "ogm",
            "dts",
            "eac3",
            "MTS",
            "TS",
        ]
    )
    plant(tmp_path, *names)
    assert below(tmp_path) == names


@pytest.mark.parametrize("suffix", ["ts", "m2ts", "mpg", "vob", "flv", "mka", "asf", "3gp"])
def test_what_is_found_can_be_read(suffix, tmp_path):
    codec = {"mpg": "mp2", "vob": "mp2", "asf": "wmav2"}.get(suffix, "aac")
    path = encode(tmp_path / f"a.{suffix}", tones(1.0), codec)
    assert below(tmp_path) == [path.name]
    assert len(read(path, 32_000)) == pytest.approx(32_000, abs=4_000)
