"""The anywidget that connects model and page in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anywidget
import traitlets

from fsp_dynamics.explorer.model import Model
from fsp_dynamics.explorer.replies import respond
from fsp_dynamics.explorer.sources import script, style
from fsp_dynamics.learning.simulation import Trajectory
from fsp_dynamics.models.network import Network


class Explorer(anywidget.AnyWidget):
    """The interactive explorer. `parameters` are those on display; `set` changes the controls.

    >>> import fsp_dynamics as fsp
    >>> explorer = fsp.explore(fsp.loop_network([64, 20, 10], rng=0), "digits")
    >>> explorer.set(beta=0.5)
    >>> explorer.network.sizes, explorer.trajectory.states[-1].shape[1:]
    ((64, 20, 10), (1, 10))
    """

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
