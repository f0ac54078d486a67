"""`Run`: a run on disk, read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt

from fsp_dynamics.datasets import Dataset
from fsp_dynamics.datasets.formats import ImageFormat
from fsp_dynamics.display import html_table
from fsp_dynamics.errors import CheckpointError, ConfigurationError, check_choice
from fsp_dynamics.experiments import execution
from fsp_dynamics.experiments.backend import NUMBA, Backend, backend_of
from fsp_dynamics.experiments.checkpoint import has_checkpoint, kept_epochs
from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.folder import Record, RunFolder
from fsp_dynamics.experiments.import_path import as_modules
from fsp_dynamics.experiments.objects import DATA, GIVEN, RHO, RULE, Objects
from fsp_dynamics.experiments.records import flat
from fsp_dynamics.experiments.restoring import load_state
from fsp_dynamics.experiments.trainer import Resources, trainer_of
from fsp_dynamics.folders import expanded
from fsp_dynamics.training.ranks import ALONE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

Which = Literal["best", "last"]
PARTS = ("train", "valid", "test")
UNITS = {
    **dict.fromkeys(("train_error", "valid_error", "test_error", "raw_valid_error", "raw_test_error"), "%"),
    **dict.fromkeys(
        ("alignment_degrees", "alignment.degrees", "samples.mean", "samples.std", "gradient.degrees"), "degrees"
    ),
    **{"residual": "1", "stability.abscissa": "1 / time", "stability.settle_time": "time"},
    **{"seconds": "s", "images_per_second": "1 / s"},
}
EIGENVALUES = "stability.eigenvalues"  # lists of pairs, which are no column of a table


@dataclass(frozen=True, slots=True)
class Run:
    """A run on disk.

    folder : where it is. config : what it is. metrics : one record for each finished epoch.
        summary : best epoch and last. objects : the origin of rules, firing rates and data of one's
        own.

    >>> import fsp_dynamics as fsp
    >>> given = {"data": {"limit": 40}, "probes": {"keep": 1}, "progress": False}
    >>> run = fsp.train("digits", epochs=2, out="runs/a", **given)
    >>> run.config.learning.epochs, run.kept, run.probes[0]["epoch"]
    (2, (0, 1, 2), 0)
    >>> run.network("last").sizes, run.data().train.images.shape, run.image_format().shape
    ((64, 100, 100, 10), (40, 64), (8, 8))
    >>> run.evaluate("valid").unconverged, len(run.predict(run.data().test.images[:3]))
    (0, 3)
    >>> len(run.to_frame()), len(run.plot(path="a.png").axes) > 1
    (2, True)
    """

    folder: Path
    config: Config
    metrics: list[Record]
    summary: Record
    objects: Objects = field(default_factory=Objects, repr=False)

    def __repr__(self) -> str:
        best = self.summary.get("best") or {}
        errors = ", ".join(
            f"{part} {best[key]:.2f} %" for part in PARTS if best.get(key := f"{part}_error") is not None
        )
        found = f"; best epoch {best['epoch']}, errors: {errors}" if best else ""
        count, status = len(self.metrics), self.summary.get("status", "unfinished")
        return f"<Run {self.folder}: {status}, {count} epoch{'s' * (count != 1)}{found}>"

    def _repr_html_(self) -> str:
        best = self.summary.get("best") or {}
        errors = {
            f"{part} error": f"{best[key]:.2f} %" for part in PARTS if best.get(key := f"{part}_error") is not None
        }
        status = {"status": self.summary.get("status", "unfinished"), "epochs": len(self.metrics)}
        return html_table(f"Run {self.folder}", {**status, "best epoch": best.get("epoch", "none"), **errors})

    @property
    def probes(self) -> list[Record]:
        """What was measured of the network, by `epoch`: 0 before the first, fractions within one
        (`analysis.probe.Probe.look` for rate networks).
        """
        return RunFolder(self.folder).probes()

    @property
    def kept(self) -> tuple[int, ...]:
        """The epochs after which the network was kept (`probes.keep`), in order; 0 is before the
        first.
        """
        return kept_epochs(RunFolder(self.folder).checkpoints)

    def network(self, which: Which | int = "best") -> Any:
        """The network of the best epoch (by validation error), of the last one, or of an epoch
        that was `kept`; verified, and refused where it belongs to another run or configuration.
        Raises CheckpointError, NotFiniteError, NotAFileError.

        A `models.network.Network` where the family is "rate".

        Returns
        -------
        Network : for the family "rate".
        """
        if which in ("best", "last"):
            _require_checkpoint(RunFolder(self.folder), str(which))
        state, _ = load_state(RunFolder(self.folder), which, self.config)
        return trainer_of(self.config.family).network_of(self.config, state.parameters, self.objects)

    def data(self, data_dir: str | Path | None = None) -> Dataset:
        """The images of the run. Raises DatasetError for others than it was begun with.

        Returns
        -------
        Dataset : the same images.
        """
        data = execution.load_data(self.config.data, data_dir, self.objects)
        recorded = RunFolder(self.folder).environment().get("data")
        if recorded:  # runs of before did not record what they read
            data.check_fingerprint(recorded)
        return data

    def evaluate(
        self,
        split: str = "test",
        which: Which | int = "best",
        *,
        data_dir: str | Path | None = None,
        threads: int | None = None,
        backend: Backend | str = NUMBA,
        device: str | None = None,
        products: str | None = None,
    ) -> Any:
        """What that network does on a part of the data ("train", "valid" or "test"):
        `training.evaluation.Evaluation` where the family is "rate". Raises ConfigurationError for
        an empty part.

        backend, device, products : as for `train`.

        Returns
        -------
        Evaluation : for the family "rate".
        """
        check_choice("split", split, PARTS)
        chosen, network = backend_of(backend, device, products), self.network(which)
        resources = Resources(chosen, ALONE, objects=self.objects, restored=True)
        data = self.data(data_dir)
        # it may import torch, whose threads are limited too
        trainer = trainer_of(self.config.family).build(self.config, data, resources, network)
        with execution.thread_limit(threads):
            found = trainer.evaluate(split)
        if found is None:
            raise ConfigurationError(f"split = {split!r} has no images in {self.folder}; choose another part")
        return found

    def image_format(self, data_dir: str | Path | None = None) -> ImageFormat:
        """What further images must be, to be seen as those it was trained on. Raises as `data`,
        which is read for it where a run of before did not record it.

        Returns
        -------
        ImageFormat : shape, names of the classes and what bytes are divided by.
        """
        recorded = RunFolder(self.folder).environment().get("images")
        return ImageFormat.of(recorded) if recorded else self.data(data_dir).format

    def predict(
        self,
        images: npt.ArrayLike,
        which: Which | int = "best",
        *,
        data_dir: str | Path | None = None,
        threads: int | None = None,
        backend: Backend | str = NUMBA,
        device: str | None = None,
        products: str | None = None,
    ) -> Any:
        """What that network, which is the one that `evaluate` judges, takes images for:
        `training.prediction.Prediction` where the family is "rate".

        images : (B, h w) or (B, h, w), one or more, scaled as in training: bytes are divided by
            what those of the data set were divided by, floats in [0, 1] and truth values are taken
            as they are.
        data_dir : where to look for the data of a run of before, which did not record what its
            images were. backend, device, products : as for `train`.

        Raises ShapeError for images of another size, NotFiniteError, ConfigurationError for other
        numbers and for a family that predicts nothing; as `network`.

        Returns
        -------
        Prediction : for the family "rate": classes (B,), scores (B, n_L), converged (B,).

        >>> import fsp_dynamics as fsp
        >>> run = fsp.train("digits", epochs=1, data={"limit": 40}, progress=False)
        >>> run.image_format().shape, run.predict(run.data().test.images[:3]).scores.shape
        ((8, 8), (3, 10))
        """
        chosen, trainer = backend_of(backend, device, products), trainer_of(self.config.family)
        if not hasattr(trainer, "predict"):
            raise ConfigurationError(f"family = {self.config.family!r} has no method predict, so it has no predictions")
        known = self.image_format(data_dir)
        inputs, network = known.inputs(images), self.network(which)
        with execution.thread_limit(threads):
            return trainer.predict(self.config, network, inputs, known, Resources(chosen, ALONE, objects=self.objects))

    def to_frame(self, which: Literal["metrics", "probes"] = "metrics") -> DataFrame:
        """A pandas.DataFrame of the metrics, a row for each finished epoch, or of the probes, a row
        for each record but their eigenvalues; tables by dotted keys (alignment_degrees.W1).
        `.to_csv(path)` saves it.

        saturation.LAYER.0 and .1 : shares of its rates at 0 and at 1. stuck_units.LAYER.0 and .1 :
        how many of its units are at 0, and at 1, on every image. dead_outputs : the units, as text.
        spikes.layers.LAYER. and what `layerwise.spike_counts.LayerSpikes` has : of spiking units.
        Units are in `attrs["units"]`: errors in percent, angles in degrees, residuals per
        unit time.

        Returns
        -------
        pandas.DataFrame : a row for each epoch, or each record.
        """
        import pandas

        records = self.metrics if check_choice("which", which, ("metrics", "probes")) == "metrics" else self.probes
        rows = [{key: value for key, value in flat(each).items() if EIGENVALUES not in key} for each in records]
        frame = pandas.DataFrame(rows)
        frame.attrs["units"] = {
            key: unit for key in frame.columns for start, unit in UNITS.items() if key.startswith(start)
        }
        return frame

    def plot(self, ax: Axes | Sequence[Axes] | None = None, *, path: str | Path | None = None) -> Figure:
        """The learning curve and beside it the loop's angles (`plotting.plot_run`); `path`: the
        picture is also written there.

        Returns
        -------
        matplotlib.figure.Figure : that of the axes.
        """
        from fsp_dynamics.plotting import plot_run

        if path is not None:
            path = expanded(path, "path")
            path.parent.mkdir(parents=True, exist_ok=True)
        return plot_run(self.metrics, ax, path=path)


def _require_checkpoint(files: RunFolder, which: str) -> None:
    """Raises CheckpointError, with what there is instead, where that checkpoint is missing."""
    if has_checkpoint(files.checkpoints, which):
        return
    remedy = "restore it"
    if which == "best" and (files.checkpoints / "last.json").is_file():
        remedy = "take the last network (which='last')"
    elif not files.metrics():
        remedy = f"no epoch is finished, so begin with that: fsp train {files.path} --resume"
    path = files.checkpoints / f"{which}.json"
    raise CheckpointError(f"the {which} checkpoint is missing: no file {path}; {remedy}")


def open_run(
    folder: str | Path,
    *,
    allow_import: Sequence[str] = (),
    rule: Any = None,
    activation: Any = None,
    data: Dataset | None = None,
    objects: Objects | None = None,
) -> Run:
    """The run in that folder.

    allow_import : modules from which rules and firing rates may be imported that the run names by
        their import path.
    rule, activation, data : objects that the run was given in Python, once more.
    objects : all of these in one.

    Raises ConfigurationError if there is no run, or if data are given to a run that reads its own;
    DatasetError for other images than the run began with. What cannot be read back is refused
    where it is needed: the metrics of any run can be read.

    Returns
    -------
    Run : its configuration, metrics and summary; networks and images are read when asked for.

    >>> import fsp_dynamics as fsp
    >>> run = fsp.train("digits", epochs=1, data={"limit": 40}, out="runs/a", progress=False)
    >>> open_run("runs/a").metrics == run.metrics
    True
    """
    files = RunFolder(expanded(folder, "run")).require_run()
    config = files.config()
    if data is not None and not str(config.data.name).startswith(GIVEN):
        raise ConfigurationError(f"data: {files.path} reads its own images, {config.data.label}; leave data out")
    if data is not None:
        data.check_fingerprint(files.environment().get("data") or data.fingerprint())
    if objects is None:
        texts = {DATA: config.data.name, RULE: config.key(RULE), RHO: config.key(RHO)}
        given = {DATA: data, RULE: rule, RHO: activation}
        objects = Objects(
            as_modules(allow_import),
            {(key, str(texts[key])): thing for key, thing in given.items() if thing is not None},
        )
    metrics = files.metrics()
    return Run(files.path, config, metrics, files.summary(metrics), objects)
