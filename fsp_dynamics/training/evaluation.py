"""What a network does on a set of labelled images, in the free phase."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from fsp_dynamics.display import html_table
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import drive
from fsp_dynamics.solvers.equilibrium import Equilibrium
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.solvers.packed_loop import PackedLoop
from fsp_dynamics.training.checks import checked_split
from fsp_dynamics.training.ranks import ALONE, Ranks
from fsp_dynamics.training.recipe import LabelledImages, Recipe
from fsp_dynamics.training.warm_start import LoopWarmStart, WarmStart

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@runtime_checkable
class DeviceSolver(Protocol):
    """A solver that brings a network to its device once, for many batches."""

    def on_device(self, network: Network) -> Any:
        """An object with drive(images) and relax(drive, tolerance=, slope=)."""
        ...


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a network does on a set of images, in the free phase.

    error : percent of samples whose strongest output is not their label. residual, residual_max :
        ||field|| per unit time.
    unconverged : unconverged samples. saturation : {layer: (share of rates at 0, share at 1)},
        layers named hidden1 ..., output.
    stuck : {hidden layer: (units at 0, units at 1)}, counts of those whose rate is exactly 0 (or 1)
        on every image, so that they tell no images apart; rates that only approach 0 and 1 have
        none.
    dead_outputs : outputs whose rate is 0 for every sample although their class occurs.
    confusion : how many samples of each class (row) have which output as their strongest (column);
        a row for each output.
    class_names : the name of each class, or empty where they have none but their numbers.

    >>> import fsp_dynamics as fsp
    >>> found = fsp.train("digits", epochs=1, data={"limit": 40}, progress=False).evaluate("test")
    >>> 0 <= found.error <= 100, sorted(found.saturation), found.unconverged
    (True, ['hidden1', 'hidden2', 'output'], 0)
    >>> len(found.confusion), len(found.class_errors), len(found.plot().axes)
    (10, 10, 1)
    """

    error: float
    residual: float
    residual_max: float
    unconverged: int
    saturation: dict[str, tuple[float, float]]
    stuck: dict[str, tuple[int, int]]
    dead_outputs: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...] = field(default=(), repr=False)
    class_names: tuple[str, ...] = ()

    @property
    def class_errors(self) -> tuple[float | None, ...]:
        """Percent of the samples of each class whose strongest output is another; None for a class
        without samples.
        """
        return class_errors(self.confusion)

    def plot(self, ax: Axes | None = None, *, path: str | Path | None = None) -> Figure:
        """The confusion matrix, with the error of each class (`plotting.confusion.plot_confusion`);
        `path`: the picture is also written there.

        Returns
        -------
        matplotlib.figure.Figure : that of the axes.
        """
        from fsp_dynamics.plotting.confusion import plot_confusion

        return plot_confusion(self.confusion, self.class_names, ax, path=path)

    def __repr__(self) -> str:
        rows = "; ".join(f"{name} {value}" for name, value in self._facts().items())
        return f"<Evaluation: {rows}>"

    def _repr_html_(self) -> str:
        return html_table("Evaluation", self._facts())

    def _facts(self) -> dict[str, str]:
        worst = max(((each, k) for k, each in enumerate(self.class_errors) if each is not None), default=None)
        dead = ", ".join(map(str, self.dead_outputs)) or "none"
        return {
            "error": f"{self.error:.2f} %",
            **(
                {"worst class": f"{named(worst[1], self.class_names)} ({worst[0]:.2f} %)"} if worst and worst[0] else {}
            ),
            "residual up to": f"{self.residual_max:.2g}",
            "unconverged": str(self.unconverged),
            "dead outputs": dead,
            "stuck units": ", ".join(
                f"{name} {zero} at 0, {one} at 1" for name, (zero, one) in self.stuck.items() if zero or one
            )
            or "none",
        }


def evaluate(
    network: Network,
    split: LabelledImages,
    recipe: Recipe,
    batch: int = 500,
    *,
    warm_start: WarmStart | None = None,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """The free phase over all images, `batch` at a time. Raises ConfigurationError for empty data
    or impossible labels.

    warm_start : the learner's, if there is one; its mean loop Jacobian saves passes.
    ranks : as in `training.epoch.train_epoch`; each takes some of the batches.

    Returns
    -------
    Evaluation : error in percent, residuals, counts of unconverged samples and of stuck units.

    >>> import fsp_dynamics as fsp
    >>> from fsp_dynamics.learning.optimisers import LearningRates, Sgd
    >>> recipe = Recipe(Sgd(LearningRates(20.0, (7.0,), loop=0.5)), fsp.make_solver())
    >>> network = fsp.loop_network([64, 20, 10], loop_scale=0.2, rng=0)
    >>> evaluate(network, fsp.load_dataset("digits").test, recipe).unconverged
    0
    """
    split = checked_split(network, split)
    driven, relax = free_phase_solver(network, recipe, warm_start)
    seen = np.zeros((-(-len(split.labels) // (batch * ranks.count)), 5 + 2 * network.depth + 2 * network.sizes[-1]))
    confusion = np.zeros((network.sizes[-1], network.sizes[-1]), np.int64)
    left = np.zeros((2, sum(network.sizes[1:-1])), np.uint8)  # hidden units that were not at 0, or not at 1
    for i, first in enumerate(range(ranks.rank * batch, len(split.labels), ranks.count * batch)):
        images, labels = split.images[first : first + batch], split.labels[first : first + batch]
        found = relax(driven(images))
        rates = [network.rho.rate(s) for s in found.state]
        seen[i] = _look(found, rates, labels)
        np.add.at(confusion, (labels, found.output.argmax(1)), 1)
        left |= np.stack([np.concatenate([(r != end).any(0) for r in rates[:-1]]) for end in (0, 1)])
    left = np.bitwise_or.reduce(ranks.gather(left))
    confusion = np.sum(ranks.gather(confusion), axis=0)
    whole = np.stack(ranks.gather(seen), axis=1).reshape(
        -1, seen.shape[1]
    )  # in the order of the batches, whoever made them
    residual_max, classes, layers = float(whole[:, 4].max()), network.sizes[-1], network.depth
    samples, wrong, residual, unconverged = (float(each) for each in whole[:, :4].sum(0))
    shares = whole[:, 5 : 5 + 2 * layers].sum(0).reshape(2, layers) / samples
    strongest, occurs = whole[:, -2 * classes : -classes].max(0), whole[:, -classes:].any(0)
    names = [*(f"hidden{k + 1}" for k in range(layers - 1)), "output"]
    ends = np.cumsum([0, *network.sizes[1:-1]])
    return Evaluation(
        error=100 * wrong / samples,
        residual=residual / samples,
        residual_max=residual_max,
        unconverged=int(unconverged),
        saturation={name: (float(zero), float(one)) for name, zero, one in zip(names, *shares, strict=True)},
        stuck={
            name: (int((left[0, a:b] == 0).sum()), int((left[1, a:b] == 0).sum()))
            for name, (a, b) in zip(names, itertools.pairwise(ends), strict=False)
        },
        dead_outputs=tuple(int(j) for j in np.flatnonzero(occurs & (strongest <= 0))),
        confusion=tuple(map(tuple, confusion.tolist())),
    )


def class_errors(confusion: Sequence[Sequence[int]]) -> tuple[float | None, ...]:
    """Percent of each row that is not on the diagonal; None for an empty row.

    >>> class_errors([[3, 1, 0], [0, 0, 0], [0, 0, 2]])
    (25.0, None, 0.0)
    """
    counts = [sum(row) for row in confusion]
    return tuple(
        100 * (count - row[k]) / count if count else None
        for k, (row, count) in enumerate(zip(confusion, counts, strict=True))
    )


def named(label: int, names: Sequence[str]) -> str:
    """The name of a class, or its number where it has none."""
    return names[label] if label < len(names) else str(label)


def free_phase_solver(
    network: Network, recipe: Recipe, warm_start: WarmStart | None
) -> tuple[Callable[[Array], Any], Callable[[Any], Equilibrium]]:
    """(images (B, n_in) -> drive (B, n_1), drive -> the free equilibrium); a network is packed, or
    brought to its device, once for all calls.
    """
    solver: Any = recipe.solver
    if isinstance(solver, DeviceSolver):
        ready = solver.on_device(network)
        slope = warm_start.slope[:, : network.sizes[-1]] if isinstance(warm_start, LoopWarmStart) else None
        return ready.drive, lambda constant: ready.relax(constant, tolerance=recipe.tolerance, slope=slope)
    driven = functools.partial(drive, network)
    if not (isinstance(solver, FixedPointSolver) and solver.uses_broyden(network)):
        return driven, lambda constant: solver.relax(network, constant, None, None, recipe.tolerance)
    packed = PackedLoop.of(network)
    known = packed, warm_start.slope if isinstance(warm_start, LoopWarmStart) else 0.0
    return driven, lambda constant: solver.relax_known(network, constant, known, recipe.tolerance)


def _look(found: Equilibrium, rates: list[Array], labels: Array) -> Array:
    """What adds up over batches: samples, wrong, sum of the residuals, unconverged; its largest
    residual; rates at 0 and at 1 of each layer, in units of samples; the largest rate of each
    output, and whether its class occurs.
    """
    counts = [
        len(labels),
        (found.output.argmax(1) != labels).sum(),
        found.residual.sum(dtype=np.float64),
        (~found.converged).sum(),
        found.residual.max(),
    ]
    shares = [np.count_nonzero(r == end) / r.shape[1] for end in (0, 1) for r in rates]
    occurs = np.isin(np.arange(rates[-1].shape[1]), labels)
    return np.concatenate([counts, shares, rates[-1].max(0), occurs])
