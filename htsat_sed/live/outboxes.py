"""Delivery of reports to commands, webhooks and MQTT brokers, with retries and a bounded queue."""

from __future__ import annotations

import logging
import shlex
import subprocess
import threading
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections import deque
from urllib.parse import unquote, urlsplit

from htsat_sed.errors import UsageError
from htsat_sed.libraries import load

_MOST_WAITING = 1000  # queued reports
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0  # seconds between two attempts
_TIMEOUT = 10.0  # seconds to wait for an answer
_COMMAND_TIMEOUT = 60.0  # seconds after which a command is ended
_AGAIN = (408, 425, 429)  # status codes below 500 after which a retry may help

_logger = logging.getLogger("htsat_sed")


class Failed(Exception):
    """A report could not be delivered; `again`: whether a retry may help."""

    def __init__(self, reason: str, *, again: bool = True) -> None:
        super().__init__(reason)
        self.again = again


class Outbox(ABC):
    """Delivers reports in order, in its own thread.

    A failed delivery is retried after 1, 2, 4, ... and at most 60 s. At most 1000 reports are queued; beyond
    that the oldest are dropped and counted.

    Args:
        name: its name in messages.

    Attributes:
        lost: number of dropped reports.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lost = 0
        self._waiting: deque[str] = deque()
        self._busy = self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="outbox", daemon=True)
        self._thread.start()

    @abstractmethod
    def deliver(self, report: str) -> None:
        """Deliver a report, one JSON object.

        Raises:
            Failed: it was not delivered.
        """

    def put(self, report: str) -> None:
        """Queue a report; never waits."""
        with self._changed:
            self._waiting.append(report)
            if len(self._waiting) > _MOST_WAITING:
                self._waiting.popleft()
                self._drop(1)
            self._changed.notify_all()

    def close(self, seconds: float) -> None:
        """Deliver queued reports for at most `seconds`, then drop the rest."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._busy, seconds)
            self._closed = True
            left = len(self._waiting) + self._busy
            self._waiting.clear()
            self._changed.notify_all()
        if left:
            self.lost += left
            _logger.warning("%s: %d reports were not delivered", self.name, left)

    def _drop(self, count: int) -> None:
        self.lost += count
        if self.lost & (self.lost - 1) == 0:  # 1, 2, 4, 8, ...
            _logger.warning("%s: %d reports dropped so far", self.name, self.lost)

    def _work(self) -> None:
        wait = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                report, self._busy = self._waiting.popleft(), True
            failed: Failed | None = None
            try:
                self.deliver(report)
            except Failed as error:
                failed = error
            with self._changed:
                self._busy = False
                if failed is not None and failed.again and not self._closed:
                    self._waiting.appendleft(report)
                self._changed.notify_all()
                wait = self._after(failed, wait)
                if wait:
                    self._changed.wait_for(lambda: self._closed, wait)

    def _after(self, failed: Failed | None, wait: float) -> float:
        """Seconds to wait before the next attempt; logs failure and recovery."""
        if failed is None:
            if wait:
                _logger.warning("%s: delivering again", self.name)
            return 0.0
        if not failed.again:
            _logger.warning("%s: %s", self.name, failed)
            self._drop(1)
            return 0.0
        if not wait:
            _logger.warning("%s: %s; trying again", self.name, failed)
        return min(_LONGEST_WAIT, max(_FIRST_WAIT, 2 * wait))


class Command(Outbox):
    """Runs a command with each report on its standard input; failures are not retried.

    Args:
        command: command with arguments, split as a shell would; no shell is involved.

    Raises:
        UsageError: it cannot be split.
    """

    def __init__(self, command: str) -> None:
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"--exec: {error}: {command!r}") from error
        if not self._command:
            raise UsageError("--exec: the command is empty")
        super().__init__(f"--exec {self._command[0]}")

    def deliver(self, report: str) -> None:
        """See `Outbox`."""
        try:
            done = subprocess.run(
                self._command,
                input=report.encode(),
                stdout=subprocess.DEVNULL,
                timeout=_COMMAND_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"stopped after {_COMMAND_TIMEOUT:g} s", again=False) from None
        except OSError as error:
            raise Failed(f"cannot be run: {error.strerror}", again=False) from error
        if done.returncode:
            raise Failed(f"exit code {done.returncode}", again=False)


class Webhook(Outbox):
    """Posts each report to an address.

    Args:
        address: http or https URL.

    Raises:
        UsageError: the address is invalid.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"--webhook: wanted a URL such as https://host/path, got {address!r}")
        self._address = address
        super().__init__(f"webhook {parts.hostname}")

    def deliver(self, report: str) -> None:
        """See `Outbox`."""
        request = urllib.request.Request(
            self._address, report.encode(), {"Content-Type": "application/json"}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                answer.read(1 << 16)
        except urllib.error.HTTPError as error:
            with error:
                again = error.code >= 500 or error.code in _AGAIN
                raise Failed(f"answered {error.code} {error.reason}", again=again) from error
        except (OSError, ValueError) as error:
            raise Failed(str(getattr(error, "reason", error))) from error


class Mqtt(Outbox):
    """Publishes each report under a topic, with quality of service 1.

    Args:
        address: ``[mqtt[s]://][USER[:PASSWORD]@]HOST[:PORT]/TOPIC``.

    Raises:
        UsageError: the address is invalid, or paho-mqtt is not installed.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address if "://" in address else f"mqtt://{address}")
        topic = unquote(parts.path[1:])
        if (
            parts.scheme not in ("mqtt", "mqtts")
            or not parts.hostname
            or not topic
            or set(address) & set("+#?")
        ):
            raise UsageError(
                f"--mqtt: wanted HOST/TOPIC or mqtts://USER:PASSWORD@HOST/TOPIC, got {address!r}"
            )
        library = load("paho.mqtt.client", purpose="--mqtt", extra="live")
        self._client = library.Client(library.CallbackAPIVersion.VERSION2)
        self._topic = topic
        if parts.username:
            self._client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        secure = parts.scheme == "mqtts"
        if secure:
            self._client.tls_set()
        self._host, self._port = parts.hostname, parts.port or (8883 if secure else 1883)
        self._connected = False
        super().__init__(f"MQTT broker {parts.hostname}")

    def deliver(self, report: str) -> None:
        """See `Outbox`."""
        until = time.monotonic() + _TIMEOUT
        try:
            if not self._connected:
                self._client.connect(self._host, self._port)
                self._client.loop_start()
                self._connected = True
            while not self._client.is_connected():
                if time.monotonic() > until:
                    raise Failed("does not answer")
                time.sleep(0.05)
            sent = self._client.publish(self._topic, report, qos=1)
            sent.wait_for_publish(max(0.1, until - time.monotonic()))
            if not sent.is_published():
                raise Failed("does not answer")
        except (OSError, ValueError, RuntimeError) as error:
            raise Failed(f"cannot be reached: {error}") from error
