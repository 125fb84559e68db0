"""Recordings in memory: samples, bytes, or a file object.

They are kept in memory under a name that decoders can open (on Linux; elsewhere in a temporary file), so that
they are read exactly like files.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from htsat_sed.errors import AudioError, UsageError

_SUBTYPES = {"int16": "PCM_16", "int32": "PCM_32", "float32": "FLOAT"}
_MOST_CHANNELS = 256
_LARGEST_WAV = 4_000_000_000  # bytes


class InMemory(os.PathLike[str]):
    """A recording in memory, to be used like a path.

    Args:
        sound: samples (n,) or (n, channels), a NumPy array or a torch tensor, floating point in [-1, 1] or
            signed integers of 16 or 32 bits; or the bytes of a recording of any format; or a file object in
            binary mode, read from its position at the time of reading.
        sample_rate: sample rate of samples, Hz; None otherwise.

    Attributes:
        sound: as given.

    Raises:
        UsageError: `sound` has another type, or a sample rate is missing or superfluous.
    """

    def __init__(self, sound: Any, sample_rate: int | None = None) -> None:
        self.sound = sound
        self._samples: NDArray[Any] | None = None
        self._rate = 0
        # Tensors are recognised by an attribute, so that torch need not be imported.
        if isinstance(sound, np.ndarray) or hasattr(sound, "is_floating_point"):
            self._samples = _samples(sound)
            self._rate = _checked_rate(sample_rate)
            self._name = "<samples>"
            return
        if not (isinstance(sound, bytes | bytearray | memoryview) or hasattr(sound, "read")):
            raise UsageError(
                "wanted a recording as a path, samples (a NumPy array or torch tensor), bytes or a binary "
                f"file object; got {type(sound).__name__}"
            )
        if sample_rate is not None:
            raise UsageError("wanted no sample_rate: it is only for samples, and a recording states its own")
        self._name = "<file>" if hasattr(sound, "read") else "<bytes>"

    def __fspath__(self) -> str:
        """Name in messages."""
        return self._name

    def keep(self, stack: ExitStack) -> Path:
        """Make the recording available to decoders until the stack closes.

        Raises:
            AudioError: it cannot be stored or read, or is an array without samples.
        """
        if self._samples is not None and self._samples.size == 0:
            raise AudioError(self._name, "holds no audio: the array is empty")
        try:
            path, file = _kept(stack)
            with file:
                self._write(file)
        except (OSError, soundfile.LibsndfileError) as error:
            raise AudioError(self._name, f"cannot be read: {error}") from error
        return path

    def _write(self, file: IO[bytes]) -> None:
        if self._samples is not None:
            large = self._samples.nbytes > _LARGEST_WAV
            subtype = _SUBTYPES[self._samples.dtype.name]
            soundfile.write(
                file, self._samples, self._rate, subtype=subtype, format="RF64" if large else "WAV"
            )
        elif hasattr(self.sound, "read"):
            try:
                shutil.copyfileobj(self.sound, file)
            except TypeError:
                raise UsageError("wanted a file object in binary mode: open it with 'rb'") from None
        else:
            file.write(self.sound)


def _kept(stack: ExitStack) -> tuple[Path, IO[bytes]]:
    """A name that can be opened again, and a file to write."""
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("htsat-sed")
        stack.callback(os.close, number)
        path = Path(f"/proc/{os.getpid()}/fd/{number}")
    else:
        path = Path(stack.enter_context(TemporaryDirectory(prefix="htsat-sed-"))) / "recording"
    return path, path.open("w+b")


def _samples(sound: Any) -> NDArray[Any]:
    """Samples of a type for libsndfile, (n,) or (n, channels)."""
    if not isinstance(sound, np.ndarray):  # a tensor, possibly of a type that NumPy lacks
        sound = sound.detach().cpu()
        sound = (sound.float() if sound.is_floating_point() else sound).numpy()
    if sound.ndim not in (1, 2) or (sound.ndim == 2 and not 1 <= sound.shape[1] <= _MOST_CHANNELS):
        hint = ": transpose it" if sound.ndim == 2 and sound.shape[0] <= _MOST_CHANNELS else ""
        raise UsageError(f"wanted samples of shape (n,) or (n, channels), got {sound.shape}{hint}")
    if sound.dtype.kind == "f":
        with np.errstate(over="ignore"):  # values beyond float32 are reported as invalid samples
            sound = sound.astype(np.float32)
    if sound.dtype.name not in _SUBTYPES:
        raise UsageError(f"wanted floating-point, int16 or int32 samples; got {sound.dtype}")
    samples: NDArray[Any] = sound.astype(
        sound.dtype.newbyteorder("="), copy=False
    )  # libsndfile requires native byte order
    return samples


def _checked_rate(sample_rate: int | None) -> int:
    if sample_rate is None:
        raise UsageError("wanted sample_rate with samples, such as sample_rate=44100")
    if sample_rate != int(sample_rate) or not 1_000 <= sample_rate <= 768_000:
        raise UsageError(f"wanted a whole sample_rate of 1000 to 768000 Hz, got {sample_rate}")
    return int(sample_rate)
