"""Integration in time compared with SciPy, torchdiffeq and diffrax (if installed): the same
networks, tolerance and precision, in one run.

    python -m benchmarks.trajectories [--units 30 300 3000] [--batch 1 64 1024] [--threads 2]
    [--seconds 4] [--json FILE]

Loop networks of the given numbers of units with a logistic rho are integrated from zero for 20 time
units (3,000 units: 5) at rtol = atol = 1e-6 by the method of Dormand and Prince, in float64
throughout (the only precision of SciPy); only the final state is kept. The field is computed by
blocks, never as one N x N matrix:

    ours, sample / batch     NumbaSolver(steps=...): a step size per sample, or one for all
    SciPy                    solve_ivp(RK45), sample by sample; for a large batch some samples, with
                             their time scaled up
    torchdiffeq              odeint(dopri5), the batch as one state; one thread for small states,
                             where two were slower
    diffrax, sample / batch  Dopri5 with PIDController, jit; vmap over samples, or the batch as one
                             state

All run in turn, repeatedly; the time is the median, given with the smallest and the largest, and
excludes compilation. `fields` counts evaluations of the field per sample of the batch (under vmap
every sample counts as the slowest), `error` is the largest distance of a final state from one
computed with rtol = atol = 1e-11, in any unit of the first 64 samples.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from fsp_dynamics.experiments.execution import thread_limit
from fsp_dynamics.models.builders import loop_network
from fsp_dynamics.models.network import Network
from fsp_dynamics.models.rate import drive, zero_state
from fsp_dynamics.solvers.numba_ode import NumbaSolver

RTOL = ATOL = 1e-6
SPANS = {30: 20.0, 300: 20.0, 3000: 5.0}  # time units, so that no method takes minutes
SIZES = {30: (10, 15, 10, 5), 300: (50, 145, 145, 10), 3000: (784, 1495, 1495, 10)}
SAMPLES_OF_SCIPY = {30: 32, 300: 8, 3000: 2}  # of a batch, where all would take too long

Result = tuple[np.ndarray, float]  # end states (B, N) and evaluations of the field for each sample
Method = Callable[[], Result]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: seconds for the batch, and the ratio to ours with the same kind of
    step.
    """

    units: int
    batch: int
    solver: str
    seconds: float
    seconds_min: float
    seconds_max: float
    repeats: int
    fields: float
    error: float
    of_ours: float


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A batch that starts at zero."""

    network: Network
    images: np.ndarray
    span: float

    @staticmethod
    def of(units: int, batch: int) -> Task:
        """Glorot weights; images of random pixels, from faint to bright, so that samples are not
        all alike.
        """
        network = loop_network(SIZES[units], rho="logistic", dtype=np.float64, rng=0)
        rng = np.random.default_rng(1)
        return Task(network, rng.random((batch, SIZES[units][0])) * rng.uniform(0.1, 2.0, (batch, 1)), SPANS[units])

    def first(self, count: int) -> Task:
        """The first samples only."""
        return Task(self.network, self.images[:count], self.span)

    @property
    def drive(self) -> np.ndarray:
        return drive(self.network, self.images)


def ours(task: Task, steps: str, accuracy: float = RTOL) -> Method:
    solver, inputs, start = (
        NumbaSolver(rtol=accuracy, atol=accuracy, steps=steps),
        task.drive,
        zero_state(task.network, len(task.images)),
    )

    def run() -> Result:
        found = solver.integrate(task.network, inputs, start, None, np.array([0.0, task.span]))
        return found.states[-1], float(found.fields.mean())

    return run


def scipy_way(task: Task) -> Method:
    from scipy.integrate import solve_ivp

    network, inputs = task.network, task.drive
    (*forward, last), sizes = network.forward, network.sizes[1:]
    ends = np.cumsum(sizes)[:-1]
    assert network.loop is not None
    loop, biases = network.loop, network.biases
    few = min(len(inputs), SAMPLES_OF_SCIPY[sum(sizes)])

    def run() -> Result:
        states, fields = [], 0
        for b in range(few):

            def field(_: float, flat: np.ndarray, first: np.ndarray = inputs[b]) -> np.ndarray:
                r = 1 / (1 + np.exp(-flat))
                parts = np.split(r, ends)
                a = [first + parts[-1] @ loop, *(parts[k] @ w + biases[k + 1] for k, w in enumerate([*forward, last]))]
                return r * (1 - r) * np.concatenate(a) - flat

            found = solve_ivp(field, (0, task.span), np.zeros(sum(sizes)), "RK45", rtol=RTOL, atol=ATOL)
            states.append(found.y[:, -1])
            fields += found.nfev
        return np.array(states), fields / few

    return run


def torch_way(task: Task, threads: int) -> Method:
    import torch
    from torchdiffeq import odeint

    network = task.network
    threads = threads if task.images.shape[0] * sum(network.sizes[1:]) > 50_000 else 1
    first = torch.from_numpy(task.drive)
    weights, biases = [torch.from_numpy(w) for w in network.forward], [torch.from_numpy(b) for b in network.biases[1:]]
    loop = torch.from_numpy(network.loop)
    calls = 0

    def field(_: Any, state: Any) -> Any:
        nonlocal calls
        calls += 1
        rates = [torch.sigmoid(s) for s in state]
        a = [
            torch.addmm(first, rates[-1], loop),
            *(torch.addmm(b, r, w) for b, r, w in zip(biases, rates[:-1], weights, strict=True)),
        ]
        return tuple(r * (1 - r) * x - s for r, x, s in zip(rates, a, state, strict=True))

    start = tuple(torch.from_numpy(s) for s in zero_state(network, len(task.images)))
    times = torch.tensor([0.0, task.span], dtype=torch.float64)

    def run() -> Result:
        nonlocal calls
        calls = 0
        torch.set_num_threads(threads)
        with torch.no_grad():
            found = odeint(field, start, times, rtol=RTOL, atol=ATOL, method="dopri5")
        return np.concatenate([s[-1].numpy() for s in found], axis=1), calls

    return run


def diffrax_way(task: Task, steps: str) -> Method:
    import diffrax
    import jax

    jax.config.update("jax_enable_x64", True)
    jnp, network = jax.numpy, task.network
    weights, biases, loop = (
        [jnp.asarray(w) for w in network.forward],
        [jnp.asarray(b) for b in network.biases[1:]],
        jnp.asarray(network.loop),
    )
    inputs, start = jnp.asarray(task.drive), tuple(jnp.asarray(s) for s in zero_state(network, len(task.images)))

    def field(_: Any, state: Any, given: Any) -> Any:
        first, weights, biases, loop = given
        rates = [jax.nn.sigmoid(s) for s in state]
        a = [first + rates[-1] @ loop, *(r @ w + b for b, r, w in zip(biases, rates[:-1], weights, strict=True))]
        return tuple(r * (1 - r) * x - s for r, x, s in zip(rates, a, state, strict=True))

    def solve(state: Any, first: Any, weights: Any, biases: Any, loop: Any) -> Any:
        controller, given = diffrax.PIDController(rtol=RTOL, atol=ATOL), (first, weights, biases, loop)
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Dopri5(),
            0.0,
            task.span,
            None,
            state,
            given,
            stepsize_controller=controller,
            max_steps=None,
        )
        return found.ys, found.stats["num_steps"]

    solved = jax.jit(jax.vmap(solve, in_axes=(0, 0, None, None, None)) if steps == "sample" else solve)

    def run() -> Result:
        ends, taken = jax.block_until_ready(solved(start, inputs, weights, biases, loop))
        return np.concatenate([np.asarray(s[:, -1] if steps == "sample" else s[-1]) for s in ends], axis=1), 6.0 * int(
            np.max(taken)
        ) + 2

    return run


def all_methods(task: Task, threads: int) -> dict[str, Method]:
    """All installed methods, by name."""
    found = {
        "ours, sample": lambda: ours(task, "sample"),
        "ours, batch": lambda: ours(task, "batch"),
        "SciPy": lambda: scipy_way(task),
        "torchdiffeq, batch": lambda: torch_way(task, threads),
        "diffrax, sample": lambda: diffrax_way(task, "sample"),
        "diffrax, batch": lambda: diffrax_way(task, "batch"),
    }
    ready: dict[str, Method] = {}
    for name, make in found.items():
        try:
            ready[name] = make()
        except ImportError as error:
            Console(stderr=True).print(f"{name} is left out: {error}")
    return ready


def measure_one(units: int, batch: int, *, threads: int = 2, seconds: float = 4.0, repeats: int = 15) -> list[Row]:
    """The rows of one network and batch: turns until `seconds` have gone by, at least 2 and at
    most `repeats`.
    """
    task = Task.of(units, batch)
    with thread_limit(threads):
        exact = ours(task.first(64), "sample", 1e-11)()[0]
        methods = all_methods(task, threads)
        results = {name: method() for name, method in methods.items()}  # compiles
        took: dict[str, list[float]] = {name: [] for name in methods}
        begin = time.perf_counter()
        for turn in range(repeats):
            if turn >= 2 and time.perf_counter() - begin > seconds:
                break
            for name, method in methods.items():
                before = time.perf_counter()
                method()
                took[name].append((time.perf_counter() - before) * batch / len(results[name][0]))
    middle = {name: statistics.median(times) for name, times in took.items()}
    rows = []
    for name, times in took.items():
        states, fields = results[name]
        known = min(len(states), len(exact))
        error = float(np.abs(states[:known] - exact[:known]).max())
        twin = "ours, batch" if name.endswith("batch") else "ours, sample"
        rows.append(
            Row(
                units,
                batch,
                name,
                middle[name],
                min(times),
                max(times),
                len(times),
                fields,
                error,
                middle[name] / middle[twin],
            )
        )
    return rows


def table(rows: list[Row]) -> Table:
    """The rows, to be printed."""
    made = Table(title=f"paths in time, rtol = atol = {RTOL:g}, float64, {platform.processor() or platform.machine()}")
    for column in ("units", "batch", "solver", "ms (min - max)", "turns", "fields", "error", "times ours"):
        made.add_column(column, justify="left" if column == "solver" else "right")
    for _, group in itertools.groupby(rows, lambda r: (r.units, r.batch)):
        for r in group:
            spread = f"{1e3 * r.seconds:.4g} ({1e3 * r.seconds_min:.4g} - {1e3 * r.seconds_max:.4g})"
            made.add_row(
                str(r.units),
                str(r.batch),
                r.solver,
                spread,
                str(r.repeats),
                f"{r.fields:.0f}",
                f"{r.error:.1e}",
                f"{r.of_ours:.2f}",
            )
        made.add_section()
    return made


def measure(
    units: Sequence[int] = tuple(SIZES),
    batches: Sequence[int] = (1, 64, 1024),
    *,
    threads: int = 2,
    seconds: float = 4.0,
) -> list[Row]:
    """The rows of every network and batch."""
    rows: list[Row] = []
    for n, batch in itertools.product(units, batches):
        Console(stderr=True).print(f"{n} units, batch {batch} ...")
        rows += measure_one(n, batch, threads=threads, seconds=seconds)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trajectories",
        description="Integration in time compared with SciPy, torchdiffeq and diffrax.",
    )
    parser.add_argument("--units", nargs="+", type=int, default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 64, 1024])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0, help="about so many for each network and batch")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    given = parser.parse_args()
    rows = measure(given.units, given.batch, threads=given.threads, seconds=given.seconds)
    Console(width=150).print(table(rows))
    if given.json is not None:
        given.json.write_text(json.dumps([dataclasses.asdict(r) for r in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
