"""`fsp watch --browser`: a page with the curves of runs, served on the loopback interface."""

from __future__ import annotations

import json
import threading
from importlib.resources import files

from fsp_dynamics.experiments.records import plain
from fsp_dynamics.experiments.watching import QUANTITIES, Watch, short_names
from fsp_dynamics.loopback import LoopbackServer

PAGE = {
    "": ("index.html", "text/html"),
    "watch.js": ("watch.js", "text/javascript"),
    "watch.css": ("watch.css", "text/css"),
}
"""{name in the address: (file, type)}."""


class WatchServer(LoopbackServer):
    """Serves the page that watches `watch`, at `address`; it asks for the runs every `every`
    seconds. Raises ConfigurationError for a port that cannot be used.
    """

    def __init__(self, watch: Watch, port: int = 0, every: float = 2.0) -> None:
        self.watch, self.every, self.turn = watch, every, threading.Lock()
        super().__init__(port)

    def content(self, name: str) -> tuple[str, bytes] | None:
        """(type, bytes) of a file of the page, or of runs.json; None if there is none of that
        name.
        """
        if name == "runs.json":
            return "application/json; charset=utf-8", self.runs()
        if name not in PAGE:
            return None
        file, kind = PAGE[name]
        return f"{kind}; charset=utf-8", (files(__package__) / "page" / file).read_text("utf-8").encode()

    def runs(self) -> bytes:
        """Every run as it is now, and what the charts are."""
        with self.turn:
            runs = self.watch.look()
        found = [{**run.as_record(), "name": name} for run, name in zip(runs, short_names(runs), strict=True)]
        charts = [{"name": q.name, "unit": q.unit, "logarithmic": q.logarithmic} for q in QUANTITIES]
        return json.dumps(plain({"every": self.every, "charts": charts, "runs": found}), allow_nan=False).encode()
