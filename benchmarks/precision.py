"""Work and precision of every method of every backend.

    python -m benchmarks.precision [--quick] [--out FOLDER]

784-500-500-10 with a hard sigmoid, after two epochs of the preset on 5,000 images, in float64,
is relaxed on 64 test images from the zero state, to one tolerance after the other. `error` is the
largest distance, in any unit of any image, from the equilibrium found by Newton's method. The work
per image:

    fields     evaluations of the field, mean over the images. A pass of a fixed-point method needs
               the products of one evaluation and counts as one. Other work, such as the linear
               systems of Newton's method, is not counted, but included in the seconds.
                   passes       steps
                   numba_ode    1 + steps times the stages not known from the previous step
                   reference    1 + steps times all stages and the test of the residual
                   torch_ode    as `TorchSolver.relax_counted` reports
    seconds    of the whole call, divided by the images: the best of all rounds, and the median

All methods run in turn, with one thread. A method is not run at a tighter tolerance once a call
took longer than `PATIENCE`. Constant steps are the one of 1/8, 1/4, 1/2 and 1 time constant that
needs the fewest evaluations to 1e-9 on this network.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from cyclopts import App, Parameter

from fsp_dynamics.datasets import load_dataset
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.execution import thread_limit
from fsp_dynamics.experiments.rate.building import build_network, build_recipe
from fsp_dynamics.models.network import Network
from fsp_dynamics.models.rate import drive
from fsp_dynamics.solvers import make_solver
from fsp_dynamics.solvers.equilibrium import Equilibrium, Tolerance
from fsp_dynamics.solvers.tableaux import TABLEAUX
from fsp_dynamics.training.epoch import train_epoch
from fsp_dynamics.training.recipe import Learner

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

app = App(name="benchmarks.precision", help=(__doc__ or "").partition("\n")[0])

Found = tuple[Equilibrium, np.ndarray | float]  # and the fields of each sample

PRESET = "mnist-2x500"
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-5, 1e-7, 1e-9, 1e-11)
PATIENCE = 4.0  # seconds for one call
MAX_STEPS, MAX_PASSES = 2_000, 500
STANDSTILL = Tolerance(1e-13)  # of the equilibrium that all are compared with
PASSES = {
    "fixed_point": ("broyden", "anderson", "picard", "newton"),
    "torch_fixed_point": ("broyden", "anderson", "picard"),
}
ADAPTIVE = {
    "numba_ode": ("dopri5", "bosh3", "heun"),
    "reference": ("dopri5", "bosh3"),
    "torch_ode": ("dopri8", "dopri5", "bosh3", "adaptive_heun", "fehlberg2"),
}
CONSTANT = {
    "numba_ode": {"euler": 1.0, "heun": 1.0, "rk4": 1.0},
    "reference": {"rk4": 1.0},
    "torch_ode": {
        "euler": 1.0,
        "midpoint": 1.0,
        "heun2": 1.0,
        "heun3": 1.0,
        "rk4": 1.0,
        "explicit_adams": 0.125,
        "implicit_adams": 0.5,
    },
}
MARKS = {
    **{
        "broyden": ("#332288", "o"),
        "anderson": ("#CC6677", "s"),
        "picard": ("#117733", "^"),
        "newton": ("#000000", "*"),
    },
    **{"euler": ("#88CCEE", "v"), "rk4": ("#882255", "D"), "implicit_adams": ("#999933", "P")},
    **{"bosh3": ("#44AA99", "<"), "dopri5": ("#AA4499", ">"), "dopri8": ("#DDCC77", "X")},
}
LINES: dict[str, dict[str, Any]] = {
    "NumPy, Numba": {"linestyle": "-"},
    "torch": {"linestyle": "--", "markerfacecolor": "white"},
}
LEAST = 1e-13  # smaller errors are drawn here: Newton's last step leaves nothing but rounding


@dataclass(frozen=True, slots=True)
class Row:
    """One method at one tolerance. dt : time constants, None for passes and adaptive steps;
    converged : fraction of the samples that converged.
    """

    solver: str
    method: str
    dt: float | None
    tolerance: float
    error: float
    residual: float
    converged: float
    steps: float
    fields: float
    seconds: float
    seconds_median: float
    turns: int


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """Images and a network in float64; equilibrium : the states (B, N) found by Newton's method."""

    network: Network
    drive: np.ndarray
    equilibrium: np.ndarray

    @staticmethod
    def of(network: Network, images: np.ndarray) -> Task:
        """Raises NotConvergedError where Newton's method does not bring the network to a
        standstill.
        """
        network = network.astype(np.float64)
        inputs = drive(network, images.astype(np.float64))
        found = (
            make_solver("fixed_point", method="newton", fallback=None)
            .relax(network, inputs, tolerance=STANDSTILL)
            .require_converged()
        )
        return Task(network, inputs, np.concatenate(found.state, axis=1))

    @staticmethod
    def trained(preset: str = PRESET, *, limit: int = 5_000, epochs: int = 2, images: int = 64) -> Task:
        """The network of a preset after so many epochs on so many images, and the first images of
        the test.
        """
        config = load_config(preset, {"data.limit": limit})[1]
        data = load_dataset(config.data.name, limit=limit)
        network, rng = build_network(config, data.train.images.shape[1], data.classes)
        recipe = build_recipe(config)
        learner = Learner.start(network, recipe, rng)
        for _ in range(epochs):
            train_epoch(learner, data.train, recipe)
        return Task.of(learner.network, data.test.images[:images])


@dataclass(frozen=True, slots=True)
class Method:
    """A solver by its name in `make_solver`, with a method and, where steps are constant, their
    length.
    """

    solver: str
    method: str
    dt: float | None = None

    @property
    def passes(self) -> bool:
        """Fixed-point methods do not integrate in time."""
        return self.solver in PASSES

    def ready(self, task: Task) -> Callable[[float], Found]:
        """A call that relaxes from the zero state to a tolerance."""
        bounds: dict[str, Any] = (
            {"max_passes": MAX_PASSES, "fallback": None} if self.passes else {"max_steps": MAX_STEPS, "dt": self.dt}
        )
        solver: Any = make_solver(self.solver, method=self.method, **bounds)

        def run(tolerance: float) -> Found:
            if self.solver == "torch_ode":
                settled = solver.relax_counted(task.network, task.drive, tolerance=Tolerance(tolerance))
                return settled.equilibrium, settled.fields
            found = solver.relax(task.network, task.drive, tolerance=Tolerance(tolerance))
            return found, found.steps if self.passes else 1 + found.steps * self.fields_of_a_step()

        return run

    def fields_of_a_step(self) -> int:
        """Evaluations in a step of `numba_ode`, which keeps the field where a step ends for the
        next one, or of `reference`, which does not.
        """
        tableau = TABLEAUX[self.method]
        stages = len(tableau.a)
        return stages + 1 if self.solver == "reference" else stages - tableau.fsal


def all_methods() -> list[Method]:
    """Every method of every backend that is installed."""
    passes = [Method(solver, method) for solver, methods in PASSES.items() for method in methods]
    constant = [Method(solver, method, dt) for solver, methods in CONSTANT.items() for method, dt in methods.items()]
    adaptive = [Method(solver, method) for solver, methods in ADAPTIVE.items() for method in methods]
    absent = [name for name in ("torch", "torchdiffeq") if importlib.util.find_spec(name) is None]
    return [method for method in (*passes, *constant, *adaptive) if not (absent and method.solver.startswith("torch"))]


def measure(
    task: Task,
    methods: Sequence[Method],
    tolerances: Sequence[float] = TOLERANCES,
    *,
    turns: int = 3,
    threads: int = 1,
    patience: float = PATIENCE,
    say: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """One row per method and tolerance. tolerances : from loose to tight."""
    calls = {method: method.ready(task) for method in methods}
    results: dict[tuple[Method, float], Found] = {}
    took: dict[tuple[Method, float], list[float]] = {}
    with thread_limit(threads):
        for method, call in calls.items():
            call(tolerances[0])  # compiles
            for tolerance in tolerances:
                before = time.perf_counter()
                results[method, tolerance] = call(tolerance)
                took[method, tolerance] = [time.perf_counter() - before]
                if took[method, tolerance][0] > patience:
                    break
            seconds = sum(took[key][0] for key in took if key[0] == method)
            say(f"{method.solver} {method.method}: {seconds:.1f} s per round")
        for _ in range(turns - 1):
            for key in took:
                before = time.perf_counter()
                calls[key[0]](key[1])
                took[key].append(time.perf_counter() - before)
    return [_row(task, *key, results[key], times) for key, times in took.items()]


def _row(task: Task, method: Method, tolerance: float, result: Found, times: Sequence[float]) -> Row:
    found, fields = result
    error = float(np.abs(np.concatenate(found.state, axis=1) - task.equilibrium).max())
    means = float(found.converged.mean()), float(found.steps.mean()), float(np.mean(fields))
    seconds = (min(times) / len(task.drive), statistics.median(times) / len(task.drive))
    return Row(
        method.solver,
        method.method,
        method.dt,
        tolerance,
        error,
        float(found.residual.max()),
        *means,
        *seconds,
        len(times),
    )


def write(rows: Sequence[Row], path: Path) -> None:
    """The rows as CSV, four digits each; empty for None."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([field.name for field in dataclasses.fields(Row)])
        for row in rows:
            table.writerow(
                [f"{value:.4g}" if isinstance(value, float) else value for value in dataclasses.astuple(row)]
            )


def draw(rows: Sequence[Row], title: str) -> Figure:
    """Error against fields and against milliseconds for one image, of the methods in MARKS where
    every sample converged.
    """
    from matplotlib.lines import Line2D

    from fsp_dynamics.plotting import GREY, new_figure, styled

    with styled():
        figure = new_figure(11.5, 6.2)
        axes = figure.subplots(1, 2, sharey=True)
        _draw_panel(axes[0], rows, lambda row: row.fields, "evaluations of the field per image")
        _draw_panel(axes[1], rows, lambda row: 1e3 * row.seconds, "milliseconds per image")
        axes[0].set_ylabel("largest error of any state")
        present = [name for name in MARKS if any(row.method == name for row in rows)]
        handles = [
            Line2D([], [], color=MARKS[name][0], marker=MARKS[name][1], linestyle="-", label=name) for name in present
        ]
        handles += [Line2D([], [], color=GREY, marker="o", label=name, **look) for name, look in LINES.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
        figure.suptitle(title, fontsize=11)
    return figure


def _draw_panel(ax: Axes, rows: Sequence[Row], work: Callable[[Row], float], label: str) -> None:
    for key in dict.fromkeys((row.solver, row.method, row.dt) for row in rows):
        solver, method, _ = key
        if method not in MARKS or solver == "reference":
            continue
        colour, marker = MARKS[method]
        line = [
            (work(row), max(row.error, LEAST))
            for row in rows
            if (row.solver, row.method, row.dt) == key and row.converged == 1
        ]
        if line:
            look = LINES["torch" if solver.startswith("torch") else "NumPy, Numba"]
            ax.plot(*zip(*line, strict=True), color=colour, marker=marker, **look)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.grid(visible=True, axis="both")
    ax.set_xlabel(label)


@app.default
def main(
    *,
    preset: str = PRESET,
    quick: Annotated[bool, Parameter(help="three tolerances, one round")] = False,
    turns: Annotated[int, Parameter(help="the best of so many")] = 3,
    threads: int = 1,
    out: Annotated[Path | None, Parameter(help="a folder for precision.csv and precision.png")] = None,
) -> None:
    """Measure error, evaluations of the field and seconds, for every method of every backend."""
    from benchmarks.machine import describe
    from fsp_dynamics.plotting import save_figure
    from fsp_dynamics.tables import print_table

    task = Task.trained(preset)
    plan: dict[str, Any] = (
        {"tolerances": (1e-2, 1e-5, 1e-9), "turns": 1, "patience": 0.5} if quick else {"turns": turns}
    )
    rows = measure(
        task, all_methods(), threads=threads, say=lambda text: print(text, file=sys.stderr, flush=True), **plan
    )
    sizes, machine = "-".join(map(str, task.network.sizes)), describe(load_config(preset)[1])
    title = (
        f"{sizes}, {len(task.drive)} images, float64; {machine['cpu']}, {threads} thread{'s' if threads > 1 else ''}"
    )
    shown = [
        {
            key: f"{value:.3g}" if isinstance(value, float) else str(value or "")
            for key, value in dataclasses.asdict(row).items()
        }
        for row in rows
    ]
    print_table(title, shown)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write(rows, out / "precision.csv")
        save_figure(draw(rows, title), out / "precision.png")


if __name__ == "__main__":
    app()
