"""Checkpoints from a hub: a local HTTP server stands for it."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tiny import tiny_model

from htsat_sed.errors import UsageError
from htsat_sed.model.checkpoint import save_checkpoint
from htsat_sed.model.hub import hub_checkpoint

CLIENT = "import sys; from htsat_sed import load_checkpoint; print(load_checkpoint(sys.argv[1]).labels[0])"


@contextmanager
def served(files: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """A hub with one repository, and the requests that it got."""
    requests: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            requests.append(f"{self.command} {self.path}")
            content = files.get(self.path)
            self.send_response(200 if content is not None else 404)
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound" if "/our/" in self.path else "RepoNotFound")
            self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
            self.send_header("X-Repo-Commit", "c" * 40)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(files.get(self.path, b""))

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_checkpoint_comes_from_the_hub_once(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    model = tiny_model()
    save_checkpoint(tmp_path / "model.safetensors", model)
    environment = os.environ | {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1"}

    def loaded(address: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, address], env=environment, capture_output=True, text=True
        )
        return done.returncode, done.stdout.strip(), done.stderr.strip().rpartition("\n")[2]

    content = {"/our/dogs/resolve/main/model.safetensors": (tmp_path / "model.safetensors").read_bytes()}
    with served(content) as (endpoint, requests):
        environment["HF_ENDPOINT"] = endpoint
        code, label, message = loaded("hf://our/dogs")
        assert (code, label) == (0, model.labels[0])
        assert message == "downloading the checkpoint hf://our/dogs"
        assert sum(request.startswith("GET") for request in requests) == 1
        code, _, message = loaded("hf://our/dogs/other.safetensors")
        assert code == 1
        assert "hf://our/dogs/other.safetensors: has no file other.safetensors" in message
        assert "no such repository" in loaded("hf://their/cats")[2]
    assert loaded("hf://our/dogs") == (0, model.labels[0], "")  # the hub is gone
    code, _, message = loaded("hf://our/dogs@v2")
    assert code == 1
    assert "hf://our/dogs@v2: cannot be " in message


@pytest.mark.parametrize("address", ["hf://", "hf://owner", "hf:///name", "hf://owner/"])
def test_an_address_without_a_repository(address: str) -> None:
    with pytest.raises(UsageError, match="hf://owner/name"):
        hub_checkpoint(address)
