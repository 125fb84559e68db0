"""Microphone input by PortAudio."""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from htsat_sed.audio.source import Source
from htsat_sed.errors import AudioError
from htsat_sed.libraries import load

_SILENT = 10.0  # seconds without a block after which a device counts as unplugged
_MOST_WAITING = 600  # blocks of 0.1 s
_BLOCK = 0.1  # seconds

_logger = logging.getLogger("htsat_sed")


class Input(NamedTuple):
    """An input of this machine.

    Attributes:
        number: PortAudio's number of the device.
        name: name of the device.
        channels: maximum number of channels.
        rate: default sample rate, Hz.
    """

    number: int
    name: str
    channels: int
    rate: int


def inputs() -> list[Input]:
    """The inputs that PortAudio finds.

    Raises:
        UsageError: sounddevice is not installed.
        LibraryError: it cannot be loaded because PortAudio is missing.
    """
    devices = _sounddevice().query_devices()
    return [
        Input(number, each["name"], each["max_input_channels"], int(each["default_samplerate"]))
        for number, each in enumerate(devices)
        if each["max_input_channels"]
    ]


class Microphone(Source):
    """Samples of an input.

    Args:
        device: its number or part of its name; None for the default input.
        stack: closes the stream.
        channels: number of channels to record.

    Raises:
        AudioError: there is no such input, or it cannot be opened.
        UsageError: see `inputs`.
    """

    def __init__(self, device: int | str | None, stack: ExitStack, *, channels: int = 1) -> None:
        library = _sounddevice()
        self._name = "microphone" if device is None else f"input {device}"
        self._blocks: queue.Queue[NDArray[np.float32]] = queue.Queue(_MOST_WAITING)
        self._lost = self._warned = 0
        try:
            found = library.query_devices(device, "input")
            rate = int(found["default_samplerate"])
            super().__init__(rate, channels, "PCM_16")
            self._stream = library.InputStream(
                samplerate=rate,
                blocksize=round(_BLOCK * rate),
                device=device,
                channels=channels,
                dtype="float32",
                callback=self._take,
            )
            stack.enter_context(self._stream)
        except (library.PortAudioError, ValueError) as error:
            mend = "`htsat-sed listen --list-inputs` lists the inputs"
            raise AudioError(self._name, f"cannot be opened: {error}; {mend}") from error

    def _take(self, samples: NDArray[np.float32], frames: int, time: Any, status: Any) -> None:
        """Queue a block; called by PortAudio in its own thread."""
        self._lost += bool(status.input_overflow)
        try:
            self._blocks.put_nowait(samples.T.copy())
        except queue.Full:
            self._lost += 1

    def samples(self) -> Iterator[NDArray[np.float32]]:
        """See `Source`; never ends without an AudioError."""
        while True:
            try:
                block = self._blocks.get(timeout=_SILENT)
            except queue.Empty:
                raise AudioError(
                    self._name, f"has delivered no sound for {_SILENT:g} s; check that it is plugged in"
                ) from None
            if self._lost > self._warned:
                _logger.warning("%s: samples were lost, %d times so far", self._name, self._lost)
                self._warned = 2 * self._lost
            yield block


def _sounddevice() -> Any:
    return load("sounddevice", purpose="listening to a microphone", extra="live")
