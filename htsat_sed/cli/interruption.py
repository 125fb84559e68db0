"""Ctrl-C, SIGTERM and SIGHUP: a command ends within two seconds and prints how to resume."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn, Self

from rich.control import Control
from rich.segment import ControlType

from htsat_sed.cli.terminal import errors, say

_PATIENCE = 1.5  # seconds in which a command can put its affairs in order
# Closing a terminal or a connection sends SIGHUP; Windows has none.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interruptible:
    """A block that Ctrl-C, SIGTERM and SIGHUP end with exit code 130 and one line.

    The first signal raises KeyboardInterrupt in the main thread, or ends the process at once while there is
    nothing to put in order. What does not end in time (a long computation in a library, threads that are
    waited for) is ended with the whole process: whatever is written in the block must be safe against that.

    Attributes:
        left: called for the line, such as "12 of 30 recordings are done"; None while nothing was done yet.
    """

    def __init__(self) -> None:
        self.left: Callable[[], str] | None = None
        self._before: dict[signal.Signals, object] = {}
        self._through = threading.Event()

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self  # signals are the main thread's
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for each in _SIGNALS:
            if signal.getsignal(each) is not signal.SIG_IGN:  # nohup and the like are obeyed
                self._before[each] = signal.signal(each, self._interrupt)
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._before:
            self._through.set()
            signal.set_wakeup_fd(self._wakeup)
            for each, handler in self._before.items():
                signal.signal(each, handler)  # type: ignore[arg-type]
            os.close(self._writer)
        if kind is KeyboardInterrupt:
            self._end()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        for each in self._before:
            signal.signal(each, signal.SIG_IGN)  # impatience must not disturb the putting in order
        if self.left is None:
            self._end()  # an exception amid the import of torch would abort the process
        raise KeyboardInterrupt

    def _watch(self) -> None:
        # The main thread may be busy for longer than anybody waits; this one hears of the signal at once.
        with os.fdopen(self._reader, "rb", buffering=0) as heard:
            while number := heard.read(1):
                if number[0] in self._before and not self._through.wait(_PATIENCE):
                    self._end()

    def _end(self) -> NoReturn:
        with suppress(OSError):  # after SIGHUP the terminal may be closed
            errors.show_cursor()
            if errors.is_terminal:
                errors.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))
            say("stopped", "nothing was done yet" if self.left is None else self.left(), "bold yellow")
            sys.stderr.flush()
        os._exit(130)  # an orderly exit unloads torch and OpenVINO, which can take seconds
