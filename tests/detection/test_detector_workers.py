"""What runs beside what, ends with the run, and fits into memory, whatever the results."""

import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_detector import RATE, tiny, write

from htsat_sed import Detector, PresenceMap
from htsat_sed.detection.detector import Detection
from htsat_sed.detection.ensemble import Ensemble
from htsat_sed.errors import HtsatSedError
from htsat_sed.model.htsat import HTSAT, HTSATConfig


@pytest.fixture
def torch_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, pytest.param(3, marks=pytest.mark.long)])
def test_results_are_the_same_to_the_bit_for_any_workers(
    tmp_path: Path, torch_threads: Callable[[int], None], threads: int
) -> None:
    torch_threads(threads)
    paths = [
        write(tmp_path / f"{i}.wav", seconds, i) for i, seconds in enumerate([0.5, 31.0, 3.0, 12.0, 1.0])
    ]
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    paths.insert(2, tmp_path / "bad.wav")

    def maps(workers: int, device: str = "cpu") -> list[bytes]:
        detector = Detector(tiny(), batch_size=3, hop=5.0, workers=workers, device=device)
        found = [result for _, result in detector.presence_maps(paths)]
        return [
            each.scores.tobytes() if isinstance(each, PresenceMap) else str(each).encode() for each in found
        ]

    assert maps(1) == maps(2) == maps(5) == maps(2, "cpu,cpu")


def threads_at_work() -> list[str]:
    names = ("prefetch", "model")
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith(names))


def test_closing_ends_the_workers(long_recording: Path, torch_threads: Callable[[int], None]) -> None:
    torch_threads(2)
    results = Detector(tiny(), batch_size=2, workers=2).detections([long_recording] * 50)
    next(results)
    assert threads_at_work() == ["model_0", "model_1", "prefetch", "prefetch"]
    results.close()
    assert threads_at_work() == []


def test_parts_of_a_batch_side_by_side_leave_torchs_threads_alone(
    long_recording: Path, torch_threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch_threads(4)
    detector = Detector(tiny(), batch_size=6)
    seen: set[tuple[str, int, int]] = set()
    presence = Ensemble.presence

    def watched(ensemble: Ensemble, batch: list[np.ndarray]) -> torch.Tensor:
        seen.add((threading.current_thread().name[:5], len(batch), torch.get_num_threads()))
        return presence(ensemble, batch)

    monkeypatch.setattr(Ensemble, "presence", watched)
    results = detector.presence_maps([long_recording] * 6)  # of 7 windows
    next(results)
    others: list[int] = []
    new = threading.Thread(target=lambda: others.append(torch.get_num_threads()))
    new.start()
    new.join()
    assert (torch.get_num_threads(), others) == (4, [4])
    list(results)
    assert seen == {("model", 3, 2)}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_exception_ends_the_workers(long_recording: Path, error: type[BaseException]) -> None:
    def stop(*_: object) -> None:
        raise error

    detector = Detector(tiny(), batch_size=1, workers=2)
    with pytest.raises(error):
        list(detector.detections([long_recording] * 50, progress=stop))
    assert threads_at_work() == []


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    good = write(tmp_path / "good.wav", 1.0)
    (_, error), (_, found) = Detector(tiny()).detections([tmp_path / "pipe.wav", good])
    assert isinstance(found, Detection)
    assert str(error).endswith(
        "pipe.wav: is not a regular file: pipe the recording in and give - as its path"
    )


def test_recordings_without_sound_do_not_wait_for_a_batch(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(RATE), RATE)
    detector = Detector(tiny(), batch_size=8)
    results = detector.detections([tmp_path / "silence.wav"] * 3 + [tmp_path / "none.wav"] * 100)
    assert next(results) == (tmp_path / "silence.wav", Detection([], 1.0))
    results.close()


def test_rows_come_as_windows_pass_the_model(tmp_path: Path) -> None:
    told: list[float] = []
    results = Detector(tiny(), batch_size=1, hop=5.0).detections(
        [write(tmp_path / "a.wav", 23.0)],
        progress=lambda path, seconds, expected: told.append(seconds),
        rows=lambda path, block: told.append(len(block)),
    )
    list(results)
    # The last window reaches from token 48 to the end, which is in token 74.
    assert told == [10.0, 16, 15.0, 16, 20.0, 16, 23.0, 16, 10]


def test_a_result_does_not_wait_for_more_than_some_silence(tmp_path: Path) -> None:
    sound, silence = write(tmp_path / "sound.wav", 1.0), tmp_path / "silence.wav"
    soundfile.write(silence, np.zeros(RATE // 10), RATE)
    taken = 0

    def paths() -> Iterator[Path]:
        nonlocal taken
        yield sound
        while True:
            taken += 1
            yield silence

    results = Detector(tiny(), batch_size=2).detections(paths())
    assert next(results)[0] == sound
    assert taken < 200
    results.close()


def test_memory_does_not_grow_with_a_recording(tmp_path: Path) -> None:
    many = HTSATConfig(classes=500, embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4))
    detector = Detector(HTSAT(many), workers=1)

    def peak(minutes: int) -> int:
        soundfile.write(tmp_path / "silence.wav", np.zeros(60 * minutes * 1000, np.int16), 1000)
        tracemalloc.start()
        ((_, found),) = detector.detections([tmp_path / "silence.wav"])
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found == Detection([], 60.0 * minutes)
        return top

    peak(1)
    # A whole map of 30 minutes has 11 MB.
    assert peak(30) < peak(5) + 2_000_000


def test_a_batch_that_does_not_fit_is_halved(
    long_recording: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    torch_threads: Callable[[int], None],
) -> None:
    torch_threads(1)
    whole = Detector(tiny(), batch_size=2).presence_map(long_recording)
    detector = Detector(tiny(), batch_size=7)
    sizes: list[int] = []
    presence = Ensemble.presence

    def scarce(ensemble: Ensemble, batch: list[np.ndarray]) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("no more")
        return presence(ensemble, batch)

    monkeypatch.setattr(Ensemble, "presence", scarce)
    found = detector.presence_map(long_recording)
    np.testing.assert_allclose(found.scores, whole.scores, rtol=0, atol=1e-5)
    assert sizes == [7, 4, 2, 2, 3, 2, 1]
    assert caplog.messages == [
        "cpu has too little memory for a batch of 7 windows: continuing with 4",
        "cpu has too little memory for a batch of 4 windows: continuing with 2",
    ]
    assert detector.presence_map(long_recording).scores.tobytes() == whole.scores.tobytes()
    assert len(caplog.messages) == 2


def test_a_window_that_does_not_fit_is_an_error(
    long_recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scarce(ensemble: Ensemble, batch: list[np.ndarray]) -> torch.Tensor:
        raise torch.OutOfMemoryError("no more")

    detector = Detector(tiny(), batch_size=2)
    monkeypatch.setattr(Ensemble, "presence", scarce)
    with pytest.raises(HtsatSedError, match="cpu: has too little memory for a single window"):
        detector.presence_map(long_recording)
