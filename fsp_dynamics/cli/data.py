"""`fsp data`: the images on this machine, and downloads."""

from __future__ import annotations

import dataclasses
import sys

from cyclopts import App

from fsp_dynamics.cli.messages import report
from fsp_dynamics.cli.options import DataDir, Json, ShowProgress
from fsp_dynamics.tables import print_json, print_table, shown

data = App(name="data", help="List the images on this machine, and download more.", help_format="plaintext")


@data.command(name="list")
def list_(*, data_dir: DataDir = None, as_json: Json = False) -> None:
    """List the data sets by name, and where each was found."""
    from fsp_dynamics.datasets import list_datasets

    found = [dataclasses.asdict(record) for record in list_datasets(data_dir)]
    if as_json:
        return print_json(found)
    columns = ("name", "images", "verified", "where", "description")
    print_table("data sets", [{key: shown(record[key]) for key in columns} for record in found])
    for record in found:
        if record["problem"]:
            report(f"note: {record['name']}: {record['problem']}")


@data.command
def fetch(name: str, /, *, data_dir: DataDir = None, progress: ShowProgress = True) -> None:
    """Download and verify a data set, unless it is there already; print where it is.

    Parameters
    ----------
    name
        digits, mnist, fashion-mnist, cifar10, cifar100 or svhn.
    """
    from fsp_dynamics.datasets import fetch as fetch_dataset

    print(fetch_dataset(name, data_dir, progress=progress and sys.stderr.isatty()))
