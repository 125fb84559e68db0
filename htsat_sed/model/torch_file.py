"""Reading the arrays of PyTorch files, without executing pickles and with memory bounded by the file's size.

Files are read with ``weights_only=True``. Training programs leave other objects beside the arrays (callbacks,
argument namespaces, NumPy scalars). Their names are replaced by an inert stand-in, and nothing of theirs is
imported or called. A file that names any other object is refused. Files that could expand beyond their size
are refused before PyTorch reads them: those with compressed members, a long pickle or codecs that lengthen
bytes.
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

_LONGEST_PICKLE = 8 << 20  # bytes; the pickle of a checkpoint with optimiser state has about 100 kB
_MOST_STEPS = 1_000_000  # operations of a pickle; that of a checkpoint has about 10 000
_MOST_UNFOLDED = 10 * _MOST_STEPS  # objects of a pickle, where repeated objects count each time
_DEEPEST = 1_000  # nesting depth of containers; hashing a tuple descends into each
# Most objects in keys that are tuples: keys with equal hashes would each be compared with all earlier ones.
_MOST_IN_KEYS = 10_000
# Bytes from which an integer is long, and most of them: their hashes can be made to collide.
_LONG_INTEGER, _LONG_INTEGERS = 8, 10_000
_LEGACY_PICKLES = 5  # in a file of old PyTorch: magic number, version, system, content, storage keys

# Modules whose objects training programs leave in checkpoints.
_TRAINERS = {
    *("pytorch_lightning", "lightning", "lightning_fabric", "torchmetrics", "torch", "numpy"),
    *("omegaconf", "argparse", "pathlib", "datetime"),
}
_HARMLESS = {f"builtins.{name}" for name in ("int", "float", "bool", "str", "bytes", "list", "tuple")}
_PYTORCH_READS = {"builtins.set", "builtins.complex", "_codecs.encode"}
_PYTORCH_READS |= {f"collections.{name}" for name in ("OrderedDict", "Counter")}
# Codecs from bytes to bytes, each application of which can double the length.
_LENGTHENING = {"base64", "base_64", "bz2", "hex", "quopri", "quoted_printable", "quotedprintable", "uu"}
_LENGTHENING |= {"zip", "zlib"}


def read_arrays(path: str | Path) -> Arrays:
    """Read the arrays of a PyTorch file, without executing its pickle.

    Args:
        path: file of `torch.save` with a state dict, or a dict with one under ``state_dict`` or ``model``.

    Returns:
        Arrays by name, on the CPU; memory-mapped if the file is a zip archive.

    Raises:
        CheckpointError: the file is of another kind, names objects that may be code, or would expand beyond
            its size.
    """
    try:
        with Path(path).open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"  # as PyTorch decides
        named = _named_in_zip(path) if zipped else _named_in_legacy(path)
        with torch.serialization.safe_globals(_stand_ins(path, named)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about quantised and sparse arrays
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except CheckpointError:
        raise
    except Exception as error:  # broken pickles raise many types
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
    """Check that arrays hold plain real numbers and do not share storage.

    Args:
        path: file of the arrays.
        arrays: arrays to check.

    Raises:
        CheckpointError: an array is nested, sparse, quantised, complex or not on the CPU; or all arrays
            together are larger than the file.
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
        reason = f"its arrays would expand to {total} bytes, but the file has {size}: they repeat or overlap"
        raise CheckpointError(path, reason)


def _kind(array: Tensor) -> str | None:
    """Name the kind of an array, with its article; None for a plain one."""
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
    """Inert replacement of a pickled object; ignores all arguments and state."""

    def __new__(cls, *_: object, **__: object) -> _StandIn:
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None: ...


def _plain_dict(*_: object) -> dict[Any, Any]:
    """Replacement of `defaultdict`; the pickle adds its items afterwards."""
    return {}


def _stand_ins(path: str | Path, named: set[str]) -> list[Any]:
    """Make a stand-in for every name in a pickle.

    Raises:
        CheckpointError: a name belongs neither to a training program nor to plain values.
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
    """Collect the names in the pickles of a zip archive.

    Raises:
        CheckpointError: a member is compressed, members overlap, or a pickle is refused by `_named`.
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
    """Collect the names in the pickles at the start of a file of old PyTorch.

    Raises:
        CheckpointError: a pickle is refused by `_named`.
    """
    with Path(path).open("rb") as file:
        return set().union(*(_named(path, file) for _ in range(_LEGACY_PICKLES)))


def _named(path: str | Path, file: IO[bytes]) -> set[str]:
    """Collect the names in the pickle at the current position of a file.

    Raises:
        CheckpointError: the pickle is too long, expands to far more than its length, or lengthens bytes with
            codecs.
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
    """The size of an object of a pickle.

    Attributes:
        objects: number of objects in it, including itself; repeated objects count each time.
        depth: nesting depth of containers.
        composite: whether it is a tuple or the result of a call, whose hash depends on its parts.
        hashes: whether it is a function that hashes its arguments.
    """

    objects: int = 1
    depth: int = 1
    composite: bool = False
    hashes: bool = False

    def hold(self, others: Sequence[_Weight | None]) -> None:
        """Add other objects as its content."""
        for other in others:
            if other is not None:
                self.objects = min(self.objects + other.objects, 2 * _MOST_UNFOLDED)
                self.depth = max(self.depth, other.depth + 1)


class _Unfolding:
    """Executes a pickle on the weights of objects instead of the objects, to bound their number.

    A pickle can use an object repeatedly: forty tuples, each with the previous one twice, expand to 10^12
    objects, and computing their hash takes hours.

    Args:
        path: file, for messages.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._stack: list[_Weight | None] = []  # None is a mark
        self._memo: dict[object, _Weight] = {}
        self._used = self._long_integers = self._in_keys = 0

    def step(self, operation: pickletools.OpcodeInfo, argument: object) -> None:
        """Apply an operation to the stack.

        Raises:
            CheckpointError: the objects so far expand to too many, are nested too deeply, or include too many
                long integers.
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
        """Pop the arguments of an operation from the stack."""
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
        """Count the objects in keys that an operation adds to a dict or set.

        Args:
            operation: name of the operation.
            taken: its arguments; those above a mark are in reverse order.
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
    """Join the first three names, and add the number of the others."""
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
