"""Readers that raise, hang or would open something else end one recording and nothing more."""

from __future__ import annotations

import os
import struct
import threading
import time
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import pytest
from recordings_made import RATE, encode, signal_to_noise, tones, write

from htsat_sed.audio import coded, open_recording, read, streams, time_limit
from htsat_sed.errors import AudioError


def test_a_recording_that_never_delivers_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fifo = tmp_path / "a.wav"
    os.mkfifo(fifo)
    # As a lost network drive: a file by its kind, but reading it never ends.
    monkeypatch.setattr(streams, "_open_regular", lambda name, path, _: path.open("rb"))
    monkeypatch.setattr(time_limit, "PATIENCE", 0.2)
    with pytest.raises(AudioError) as error:
        read(fifo, RATE)
    assert str(error.value) == f"{fifo}: has yielded no data for 0.2 s: left out"
    with fifo.open("wb"):  # lets the thread that was left behind end
        pass


def test_a_recording_that_stops_to_deliver_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.flac", tones(20.0, 1))
    released = threading.Event()
    values = coded._values

    def hang(frame: av.AudioFrame) -> np.ndarray:
        if frame.time is not None and frame.time > 12.0:
            released.wait(60)
        return values(frame)

    monkeypatch.setattr(coded, "_values", hang)
    monkeypatch.setattr(time_limit, "PATIENCE", 1.0)
    with open_recording(path, RATE) as stream:
        blocks = stream.blocks()
        assert len(next(blocks)) > 4 * RATE
        with pytest.raises(AudioError, match="has yielded no data for 1 s: left out"):
            list(blocks)
        released.set()


def test_work_that_takes_long_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking through a long silent track yields nothing, but goes on."""
    path = Path(__file__).with_name("cases") / "two_tracks_first_silent.mp4"
    monkeypatch.setattr(time_limit, "PATIENCE", 0.5)

    def other_track(self: coded.Coded) -> object:
        for _ in range(10):
            time.sleep(0.1)
            yield None
        yield 2

    monkeypatch.setattr(coded.Coded, "other_track", other_track)
    with open_recording(path, RATE) as stream:
        list(stream.blocks())
    assert stream.defect is not None


def test_a_search_for_joined_streams_in_a_large_file_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.flac", tones(1.0, 1))
    links = coded.flac_links
    monkeypatch.setattr(time_limit, "PATIENCE", 0.5)

    def from_a_slow_disk(file: BinaryIO, start: int, end: int) -> list[tuple[int, int]]:
        for _ in range(10):
            time.sleep(0.1)
            found = links(file, start, end)
        return found

    monkeypatch.setattr(coded, "flac_links", from_a_slow_disk)
    assert len(read(path, RATE)) == RATE


@pytest.mark.parametrize("error", [TypeError("wants a rate"), MemoryError(), RuntimeError("odd"), KeyError("x"), ValueError("no")])  # fmt: skip
@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_whatever_a_reader_raises_is_an_error_of_the_recording(
    error: Exception, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / name, tones())

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(
        "soundfile.SoundFile.read" if name == "a.wav" else "htsat_sed.audio.coded._joined", fail
    )
    with pytest.raises(AudioError) as raised:
        read(path, RATE)
    assert str(raised.value).startswith(f"{path}: cannot be read: {type(error).__name__}: ")
    monkeypatch.setattr(streams, "open_decoder", fail)
    with pytest.raises(AudioError) as raised:
        read(path, RATE)
    assert str(raised.value).startswith(f"{path}: cannot be opened: {type(error).__name__}: ")


def test_no_thread_is_left(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", tones(20.0, 1))
    before = threading.active_count()
    for stop in (0, 1, None):
        with open_recording(path, RATE) as stream:
            for number, _ in enumerate(stream.blocks()):
                if number == stop:
                    break
    assert threading.active_count() == before


# Playlists.


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile private.wav\n",
        "\ufeff  \nffconcat version 1.0\nfile private.wav\n",
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nprivate.wav\n",
        "#EXTINF:2,\nprivate.wav\n",
        '<?xml version="1.0"?>\n<!-- a -->\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>',
        '<?xml version="1.0"?><playlist><trackList/></playlist>',
        "<asx version='3.0'><entry><ref href='http://localhost/'/></entry></asx>",
        "<smil><body><audio src='a.wav'/></body></smil>",
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 5004 RTP/AVP 96\r\n",
        "[playlist]\nFile1=private.wav\n",
        "[Reference]\nRef1=http://localhost/a\n",
        "ASF http://localhost/a\n",
        "RTSPtext\nrtsp://localhost/a",
        "http://localhost/a.mp3\n",
        "rtsp://localhost/a\n",
        "file:private.wav\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.wav", "a.m3u8", "a.mpd", "a.sdp"])
def test_playlist_is_refused_before_ffmpeg_sees_it(
    text: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "private.wav", tones())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(av, "open", lambda *_, **__: pytest.fail("FFmpeg opened it"))
    for encoding in ("utf-8", "utf-16"):
        Path(name).write_bytes(text.encode(encoding))
        with pytest.raises(AudioError, match="is a playlist: give the recordings that it lists"):
            read(name, RATE)


@pytest.mark.parametrize(
    "text",
    [
        "junk\nffconcat version 1.0\nfile fifo\n",
        "\x01#EXTM3U\nfifo\n",
        "c=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    ],
)
@pytest.mark.parametrize("name", ["a.wav", "a.m3u8", "a.ffconcat", "a.sdp"])
def test_what_is_not_known_as_a_playlist_opens_nothing_either(
    text: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(text)
    with pytest.raises(AudioError, match=r"is a text file|is not a recording"):
        read(name, RATE)


def test_formats_that_name_other_files_are_not_on_the_list() -> None:
    allowed = set(coded._FORMATS.split(","))
    named = {
        "concat",
        "hls",
        "dash",
        "sdp",
        "rtsp",
        "rtp",
        "sap",
        "imf",
        "image2",
        "image2pipe",
        "lavfi",
        "alsa",
    }
    named |= {
        "webm_dash_manifest",
        "tedcaptions",
        "vobsub",
        "mpsub",
        "x11grab",
        "fbdev",
        "oss",
        "bluray",
        "dvdvideo",
    }
    assert not allowed & named
    assert {
        "wav",
        "mov",
        "matroska",
        "ogg",
        "mp3",
        "flac",
        "aac",
        "mpegts",
        "mpeg",
        "asf",
        "flv",
        "avi",
    } <= allowed


def test_a_film_whose_samples_lie_in_another_file(tmp_path: Path) -> None:
    """QuickTime's data references: FFmpeg follows them if it is asked to."""
    sounding = encode(tmp_path / "sounding.mov", tones(), "pcm_s16le")
    path = str(sounding).encode() + b"\0" * (len(str(sounding)) % 2)
    alias = bytes(10 + 28 + 12 + 64 + 16) + struct.pack(">HH", 1, 1) + bytes(16)
    alias += struct.pack(">HH", 2, len(path)) + path + struct.pack(">HH", 0xFFFF, 0)
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    referring = tmp_path / "referring.mov"
    referring.write_bytes(with_reference(sounding.read_bytes(), entry))
    following = {"enable_drefs": "1", "use_absolute_path": "1"}
    with av.open(str(referring), options=following) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) == 2 * RATE
    with pytest.raises(AudioError, match="holds no audio"):
        read(referring, RATE)


def with_reference(data: bytes, entry: bytes) -> bytes:
    """A film, moov at its end, with another entry in dref; all boxes around it grow."""
    for name in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        at = data.rindex(name) - 4
        (size,) = struct.unpack(">I", data[at : at + 4])
        data = data[:at] + struct.pack(">I", size - 12 + len(entry)) + data[at + 4 :]
    at = data.rindex(b"dref") + 4 + 8
    return data[:at] + entry + data[at + 12 :]


def test_a_matroska_file_that_names_its_continuation(tmp_path: Path) -> None:
    """Linked segments (RFC 9559): the files that they name are not opened."""
    path = encode(tmp_path / "a.mka", tones(), "flac")
    whole, data = read(path, RATE), path.read_bytes()
    for application, link in ((b"\x4d\x80", b"\x3e\x83\xbb"), (b"\x57\x41", b"\x3c\x83\xab")):
        at = data.index(application)
        length = data[at + 2] - 0x80
        name = b"x" * (length - 5) + b".mka"  # the name of the element takes one byte more
        data = data[:at] + link + bytes([0x80 + len(name)]) + name + data[at + 3 + length :]
    os.mkfifo(tmp_path / name.decode())  # opening it would never end
    path.write_bytes(data)
    np.testing.assert_array_equal(read(path, RATE), whole)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout"),
    [("a.302", "pcm_s24daud", 96_000, "5.1(side)"), ("a.roq", "roq_dpcm", 22_050, "stereo")],
)
def test_rare_formats_of_one_file_are_read(
    tmp_path: Path, name: str, codec: str, rate: int, layout: str
) -> None:
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        sound = np.repeat(tones(1.0, 1, rate).T, stream.layout.nb_channels, axis=0)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), "fltp", layout)
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(stream.format.name, frame_size=stream.frame_size or 1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    got = read(tmp_path / name, rate)
    assert signal_to_noise(sound[0], got) > 20
