"""The live instrument for a notebook: `explore`. Parameters in, one frame out (`model`), shown by
a widget whose script draws it.

`controls` says what can be changed, `subject` what is explored, `scene` what the parameters
describe; `views` and `words` are what is seen and said of it, `frame` how it travels, `widget` the
page's side. No mathematics is done here: that is on the floors below.
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
    """The explorer, to be shown as the last line of a notebook's cell.

    Parameters
    ----------
    network_or_run : a network, a run or its folder (whose checkpoints can then be scrubbed
        through), or None for a small random loop network.
    dataset : name of a data set, or a `Dataset`; None: the run's, else digits. Its test images are
        shown.
    sample : the image that is shown first.

    Raises ConfigurationError where network and images do not fit, and where anywidget is not
    installed; the package's errors for a run or data that cannot be read.
    """
    from fsp_dynamics.explorer.model import Model
    from fsp_dynamics.explorer.subject import Subject

    try:
        from fsp_dynamics.explorer.widget import Explorer
    except ModuleNotFoundError as error:
        if error.name not in ("anywidget", "traitlets"):
            raise
        raise ConfigurationError(
            f"explore needs {error.name}, which is not installed; install fsp_dynamics[notebook]"
        ) from None

    return Explorer(Model(Subject.of(network_or_run, dataset), sample, ready=set()))
