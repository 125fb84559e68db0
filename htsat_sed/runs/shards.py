"""Shards: parts of the recordings for several machines, and the merging of their results.

Each machine lists all recordings and takes its own part, so that only the recordings have to be shared. A
finished shard writes a file beside its output, ``events.tsv.shard`` or, in a folder, ``htsat-sed.shard``, of
JSON lines with checksums, as in a journal. The first line identifies the shard, the recordings and the
settings. A line for each recording follows: its position among all recordings, and its result or the reason
of its failure. `merged` reads such files in parallel, in the order of all recordings.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from htsat_sed.errors import HtsatSedError, UsageError
from htsat_sed.runs.journal import Stamp, entry_of, line_of, stamp
from htsat_sed.runs.recordings import Recording
from htsat_sed.whole_file import whole_file

FORMAT = 1
_LONGEST_LINE = 1 << 30  # bytes; the events of a month in one recording take some megabytes


@dataclass(frozen=True)
class Shard:
    """One of several parts of the recordings.

    Attributes:
        number: number of the shard, from 1.
        count: number of shards.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise UsageError(f"wanted a shard from 1/{self.count} to {self.count}/{self.count}, got {self}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a shard such as ``3/40``.

        Raises:
            UsageError: the text is invalid.
        """
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if found is None:
            raise UsageError(f"wanted a shard such as 3/40, the third of forty, got {text!r}")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@dataclass(frozen=True)
class Part:
    """The recordings of a shard.

    Attributes:
        shard: the shard.
        recordings: its recordings, in the order of all.
        places: their positions among all, from 0.
        total: number of recordings of all shards.
        names_sha256: hash of the names of all recordings, in order.
    """

    shard: Shard
    recordings: Sequence[Recording]
    places: Sequence[int]
    total: int
    names_sha256: str


def part_of(recordings: Sequence[Recording], shard: Shard) -> Part:
    """The recordings of a shard, the same on every machine that sees the same names and sizes.

    In order of decreasing size, each recording goes to the shard with the fewest bytes so far; recordings of
    equal size are ordered by a hash of their names. No shard exceeds 4/3 of the best possible share.
    """
    sizes = [found.size if (found := stamp(each.path)) else 0 for each in recordings]
    hashes = [hashlib.sha256(each.name.encode(errors="surrogateescape")).digest() for each in recordings]
    order = sorted(range(len(recordings)), key=lambda i: (-sizes[i], hashes[i], i))
    loads = [(0, 0, number) for number in range(1, shard.count + 1)]  # bytes, recordings, shard
    own: list[int] = []
    for i in order:
        load, count, number = loads[0]
        heapq.heapreplace(loads, (load + sizes[i], count + 1, number))
        if number == shard.number:
            own.append(i)
    own.sort()
    names = hashlib.sha256(b"".join(hashes)).hexdigest()
    return Part(shard, [recordings[i] for i in own], own, len(recordings), names)


class Done(NamedTuple):
    """A processed recording.

    Attributes:
        place: position among all recordings, from 0.
        name: name in tables; of a failed recording, in the list of failures.
        about: data that outputs contain besides its result.
        stamp: stamp of its file.
        result: result as in a journal; None if it failed.
        defect: damage of a recording that was read nevertheless.
        failure: reason of its failure; None if it succeeded.
    """

    place: int
    name: str
    about: Any = None
    stamp: Stamp | None = None
    result: Any = None
    defect: str | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Header:
    """First line of a shard file.

    Attributes:
        shard: the shard.
        total: number of recordings of all shards.
        names_sha256: see `Part`.
        settings: settings of the run, as in its journal.
        outputs: outputs of the command, for `merge`.
        failures: path and reason of errors from before any recording was read.
    """

    shard: Shard
    total: int
    names_sha256: str
    settings: Mapping[str, Any]
    outputs: Mapping[str, Any]
    failures: Sequence[tuple[str, str]]


def write_shard(path: Path, header: Header, recordings: Iterable[Done]) -> None:
    """Write the file of a finished shard.

    Raises:
        HtsatSedError: it cannot be written.
    """
    first = {
        "shard": FORMAT,
        "number": header.shard.number,
        "count": header.shard.count,
        "total": header.total,
        "names": header.names_sha256,
        "settings": header.settings,
        "outputs": header.outputs,
        "failures": list(header.failures),
    }
    with whole_file(path, "wb") as file:
        file.write(line_of(first))
        count = 0
        for done in recordings:
            count += 1
            entry: dict[str, Any] = {"place": done.place, "name": done.name}
            if done.about is not None:
                entry["about"] = done.about
            if done.failure is not None:
                entry["failed"] = done.failure
            else:
                size, modified = (None, None) if done.stamp is None else done.stamp
                entry |= {"size": size, "modified": modified, "result": done.result}
                if done.defect is not None:
                    entry["defect"] = done.defect
            file.write(line_of(entry))
        file.write(line_of({"end": count}))


class ShardFile:
    """Reads the file of a shard, once.

    Args:
        path: the file.
        stack: closes the file.

    Raises:
        HtsatSedError: it is missing, cannot be read, or is no shard file.
    """

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        try:
            self._file = stack.enter_context(path.open("rb"))
        except FileNotFoundError as error:
            raise HtsatSedError(
                path, "does not exist: its shard is not finished, or ran without --shard"
            ) from error
        except OSError as error:
            raise HtsatSedError(path, f"cannot be read: {error.strerror}") from error
        first = self._line()
        try:
            if first.get("shard") != FORMAT:
                raise KeyError("shard")
            self.header = Header(
                Shard(first["number"], first["count"]),
                int(first["total"]),
                str(first["names"]),
                dict(first["settings"]),
                dict(first["outputs"]),
                [(str(name), str(reason)) for name, reason in first["failures"]],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise HtsatSedError(path, f"is not a shard file of this version ({FORMAT})") from error

    def recordings(self) -> Iterator[Done]:
        """Yield the recordings of the shard in order.

        Raises:
            HtsatSedError: the file is damaged.
        """
        number, before = 0, -1
        while True:
            entry = self._line()
            if "end" in entry:
                break
            number += 1
            try:
                size, modified = entry.get("size"), entry.get("modified")
                done = Done(
                    int(entry["place"]),
                    str(entry["name"]),
                    entry.get("about"),
                    None if size is None or modified is None else Stamp(int(size), int(modified)),
                    entry.get("result"),
                    entry.get("defect"),
                    entry.get("failed"),
                )
                if (done.failure is None) is ("result" not in entry) or done.place <= before:
                    raise UsageError("order")
            except (KeyError, TypeError, ValueError) as error:
                raise self._damaged() from error
            before = done.place
            yield done
        if entry["end"] != number:
            raise self._damaged()

    def _line(self) -> dict[str, Any]:
        try:
            entry = entry_of(self._file.readline(_LONGEST_LINE))
        except OSError as error:
            raise HtsatSedError(self.path, f"cannot be read: {error.strerror}") from error
        if entry is None:
            raise self._damaged()
        return entry

    def _damaged(self) -> HtsatSedError:
        return HtsatSedError(self.path, "is damaged: run its shard again with --restart")


def check_complete(files: Sequence[ShardFile]) -> None:
    """Refuse shards that are not all shards of one run, each once.

    Raises:
        HtsatSedError: shards are missing, duplicate, or of another run.
    """
    first = files[0].header
    for file in files[1:]:
        own = file.header
        if own.shard.count != first.shard.count:
            reason = f"is one of {own.shard.count} shards, but {files[0].path} is one of {first.shard.count}"
        elif own.total != first.total or own.names_sha256 != first.names_sha256:
            reason = (
                f"is a part of {own.total} recordings, {files[0].path} of {first.total} others: "
                "run again the shards from before the recordings changed"
            )
        elif _compared(own) != _compared(first):
            names = [
                name
                for name in {**_compared(own), **_compared(first)}
                if _compared(own).get(name) != _compared(first).get(name)
            ]
            reason = f"differs from {files[0].path} in {', '.join(names)}: run one of them again"
        else:
            continue
        raise HtsatSedError(file.path, reason)
    numbers = Counter(file.header.shard.number for file in files)
    if twice := [number for number, times in numbers.items() if times > 1]:
        of = [str(file.path) for file in files if file.header.shard.number == twice[0]]
        raise HtsatSedError(
            of[-1], f"is shard {twice[0]}/{first.shard.count}, and so is {of[0]}: name only one of them"
        )
    if missing := [number for number in range(1, first.shard.count + 1) if number not in numbers]:
        shown = ", ".join(f"{number}/{first.shard.count}" for number in missing[:20])
        more = f" and {len(missing) - 20} more" if len(missing) > 20 else ""
        verb = "is" if len(missing) == 1 else "are"
        raise HtsatSedError(
            "merge", f"{len(missing)} of {first.shard.count} shards {verb} missing: {shown}{more}"
        )


def _compared(header: Header) -> dict[str, Any]:
    """Settings and outputs that all shards must share."""
    settings = {name: value for name, value in header.settings.items() if name not in ("shard", "scores")}
    return settings | {f"output {name}": value for name, value in header.outputs.items() if name != "maps"}


def merged(files: Sequence[ShardFile]) -> Iterator[tuple[ShardFile, Done]]:
    """Yield the recordings of all shards in the order of one run, each with its shard file.

    Raises:
        HtsatSedError: a file is damaged, or a recording is in no shard or in two.
    """

    def placed(i: int) -> Iterator[tuple[int, int, Done]]:
        return ((done.place, i, done) for done in files[i].recordings())

    expected = 0
    for place, i, done in heapq.merge(*map(placed, range(len(files))), key=lambda each: each[:2]):
        if place != expected:
            where = f"recording {done.name!r}" if place < expected else f"a recording before {done.name!r}"
            how = "is also in another shard" if place < expected else "is in no shard"
            raise HtsatSedError(files[i].path, f"{where} {how}")
        expected += 1
        yield files[i], done
    if expected != files[0].header.total:
        raise HtsatSedError("merge", f"{files[0].header.total - expected} recordings are in no shard")
