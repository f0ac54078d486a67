"""`sweep`: one configuration, a grid of values, several seeds; run side by side, each in a run
folder of its own, and summarised in one table.

    OUT/sweep.json      what the sweep is: source, fields of the grid, configuration, members
    OUT/NAME/           a run folder for each member: beta=0.5-seed=0, ...
    OUT/results.csv     one row for each member
    OUT/summary.csv     one row for each point of the grid: mean over its seeds, standard deviation,
                        95 % interval
    OUT/figures/        sweep.png and sweep.svg: the test error by the grid

The last three are written at the end, also when the sweep is stopped. Called again it runs what is
missing and nothing else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsp_dynamics.display import html_table
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments import execution
from fsp_dynamics.experiments.backend import NUMBA, Backend, backend_of
from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.folder import Record, RunFolder
from fsp_dynamics.experiments.objects import Objects
from fsp_dynamics.experiments.progress import in_charge
from fsp_dynamics.experiments.records import ANGLE
from fsp_dynamics.experiments.stopping import Interrupted, stoppable
from fsp_dynamics.experiments.sweeps.cluster import Cluster, connected
from fsp_dynamics.experiments.sweeps.plan import EPOCHS, Planned, enter, make_plan, read_sweep, with_known_names
from fsp_dynamics.experiments.sweeps.reporter import MemberReporter, sweep_reporter
from fsp_dynamics.experiments.sweeps.space import DRAWS, Draws
from fsp_dynamics.experiments.sweeps.table import points, to_csv, with_angles
from fsp_dynamics.experiments.sweeps.workers import Attempt, Pool, Processes, ThisProcess, run_members
from fsp_dynamics.experiments.trainer import Resources, trainer_of
from fsp_dynamics.folders import expanded, expanded_source
from fsp_dynamics.training.ranks import ALONE
from fsp_dynamics.writing import write_aside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

PICTURES = ("sweep.png", "sweep.svg")
UNITS = {**dict.fromkeys(("train_error", "valid_error", "test_error"), "%"), "seconds": "s"}


@dataclass(frozen=True, slots=True)
class Member:
    """One run of a sweep.

    folder : where it is. values : {dotted key: value} of the grid. seed : its seed. status :
        finished, failed, interrupted, unfinished or not begun.
    summary : its summary.json; {} before there is one. reason : why it failed, if it did.
    """

    folder: Path
    values: Record
    seed: int
    status: str
    summary: Record
    reason: str = ""

    def __repr__(self) -> str:
        error = (self.summary.get("best") or {}).get("test_error")
        shown = "" if error is None else f", test error {error:.2f} %"
        return f"<Member {self.folder.name}: {self.status}{shown}>"

    def row(self) -> Record:
        """One row of a table: what it is, how it ended, and what its best epoch (by validation
        error) achieved.
        """
        best = self.summary.get("best") or {}
        return {
            "member": self.folder.name,
            **self.values,
            "seed": self.seed,
            "status": self.status,
            "epochs": self.summary.get("epochs", 0),
            "best_epoch": best.get("epoch"),
            **{key: best.get(key) for key in ("train_error", "valid_error", "test_error")},
            "seconds": self.summary.get("seconds", 0.0),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep on disk. folder : where it is. fields : the dotted keys in which members differ.
    members : its runs, by values and seed.

    >>> given = {"data": {"limit": 40}, "epochs": 1, "progress": False}
    >>> found = sweep("digits", seeds=1, grid={"beta": [0.5, 1.0]}, out="sweeps/beta", **given)
    >>> found.fields, len(found.members), len(found.failed), len(found.points())
    (('learning.beta',), 2, 0, 2)
    >>> found.rows()[0]["member"], len(found.to_frame()), len(found.plot(path="sweep.png").axes)
    ('beta=0.5-seed=0', 2, 1)
    """

    folder: Path
    fields: tuple[str, ...]
    members: tuple[Member, ...]

    def __repr__(self) -> str:
        finished = sum(member.status == "finished" for member in self.members)
        grid = ", ".join(self.fields) or "seeds alone"
        return f"<Sweep {self.folder} over {grid}: {finished} of {len(self.members)} runs finished>"

    def _repr_html_(self) -> str:
        rows = {member.folder.name: _brief(member) for member in self.members}
        return html_table(f"Sweep {self.folder}: test errors", rows)

    @property
    def failed(self) -> tuple[Member, ...]:
        """The members that failed twice."""
        return tuple(member for member in self.members if member.status == "failed")

    def rows(self) -> list[Record]:
        """One record for each member (`Member.row`), with its angles at the best epoch in degrees:
        `angle_W1`, ..., `angle_loop`; None for one that it does not have.

        Returns
        -------
        list of dict : by values and seed.
        """
        return with_angles((member.row() for member in self.members), (_angles(member) for member in self.members))

    def points(self) -> list[Record]:
        """One record for each point of the grid: `sweeps.table.points`.

        Returns
        -------
        list of dict : in the order of the grid.
        """
        return points(self.fields, self.rows())

    def to_frame(self) -> DataFrame:
        """A pandas.DataFrame with a row for each member (`rows`). Units are in `attrs["units"]`:
        errors in percent, seconds, degrees.

        Returns
        -------
        pandas.DataFrame : a row for each member.
        """
        import pandas

        frame = pandas.DataFrame(self.rows())
        angles = {key: "degrees" for key in frame.columns if key.startswith(ANGLE)}
        frame.attrs["units"] = {key: UNITS[key] for key in frame.columns if key in UNITS} | angles
        return frame

    def plot(self, ax: Axes | None = None, *, path: str | Path | None = None) -> Figure:
        """The test error by the grid, every seed a dot, with means and intervals
        (`plotting.sweep.plot_sweep`); `path`: it is also written there.

        Returns
        -------
        matplotlib.figure.Figure : that of the axes.
        """
        from fsp_dynamics.plotting import save_figure
        from fsp_dynamics.plotting.sweep import plot_sweep

        figure = plot_sweep(self.fields, self.rows(), self.points(), ax)
        if path is not None:
            path = expanded(path, "path")
            path.parent.mkdir(parents=True, exist_ok=True)
            save_figure(figure, path)
        return figure


def sweep(
    source: str | Path | Config | Mapping[str, Any],
    *,
    seeds: int | Sequence[int] = 5,
    grid: Mapping[str, Iterable[Any]] | None = None,
    pairs: Mapping[str, Iterable[Any]] | None = None,
    random: Mapping[str, str] | None = None,
    draws: int = DRAWS,
    draw_seed: int = 0,
    jobs: int = 1,
    scheduler: str | None = None,
    out: str | Path | None = None,
    progress: bool | Callable[[Record], None] | MemberReporter = True,
    data_dir: str | Path | None = None,
    threads: int | None = None,
    backend: Backend | str = NUMBA,
    device: str | None = None,
    products: str | None = None,
    allow_import: Sequence[str] = (),
    **overrides: Any,
) -> Sweep:
    """Run `source` with every point of a space and every seed, each in a run folder below `out`;
    what is finished there is not run again.

    Parameters
    ----------
    source : a preset, a TOML file, a run folder, a `Config` or a nested mapping, as `train` takes
        it.
    seeds : how many, from 0 on (5 is 0, 1, 2, 3, 4), or which.
    grid : {key: values}; a dotted key of the configuration or the end of one that no other has
        ("beta" for learning.beta).
    pairs : {key: values}, as many of each key, which go together. random : {key: distribution},
        such as "log:1,100"; `draws` points are drawn, more of them the same ones and more
        (`sweeps.space`). Grid, pairs and draws are combined with each other.
    jobs : processes of this machine that run members side by side; 1: this process, one member
        after the other.
    scheduler : the address of a dask scheduler (tcp://HOST:PORT), whose workers run the members,
        in place of `jobs`. They must see `out` and the data under the same paths, and have one
        thread each.
    out : the folder of the sweep; sweeps/NAME if None. One that holds another sweep is refused;
        more seeds or values are added to the same one.
    progress : True for a bar and a line on stderr for each member, False for silence, or a
        callable for each member: its name (`member`), `status`, `reason` and the content of its
        summary.json.
    data_dir : where to look for data first. threads : of BLAS and the kernels of each worker;
        None: one, or for a single job as `train` has it.
    backend, device, products, overrides : as `train` takes them, for all members; devices are those
        of the machines that run them.
    allow_import : as `train` takes it, where `source` is a run folder.

    All configurations are checked before anything runs. A member that fails is reported and tried
    once more while the others continue; if it fails again it is among `Sweep.failed`. Raises
    ConfigurationError, RunExistsError, RunLockedError, DatasetError, CheckpointError;
    ConnectionError where a scheduler is lost; Interrupted, a KeyboardInterrupt, after a signal:
    what was finished or saved is kept, and the same call continues.

    Returns
    -------
    Sweep : its members, finished and failed.

    >>> given = {"data": {"limit": 40}, "epochs": 1, "progress": False}
    >>> sweep("digits", seeds=[0, 7], out="sweeps/a", **given)
    <Sweep sweeps/a over seeds alone: 2 of 2 runs finished>
    """
    backend, source = backend_of(backend, device, products), expanded_source(source, "source")
    plan = make_plan(source, seeds, grid or {}, overrides, pairs, Draws(random or {}, draws, draw_seed))
    folder = Path("sweeps") / plan.source if out is None else expanded(out, "out")
    plan = with_known_names(folder, plan)
    data = data_dir or os.environ.get("FSP_DATA")
    data_dir = None if not data else str(expanded(data, "data_dir" if data_dir else "FSP_DATA").absolute())
    _check_means(jobs, scheduler, threads)
    reporter = sweep_reporter(progress)
    waiting = [member for member in plan.members if not _finished(folder / member.name, member.config)]
    own_backend = backend if scheduler is None else _on_any_machine(backend)
    is_run = isinstance(source, str | Path) and RunFolder(Path(source)).holds_run()
    elsewhere = jobs > 1 or scheduler is not None
    resources = Resources(
        own_backend, ALONE, elsewhere=elsewhere, objects=Objects(tuple(allow_import) if is_run else None)
    )
    _check_members(waiting, data_dir, resources)
    with (
        in_charge(reporter),
        _pool(jobs if waiting else 1, scheduler if waiting else None, threads, reporter) as pool,
        RunFolder(folder).locked(),
        stoppable() as stop,
    ):
        fields, members = enter(folder, plan)
        waiting = [member for member in plan.members if not _finished(folder / member.name, member.config)]
        reporter.start(len(plan.members), len(plan.members) - len(waiting))
        own = threads or (None if pool.local else 1)
        try:
            attempts = run_members(
                waiting, pool, folder.absolute(), reporter, stop, data_dir=data_dir, threads=own, backend=backend
            )
        finally:
            reporter.close()
        found = _sweep(folder, fields, members, attempts)
        _write(found)
    if stop.signum is not None:
        done = sum(member.status == "finished" for member in found.members)
        raise Interrupted(
            stop.signum,
            f"stopped by a signal; {folder} holds {done} finished of {len(members)} runs, start it again to continue",
        )
    return found


def open_sweep(folder: str | Path) -> Sweep:
    """The sweep in that folder, as it is now. Raises ConfigurationError if there is none,
    CheckpointError if it is damaged.

    Returns
    -------
    Sweep : as it stands on disk.

    >>> given = {"data": {"limit": 40}, "epochs": 1, "progress": False}
    >>> found = sweep("digits", seeds=1, out="sweeps/a", **given)
    >>> [member.status for member in open_sweep("sweeps/a").members]
    ['finished']
    """
    folder = expanded(folder, "sweep")
    stored = read_sweep(folder)
    return _sweep(folder, tuple(stored["fields"]), stored["members"], {})


def _sweep(folder: Path, fields: tuple[str, ...], members: list[Record], attempts: Mapping[str, Attempt]) -> Sweep:
    """The sweep of these members, as `read_sweep` gives them. All are of one length, unless the
    grid is about that: those of a sweep of before that are shorter than others are unfinished.
    """
    longest = max((member["epochs"] for member in members), default=0)
    if EPOCHS not in fields:
        members = [{**member, "epochs": longest} for member in members]
    return Sweep(folder, fields, tuple(_member(folder, member, attempts.get(member["name"])) for member in members))


@contextlib.contextmanager
def _pool(jobs: int, scheduler: str | None, threads: int | None, reporter: MemberReporter) -> Iterator[Pool]:
    if scheduler is not None:
        with connected(scheduler, reporter) as client:
            yield Cluster(client, scheduler)
    elif jobs == 1:
        yield ThisProcess()
    else:
        pool = Processes(jobs, threads or 1)
        try:
            yield pool
        finally:
            pool.close()


def _check_means(jobs: int, scheduler: str | None, threads: int | None) -> None:
    if type(jobs) is not int or jobs < 1:
        raise ConfigurationError(f"jobs = {jobs!r}, expected 1 or more processes")
    execution.check_threads(threads)
    if scheduler is not None and jobs != 1:
        raise ConfigurationError(f"jobs = {jobs}, but the workers of the scheduler run the members; leave jobs out")


def _on_any_machine(backend: Backend) -> Backend:
    """The same on the device that every machine has: those of a cluster's workers are not known
    here.
    """
    return backend if backend.name == "numba" else dataclasses.replace(backend, device="cpu")


def _check_members(members: Iterable[Planned], data_dir: str | None, resources: Resources) -> None:
    """Raises what would keep a member from starting: settings that are refused, devices and data
    that are missing.
    """
    seen = []
    for member in members:
        trainer_of(member.config.family).check(member.config, resources)
        given = member.config.data
        if given not in seen:
            execution.load_data(given, data_dir)
            seen.append(given)


def _finished(folder: Path, config: Config) -> bool:
    return RunFolder(folder).holds_run() and _is_finished(RunFolder(folder).summary(), config.learning.epochs)


def _is_finished(summary: Record, epochs: int) -> bool:
    status = summary.get("status")
    return status == "finished early" or bool(status == "finished" and summary.get("epochs", 0) >= epochs)


def _member(folder: Path, stored: Record, attempt: Attempt | None) -> Member:
    """A member as it is on disk, with the outcome that its worker has just returned."""
    files = RunFolder(folder / stored["name"])
    summary = attempt.summary if attempt and attempt.summary else files.summary()
    status = summary.get("status", "unfinished" if files.holds_run() else "not begun")
    if status in ("finished", "finished early"):  # which is in the summary
        status = "finished" if _is_finished(summary, stored["epochs"]) else "unfinished"
    status = attempt.status if attempt else status
    reason = "" if status != "failed" else attempt.reason if attempt else "in an earlier call"
    return Member(files.path, stored["values"], stored["seed"], status, summary, reason)


def _angles(member: Member) -> Record:
    """{matrix: degrees} at the best epoch; {} where there are none."""
    return (member.summary.get("best") or {}).get("alignment_degrees") or {}


def _brief(member: Member) -> str:
    """A member in a table: its test error, or its status."""
    error = (member.summary.get("best") or {}).get("test_error")
    return member.status if error is None or member.status != "finished" else f"{error:.2f} %"


def _write(found: Sweep) -> None:
    """The tables and the picture of a sweep."""
    write_aside(found.folder / "results.csv", to_csv(found.rows()))
    write_aside(found.folder / "summary.csv", to_csv(found.points()))
    if any(member.status == "finished" for member in found.members):
        from fsp_dynamics.plotting.showing import apart

        for name in PICTURES:
            with apart():
                found.plot(path=found.folder / "figures" / name)
