"""The page's side of the model: a thin anywidget that answers each message of the script with a
frame, or with one line that refuses it.

The script is `script/*.js`, joined in the order of their names into one ES module; it keeps one
request open and only the newest values beside it, so nothing queues here.
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
    """The live instrument. Its `parameters` are those the page shows; `set` moves the controls."""

    controls: Any = traitlets.List().tag(sync=True)
    about: Any = traitlets.Dict().tag(sync=True)
    parameters: Any = traitlets.Dict().tag(sync=True)

    def __init__(self, model: Model) -> None:
        self.model, self._esm, self._css = model, script(), style()
        super().__init__(
            controls=model.controls, about=model.about, parameters=model.defaults, layout={"width": "100%"}
        )
        self.on_msg(self._answer)

    def set(self, **parameters: Any) -> None:
        """Move some controls, as a hand would. Raises ConfigurationError for unknown names and
        impossible values.
        """
        merged = {**self.parameters, **parameters}
        self.model.parameters(merged)
        self.parameters = merged

    @property
    def network(self) -> Network:
        """The network that is seen: with the loop, time constants and rho of the controls and the
        updates applied by hand.
        """
        return self.model.network(self.parameters)

    @property
    def trajectory(self) -> Trajectory:
        """The path that is seen."""
        return self.model.path(self.parameters)

    def _answer(self, _: Any, content: Mapping[str, Any], __: Any) -> None:
        """Answer one message of the script: see `respond`."""
        reply, buffers = respond(self.model, content)
        if reply["kind"] == "frame":
            self.parameters = reply["readouts"]["parameters"]
        self.send(reply, buffers)


def respond(model: Model, content: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """(content, buffers) of the answer to one message. Whatever goes wrong is said in one line,
    never raised: the page waits for an answer.
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
            "text": f"an error of ours, {type(error).__name__}: {error}; please report it",
        }, []


def _packed(head: dict[str, Any], frame: Frame) -> tuple[dict[str, Any], list[bytes]]:
    """A frame as the script takes it; what is said of a sweep stands beside its layout."""
    said = frame.readouts if "pieces" in frame.readouts else {"readouts": frame.readouts}
    return {**head, "layout": frame.layout, **said}, [frame.buffer]
