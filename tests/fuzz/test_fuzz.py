"""Damaged and hostile files: each is read or refused in one line, within bounds of time and memory.

`findings/KIND/` keeps files that once ended in something else. They are read in every run, and mutated further.
To fuzz for longer or from another random seed:

    HTSAT_SED_FUZZ_SECONDS=7200 HTSAT_SED_FUZZ_SEED=7 pytest --long -m fuzz -n 0

A new finding is kept in the folder that the failure names; copy it to `findings/KIND/` with the mend.
"""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="memory is bounded by POSIX's means")

from fuzz.readers import READERS

TESTS = Path(__file__).parent.parent
FINDINGS = Path(__file__).parent / "findings"
MEMORY = 3 << 30  # bytes that reading one file may take, libraries included
PATIENCE = 60.0  # seconds that reading one file may take, the first import of torch included
MINUTE, HOUR = 50.0, 3600.0


@dataclass
class Finding:
    """A file that was neither read nor refused."""

    kind: str
    file: Path
    what: str


class Worker:
    """A process that reads files; started anew after a crash, a hang or too much memory."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._process: subprocess.Popen[str] | None = None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
            environment |= {"HTSAT_SED_HOME": str(self._home), "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fuzz.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env=environment,
                cwd=self._home,
            )
        return self._process

    def read(self, kind: str, path: Path) -> tuple[str, str]:
        """Have one file read: outcome and words."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([kind, str(path)]) + "\n")
        process.stdin.flush()
        began = time.monotonic()
        while not select.select([process.stdout], [], [], 0.05)[0]:
            if self._memory() > MEMORY:
                self.close()
                return "finding", "takes more than 3 GiB"
            if time.monotonic() - began > PATIENCE:
                self.close()
                return "finding", f"takes more than {PATIENCE:g} s"
        line = process.stdout.readline()
        if not line:
            return "finding", f"the process ended with {process.wait()}"
        what, words, used = json.loads(line)
        if used > MEMORY:
            self.close()
            return "finding", "took more than 3 GiB"
        return what, words

    def _memory(self) -> int:
        assert self._process is not None
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    home = tmp_path / "home"
    home.mkdir()
    worker = Worker(home)
    yield worker
    worker.close()


def kept(kind: str) -> list[Path]:
    """Files of this kind that were findings once."""
    return sorted((FINDINGS / kind).glob("*")) if (FINDINGS / kind).is_dir() else []


def fuzz(worker: Worker, folder: Path, *, seconds: float, seed: int) -> tuple[Counter[str], list[Finding]]:
    """Read mutated files of all kinds in turn until the time is over."""
    rng = random.Random(seed)
    wholes = {}
    for kind, reader in READERS.items():
        made = folder / "wholes" / kind
        made.mkdir(parents=True)
        wholes[kind] = [*reader.wholes(made), *(path.read_bytes() for path in kept(kind))]
    outcomes: Counter[str] = Counter()
    findings: list[Finding] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until and len(findings) < 20:
        for kind, reader in READERS.items():
            data = reader.damage(rng.choice(wholes[kind]), rng, wholes[kind])
            path = folder / f"case{reader.suffix}"
            path.write_bytes(data)
            what, words = worker.read(kind, path)
            outcomes[what] += 1
            if what == "finding":
                place = Path(tempfile.mkdtemp(prefix="htsat-sed-finding-")) / f"{kind}{reader.suffix}"
                place.write_bytes(data)
                findings.append(Finding(kind, place, words))
    return outcomes, findings


def report(findings: list[Finding]) -> str:
    return "\n\n".join(f"{each.kind}: {each.file}\n{each.what}" for each in findings)


@pytest.mark.parametrize("kind", READERS)
def test_whole_files_are_read(kind: str, tmp_path: Path) -> None:
    """Otherwise nothing but refusals would be fuzzed."""
    reader = READERS[kind]
    made = tmp_path / "made"
    made.mkdir()
    for number, whole in enumerate(reader.wholes(made)):
        if kind == "recording" and number >= 17:
            continue  # playlists, which are refused
        path = tmp_path / f"whole{reader.suffix}"
        path.write_bytes(whole)
        reader.read(path)


def test_earlier_findings_are_read_or_refused(worker: Worker) -> None:
    found = []
    for kind in READERS:
        for path in kept(kind):
            what, words = worker.read(kind, path)
            if what == "finding":
                found.append(Finding(kind, path, words))
    assert not found, report(found)


def test_the_worker_tells_outcomes_apart(worker: Worker, tmp_path: Path) -> None:
    """A fuzzer that sees nothing finds nothing."""
    path = tmp_path / "changed.journal"
    path.write_bytes(READERS["journal"].wholes(tmp_path)[0])
    assert worker.read("journal", path)[0] == "ok"
    path.write_text("no journal\n")
    assert worker.read("journal", path)[0] == "refused"
    assert worker.read("no such kind", path)[0] == "finding"


@pytest.mark.fuzz
def test_a_minute_of_damaged_files(worker: Worker, tmp_path: Path) -> None:
    outcomes, findings = fuzz(worker, tmp_path, seconds=MINUTE, seed=20261128)
    assert not findings, report(findings)
    assert min(outcomes["ok"], outcomes["refused"]) > 20, outcomes


@pytest.mark.fuzz
def test_an_hour_of_damaged_files(worker: Worker, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--long"):
        pytest.skip("takes an hour: run with --long -m fuzz")
    seed = int(os.environ.get("HTSAT_SED_FUZZ_SEED", time.time_ns() % 1_000_000))
    seconds = float(os.environ.get("HTSAT_SED_FUZZ_SECONDS", HOUR))
    outcomes, findings = fuzz(worker, tmp_path, seconds=seconds, seed=seed)
    print(f"seed {seed}: {dict(outcomes)}")  # noqa: T201
    assert not findings, f"seed {seed}: {dict(outcomes)}\n{report(findings)}"
