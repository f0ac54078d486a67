"""The explorer without a page: parameters in, one frame out. No widget is imported here."""

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
from fsp_dynamics.explorer import summary as words
from fsp_dynamics.explorer import views
from fsp_dynamics.explorer.controls import PIECES, Number, Parameters, checked, controls_of, defaults
from fsp_dynamics.explorer.frame import Frame
from fsp_dynamics.explorer.scene import SETTLED, Scene
from fsp_dynamics.explorer.subject import TRAINED, Subject
from fsp_dynamics.learning.simulation import Trajectory
from fsp_dynamics.models.activations import ACTIVATIONS
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.solvers.equilibrium import Equilibrium

NUDGING = ("beta", "nudged")  # parameters that only the nudged phase knows
LABELS = {"input": "input", "loop": "loop"}  # of matrices that are not W1, W2, ...


@dataclasses.dataclass(slots=True)
class Model:
    """Everything the explorer can show of one subject.

    ready : names of the firing-rate functions whose kernels are compiled; with any other, plain
        NumPy does the same, to rounding, while they are compiled aside, so that no frame waits for
        the compiler. None: every frame waits for what it needs.
    """

    subject: Subject
    sample: int = 0
    ready: set[str] | None = None
    compiling: dict[str, threading.Thread] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        images = len(self.subject.images)
        if not (isinstance(self.sample, int | np.integer) and 0 <= self.sample < images):
            raise ConfigurationError(
                f"sample = {self.sample!r}, expected 0 to {images - 1}, the test images of {self.subject.data.name}"
            )
        self.sample = int(self.sample)

    @property
    def controls(self) -> list[dict[str, Any]]:
        """What the page needs to build its controls."""
        return [control.describe() for control in controls_of(self.subject, self.sample)]

    @property
    def defaults(self) -> dict[str, Any]:
        """Where every control stands at first."""
        return defaults(controls_of(self.subject, self.sample))

    @property
    def about(self) -> dict[str, Any]:
        """What does not change with the parameters: names and sizes."""
        subject, network = self.subject, self.subject.template
        sizes, layers = [int(n) for n in network.sizes], views.layers_in_words(network)
        return {
            "title": f"{'-'.join(map(str, sizes))}"
            + ("" if subject.run is None else f", run {subject.run.folder.name}"),
            "dataset": subject.data.name,
            "side": subject.side,
            "sizes": sizes,
            "layers": [
                {"name": name, "units": n, "shown": len(views.shown(n))}
                for name, n in zip(layers, sizes[1:], strict=True)
            ],
            "classes": [str(k) for k in range(subject.classes)],
            "matrices": [
                self._matrix(name, w) for name, w in network.parameters().items() if not name.startswith("biases")
            ],
        }

    def parameters(self, given: Mapping[str, Any]) -> Parameters:
        """Checked, all that is not given at its default. Raises ConfigurationError."""
        found = checked(controls_of(self.subject, self.sample), given)
        # the nearest epoch of which there is a network
        if found.source == TRAINED and self.subject.epochs:
            found = dataclasses.replace(
                found, epoch=min(self.subject.epochs, key=lambda epoch: abs(epoch - found.epoch))
            )
        return dataclasses.replace(found, sample=min(found.sample, len(self.subject.rows(found.label)) - 1))

    def scene(self, given: Mapping[str, Any]) -> Scene:
        """Image, network and nudge of these parameters. Raises ConfigurationError."""
        return Scene.of(self.subject, self.parameters(given))

    def network(self, given: Mapping[str, Any]) -> Network:
        """The network of these parameters, updates applied by hand included."""
        return self.scene(given).network

    def path(self, given: Mapping[str, Any]) -> Trajectory:
        """The path of these parameters."""
        scene = self.scene(given)
        return scene.path(self._compiled(scene.network))

    def frame(self, given: Mapping[str, Any]) -> Frame:
        """All views of these parameters, as the page draws them. Raises ConfigurationError for
        parameters that cannot be.
        """
        begin = time.perf_counter()
        scene = self.scene(given)
        path, rests = self._followed(scene)
        plane, axes = views.plane(scene, path, rests)
        spectra, abscissas, limit = views.spectra(scene, rests)
        updates, said = views.updates(scene, rests)
        alignment = self._alignment(scene.network)
        target = np.full(self.subject.classes, np.nan) if scene.target is None else scene.target[0]
        arrays = {
            "image": scene.images[0],
            **views.rasters(path),
            "target": target,
            "norms": views.norms(scene, path),
            **plane,
            **spectra,
            **updates,
        }
        arrays["history"] = self._history(scene.parameters, [each["label"] for each in alignment])
        readouts = self._readouts(scene, path, rests, abscissas, limit)
        readouts |= {
            "plane": axes,
            "alignment": alignment,
            "updates": [each | {"label": self._label(str(each["name"]))} for each in said],
        }
        readouts["text"] = words.sentence(scene, readouts)
        readouts["milliseconds"] = 1000 * (time.perf_counter() - begin)
        return Frame.of(arrays, readouts)

    def learn(self, given: Mapping[str, Any]) -> None:
        """One Hebbian update of the weights from this image. Raises ConfigurationError where there
        is none.
        """
        scene = self.scene(given)
        _, rests = self._followed(scene)
        self.subject.learn(scene.parameters, scene.images, scene.phases(*rests))

    def forget(self, given: Mapping[str, Any]) -> None:
        """The weights as they were before any update."""
        self.subject.forget(self.parameters(given))

    def sweep(self, given: Mapping[str, Any], name: str, piece: int) -> Frame:
        """One of PIECES pieces of a sweep over the control `name`: output rates converged, settle
        time and abscissa by value.

        They are those of the free phase, but for what the free phase does not know of (NUDGING):
        there they are those of the nudged one. Values that cannot be (a beta below -1/r, say) and
        rests that are not found are NaN. Raises ConfigurationError for what is no slider.
        """
        controls = {control.name: control for control in controls_of(self.subject, self.sample)}
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
            "rates": np.array([p[0] for p in points]).reshape(len(values), self.subject.classes),
            "settle": np.array([p[1] for p in points]),
            "abscissa": np.array([p[2] for p in points]),
        }
        return Frame.of(arrays, {"pieces": PIECES, "phase": "nudged" if name in NUDGING else "free"})

    def _followed(self, scene: Scene) -> tuple[Trajectory, tuple[Equilibrium, Equilibrium]]:
        """(path, free and nudged rest)."""
        compiled = self._compiled(scene.network)
        path = scene.path(compiled)
        return path, scene.rests(path, compiled)

    def _compiled(self, network: Network) -> bool:
        """Whether this network's kernels may be used. If they are not there yet, a thread sees to
        it that they are compiled.
        """
        name = network.rho.name
        if network.rho not in ACTIVATIONS.values():
            return False  # an activation of one's own is compiled in every process anew
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
        """(output rates converged, settle time, abscissa) of one phase, NaN where there is none."""
        nothing = np.full(self.subject.classes, np.nan)
        try:
            scene = self.scene(given if nudged else {**given, "nudged": 0.0})
        except FspError:
            return nothing, np.nan, np.nan
        path, rests = self._followed(scene)
        phase = -1 if nudged else 0
        rest, nudge, settle = rests[phase], scene.nudge if nudged else None, views.settle_times(path)[phase]
        if not rest.converged.all():
            return nothing, np.nan if settle is None else settle, np.nan
        abscissa = float(spectrum(scene.network, scene.images, rest, nudge).abscissa[0])
        return scene.network.rho.rate(rest.output[0]), np.nan if settle is None else settle, abscissa

    def _readouts(
        self,
        scene: Scene,
        path: Trajectory,
        rests: tuple[Equilibrium, Equilibrium],
        abscissas: list[float | None],
        limit: float | None,
    ) -> dict[str, Any]:
        learned = self.subject.weights(scene.parameters)[1]
        settle = views.settle_times(path)
        names = self.defaults
        return {
            "parameters": {
                name: value for name, value in dataclasses.asdict(scene.parameters).items() if name in names
            },
            "border": scene.parameters.free,
            "end": float(path.borders[-1]),
            **words.answers(path, scene.label),
            "target": scene.label,
            "settle_free": settle[0],
            "settle_nudged": settle[-1],
            "tolerance": SETTLED,
            "abscissa_free": abscissas[0],
            "abscissa_nudged": abscissas[1],
            "limits": {"dt": {"above": limit}, "beta": {"below": -1 / scene.network.time_constants[-1]}},
            "obstacle": scene.obstacle(*rests),
            "learned": learned,
            "samples": scene.samples,
            "code": words.code(self.subject, scene, learned),
        }

    def _alignment(self, network: Network) -> list[dict[str, Any]]:
        """The angle of each matrix of the loop; none in a network without one, None where a matrix
        is zero.
        """
        angles = {} if network.loop is None else loop_angles(network)
        return [
            {"label": name, "degrees": degrees if np.isfinite(degrees) else None} for name, degrees in angles.items()
        ]

    def _history(self, parameters: Parameters, names: list[str]) -> Array:
        """(E, 1 + A) epoch and angles of the run's metrics; no rows for other sources."""
        run = self.subject.run
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
