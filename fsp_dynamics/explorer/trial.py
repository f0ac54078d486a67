"""One image shown to one network: its trajectory through both phases and the two equilibria."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.explorer.controls import ANY, Parameters
from fsp_dynamics.explorer.session import Session
from fsp_dynamics.learning.phases import Phases
from fsp_dynamics.learning.rules import Rule
from fsp_dynamics.learning.simulation import Piece, Trajectory, simulate
from fsp_dynamics.models import rate
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State
from fsp_dynamics.solvers.equilibrium import Equilibrium, Integrator, Solver, Tolerance
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.solvers.numba_ode import NumbaSolver
from fsp_dynamics.solvers.reference import ReferenceSolver

POINTS = 160  # approximate number of saved times
SETTLED = 1e-4  # residual at which a phase counts as settled, as in the presets
# of the equilibria
TOLERANCES = {np.dtype(np.float32): Tolerance(1e-5, 1e-6), np.dtype(np.float64): Tolerance(1e-10)}


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One image shown to one network under given parameters.

    network : with the parameters' loop, time constants and rho. images : (1, n_in).
    target : (1, n_L) one-hot, or None for a drawing without a class. label : the class, or None.
    row : index of the image among all test images. samples : number of test images of its class.
    nudge : of the second phase; None if that phase is free or absent. rule : the learning rule.
    """

    parameters: Parameters
    network: Network
    images: Array
    target: Array | None
    label: int | None
    row: int
    samples: int
    nudge: Nudge | None
    rule: Rule

    @classmethod
    def of(cls, session: Session, parameters: Parameters) -> Trial:
        """The trial with these parameters; `sample` counts within the class. Raises
        ConfigurationError for a beta that removes the leak of the output.
        """
        network, rows = session.network(parameters), session.rows(parameters.label)
        row = int(rows[parameters.sample])
        label: int | None = int(session.data.test.labels[row])
        image = shown_images(session, parameters, np.array([row]))[0]
        if parameters.drawing is not None:
            image, label = np.array(parameters.drawing), None if parameters.label == ANY else int(parameters.label)
            image = _noisy(image, parameters.noise, row)
        target = None if label is None else np.eye(session.classes, dtype=network.dtype)[[label]]
        nudge = (
            None if target is None or parameters.beta == 0 or parameters.nudged == 0 else Nudge(parameters.beta, target)
        )
        if nudge is not None:
            nudge.check(network, 1)
        images = image[None].astype(network.dtype)
        return cls(parameters, network, images, target, label, row, len(rows), nudge, session.rule)

    @property
    def pieces(self) -> list[Piece]:
        """The protocol: the free phase, and the nudged one unless its duration is 0."""
        given = self.parameters
        return [(given.free, None), (given.nudged, self.nudge)] if given.nudged else [(given.free, None)]

    @property
    def bounds(self) -> tuple[int, int]:
        """The range of initial states: 0 and 1 for a hard sigmoid; -4 and 4 for a smooth rho,
        where its rate is nearly 0 and 1.
        """
        return (0, 1) if self.network.rho.projected else (-4, 4)

    @property
    def start(self) -> State:
        """The initial state: zeros, the upper bound everywhere, or uniform within the bounds."""
        silent = rate.zero_state(self.network, 1)
        if self.parameters.start == "saturated":
            return tuple(s + self.bounds[1] for s in silent)
        if self.parameters.start == "random":
            rng = np.random.default_rng(self.parameters.seed)
            return tuple(rng.uniform(*self.bounds, s.shape).astype(s.dtype) for s in silent)
        return silent

    @property
    def stride(self) -> float:
        """Time between saved states: a whole number of steps, giving about POINTS saved states."""
        given = self.parameters
        return given.dt * max(1, math.ceil((given.free + given.nudged) / (POINTS * given.dt)))

    def times(self) -> Array:
        """(T,) saved times: after whole steps of dt, so that saving does not shorten a step, and at
        phase boundaries.
        """
        borders = np.cumsum([0.0, *(duration for duration, _ in self.pieces)])
        grids = [np.arange(begin, end, self.stride) for begin, end in itertools.pairwise(borders)]
        return np.unique(np.concatenate([*grids, borders]))

    def path(self, compiled: bool = True) -> Trajectory:
        """The trajectory through both phases; `compiled`: use the compiled kernels (compiling them
        takes seconds, once).
        """
        given = self.parameters
        kind = NumbaSolver if compiled else ReferenceSolver
        integrator: Integrator = kind(given.integrator, dt=given.dt)
        with np.errstate(over="ignore", invalid="ignore"):  # unstable steps are shown, too
            return simulate(
                self.network, self.images, self.pieces, solver=integrator, start=self.start, save=self.times()
            )

    def equilibria(self, path: Trajectory, compiled: bool = True) -> tuple[Equilibrium, Equilibrium]:
        """The free and the nudged equilibrium, found from the state at the end of each phase."""
        free = self._equilibrium(path, 0, None, None, compiled)
        return free, self._equilibrium(path, len(path.betas) - 1, self.nudge, free, compiled)

    def obstacle(self, free: Equilibrium, nudged: Equilibrium) -> str | None:
        """Why there is no update, or None if there is one."""
        if self.nudge is None:
            missing = (
                "a class for the drawing"
                if self.target is None
                else "a beta other than 0"
                if self.parameters.nudged
                else "a nudged phase"
            )
            return f"there is no nudged phase and so no update; choose {missing}"
        if not (free.converged.all() and nudged.converged.all()):
            return "a phase has no equilibrium, so there is no update; weaken the loop"
        return None

    def phases(self, free: Equilibrium, nudged: Equilibrium) -> Phases:
        """The phases of an update from both equilibria; for a rule with its own nudged phase the
        nudged equilibrium is computed by that rule. Raises ConfigurationError if there is an
        `obstacle`, or if the rule's nudged phase does not converge.
        """
        obstacle = self.obstacle(free, nudged)
        if obstacle is not None or self.nudge is None:
            raise ConfigurationError(str(obstacle))
        drive, tolerance = rate.drive(self.network, self.images), TOLERANCES[np.dtype(self.network.dtype)]
        reached = self.rule.relax_nudged(self.network, drive, free, self.nudge, _KnownSolver(nudged), tolerance)
        if not reached.converged.all():
            raise ConfigurationError(f"the nudged phase of rule {self.rule.name!r} does not converge; weaken the loop")
        return Phases(self.nudge.beta, free, np.arange(1), reached)

    def _equilibrium(
        self, path: Trajectory, piece: int, nudge: Nudge | None, before: Equilibrium | None, compiled: bool
    ) -> Equilibrium:
        last = np.flatnonzero(path.phase == piece)[-1]
        start = tuple(s[last] for s in path.states)
        if not all(np.isfinite(s).all() for s in start):
            start = self.start if before is None else before.state
        solver: Solver = FixedPointSolver() if compiled else ReferenceSolver(max_steps=500)
        drive = rate.drive(self.network, self.images)
        return solver.relax(self.network, drive, start, nudge, TOLERANCES[np.dtype(self.network.dtype)])


def shown_images(session: Session, parameters: Parameters, rows: Array) -> Array:
    """(B, n_in) float64, these test images with the noise of the parameters; an image's noise is
    drawn from its row.
    """
    return np.stack([_noisy(session.images[row].astype(np.float64), parameters.noise, int(row)) for row in rows])


def _noisy(image: Array, noise: float, row: int) -> Array:
    if not noise:
        return image
    return np.clip(image + noise * np.random.default_rng(row).normal(size=image.shape), 0, 1)


@dataclass(frozen=True, slots=True)
class _KnownSolver:
    """A solver that returns a known equilibrium."""

    equilibrium: Equilibrium

    def relax(
        self,
        network: Network,
        drive: Array,
        start: State | None = None,
        nudge: Nudge | None = None,
        tolerance: Tolerance | None = None,
    ) -> Equilibrium:
        """The known equilibrium."""
        return self.equilibrium
