"""Recordings scored by the workers of a Ray cluster; results come in the order of the recordings.

    paths ─ chunks ─▶ workers (Ray actors, each with a detector) ─▶ results, put in order ─▶ the run

A worker decodes and scores by the same pipeline as a run on one machine. It has enough recordings ahead to
keep its batches full from one chunk to the next. When it is lost, others score again what it had in hand.

These are Ray's actors and not Ray Data: Ray Data wants all paths before it begins, empties the pipeline after
each block, tries a recording that ends its process again and again for ever, and does not tell how many
workers were lost.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

from htsat_sed.errors import AudioError, HtsatSedError, UsageError
from htsat_sed.libraries import load
from htsat_sed.remote import is_remote, shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from htsat_sed.detection.detector import Detector, Found, Rows
    from htsat_sed.detection.scheduler import AnyPath, Defective, RecordingProgress

LOCAL = "local"

_CHUNK = 8  # recordings that go to a worker at once
_CHUNK_BYTES = 16 << 20  # of the files of a chunk, if it has several
_AHEAD_BYTES = 64 << 20  # of the files that a worker has in hand, if they are more than two chunks
_GPU_WINDOWS = 128  # of a batch on a GPU, where nobody says
_WAITING = 4  # times as many recordings as workers can have in hand: those whose turn has not come
_LOSSES = 3  # workers that a recording may take with it; from the last but one on it is scored alone
_STARTS = 3  # times in a row that workers may fail to start
_COUNT_EVERY = 5.0  # seconds between two looks at the size of the cluster, and after a failed start
_POLL = 1.0  # seconds

_Result = TypeVar("_Result")
Score = Callable[..., Iterator[tuple[object, _Result | HtsatSedError]]]


@dataclass(frozen=True)
class Scored(Generic[_Result]):
    """What a worker made of a recording.

    Attributes:
        result: what was found, or the error that kept it from being read.
        seconds: of it that have passed the model.
        expected: its duration as far as its header tells, seconds.
        defects: what is wrong with it though it could be read.
        rows: blocks (n, K) of its presence map, if they are wanted.
    """

    result: _Result | HtsatSedError
    seconds: float = 0.0
    expected: float | None = None
    defects: tuple[str, ...] = ()
    rows: tuple[NDArray[np.float32], ...] = ()


@dataclass(frozen=True)
class Task:
    """What all workers are to do.

    Attributes:
        version: of this package.
        arguments: of the detector.
        threads: that compute.
        score: makes results of a detector and paths, such as `Detector.detections`.
        rows: whether presence maps are wanted.
    """

    version: str
    arguments: Mapping[str, Any]
    threads: int
    score: Score[Any]
    rows: bool


class _Feed(Iterator[str]):
    """Paths that wait to be scored; ends whenever none waits, and goes on when more have come."""

    def __init__(self) -> None:
        self._paths: deque[str] = deque()
        self._changed = threading.Condition()

    def put(self, paths: Iterable[str]) -> None:
        with self._changed:
            self._paths.extend(paths)
            self._changed.notify()

    def wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._paths)

    def clear(self) -> None:
        with self._changed:
            self._paths.clear()

    def __next__(self) -> str:
        with self._changed:
            if not self._paths:
                raise StopIteration
            return self._paths.popleft()


class Worker:
    """Scores recordings in a process of its own; a Ray actor, whose calls run in threads.

    All chunks pass one pipeline, one after the other, in a thread of its own.
    """

    def __init__(self) -> None:
        self._feed = _Feed()
        self._chunks: deque[tuple[int, list[Scored[Any]], Future[list[Scored[Any]]]]] = deque()
        self._lock = threading.Lock()

    def prepare(self, task: Task) -> HtsatSedError | ValueError | None:
        """Make the detector; the error that kept it from being made, if one did."""
        from htsat_sed import __version__

        if task.version != __version__:
            return UsageError(
                f"htsat-sed {task.version} started the run, but a worker has {__version__}: install the "
                "same version on all machines"
            )
        ready: Future[None] = Future()
        threading.Thread(target=self._work, args=(task, ready), name="pipeline", daemon=True).start()
        try:
            ready.result()
        except (HtsatSedError, UsageError) as error:
            return error
        return None

    def score(self, paths: Sequence[str]) -> list[Scored[Any]]:
        """Score recordings; waits for those of the calls before."""
        future: Future[list[Scored[Any]]] = Future()
        with self._lock:
            self._chunks.append((len(paths), [], future))
            self._feed.put(paths)
        return future.result()

    def _work(self, task: Task, ready: Future[None]) -> None:
        try:
            import torch

            from htsat_sed.detection.detector import Detector

            torch.set_num_threads(task.threads)  # a setting of this thread
            detector = Detector(**task.arguments)
        except BaseException as error:
            ready.set_exception(error)
            return
        ready.set_result(None)
        while True:
            self._feed.wait()
            try:
                self._score(task, detector)
            except BaseException as error:
                self._give_up(error)

    def _score(self, task: Task, detector: Detector) -> None:
        """Score what waits, until nothing does."""
        seconds, expected = 0.0, cast("float | None", None)
        defects: list[str] = []
        rows: list[NDArray[np.float32]] = []

        def heard(_: AnyPath, so_far: float, of: float | None) -> None:
            nonlocal seconds, expected
            seconds, expected = so_far, of

        wanted = {"rows": lambda _, block: rows.append(block)} if task.rows else {}
        for _, result in task.score(
            detector,
            self._feed,
            progress=heard,
            defective=lambda _, defect: defects.append(defect),
            **wanted,
        ):
            self._finish(Scored(result, seconds, expected, tuple(defects), tuple(rows)))
            seconds, expected = 0.0, None
            defects.clear()
            rows.clear()

    def _finish(self, scored: Scored[Any]) -> None:
        count, done, future = self._chunks[0]
        done.append(scored)
        if len(done) == count:
            self._chunks.popleft()
            future.set_result(done)

    def _give_up(self, error: BaseException) -> None:
        with self._lock:
            self._feed.clear()
            chunks = list(self._chunks)
            self._chunks.clear()
        for _, _, future in chunks:
            future.set_exception(error)


@dataclass(eq=False)
class _Item:
    """A recording on its way."""

    path: str
    size: int
    losses: int = 0
    scored: Scored[Any] | None = None


@dataclass(eq=False)
class _Hand:
    """A worker as the driver sees it.

    Attributes:
        actor: the handle.
        tasks: what it is doing: reference of the result -> recordings.
        ready: whether its detector is made.
        alone: whether it scores a recording that may end it.
    """

    actor: Any
    tasks: dict[Any, list[_Item]] = field(default_factory=dict)
    ready: bool = False
    alone: bool = False

    @property
    def items(self) -> int:
        """Recordings in hand."""
        return sum(map(len, self.tasks.values()))

    def has_room(self, most: int) -> bool:
        """Whether it needs another chunk to stay busy."""
        size = sum(item.size for items in self.tasks.values() for item in items)
        return len(self.tasks) < 2 or (self.items < most and size < _AHEAD_BYTES)


class RayWorkers(Generic[_Result]):
    """Workers of a Ray cluster, one a GPU or per so many processor cores; a context manager.

    Workers join as nodes join the cluster, and an autoscaler is asked for twice as many as there are.

    Args:
        address: of the cluster; ``auto`` for the one that runs on this machine or RAY_ADDRESS names;
            ``local`` for one that is started here and ends with the block.
        detector: what they score by.
        score: see `Task`.
        threads: processor cores of a worker.
        rows: whether `results` is to hear of presence maps.
        note: shows a remark.

    Attributes:
        lost: workers that ended or whose node was lost before the work was done.

    Raises:
        UsageError: Ray is not installed.
    """

    def __init__(
        self,
        address: str,
        detector: Detector,
        score: Score[_Result],
        *,
        threads: int = 1,
        rows: bool = False,
        note: Callable[[str], None] = lambda message: None,
    ) -> None:
        from htsat_sed import __version__

        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before Ray is imported
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or it warns of a change to come
        self._ray: ModuleType = load("ray", purpose="--ray", extra="ray")
        self.lost = 0
        self._address, self._threads, self._note = address, threads, note
        self._gpus = int(detector.device.type == "cuda")
        # The journal names this runtime, so a worker without it must not choose another.
        execution = replace(detector.execution, runtime=detector.runtime)
        own = {"device": detector.device.type, "workers": threads, "deferred": False, "execution": execution}
        self._task = Task(__version__, {**detector.arguments, **own}, threads, score, rows)
        windows = detector.arguments["batch_size"]
        windows = windows if isinstance(windows, int) else _GPU_WINDOWS * self._gpus
        self._most = max(8 * _CHUNK, 4 * windows)  # recordings that a worker has in hand
        self._hands: list[_Hand] = []
        self._order: deque[_Item] = deque()  # handed out and not yielded
        self._again: deque[_Item] = deque()  # lost with a worker, in order
        self._failed_starts, self._failed_at = 0, -math.inf
        self._capacity, self._counted, self._started = 0, -math.inf, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._started:
            self._hands.clear()
            self._ray.shutdown()

    def results(
        self,
        paths: Iterable[str],
        *,
        progress: RecordingProgress,
        defective: Defective,
        rows: Rows | None = None,
        found: Found | None = None,
    ) -> Iterator[tuple[str, _Result | HtsatSedError]]:
        """Score recordings.

        Args:
            paths: taken as workers need them; relative ones are of this process.
            progress: as in `Detector.detections`, but called once a recording.
            defective: as there.
            rows: as there.
            found: not called: all events of a recording come at once.

        Yields:
            Each path with its result or error, in their order.

        Raises:
            HtsatSedError: there is no such cluster, or workers cannot start.
        """
        coming = iter(paths)
        while True:
            more = self._hand_out(coming)
            while self._order and (scored := self._order[0].scored) is not None:
                path = self._order.popleft().path
                if scored.seconds:
                    progress(path, scored.seconds, scored.expected)
                for defect in scored.defects:
                    defective(path, defect)
                for block in scored.rows if rows is not None else ():
                    rows(path, block)  # type: ignore[misc]
                yield path, _as_given(path, scored.result)
            if not (self._order or more):
                return
            self._collect()

    def _hand_out(self, coming: Iterator[str]) -> bool:
        """Give workers what they need to stay busy; whether more recordings may come."""
        more = True
        if not self._started:  # nothing may be left to do
            first = next(coming, None)
            if first is None:
                return False
            self._start()
            self._again.append(self._taken(first))
        self._enlist()
        ready = sorted((hand for hand in self._hands if hand.ready), key=lambda hand: hand.items)
        for hand in ready:
            while more and hand.has_room(self._most) and not hand.alone:
                items = self._chunk(hand, coming, len(ready))
                if items is None:
                    break
                more = bool(items)
                if items:
                    reference = hand.actor.score.remote([_absolute(item.path) for item in items])
                    hand.tasks[reference] = items
        return more

    def _chunk(self, hand: _Hand, coming: Iterator[str], workers: int) -> list[_Item] | None:
        """The next recordings for a worker; empty if there are none, None if not now."""
        if self._again:
            if self._again[0].losses < _LOSSES - 1:
                return [self._again.popleft()]
            if hand.tasks:
                return None
            hand.alone = True
            return [self._again.popleft()]
        items: list[_Item] = []
        while len(items) < _CHUNK and sum(item.size for item in items) < _CHUNK_BYTES:
            if len(self._order) >= _WAITING * self._most * workers:
                return items or None
            path = next(coming, None)
            if path is None:
                break
            items.append(self._taken(path))
        return items

    def _taken(self, path: str) -> _Item:
        item = _Item(path, _size(path))
        self._order.append(item)
        return item

    def _collect(self) -> None:
        """Wait for the next results of workers, and take those that are there.

        Raises:
            HtsatSedError: a worker cannot go on for a reason that all would have.
        """
        ray = self._ray
        owners = {reference: hand for hand in self._hands for reference in hand.tasks}
        if not owners:
            time.sleep(_POLL)
            return
        ready, rest = ray.wait(list(owners), num_returns=1, timeout=_POLL)
        if ready and rest:
            ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        for reference in ready:
            hand = owners[reference]
            if reference not in hand.tasks:  # lost with its worker
                continue
            try:
                found = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise self._cause(error) from error
            except ray.exceptions.RayError as error:
                self._lose(hand, error)
                continue
            items = hand.tasks.pop(reference)
            hand.alone = False
            if not hand.ready:
                if found is not None:
                    raise found
                hand.ready, self._failed_starts = True, 0
                continue
            for item, scored in zip(items, found, strict=True):
                item.scored = scored

    def _cause(self, error: Any) -> BaseException:
        cause: BaseException = error.cause
        if isinstance(cause, HtsatSedError | UsageError):
            return cause
        if isinstance(cause, ModuleNotFoundError):
            return HtsatSedError(self._address, f"a worker cannot start: {cause}")
        return cast("BaseException", error)

    def _lose(self, hand: _Hand, error: Exception) -> None:
        """Count a worker as lost, and note what is to be scored again."""
        self._hands.remove(hand)
        tasks, hand.tasks = list(hand.tasks.values()), {}
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(hand.actor)  # it may only be out of reach
        if not hand.ready:
            self._failed_start(error)
            return
        self.lost += 1
        lost = {id(item) for items in tasks for item in items}
        waiting = {id(item) for item in self._again}
        for items in tasks:
            for item in items:
                item.losses += 1
                if item.losses >= _LOSSES:
                    reason = f"the process that read it ended {_LOSSES} times: its decoder may have crashed"
                    item.scored = Scored(AudioError(shown(item.path), reason))
        self._again = deque(
            item for item in self._order if item.scored is None and (id(item) in lost or id(item) in waiting)
        )

    def _failed_start(self, error: Exception) -> None:
        """Wait a little with the next start; those that fail together count once.

        Raises:
            HtsatSedError: it happens again and again, and no worker is there.
        """
        if time.monotonic() - self._failed_at < _COUNT_EVERY:
            return
        self._failed_at = time.monotonic()
        self._failed_starts += 1
        if self._failed_starts >= _STARTS and not any(hand.ready for hand in self._hands):
            reason = " ".join(str(error).split())
            raise HtsatSedError(self._address, f"workers cannot start: {reason}") from error

    def _start(self) -> None:
        """Join the cluster, or start one.

        Raises:
            HtsatSedError: it cannot be reached or started.
        """
        ray, here = self._ray, self._address == LOCAL
        handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
        own = {"num_cpus": max(_cores(), self._threads), "include_dashboard": False} if here else {}
        try:
            ray.init(address=self._address, log_to_driver=False, logging_level="ERROR", **own)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            what = "Ray does not start" if here else "no Ray cluster can be reached here"
            raise HtsatSedError(self._address, f"{what}: {reason}") from error
        finally:
            if threading.current_thread() is threading.main_thread():
                for each, handler in handlers.items():  # Ray puts its own in their place
                    signal.signal(each, handler)
        with suppress(AttributeError):  # or it prints the deaths of workers on standard output
            ray._private.worker._worker_logs_enabled = False
        self._started = True
        self._placed = ray.put(self._task)

    def _enlist(self) -> None:
        """Start as many workers as the cluster has room for, and let more wait for nodes to come."""
        ray, now = self._ray, time.monotonic()
        if now - self._counted >= _COUNT_EVERY:
            self._counted = now
            before, self._capacity = self._capacity, sum(map(self._fit, ray.nodes()))
            if self._capacity == 0 and (before or not self._hands):
                needed = f"{self._threads} processor cores" + (" and a GPU" if self._gpus else "")
                self._note(f"{self._address}: no node of the cluster has {needed}: waiting for one")
        if now - self._failed_at < _COUNT_EVERY:
            return
        wanted = self._capacity if self._address == LOCAL else max(1, 2 * self._capacity)
        while len(self._hands) < wanted:
            options = {"num_cpus": self._threads, "num_gpus": self._gpus}
            actor = ray.remote(max_concurrency=2 + self._most, max_restarts=0, max_task_retries=0, **options)(
                Worker
            ).remote()
            hand = _Hand(actor)
            hand.tasks[actor.prepare.remote(self._placed)] = []
            self._hands.append(hand)

    def _fit(self, node: Mapping[str, Any]) -> int:
        """Workers that a node has room for."""
        if not node["Alive"]:
            return 0
        resources = node["Resources"]
        cores = int(resources.get("CPU", 0) // self._threads)
        return min(cores, int(resources.get("GPU", 0))) if self._gpus else cores


def _as_given(path: str, result: _Result | HtsatSedError) -> _Result | HtsatSedError:
    """A result, its error naming the path as it was given: workers know absolute ones."""
    if isinstance(result, HtsatSedError) and not is_remote(path):
        return type(result)(path, result.reason)
    return result


def _absolute(path: str) -> str:
    return path if is_remote(path) else os.path.abspath(path)  # noqa: PTH100, names may be no paths


def _size(path: str) -> int:
    """Bytes of a recording; 0 for one that is not on a disk here."""
    if is_remote(path):
        return 0
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except (OSError, ValueError):
        return 0


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
