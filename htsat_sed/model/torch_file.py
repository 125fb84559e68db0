"""PyTorch files: their arrays, without executing a pickle and within the memory that the file's size allows.

Files are read with ``weights_only=True``. Trainers leave objects beside the arrays (callbacks, argument
namespaces, NumPy scalars); such names are replaced by an inert stand-in, nothing of theirs is imported or
called, and a file that names anything else is refused. Before PyTorch sees the file, what could grow beyond
its size is refused: compressed members, a long pickle, codecs that lengthen bytes.
"""

from __future__ import annotations

import pickletools
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from htsat_sed.errors import CheckpointError

Arrays = dict[str, Tensor]

_LONGEST_PICKLE = 8 << 20  # bytes; that of a checkpoint with optimiser state has some 100 kB
_MOST_STEPS = 1_000_000  # of a pickle; a checkpoint's has some 10 000
_MOST_UNFOLDED = 10 * _MOST_STEPS  # objects that are reached when the tuples of a pickle are gone through
_DEEPEST = 1_000  # containers within each other; a tuple's hash descends into each
# Objects in keys that are tuples: many can be made of one hash, and each is compared with all before.
_MOST_IN_KEYS = 10_000
_LONG_INTEGER, _LONG_INTEGERS = 8, 10_000  # bytes of such, and how many: their hashes can be made to collide
_LEGACY_PICKLES = 5  # in a file of old PyTorch: magic number, version, system, content, storage keys

# Modules whose objects trainers leave in checkpoints.
_TRAINERS = {
    *("pytorch_lightning", "lightning", "lightning_fabric", "torchmetrics", "torch", "numpy"),
    *("omegaconf", "argparse", "pathlib", "datetime"),
}
_HARMLESS = {f"builtins.{name}" for name in ("int", "float", "bool", "str", "bytes", "list", "tuple")}
_PYTORCH_READS = {"builtins.set", "builtins.complex", "_codecs.encode"}
_PYTORCH_READS |= {f"collections.{name}" for name in ("OrderedDict", "Counter")}
# Codecs from bytes to bytes, each round of which may double the length.
_LENGTHENING = {"base64", "base_64", "bz2", "hex", "quopri", "quoted_printable", "quotedprintable", "uu"}
_LENGTHENING |= {"zip", "zlib"}


def read_arrays(path: str | Path) -> Arrays:
    """Read the arrays of a PyTorch file, without executing its pickle.

    Args:
        path: what `torch.save` wrote: a state dict, or a dict with one under ``state_dict`` or ``model``.

    Raises:
        CheckpointError: not such a file, it names objects that may be code, or it would unfold to more than
            its size.
    """
    try:
        with Path(path).open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"  # as PyTorch decides
        named = _named_in_zip(path) if zipped else _named_in_legacy(path)
        with torch.serialization.safe_globals(_stand_ins(path, named)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of quantised and sparse arrays
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except CheckpointError:
        raise
    except Exception as error:  # broken pickles fail in every way
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "weights_only" in str(error) or "Weights only" in str(error):
            reason = "its pickle holds more than arrays and plain values, and pickle is never executed"
        raise CheckpointError(path, f"cannot be read as a PyTorch checkpoint: {reason}") from error
    for name in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict):
        found = "pickled object" if isinstance(content, _StandIn) else type(content).__name__
        raise CheckpointError(path, f"holds a {found}, wanted a state dict of arrays")
    arrays = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not arrays:
        raise CheckpointError(path, "holds no arrays")
    return arrays


def check_plain(path: str | Path, arrays: Arrays) -> None:
    """Refuse arrays that are not plain numbers in the file, each in a place of its own.

    Raises:
        CheckpointError: an array is sparse, quantised, without storage or complex, or all are larger
            than the file.
    """
    total = 0
    for key, array in arrays.items():
        kind = _kind(array)
        if kind is not None:
            reason = f"holds {key} as {kind} array, wanted plain numbers: save it as a dense float32 array"
            raise CheckpointError(path, reason)
        total += array.numel() * array.element_size()
    size = Path(path).stat().st_size
    if total > size:
        reason = f"its arrays would unfold to {total} bytes, but the file has {size}: they repeat or overlap"
        raise CheckpointError(path, reason)


def _kind(array: Tensor) -> str | None:
    """What an array is instead of plain numbers in memory, with its article; None if it is such."""
    if array.is_nested:
        return "a nested"
    if array.layout != torch.strided:
        return "a sparse"
    if array.is_quantized:
        return "a quantised"
    if array.device.type != "cpu":
        return f"a {array.device.type}"
    return "a complex" if array.is_complex() else None


class _StandIn:
    """Takes the place of an object that a trainer pickled; does nothing, whatever it is given."""

    def __new__(cls, *_: object, **__: object) -> _StandIn:
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None: ...


def _plain_dict(*_: object) -> dict[Any, Any]:
    """Takes the place of `defaultdict`, whose items follow one by one."""
    return {}


def _stand_ins(path: str | Path, named: set[str]) -> list[Any]:
    """A stand-in for every name in the pickle that belongs to a trainer.

    Raises:
        CheckpointError: it names something else.
    """
    foreign = sorted(
        name
        for name in named
        if name.partition(".")[0] not in _TRAINERS
        and name not in _HARMLESS | _PYTORCH_READS
        and name != "collections.defaultdict"
    )
    if foreign:
        raise CheckpointError(
            path,
            f"refused: its pickle names {shortened(foreign)}, which may be code; "
            "if you trust the file, save its state_dict alone with the program that wrote it",
        )
    return [(_plain_dict if name == "collections.defaultdict" else _StandIn, name) for name in named]


def _named_in_zip(path: str | Path) -> set[str]:
    """Names in the pickle of a zip archive, whose members are stored as they are.

    Raises:
        CheckpointError: a member is compressed, or the pickle is too long.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise CheckpointError(
                    path,
                    f"refused: {member.filename} in it is compressed, which PyTorch never does; "
                    "save it again with torch.save",
                )
        if sum(member.file_size for member in members) > Path(path).stat().st_size:
            raise CheckpointError(path, "cannot be read as a PyTorch checkpoint: its members overlap")
        named: set[str] = set()
        for member in members:
            if member.filename.endswith(".pkl"):
                with archive.open(member) as file:
                    named |= _named(path, file)
    return named


def _named_in_legacy(path: str | Path) -> set[str]:
    """Names in the pickles that a file of old PyTorch begins with.

    Raises:
        CheckpointError: they are too long.
    """
    with Path(path).open("rb") as file:
        return set().union(*(_named(path, file) for _ in range(_LEGACY_PICKLES)))


def _named(path: str | Path, file: IO[bytes]) -> set[str]:
    """Names in the pickle that a file goes on with.

    Raises:
        CheckpointError: it is too long, unfolds to far more than it is long, or turns bytes into more bytes.
    """
    start = file.tell()
    named: set[str] = set()
    words: set[str] = set()
    unfolding = _Unfolding(path)
    for step, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if operation.name == "GLOBAL":
            named.add(str(argument).replace(" ", ".", 1).replace("__builtin__.", "builtins."))
        elif isinstance(argument, str) and len(argument) < 32:
            words.add(argument.lower().replace("-", "_").replace(" ", "_").removesuffix("_codec"))
        unfolding.step(operation, argument)
        if step > _MOST_STEPS or file.tell() - start > _LONGEST_PICKLE:
            raise CheckpointError(
                path,
                "refused: its pickle is far longer than that of any checkpoint; save its state_dict alone",
            )
    if "_codecs.encode" in named and words & _LENGTHENING:
        raise CheckpointError(path, "refused: its pickle encodes bytes as more bytes, again and again")
    return named


@dataclass(slots=True)
class _Weight:
    """An object of a pickle.

    Attributes:
        objects: how many are reached from it, counted once a way.
        depth: of containers within each other.
        composite: whether it is a tuple or what a call returned, whose hash is that of its parts.
        hashes: whether it is a function that hashes what it is called with.
    """

    objects: int = 1
    depth: int = 1
    composite: bool = False
    hashes: bool = False

    def hold(self, others: Sequence[_Weight | None]) -> None:
        """Let it contain others."""
        for other in others:
            if other is not None:
                self.objects = min(self.objects + other.objects, 2 * _MOST_UNFOLDED)
                self.depth = max(self.depth, other.depth + 1)


class _Unfolding:
    """The stack of a pickle with the weight of each object in place of the object.

    A pickle can use an object again and again: forty tuples, each with the one before twice, unfold to 10^12
    and their hash takes hours.

    Args:
        path: what messages call the file.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._stack: list[_Weight | None] = []  # None is a mark
        self._memo: dict[object, _Weight] = {}
        self._used = self._long_integers = self._in_keys = 0

    def step(self, operation: pickletools.OpcodeInfo, argument: object) -> None:
        """Do what an operation does to the stack.

        Raises:
            CheckpointError: the objects used so far unfold to too many, lie too deep within each other, or
                are too many long integers.
        """
        name = operation.name
        if name == "MARK":
            self._stack.append(None)
        elif name.endswith("PUT") or name == "MEMOIZE":
            if self._stack and (top := self._stack[-1]) is not None:
                self._memo[len(self._memo) if name == "MEMOIZE" else argument] = top
        elif name.endswith("GET"):
            self._use(self._memo.get(argument, _Weight()))
        else:
            taken = self._taken(operation)
            self._hash(name, taken)
            if name in _FILLING and taken and (container := taken[0]) is not None:
                container.hold(taken[1:])
                self._stack.append(container)
            elif operation.stack_after:
                made = _Weight(
                    composite=name in _COMPOSITE,
                    hashes=name == "GLOBAL" and str(argument).split(" ")[-1] in _HASHING,
                )
                made.hold(taken)
                self._use(made)
        if isinstance(argument, int) and argument.bit_length() > 8 * _LONG_INTEGER:
            self._long_integers += 1
        if self._long_integers > _LONG_INTEGERS:
            raise CheckpointError(
                self._path, "refused: its pickle is full of long integers; save its state_dict"
            )

    def _taken(self, operation: pickletools.OpcodeInfo) -> list[_Weight | None]:
        """Take from the stack what an operation takes."""
        before = operation.stack_before
        marked = pickletools.markobject in before
        count = before.index(pickletools.markobject) if marked else len(before)
        above: list[_Weight | None] = []
        while marked and self._stack and (top := self._stack.pop()) is not None:
            above.append(top)
        first = max(0, len(self._stack) - count)
        below, self._stack[first:] = self._stack[first:], []
        return below + above

    def _hash(self, operation: str, taken: Sequence[_Weight | None]) -> None:
        """Count what is in the keys that an operation adds to a dict or set.

        Args:
            operation: its name.
            taken: from the stack; what lay above a mark is in reverse.
        """
        keys = taken[_KEYS[operation]] if operation in _KEYS else ()
        self._in_keys += sum(key.objects for key in keys if key is not None and key.composite)
        if operation in ("REDUCE", "NEWOBJ") and len(taken) == 2:
            function, arguments = taken
            if function is not None and function.hashes and arguments is not None:
                self._in_keys += arguments.objects - 1
        if self._in_keys > _MOST_IN_KEYS:
            reason = "refused: its pickle is full of keys that are not plain names; save its state_dict"
            raise CheckpointError(self._path, reason)

    def _use(self, used: _Weight) -> None:
        self._stack.append(used)
        self._used += used.objects
        if self._used > _MOST_UNFOLDED or used.depth > _DEEPEST:
            raise CheckpointError(
                self._path,
                "refused: the objects in its pickle contain one another again and again; save its state_dict",
            )


_FILLING = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
_COMPOSITE = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "REDUCE", "NEWOBJ"}
_KEYS = {"SETITEM": slice(1, 2), "SETITEMS": slice(2, None, 2), "ADDITEMS": slice(1, None)}
_HASHING = {"set", "frozenset", "dict", "OrderedDict", "Counter", "defaultdict"}


def shortened(names: list[str]) -> str:
    """The first three of some names, and how many there are beyond."""
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
