"""What can be changed in the explorer: one control for each parameter, with its range, and
`Parameters`, a value for each.

A control is a slider (`Number`), a list (`Choice`) or the drawing pad (`Pad`). Which there are
depends on what is explored: see `controls_of`.
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
    from fsp_dynamics.explorer.subject import Subject

ANY = "any"
STARTS = ("silent", "saturated", "random")
PLANES = ("principal", "two units")
RANDOM = "random"
PIECES = 9  # pieces of a sweep
VALUES = 27  # values of a sweep, at most


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the controls say. Durations and time steps are in the time unit of the time constants.

    sample : index of the image among the test images of class `label`. label : a class, as text,
        or "any". noise : standard deviation of Gaussian
    pixel noise, clipped to [0, 1] after it is added. drawing : the pixels of an image that was
    drawn, or None.
    beta : strength of the nudge; 0 makes the second phase free too. dt, integrator : step and
        method of the path.
    r : factor of the network's time constants. gain : factor of its loop. rho : its firing-rate
        function.
    free, nudged : durations of the phases. start : the state at time 0.
    source : "random", or the network or run that was given. seed : of the random network. epoch :
        of the run.
    learning_rate : factor of the learning rates of "apply one Hebbian update".
    plane : principal components of the path, or two units. unit_x, unit_y : flat indices of those
    units.
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
        """The value as `Parameters` holds it. Raises ConfigurationError for one that the control
        cannot have.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """What the page needs to build it."""
        ...


@dataclass(frozen=True, slots=True)
class Number:
    """A slider from low to high in steps, logarithmic if `log`; it snaps to the values `snap` when
    it comes near.
    """

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
        """The values of a sweep, at most VALUES, in increasing order, evenly spread on the slider."""
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


def controls_of(subject: Subject, sample: int = 0) -> tuple[Control, ...]:
    """Every control that has a part in exploring `subject`, grouped as on the page."""
    return (*_image(subject, sample), *_phases(), *_dynamics(subject), *_network(subject), *_view(subject))


def checked(controls: Sequence[Control], given: Mapping[str, Any]) -> Parameters:
    """The parameters that `given` names, all others at the default of their control.

    A parameter without a control has the one value that it can have. Raises ConfigurationError for
    unknown names and impossible values.
    """
    by_name = {control.name: control for control in controls}
    for name in given:
        if name not in by_name:
            raise ConfigurationError(f"the explorer has no parameter {name!r} here; {nearest(str(name), by_name)}")
    alone = {"drawing": None, "gain": 1.0, "source": RANDOM, "seed": 0, "epoch": 0, "unit_x": 0, "unit_y": 1}
    values = {**alone, **defaults(controls), **given}
    return Parameters(
        **{name: by_name[name].check(value) if name in by_name else value for name, value in values.items()}
    )


def defaults(controls: Sequence[Control]) -> dict[str, Any]:
    """{name: value} where every control stands at first."""
    return {control.name: control.default for control in controls}


def _image(subject: Subject, sample: int) -> list[Control]:
    images, classes = len(subject.images), tuple(map(str, range(subject.classes)))
    found: list[Control] = [
        Number(
            "sample",
            "image",
            "image",
            sample,
            0,
            images - 1,
            1,
            "which of the test images (of the class below)",
            integer=True,
        ),
        Choice("label", "class", "image", ANY, (ANY, *classes), "images of this class alone; of a drawing, its target"),
        Number("noise", "pixel noise", "image", 0.0, 0.0, 1.0, 0.02, "standard deviation of noise added to each pixel"),
    ]
    if subject.side is not None:
        found.append(Pad("drawing", "draw an image", "image", subject.side, "draws in place of the image"))
    return found


def _phases() -> list[Control]:
    return [
        Number(
            "beta", "β", "phases", 1.0, -0.9, 2.0, 0.05, "strength of the nudge; 0: none", "per time unit", snap=(0.0,)
        ),
        Number("free", "free phase", "phases", 20.0, 1.0, 60.0, 1.0, "duration", "time units"),
        Number("nudged", "nudged phase", "phases", 10.0, 0.0, 60.0, 1.0, "duration", "time units"),
    ]


def _dynamics(subject: Subject) -> list[Control]:
    found: list[Control] = [
        Choice(
            "integrator",
            "integrator",
            "dynamics",
            "rk4",
            tuple(TABLEAUX),
            "the method that follows the field, in constant steps",
        ),
        Number("dt", "step dt", "dynamics", 0.1, 0.01, 5.0, 0.01, "of the integrator", "time units", log=True),
        Number("r", "time constants ×", "dynamics", 1.0, 0.25, 2.0, 0.05, "factor of every layer's r", snap=(1.0,)),
    ]
    if subject.has_loop:
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
        Choice("rho", "activation ρ", "dynamics", subject.rho.name, subject.activations, "firing-rate function"),
        Choice("start", "initial state", "dynamics", "silent", STARTS, "of every unit at time 0"),
    ]


def _network(subject: Subject) -> list[Control]:
    found: list[Control] = []
    if subject.source != RANDOM:
        found.append(
            Choice(
                "source", "weights", "network", subject.source, (subject.source, RANDOM), "as given, or drawn at random"
            )
        )
    found.append(Number("seed", "random seed", "network", 0, 0, 99, 1, "of the random network", integer=True))
    if len(subject.epochs) > 1:
        kept = subject.epochs
        found.append(
            Number(
                "epoch",
                "epoch",
                "network",
                subject.start_epoch,
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


def _view(subject: Subject) -> list[Control]:
    last = sum(subject.sizes[1:]) - 1
    found: list[Control] = [
        Choice("plane", "phase plane", "view", PLANES[0], PLANES, "principal components of the path, or two units")
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
