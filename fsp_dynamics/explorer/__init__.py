"""The interactive explorer for notebooks: `explore`. A setting of the controls gives one frame
(`model`), which a widget displays and its script draws.

`controls` defines the parameters, `session` holds the images and networks, `trial` is one image
shown to one network; `views` computes the plotted arrays and `summary` the text and code, `frame`
packs them, `widget` connects them to the page. The computations are done by the packages below.
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
    network_or_run: Network | Run | str | Path | None = None, dataset: str | Dataset | None = None, sample: int = 0
) -> Explorer:
    """The explorer; make it the last line of a notebook cell to display it.

    Parameters
    ----------
    network_or_run : a network, a run or its folder (a slider then selects the epoch), or None for
        a small random loop network.
    dataset : name of a data set, or a `Dataset`; None: the run's, otherwise digits. Its test
        images are shown.
    sample : index of the image shown first.

    Raises ConfigurationError if network and images do not match or anywidget is not installed, and
    the package's errors for runs or data that cannot be read.
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
