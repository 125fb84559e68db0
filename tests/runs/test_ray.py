"""Workers of a Ray cluster: the same bytes as one process, whatever is killed meanwhile.

Without Ray, a stand-in for it tests in which order recordings are handed out, lost and come back.
"""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import BATCH, PROGRAM, Run, plant

from htsat_sed.errors import AudioError
from htsat_sed.model.runtime import Execution
from htsat_sed.runs import ray as module
from htsat_sed.runs.ray import RayWorkers, Scored

has_ray = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(
    not (has_ray and sys.platform == "linux"), reason="ray is not installed, or this is not Linux"
)


class RayError(Exception): ...


class RayTaskError(RayError): ...


class StandIn:
    """What `RayWorkers` uses of Ray: a node with room for some workers, each of which may die at any time."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, workers: int, choose: Callable[[int], int]) -> None:
        self.workers, self.choose = workers, choose
        self.tasks: dict[object, tuple[object, list[str] | None]] = {}
        self.dead: set[int] = set()
        self.deaths = self.may_die = 0
        self.killers: dict[str, list[int]] = {}  # path -> sizes of the chunks in which it was when it killed

    def init(self, **_: object) -> None: ...

    def shutdown(self) -> None: ...

    def put(self, value: object) -> object:
        return value

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": float(self.workers)}}]

    def remote(self, **_: object) -> Callable[[type], object]:
        return lambda _: SimpleNamespace(remote=self._actor)

    def _actor(self) -> object:
        actor = SimpleNamespace()

        def method(paths: Callable[[Any], list[str] | None]) -> object:
            def submit(argument: object) -> object:
                reference = object()
                self.tasks[reference] = actor, paths(argument)
                return reference

            return SimpleNamespace(remote=submit)

        actor.prepare, actor.score = method(lambda _: None), method(list)
        return actor

    def wait(
        self, references: list[object], *, num_returns: int, timeout: float
    ) -> tuple[list[object], list[object]]:
        if timeout == 0:  # of dead workers all are ready
            return [each for each in references if id(self.tasks[each][0]) in self.dead], []
        reference = references[self.choose(len(references))]
        return [reference], [each for each in references if each is not reference]

    def get(self, reference: object) -> list[Scored[str]] | None:
        actor, paths = self.tasks[reference]
        if id(actor) in self.dead:
            raise RayError("died")
        if paths is None:
            return None
        killers = [path for path in paths if Path(path).name in self.killers]
        for path in killers:
            self.killers[Path(path).name].append(len(paths))
        if killers or (self.may_die and self.choose(4) == 0):
            self.may_die -= not killers
            self.deaths += 1
            self.dead.add(id(actor))
            raise RayError("died")
        return [Scored(f"of {Path(path).name}", 1.0, 2.0, ("damaged",)) for path in paths]

    def kill(self, actor: object) -> None: ...


def workers_of(stand_in: StandIn) -> RayWorkers[str]:
    detector = SimpleNamespace(
        device=SimpleNamespace(type="cpu"),
        arguments={"batch_size": "auto"},
        execution=Execution(precision="bfloat16"),
        runtime="openvino",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load", lambda *_, **__: stand_in)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "")
        return RayWorkers("local", detector, lambda *_: iter(()))  # type: ignore[arg-type]


def test_workers_compute_in_the_runtime_that_the_journal_names() -> None:
    execution = workers_of(StandIn(1, lambda number: 0))._task.arguments["execution"]
    assert execution == Execution(runtime="openvino", precision="bfloat16")


@given(
    count=st.integers(0, 300),
    workers=st.integers(1, 5),
    killers=st.sets(st.integers(0, 299), max_size=2),
    deaths=st.integers(0, 6),
    seed=st.integers(0, 999),
)
def test_whatever_dies_results_are_whole_and_in_order(
    count: int, workers: int, killers: set[int], deaths: int, seed: int
) -> None:
    paths = [f"{i}.wav" for i in range(count)]
    stand_in = StandIn(workers, random.Random(seed).randrange)
    stand_in.killers = {f"{i}.wav": [] for i in killers if i < count}
    stand_in.may_die = deaths
    heard: list[str] = []
    pool = workers_of(stand_in)
    with pool:
        found = list(
            pool.results(
                iter(paths),
                progress=lambda path, *_: heard.append(str(path)),
                defective=lambda path, _: heard.append(str(path)),
            )
        )
    assert [path for path, _ in found] == paths
    for path, result in found:
        if path in stand_in.killers or isinstance(result, AudioError):
            assert isinstance(result, AudioError)
            assert result.path == path
        else:
            assert result == f"of {path}"
    if not deaths:
        assert {path for path, result in found if isinstance(result, AudioError)} == set(stand_in.killers)
    assert all(chunks[-1] == 1 for chunks in stand_in.killers.values())  # it was alone before it was given up
    assert heard == [path for path, result in found for _ in range(2) if isinstance(result, str)]
    assert pool.lost == stand_in.deaths


def test_no_more_recordings_are_taken_than_workers_can_have_in_hand() -> None:
    taken: list[str] = []

    def paths() -> Iterator[str]:
        for i in range(100_000):
            taken.append(f"{i}.wav")
            yield taken[-1]

    stand_in = StandIn(2, lambda count: count - 1)  # what was handed out last is done first
    pool = workers_of(stand_in)
    with pool:
        results = pool.results(paths(), progress=lambda *_: None, defective=lambda *_: None)
        next(results)
        assert len(taken) <= 2 * 64 * 4 + 8


def test_without_ray_the_error_names_the_extra(
    run: Run, few: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    code, out, err = run("detect", few, "-c", checkpoint, "--ray", "local", "-o", tmp_path / "a.csv")
    assert (code, out) == (2, "")
    assert "pip install 'htsat-sed[ray]'" in err
    for wrong in (("-", "--ray", "local"), (few, "--ray", "local", "--device", "mps")):
        code, _, err = run("detect", *wrong, "-c", checkpoint)
        assert code == 2
        assert "Traceback" not in err


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster with one node of one processor core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        yield cluster
        cluster.shutdown()


def start(*command: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.is_file() else 0


def scoring(raylet: int) -> list[int]:
    """Process ids of the workers of a node that are scoring; Ray names processes after what they do."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, status = (folder / "cmdline").read_bytes(), (folder / "stat").read_text()
        except OSError:
            continue
        if name.startswith(b"ray::Worker.score") and int(status.rpartition(")")[2].split()[1]) == raylet:
            found.append(int(folder.name))
    return found


def run_with_lost_node(cluster: Any, command: tuple[object, ...], out: Path) -> tuple[int, str]:
    """Start a run on two nodes, and kill one of them amid it: exit code and standard error."""
    node = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    raylet = node.all_processes["raylet"][0].process.pid
    process = start(*command, "--ray", cluster.address, "-o", out)
    journal = out.with_name(f"{out.name}.journal")
    wait_for(lambda: lines(journal) > 1 and bool(scoring(raylet)), process)
    os.kill(raylet, signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)
    printed, err = process.communicate()
    assert printed == ""
    return process.returncode, err


# Each takes as long as 16 recordings.
SLOW = ("--shifts", 16, *BATCH, "--threads", 1)


@needs_ray
@pytest.mark.filterwarnings("ignore")  # of Ray and of what it imports
@pytest.mark.long
def test_a_node_lost_and_a_driver_killed_the_bytes_are_those_of_one_process(
    run: Run, checkpoint: Path, cluster: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "recordings"
    # On a busy machine, the worker of the second node may take a minute to start.
    plant(folder, [f"{i:03d}.wav" for i in range(200)])
    (folder / "010 cut.wav").write_bytes((folder / "010.wav").read_bytes()[:20_000])
    (folder / "020 empty.wav").write_bytes(b"")
    command = ("detect", folder, *SLOW, "-c", checkpoint)
    for name in ("one", "node", "driver"):
        (tmp_path / name).mkdir()
    assert run(*command, "-o", tmp_path / "one" / "a.csv")[0] == 1

    code, err = run_with_lost_node(cluster, command, tmp_path / "node" / "a.csv")
    assert (code, "workers lost: 1;" in err) == (1, True), err
    assert contents(tmp_path / "node") == contents(tmp_path / "one")

    out = tmp_path / "driver" / "a.csv"
    again = (*command, "--ray", cluster.address, "-o", out)
    process = start(*again)
    wait_for(lambda: lines(out.with_name("a.csv.journal")) > 10, process)
    process.kill()
    process.communicate()
    process = start(*again)
    _, err = process.communicate()
    assert (process.returncode, "recordings are done already" in err) == (1, True), err
    assert contents(tmp_path / "driver") == contents(tmp_path / "one")


@needs_ray
@pytest.mark.filterwarnings("ignore")
@pytest.mark.long
def test_five_kills_at_random_moments(run: Run, checkpoint: Path, cluster: Any, tmp_path: Path) -> None:
    """SIGKILL ends the driver three times, which is started again, and a worker twice."""
    folder, rng = tmp_path / "recordings", random.Random(time.time_ns())
    plant(folder, [f"{i:03d}.wav" for i in range(200)])
    (folder / "010 empty.wav").write_bytes(b"")
    command = ("detect", folder, *SLOW, "-c", checkpoint)
    for name in ("one", "killed"):
        (tmp_path / name).mkdir()
    assert run(*command, "-o", tmp_path / "one" / "a.csv")[0] == 1

    out = tmp_path / "killed" / "a.csv"
    journal, raylet = out.with_name("a.csv.journal"), cluster.head_node.all_processes["raylet"][0].process.pid
    again = (*command, "--ray", cluster.address, "-o", out)
    process = start(*again)
    for victim in ("driver", "worker", "driver", "worker", "driver"):
        done = lines(journal) + rng.randrange(1, 12)
        wait_for(lambda: lines(journal) >= done and bool(scoring(raylet)), process)  # noqa: B023
        time.sleep(rng.random() * 0.3)
        if victim == "driver":
            process.kill()
            process.communicate()
            process = start(*again)
        else:
            for pid in scoring(raylet):
                os.kill(pid, signal.SIGKILL)
    _, err = process.communicate()
    assert (process.returncode, "recordings are done already" in err) == (1, True), err
    assert contents(tmp_path / "killed") == contents(tmp_path / "one")


@needs_ray
@pytest.mark.filterwarnings("ignore")
@pytest.mark.long
def test_two_thousand_recordings_with_a_node_lost(
    checkpoint: Path, thousands: Path, by_one_process: dict[str, bytes], cluster: Any, tmp_path: Path
) -> None:
    command = ("detect", thousands, *BATCH, "--threads", 1, "-c", checkpoint)
    code, err = run_with_lost_node(cluster, command, tmp_path / "a.csv")
    assert (code, "workers lost: 1;" in err) == (1, True), err
    assert contents(tmp_path) == by_one_process


@needs_ray
@pytest.mark.parametrize(
    "command", [("detect", "a.csv", "--scores", "maps"), ("tag", "a.csv"), ("embed", "archive")], ids=str
)
@pytest.mark.filterwarnings("ignore")
def test_workers_write_what_one_process_writes(
    command: tuple[str, ...], checkpoint: Path, few: Path, cluster: Any, tmp_path: Path
) -> None:
    (few / "none.wav").write_bytes(b"")
    name, out, *more = command
    if name == "embed":
        pytest.importorskip("pyarrow", reason="embed needs pyarrow")
    written = []
    for where in ((), ("--ray", cluster.address)):
        folder = tmp_path / ("ray" if where else "one")
        folder.mkdir()
        process = subprocess.run(
            [*PROGRAM, name, few, *BATCH, "--threads", "1", "-c", checkpoint, "-o", out, *more, *where],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert (process.returncode, process.stdout) == (1, ""), process.stderr
        written.append(contents(folder))
    assert set(written[0]) == set(written[1])
    # The journal has the path of the maps, the prepared search that of the archive.
    same = [each for each in written[0] if not each.endswith((".journal", ".prepared.npz"))]
    assert {each: written[0][each] for each in same} == {each: written[1][each] for each in same}


@needs_ray
def test_a_cluster_that_is_not_there_is_one_line(checkpoint: Path, few: Path, tmp_path: Path) -> None:
    process = start("detect", few, "-c", checkpoint, "--ray", "nonsense", "-o", tmp_path / "a.csv")
    printed, err = process.communicate()
    assert (process.returncode, printed) == (1, "")
    assert "nonsense: no Ray cluster can be reached here" in err
    assert "Traceback" not in err


@needs_ray
@pytest.mark.filterwarnings("ignore")
@pytest.mark.long
def test_a_recording_that_ends_its_worker_is_an_error_and_the_others_go_on(
    checkpoint: Path, cluster: Any, tmp_path: Path
) -> None:
    """In a process of its own, as Ray is joined once a process."""
    program = f"""
import os
from htsat_sed import Detector
from htsat_sed.runs.ray import RayWorkers

def score(detector, paths, *, progress, defective):
    for path in paths:
        if path.endswith("7.wav"):
            os._exit(1)
        yield path, len(detector.labels)

if __name__ == "__main__":
    with RayWorkers({cluster.address!r}, Detector({str(checkpoint)!r}), score) as workers:
        quiet = {{"progress": lambda *_: None, "defective": lambda *_: None}}
        for path, found in workers.results([f"{{i}}.wav" for i in range(20)], **quiet):
            print(path, found)
    print(workers.lost)
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    *found, lost = process.stdout.splitlines()
    assert [line.partition(" ")[0] for line in found] == [f"{i}.wav" for i in range(20)]
    assert [line.endswith(" 4") for line in found] == [i not in (7, 17) for i in range(20)]
    assert "7.wav: the process that read it ended 3 times" in found[7]
    assert int(lost) >= 4  # at least the last of three each alone
