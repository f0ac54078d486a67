"""The anywidget that connects model and page: it replies to each message of the script with a
frame, or with a one-line error.

The script is `script/*.js`, concatenated in the order of the file names into one ES module; it has
at most one request open and keeps only the newest parameters, so no queue builds up here.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import anywidget
import traitlets

from fsp_dynamics.errors import FspError
from fsp_dynamics.explorer.frame import Frame
from fsp_dynamics.explorer.model import Model
from fsp_dynamics.learning.simulation import Trajectory
from fsp_dynamics.models.network import Network


def script() -> str:
    """The parts of the script as one ES module."""
    parts = sorted(
        (part for part in (files(__package__) / "script").iterdir() if part.name.endswith(".js")),
        key=lambda part: part.name,
    )
    return "\n".join(part.read_text(encoding="utf-8") for part in parts)


def style() -> str:
    """The style sheet."""
    return (files(__package__) / "script" / "explorer.css").read_text(encoding="utf-8")


class Explorer(anywidget.AnyWidget):
    """The interactive explorer. `parameters` are those on display; `set` changes the controls."""

    controls: Any = traitlets.List().tag(sync=True)
    about: Any = traitlets.Dict().tag(sync=True)
    parameters: Any = traitlets.Dict().tag(sync=True)

    def __init__(self, model: Model) -> None:
        self.model, self._esm, self._css = model, script(), style()
        super().__init__(
            controls=model.controls, about=model.about, parameters=model.defaults, layout={"width": "100%"}
        )
        self.on_msg(self._reply)

    def set(self, **parameters: Any) -> None:
        """Set some controls. Raises ConfigurationError for unknown names and invalid values."""
        merged = {**self.parameters, **parameters}
        self.model.parameters(merged)
        self.parameters = merged

    @property
    def network(self) -> Network:
        """The network on display, with the loop, time constants and rho of the controls and all
        applied updates.
        """
        return self.model.network(self.parameters)

    @property
    def trajectory(self) -> Trajectory:
        """The trajectory on display."""
        return self.model.path(self.parameters)

    def _reply(self, _: Any, content: Mapping[str, Any], __: Any) -> None:
        """Reply to one message of the script: see `respond`."""
        reply, buffers = respond(self.model, content)
        if reply["kind"] == "frame":
            self.parameters = reply["readouts"]["parameters"]
        self.send(reply, buffers)


def respond(model: Model, content: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """(content, buffers) of the reply to one message. Errors are returned as one line and never
    raised, since the page waits for a reply.
    """
    head = {"kind": content.get("kind"), "id": content.get("id")}
    try:
        given = content["parameters"]
        if head["kind"] == "netcdf":
            return {**head, "name": "path.nc"}, [bytes(model.path(given).to_xarray().to_netcdf())]
        if head["kind"] == "sweep":
            return _packed(
                head | {"name": content["name"], "piece": content["piece"]},
                model.sweep(given, content["name"], content["piece"]),
            )
        if head["kind"] == "learn":
            model.learn(given)
        elif head["kind"] == "forget":
            model.forget(given)
        elif head["kind"] != "frame":
            raise ValueError(f"message of kind {head['kind']!r}, expected frame, sweep, learn, forget or netcdf")
        return _packed(head | {"kind": "frame"}, model.frame(given))
    except FspError as error:
        return head | {"kind": "refused", "text": " ".join(str(error).split())}, []
    except Exception as error:
        return head | {
            "kind": "refused",
            "text": f"internal error, {type(error).__name__}: {error}; please report it",
        }, []


def _packed(head: dict[str, Any], frame: Frame) -> tuple[dict[str, Any], list[bytes]]:
    """A frame as the script expects it; the readouts of a sweep are next to its layout."""
    readouts = frame.readouts if "pieces" in frame.readouts else {"readouts": frame.readouts}
    return {**head, "layout": frame.layout, **readouts}, [frame.buffer]
