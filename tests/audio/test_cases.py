"""Recordings as they come from other programs: killed, piped, cut, tagged, late, joined."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from recordings_made import RATE, encode, tones, wav, write

from htsat_sed.audio import open_recording, read
from htsat_sed.errors import AudioError

CASES = Path(__file__).with_name("cases")


def heard(path: Path, **choice: int) -> tuple[np.ndarray, float, str | None]:
    with open_recording(path, 32_000, **choice) as stream:
        samples = np.concatenate(list(stream.blocks()))
        return samples, stream.duration, stream.defect


def first_sound(samples: np.ndarray) -> float:
    return float(np.flatnonzero(np.abs(samples) > 0.01)[0]) / 32_000


@pytest.mark.parametrize(
    ("name", "seconds", "defect"),
    [
        ("segment_16_to_32s.mka", 15.99, None),
        ("apev2_cover.mp3", 6.0, None),
        ("piped_by_ffmpeg.w64", 3.0, None),
        ("piped_by_ffmpeg.rf64", 3.0, None),
        ("killed_by_libsndfile.rf64", 3.0, None),
        ("killed_by_libsndfile.au", 3.0, None),
        ("extensible_24bit_in_4_bytes.wav", 3.0, None),
        ("id3v2_before_riff.wav", 3.0, None),
        ("flac_rate_changes.flac", 3.0, None),
        ("chained_ogg_channels_change.ogg", 16.0, None),
        ("film_audio_4s_late.mp4", 20.0, None),
        (
            "float_int_scale.wav",
            3.0,
            ("its floating-point samples are on the scale of integers: they are divided by 32768"),
        ),
    ],
)
def test_length_and_defect(name: str, seconds: float, defect: str | None) -> None:
    _, duration, found = heard(CASES / name)
    assert duration == pytest.approx(seconds, abs=0.01)
    assert found == defect


def test_the_same_sound_in_unlike_wrappings() -> None:
    wanted, *_ = heard(CASES / "id3v2_before_riff.wav")
    for name in ("piped_by_ffmpeg.w64", "piped_by_ffmpeg.rf64", "killed_by_libsndfile.rf64", "killed_by_libsndfile.au",
                 "extensible_24bit_in_4_bytes.wav", "float_int_scale.wav"):  # fmt: skip
        np.testing.assert_allclose(heard(CASES / name)[0], wanted, atol=2**-15)
    assert np.abs(wanted).max() == pytest.approx(0.48, abs=0.01)


def test_joined_flac_of_two_rates_sounds_to_its_end() -> None:
    samples, *_ = heard(CASES / "flac_rate_changes.flac")
    halves = samples[: len(samples) // 2], samples[len(samples) // 2 :]
    assert all(np.sqrt(np.mean(half**2)) > 0.01 for half in halves)


def test_cover_of_an_mp3_hides_no_sound() -> None:
    samples, *_ = heard(CASES / "apev2_cover.mp3")
    assert np.abs(samples[-16_000:]).max() > 0.01


# Uncompressed: lengths that promise nothing.


@pytest.mark.parametrize("format", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_killed_while_recording(format: str, subtype: str, tmp_path: Path) -> None:
    """The process ends without a word to libsndfile, which would have filled in the lengths."""
    path = tmp_path / "a"
    code = f"""import os, numpy as np, soundfile
file = soundfile.SoundFile({str(path)!r}, "w", 8000, 2, format={format!r}, subtype={subtype!r})
file.write(np.tile(np.array([[0.5, 0.25]], "f4"), (16000, 1)))
os._exit(0)"""
    subprocess.run([sys.executable, "-c", code], check=True)
    samples, duration, defect = heard(path)
    assert duration == 2.0
    assert defect is None
    assert samples[32_000] == pytest.approx(0.375, abs=1e-3)


def w64(stated: int) -> bytes:
    data = CASES.joinpath("piped_by_ffmpeg.w64").read_bytes()
    at = data.index(b"data") + 16
    return data[:at] + struct.pack("<Q", stated) + data[at + 8 :]


def rf64(stated: int) -> bytes:
    data = CASES.joinpath("piped_by_ffmpeg.rf64").read_bytes()
    return data[:20] + struct.pack("<QQ", (stated + 100) % (1 << 64), stated) + data[36:]


def au(stated: int) -> bytes:
    data = CASES.joinpath("killed_by_libsndfile.au").read_bytes()
    return data[:8] + struct.pack(">I", stated) + data[12:]


@pytest.mark.parametrize(
    "data",
    [w64(stated) for stated in ((1 << 63) - 1, (1 << 64) - 1, 1 << 63, 0xFFFFFFFF, 24, 0)]
    + [rf64(stated) for stated in ((1 << 64) - 1, (1 << 63) - 1, 0xFFFFFFFF, 0)]
    + [au(stated) for stated in (0xFFFFFFFF, 0x7FFFFFFF, 0x7F000000, 0)],
)  # fmt: skip
def test_placeholder_of_any_size(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(data)
    _, duration, defect = heard(path)
    assert duration == pytest.approx(3.0, abs=0.001)
    assert defect is None


@pytest.mark.parametrize("stated", [0, 0x7F000000, 0x80000000 - 8, 0xFFFFFFFF])
def test_aiff_from_a_pipe(stated: int, tmp_path: Path) -> None:
    samples = tones(channels=1)
    path = write(tmp_path / "a.aiff", samples, format="AIFF", subtype="PCM_16")
    data = bytearray(path.read_bytes())
    form, common, sound = 4, data.index(b"COMM"), data.index(b"SSND")
    data[form : form + 4] = struct.pack(">I", stated and 0xFFFFFFFF)
    data[common + 10 : common + 14] = struct.pack(">I", stated // 2)
    data[sound + 4 : sound + 8] = struct.pack(">I", stated)
    path.write_bytes(data)
    _, duration, defect = heard(path)
    assert duration == pytest.approx(2.0, abs=0.001)
    assert defect is None


@pytest.mark.parametrize(("tag", "low"), [(0xFFFE, False), (1, False), (1, True), (0xFFFE, True)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_24_bits_in_4_bytes(tag: int, low: bool, order: str, tmp_path: Path) -> None:
    samples = np.round(tones(channels=2) * (2**23 - 1)).astype("i4")
    body = (samples if low else samples << 8).astype(f"{order}i4").tobytes()
    form = struct.pack(f"{order}HHIIHH", tag, 2, RATE, 8 * RATE, 8, 24)
    if tag == 0xFFFE:
        form += struct.pack(f"{order}HHIH14x", 22, 24, 3, 1)
    chunks = (
        b"fmt "
        + struct.pack(f"{order}I", len(form))
        + form
        + b"data"
        + struct.pack(f"{order}I", len(body))
        + body
    )
    path = tmp_path / "a.wav"
    head = b"RIFF" if order == "<" else b"RIFX"
    path.write_bytes(head + struct.pack(f"{order}I", 4 + len(chunks)) + b"WAVE" + chunks)
    np.testing.assert_allclose(read(path, RATE), samples.mean(axis=1) / 2**23, atol=1e-6)


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.flac"])
def test_id3_before_and_behind(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, tones())
    tag = b"ID3\x04\0\0\0\0\x01\0" + bytes(128)
    whole = read(path, RATE)
    path.write_bytes(tag + tag + path.read_bytes() + b"TAG" + bytes(125))
    _, duration, defect = heard(path)
    assert (duration, defect) == (2.0, None)
    np.testing.assert_array_equal(read(path, RATE), whole)


# MP3: what is a length's word and what an estimate.


def test_information_in_a_tag_is_no_info_frame(tmp_path: Path) -> None:
    data = write(
        tmp_path / "a.mp3", np.concatenate([tones(1.0) * 1e-4, tones(3.0)]), bitrate_mode="VARIABLE"
    ).read_bytes()
    frame = data.index(data[:2], max(data.find(b"Xing"), data.find(b"Info")))
    text = b"\0Information about nothing"
    content = b"TIT2" + struct.pack(">I", len(text)) + b"\0\0" + text
    tag = b"ID3\x03\0\0\0\0\0" + bytes([len(content)]) + content
    path = tmp_path / "b.mp3"
    path.write_bytes(tag + data[frame : len(data) * 9 // 10])
    _, _, defect = heard(path)
    assert defect is None or "promises" not in defect


def test_xing_frame_of_an_mp3_that_was_cut_off(tmp_path: Path) -> None:
    data = write(tmp_path / "a.mp3", tones(4.0), bitrate_mode="VARIABLE").read_bytes()
    path = tmp_path / "b.mp3"
    path.write_bytes(data[: len(data) // 2])
    _, _, defect = heard(path)
    assert defect is not None
    assert "its header promises 4.00 s" in defect


# The film's clock.


def film(
    path: Path,
    *,
    late: float = 0.0,
    gap: tuple[float, float] | None = None,
    codec: str = "aac",
    slow: float = 0.0,
    picture: float = 6.0,
) -> Path:
    """Sound of 4 s, with time stamps shifted by `late`, those from a time on by more, beside `picture` seconds.

    For the first 2 s the clock loses `slow` seconds a second.
    """
    with av.open(path, "w") as container:
        sound = container.add_stream(codec, rate=RATE, layout="mono", bit_rate=128_000)
        pictures = (
            container.add_stream("mpeg4" if path.suffix != ".flv" else "flv", rate=25) if picture else None
        )
        if path.suffix in (".ts", ".mpg", ".m2ts") and pictures is not None:
            pictures.codec_context.bit_rate = 100_000
        packets = []
        if pictures is not None:
            pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
            for number in range(round(picture * 25)):
                frame = av.VideoFrame(32, 32, "yuv420p")
                frame.pts = number
                packets += pictures.encode(frame)
            packets += pictures.encode(None)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(tones(4.0, 1).T), "fltp", "mono")
        frame.sample_rate, frame.pts = RATE, 0
        resampler = av.AudioResampler(sound.format.name, frame_size=sound.frame_size or 1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            shift = late + (gap[1] if gap is not None and piece.pts >= gap[0] * RATE else 0.0)
            shift -= slow * piece.pts / RATE if piece.pts < 2 * RATE else 0.0
            for packet in sound.encode(piece):
                packets.append(packet)
                packet.pts += round(shift * RATE)
                packet.dts += round(shift * RATE)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.ts", "a.flv"])
def test_late_sound_is_on_the_films_clock(name: str, tmp_path: Path) -> None:
    prompt, *_ = heard(film(tmp_path / f"0{name}"))
    late, duration, defect = heard(film(tmp_path / name, late=1.5))
    assert first_sound(late) - first_sound(prompt) == pytest.approx(1.5, abs=0.03)
    assert duration == pytest.approx(5.5, abs=0.06)
    assert defect is None


@pytest.mark.parametrize("name", ["a.mka", "a.mp4", "a.m4a", "a.ts"])
def test_a_clock_that_begins_late_for_all_is_no_silence(name: str, tmp_path: Path) -> None:
    _, duration, defect = heard(film(tmp_path / name, late=7.0, picture=0.0))
    assert duration == pytest.approx(4.0, abs=0.06)
    assert defect is None


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.flv"])
def test_gap_in_time_stamps_is_silence(name: str, tmp_path: Path) -> None:
    whole, *_ = heard(film(tmp_path / f"0{name}"))
    samples, duration, defect = heard(film(tmp_path / name, gap=(2.0, 1.5)))
    assert duration == pytest.approx(len(whole) / 32_000 + 1.5, abs=0.03)
    assert not samples[round(2.1 * 32_000) : round(3.4 * 32_000)].any()
    np.testing.assert_allclose(samples[-16_000:], whole[-16_000:], atol=0.02)
    assert defect is not None
    assert defect.startswith("damaged or interrupted at 1.9")
    assert "1.5" in defect


@pytest.mark.parametrize("name", ["a.mkv", "a.flv"])
def test_a_slow_clock_that_is_set_right_is_no_gap(name: str, tmp_path: Path) -> None:
    whole, *_ = heard(film(tmp_path / f"0{name}"))
    samples, _, defect = heard(film(tmp_path / name, slow=0.05))
    assert defect is None
    np.testing.assert_array_equal(samples, whole)


def test_a_leap_of_a_broadcasts_clock_is_no_gap(tmp_path: Path) -> None:
    _, duration, defect = heard(film(tmp_path / "a.ts", gap=(2.0, 3_600.0), picture=0.0))
    assert duration == pytest.approx(4.0, abs=0.1)
    assert defect is not None
    assert defect.startswith("its time stamps jump by 3600 s at 1.9")


@pytest.mark.parametrize("whole", [True, False])
def test_fragmented_mp4(whole: bool, tmp_path: Path) -> None:
    path = encode(
        tmp_path / "a.mp4", tones(4.0, 1), "aac", movflags="frag_keyframe+empty_moov", frag_duration="500000"
    )
    data = path.read_bytes()
    if not whole:
        path.write_bytes(data[: len(data) * 2 // 3])
    _, duration, defect = heard(path)
    if whole:
        assert duration == pytest.approx(4.0, abs=0.05)
        assert defect is None
    else:
        assert 2.0 < duration < 3.5
        assert defect is not None
        assert defect.startswith("truncated, it ends at")


# Parameters that change.


@pytest.mark.parametrize("change", [{"rate": 16_000}, {"channels": 1}, {"rate": 44_100, "channels": 2}])
@pytest.mark.parametrize("how", [{"format": "OGG", "subtype": "VORBIS"}, {"format": "OGG", "subtype": "OPUS"}, {"format": "FLAC"}, {"format": "MP3"}])  # fmt: skip
def test_joined_recordings_of_unlike_kinds(
    change: dict[str, int], how: dict[str, str], tmp_path: Path
) -> None:
    if how.get("subtype") == "OPUS" and change.get("rate") == 44_100:
        change = {**change, "rate": 24_000}
    one = write(tmp_path / "a", tones(), **how).read_bytes()
    rate = change.get("rate", RATE)
    two = write(tmp_path / "b", tones(2.0, change.get("channels", 2), rate), rate, **how).read_bytes()
    path = tmp_path / f"c.{how['format'].lower()}"
    path.write_bytes(one + two + one)
    samples, duration, defect = heard(path)
    assert duration == pytest.approx(6.0, abs=0.3)
    assert defect is None
    middle = samples[round(2.5 * 32_000) : round(3.5 * 32_000)]
    assert np.sqrt(np.mean(middle**2)) > 0.05


def test_streams_without_number_are_refused(tmp_path: Path) -> None:
    one = write(tmp_path / "a.ogg", tones(0.1), format="OGG", subtype="VORBIS").read_bytes()
    first_page = one[: 27 + one[26] + sum(one[27 : 27 + one[26]])]
    path = tmp_path / "b.ogg"
    path.write_bytes((first_page + b"\0") * 10_001)  # pages side by side would be one stream
    with pytest.raises(AudioError, match="joined from 10001 streams"):
        read(path, 32_000)


# Channels, tracks, scales.


def test_a_short_recording_whose_channels_cancel_is_reported(tmp_path: Path) -> None:
    left = 0.3 * np.sin(np.arange(RATE // 4) / 9.0)
    soundfile.write(tmp_path / "a.wav", np.stack([left, -left], axis=1), RATE)
    assert "its channels cancel each other" in (heard(tmp_path / "a.wav")[2] or "")


def test_converters_offsets_do_not_count_as_channels_that_cancel(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0.0, 3e-4, (2 * RATE, 2))
    soundfile.write(tmp_path / "a.wav", noise + np.array([2e-3, -2e-3]), RATE, subtype="FLOAT")
    assert heard(tmp_path / "a.wav")[2] is None


def test_channels_that_cancel_are_reported_and_can_be_chosen() -> None:
    samples, _, defect = heard(CASES / "antiphase.flac")
    assert np.abs(samples).max() < 1e-4
    assert defect is not None
    assert defect.startswith(
        "its channels cancel each other when averaged, in 3.00 of 3.00 s, the first at 0.00 s"
    )
    assert "--channel 1" in defect
    left, _, defect = heard(CASES / "antiphase.flac", channel=1)
    right, *_ = heard(CASES / "antiphase.flac", channel=2)
    assert defect is None
    assert np.abs(left).max() > 0.1
    np.testing.assert_allclose(left, -right, atol=1e-4)
    with pytest.raises(AudioError, match="has 2 channels, no channel 3"):
        heard(CASES / "antiphase.flac", channel=3)


def test_silent_first_track_is_reported_and_the_other_can_be_chosen() -> None:
    samples, _, defect = heard(CASES / "two_tracks_first_silent.mp4")
    assert not samples.any()
    assert defect == "its first audio track of 2 is silent, track 2 is not: use --track 2"
    samples, _, defect = heard(CASES / "two_tracks_first_silent.mp4", track=2)
    assert np.abs(samples).max() > 0.1
    assert defect is None
    assert heard(CASES / "two_tracks_first_silent.mp4", track=1)[2] is None
    with pytest.raises(AudioError, match="has 2 audio tracks, no track 3"):
        heard(CASES / "two_tracks_first_silent.mp4", track=3)
    with pytest.raises(AudioError, match="has 1 audio track, no track 2"):
        heard(CASES / "float_int_scale.wav", track=2)


@pytest.mark.parametrize(
    ("scale", "divisor"), [(2.0**15, 32_768), (2.0**23, 8_388_608), (2.0**31, 2_147_483_648)]
)
def test_floats_on_the_scale_of_integers(scale: float, divisor: int, tmp_path: Path) -> None:
    samples = tones()
    wanted = read(write(tmp_path / "a.wav", samples, subtype="FLOAT"), RATE)
    silence = np.zeros((6 * RATE, 2), "f4")  # the first block says nothing
    path = write(tmp_path / "b.wav", np.concatenate([silence, np.rint(samples * scale)]), subtype="FLOAT")
    _, _, defect = heard(path)
    assert defect == f"its floating-point samples are on the scale of integers: they are divided by {divisor}"
    np.testing.assert_allclose(read(path, RATE)[6 * RATE :], wanted, atol=2 / scale + 1e-6)


def test_integer_scale_is_noticed_after_near_silence(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    quiet, loud = rng.integers(-1, 2, 6 * RATE), np.rint(9_000 * np.sin(np.arange(RATE) / 9.0))
    soundfile.write(tmp_path / "a.wav", np.concatenate([quiet, loud]), RATE, subtype="FLOAT")
    samples, _, defect = heard(tmp_path / "a.wav")
    assert defect == "its floating-point samples are on the scale of integers: they are divided by 32768"
    assert np.abs(samples[: 5 * 32_000]).max() < 1e-4


def test_the_scale_is_that_of_the_track_that_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    tone = np.sin(np.arange(2 * RATE) / 9.0).astype(np.float32)[None]
    with av.open(path, "w") as container:
        streams = [container.add_stream("pcm_f32le", rate=RATE, layout="mono") for _ in range(2)]
        for stream, peak in zip(streams, (9_000.0, 1.5), strict=True):
            frame = av.AudioFrame.from_ndarray(np.float32(peak) * tone, "flt", "mono")
            frame.sample_rate, frame.pts = RATE, 0
            container.mux([*stream.encode(frame), *stream.encode(None)])
    samples, _, defect = heard(path, track=2)
    assert defect is None
    assert np.abs(samples).max() == pytest.approx(1.5, rel=0.01)


def test_one_wild_sample_is_not_the_scale(tmp_path: Path) -> None:
    samples = tones(channels=1)
    samples[100] = 20_000.0
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    np.testing.assert_array_equal(read(path, RATE), samples[:, 0])


# Cover art.


def test_cover_art_is_not_decoded(tmp_path: Path) -> None:
    """A picture of 200 MB in a file of 200 kB."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    side = 8192
    pixels = zlib.compress(bytes(side * (1 + 3 * side)), 1)
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    mime = b"image/png"
    block = (
        struct.pack(">II", 3, len(mime)) + mime + struct.pack(">IIIIII", 0, side, side, 24, 0, len(png)) + png
    )
    data = write(tmp_path / "a.flac", tones(0.5)).read_bytes()
    path = tmp_path / "b.flac"
    path.write_bytes(data[:42] + b"\x06" + struct.pack(">I", len(block))[1:] + block + data[42:])
    code = f"""import resource
from htsat_sed.audio import read
used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read({str(tmp_path / "a.flac")!r}, 32000); before = used()
assert len(read({str(path)!r}, 32000)) == 16000
assert used() - before < 100_000, used() - before"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_wav_called_raw(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    shutil.copyfile(write(tmp_path / "a.wav", tones()), path)
    assert len(read(path, RATE)) == 2 * RATE
    for name in ("a.vox", "a.gsm", "a.al"):
        shutil.copyfile(path, tmp_path / name)
        assert len(read(tmp_path / name, RATE)) == 2 * RATE


def test_soundfile_and_these_agree_on_a_plain_wav(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(tones(channels=1)[:, 0]))
    np.testing.assert_array_equal(read(path, RATE), soundfile.read(path, dtype="float32")[0])
