"""The parameters of the explorer (`Parameters`) and a control for each, with its range.

A control is a slider (`Number`), a list (`Choice`) or the drawing pad (`Pad`). Which controls
exist depends on the session: see `controls_of`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fsp_dynamics.errors import ConfigurationError, check_choice, nearest
from fsp_dynamics.solvers.tableaux import TABLEAUX

if TYPE_CHECKING:
    from fsp_dynamics.explorer.session import Session

ANY = "any"
STARTS = ("silent", "saturated", "random")
PLANES = ("principal", "two units")
RANDOM = "random"
PIECES = 9  # pieces of a sweep
VALUES = 27  # values of a sweep, at most


@dataclass(frozen=True, slots=True)
class Parameters:
    """Values of the controls. Durations and time steps are in the unit of the time constants.

    sample : index of the image among the test images of class `label`. label : a class, as text,
        or "any". noise : standard deviation of Gaussian
        pixel noise; the sum is clipped to [0, 1]. drawing : the pixels of a drawn image, or None.
    beta : strength of the nudge; 0 makes the second phase free too. dt, integrator : step and
        method of the path.
    r : factor of the network's time constants. gain : factor of its loop. rho : its firing-rate
        function.
    free, nudged : durations of the phases. start : the state at time 0.
    source : "random", or the given network or run. seed : of the random network. epoch : of the
        run.
    learning_rate : factor of the learning rates of "apply one Hebbian update".
    plane : principal components of the trajectory, or two units. unit_x, unit_y : flat indices of
        those units.
    """

    sample: int
    label: str
    noise: float
    drawing: tuple[float, ...] | None
    beta: float
    dt: float
    integrator: str
    r: float
    gain: float
    rho: str
    free: float
    nudged: float
    start: str
    source: str
    seed: int
    epoch: int
    learning_rate: float
    plane: str
    unit_x: int
    unit_y: int


class Control(Protocol):
    """One control."""

    @property
    def name(self) -> str: ...

    @property
    def default(self) -> Any: ...

    def check(self, value: Any) -> Any:
        """The value in the form `Parameters` stores. Raises ConfigurationError for an invalid
        one.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """A description from which the page builds the control."""
        ...


@dataclass(frozen=True, slots=True)
class Number:
    """A slider from low to high in steps, logarithmic if `log`; it snaps to values in `snap`."""

    name: str
    label: str
    group: str
    default: float
    low: float
    high: float
    step: float
    help: str
    unit: str = ""
    log: bool = False
    integer: bool = False
    sweep: bool = True
    snap: tuple[float, ...] = ()

    def check(self, value: Any) -> float:
        whole = self.integer and isinstance(value, int | float) and math.isfinite(value) and value == int(value)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
            or (self.integer and not whole)
        ):
            raise ConfigurationError(
                f"{self.name} = {value!r}, expected a {'whole' if self.integer else 'finite'} number"
            )
        if not self.low <= value <= self.high:
            raise ConfigurationError(f"{self.name} = {value!r}, expected {self.low:g} to {self.high:g}")
        return int(value) if self.integer else float(value)

    def describe(self) -> dict[str, Any]:
        return {"kind": "number"} | dataclasses.asdict(self)

    def values(self) -> list[float]:
        """The values of a sweep, at most VALUES, increasing and evenly spaced along the slider."""
        if self.log:
            return [float(v) for v in np.geomspace(self.low, self.high, VALUES)]
        if self.integer and self.high - self.low < VALUES:
            return [float(v) for v in range(int(self.low), int(self.high) + 1)]
        spread = np.linspace(self.low, self.high, VALUES)
        return [float(v) for v in (np.unique(spread.round()) if self.integer else spread)]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several names."""

    name: str
    label: str
    group: str
    default: str
    choices: tuple[str, ...]
    help: str

    def check(self, value: Any) -> str:
        return check_choice(self.name, value, self.choices)

    def describe(self) -> dict[str, Any]:
        return {"kind": "choice"} | dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Pad:
    """An image to draw, `side` pixels wide and high."""

    name: str
    label: str
    group: str
    side: int
    help: str
    default: None = None

    def check(self, value: Any) -> tuple[float, ...] | None:
        if value is None:
            return None
        pixels = np.asarray(value, np.float64)
        if pixels.shape != (self.side**2,) or not (
            np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1
        ):
            raise ConfigurationError(
                f"{self.name} has shape {pixels.shape}, expected {self.side**2} pixels in [0, 1], or None"
            )
        return tuple(pixels.round(3).tolist())

    def describe(self) -> dict[str, Any]:
        return {"kind": "pad"} | dataclasses.asdict(self)


def controls_of(session: Session, sample: int = 0) -> tuple[Control, ...]:
    """All controls that apply to `session`, grouped as on the page."""
    return (*_image(session, sample), *_phases(), *_dynamics(session), *_network(session), *_view(session))


def checked(controls: Sequence[Control], given: Mapping[str, Any]) -> Parameters:
    """The parameters in `given`, all others at the default of their control.

    A parameter without a control has a fixed value. Raises ConfigurationError for unknown names
    and invalid values.
    """
    by_name = {control.name: control for control in controls}
    for name in given:
        if name not in by_name:
            raise ConfigurationError(f"the explorer has no parameter {name!r} here; {nearest(str(name), by_name)}")
    fixed = {"drawing": None, "gain": 1.0, "source": RANDOM, "seed": 0, "epoch": 0, "unit_x": 0, "unit_y": 1}
    values = {**fixed, **defaults(controls), **given}
    return Parameters(
        **{name: by_name[name].check(value) if name in by_name else value for name, value in values.items()}
    )


def defaults(controls: Sequence[Control]) -> dict[str, Any]:
    """{name: initial value} of every control."""
    return {control.name: control.default for control in controls}


def _image(session: Session, sample: int) -> list[Control]:
    images, classes = len(session.images), tuple(map(str, range(session.classes)))
    found: list[Control] = [
        Number(
            "sample",
            "image",
            "image",
            sample,
            0,
            images - 1,
            1,
            "index among the test images (of the class below)",
            integer=True,
        ),
        Choice("label", "class", "image", ANY, (ANY, *classes), "only images of this class; the target of a drawing"),
        Number("noise", "pixel noise", "image", 0.0, 0.0, 1.0, 0.02, "standard deviation of noise added to each pixel"),
    ]
    if session.side is not None and not session.coloured:
        found.append(Pad("drawing", "draw an image", "image", session.side, "replaces the image"))
    return found


def _phases() -> list[Control]:
    return [
        Number(
            "beta", "β", "phases", 1.0, -0.9, 2.0, 0.05, "strength of the nudge; 0: none", "per time unit", snap=(0.0,)
        ),
        Number("free", "free phase", "phases", 20.0, 1.0, 60.0, 1.0, "duration", "time units"),
        Number("nudged", "nudged phase", "phases", 10.0, 0.0, 60.0, 1.0, "duration", "time units"),
    ]


def _dynamics(session: Session) -> list[Control]:
    found: list[Control] = [
        Choice(
            "integrator",
            "integrator",
            "dynamics",
            "rk4",
            tuple(TABLEAUX),
            "the integration method, with a constant step",
        ),
        Number("dt", "step dt", "dynamics", 0.1, 0.01, 5.0, 0.01, "of the integrator", "time units", log=True),
        Number("r", "time constants ×", "dynamics", 1.0, 0.25, 2.0, 0.05, "factor of every layer's r", snap=(1.0,)),
    ]
    if session.has_loop:
        found.append(
            Number(
                "gain",
                "loop ×",
                "dynamics",
                1.0,
                0.0,
                10.0,
                0.05,
                "factor of the loop's weights; 0: pure feedforward",
                snap=(1.0,),
            )
        )
    return [
        *found,
        Choice("rho", "activation ρ", "dynamics", session.rho.name, session.activations, "firing-rate function"),
        Choice("start", "initial state", "dynamics", "silent", STARTS, "of every unit at time 0"),
    ]


def _network(session: Session) -> list[Control]:
    found: list[Control] = []
    if session.source != RANDOM:
        found.append(
            Choice("source", "weights", "network", session.source, (session.source, RANDOM), "as given, or random")
        )
    found.append(Number("seed", "random seed", "network", 0, 0, 99, 1, "of the random network", integer=True))
    if len(session.epochs) > 1:
        kept = session.epochs
        found.append(
            Number(
                "epoch",
                "epoch",
                "network",
                session.start_epoch,
                kept[0],
                kept[-1],
                1,
                "of the run",
                integer=True,
                snap=tuple(map(float, kept)),
            )
        )
    found.append(
        Number(
            "learning_rate",
            "learning rate ×",
            "network",
            1.0,
            0.01,
            10.0,
            0.01,
            "factor, for one update",
            log=True,
            sweep=False,
            snap=(1.0,),
        )
    )
    return found


def _view(session: Session) -> list[Control]:
    last = sum(session.sizes[1:]) - 1
    found: list[Control] = [
        Choice(
            "plane",
            "plane",
            "view",
            PLANES[0],
            PLANES,
            "principal components of the trajectory, or two units",
        )
    ]
    return found + [
        Number(
            f"unit_{axis}",
            f"unit on {axis}",
            "view",
            start,
            0,
            last,
            1,
            "counted through the layers, the output last",
            integer=True,
            sweep=False,
        )
        for axis, start in (("x", last - 1), ("y", last))
    ]
