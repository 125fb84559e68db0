"""Opus for browsers: encodes audio as it is read, and writes any parts of it as one MP4 file.

A packet lasts 60 ms and can be decoded independently, except for its first milliseconds, so that parts can be
selected after encoding. Chromium, Firefox and Safari all play MP4 and seek in it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
import soxr
from numpy.typing import NDArray

PACKET_SECONDS = 0.06
TYPE = "audio/mp4"

_RATES = (24_000, 16_000, 12_000, 8_000)  # rates of Opus; higher ones take time and are hardly audible
_OPTIONS = {"frame_duration": "60", "compression_level": "0", "application": "audio"}


class OpusEncoder:
    """Encodes blocks of mono audio.

    Args:
        sample_rate: sample rate of the blocks, Hz.
        bit_rate: bits per second.

    Attributes:
        packets: complete packets of 60 ms.
    """

    def __init__(self, sample_rate: int, bit_rate: int) -> None:
        self._rate = opus_rate(sample_rate)
        self._resampler = soxr.ResampleStream(sample_rate, self._rate, 1, dtype="float32", quality="LQ")
        self._bit_rate = bit_rate
        self._stream, self._container = _output(io.BytesIO(), self._rate, bit_rate)
        self._samples = 0
        self.packets: list[bytes] = []

    def add(self, samples: NDArray[np.float32], *, last: bool = False) -> None:
        """Encode the next samples, (n,) in [-1, 1]; louder ones are clipped."""
        block = self._resampler.resample_chunk(samples, last=last)
        if len(block):
            frame = av.AudioFrame.from_ndarray(block.clip(-1.0, 1.0)[None], format="flt", layout="mono")
            frame.sample_rate, frame.pts = self._rate, self._samples
            self._samples += len(block)
            self.packets += map(bytes, self._stream.encode(frame))
        if last:
            self.packets += map(bytes, self._stream.encode(None))

    def file(self, parts: Sequence[tuple[int, int]] | None = None) -> bytes:
        """Write packets as an MP4 file.

        Args:
            parts: ranges of packets, end exclusive, to concatenate; None for all packets.
        """
        file = io.BytesIO()
        stream, container = _output(file, self._rate, self._bit_rate)
        chosen = [k for first, end in parts or [(0, len(self.packets))] for k in range(first, end)]
        with container:
            container.start_encoding()
            length = round(PACKET_SECONDS * self._rate)
            for place, k in enumerate(chosen):
                packet = av.Packet(self.packets[k])
                packet.stream, packet.time_base = stream, Fraction(1, self._rate)
                packet.pts = packet.dts = place * length
                packet.duration = length
                container.mux(packet)
        return file.getvalue()


def opus_rate(sample_rate: int) -> int:
    """Sample rate of Opus for audio of another rate, Hz."""
    return next((rate for rate in _RATES if rate <= sample_rate), _RATES[-1])


def _output(
    file: io.BytesIO, rate: int, bit_rate: int
) -> tuple[av.AudioStream, av.container.OutputContainer]:
    container = av.open(file, "w", format="mp4")
    stream = container.add_stream("libopus", rate=rate, options=_OPTIONS)
    stream.bit_rate, stream.layout = bit_rate, "mono"
    return stream, container
