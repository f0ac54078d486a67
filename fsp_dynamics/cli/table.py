"""`fsp table`: results of several runs as a table for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from fsp_dynamics.cli import paper_table
from fsp_dynamics.cli.formatted import Format, Formatted, print_formatted
from fsp_dynamics.cli.messages import report
from fsp_dynamics.cli.options import (
    DataDir,
    Json,
    ShowProgress,
    Threads,
    loading,
    numbers,
    overrides,
    reporter,
    with_fields,
)
from fsp_dynamics.cli.stored import Runs, stored_summaries
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.folders import expanded
from fsp_dynamics.tables import print_json

if TYPE_CHECKING:
    from fsp_dynamics.experiments.config import Config
    from fsp_dynamics.experiments.folder import Record
    from fsp_dynamics.experiments.stored import Stored

SEEDS = "0,1,2"
table = App(name="table", help="Print results of several runs as a table for a paper.", help_format="plaintext")


@table.command
@with_fields
def learners(
    *,
    runs: Runs = (),
    preset: Annotated[
        str | None,
        Parameter(help="Whose data and layers (default: fashion-2x500; with --runs, those of the runs)."),
    ] = None,
    train: Annotated[bool, Parameter(negative="")] = False,
    seeds: Annotated[str, Parameter(metavar="N,N,...", help="Those that --train makes.")] = SEEDS,
    columns: Annotated[
        str | None,
        Parameter(
            metavar="NAME,NAME,...",
            help="Only these, such as test,test_95,difference,angles (default: all that fit).",
        ),
    ] = None,
    format: Formatted = "text",
    data_dir: DataDir = None,
    threads: Threads = None,
    progress: ShowProgress = True,
    as_json: Json = False,
    **given: str | None,
) -> None:
    """Compare learners on one data set with the same layers: eq. 14 with its loop learned, fixed or
    following mirror phases, the exact gradient, equilibrium propagation, backpropagation.

    Errors in percent at the best epoch (by validation error): mean and standard deviation over
    seeds, 95 % interval of the mean by Student's t, and the difference of the test error to the
    first row over the seeds that both have. Angles in degrees at the end.

    Parameters
    ----------
    train
        Train first what is missing of these learners and seeds, in runs/learners-PRESET or the
        folder of --runs. After a stop, the same command continues.
    """
    with loading():
        from fsp_dynamics.experiments.config_io import load_config
        from fsp_dynamics.experiments.learners import making, summaries
        from fsp_dynamics.experiments.learners.table import columns as columns_of
        from fsp_dynamics.experiments.learners.table import learner_rows, notes

    changed = overrides(given)
    if changed and not train:
        raise ConfigurationError(
            f"{', '.join(changed)}: configuration keys describe what --train makes; add --train, or leave them out"
        )
    name = preset or ("fashion-2x500" if train or not runs else None)
    base = None if name is None else load_config(name, changed)[1]
    if train and base is not None:
        chosen = numbers("seeds", seeds) or [base.seed]
        folders = [making.default_folder(name or "", changed)] if not runs else [expanded(f, "--runs") for f in runs]
        how = {"report": report, "data_dir": data_dir, "threads": threads}
        found = _with_trained(base, folders, chosen, reporter(progress), **how)
    else:
        found = stored_summaries(runs)
    wanted = summaries.only_task(found) if base is None else summaries.task(base)
    rows = learner_rows(summaries.of_task(found, wanted))
    names = columns_of(rows, columns.split(",") if columns else None)
    if as_json or format == "json":
        return print_json({"task": wanted, "rows": rows})
    _show(format, rows, names, summaries.task_text(wanted), notes(rows))


@table.command
def figure1(
    *,
    format: Formatted = "text",
    as_json: Json = False,
) -> None:
    """What each learner of a discrete network needs of the rest of the network: figure 1 of the
    paper, each cell as measured on the code.
    """
    with loading():
        from fsp_dynamics.layerwise.learners import figure1 as rows_of
        from fsp_dynamics.layerwise.properties import cells, notes, record

    found = rows_of()
    shown, footnotes = [cells(name, each) for name, each in found.items()], notes(list(found.values()))
    title = "Learners by what they need of the rest of the network"
    if as_json or format == "json":
        print_json({"rows": [record(name, each) for name, each in found.items()], "notes": footnotes})
    else:
        print_formatted(format, title, shown, shown, footnotes, "tab:figure1", continued=True)


@table.command(name="I")
def table_1(*, runs: Runs = (), format: Formatted = "text", as_json: Json = False) -> None:
    """What VGG8b costs and reaches: table I of the paper beside ours."""
    paper_table.show("I", runs, format, as_json)


@table.command(name="II")
def table_2(*, runs: Runs = (), format: Formatted = "text", as_json: Json = False) -> None:
    """What each layer of VGG8b costs: table II of the paper beside ours."""
    paper_table.show("II", runs, format, as_json)


@table.command(name="III")
def table_3(*, runs: Runs = (), format: Formatted = "text", as_json: Json = False) -> None:
    """Dense and sparse targets in VGG8b(2x): table III of the paper beside ours."""
    paper_table.show("III", runs, format, as_json)


@table.command(name="IV")
def table_4(*, runs: Runs = (), format: Formatted = "text", as_json: Json = False) -> None:
    """Each layer of VGG8b(2x), dense and sparse: table IV of the paper beside ours."""
    paper_table.show("IV", runs, format, as_json)


@table.command(name="V")
def table_5(*, runs: Runs = (), format: Formatted = "text", as_json: Json = False) -> None:
    """Spiking networks: table V of the paper beside ours, of 128 and of 16 channels."""
    paper_table.show("V", runs, format, as_json)


def _with_trained(base: Config, folders: Sequence[Path], seeds: Sequence[int], bars: Any, **how: Any) -> list[Stored]:
    """The summaries of the source tree, if there are any, and of the runs that were missing. Those
    in a folder that the user gives stand alone.
    """
    from fsp_dynamics.experiments.learners import making, summaries
    from fsp_dynamics.experiments.stored import finished_runs

    if len(folders) > 1:
        raise ConfigurationError(f"--train stores runs in one folder, --runs names {len(folders)}; give one")
    known = summaries.read_summaries() if summaries.RESULTS.is_dir() else []
    same = list(making.configurations(base).values())
    known = [each for each in known if any(making.is_same(each.config, config) for config in same)]
    made = making.train_missing(base, seeds, folders[0], known, bars, **how)
    return summaries.with_runs(known, finished_runs(made)[0]) if made else known


def _show(format: Format, rows: Sequence[Record], names: Sequence[str], task: str, notes: Sequence[str]) -> None:
    from fsp_dynamics.experiments.learners.table import EXPENDABLE, cells, flat_rows

    order = dict.fromkeys(name for start in EXPENDABLE for name in names if name.startswith(start))
    title = f"{task}: errors in %, mean ± standard deviation over seeds"
    shown = [cells(row, names) for row in rows]
    layout = {"expendable": list(order), "one_line": True}
    print_formatted(format, title, shown, flat_rows(rows), notes, "tab:learners", **layout)
