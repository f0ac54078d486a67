"""`fsp figure`, `fsp stability`, `fsp gradients`: what learning does to the loop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fsp_dynamics.cli.messages import report
from fsp_dynamics.cli.options import (
    SEVERAL,
    AllowImport,
    DataDir,
    Json,
    RunPath,
    ShowProgress,
    Threads,
    loading,
    numbers,
    overrides,
    reporter,
    with_fields,
)
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.folders import expanded
from fsp_dynamics.tables import print_json, print_table, shown

if TYPE_CHECKING:
    from fsp_dynamics.experiments.figures.drawing import Made

Name = Literal["alignment", "subspace", "gradients", "spectra", "errors"]
Checkpoint = Annotated[Literal["best", "last"], Parameter(help="Which network.")]


@with_fields
def figure(
    name: Annotated[Name, Parameter(help="Which figure.")],
    /,
    *,
    runs: Annotated[
        tuple[Path, ...],
        SEVERAL,
        Parameter(
            help="Runs, or folders of runs (default: runs/figure-PRESET, with a digest for each other configuration).",
        ),
    ] = (),
    out: Path = Path("figures"),
    train: Annotated[bool, Parameter(negative="")] = False,
    preset: str = "fashion-2x500",
    seeds: Annotated[str | None, Parameter(metavar="N,N,...")] = None,
    again: Annotated[Path | None, Parameter(name="--redraw", metavar="NAME.csv")] = None,
    data_dir: DataDir = None,
    threads: Threads = None,
    progress: ShowProgress = True,
    as_json: Json = False,
    **given: str | None,
) -> None:
    """Draw a figure from the records of runs: NAME.png, NAME.svg, the numbers drawn (NAME.csv) and
    a caption (NAME.txt).

    alignment: figure 3 of the paper; subspace: the same in the subspace of the product's rank;
    gradients: update beside gradient; spectra: stability of equilibria; errors: test errors beside
    those of equilibrium propagation and backpropagation.

    Parameters
    ----------
    out
        Folder for the four files.
    train
        Train the runs that are missing first: each variant with each seed, into the default folder
        or the one of --runs. After a stop, the same command continues.
    preset
        A preset or a TOML file, whose loop is learned.
    seeds
        Only these; with --train, these are made (default: that of the preset).
    again
        Draw the figure again from the numbers of an earlier one, without its runs.
    """
    with loading():
        from fsp_dynamics.experiments.config_io import load_config
        from fsp_dynamics.experiments.figures import collecting, drawing
        from fsp_dynamics.experiments.folder import RunFolder

    changed, chosen = overrides(given), numbers("seeds", seeds)
    if again is not None:
        return _redraw(name, again, out, bool(runs or train or seeds or changed), as_json)
    if runs and not train and changed:
        keys = ", ".join(changed)
        raise ConfigurationError(
            f"{keys}: configuration keys describe what --train makes, and --runs without --train makes nothing; "
            "leave them out"
        )
    folders = runs or (collecting.default_folder(preset, changed),)
    if train:
        if len(folders) > 1:
            raise ConfigurationError(f"--train stores runs in one folder, --runs names {len(folders)}; give one")
        if RunFolder(expanded(preset, "--preset")).holds_run():  # whose names would be imported
            raise ConfigurationError(f"--preset {preset} is the folder of a run; expected a preset or a TOML file")
        _, base = load_config(preset, changed)
        how = {"report": report, "data_dir": data_dir, "threads": threads}
        drawing.train_missing(name, base, folders[0], chosen or [base.seed], reporter(progress), **how)
    _report(drawing.make(name, folders, out, seeds=chosen), as_json)


def _redraw(name: str, again: Path, out: Path, more: bool, as_json: bool) -> None:
    from fsp_dynamics.experiments.figures import drawing

    if more:
        raise ConfigurationError("--redraw takes no runs, so it goes with neither --runs, --train, --seeds nor keys")
    if again.stem != name:
        raise ConfigurationError(f"--redraw {again} is not {name}.csv, the numbers of figure {name}; give that file")
    _report(drawing.redraw(again, out), as_json)


def _report(made: Made, as_json: bool) -> None:
    if as_json:
        return print_json(
            {
                "figure": made.name,
                "files": {k: str(p) for k, p in made.files.items()},
                "runs": [str(p) for p in made.runs],
                "epochs": made.last,
            }
        )
    for kind, path in made.files.items():
        print(f"{kind}  {path}")
    report(f"{len(made.runs)} runs, {made.last} epochs")


def stability(
    run: RunPath,
    /,
    *,
    checkpoint: Checkpoint = "best",
    samples: Annotated[int, Parameter(help="How many images, the first of the validation set.")] = 20,
    data_dir: DataDir = None,
    threads: Threads = None,
    allow_import: AllowImport = (),
    as_json: Json = False,
) -> None:
    """Analyse the stability of a trained network: the gain of the loop, how fast disturbances
    decay, which beta and dt are stable.
    """
    with loading():
        from fsp_dynamics.experiments.analysis import stability_of
        from fsp_dynamics.experiments.runner import open_run

    found = stability_of(
        open_run(run, allow_import=allow_import), checkpoint, samples, data_dir=data_dir, threads=threads
    )
    if as_json:
        return print_json({"run": str(run), "checkpoint": checkpoint, **found})
    counts = f"{found['converged']} of {found['samples']} {found['images']} images converged"
    title = f"{run}, {checkpoint}: {counts}, {found['unstable']} unstable"
    print_table(
        title,
        [{"": name, **{key: _brief(value) for key, value in each.items()}} for name, each in found["numbers"].items()],
    )
    times = found["settle_time"]
    rows = zip(times["predicted"], times["measured"], strict=True)
    print_table("settle time", [{"predicted": _brief(one), "measured": _brief(other)} for one, other in rows])


def gradients(
    run: RunPath,
    /,
    *,
    checkpoint: Checkpoint = "best",
    samples: Annotated[int, Parameter(help="How many images, the first of the validation set.")] = 200,
    data_dir: DataDir = None,
    threads: Threads = None,
    allow_import: AllowImport = (),
    as_json: Json = False,
) -> None:
    """Compare a trained network's update with the true gradient, for each matrix and source of
    deviation.
    """
    with loading():
        from fsp_dynamics.experiments.analysis import gradients_of
        from fsp_dynamics.experiments.runner import open_run

    found = gradients_of(
        open_run(run, allow_import=allow_import), checkpoint, samples, data_dir=data_dir, threads=threads
    )
    if as_json:
        return print_json({"run": str(run), "checkpoint": checkpoint, **found})
    rows = [
        {"matrix": name, "angle (degrees)": _brief(angle), "norm": _brief(found["norm_ratio"][name])}
        | {source: _brief(share[name]) for source, share in found["sources"].items()}
        for name, angle in found["degrees"].items()
    ]
    counts = f"{found['used']} of {found['samples']} {found['images']} images"
    title = f"{run}, {checkpoint}: {counts}; all in units of the gradient's norm"
    print_table(title, rows)


def _brief(value: float) -> str:
    return shown(None if value != value else value)
