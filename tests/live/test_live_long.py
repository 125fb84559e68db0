"""A day of sound, and a recording at ten times its speed."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from golden.reference_state import recording

from htsat_sed.audio import AudioStream, stream_of
from htsat_sed.audio.forward import Pipe, open_forward
from htsat_sed.detection.detector import Detector
from htsat_sed.detection.events import PostProcessing
from htsat_sed.live.clips import Clips
from htsat_sed.live.events import Rules
from htsat_sed.live.feed import Clock
from htsat_sed.live.listener import Listener, Pace, Report, Saving
from htsat_sed.live.sources import raw_layout

RATE = 32_000
HOURS = 24
PROGRAM = [sys.executable, "-c", "from htsat_sed.cli import program; program()"]


def resident() -> float:
    """MB of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


class Endless:
    """So many seconds of noise, as 16-bit samples."""

    def __init__(self, seconds: int) -> None:
        rng = np.random.default_rng(0)
        self._second = (3000 * rng.standard_normal(RATE)).astype("<i2").tobytes()
        self._left = seconds

    def read(self, size: int) -> bytes:
        self._left -= 1
        return self._second if self._left >= 0 else b""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_a_day_needs_no_more_memory_than_an_hour(detector: Detector, tmp_path: Path) -> None:
    """Of a model that costs nothing: scores that rise and fall, with an event that never ends."""

    class Instant(Detector):
        @contextmanager
        def scoring(self) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
            rng = np.random.default_rng(1)

            def score(_: np.ndarray) -> np.ndarray:
                scores = rng.random((32, 4), np.float32) ** 2
                scores[:, 0] = 1.0
                scores[:, 3] *= rng.random() > 0.9
                return scores

            yield score

    instant = Instant(detector.models[0], hop=2.5, batch_size=1, execution=detector.execution)
    rules = PostProcessing(threshold=0.5, threshold_low=0.3, median_filter=0.9, min_gap=1.0, edge_level=0.6)
    counted: dict[str, int] = {}

    def report(made: Report) -> None:
        counted[made.state] = counted.get(made.state, 0) + 1
        if made.clip is not None:
            Path(made.clip).unlink()

    listener = Listener(
        instant,
        Rules(instant.labels, rules),
        Pace(hop=8, slack=60.0, drop=False),
        clock=Clock(),
        report=report,
        saving=Saving(Clips(tmp_path, RATE), 1.0, 1.0, 2.0),
    )
    memory: dict[int, float] = {}

    def idle() -> None:
        tenth = int(listener.counts.seconds // 600)
        if tenth not in memory:
            memory[tenth] = resident()

    def source(stack: ExitStack) -> AudioStream:
        pipe = Pipe(Endless(HOURS * 3600))
        return stream_of(open_forward(pipe, stack, raw=raw_layout("s16le", RATE, 1)), "-", RATE)

    listener.listen(source, idle)
    hour = max(value for tenth, value in memory.items() if tenth <= 6)
    print(f"MB at the end of the first hour {hour:.1f}, at most {max(memory.values()):.1f}, {counted}")  # noqa: T201
    assert listener.counts.seconds == HOURS * 3600
    assert counted["final"] > 10 * HOURS
    assert max(memory.values()) < hour + 50.0


@pytest.mark.long
def test_ten_minutes_at_ten_times_the_speed(checkpoint: Path, tmp_path: Path) -> None:
    """Final events are those of the file, and come within the look-ahead; the delay is that of the program."""
    sound = [recording(20.0, RATE, seed) for seed in range(20)]
    for quiet in sound[1::4]:
        quiet[5 * RATE :] = 0.0
    path = tmp_path / "long.wav"
    soundfile.write(path, np.concatenate(sound)[: 600 * RATE], RATE)
    seconds = soundfile.info(path).duration
    options = ["-c", str(checkpoint), "--hop", "2.5", "--runtime", "torch"]
    found = subprocess.run(
        [
            *PROGRAM,
            "detect",
            str(path),
            *options,
            "--batch-size",
            "1",
            "-f",
            "jsonl",
        ],  # torch rounds by the batch
        capture_output=True,
        check=True,
        text=True,
    )
    expected = json.loads(found.stdout)["events"]
    listen = [*PROGRAM, "listen", "-", *options, "--quiet"]
    with subprocess.Popen(listen, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines: list[tuple[float, dict]] = []
        reader = threading.Thread(
            target=lambda: lines.extend((time.monotonic(), json.loads(line)) for line in process.stdout)
        )
        reader.start()
        data, step = path.read_bytes(), RATE * 2 // 2  # half a second of sound
        # The model is loaded while the first window waits in the pipe and the program.
        begun: float | None = None
        for number, position in enumerate(range(0, len(data), step)):
            if begun is None and number * 0.5 > 15.0:
                while not lines:
                    time.sleep(0.05)
                begun = time.monotonic() - number * 0.05
            if begun is not None:
                time.sleep(max(0.0, begun + number * 0.05 - time.monotonic()))
            process.stdin.write(data[position : position + step])
            process.stdin.flush()
        process.stdin.close()
        reader.join()
        assert process.wait() == 0
    final = [line for _, line in lines if line["state"] == "final"]
    key = lambda event: (event["onset"], event["offset"], event["label"])  # noqa: E731
    names = ("onset", "offset", "label", "score")
    assert sorted(({name: line[name] for name in names} for line in final), key=key) == sorted(
        expected, key=key
    )
    assert len(final) > 20
    assert begun is not None
    late = [
        (came - begun) * 10 - line["offset"]
        for came, line in lines
        if line["state"] == "final" and 20.0 < line["offset"] < seconds - 20.0
    ]
    print(f"{len(final)} events, at most {max(late):.2f} s of the stream late")  # noqa: T201
    assert max(late) < 10.0 + 2.5 + 9 * 0.3125 + 10.0 * 1.0  # computing may take a second of the clock
