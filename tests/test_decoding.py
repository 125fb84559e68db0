from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from htsat_sed import decoding, headers
from htsat_sed.audio import open_recording, read
from htsat_sed.errors import AudioError

RATE = 48_000


def tones(seconds: float = 2.0, channels: int = 2, rate: int = RATE) -> np.ndarray:
    """(samples, channels): another pair of tones in each channel, swelling so that shifts show."""
    time = np.arange(round(seconds * rate))[:, None] / rate
    pitch = 300.0 * np.arange(1, channels + 1)
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * 3.0 * time)
    return (swell * (0.3 * np.sin(2 * np.pi * pitch * time) + 0.2 * np.cos(7 * np.pi * pitch * time))).astype(
        "f4"
    )


def write(path: Path, samples: np.ndarray, rate: int = RATE, **how: object) -> Path:
    # In pieces: libsndfile's Vorbis encoder overflows the stack when given much at once.
    with soundfile.SoundFile(path, "w", rate, samples.shape[1], **how) as file:
        for start in range(0, len(samples), 4096):
            file.write(samples[start : start + 4096])
    return path


def encode(
    path: Path, samples: np.ndarray, codec: str, *, film: float = 0.0, rate: int = RATE, **options: str
) -> Path:
    """Write with FFmpeg, beside `film` seconds of pictures."""
    layout = {0: None, 1: "mono", 2: "stereo"}[samples.shape[1]]
    with av.open(path, "w", options=options) as container:
        sound = container.add_stream(codec, rate=rate, layout=layout, bit_rate=192_000) if layout else None
        if film:
            pictures = container.add_stream("mpeg4", rate=5)
            pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
            for number in range(round(film * 5)):
                picture = av.VideoFrame(32, 32, "yuv420p")
                picture.pts = number
                container.mux(pictures.encode(picture))
            container.mux(pictures.encode(None))
        if sound:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), "fltp", layout)
            frame.sample_rate, frame.pts = rate, 0
            resampler = av.AudioResampler(sound.format.name, frame_size=sound.frame_size or 1024)
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(sound.encode(piece))
            container.mux(sound.encode(None))
    return path


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    return path


def wav(
    samples: np.ndarray, *, stated: int | None = None, riff: int | None = None, rate: int = RATE
) -> bytes:
    """A 16-bit mono WAV whose header may lie."""
    data = np.round(samples * 32768).clip(-32768, 32767).astype("<i2").tobytes()
    stated = len(data) if stated is None else stated
    riff = min(36 + stated, 0xFFFFFFFF) if riff is None else riff
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", riff, b"WAVE") + form + struct.pack("<4sI", b"data", stated) + data


def signal_to_noise(wanted: np.ndarray, got: np.ndarray) -> float:
    """Decibels, over the middle: codecs settle at the ends."""
    n = min(len(wanted), len(got))
    wanted, got = wanted[2000 : n - 2000], got[2000 : n - 2000]
    return float(10 * np.log10(np.sum(wanted**2) / np.sum((wanted - got) ** 2)))


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
    assert message.startswith(f"{path}: damaged at 1.") or message.startswith(f"{path}: damaged at 2.")
    missing = len(whole) - len(got)
    assert missing > 0
    assert f"about {missing / RATE:.2f} s are missing" in message
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
    with pytest.raises(AudioError, match="holds no audio: all its samples are NaN or infinite"):
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
        (png(), "holds no audio stream: it is a picture, or a film without sound"),
        (bytes(5000), "is not a recording: neither libsndfile nor FFmpeg knows its format, or its header is broken"),
        (wav(np.zeros(100), rate=100), "has a sample rate of 100 Hz, which is not one of sound (1000 to 768000 Hz): its header is broken"),
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
    with pytest.raises(AudioError, match="holds no audio stream: it is a picture, or a film without sound"):
        read(path, RATE)


def test_m4a_cut_before_its_index(tmp_path):
    path = cut(encode(tmp_path / "a.m4a", tones(), "aac"), 0.9)
    with pytest.raises(AudioError, match=r"has lost its index \(moov\): it was cut short or never finished"):
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

    def fail(self: decoding.Uncompressed) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(decoding.Uncompressed, "blocks", fail)
    with pytest.raises(AudioError) as error:
        read(path, RATE)
    assert str(error.value) == f"{path}: cannot be read: Input/output error"
