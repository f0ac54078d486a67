"""A machine without data, and a mirror on it."""

from __future__ import annotations

import dataclasses
import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import small_colours
from small_data import CONTENTS, sha256, small_files

from fsp_dynamics.datasets import registry as sources
from fsp_dynamics.datasets.idx_sets import File, IdxSet
from fsp_dynamics.datasets.registry import SOURCES


@pytest.fixture(autouse=True)
def world(tmp_path, monkeypatch) -> Path:
    """A machine without data: mnist and fashion-mnist of 12 + 5 images, cifar10, cifar100 and svhn
    of 20 + 20, an empty cache, no system folder, no mirror.
    """
    files = tuple(File(name, array.shape, sha256(CONTENTS[name])) for name, array in small_files().items())
    for name, source in SOURCES.items():
        if isinstance(source, IdxSet):
            system = (str(tmp_path / "system"),) if name == "fashion-mnist" else ()
            monkeypatch.setitem(SOURCES, name, dataclasses.replace(source, files=files, system=system, mirrors=()))
    for name, source in small_colours.sources().items():
        monkeypatch.setitem(SOURCES, name, source)
    monkeypatch.setattr(sources, "_cache", lambda: tmp_path / "cache")
    monkeypatch.delenv("FSP_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


@pytest.fixture
def mirror(monkeypatch):
    """A server whose answers and requests a test may change and read: answers[path] = bytes or an
    HTTP status.
    """
    answers: dict[str, bytes | int] = {f"/good/{name}.gz": gzip.compress(content) for name, content in CONTENTS.items()}
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            answer = answers.get(self.path, 404)
            self.send_response(answer if isinstance(answer, int) else 200)
            self.end_headers()
            if isinstance(answer, bytes):
                self.wfile.write(answer)

        def log_message(self, *args) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"

    def use(*mirrors: str) -> None:
        monkeypatch.setitem(
            SOURCES, "mnist", dataclasses.replace(SOURCES["mnist"], mirrors=tuple(f"{url}/{m}/" for m in mirrors))
        )

    use("good")
    yield answers, asked, use
    server.shutdown()
    server.server_close()
