"""Recordings as paths, samples, bytes and file objects: the same events, to the bit."""

import io
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_detector import tiny, write

from htsat_sed import AudioError, CheckpointError, Detector, PresenceMap, UsageError
from htsat_sed.model.checkpoint import save_checkpoint

EXAMPLE = Path(__file__).parents[2] / "examples" / "home.flac"


def test_samples_bytes_and_file_objects_give_what_the_file_gives() -> None:
    detector = Detector("home")
    expected = detector.detect(EXAMPLE)
    samples, rate = soundfile.read(EXAMPLE)
    assert len(expected) > 1
    assert detector.detect(samples, sample_rate=rate) == expected
    assert detector.detect(torch.from_numpy(samples).float(), sample_rate=rate) == expected
    assert detector.detect(np.stack([samples, samples], axis=1), sample_rate=rate) == expected
    assert detector.detect(soundfile.read(EXAMPLE, dtype="int16")[0], sample_rate=rate) == expected
    swapped = soundfile.read(EXAMPLE, dtype="int16")[0].astype(">i2")
    assert detector.detect(swapped, sample_rate=rate) == expected
    assert detector.detect(EXAMPLE.read_bytes()) == expected
    with EXAMPLE.open("rb") as file:
        assert detector.detect(file) == expected
    assert detector.detect(io.BytesIO(EXAMPLE.read_bytes())) == expected


def test_maps_scores_and_embeddings_of_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 23.0)
    samples, rate = soundfile.read(path, dtype="float32")
    detector = Detector(tiny(), hop=5.0)
    found, expected = detector.presence_map(samples, sample_rate=rate), detector.presence_map(path)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert found.duration == expected.duration
    np.testing.assert_array_equal(detector.clip_scores(samples, sample_rate=rate), detector.clip_scores(path))
    embeddings, starts = detector.embeddings(samples, sample_rate=rate)
    assert (embeddings.shape, embeddings.dtype, starts.tolist()) == ((4, 128), np.float32, [0, 5, 10, 15])
    window = torch.from_numpy(samples[5 * rate : 15 * rate])[None]
    with torch.inference_mode():
        np.testing.assert_allclose(embeddings[1:2], tiny()(window).embedding, atol=1e-4)
    assert Detector([tiny(), tiny(1)]).embeddings(path)[0].shape == (3, 256)
    with pytest.raises(AudioError, match="none"):
        detector.embeddings(tmp_path / "none.wav")


def test_many_recordings_of_any_kind(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 3.0)
    samples, rate = soundfile.read(path)
    sounds = [path, samples, tmp_path / "none.wav", path.read_bytes(), b"no audio"]
    detector = Detector(tiny(), post_processing=None)
    found = list(detector.detect_many(sounds, sample_rate=rate))
    assert [given is sound for (given, _), sound in zip(found, sounds, strict=True)] == [True] * 5
    results = [result for _, result in found]
    assert results[0] == results[1] == results[3] == detector.detect(path)
    assert [type(results[place]) for place in (2, 4)] == [AudioError] * 2
    assert str(results[4]).startswith("<bytes>: ")
    with pytest.raises(AudioError, match=r"none\.wav"):
        list(detector.detect_many(sounds, sample_rate=rate, on_error="raise"))
    with pytest.raises(UsageError, match="wanted on_error 'raise' or 'yield', got 'skip'"):
        list(detector.detect_many(sounds, on_error="skip"))  # type: ignore[arg-type]
    for single in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), samples):
        with pytest.raises(UsageError, match="wanted several recordings, got one"):
            detector.detect_many(single)


def test_one_rule_for_all_that_take_several_recordings(tmp_path: Path) -> None:
    path, missing = write(tmp_path / "a.wav", 3.0), tmp_path / "none.wav"
    samples, rate = soundfile.read(path)
    detector = Detector(tiny())
    for many in (detector.detect_many, detector.presence_maps, detector.embeddings_many):
        (_, first), (given, second), (_, error) = many([path, samples, missing], sample_rate=rate)
        assert given is samples
        assert isinstance(error, AudioError)
        if isinstance(first, PresenceMap):
            first, second = first.scores, second.scores
        np.testing.assert_array_equal(first[0], second[0])  # type: ignore[index]
        with pytest.raises(AudioError, match=r"none\.wav"):
            list(many([missing], on_error="raise"))
        with pytest.raises(UsageError, match="several recordings"):
            many(path)
    np.testing.assert_array_equal(detector.embeddings(path)[0], first[0])  # type: ignore[index]


@pytest.mark.parametrize(
    "wrong",
    [
        {"device": 0},
        {"batch_size": 1.5},
        {"hop": "5"},
        {"post_processing": {"threshold": 0.3}},
        {"class_map": "desed"},
        {"execution": "torch"},
        {"labels": "Dog"},
    ],
)
def test_an_argument_of_another_type_is_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(UsageError, match=f"wanted {name} as "):
        Detector(tiny(), **wrong)


@pytest.mark.parametrize(
    ("sound", "rate", "message"),
    [
        (3, None, "wanted a recording as a path, samples .*; got int"),
        (np.zeros(100), None, "wanted sample_rate with samples"),
        (np.zeros(100), 44_100.5, "wanted a whole sample_rate of 1000 to 768000 Hz, got 44100.5"),
        (np.zeros((2, 44_100)), 44_100, r"wanted samples of shape .*got \(2, 44100\): transpose it"),
        (np.zeros((2, 2, 2)), 44_100, "wanted samples of shape"),
        (np.zeros(100, complex), 44_100, "wanted floating-point, int16 or int32 samples; got complex128"),
        (b"RIFF", 44_100, "wanted no sample_rate"),
        ("a.wav", 44_100, "wanted no sample_rate"),
        (io.StringIO("text"), None, "wanted a file object in binary mode"),
    ],
)
def test_what_is_no_recording(sound: object, rate: int | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Detector(tiny()).detect(sound, sample_rate=rate)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(0,), (0, 2)])
def test_samples_without_sound(shape: tuple[int, ...]) -> None:
    with pytest.raises(AudioError, match="<samples>: holds no audio: the array is empty"):
        Detector(tiny()).detect(np.zeros(shape), sample_rate=32_000)


def test_models_by_name_and_path(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 3.0)
    for seed in (0, 1):
        save_checkpoint(tmp_path / f"{seed}.safetensors", tiny(seed))
    both = Detector([tmp_path / "0.safetensors", str(tmp_path / "1.safetensors")])
    np.testing.assert_array_equal(
        both.presence_map(path).scores, Detector([tiny(0), tiny(1)]).presence_map(path).scores
    )
    with pytest.raises(UsageError, match=r"wanted a model, or the name or path of a checkpoint .*; got int"):
        Detector(3)  # type: ignore[arg-type]
    save_checkpoint(tmp_path / "bad.safetensors", tiny(), post_processing={"threshold": 3})
    with pytest.raises(CheckpointError, match=r"bad\.safetensors: its post-processing is invalid"):
        Detector(tmp_path / "bad.safetensors")


@pytest.mark.long  # mypy reads all of torch
def test_a_typed_client(tmp_path: Path) -> None:
    client = tmp_path / "client.py"
    client.write_text(
        textwrap.dedent(
            """
            from collections.abc import Iterable
            from pathlib import Path

            import numpy as np

            from htsat_sed import FORMATS, Detector, Event, HtsatSedError, PostProcessing, PresenceMap
            from htsat_sed import events_to_frame, load_checkpoint, read_events, write_events

            detector = Detector("home", post_processing=PostProcessing(threshold=0.3))
            events: list[Event] = detector.detect(np.zeros(44_100, np.float32), sample_rate=44_100)
            scores: PresenceMap = detector.presence_map(b"")
            several = Detector([load_checkpoint("home"), Path("a.safetensors")])
            embeddings, starts = detector.embeddings(Path("a.wav"))
            rows: int = embeddings.shape[0] + starts.shape[0]

            def count(paths: Iterable[Path]) -> int:
                found = 0
                for path, result in detector.detect_many(paths):
                    if not isinstance(result, HtsatSedError):
                        found += len(result)
                for _, vectors in detector.embeddings_many(paths, on_error="raise"):
                    found += len(vectors[0])
                for _, each in detector.detect_many(paths, on_error="raise"):
                    found += len(each)
                for _, made in detector.presence_maps(paths, on_error="raise"):
                    found += len(made.scores)
                return found

            write_events("a.tsv", {"a.wav": events}, next(iter(FORMATS)))
            onsets = events_to_frame(read_events("a.tsv"))["onset"]
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", client],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
