"""Reports to commands, webhooks and brokers: retries, bounds, and an end."""

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from htsat_sed.errors import UsageError
from htsat_sed.live import outboxes
from htsat_sed.live.outboxes import Command, Failed, Mqtt, Outbox, Webhook


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outboxes, "_FIRST_WAIT", 0.01)


@contextmanager
def server(answers: list[int]) -> Iterator[tuple[str, list[str]]]:
    """A server that gives these answers and then 200; its address, and the bodies that it got."""
    bodies: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            assert self.headers["Content-Type"] == "application/json"
            self.send_response(answers.pop(0) if answers else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}/events", bodies
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def test_a_webhook_is_tried_again_until_it_answers() -> None:
    with server([500, 503, 429]) as (address, bodies):
        webhook = Webhook(address)
        webhook.put("one")
        webhook.put("two")
        webhook.close(30)
    assert bodies == ["one"] * 4 + ["two"]
    assert webhook.lost == 0


def test_a_webhook_that_refuses_is_not_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    with server([404]) as (address, bodies):
        webhook = Webhook(address)
        webhook.put("one")
        webhook.put("two")
        webhook.close(30)
    assert bodies == ["one", "two"]
    assert webhook.lost == 1
    assert "answered 404" in caplog.text


def test_a_dead_webhook_holds_up_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outboxes, "_MOST_WAITING", 10)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    webhook = Webhook(f"http://127.0.0.1:{port}/")
    for number in range(100):
        webhook.put(str(number))
    webhook.close(0.2)
    assert webhook.lost == 100
    assert "Connection refused" in caplog.text
    assert "reports were not delivered" in caplog.text


def test_the_oldest_reports_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outboxes, "_MOST_WAITING", 3)
    begun, go, taken = threading.Event(), threading.Event(), []

    class Slow(Outbox):
        def deliver(self, report: str) -> None:
            begun.set()
            assert go.wait(30)
            taken.append(report)

    slow = Slow("slow")
    slow.put("0")
    assert begun.wait(30)
    for number in range(1, 8):
        slow.put(str(number))
    go.set()
    slow.close(30)
    assert (taken, slow.lost) == (["0", "5", "6", "7"], 4)


def test_a_command_gets_the_report_on_its_standard_input(tmp_path: Path) -> None:
    script = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.stdin.read())"
    command = Command(f"{sys.executable} -c '{script}' '{tmp_path}/a b'")
    command.put('{"label": "Dog; rm -rf"}')
    command.close(60)
    assert json.loads((tmp_path / "a b").read_text()) == {"label": "Dog; rm -rf"}
    assert command.lost == 0


@pytest.mark.parametrize(
    ("line", "reason"), [("false", "exit code 1"), ("/no/such/command", "cannot be run")]
)
def test_a_command_that_fails_is_reported(line: str, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    command = Command(line)
    command.put("x")
    command.close(60)
    assert reason in caplog.text
    assert command.lost == 1


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Command, ""), (Command, "a 'b"), (Webhook, "host/path"), (Webhook, "ftp://host"),
        (Mqtt, "host"), (Mqtt, "host/"), (Mqtt, "http://host/topic"), (Mqtt, "host/a/#"),
    ],
)  # fmt: skip
def test_impossible_places_are_refused(kind: type[Outbox], wrong: str) -> None:
    with pytest.raises(UsageError):
        kind(wrong)


def test_mqtt_at_a_broker_that_comes_later(tmp_path: Path) -> None:
    mosquitto = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if mosquitto is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    client = pytest.importorskip("paho.mqtt.client")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    (tmp_path / "conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    outbox = Mqtt(f"127.0.0.1:{port}/house/sounds")
    outbox.put("before")
    with subprocess.Popen([mosquitto, "-c", str(tmp_path / "conf")], stderr=subprocess.DEVNULL) as broker:
        try:
            got: list[tuple[str, bytes]] = []
            both = threading.Event()
            reader = client.Client(client.CallbackAPIVersion.VERSION2)
            subscribed = threading.Event()
            reader.on_subscribe = lambda *_: subscribed.set()
            reader.on_message = lambda _, __, message: (
                got.append((message.topic, message.payload)),
                both.set() if message.payload == b"after" else None,
            )
            for _ in range(300):
                try:
                    reader.connect("127.0.0.1", port)
                    break
                except OSError:
                    time.sleep(0.05)
            reader.loop_start()
            reader.subscribe("house/#", qos=1)
            assert subscribed.wait(30)
            outbox.put("after")
            assert both.wait(30)
            outbox.close(30)
            reader.loop_stop()
            reader.disconnect()
        finally:
            broker.terminate()
    assert ("house/sounds", b"after") in got
    assert outbox.lost == 0


def test_failed_says_whether_to_try_again() -> None:
    assert Failed("busy").again
    assert not Failed("gone", again=False).again
