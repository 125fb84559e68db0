"""The composition: the presence map of a recording is its own, whatever it was computed with."""

from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import soundfile
from golden.reference_state import recording
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rule_made import golden, golden_recording
from tiny_detector import LABELS, RATE, tiny, write

from htsat_sed import AudioError, Detector, PostProcessing, PresenceMap, load_checkpoint
from htsat_sed.detection.detector import Detection
from htsat_sed.errors import UsageError
from htsat_sed.labels import ClassMap


@pytest.mark.parametrize("hop", [10.0, 5.0, 2.5])
def test_map_of_a_long_recording_does_not_depend_on_batch_size(long_recording: Path, hop: float) -> None:
    maps = [Detector(tiny(), batch_size=n, hop=hop).presence_map(long_recording) for n in (1, 3, 8)]
    assert maps[0].scores.shape == (208, 4)
    assert maps[0].duration == 65.0
    for other in maps[1:]:
        np.testing.assert_allclose(other.scores, maps[0].scores, rtol=0, atol=1e-4)


def test_map_does_not_depend_on_company_or_container(long_recording: Path, tmp_path: Path) -> None:
    detector = Detector(tiny(), batch_size=3)
    alone = detector.presence_map(long_recording).scores
    others = [write(tmp_path / f"{i}.wav", seconds, i) for i, seconds in enumerate((0.7, 12.0, 3.0))]
    company = [others[0], long_recording, others[1], long_recording.with_suffix(".flac"), others[2]]
    maps = dict(detector.presence_maps(company))
    assert list(maps) == company
    np.testing.assert_allclose(maps[long_recording].scores, alone, rtol=0, atol=1e-4)
    np.testing.assert_allclose(maps[long_recording.with_suffix(".flac")].scores, alone, rtol=0, atol=1e-4)
    assert [len(maps[other].scores) for other in others] == [3, 39, 10]


def test_map_of_the_original_rate_is_close(long_recording: Path) -> None:
    # Two resamplers and 16 bits lie between the two; the rule-made signal reaches beyond both of their
    # pass bands, where a log-mel spectrogram in dB sees the difference most.
    detector = Detector(tiny())
    resampled = detector.presence_map(long_recording)
    original = detector.presence_map(long_recording.with_name("44100.wav"))
    assert original.scores.shape == resampled.scores.shape
    assert original.duration == resampled.duration
    difference = np.abs(original.scores - resampled.scores)
    assert difference.mean() < 0.01
    assert np.quantile(difference, 0.99) < 0.1


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.floats(0.05, 23.0), min_size=1, max_size=3), st.integers(1, 5), st.sampled_from([10.0, 5.0])
)
def test_maps_are_the_same_together_and_alone(
    tmp_path: Path, seconds: list[float], batch_size: int, hop: float
) -> None:
    paths = [write(tmp_path / f"{i}.wav", each, i) for i, each in enumerate(seconds)]
    together = Detector(tiny(), batch_size=batch_size, hop=hop)
    alone = Detector(tiny(), batch_size=1, hop=hop)
    for path, found in together.presence_maps(paths):
        expected = alone.presence_map(path)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-4)
        assert len(found.scores) == -(-round(expected.duration * RATE) // 10_000)


def test_golden_recording_through_a_file(official_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "golden.wav"
    soundfile.write(path, golden_recording("audioset_10s"), RATE, subtype="FLOAT")
    detector = Detector(load_checkpoint(official_checkpoint("audioset_10s")))
    found = detector.presence_map(path)
    np.testing.assert_allclose(found.scores, golden("audioset_10s")["presence"], rtol=0, atol=2e-4)
    assert found.labels[:2] == ("Speech", "Male speech, man speaking")
    assert found.token_seconds == 0.3125


def test_overlapping_windows_are_weighted_means_of_shifted_ones(tmp_path: Path) -> None:
    samples = recording(15.0, RATE, 5)
    soundfile.write(tmp_path / "all.wav", samples, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "first.wav", samples[: 10 * RATE], RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "second.wav", samples[5 * RATE :], RATE, subtype="FLOAT")
    plain = Detector(tiny())
    first, second = (plain.presence_map(tmp_path / name).scores for name in ("first.wav", "second.wav"))
    joined = Detector(tiny(), hop=5.0).presence_map(tmp_path / "all.wav").scores
    np.testing.assert_allclose(joined[:16], first[:16], rtol=0, atol=1e-5)
    np.testing.assert_allclose(joined[32:], second[16:], rtol=0, atol=1e-5)
    # token 16 of the first window is token 0 of the second: weights 15.5 and 0.5
    np.testing.assert_allclose(joined[16], (15.5 * first[16] + 0.5 * second[0]) / 16, rtol=0, atol=1e-5)


@pytest.mark.parametrize("hop", [10.0, 5.0])
def test_a_stretch_has_the_scores_of_the_whole(long_recording: Path, hop: float) -> None:
    detector = Detector(tiny(), hop=hop)
    whole = detector.presence_map(long_recording)
    ((_, part),) = detector.presence_maps([long_recording], start=22.0, end=30.0)
    assert (part.duration, part.scores.shape) == (whole.duration, whole.scores.shape)
    inside = slice(int(22.0 / 0.3125), int(30.0 / 0.3125))
    np.testing.assert_allclose(part.scores[inside], whole.scores[inside], rtol=0, atol=1e-4)
    # Windows of 10 s that touch 22 to 30 s lie between 20 and 30 s, or 15 and 35 s if they step by 5 s.
    heard = np.flatnonzero(part.scores.any(axis=1)) * 0.3125
    assert (heard[0], heard[-1] + 0.3125) == ((20.0, 30.0) if hop == 10.0 else (15.0, 35.0))


def test_hop_is_rounded_to_tokens() -> None:
    assert Detector(tiny(), hop=1.0).hop == 0.9375
    assert Detector(tiny(), hop=0.01).hop == 0.3125


def test_digital_silence_has_no_events(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(25 * RATE), RATE)
    detector = Detector(tiny(), post_processing=PostProcessing(threshold=0.0))
    assert not detector.presence_map(tmp_path / "silence.wav").scores.any()
    assert detector.detect(tmp_path / "silence.wav") == []
    assert not detector.clip_scores(tmp_path / "silence.wav").any()


def test_ensemble_is_the_mean(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 4.0)
    shuffled = tiny(1, LABELS[::-1])
    one, other = Detector(tiny(0)).presence_map(path), Detector(shuffled).presence_map(path)
    both = Detector([tiny(0), shuffled]).presence_map(path)
    assert both.labels == LABELS
    np.testing.assert_allclose(both.scores, (one.scores + other.scores[:, ::-1]) / 2, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="same classes for an ensemble; only one of two has Bird, Cat"):
        Detector([tiny(), tiny(0, ("Dog", "Bird", "Rain", "Speech"))])


def test_class_map_and_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 4.0)
    scores = Detector(tiny()).presence_map(path).scores
    pets = ClassMap("pets", {"Voice": ("Speech",), "Pet": ("Dog", "Cat")}, {"Pet": 0.25})
    mapped = Detector(tiny(), class_map=pets)
    found = mapped.presence_map(path)
    assert found.labels == ("Voice", "Pet")
    np.testing.assert_allclose(found.scores[:, 1], scores[:, :2].max(axis=1), atol=1e-6)
    assert mapped.post_processing.of("Pet").threshold == 0.25
    assert mapped.post_processing.of("Voice").threshold == 0.5

    kept = Detector(tiny(), labels=["Rain", "Dog"]).presence_map(path)
    assert kept.labels == ("Dog", "Rain")
    np.testing.assert_allclose(kept.scores, scores[:, [0, 2]], atol=1e-6)
    with pytest.raises(ValueError, match="no class 'Rian' among 4 labels; did you mean 'Rain'"):
        Detector(tiny(), labels=["Rian"])


def test_clip_scores_repeat_short_recordings(
    official_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "5s.wav", golden_recording("audioset_5s_repeat"), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "10s.wav", golden_recording("audioset_10s"), RATE, subtype="FLOAT")
    detector = Detector(load_checkpoint(official_checkpoint("audioset_5s_repeat")), batch_size=2)
    found = dict(detector.all_clip_scores([tmp_path / "5s.wav", tmp_path / "10s.wav"]))
    expected = golden("audioset_5s_repeat")["clipwise"], golden("audioset_10s")["clipwise"]
    np.testing.assert_allclose(found[tmp_path / "5s.wav"], expected[0], rtol=0, atol=2e-4)
    np.testing.assert_allclose(found[tmp_path / "10s.wav"], expected[1], rtol=0, atol=2e-4)


def test_clip_scores_of_a_long_recording_end_with_it(tmp_path: Path) -> None:
    samples = recording(13.0, RATE, 2)
    soundfile.write(tmp_path / "all.wav", samples, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "first.wav", samples[: 10 * RATE], RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "last.wav", samples[3 * RATE :], RATE, subtype="FLOAT")
    detector = Detector(tiny())
    parts = np.stack([detector.clip_scores(tmp_path / name) for name in ("first.wav", "last.wav")])
    np.testing.assert_allclose(detector.clip_scores(tmp_path / "all.wav"), parts.max(axis=0), atol=1e-6)
    ((_, mean),) = detector.all_clip_scores([tmp_path / "all.wav"], pool="mean")
    np.testing.assert_allclose(mean, parts.mean(axis=0), atol=1e-6)


def test_clip_scores_over_shifted_copies_are_their_mean(tmp_path: Path) -> None:
    """Shifted by 0, then 100 samples, then 200 more, as the official test loop does."""
    samples = recording(10.0, RATE, 2)
    detector = Detector(tiny())
    copies = []
    for shift in (0, 100, 300):
        soundfile.write(tmp_path / f"{shift}.wav", np.roll(samples, -shift), RATE, subtype="FLOAT")
        copies.append(detector.clip_scores(tmp_path / f"{shift}.wav"))
    assert not np.array_equal(copies[0], copies[1])
    ((_, mean),) = detector.all_clip_scores([tmp_path / "0.wav"], shifts=3)
    np.testing.assert_allclose(mean, np.mean(copies, axis=0), rtol=0, atol=1e-6)
    with pytest.raises(UsageError, match="at least one shift, got 0"):
        next(detector.all_clip_scores([tmp_path / "0.wav"], shifts=0))


def test_a_broken_recording_does_not_stop_the_others(tmp_path: Path) -> None:
    good = write(tmp_path / "good.wav", 3.0)
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    detector = Detector(tiny())
    results = list(detector.presence_maps([tmp_path / "bad.wav", good, tmp_path / "none.wav", good]))
    assert [type(result).__name__ for _, result in results] == [
        "AudioError",
        "PresenceMap",
        "AudioError",
        "PresenceMap",
    ]
    with pytest.raises(AudioError, match=r"none\.wav: "):
        detector.presence_map(tmp_path / "none.wav")
    with pytest.raises(AudioError, match=r"bad\.wav: "):
        detector.clip_scores(tmp_path / "bad.wav")


def test_detections_are_the_events_of_the_maps(tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    paths = [write(tmp_path / "a.wav", 33.0), tmp_path / "bad.wav", write(tmp_path / "b.wav", 4.0, 1)]
    detector = Detector(tiny(), batch_size=3, hop=5.0, post_processing=PostProcessing(median_filter=0.9))
    told: list[tuple[Path, np.ndarray | None]] = []
    results = {}
    for path, result in detector.detections(paths, rows=lambda path, block: told.append((path, block))):
        results[path] = result
        told.append((path, None))
    assert list(results) == paths
    assert isinstance(results[paths[1]], AudioError)
    for path in (paths[0], paths[2]):
        expected = detector.presence_map(path)
        assert results[path] == Detection(detector.events(expected), expected.duration)
        blocks = [block for of, block in told if of == path and block is not None]
        np.testing.assert_array_equal(np.concatenate(blocks), expected.scores)
    assert [path for path, _ in groupby(told, key=lambda entry: entry[0])] == paths


def test_progress_tells_the_seconds_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 23.0)
    heard: list[tuple[float, float | None]] = []
    detector = Detector(tiny(), hop=5.0)
    list(detector.presence_maps([path], progress=lambda _, *times: heard.append(times)))
    assert heard == [(10.0, 23.0), (15.0, 23.0), (20.0, 23.0), (23.0, 23.0)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hop": 0.0}, "wanted a hop of more than 0 and at most 10 s, got 0"),
        ({"hop": 11.0}, "wanted a hop of more than 0 and at most 10 s, got 11"),
        ({"batch_size": 0}, "wanted batch_size of at least 1, got 0"),
        ({"workers": 0}, "wanted at least one worker, got 0"),
        ({"device": "cpu,toaster"}, "wanted a device such as cpu, cuda, cuda:1 or mps, got 'toaster'"),
        ({"device": "cuda:99"}, "wanted a device that torch can use on this machine, got 'cuda:99'"),
        ({"device": "meta"}, "wanted a device that torch can use on this machine, got 'meta'"),
        ({"device": "hpu"}, "wanted a device that torch can use on this machine, got 'hpu'"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Detector(tiny(), **arguments)  # type: ignore[arg-type]


def test_filled_batches_make_scores_the_same_in_any_company(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.wav", 0.4 + 0.1 * i, seed=i) for i in range(5)]
    detector = Detector(tiny(), batch_size=4, fill_batches=True)
    for path, (_, found) in zip(paths, detector.presence_maps(paths), strict=True):
        assert isinstance(found, PresenceMap)
        assert np.array_equal(detector.presence_map(path).scores, found.scores)
    for path, (_, scores) in zip(paths, detector.all_clip_scores(paths), strict=True):
        assert isinstance(scores, np.ndarray)
        assert np.array_equal(detector.clip_scores(path), scores)
