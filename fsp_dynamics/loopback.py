"""Pages of this program in a browser: a server on the loopback interface alone, whose address has a
secret in its path, so that no other page or user of this machine can reach it.
"""

from __future__ import annotations

import secrets
import threading
import webbrowser
from abc import ABC, abstractmethod
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fsp_dynamics.errors import ConfigurationError

HOST = "127.0.0.1"
LONGEST = 1_000_000  # bytes of a message, at most
POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; frame-ancestors 'none'"


class LoopbackServer(ThreadingHTTPServer, ABC):
    """Serves what `content` gives at `address`. Use it as ``with ... as server``.

    port : 0 lets the system choose. Raises ConfigurationError for a port that cannot be used.
    """

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        self.secret = secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigurationError(
                f"port = {port!r} cannot be used: {reason}; choose another (port=...), or leave it out"
            ) from None

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_address[1]}/{self.secret}/"

    @abstractmethod
    def content(self, name: str) -> tuple[str, bytes] | None:
        """(type, bytes) of what has that name below the address, "" for the page itself; None if
        there is none.
        """

    def reply(self, message: bytes) -> bytes | None:
        """The reply to one message of the page; None where it takes none. Raises ValueError,
        AttributeError for what is no message.
        """
        return None


class _Handler(BaseHTTPRequestHandler):
    """One request of the page."""

    server: LoopbackServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self._name()
        found = None if name is None else self.server.content(name)
        if found is None:
            return self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"There is no such page here.\n")
        self._answer(HTTPStatus.OK, *found)

    def do_POST(self) -> None:
        size = self.headers.get("Content-Length", "")
        if self._name() != "message" or not size.isdecimal() or int(size) > LONGEST:
            self.close_connection = True
            return self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"There is no such page here.\n")
        try:
            reply = self.server.reply(self.rfile.read(int(size)))
        except (ValueError, AttributeError):
            return self._answer(HTTPStatus.BAD_REQUEST, "text/plain; charset=utf-8", b"Expected a JSON object.\n")
        if reply is None:
            return self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"There is no such page here.\n")
        self._answer(HTTPStatus.OK, "application/octet-stream", reply)

    def _name(self) -> str | None:
        """The part of the path after the secret; None without the secret."""
        _, _, rest = self.path.partition("?")[0].partition("/")
        secret, slash, name = rest.partition("/")
        return name if slash and secrets.compare_digest(secret.encode(), self.server.secret.encode()) else None

    def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": POLICY,
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not reported."""


def serve(server: LoopbackServer, what: str, say: Callable[[str], None], *, browser: bool = True) -> None:
    """Serve until Ctrl-C, and open the page in a browser. what : it is, for the line that `say` is
    told with the address.
    """
    say(f"{what} at {server.address} (Ctrl-C ends it)")
    if browser:
        # a browser in a terminal would not return
        threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return
