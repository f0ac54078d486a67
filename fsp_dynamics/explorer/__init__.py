"""The interactive explorer: `explore` in notebooks, `server.show` without. A setting of the
controls gives one frame (`model`), which the script of the page draws.

`controls` defines the parameters, `session` holds the images and networks, `trial` is one image
shown to one network; `views` and `settling` compute what is plotted and `summary` the text and
code, `frame` packs them. `replies` answers the script, `widget` connects the two in a notebook and
`server` in a browser without one. The computations are done by the packages below.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fsp_dynamics.errors import ConfigurationError

if TYPE_CHECKING:
    from fsp_dynamics.datasets import Dataset
    from fsp_dynamics.experiments.runner import Run
    from fsp_dynamics.explorer.widget import Explorer
    from fsp_dynamics.models.network import Network


def explore(
    network_or_run: Network | Run | str | Path | None = None,
    dataset: str | Dataset | None = None,
    sample: int | None = None,
) -> Explorer:
    """The explorer; make it the last line of a notebook cell to display it.

    Parameters
    ----------
    network_or_run : a network, a run or its folder (a slider then selects the epoch), or None for
        a small random loop network.
    dataset : name of a data set, or a `Dataset`; None: the run's, otherwise digits. Its test
        images are shown.
    sample : index of the image shown first. None: the first one that the network gets wrong, or
        right by a small margin.

    Raises ConfigurationError if network and images do not match or anywidget is not installed, and
    the package's errors for runs or data that cannot be read.

    Returns
    -------
    Explorer : a widget; its `network` and `trajectory` are those on display.

    >>> import fsp_dynamics as fsp
    >>> explorer = fsp.explore(fsp.loop_network([64, 20, 10], rng=0), "digits", sample=3)
    >>> explorer.network
    <Network 64-20-10, loop, hard_sigmoid, float64>
    """
    from fsp_dynamics.explorer.model import Model
    from fsp_dynamics.explorer.session import Session

    try:
        from fsp_dynamics.explorer.widget import Explorer
    except ModuleNotFoundError as error:
        if error.name not in ("anywidget", "traitlets"):
            raise
        raise ConfigurationError(
            f"explore needs {error.name}, which is not installed; install fsp_dynamics[notebook]"
        ) from None

    return Explorer(Model(Session.of(network_or_run, dataset), sample, ready=set()))
