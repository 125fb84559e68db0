from __future__ import annotations

import gc
import io
import math
import os
import sys
import threading
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from htsat_sed.audio import open_recording, read, source, windows
from htsat_sed.errors import AudioError


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(samples).astype("f4")


def write(path: Path, samples: np.ndarray, rate: int) -> Path:
    soundfile.write(path, samples, rate, format="WAV", subtype="FLOAT")
    return path


def fake_stream(blocks: list[np.ndarray]) -> SimpleNamespace:
    return SimpleNamespace(blocks=lambda: iter(blocks))


# Blocks and their rate.


def test_at_its_own_rate_a_recording_passes_unchanged(tmp_path):
    samples = noise(100_000)
    np.testing.assert_array_equal(read(write(tmp_path / "a.wav", samples, 32_000), 32_000), samples)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_resampling_agrees_with_a_polyphase_filter(rate, tmp_path):
    """Up to 0.6 of the lower Nyquist frequency, both leave a sound as it is, to within -80 dB."""
    wanted_rate = 32_000
    n = 2 * rate
    spectrum = np.fft.rfft(noise(n))
    spectrum[int(0.6 * min(rate, wanted_rate)) :] = 0  # bins are half a hertz wide
    samples = (np.fft.irfft(spectrum, n) * np.hanning(n)).astype("f4")
    got = read(write(tmp_path / "a.wav", samples, rate), wanted_rate)
    divisor = math.gcd(rate, wanted_rate)
    wanted = resample_poly(
        samples.astype("f8"),
        wanted_rate // divisor,
        rate // divisor,
        window=("kaiser", 12.0),
        padtype="constant",
    )
    assert len(got) == len(wanted) == 2 * wanted_rate
    error = np.sqrt(np.mean((got - wanted) ** 2) / np.mean(wanted**2))
    assert 20 * np.log10(error) < -80


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 30_000),
    source=st.sampled_from(
        [1_000, 8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000, 768_000]
    ),
    wanted=st.sampled_from([8_000, 16_000, 32_000, 44_100]),
)
def test_law_of_the_sample_count(n, source, wanted, tmp_path):
    """round(n * wanted / source) samples, halves upwards, and the duration of the source."""
    with open_recording(write(tmp_path / "a.wav", noise(n), source), wanted) as stream:
        got = sum(len(block) for block in stream.blocks())
        assert stream.duration == n / source
    assert got == math.floor(n * wanted / source + 0.5)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_block_size_changes_nothing(rate, tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", noise(3 * rate + 17), rate)
    whole = read(path, 32_000)
    monkeypatch.setattr(source, "_BLOCK_VALUES", 1_000)
    with open_recording(path, 32_000) as stream:
        blocks = list(stream.blocks())
    assert len(blocks) > 40
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_blocks_are_short_even_of_many_channels(tmp_path):
    path = write(tmp_path / "a.wav", np.zeros((12_000, 1_000), "f4"), 1_000)
    with open_recording(path, 1_000) as stream:
        assert max(len(block) for block in stream.blocks()) * 1_000 <= 1 << 22


def test_original_and_its_resampled_version_give_the_same_windows(tmp_path):
    n = 65 * 44_100
    spectrum = np.fft.rfft(noise(n))
    spectrum[int(0.8 * 16_000 * 65) :] = 0
    # A sound that sets in at once has no spectrum below any limit, so fade in and out.
    original = (np.fft.irfft(spectrum, n) * np.hanning(n)).astype("f4")
    version = soxr.resample(original, 44_100, 32_000, quality="VHQ")
    found = []
    for samples, rate in ((original, 44_100), (version, 32_000)):
        with open_recording(write(tmp_path / f"{rate}.wav", samples, rate), 32_000) as stream:
            found.append(list(windows(stream, window=320_000, hop=160_000)))
            assert stream.duration == 65.0
    assert len(found[0]) == len(found[1]) == 12
    for one, other in zip(*found, strict=True):
        assert one.start == other.start
        np.testing.assert_allclose(one.samples, other.samples, atol=1e-5)


def test_a_recording_is_read_once_and_then_knows_its_duration(tmp_path):
    path = write(tmp_path / "a.wav", noise(1_000), 8_000)
    with open_recording(path, 16_000) as stream:
        assert stream.expected_duration == 0.125
        with pytest.raises(ValueError, match="is known only after all its blocks have been read"):
            _ = stream.duration
        assert sum(len(block) for block in stream.blocks()) == 2_000
        with pytest.raises(
            ValueError, match=r"wanted an unread recording, but .* is exhausted: open it again"
        ):
            next(stream.blocks())
    assert stream.duration == 0.125
    with open_recording(path, 16_000) as stream:
        pass
    with pytest.raises(ValueError, match="is closed: open it again"):
        next(stream.blocks())


@pytest.mark.parametrize("rate", [0, -1, 999, 768_001])
def test_impossible_rate_is_a_mistake_of_the_caller(rate, tmp_path):
    with pytest.raises(ValueError, match=f"wanted a sample rate of 1000 to 768000 Hz, got {rate}"):
        open_recording(tmp_path / "a.wav", rate)


def test_memory_does_not_grow_with_length(tmp_path):
    def peak(minutes: int) -> int:
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", 8_000, 1, subtype="PCM_16") as file:
            file.seek(minutes * 60 * 8_000 - 1)  # a hole: takes no room on the disk
            file.write(np.zeros(1, "f4"))
        gc.collect()
        tracemalloc.start()
        try:
            with open_recording(path, 16_000) as stream:
                count = sum(1 for _ in windows(stream, window=160_000, hop=160_000))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            assert count == 6 * minutes

    peak(1)
    assert peak(30) < 1.25 * peak(3)  # 27 minutes more are 100 MB; what else is collected meanwhile varies


def test_recordings_are_read_in_many_threads(tmp_path):
    paths = [write(tmp_path / f"{seed}.wav", noise(20_000, seed), 44_100) for seed in range(8)]
    wanted = [read(path, 32_000) for path in paths]
    got: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda i=i: got.update({i: read(paths[i], 32_000)}))
        for i in range(len(paths))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(len(paths)):
        np.testing.assert_array_equal(got[i], wanted[i])


# Windows.


@pytest.mark.parametrize(
    ("n", "window", "hop", "wanted"),
    [
        (0, 4, 2, [(0, 0)]),
        (3, 4, 2, [(0, 3)]),
        (4, 4, 2, [(0, 4)]),
        (5, 4, 2, [(0, 4), (2, 3)]),
        (6, 4, 2, [(0, 4), (2, 4)]),
        (7, 4, 2, [(0, 4), (2, 4), (4, 3)]),
        (8, 4, 4, [(0, 4), (4, 4)]),
        (9, 4, 4, [(0, 4), (4, 4), (8, 1)]),
    ],
)
def test_windows_worked_by_hand(n, window, hop, wanted):
    samples = np.arange(n, dtype="f4")
    found = list(windows(fake_stream([samples]), window=window, hop=hop))
    assert [(w.start, len(w.samples)) for w in found] == wanted
    for w in found:
        np.testing.assert_array_equal(w.samples, samples[w.start : w.start + window])


@given(data=st.data(), sizes=st.lists(st.integers(0, 30), max_size=12), window=st.integers(1, 40))
def test_law_of_windows(data, sizes, window):
    """Their number, place and content depend on the samples alone, not on the blocks."""
    hop = data.draw(st.integers(1, window))
    n = sum(sizes)
    samples = np.arange(n, dtype="f4")
    blocks = np.split(samples, np.cumsum(sizes)[:-1]) if sizes else []
    found = list(windows(fake_stream(blocks), window=window, hop=hop))
    assert len(found) == 1 + math.ceil(max(0, n - window) / hop)
    for number, w in enumerate(found):
        assert w.start == number * hop
        np.testing.assert_array_equal(w.samples, samples[w.start : w.start + window])


@pytest.mark.parametrize("hop", [0, -1, 5])
def test_hop_out_of_range_is_a_mistake_of_the_caller(hop):
    with pytest.raises(ValueError, match=rf"wanted a hop of 1 to 4 samples \(the window\), got {hop}"):
        next(windows(fake_stream([]), window=4, hop=hop))


# Standard input.


def wav_bytes(samples: np.ndarray, rate: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def test_standard_input(monkeypatch, tmp_path):
    samples = noise(50_000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(wav_bytes(samples, 32_000))))
    with open_recording("-", 32_000) as stream:
        np.testing.assert_array_equal(np.concatenate(list(stream.blocks())), samples)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"no sound\n"])
def test_standard_input_that_is_no_recording_leaves_nothing_behind(data, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    with pytest.raises(AudioError, match=r"^-: is (empty|a text file)"):
        open_recording("-", 32_000)
    assert list(tmp_path.iterdir()) == []


def test_standard_input_that_is_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(AudioError, match="standard input is closed or a terminal: pipe a recording into it"):
        open_recording("-", 32_000)


# Paths that are no files.


def test_missing_file(tmp_path):
    with pytest.raises(AudioError) as error:
        open_recording(tmp_path / "a.wav", 32_000)
    assert str(error.value) == f"{tmp_path / 'a.wav'}: cannot be opened: No such file or directory"


def test_folder_with_the_name_of_a_recording(tmp_path):
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(AudioError, match="is a folder: name a recording"):
        open_recording(tmp_path / "a.wav", 32_000)


def test_fifo_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(
        AudioError, match="is not a regular file: pipe the recording in and give - as its path"
    ):
        open_recording(tmp_path / "a.wav", 32_000)


def test_link_to_itself(tmp_path):
    (tmp_path / "a.wav").symlink_to("a.wav")
    with pytest.raises(AudioError, match="cannot be opened: Too many levels of symbolic links"):
        open_recording(tmp_path / "a.wav", 32_000)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_file_without_permission(tmp_path):
    path = write(tmp_path / "a.wav", noise(100), 8_000)
    path.chmod(0)
    with pytest.raises(AudioError, match="cannot be opened: Permission denied"):
        open_recording(path, 32_000)
