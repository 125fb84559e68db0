from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from htsat_sed.errors import CheckpointError, UsageError
from htsat_sed.model import catalogue, download
from htsat_sed.model.catalogue import (
    CATALOGUE,
    Download,
    bundled_checkpoint,
    checkpoint_folder,
    find_download,
    pull,
    resolve_checkpoint,
)

CONTENT = bytes(range(256)) * 4000  # 1 024 000 bytes


@dataclass
class Host:
    """A web server on this machine, and how it behaves."""

    url: str = ""
    content: bytes = CONTENT
    content_type: str = "application/octet-stream"
    takes_ranges: bool = True
    states_length: bool = True
    cut_after: list[int] = field(default_factory=list)  # bytes sent of the first, second, ... answer
    statuses: list[int] = field(default_factory=list)  # of the first, second, ... answer instead of the file
    asked: list[str | None] = field(default_factory=list)  # the Range header of every request

    def entry(self, **changes: object) -> Download:
        entry = Download(
            name="thing",
            summary="a thing",
            file_name="thing.ckpt",
            url=self.url,
            page="https://example.org/thing",
            sha256=hashlib.sha256(CONTENT).hexdigest(),
            size=len(CONTENT),
            licence="none",
        )
        return replace(entry, **changes)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.asked.append(asked)
        if self.statuses:
            request.send_error(self.statuses.pop(0))
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.takes_ranges else 0
        if start and start >= len(self.content):
            request.send_error(416)
            return
        body = self.content[start:]
        request.send_response(206 if start else 200)
        request.send_header("Content-Type", self.content_type)
        if start:
            last = len(self.content) - 1
            request.send_header("Content-Range", f"bytes {start}-{last}/{len(self.content)}")
        if self.states_length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: self.cut_after.pop(0)] if self.cut_after else body)
        request.close_connection = True


@pytest.fixture
def host() -> Iterator[Host]:
    behaviour = Host()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            behaviour.answer(self)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None  # a client that hangs up early is what some tests want
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        behaviour.url = f"http://127.0.0.1:{server.server_address[1]}/thing.ckpt"
        yield behaviour
        server.shutdown()
        thread.join()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    monkeypatch.setenv("HTSAT_SED_HOME", str(folder))
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_download_arrives_whole_and_under_its_name(host: Host, home: Path):
    seen: list[tuple[int, int | None]] = []
    path = pull(host.entry(), progress=lambda there, wanted: seen.append((there, wanted)))
    assert path == home / "thing.ckpt"
    assert path.read_bytes() == CONTENT
    assert names(home) == ["thing.ckpt"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [there for there, _ in seen] == sorted(there for there, _ in seen)


def test_what_is_there_already_is_not_downloaded_again(host: Host, home: Path):
    pull(host.entry())
    pull(host.entry())
    assert len(host.asked) == 1


def test_a_spoilt_file_is_downloaded_again(host: Host, home: Path):
    home.mkdir()
    (home / "thing.ckpt").write_bytes(b"spoilt")
    assert pull(host.entry()).read_bytes() == CONTENT


def test_a_cut_connection_is_taken_up_where_it_broke(host: Host, home: Path):
    host.cut_after = [300_000, 400_000]
    path = pull(host.entry(), pause=0.0)
    assert path.read_bytes() == CONTENT
    assert host.asked == [None, "bytes=300000-", "bytes=700000-"]


def test_a_later_call_goes_on_with_what_an_earlier_one_left(host: Host, home: Path):
    host.cut_after = [300_000, 0]
    with pytest.raises(CheckpointError, match="the connection was lost; 300000 bytes are kept"):
        pull(host.entry(), attempts=2, pause=0.0)
    assert names(home) == ["thing.ckpt.part"]
    host.asked.clear()
    assert pull(host.entry()).read_bytes() == CONTENT
    assert host.asked == ["bytes=300000-"]


def test_a_host_that_knows_no_ranges_starts_over(host: Host, home: Path):
    host.takes_ranges = False
    host.cut_after = [300_000]
    path = pull(host.entry(), pause=0.0)
    assert path.read_bytes() == CONTENT
    assert host.asked == [None, "bytes=300000-"]


def test_a_file_of_unknown_size(host: Host, home: Path):
    host.states_length = False
    assert pull(host.entry(size=None)).read_bytes() == CONTENT


def test_a_finished_part_that_missed_its_name_is_not_downloaded_again(host: Host, home: Path):
    home.mkdir()
    (home / "thing.ckpt.part").write_bytes(CONTENT)
    assert pull(host.entry()).read_bytes() == CONTENT
    assert host.asked == []


def test_a_part_longer_than_the_file_is_thrown_away(host: Host, home: Path):
    home.mkdir()
    (home / "thing.ckpt.part").write_bytes(CONTENT + b"more")
    assert pull(host.entry(), pause=0.0).read_bytes() == CONTENT
    assert host.asked == ["bytes=1024004-", None]


def test_a_wrong_file_never_gets_the_name(host: Host, home: Path):
    host.content = CONTENT[:-1] + b"!"
    found = hashlib.sha256(host.content).hexdigest()
    with pytest.raises(CheckpointError, match=f"sent another file: its sha256 is {found}, wanted"):
        pull(host.entry())
    assert names(home) == []


def test_a_file_of_the_wrong_size_is_not_even_fetched(host: Host, home: Path):
    with pytest.raises(CheckpointError, match="offers a file of 1024000 bytes, wanted 99"):
        pull(host.entry(size=99))
    assert not (home / "thing.ckpt").exists()


def test_a_web_page_instead_of_the_file_says_what_to_do_by_hand(host: Host, home: Path):
    host.content, host.content_type = b"<html>Quota exceeded</html>", "text/html; charset=utf-8"
    with pytest.raises(CheckpointError) as caught:
        pull(host.entry())
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    assert str(caught.value) == (
        f"{home / 'thing.ckpt'}: {host.url} answers with a web page instead of the file (a quota or a "
        "confirmation). To download manually: save thing.ckpt from https://example.org/thing "
        f"(sha256 {sha256}), then run `htsat-sed checkpoints pull thing --file thing.ckpt`"
    )
    assert host.asked == [None]


@pytest.mark.parametrize(("status", "reason"), [(403, "Forbidden"), (404, "Not Found")])
def test_a_refusal_is_final(host: Host, home: Path, status: int, reason: str):
    host.statuses = [status]
    with pytest.raises(
        CheckpointError, match=f"answers {status} {reason}. To download manually: save thing.ckpt from"
    ):
        pull(host.entry())
    assert len(host.asked) == 1


def test_a_busy_host_is_asked_again(host: Host, home: Path):
    host.statuses = [503, 429]
    assert pull(host.entry(), pause=0.0).read_bytes() == CONTENT


def test_a_host_that_stays_busy(host: Host, home: Path):
    host.statuses = [503] * 3
    with pytest.raises(CheckpointError, match="cannot be downloaded: the host answers 503"):
        pull(host.entry(), attempts=3, pause=0.0)
    assert len(host.asked) == 3


def test_no_connection(home: Path, host: Host):
    with pytest.raises(CheckpointError, match=r"cannot be downloaded: .*Connection refused"):
        pull(host.entry(url="http://127.0.0.1:1/thing.ckpt"), attempts=2, pause=0.0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which answers 'disk full'")
def test_a_full_disk(host: Host, home: Path):
    home.mkdir()
    (home / "thing.ckpt.part").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match="cannot be downloaded: No space left on device"):
        pull(host.entry())
    assert not (home / "thing.ckpt").exists()


def test_a_folder_that_cannot_be_made(host: Host, home: Path):
    home.write_text("a file in its place")
    with pytest.raises(CheckpointError, match=r"cannot be downloaded: (File exists|Not a directory)"):
        pull(host.entry())


def test_a_file_fetched_by_hand_is_taken_over(host: Host, home: Path, tmp_path: Path):
    (tmp_path / "thing(1).ckpt").write_bytes(CONTENT)
    path = pull(host.entry(), file=tmp_path / "thing(1).ckpt")
    assert path == home / "thing.ckpt"
    assert path.read_bytes() == CONTENT
    assert names(home) == ["thing.ckpt"]
    assert host.asked == []


def test_a_file_fetched_by_hand_must_be_the_right_one(host: Host, home: Path, tmp_path: Path):
    (tmp_path / "page.html").write_bytes(b"<html>")
    with pytest.raises(
        CheckpointError, match=r"page.html: is another file: its sha256 is [0-9a-f]{64}, wanted"
    ):
        pull(host.entry(), file=tmp_path / "page.html")
    with pytest.raises(CheckpointError, match="none: cannot be read: No such file"):
        pull(host.entry(), file=tmp_path / "none")
    assert not home.exists()


def test_the_catalogue_is_well_formed():
    assert len({entry.name for entry in CATALOGUE}) == len({entry.file_name for entry in CATALOGUE}) == 2
    for entry in CATALOGUE:
        assert len(bytes.fromhex(entry.sha256)) == 32
        assert entry.url.startswith("https://")
        assert entry.page.startswith("https://")
        assert find_download(entry.name) is entry


def test_an_unknown_download():
    with pytest.raises(
        ValueError, match=r"no checkpoint 'audio-set' to download: .*did you mean 'audioset'\?"
    ):
        find_download("audio-set")


def test_where_downloads_lie(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("HTSAT_SED_HOME", "/models")
    assert checkpoint_folder() == Path("/models")
    monkeypatch.delenv("HTSAT_SED_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert checkpoint_folder() == Path("/cache/htsat-sed")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert checkpoint_folder() == Path("/home/someone/.cache/htsat-sed")
    monkeypatch.setattr("sys.platform", "darwin")
    assert checkpoint_folder() == Path("/home/someone/Library/Caches/htsat-sed")


def test_a_user_without_a_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def homeless(_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", classmethod(homeless))
    monkeypatch.setattr(Path, "expanduser", homeless)
    for place in ("", "~/models"):
        monkeypatch.setenv("HTSAT_SED_HOME", place)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.delenv("LOCALAPPDATA", raising=False)
        with pytest.raises(
            UsageError, match="no home folder: set HTSAT_SED_HOME to a folder for checkpoints"
        ):
            checkpoint_folder()


def test_a_checkpoint_is_a_file_or_a_name(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "mine.safetensors"
    file.touch()
    assert resolve_checkpoint(file) == file
    with pytest.raises(
        CheckpointError, match="audioset: not downloaded yet: run `htsat-sed checkpoints pull"
    ):
        resolve_checkpoint("audioset")
    home.mkdir()
    (home / "HTSAT_AudioSet_Saved_1.ckpt").touch()
    assert resolve_checkpoint("audioset") == home / "HTSAT_AudioSet_Saved_1.ckpt"
    monkeypatch.chdir(tmp_path)
    Path("audioset").touch()
    assert resolve_checkpoint("./audioset").samefile("audioset")
    with pytest.raises(CheckpointError, match=r"audioste: no such file, and no .*did you mean 'audioset'\?"):
        resolve_checkpoint("audioste")
    with pytest.raises(CheckpointError, match="names are home, audioset, audioset-pseldnets"):
        resolve_checkpoint("zzz.safetensors")


def test_the_bundled_checkpoint_is_found_in_the_package_and_in_a_source_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(catalogue, "__file__", str(tmp_path / "htsat_sed" / "model" / "catalogue.py"))
    assert bundled_checkpoint() is None
    with pytest.raises(CheckpointError, match="home: this installation has no bundled checkpoint: give one"):
        resolve_checkpoint()
    in_tree = tmp_path / "checkpoints" / "home.safetensors"
    in_tree.parent.mkdir()
    in_tree.touch()
    assert resolve_checkpoint() == resolve_checkpoint("home") == in_tree
    in_package = tmp_path / "htsat_sed" / "checkpoints" / "home.safetensors"
    in_package.parent.mkdir(parents=True)
    in_package.touch()
    assert resolve_checkpoint() == in_package


@pytest.fixture(params=["here", "as on Windows"])
def locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How processes keep out each other."""
    if request.param == "here":
        return
    fcntl = pytest.importorskip("fcntl")

    def locking(descriptor: int, mode: int, length: int) -> None:
        assert (mode, length) == (2, 1)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    monkeypatch.setattr(download, "sys", SimpleNamespace(platform="win32"))


@pytest.mark.usefixtures("locks")
def test_two_at_once_download_once(host: Host, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    inside = threading.Event()
    found: list[Path] = []

    def second() -> None:
        found.append(pull(host.entry()))

    other = threading.Thread(target=second)

    def slow(there: int, wanted: int | None) -> None:
        if not inside.is_set():
            inside.set()
            other.start()
            while not caplog.messages:  # until the other waits
                other.join(0.01)

    found.append(pull(host.entry(), progress=slow))
    other.join()
    assert found == [home / "thing.ckpt"] * 2
    assert (home / "thing.ckpt").read_bytes() == CONTENT
    assert names(home) == ["thing.ckpt"]
    assert host.asked == [None]
    assert caplog.messages == [f"{home / 'thing.ckpt'}: another process is downloading it; waiting"]
