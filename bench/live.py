"""What live detection costs: processor time for a second of sound, windows one by one.

Noise comes through a pipe of samples as fast as it is taken. The share of one core is the processor time of
all threads for a second of sound, after the first window: 10 % means that sound in real time keeps one core
busy for a tenth of the time.

    python bench/live.py [--seconds 120] [--hop 1] [--threads 1] [--checkpoint NAME] [--runtime auto]
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack

import numpy as np
import torch

from htsat_sed import Detector, Execution
from htsat_sed.audio import AudioStream, stream_of
from htsat_sed.audio.forward import Pipe, open_forward
from htsat_sed.live.events import Rules
from htsat_sed.live.feed import Clock
from htsat_sed.live.listener import Listener, Pace
from htsat_sed.live.sources import raw_layout


class Noise:
    """So many seconds of 16-bit samples."""

    def __init__(self, rate: int, seconds: int) -> None:
        self._second = (1000 * np.random.default_rng(0).standard_normal(rate)).astype("<i2").tobytes()
        self._left = seconds

    def read(self, _: int) -> bytes:
        self._left -= 1
        return self._second if self._left >= 0 else b""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seconds", type=int, default=120)
    arguments.add_argument("--hop", type=float, default=1.0)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--checkpoint", default="home")
    arguments.add_argument("--runtime", default="auto")
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    execution = None if given.runtime == "auto" else Execution(runtime=given.runtime)
    detector = Detector(given.checkpoint, hop=given.hop, batch_size=1, execution=execution)
    rate = detector.config.sample_rate
    marks: list[tuple[float, float, float]] = []
    listener = Listener(
        detector,
        Rules(detector.labels, detector.post_processing),
        Pace(hop=round(detector.hop / detector.config.token_seconds), slack=1.0, drop=False),
        clock=Clock(),
        report=lambda report: None,
    )

    def idle() -> None:
        if listener.counts.seconds:
            marks.append((listener.counts.seconds, time.process_time(), time.perf_counter()))

    def source(stack: ExitStack) -> AudioStream:
        layout = raw_layout("s16le", rate, 1)
        return stream_of(open_forward(Pipe(Noise(rate, given.seconds)), stack, raw=layout), "-", rate)

    listener.listen(source, idle)
    (first, cpu, wall), (last, cpu_end, wall_end) = marks[0], marks[-1]
    share = (cpu_end - cpu) / (last - first)
    print(
        f"{given.checkpoint}, {detector.runtime}, hop {detector.hop:g} s, {given.threads} threads: "
        f"{100 * share:.1f} % of one core, {1000 * share * detector.hop:.1f} ms a window, "
        f"{(last - first) / (wall_end - wall):.1f} times real time"
    )


if __name__ == "__main__":
    main()
