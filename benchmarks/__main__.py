"""`python -m benchmarks [--threads 1 2] [--batch 20] [--presets ...] [--json FILE]`: the table of `benchmarks.training`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.training import Row, measure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Training speed beside a PyTorch backpropagation step.")
    parser.add_argument("--presets", nargs="+", default=["mnist-2x500", "mnist-2x1500"])
    parser.add_argument("--batch", nargs="+", type=int, default=[20])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--json", type=Path, help="also write the rows here")
    given = parser.parse_args()
    rows: list[Row] = []
    console = Console(stderr=True)
    for preset in given.presets:
        for batch in given.batch:
            for threads in given.threads:
                console.print(f"{preset}, batch {batch}, {threads} thread(s) ...")
                rows += measure(preset, batch=batch, threads=threads)
    table = Table(title=f"training against PyTorch backpropagation, {platform.processor() or platform.machine()}: ours / theirs, below 1 is cheaper")
    columns = ["network", "state", "batch", "threads", "images/s", "backprop images/s", "ratio (min - max)", "passes free", "nudged", "share nudged"]
    for column in columns:
        table.add_column(column)
    for r in rows:
        speeds = (f"{r.images_per_second:.0f}", f"{r.backprop_images_per_second:.0f}", f"{r.ratio:.2f} ({r.ratio_min:.2f} - {r.ratio_max:.2f})")
        counts = (f"{r.passes_free:.2f}", f"{r.passes_nudged:.2f}", f"{r.nudged_share:.2f}")
        table.add_row(r.network, r.state, str(r.batch), str(r.threads), *speeds, *counts)
    Console(width=150).print(table)
    if given.json is not None:
        given.json.write_text(json.dumps([dataclasses.asdict(r) for r in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
