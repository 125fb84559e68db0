"""Formats, containers and lengths: the samples that were written come out."""

from __future__ import annotations

import os
import runpy
import struct

import av
import numpy as np
import pytest
from recordings_made import RATE, encode, signal_to_noise, tones, wav, write

from htsat_sed.audio import coded, headers, open_recording, read


@pytest.mark.parametrize(
    ("how", "step"),
    [
        ({"format": "WAV", "subtype": "PCM_U8"}, 2**-7),
        ({"format": "WAV", "subtype": "PCM_16"}, 2**-15),
        ({"format": "WAV", "subtype": "PCM_24"}, 2**-23),
        ({"format": "WAV", "subtype": "PCM_32"}, 2**-23),
        ({"format": "WAV", "subtype": "FLOAT"}, 0.0),
        ({"format": "WAV", "subtype": "DOUBLE"}, 0.0),
        ({"format": "WAV", "subtype": "PCM_16", "endian": "BIG"}, 2**-15),
        ({"format": "WAVEX", "subtype": "PCM_24"}, 2**-23),
        ({"format": "RF64", "subtype": "PCM_16"}, 2**-15),
        ({"format": "W64", "subtype": "PCM_16"}, 2**-15),
        ({"format": "AIFF", "subtype": "PCM_16"}, 2**-15),
        ({"format": "AU", "subtype": "PCM_24"}, 2**-23),
        ({"format": "CAF", "subtype": "PCM_16"}, 2**-15),
        ({"format": "CAF", "subtype": "ALAC_16"}, 2**-15),
        ({"format": "FLAC", "subtype": "PCM_16"}, 2**-15),
        ({"format": "FLAC", "subtype": "PCM_24"}, 2**-23),
        ({"format": "FLAC", "subtype": "PCM_S8"}, 2**-7),
        ({"format": "NIST", "subtype": "PCM_16"}, 2**-15),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_lossless_formats_give_the_mean_of_the_channels(how, step, tmp_path, caplog):
    samples = tones()
    path = write(tmp_path / "recording", samples, **how)
    with open_recording(path, RATE) as stream:
        assert (stream.source_rate, stream.channels) == (RATE, 2)
        assert stream.expected_duration == pytest.approx(2.0)
        got = np.concatenate(list(stream.blocks()))
        assert stream.duration == 2.0
    assert got.dtype == np.float32
    assert len(got) == len(samples)
    np.testing.assert_allclose(got, samples.mean(axis=1), rtol=0, atol=step + 1e-6)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("a.ogg", {"format": "OGG", "subtype": "VORBIS"}),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}),
        ("a.mp3", {"format": "MP3"}),
    ],
)
def test_lossy_formats_keep_length_and_place(name, how, tmp_path, caplog):
    samples = tones()
    got = read(write(tmp_path / name, samples, **how), RATE)
    assert len(got) == len(samples)
    assert signal_to_noise(samples.mean(axis=1), got) > 15
    assert caplog.records == []


@pytest.mark.parametrize(
    ("name", "codec", "film", "excess"),
    [
        ("a.m4a", "aac", 0.0, 1024),
        ("a.mp4", "aac", 3.0, 1024),  # the film outlasts the sound
        ("a.mov", "pcm_s16le", 3.0, 0),
        ("a.webm", "libopus", 0.0, 0),
        ("a.mkv", "flac", 3.0, 0),
        ("a.mka", "libmp3lame", 0.0, 2304),
        ("a.wma", "wmav2", 0.0, 4096),
        ("a.aac", "aac", 0.0, 3072),
    ],
)
def test_formats_of_ffmpeg(name, codec, film, excess, tmp_path, caplog):
    samples = tones()
    got = read(encode(tmp_path / name, samples, codec, film=film), RATE)
    assert len(got) == pytest.approx(len(samples), abs=excess)
    if name not in ("a.aac", "a.wma"):  # which do not declare the encoder's delay
        assert signal_to_noise(samples.mean(axis=1), got) > 15
    assert caplog.records == []


@pytest.mark.parametrize("channels", [1, 3, 8, 9, 16])
@pytest.mark.parametrize(
    "how", [{"format": "WAV", "subtype": "PCM_16"}, {"format": "OGG", "subtype": "VORBIS"}]
)
def test_any_number_of_channels(channels, how, tmp_path):
    samples = tones(channels=channels)
    path = write(tmp_path / "recording", samples, **how)
    with open_recording(path, RATE) as stream:
        assert stream.channels == channels
        got = np.concatenate(list(stream.blocks()))
    assert len(got) == len(samples)
    assert signal_to_noise(samples.mean(axis=1), got) > 15


def test_samples_beyond_one_pass_unchanged(tmp_path):
    samples = np.array([[3.0], [-40.0], [0.5]], "f4")
    path = write(tmp_path / "loud.wav", samples, subtype="FLOAT")
    np.testing.assert_array_equal(read(path, RATE), samples[:, 0])


def test_integers_of_64_bits(tmp_path):
    samples = (tones(0.5) * 2.0**62).astype("<i8")
    body = samples.tobytes()
    form = struct.pack("<HHIIHH", 1, 2, RATE, RATE * 16, 16, 64)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(body)) + body
    (tmp_path / "x.wav").write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    found = read(tmp_path / "x.wav", RATE)
    np.testing.assert_allclose(found, samples.mean(axis=1) / 2.0**63, atol=1e-7)


def test_name_that_is_no_unicode_and_looks_like_an_address(tmp_path):
    samples = tones(0.1)
    for data in (write(tmp_path / "a.wav", samples), write(tmp_path / "a.mp3", samples)):
        path = tmp_path / os.fsdecode(b"http:%d \xff\n.bin")
        data.rename(path)
        assert len(read(path, RATE)) == len(samples)


# What libsndfile alone would lose without a word.
def test_mp3_of_variable_bit_rate_without_a_xing_header(tmp_path, caplog):
    samples = tones(8.0)
    samples[: len(samples) // 2] *= 1e-4  # quiet first: an estimate from the first frames is far off
    data = write(tmp_path / "a.mp3", samples, bitrate_mode="VARIABLE").read_bytes()
    frame = data.index(data[:2], max(data.find(b"Xing"), data.find(b"Info")))
    path = tmp_path / "b.mp3"
    path.write_bytes(data[frame:])
    assert len(samples) <= len(read(path, RATE)) <= len(samples) + 3 * 1152
    assert caplog.records == []


@pytest.mark.parametrize(
    "how",
    [
        {"format": "MP3"},
        {"format": "OGG", "subtype": "VORBIS"},
        {"format": "OGG", "subtype": "OPUS"},
        {"format": "FLAC"},
    ],
)
def test_one_file_appended_to_another(how, tmp_path, caplog):
    samples = tones()
    data = write(tmp_path / "a", samples, **how).read_bytes()
    path = tmp_path / "b"
    path.write_bytes(data + data)
    assert len(read(path, RATE)) == pytest.approx(2 * len(samples), abs=4 * 1152)
    assert caplog.records == []


def test_mp3_behind_a_large_cover(tmp_path, caplog):
    samples = tones()
    data = write(tmp_path / "a.mp3", samples).read_bytes()
    size = 3 << 20
    tag = b"ID3\x03\x00\x00" + bytes((size >> shift) & 127 for shift in (21, 14, 7, 0))
    cover = (
        b"APIC"
        + struct.pack(">I", size - 10)
        + b"\0\0"
        + b"\0image/jpeg\0\x03\0"
        + b"\xff\xd8"
        + bytes(size - 26)
    )
    path = tmp_path / "b.mp3"
    path.write_bytes(tag + cover + data)
    assert len(read(path, RATE)) == len(samples)
    assert caplog.records == []


def test_flac_written_to_a_pipe_states_no_length(tmp_path, caplog):
    samples = tones()
    data = bytearray(write(tmp_path / "a.flac", samples).read_bytes())
    data[21] &= 0xF0  # the lower 36 bits of these 5 bytes are the number of samples
    data[22:26] = bytes(4)
    path = tmp_path / "b.flac"
    path.write_bytes(data)
    assert len(read(path, RATE)) == len(samples)
    assert caplog.records == []


@pytest.mark.parametrize("stated", [0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFF000, 0x80000000, 0x7FFFFFFF, 0])
def test_wav_written_to_a_pipe_states_no_length(stated, tmp_path, caplog):
    samples = tones(channels=1)
    path = tmp_path / "a.wav"
    path.write_bytes(wav(samples, stated=stated))
    assert len(read(path, RATE)) == len(samples)
    assert caplog.records == []


def test_wav_whose_length_has_wrapped_is_read_to_the_end(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(headers, "_TRAILING_BYTES", 100_000)  # beyond 4 GiB it is 1 GiB
    samples = tones(channels=1)
    path = tmp_path / "a.wav"
    path.write_bytes(wav(samples, stated=2 * RATE))
    assert len(read(path, RATE)) == RATE
    path.write_bytes(wav(samples, stated=1000))
    assert len(read(path, RATE)) == len(samples)
    assert caplog.records == []


def test_what_follows_the_samples_of_a_wav_is_not_sound(tmp_path, caplog):
    samples = tones(channels=1)
    path = tmp_path / "a.wav"
    path.write_bytes(wav(samples) + b"LIST" + struct.pack("<I", 1000) + b"x" * 1000)
    assert len(read(path, RATE)) == len(samples)
    assert caplog.records == []


@pytest.mark.parametrize(("release", "lenient"), [("18.1.0", True), ("19.0.2", False)])
def test_releases_of_pyav(monkeypatch, release: str, lenient: bool) -> None:
    monkeypatch.setattr(av, "__version__", release)
    assert bool(runpy.run_path(coded.__file__)["_LENIENT"]) == lenient


def test_an_old_release_of_pyav_is_named(monkeypatch) -> None:
    monkeypatch.setattr(av, "__version__", "18.0.1")
    with pytest.raises(ImportError, match=r"its release 18\.0\.1 is too old") as raised:
        runpy.run_path(coded.__file__)
    assert raised.value.name == "av"
