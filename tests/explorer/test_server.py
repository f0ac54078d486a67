"""The explorer as a page of its own: who reaches it, what it answers, and `fsp explore`."""

from __future__ import annotations

import http.client
import json
import queue
import struct
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from fsp_dynamics import loopback
from fsp_dynamics.cli import main
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.explorer.model import Model
from fsp_dynamics.explorer.server import PageServer
from fsp_dynamics.explorer.session import RANDOM, TRAINED
from fsp_dynamics.explorer.sources import script, style
from fsp_dynamics.loopback import LONGEST


@pytest.fixture
def page(model: Model) -> Iterator[PageServer]:
    with PageServer(model) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.05,))
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def ask(page: PageServer, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str, bytes]:
    """(status, content type, content)."""
    connection = http.client.HTTPConnection(*page.server_address[:2], timeout=60)
    connection.request("GET" if body is None else "POST", path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.headers["Content-Type"], answer.read()


def test_the_page_is_whole(page: PageServer) -> None:
    """All that it refers to is there, and it refers to nothing else."""
    root = f"/{page.secret}/"
    assert page.address.endswith(root)
    status, kind, content = ask(page, root)
    assert (status, kind) == (200, "text/html; charset=utf-8")
    for name, expected in {"explorer.css": style(), "explorer.js": script(), "page.js": None}.items():
        assert name.encode() in content + ask(page, f"{root}page.js")[2]
        status, _, found = ask(page, root + name)
        assert status == 200
        assert expected is None or found.decode() == expected
    assert b"//" not in content
    state = json.loads(ask(page, f"{root}model.json")[2])
    assert state == json.loads(
        json.dumps({"controls": page.model.controls, "about": page.model.about, "parameters": page.model.defaults})
    )


def test_a_message_is_answered_with_a_frame(page: PageServer) -> None:
    message = json.dumps({"kind": "frame", "id": 3, "parameters": {"sample": 4}}).encode()
    status, _, reply = ask(page, f"/{page.secret}/message", message)
    assert status == 200
    (size,) = struct.unpack_from("<I", reply)
    content, floats = json.loads(reply[4 : 4 + size]), np.frombuffer(reply, np.float32, offset=4 + size)
    assert (content["kind"], content["id"]) == ("frame", 3)
    frame = page.model.frame({"sample": 4})
    for name, shape, offset in content["layout"]:
        np.testing.assert_array_equal(floats[offset : offset + int(np.prod(shape))].reshape(shape), frame[name])


@pytest.mark.parametrize("path", ["/", "/model.json", "/wrong/", "/wrong/model.json", "/{secret}", "/{secret}/nothing"])
def test_without_the_secret_there_is_nothing(page: PageServer, path: str) -> None:
    status, _, content = ask(page, path.format(secret=page.secret))
    assert status == 404
    assert page.secret.encode() not in content


def test_a_message_without_the_secret_is_not_answered(page: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PageServer, "reply", lambda *_: pytest.fail("the model was asked"))
    for path in ("/message", "/wrong/message", f"/{page.secret}/other"):
        assert ask(page, path, b"{}")[0] == 404
    assert ask(page, f"/{page.secret}/message", b"{}", **{"Content-Length": str(LONGEST + 1)})[0] == 404


@pytest.mark.parametrize("body", [b"", b"{", b"3", b"\xff"])
def test_what_is_no_message_is_refused(page: PageServer, body: bytes) -> None:
    status, _, content = ask(page, f"/{page.secret}/message", body)
    assert (status, content) == (400, b"Expected a JSON object.\n")


def test_it_is_on_this_machine_alone(page: PageServer) -> None:
    assert page.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("port", [-1, 70_000])
def test_an_impossible_port_is_refused(model: Model, port: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"port = {port} cannot be used: .*; choose another"):
        PageServer(model, port)


def test_a_port_in_use_is_refused(page: PageServer, model: Model) -> None:
    port = page.server_address[1]
    with pytest.raises(ConfigurationError, match=f"port = {port} cannot be used: Address already in use"):
        PageServer(model, port)
    with PageServer(model) as other:
        assert other.server_address[1] not in (port, 0)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list:
    """(model, port) of every page that `fsp explore` serves; each ends with Ctrl-C."""
    calls: list = []

    def interrupted(self: PageServer) -> None:
        calls.append((self.model, self.server_address[1]))
        raise KeyboardInterrupt

    monkeypatch.setattr(PageServer, "serve_forever", interrupted)
    monkeypatch.setattr(loopback.webbrowser, "open", lambda _: pytest.fail("a browser was opened"))
    return calls


def test_explore_opens_the_page_and_ends_with_ctrl_c(
    shown: list, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr(loopback.webbrowser, "open", opened.put)
    assert main(["explore"]) == 0
    ((model, port),), address = shown, opened.get(timeout=60)
    assert model.session.source == RANDOM
    assert address.startswith(f"http://127.0.0.1:{port}/")
    assert f"the explorer is at {address} (Ctrl-C ends it)" in capsys.readouterr().err


def test_explore_shows_a_run_without_a_browser(shown: list, explored_run) -> None:
    assert main(["explore", str(explored_run.folder), "--no-browser"]) == 0
    ((model, _),) = shown
    assert model.session.source == TRAINED
    assert model.session.run.folder == explored_run.folder


def test_what_is_no_run_is_refused_before_a_page_is_served(
    shown: list, tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explore", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert shown == []
