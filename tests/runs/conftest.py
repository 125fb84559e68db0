"""What tests of runs over many recordings share."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from planted import BATCH, PROGRAM, plant, plant_thousands
from rule_made import by_rule
from s3_made import Bucket, s3_server

from htsat_sed.model.checkpoint import save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = HTSATConfig(classes=4, embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4))
    model = by_rule(HTSAT(config, ("Dog", "Cat", "Rain, light", "Owl")), seed=3)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(path, model, post_processing={"threshold": 0.45})
    return path


@pytest.fixture(scope="session")
def s3() -> Iterator[Bucket]:
    with s3_server() as bucket:
        yield bucket


@pytest.fixture
def bucket(s3: Bucket) -> Bucket:
    """An empty bucket in an S3 server on this machine, which behaves."""
    import s3fs

    s3.busy = s3.cut = 0
    s3.concerned = lambda request: True
    system = s3fs.S3FileSystem()
    system.invalidate_cache()
    for each in system.find(s3.name):
        system.rm_file(each)
    s3.asked.clear()
    return s3


@pytest.fixture
def few(tmp_path: Path) -> Path:
    plant(tmp_path / "few", ["0.wav", "1.wav"])
    plant(tmp_path / "few", [f"{i}.wav" for i in range(2, 6)], silent=True)
    return tmp_path / "few"


@pytest.fixture(scope="session")
def thousands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 000 files, 25 of which are no recordings."""
    folder = tmp_path_factory.mktemp("thousands") / "recordings"
    plant_thousands(folder)
    assert len(list(folder.iterdir())) == 2000
    return folder


@pytest.fixture(scope="session")
def by_one_process(
    thousands: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The files that `htsat-sed detect thousands/ -o a.csv` writes: name -> content."""
    folder = tmp_path_factory.mktemp("one")
    command = ["detect", thousands, *BATCH, "-c", checkpoint, "-o", folder / "a.csv"]
    done = subprocess.run([*PROGRAM, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert written["a.csv.failures.csv"].count(b"\n") == 26
    return written
