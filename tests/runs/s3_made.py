"""An S3 server on this machine, which can be busy and cut connections."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass
class Bucket:
    """A bucket, and how its server behaves.

    Attributes:
        name: of the bucket.
        busy: requests that are answered 503 first.
        cut: requests whose connection is closed without an answer, after those.
        concerned: whether a request, such as ``PUT /archive/a.csv``, is one of them.
        asked: all requests.
    """

    name: str
    busy: int = 0
    cut: int = 0
    concerned: Callable[[str], bool] = lambda request: True
    asked: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"s3://{self.name}"

    def files(self, folder: str) -> dict[str, bytes]:
        """Path below a folder of the bucket -> content."""
        import s3fs

        system = s3fs.S3FileSystem()
        system.invalidate_cache()
        base = f"{self.name}/{folder}".rstrip("/") + "/"
        return {path.removeprefix(base): system.cat_file(path) for path in system.find(base)}


@contextmanager
def s3_server() -> Iterator[Bucket]:
    """A bucket in a server on this machine, which the environment names as the endpoint."""
    server_module = pytest.importorskip("moto.server", reason="moto is not installed")
    s3fs = pytest.importorskip("s3fs", reason="the extra remote is not installed")
    from werkzeug.serving import make_server

    bucket = Bucket("archive")
    moto = server_module.DomainDispatcherApplication(server_module.create_backend_app)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        bucket.asked.append(request)
        if bucket.concerned(request) and bucket.busy:
            bucket.busy -= 1
            start_response("503 Slow Down", [("Content-Length", "0")])
            return []
        if bucket.concerned(request) and bucket.cut:
            bucket.cut -= 1
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        return moto(environ, start_response)

    with pytest.MonkeyPatch.context() as patch:
        http = make_server("127.0.0.1", 0, answer, threaded=True)
        http.handle_error = lambda *_: None  # type: ignore[method-assign]
        http.RequestHandlerClass.log = lambda *_: None  # type: ignore[method-assign]
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{http.server_port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir(bucket.name)
        yield bucket
        s3fs.S3FileSystem.clear_instance_cache()
        http.shutdown()
        thread.join()
        http.server_close()
