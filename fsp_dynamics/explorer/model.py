"""The explorer without its page: parameters in, one frame out. Imports no widget."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from fsp_dynamics.analysis.alignment import loop_angles
from fsp_dynamics.analysis.spectra import spectrum
from fsp_dynamics.errors import ConfigurationError, FspError
from fsp_dynamics.experiments.compiling import compile_aside
from fsp_dynamics.explorer import summary, views
from fsp_dynamics.explorer.controls import PIECES, Control, Number, Parameters, checked, controls_of, defaults
from fsp_dynamics.explorer.frame import Frame
from fsp_dynamics.explorer.informative import informative
from fsp_dynamics.explorer.session import TRAINED, Session
from fsp_dynamics.explorer.settling import missing_times, settle_times
from fsp_dynamics.explorer.trial import SETTLED, Trial
from fsp_dynamics.learning.simulation import Trajectory
from fsp_dynamics.models.activations import ACTIVATIONS
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.solvers.equilibrium import Equilibrium

NUDGING = ("beta", "nudged")  # parameters that affect only the nudged phase
LABELS = {"input": "input", "loop": "loop"}  # of matrices other than W1, W2, ...


@dataclasses.dataclass(slots=True)
class Model:
    """Computes frames of one session.

    sample : index of the image shown first. None: the first that is informative (`informative`).
    ready : names of the firing-rate functions whose kernels are compiled. For all others NumPy
        computes the same to rounding while a background thread compiles them, so that no frame
        waits for the compiler. None: frames wait for compilation.
    """

    session: Session
    sample: int | None = None
    ready: set[str] | None = None
    compiling: dict[str, threading.Thread] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        images = len(self.session.images)
        if self.sample is None:
            initial = checked(controls_of(self.session), {})
            self.sample = informative(self.session, initial, 0)
        if not (isinstance(self.sample, int | np.integer) and 0 <= self.sample < images):
            raise ConfigurationError(
                f"sample = {self.sample!r}, expected 0 to {images - 1}, the test images of {self.session.data.name}"
            )
        self.sample = int(self.sample)

    @property
    def controls(self) -> list[dict[str, Any]]:
        """Descriptions from which the page builds its controls."""
        return [control.describe() for control in self._controls()]

    @property
    def defaults(self) -> dict[str, Any]:
        """The initial value of every control."""
        return defaults(self._controls())

    @property
    def about(self) -> dict[str, Any]:
        """Names and sizes, which do not depend on the parameters."""
        session, network = self.session, self.session.template
        sizes, layers = [int(n) for n in network.sizes], views.layer_labels(network)
        return {
            "title": f"{'-'.join(map(str, sizes))}"
            + ("" if session.run is None else f", run {session.run.folder.name}"),
            "run": None if session.run is None else session.run.folder.name,
            "dataset": session.data.name,
            "side": session.side,
            "coloured": session.coloured,
            "sizes": sizes,
            "layers": [
                {"name": name, "units": n, "shown": len(views.shown(n))}
                for name, n in zip(layers, sizes[1:], strict=True)
            ],
            "classes": [str(k) for k in range(session.classes)],
            "matrices": [
                self._matrix(name, w) for name, w in network.parameters().items() if not name.startswith("biases")
            ],
        }

    def parameters(self, given: Mapping[str, Any]) -> Parameters:
        """Validated parameters; missing ones take their defaults. Raises ConfigurationError."""
        found = checked(self._controls(), given)
        # the nearest epoch whose network was kept
        if found.source == TRAINED and self.session.epochs:
            found = dataclasses.replace(
                found, epoch=min(self.session.epochs, key=lambda epoch: abs(epoch - found.epoch))
            )
        return dataclasses.replace(found, sample=min(found.sample, len(self.session.rows(found.label)) - 1))

    def trial(self, given: Mapping[str, Any]) -> Trial:
        """Image, network and nudge of these parameters. Raises ConfigurationError."""
        return Trial.of(self.session, self.parameters(given))

    def network(self, given: Mapping[str, Any]) -> Network:
        """The network of these parameters, including manually applied updates."""
        return self.trial(given).network

    def path(self, given: Mapping[str, Any]) -> Trajectory:
        """The trajectory of these parameters."""
        trial = self.trial(given)
        return trial.path(self._compiled(trial.network))

    def frame(self, given: Mapping[str, Any]) -> Frame:
        """All views of these parameters, as the page draws them. Raises ConfigurationError for
        invalid parameters.
        """
        begin = time.perf_counter()
        trial = self.trial(given)
        path, equilibria = self._simulated(trial)
        plane, axes = views.plane(trial, path, equilibria)
        spectra, abscissas, limit = views.spectra(trial, equilibria)
        updates, statistics = views.updates(trial, equilibria)
        alignment = self._alignment(trial.network)
        target = np.full(self.session.classes, np.nan) if trial.target is None else trial.target[0]
        arrays = {
            "image": trial.images[0],
            **views.rasters(path),
            "target": target,
            "norms": views.norms(trial, path),
            **plane,
            **spectra,
            **updates,
        }
        arrays["history"] = self._history(trial.parameters, [each["label"] for each in alignment])
        readouts = self._readouts(trial, path, equilibria, abscissas, limit)
        readouts |= {
            "plane": axes,
            "alignment": alignment,
            "updates": [each | {"label": self._label(str(each["name"]))} for each in statistics],
        }
        readouts |= {"text": summary.description(trial, readouts), "remark": summary.remark(trial, readouts)}
        readouts["milliseconds"] = 1000 * (time.perf_counter() - begin)
        return Frame.of(arrays, readouts)

    def learn(self, given: Mapping[str, Any]) -> None:
        """Apply one Hebbian update from this image to the weights. Raises ConfigurationError if
        there is none.
        """
        trial = self.trial(given)
        _, equilibria = self._simulated(trial)
        self.session.learn(trial.parameters, trial.images, trial.phases(*equilibria))

    def forget(self, given: Mapping[str, Any]) -> None:
        """Restore the weights from before any update."""
        self.session.forget(self.parameters(given))

    def sweep(self, given: Mapping[str, Any], name: str, piece: int) -> Frame:
        """One of PIECES pieces of a sweep over the control `name`: equilibrium output rates,
        settle time and abscissa by value.

        They are those of the free phase, or of the nudged phase for parameters that affect only
        that one (NUDGING). Invalid values (such as beta below -1/r) and equilibria that are not
        found give NaN. Raises ConfigurationError for a control that is not a slider.
        """
        controls = {control.name: control for control in self._controls()}
        control = controls.get(name)
        if not isinstance(control, Number):
            sliders = [known for known, each in controls.items() if isinstance(each, Number)]
            raise ConfigurationError(f"sweep over {name!r}, expected one of: {', '.join(sliders)}")
        if piece not in range(PIECES):
            raise ConfigurationError(f"piece = {piece!r}, expected 0 to {PIECES - 1}")
        values = [int(v) if control.integer else v for v in np.array_split(control.values(), PIECES)[piece].tolist()]
        points = [self._point({**given, name: value}, name in NUDGING) for value in values]
        arrays = {
            "values": np.array(values),
            "rates": np.array([p[0] for p in points]).reshape(len(values), self.session.classes),
            "settle": np.array([p[1] for p in points]),
            "abscissa": np.array([p[2] for p in points]),
        }
        return Frame.of(arrays, {"pieces": PIECES, "phase": "nudged" if name in NUDGING else "free"})

    def next_informative(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters with the next informative image after `sample`, of class `label`, under
        this network and noise; without a drawing.
        """
        found = self.parameters(given)
        sample = informative(self.session, found, found.sample + 1)
        return {**given, "sample": sample} | ({"drawing": None} if "drawing" in given else {})

    def _controls(self) -> tuple[Control, ...]:
        return controls_of(self.session, int(self.sample or 0))

    def _simulated(self, trial: Trial) -> tuple[Trajectory, tuple[Equilibrium, Equilibrium]]:
        """(trajectory, (free equilibrium, nudged equilibrium))."""
        compiled = self._compiled(trial.network)
        path = trial.path(compiled)
        return path, trial.equilibria(path, compiled)

    def _compiled(self, network: Network) -> bool:
        """Whether the compiled kernels of this network can be used; otherwise starts a thread that
        compiles them.
        """
        name = network.rho.name
        if network.rho not in ACTIVATIONS.values():
            return False  # custom activations would be compiled anew in every process
        if self.ready is None or name in self.ready:
            return True
        if name not in self.compiling:
            self.compiling[name] = threading.Thread(
                target=self._compile, args=(network,), name=f"compiles {name}", daemon=True
            )
            self.compiling[name].start()
        return False

    def _compile(self, network: Network) -> None:
        compile_aside(network)
        if self.ready is not None:
            self.ready.add(network.rho.name)

    def _point(self, given: Mapping[str, Any], nudged: bool) -> tuple[Array, float, float]:
        """(equilibrium output rates, settle time, abscissa) of one phase, NaN where undefined."""
        nothing = np.full(self.session.classes, np.nan)
        try:
            trial = self.trial(given if nudged else {**given, "nudged": 0.0})
        except FspError:
            return nothing, np.nan, np.nan
        path, equilibria = self._simulated(trial)
        phase = -1 if nudged else 0
        equilibrium, nudge, settle = equilibria[phase], trial.nudge if nudged else None, settle_times(path)[phase]
        if not equilibrium.converged.all():
            return nothing, np.nan if settle is None else settle, np.nan
        abscissa = float(spectrum(trial.network, trial.images, equilibrium, nudge).abscissa[0])
        return trial.network.rho.rate(equilibrium.output[0]), np.nan if settle is None else settle, abscissa

    def _readouts(
        self,
        trial: Trial,
        path: Trajectory,
        equilibria: tuple[Equilibrium, Equilibrium],
        abscissas: list[float | None],
        limit: float | None,
    ) -> dict[str, Any]:
        learned = self.session.weights(trial.parameters)[1]
        settle = settle_times(path)
        missing = missing_times(path, abscissas, trial.parameters.dt, limit)
        names = self.defaults
        return {
            "parameters": {
                name: value for name, value in dataclasses.asdict(trial.parameters).items() if name in names
            },
            "border": trial.parameters.free,
            "end": float(path.borders[-1]),
            **summary.predictions(path, trial.label),
            "target": trial.label,
            "settle_free": settle[0],
            "settle_nudged": settle[-1],
            "missing_free": missing[0],
            "missing_nudged": missing[-1],
            "tolerance": SETTLED,
            "abscissa_free": abscissas[0],
            "abscissa_nudged": abscissas[1],
            "limits": {"dt": {"above": limit}, "beta": {"below": -1 / trial.network.time_constants[-1]}},
            "obstacle": trial.obstacle(*equilibria),
            "learned": learned,
            "samples": trial.samples,
            "code": summary.code(self.session, trial, learned),
        }

    def _alignment(self, network: Network) -> list[dict[str, Any]]:
        """The angle of each matrix of the loop (None for a zero matrix); empty without a loop."""
        angles = {} if network.loop is None else loop_angles(network)
        return [
            {"label": name, "degrees": degrees if np.isfinite(degrees) else None} for name, degrees in angles.items()
        ]

    def _history(self, parameters: Parameters, names: list[str]) -> Array:
        """(E, 1 + A) epoch and angles from the metrics of the run; no rows for other sources."""
        run = self.session.run
        if run is None or parameters.source != TRAINED or not names:
            return np.empty((0, 1 + len(names)))
        rows = [[record["epoch"], *(record["alignment_degrees"].get(name) for name in names)] for record in run.metrics]
        return np.array(rows, float).reshape(len(rows), 1 + len(names))

    def _matrix(self, name: str, weight: Array) -> dict[str, Any]:
        rows, columns = views.picture_shape(weight)
        return {
            "name": name,
            "label": self._label(name),
            "pre": weight.shape[0],
            "post": weight.shape[1],
            "rows": rows,
            "cols": columns,
        }

    def _label(self, name: str) -> str:
        """W1 for forward[0], and so on; backward[0] is B1."""
        kind, _, index = name.partition("[")
        return LABELS.get(name) or f"{'W' if kind == 'forward' else 'B'}{int(index[:-1]) + 1}"
