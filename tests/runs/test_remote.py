"""Recordings on a web server that cuts connections and is busy, and in an S3 store: the same bytes as from a folder."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import pytest
from planted import BATCH, RATE, Run, failures, plant
from s3_made import Bucket

from htsat_sed import remote
from htsat_sed.audio import read
from htsat_sed.errors import AudioError
from htsat_sed.runs.journal import stamp

pytest.importorskip("fsspec", reason="the extra remote is not installed")
pytest.importorskip("aiohttp", reason="the extra remote is not installed")


@dataclass
class Server:
    """A web server on this machine, and how it behaves."""

    folder: Path
    url: str = ""
    takes_ranges: bool = True
    busy: int = 0  # requests that are answered 503 first
    cut: int = 0  # requests whose answer breaks off in the middle
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    behaviour = Server(tmp_path / "served")
    behaviour.folder.mkdir()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            behaviour.asked.append(f"{self.command} {self.path}")
            file = behaviour.folder / unquote(urlsplit(self.path).path).lstrip("/")
            if behaviour.busy:
                behaviour.busy -= 1
                return self._empty(503)
            if not file.is_file():
                return self._empty(404)
            data, status = file.read_bytes(), 200
            size = len(data)
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if asked and behaviour.takes_ranges:
                first, last = int(asked[1]), min(int(asked[2] or size - 1), size - 1)
                data, status = data[first : last + 1], 206
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.send_header("Accept-Ranges", "bytes" if behaviour.takes_ranges else "none")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hash(file.read_bytes()):x}"')
            self.end_headers()
            if with_body and behaviour.cut:
                behaviour.cut -= 1
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return None
            if with_body:
                self.wfile.write(data)
            return None

        def _empty(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        http.handle_error = lambda *_: None  # type: ignore[method-assign]
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        behaviour.url = f"http://127.0.0.1:{http.server_address[1]}"
        yield behaviour
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PAUSE", 0.01)
    monkeypatch.setattr(remote, "_BLOCK", 10_000)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(("busy", "cut"), [(0, 0), (3, 0), (0, 3)])
def test_a_recording_on_a_web_server(server: Server, ranges: bool, busy: int, cut: int) -> None:
    plant(server.folder, ["a b ☂.wav"])
    whole = read(server.folder / "a b ☂.wav", RATE)
    server.takes_ranges, server.busy, server.cut = ranges, busy, cut
    np.testing.assert_array_equal(read(f"{server.url}/{quote('a b ☂.wav')}?key=1", RATE), whole)
    assert (server.busy, server.cut) == (0, 0)


def test_what_a_web_server_does_not_give_is_one_line_without_the_key(server: Server, tmp_path: Path) -> None:
    with pytest.raises(AudioError) as error:
        read(f"{server.url}/nothing.wav?key=secret", RATE)
    assert str(error.value) == f"{server.url}/nothing.wav: cannot be read: no such file or folder"
    assert len(server.asked) <= 3  # HEAD and GET, and no further attempts
    server.busy = 1000
    with pytest.raises(AudioError) as error:
        read(f"{server.url}/nothing.wav?key=secret", RATE)
    assert "secret" not in str(error.value)
    assert "503" in str(error.value)
    assert not list(tmp_path.glob("htsat-sed-*"))


def test_a_server_that_cannot_be_reached_is_no_missing_file() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        with pytest.raises(AudioError, match="Cannot connect to host"):
            read(f"http://127.0.0.1:{taken.getsockname()[1]}/a.wav", RATE)


def test_a_changed_remote_recording_has_another_stamp(server: Server) -> None:
    plant(server.folder, ["a.wav"])
    first = stamp(f"{server.url}/a.wav")
    assert first is not None
    assert first.size == (server.folder / "a.wav").stat().st_size
    assert stamp(f"{server.url}/a.wav") == first
    data = (server.folder / "a.wav").read_bytes()
    (server.folder / "a.wav").write_bytes(data[:-1] + b"\1")
    assert stamp(f"{server.url}/a.wav") not in (None, first)
    assert stamp(f"{server.url}/gone.wav") is None


def test_addresses_and_names() -> None:
    assert remote.is_remote("s3://archive/a.wav")
    assert not any(
        map(remote.is_remote, ["a.wav", "file:///etc/passwd", "C://a.wav", "zip://x::s3://y", "-"])
    )
    assert remote.name_of("https://host/a%20b.wav?x=/y.wav") == "a b.wav"
    assert remote.name_of("s3://archive/day 1/a%20?.wav") == "a%20?.wav"
    assert remote.shown("https://me:word@host/a.wav?key=1#x") == "https://host/a.wav"


def test_a_list_of_addresses_gives_what_the_folder_gives(
    run: Run, checkpoint: Path, server: Server, tmp_path: Path
) -> None:
    plant(server.folder, ["0.wav"])
    plant(server.folder, ["1.wav", "2.wav"], silent=True)
    (server.folder / "empty.wav").write_bytes(b"")
    command = ("detect", *BATCH, "-c", checkpoint)
    assert run(*command, server.folder, "-o", tmp_path / "local.csv")[0] == 1
    server.cut = server.busy = 2
    names = ["0.wav", "1.wav", "2.wav", "empty.wav"]
    (tmp_path / "list.txt").write_text("".join(f"{server.url}/{name}\n" for name in names))
    assert run(*command, f"@{tmp_path / 'list.txt'}", "-o", tmp_path / "remote.csv")[0] == 1
    assert (tmp_path / "remote.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()
    (reason,) = failures(tmp_path / "local.csv.failures.csv").values()
    listed = {f"{server.url}/empty.wav": reason}  # by the whole address: many may have one name
    assert failures(tmp_path / "remote.csv.failures.csv") == listed
    shard = ("--shard", "1/1", "-o", tmp_path / "shard.csv")
    assert run(*command, f"@{tmp_path / 'list.txt'}", *shard)[0] == 1
    assert run("merge", tmp_path / "shard.csv", "-o", tmp_path / "merged.csv")[0] == 0
    assert failures(tmp_path / "merged.csv.failures.csv") == listed
    server.asked.clear()
    code, _, err = run(*command, f"@{tmp_path / 'list.txt'}", "-o", tmp_path / "remote.csv")
    assert (code, "note: 3 of 4 recordings are done already" in err) == (1, True)
    assert not [each for each in server.asked if each.startswith("GET") and "empty" not in each]


def test_a_folder_in_s3_gives_what_the_same_folder_gives(
    run: Run, checkpoint: Path, bucket: Bucket, tmp_path: Path
) -> None:
    import s3fs

    folder = tmp_path / "recordings"
    plant(folder, ["0.wav", "day 1/é ☂.wav"])
    plant(folder, ["2.wav", "3.wav"], silent=True)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "notes.txt").write_text("no recording")
    s3fs.S3FileSystem().put(str(folder), f"{bucket.name}/2024", recursive=True)
    command = ("detect", *BATCH, "-c", checkpoint)
    assert run(*command, folder, "-o", tmp_path / "local.csv")[0] == 1
    for given in (f"s3://{bucket.name}/2024", f"s3://{bucket.name}/2024/", f"s3://{bucket.name}/2024/**"):
        assert run(*command, given, "-o", tmp_path / "s3.csv", "--overwrite")[0] == 1
        assert (tmp_path / "s3.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()
        assert failures(tmp_path / "s3.csv.failures.csv") == failures(tmp_path / "local.csv.failures.csv")
    code, _, err = run(*command, f"s3://{bucket.name}/nothing", "-o", tmp_path / "none.csv")
    assert (code, err.startswith(f"error: s3://{bucket.name}/nothing: ")) == (1, True)
    code, out, _ = run(*command, f"s3://{bucket.name}/2024/0.wav")
    assert (code, out.splitlines()[0][:8]) == (0, "filename")
