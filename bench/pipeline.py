"""How fast recordings become events, beside the bare model.

Writes recordings of noise (44.1 kHz, 16 bits) as WAV, FLAC and MP3, the same total in short and in long ones,
and prints for each:

- hours of audio a second from files to events on the disk, and the share of what the bare model reaches on
  as many windows that lie ready in memory: by the clock, and by the time of all processor cores together,
  which other work on the machine hardly changes. Both are timed in turns, so that a change of the machine's
  speed meets all alike; medians over the turns.
- processor milliseconds a window that reading (opening, decoding, mixing to mono), resampling, the model, and
  writing (the table of events) take, each measured alone.

Fresh weights find sound everywhere, in half of all tokens of all classes; the bias of the head is lowered, so
that as few pass the threshold as in recordings.

    python bench/pipeline.py [--checkpoint FILE] [--minutes 4] [--repeats 3] [--threads 2] [--channels 1]
                             [--runtime torch|openvino|onnx] [--formats wav flac mp3]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from model import processor

from htsat_sed.annotations import write_events
from htsat_sed.audio import open_recording
from htsat_sed.detection.detector import Detection, Detector
from htsat_sed.detection.ensemble import Ensemble, Samples
from htsat_sed.model.checkpoint import load_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.model.runtime import Execution

RATE = 44_100
WINDOW = 10  # seconds
BATCH = 8
PRESENT = 0.002  # of all scores, that of one class at a time among 527


def write_recordings(folder: Path, suffix: str, *, seconds: int, count: int, channels: int) -> list[Path]:
    """Brownish noise, so that FLAC and MP3 have something to code."""
    rng = np.random.default_rng(0)
    noise = np.cumsum(rng.standard_normal((seconds * RATE, channels)).astype(np.float32), axis=0)
    noise = np.diff(noise, axis=0, prepend=0) + 0.02 * np.sin(noise / 50)
    noise *= 0.25 / np.abs(noise).max()
    first = folder / f"{seconds}-0.{suffix}"
    soundfile.write(first, noise, RATE)
    paths = [first, *(folder / f"{seconds}-{i}.{suffix}" for i in range(1, count))]
    for path in paths[1:]:
        path.write_bytes(first.read_bytes())
    return paths


def detect(detector: Detector, paths: list[Path]) -> dict[str, Detection]:
    """Events of all recordings."""
    found = {str(path): result for path, result in detector.detections(paths)}
    assert all(isinstance(result, Detection) for result in found.values()), found
    return {path: result for path, result in found.items() if isinstance(result, Detection)}


def write(found: dict[str, Detection], path: Path) -> None:
    """The table of all events."""
    events = {name: result.events for name, result in found.items()}
    write_events(path, events, "tsv", durations={name: result.duration for name, result in found.items()})


def sparse() -> HTSAT:
    """Fresh weights of the AudioSet model that find little in noise."""
    model = HTSAT(HTSATConfig()).eval()
    with torch.inference_mode():
        logits = model(0.1 * torch.randn(2, model.config.window_samples)).presence_logits
    with torch.no_grad():
        model.tscam_conv.bias -= logits.flatten().quantile(1 - PRESENT)
    return model


def read(paths: list[Path], rate: int) -> None:
    """Read all recordings at some rate."""
    for path in paths:
        with open_recording(path, rate) as stream:
            for _ in stream.blocks():
                pass


def seconds_of(function: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that a call takes, on a clock."""
    start = clock()
    function()
    return clock() - start


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--checkpoint", help="instead of fresh weights of the AudioSet model")
    arguments.add_argument("--minutes", type=int, default=4, help="of audio for each line")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments.add_argument("--channels", type=int, default=1)
    arguments.add_argument("--runtime", default="torch", choices=["torch", "openvino", "onnx"])
    arguments.add_argument("--formats", nargs="+", default=["wav", "flac", "mp3"])
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)

    model = load_checkpoint(given.checkpoint) if given.checkpoint else sparse()
    execution = Execution(runtime=given.runtime)
    detector = Detector(model, device="cpu", batch_size=BATCH, execution=execution)
    waveforms = 0.1 * torch.randn(BATCH, model.config.window_samples)
    windows = 60 * given.minutes // WINDOW // BATCH * BATCH
    total = windows * WINDOW / 3600  # hours

    def core(ensemble: Ensemble, rows: Sequence[Samples]) -> torch.Tensor:
        return ensemble.models[0].presence_scores(waveforms[: len(rows)])

    def bare() -> None:
        with detector._devices.computing(core) as begin:
            for wait in [begin(list(waveforms.numpy())) for _ in range(windows // BATCH)]:
                wait()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = {
            (suffix, seconds): write_recordings(
                folder, suffix, seconds=seconds, count=windows * WINDOW // seconds, channels=given.channels
            )
            for suffix in given.formats
            for seconds in (WINDOW, windows * WINDOW)
        }
        out = folder / "events.tsv"
        turns: dict[tuple[str, int], Callable[[], object]] = {("bare", 0): bare}
        for case, paths in cases.items():
            turns[case] = lambda paths=paths: write(detect(detector, paths), out)  # type: ignore[misc]
        detect(detector, cases[given.formats[0], WINDOW][:BATCH])  # warm-up
        walls: dict[tuple[str, int], list[float]] = {case: [] for case in turns}
        works: dict[tuple[str, int], list[float]] = {case: [] for case in turns}
        for _ in range(given.repeats):
            for case, turn in turns.items():
                begun = time.process_time()
                walls[case].append(seconds_of(turn))
                works[case].append(time.process_time() - begun)
        wall = {case: statistics.median(values) for case, values in walls.items()}
        work = {case: statistics.median(values) for case, values in works.items()}

        print(f"machine   {processor()}, {torch.get_num_threads()} threads, runtime {detector.runtime}")
        print(f"bare      {total / wall['bare', 0]:.4f} h/s, {windows} windows in batches of {BATCH}")
        print("                                of bare        processor ms a window")
        print("format  recordings     h/s   wall  processor  reading  resampling  model  writing")
        model_ms = work["bare", 0] / windows * 1e3
        for case, paths in cases.items():
            decoding = seconds_of(lambda paths=paths: read(paths, RATE), time.process_time)
            both = seconds_of(lambda paths=paths: read(paths, model.config.sample_rate), time.process_time)
            results = detect(detector, paths)
            writing = seconds_of(lambda results=results: write(results, out), time.process_time)
            reading, resampling, writing = (1e3 * s / windows for s in (decoding, both - decoding, writing))
            print(
                f"{case[0]:6s}  {len(paths):3d} x {case[1]:4d} s  {total / wall[case]:6.4f}  "
                f"{wall['bare', 0] / wall[case]:5.1%}  {work['bare', 0] / work[case]:9.1%}  "
                f"{reading:7.1f}  {resampling:10.1f}  {model_ms:5.1f}  {writing:7.2f}"
            )


if __name__ == "__main__":
    main()
