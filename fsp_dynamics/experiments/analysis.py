"""The analysis of a trained rate network: `fsp stability` and `fsp gradients`, as records of plain
numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fsp_dynamics.analysis.gradients import EXACT, compare
from fsp_dynamics.analysis.stability import Stability, measured_settle_time, stability
from fsp_dynamics.datasets import Split
from fsp_dynamics.errors import ConfigurationError, NoConvergenceError
from fsp_dynamics.experiments import execution
from fsp_dynamics.experiments.folder import Record
from fsp_dynamics.experiments.rate.building import build_recipe, require_rate
from fsp_dynamics.experiments.rate.probing import first_images
from fsp_dynamics.experiments.rate.restoring import require_fit
from fsp_dynamics.experiments.run import Run, Which
from fsp_dynamics.models import rate
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.solvers.fixed_point import FixedPointSolver

MEASURED = 3  # samples whose settle time is also measured

_NUMBERS: dict[str, Callable[[Stability], Array]] = {
    "gain of one turn ||G_D||": lambda found: found.loop_norm,
    "abscissa (per unit time)": lambda found: found.abscissa,
    "settle time, predicted": lambda found: found.settle_time,
    "numerical abscissa (per unit time)": lambda found: found.numerical_abscissa,
    "departure from normality, relative": lambda found: found.relative_departure,
    "kink margin": lambda found: found.kink_margin,
    "least stable beta": lambda found: found.beta_range[:, 0],
    "longest stable dt, Euler": lambda found: found.dt,
}


def stability_of(
    run: Run,
    which: Which = "best",
    samples: int = 20,
    *,
    data_dir: str | Path | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """The stability of the free equilibria of the first images, found to rounding in float64.

    numbers : {quantity: {mean, min, max}} over the converged samples. settle_time : {predicted,
    measured} of a few of them, in the order of their images: the time in which a small disturbance
    falls to a thousandth. images : which part of the data. converged, samples : how many converged,
    of how many; unstable : how many of their equilibria are unstable.

    Raises ConfigurationError for a number of samples below 1, NoConvergenceError where none
    converges, and what `Run.network` raises.

    Returns
    -------
    dict : counts of samples, and mean, smallest and largest of each number.

    >>> import fsp_dynamics as fsp
    >>> run = fsp.train("digits", epochs=1, data={"limit": 40}, progress=False)
    >>> found = stability_of(run, samples=3)
    >>> found["samples"], found["unstable"], sorted(found["settle_time"])
    (3, 0, ['measured', 'predicted'])
    """
    require_rate(run.config, "stability_of")
    part, split, network = _first(run, which, samples, data_dir)
    network = network.astype(np.float64)
    with execution.thread_limit(threads):
        free = FixedPointSolver(max_passes=500).relax(network, rate.drive(network, split.images), None, None, EXACT)
        kept = np.flatnonzero(free.converged)
        if not kept.size:
            raise NoConvergenceError(
                f"none of the first {len(split.labels)} {part} images of {run.folder} converges; nothing to analyse"
            )
        images, equilibrium = split.images[kept], free.rows(kept)
        found = stability(network, images, equilibrium)
        few = np.arange(min(MEASURED, kept.size))
        measured = measured_settle_time(network, images[few], equilibrium.rows(few))
    return {
        "images": part,
        "samples": len(split.labels),
        "converged": int(kept.size),
        "unstable": int((~found.stable).sum()),
        "numbers": {name: _summary(number(found)) for name, number in _NUMBERS.items()},
        "settle_time": {"predicted": found.settle_time[few].tolist(), "measured": measured.tolist()},
    }


def gradients_of(
    run: Run,
    which: Which = "best",
    samples: int = 200,
    *,
    data_dir: str | Path | None = None,
    threads: int | None = None,
) -> Record:
    """The update that the run would make for its first images beside the true gradient: the fields
    of `analysis.gradients.Comparison`, the part of the data and the number of images.

    Raises ConfigurationError for a number of samples below 1, and where none of them has an error
    and converges; and what `Run.network` raises.

    Returns
    -------
    dict : {matrix: number} of each quantity, and counts of samples.

    >>> import fsp_dynamics as fsp
    >>> run = fsp.train("digits", epochs=1, data={"limit": 40}, progress=False)
    >>> list(gradients_of(run, samples=10)["degrees"])
    ['input', 'forward[0]', 'forward[1]', 'loop']
    """
    config = require_rate(run.config, "gradients_of")
    part, split, network = _first(run, which, samples, data_dir)
    targets = np.eye(network.sizes[-1], dtype=network.dtype)[split.labels]
    with execution.thread_limit(threads):
        found = compare(network, split.images, targets, build_recipe(config, objects=run.objects))
    return {"images": part, "samples": len(split.labels), **asdict(found)}


def _first(run: Run, which: Which, samples: int, data_dir: str | Path | None) -> tuple[str, Split, Network]:
    """The name of a part of the run's data, its first images, and the network. Raises
    ConfigurationError for fewer than one image, CheckpointError for a network of other images.
    """
    if samples < 1:
        raise ConfigurationError(f"samples = {samples}, expected 1 or more")
    data, network = run.data(data_dir), run.network(which)
    require_fit(network, data)
    return *first_images(data, samples), network


def _summary(values: Array) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "min": float(np.min(values)), "max": float(np.max(values))}
