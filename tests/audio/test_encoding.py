"""Clips on a disk that is full: one error, and nothing on standard error but that."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
import soundfile

from htsat_sed.audio.encoding import encoded
from htsat_sed.errors import HtsatSedError
from htsat_sed.whole_file import whole_file

NOISE = np.random.default_rng(1).integers(-5000, 5000, size=64_000).astype(np.int16)


@pytest.mark.parametrize("format", ["WAV", "FLAC"])
def test_a_full_disk_is_one_error(format: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # as if the disk were full
        with pytest.raises(HtsatSedError, match=r"clip: cannot be written: File too large"):  # noqa: SIM117
            with whole_file(tmp_path / "clip", "wb") as file:
                file.write(encoded(NOISE, 32_000, format=format))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("format", ["WAV", "FLAC"])
def test_samples_round_trip(format: str, tmp_path: Path) -> None:
    (tmp_path / "clip").write_bytes(encoded(NOISE, 32_000, format=format))
    samples, rate = soundfile.read(tmp_path / "clip", dtype="int16")
    assert rate == 32_000
    np.testing.assert_array_equal(samples, NOISE)


def test_the_package_gives_libsndfile_no_file_object() -> None:
    """Outside the one place, `soundfile.write` is not called with a file that lies on a disk."""
    import htsat_sed

    folder = Path(htsat_sed.__file__).parent
    calling = {
        path.name for path in folder.rglob("*.py") if "soundfile.write(" in path.read_text(encoding="utf-8")
    }
    assert calling == {"encoding.py", "memory.py"}
