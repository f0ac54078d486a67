"""The explorer as a page of its own in a browser: a server on the loopback interface, and nothing
to run by hand. It needs neither a notebook nor Jupyter.
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Callable

from fsp_dynamics.explorer.model import Model
from fsp_dynamics.explorer.replies import respond
from fsp_dynamics.explorer.sources import script, standalone, style
from fsp_dynamics.loopback import LoopbackServer, serve


class PageServer(LoopbackServer):
    """Serves the explorer of `model` at `address`. Use it as `with PageServer(model) as server`.

    port : 0 lets the system choose. Raises ConfigurationError for a port that cannot be used.
    """

    def __init__(self, model: Model, port: int = 0) -> None:
        self.model, self.turn = model, threading.Lock()
        super().__init__(port)

    def content(self, name: str) -> tuple[str, bytes] | None:
        """(type, bytes) of a file of the page; None if there is none of that name."""
        makers: dict[str, tuple[str, Callable[[], str]]] = {
            "": ("text/html", lambda: standalone("index.html")),
            "page.js": ("text/javascript", lambda: standalone("page.js")),
            "explorer.js": ("text/javascript", script),
            "explorer.css": ("text/css", style),
            "model.json": ("application/json", self._model),
        }
        if name not in makers:
            return None
        kind, make = makers[name]
        return f"{kind}; charset=utf-8", make().encode()

    def reply(self, message: bytes) -> bytes:
        """The reply to one message: the length of its content (4 bytes, little endian), the content
        as JSON filled up to a multiple of four bytes, the buffers.
        """
        with self.turn:
            content, buffers = respond(self.model, json.loads(message))
        head = json.dumps(content, allow_nan=False).encode()
        head += b" " * (-len(head) % 4)
        return b"".join([struct.pack("<I", len(head)), head, *buffers])

    def _model(self) -> str:
        model = self.model
        return json.dumps({"controls": model.controls, "about": model.about, "parameters": model.defaults})


def show(model: Model, say: Callable[[str], None], *, port: int | None = None, browser: bool = True) -> None:
    """Serve the explorer of `model` until Ctrl-C, and open it in a browser.

    say : is told the address. Raises ConfigurationError for a port that cannot be used.
    """
    with PageServer(model, port or 0) as server:
        serve(server, "the explorer is", say, browser=browser)
