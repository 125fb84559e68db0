"""Recordings in any format, whole or cut."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import soundfile

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
