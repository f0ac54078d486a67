"""Hopfield-style rate networks with a feedforward loop, trained by a contrastive Hebbian rule.

    import fsp_dynamics as fsp

    network = fsp.loop_network([784, 500, 500, 10], rng=0)
    free = fsp.relax(network, images)
    nudged = fsp.relax(network, images, nudge=fsp.Nudge(1.0, targets), start=free)
    update = fsp.hebbian_update(network, images, free, nudged)

This is the face: the names below, and no other code. Each is loaded from its room when it is first
asked for, so importing the package costs nothing. No file of the package imports the face.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsp_dynamics.analysis.alignment import loop_alignment
    from fsp_dynamics.datasets import Dataset, dataset_from_arrays, load_dataset
    from fsp_dynamics.experiments.callbacks import StopTraining
    from fsp_dynamics.experiments.network_file import load_network, save_network
    from fsp_dynamics.experiments.run import open_run
    from fsp_dynamics.experiments.runner import train
    from fsp_dynamics.explorer import explore
    from fsp_dynamics.learning.rules import Rule
    from fsp_dynamics.learning.rules.hebbian import hebbian_update
    from fsp_dynamics.learning.simulation import simulate
    from fsp_dynamics.models.activations import Activation
    from fsp_dynamics.models.builders import loop_network, reciprocal_network
    from fsp_dynamics.models.network import Network, loop_gain
    from fsp_dynamics.models.rate import Nudge
    from fsp_dynamics.solvers import make_solver, relax
    from fsp_dynamics.solvers.equilibrium import Equilibrium, Status, Tolerance

    __version__: str

__all__ = [
    "Activation",
    "Dataset",
    "Equilibrium",
    "Network",
    "Nudge",
    "Rule",
    "Status",
    "StopTraining",
    "Tolerance",
    "__version__",
    "dataset_from_arrays",
    "explore",
    "hebbian_update",
    "load_dataset",
    "load_network",
    "loop_alignment",
    "loop_gain",
    "loop_network",
    "make_solver",
    "open_run",
    "reciprocal_network",
    "relax",
    "save_network",
    "simulate",
    "train",
]

_ROOMS = {
    "analysis.alignment": ("loop_alignment",),
    "datasets": ("Dataset", "dataset_from_arrays", "load_dataset"),
    "experiments.callbacks": ("StopTraining",),
    "experiments.network_file": ("load_network", "save_network"),
    "experiments.run": ("open_run",),
    "experiments.runner": ("train",),
    "explorer": ("explore",),
    "learning.rules": ("Rule",),
    "learning.rules.hebbian": ("hebbian_update",),
    "learning.simulation": ("simulate",),
    "models.activations": ("Activation",),
    "models.builders": ("loop_network", "reciprocal_network"),
    "models.network": ("Network", "loop_gain"),
    "models.rate": ("Nudge",),
    "solvers": ("make_solver", "relax"),
    "solvers.equilibrium": ("Equilibrium", "Status", "Tolerance"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    """The public name `name`, from its room, or the installed version. Raises AttributeError for
    any other name.
    """
    if name == "__version__":
        from importlib.metadata import version

        found: Any = version(__name__)
    elif name in _ROOM_OF:
        imported = importlib.import_module(f"{__name__}.settings").imported
        found = getattr(imported(f"{__name__}.{_ROOM_OF[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The public names, so that completion offers nothing else."""
    return sorted(__all__)
