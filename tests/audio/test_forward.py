"""Recordings that come through a pipe: the same samples as from the file, and nothing on the disk."""

import io
import logging
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from recordings_made import encode, tones, wav, write

from htsat_sed.audio import open_recording, read
from htsat_sed.errors import AudioError

SOUND = tones(3.3)
CODECS = {
    "wav": "pcm_s16le", "aiff": "pcm_s16be", "au": "pcm_s16be", "caf": "pcm_s16le", "w64": "pcm_s16le",
    "flac": "flac", "opus": "libopus", "mp3": "libmp3lame", "aac": "aac", "ac3": "ac3", "ts": "mp2",
    "mka": "flac", "webm": "libopus", "mkv": "aac",
}  # fmt: skip


class Dribble(io.RawIOBase):
    """A pipe that has a few thousand bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, 5000))


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch):
    """Samples of bytes that come through standard input, and what is wrong with them."""

    def call(data: bytes, *, disk: bool = False) -> tuple[np.ndarray, str | None]:
        def refuse(**_: object) -> NoReturn:
            raise AssertionError("a temporary file was made")

        class Input:
            buffer = Dribble(data)
            isatty = staticmethod(lambda: False)

        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", Input)
            if not disk:
                patch.setattr("htsat_sed.audio.forward.TemporaryDirectory", refuse)
            with open_recording("-", 32_000) as stream:
                return np.concatenate(list(stream.blocks())), stream.defect

    return call


def same_as_file(piped, path: Path, **how: bool) -> None:
    with open_recording(path, 32_000) as stream:
        expected = np.concatenate(list(stream.blocks()))
    found, defect = piped(path.read_bytes(), **how)
    np.testing.assert_array_equal(found, expected)
    assert defect == stream.defect


@pytest.mark.parametrize("form", CODECS)
def test_a_pipe_gives_the_samples_of_the_file(piped, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"sound.{form}"
    encode(path, SOUND, CODECS[form], film=4.0 if form == "mkv" else 0.0)
    same_as_file(piped, path)


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_24", "PCM_U8", "DOUBLE"])
def test_sample_types(piped, tmp_path: Path, subtype: str) -> None:
    same_as_file(piped, write(tmp_path / "sound.wav", SOUND, subtype=subtype))


def test_floats_on_the_scale_of_integers(piped, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    same_as_file(piped, write(tmp_path / "sound.wav", 20_000 * SOUND, subtype="FLOAT"))
    assert "divided by 32768" in caplog.text


@pytest.mark.parametrize("form", ["ogg", "flac", "opus", "mp3"])
def test_joined_recordings(piped, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"sound.{form}"
    if form == "ogg":
        write(path, SOUND, format="OGG", subtype="VORBIS")
    else:
        encode(path, SOUND, CODECS[form])
    path.write_bytes(2 * path.read_bytes())
    same_as_file(piped, path)


@pytest.mark.parametrize("form", ["wav", "flac", "opus", "mp3"])
def test_cut_off_recordings(piped, tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / f"sound.{form}"
    encode(path, SOUND, CODECS[form])
    path.write_bytes(path.read_bytes()[:-9000])
    same_as_file(piped, path)
    assert "truncated" in caplog.text


def test_tags_before_and_behind_the_sound(piped, tmp_path: Path) -> None:
    path = tmp_path / "sound.mp3"
    encode(path, SOUND, "libmp3lame")
    sound = path.read_bytes()
    tag = b"ID3\x04\0\0\0\0\x20\0" + bytes(4096)
    path.write_bytes(tag + sound + b"TAG" + bytes(125))
    same_as_file(piped, path)


@pytest.mark.parametrize("stated", [0xFFFFFFFF, 0x7FFFF000, 0])
def test_a_wav_of_unknown_length_goes_on_to_the_end(piped, stated: int) -> None:
    samples = SOUND[:, 0]
    found, defect = piped(wav(samples, stated=stated, riff=0xFFFFFFFF, rate=32_000))
    np.testing.assert_array_equal(found, np.round(samples * 32768).astype(np.float32) / 32768)
    assert defect is None


def test_what_follows_the_samples_is_read_and_is_no_sound(piped) -> None:
    data = wav(SOUND[:, 0], rate=32_000)
    expected, _ = piped(data)
    found, _ = piped(data + b"LIST\x08\0\0\0INFOabcd" * 10_000)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("flags", "disk"), [("", True), ("faststart", False), ("frag_keyframe+empty_moov", False)]
)
def test_only_an_index_at_the_end_needs_the_disk(piped, tmp_path: Path, flags: str, disk: bool) -> None:
    path = tmp_path / "sound.m4a"
    encode(path, SOUND, "aac", **({"movflags": flags} if flags else {}))
    same_as_file(piped, path, disk=disk)
    if disk:
        with pytest.raises(AudioError, match="a temporary file was made"):
            piped(path.read_bytes())


@pytest.mark.parametrize("data", [b"", b"hello " * 2000, b"\x89PNG\r\n\x1a\n" + bytes(9000)])
def test_what_is_no_recording_is_refused_as_a_file_is(piped, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "something"
    path.write_bytes(data)
    with pytest.raises(AudioError) as expected:
        read(path, 32_000)
    with pytest.raises(AudioError) as found:
        piped(data, disk=True)
    assert found.value.reason == expected.value.reason


def test_blocks_come_before_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    logging.getLogger("libav").setLevel(logging.ERROR)
    for form in ("wav", "flac", "opus", "mp3"):
        path = tmp_path / f"sound.{form}"
        encode(path, tones(12.0, channels=1), CODECS[form])
        source = Dribble(path.read_bytes())

        class Input:
            buffer = source
            isatty = staticmethod(lambda: False)

        monkeypatch.setattr(sys, "stdin", Input)
        with open_recording("-", 32_000) as stream:
            samples = 0
            for block in stream.blocks():
                samples += len(block)
                position = source._file.tell() / path.stat().st_size
                assert samples / 32_000 > 12.0 * position - 2.0, form


def test_the_temporary_file_goes(piped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    path = tmp_path / "sound.m4a"
    encode(path, SOUND, "aac")
    piped(path.read_bytes(), disk=True)
    assert list((tmp_path / "tmp").iterdir()) == []
