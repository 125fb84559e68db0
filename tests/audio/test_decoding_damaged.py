"""Truncated and damaged recordings, and files that are none."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from recordings_made import RATE, cut, encode, tones, wav, write

from htsat_sed.audio import decoders, read
from htsat_sed.errors import AudioError


# Truncated and damaged.
@pytest.mark.parametrize(
    "how",
    [
        {"format": "WAV", "subtype": "PCM_16"},
        {"format": "WAV", "subtype": "PCM_24", "endian": "BIG"},
        {"format": "WAVEX", "subtype": "PCM_24"},
        {"format": "RF64", "subtype": "FLOAT"},
        {"format": "W64", "subtype": "PCM_16"},
        {"format": "AIFF", "subtype": "PCM_16"},
        {"format": "AU", "subtype": "PCM_16"},
    ],
    ids=lambda how: "-".join(how.values()),
)
def test_truncated_uncompressed(how, tmp_path, caplog):
    samples = tones()
    path = write(tmp_path / "a", samples, **how)
    whole = read(path, RATE)
    got = read(cut(path, 0.6), RATE)
    assert 1.19 * RATE < len(got) <= 1.2 * RATE
    np.testing.assert_array_equal(got, whole[: len(got)])
    assert caplog.messages == [
        f"{path}: truncated, it ends at {len(got) / RATE:.2f} s: its header promises 2.00 s"
    ]


@pytest.mark.parametrize(
    ("name", "codec", "options", "reason"),
    [
        ("a.flac", "flac", {}, "its header promises 2.00 s"),
        ("a.mp3", "libmp3lame", {}, "its header promises 2.00 s"),
        ("a.m4a", "aac", {"movflags": "faststart"}, "its header promises 2.0"),
        ("a.mkv", "flac", {}, "its header promises 2.00 s"),
        ("a.webm", "libopus", {}, "its header promises 2.01 s"),
        ("a.ogg", "libopus", {}, "its end-of-stream mark is missing"),
        ("a.caf", "pcm_s16le", {}, "its header promises more"),
        ("a.avi", "pcm_s16le", {}, "its header promises more"),
    ],
)
def test_truncated_compressed(name, codec, options, reason, tmp_path, caplog):
    samples = tones()
    path = encode(tmp_path / name, samples, codec, **options)
    whole = read(path, RATE)
    assert caplog.records == []
    got = read(cut(path, 0.6), RATE)
    assert 0.4 * RATE < len(got) < 1.6 * RATE
    same = len(got) - 2000  # a decoder may fade out the last packet
    np.testing.assert_allclose(got[:same], whole[:same], atol=1e-4)
    (message,) = caplog.messages
    assert message.startswith(f"{path}: truncated, it ends at {len(got) / RATE:.2f} s: {reason}")


def test_truncated_film_beside_sound(tmp_path, caplog):
    path = cut(encode(tmp_path / "a.mkv", tones(10.0), "flac", film=12.0), 0.5)
    got = read(path, RATE)
    assert caplog.messages == [
        f"{path}: truncated, it ends at {len(got) / RATE:.2f} s: its header promises 10.00 s"
    ]


@pytest.mark.parametrize("suffix", [".mp3", ".aac"])
def test_what_holds_a_little_that_looks_like_audio_is_none(suffix, tmp_path, caplog):
    """As many programs do: decoders that guess find a frame here and there."""
    sound = encode(tmp_path / "a.mp3", tones(), "libmp3lame").read_bytes()
    start = sound.index(b"\xff\xfb", 500)
    chance = np.random.default_rng(0)
    broken = b"".join(b"\xff\xfb\x90\x64" + chance.bytes(413) for _ in range(200))
    path = tmp_path / f"program{suffix}"
    path.write_bytes(sound[start : start + 2000] + broken)
    with pytest.raises(AudioError):
        read(path, RATE)
    assert caplog.records == []


def test_damaged_in_the_middle(tmp_path, caplog):
    samples = tones(4.0)
    path = write(tmp_path / "a.flac", samples)
    whole = read(path, RATE)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    path.write_bytes(data)
    got = read(path, RATE)
    (message,) = caplog.messages
    assert message.startswith(
        (f"{path}: damaged or interrupted at 1.", f"{path}: damaged or interrupted at 2.")
    )
    assert len(got) == len(whole)
    missing = np.flatnonzero(got != whole)
    assert not got[missing].any()
    assert f"about {(missing[-1] + 1 - missing[0]) / RATE:.2f} s are missing; silence is inserted" in message
    np.testing.assert_array_equal(got[-RATE:], whole[-RATE:])


# Samples that are none.
def test_nan_and_infinity_count_as_silence(tmp_path, caplog):
    samples = np.full((RATE, 2), 0.5, "f4")
    samples[RATE // 2, 0] = np.nan
    samples[-1] = np.inf, 1e30
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    got = read(path, RATE)
    assert (got[0], got[RATE // 2], got[-1]) == (0.5, 0.25, 0.0)
    assert caplog.messages == [
        f"{path}: 3 of 96000 samples are NaN, infinite or beyond 1e12, the first at 0.50 s; they count as 0"
    ]


def test_nothing_but_nan_is_an_error(tmp_path):
    path = write(tmp_path / "a.wav", np.full((RATE, 1), np.nan, "f4"), subtype="FLOAT")
    with pytest.raises(AudioError, match="holds no audio: all its samples are NaN, infinite or beyond 1e12"):
        read(path, RATE)


def test_silence_is_a_recording(tmp_path, caplog):
    got = read(write(tmp_path / "a.wav", np.zeros((RATE, 1))), RATE)
    np.testing.assert_array_equal(got, np.zeros(RATE))
    assert caplog.records == []


# Not recordings.
def png() -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(bytes(4))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty (0 bytes): record or copy it again"),
        (wav(np.zeros(0))[:20], "is not a recording: neither libsndfile nor FFmpeg knows its format, or its header is broken"),
        (wav(np.zeros(0)), "holds no audio: nothing that can be decoded follows its header"),
        (wav(np.zeros(0), stated=2000), "holds no audio: nothing that can be decoded follows its header"),
        (b"onset\toffset\n0.5\t1.0\n", "is a text file, not a recording"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer, not the recording: run 'git lfs pull'"),
        (png(), "holds no audio stream: it is a picture, or a video without sound"),
        (bytes(5000), "is not a recording: neither libsndfile nor FFmpeg knows its format, or its header is broken"),
        (wav(np.zeros(100), rate=100), "has a sample rate of 100 Hz, wanted 1000 to 768000 Hz: correct its header, or resample it"),
    ],
    ids=["empty", "stub", "no samples", "no samples though stated", "text", "pointer", "picture", "zeros", "rate"],
)  # fmt: skip
def test_what_is_no_recording_is_refused_with_the_reason(data, reason, tmp_path, capfd):
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    with pytest.raises(AudioError) as error:
        read(path, RATE)
    assert str(error.value) == f"{path}: {reason}"
    assert capfd.readouterr() == ("", "")


def test_film_without_sound(tmp_path):
    path = encode(tmp_path / "a.mp4", np.zeros((0, 0), "f4"), "", film=1.0)
    with pytest.raises(AudioError, match="holds no audio stream: it is a picture, or a video without sound"):
        read(path, RATE)


def test_m4a_cut_before_its_index(tmp_path):
    path = cut(encode(tmp_path / "a.m4a", tones(), "aac"), 0.9)
    with pytest.raises(AudioError, match=r"has no index \(moov\)"):
        read(path, RATE)


def test_playlist_opens_nothing_in_its_name(tmp_path):
    write(tmp_path / "private.wav", tones())
    path = tmp_path / "a.wav"
    path.write_text("ffconcat version 1.0\nfile private.wav\n")
    with pytest.raises(AudioError, match="is a playlist: give the recordings that it lists"):
        read(path, RATE)


def test_broken_bytes_never_raise_anything_else(tmp_path, capfd):
    """Random damage to a file of each decoder ends as samples or as an AudioError."""
    random = np.random.default_rng(0)
    outcomes = set()
    for source in (
        write(tmp_path / "a.wav", tones(0.3)),
        write(tmp_path / "a.aiff", tones(0.3)),
        write(tmp_path / "a.caf", tones(0.3), subtype="PCM_16"),
        write(tmp_path / "a.flac", tones(0.3)),
        write(tmp_path / "a.ogg", tones(0.3)),
        encode(tmp_path / "a.m4a", tones(0.3), "aac"),
    ):
        intact = source.read_bytes()
        for reach in (64, 64, 200, 200, len(intact), len(intact)):
            data = bytearray(intact)
            for position in random.integers(0, reach, 8):
                data[position] = random.integers(0, 256)
            source.write_bytes(data)
            try:
                outcomes.add(read(source, RATE).dtype.name)
            except AudioError:
                outcomes.add("refused")
    assert outcomes == {"float32", "refused"}
    assert capfd.readouterr() == ("", "")


def test_read_error_of_the_disk_names_the_recording(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", tones(channels=1))

    def fail(self: decoders.Uncompressed) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(decoders.Uncompressed, "blocks", fail)
    with pytest.raises(AudioError) as error:
        read(path, RATE)
    assert str(error.value) == f"{path}: cannot be read: Input/output error"


def test_truncated_avi_of_several_parts(tmp_path, caplog):
    path = encode(tmp_path / "a.avi", tones(), "pcm_s16le")
    data = bytearray(path.read_bytes())
    part = b"RIFF" + struct.pack("<I", 2004) + b"AVIX" + b"JUNK" + struct.pack("<I", 1992) + bytes(1992)
    path.write_bytes(data + part)
    read(path, RATE)
    data[4:8] = struct.pack("<I", len(data))  # as some writers count
    path.write_bytes(data)
    read(path, RATE)
    assert caplog.messages == []
    path.write_bytes(path.read_bytes()[:4] + struct.pack("<I", len(data) - 8) + data[8:] + part[:1000])
    read(path, RATE)
    assert caplog.messages == [f"{path}: truncated, it ends at 2.00 s: its header promises more"]


@pytest.mark.parametrize("zeros", [100_000, 3_000_000])
def test_an_mp3_in_a_file_that_was_allocated_before_is_read(tmp_path, zeros):
    """A recorder that lost its power leaves the rest of the file as zeros."""
    path = write(tmp_path / "a.mp3", tones(2.0), format="MP3")
    whole = read(path, RATE)
    with path.open("ab") as file:
        file.write(bytes(zeros))
    got = read(path, RATE)
    assert len(whole) <= len(got) < len(whole) + RATE // 2
    np.testing.assert_array_equal(got[: len(whole)], whole)
    path.write_bytes(bytes(zeros))
    with pytest.raises(AudioError):
        read(path, RATE)
