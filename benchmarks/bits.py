"""Whether two commits learn the same bits: SHA-256 of the weights after small trainings.

    python -m benchmarks.bits --out before.json          on the first commit
    python -m benchmarks.bits --compare before.json      on the second, on the same processor

Each run is two epochs with one thread; `mnist` takes half a minute and needs the data, all others
together about a minute. Last bits depend on the processor and the versions of the libraries, so a
file is compared with runs of the same machine only. Names choose among the runs (`digits`,
`tied/torch`); all of them by default.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from fsp_dynamics.experiments.runner import train

SMALL = {
    "data": {"name": "digits", "limit": 300},
    "network": {"hidden": [30, 20], "loop_scale": 0.2},
    "learning": {
        "epochs": 2,
        "output_step": 0.2,
        "rates": {"input": 20.0, "forward": [10.0, 4.0], "loop": 0.5},
    },
    "probes": {"samples": 0},
}
RECIPROCAL = {
    "network": {"kind": "reciprocal", "loop_scale": None},
    "learning": {"rates": {"loop": 0.0}},
}
UNTIED = {"network": {"tied": False}, "learning": {"rates": {"backward": [1.0, 1.0]}}}
RUNS: dict[str, tuple[dict[str, Any], ...]] = {
    "loop": (),
    "loop-float64": ({"network": {"dtype": "float64"}},),
    "loop-momentum": ({"learning": {"momentum": 0.5, "decay": 1e-4}},),
    "loop-random-sign": ({"learning": {"phases": "random-sign", "beta": 0.5}},),
    "loop-centred": ({"learning": {"phases": "centred", "beta": 0.5}},),
    "loop-mirror": ({"learning": {"mirror": 0.1}},),
    "loop-frozen": ({"learning": {"frozen": ["loop", "biases[1]"]}, "probes": {"every": 4}},),
    "loop-mean-subtracted": ({"learning": {"rule": "mean_subtracted"}},),
    "loop-products": ({"learning": {"rule": "products"}},),
    "loop-gradient": ({"learning": {"rule": "gradient"}},),
    "loop-anderson": ({"solver": {"method": "anderson"}},),
    "logistic": ({"network": {"rho": "logistic"}},),
    "tied": (RECIPROCAL,),
    "tied-momentum": (RECIPROCAL, {"learning": {"momentum": 0.5}}),
    "tied-logistic": (RECIPROCAL, {"network": {"rho": "logistic"}}),
    "untied": (RECIPROCAL, UNTIED),
    "untied-mean-subtracted": (RECIPROCAL, UNTIED, {"learning": {"rule": "mean_subtracted"}}),
}
PRESETS = {"digits": "digits", "mnist": "mnist-2x500"}


def merged(table: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The nested table with the changes in it; None takes a key away."""
    table = dict(table)
    for key, value in change.items():
        if isinstance(value, dict):
            table[key] = merged(table.get(key, {}), value)
        elif value is None:
            table.pop(key, None)
        else:
            table[key] = value
    return table


def digest(name: str, backend: str) -> str:
    """SHA-256 of all weights, by name, after the training of that name on that backend."""
    source: Any = PRESETS.get(name)
    if source is None:
        source = SMALL
        for change in RUNS[name]:
            source = merged(source, change)
    device = "cpu" if backend == "torch" else None
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = train(
            source, out=Path(folder) / "run", epochs=2, progress=False, threads=1, backend=backend, device=device
        )
        found = hashlib.sha256()
        for parameter, weight in sorted(run.network("last").parameters().items()):
            found.update(parameter.encode() + weight.tobytes())
    return found.hexdigest()


def chosen(names: list[str]) -> list[tuple[str, str]]:
    """(name, backend) of the runs meant by these names. Raises KeyError for an unknown one."""
    backends = ["numba", "torch"] if importlib.util.find_spec("torch") else ["numba"]
    every = [(name, backend) for name in (*PRESETS, *RUNS) for backend in backends]
    if not names:
        return every
    for name in names:
        if not any(name in (run, f"{run}/{backend}") for run, backend in every):
            raise KeyError(name)
    return [(run, backend) for run, backend in every if {run, f"{run}/{backend}"} & set(names)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bits", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"runs: {', '.join((*PRESETS, *RUNS))}; NAME/torch for one backend")
    parser.add_argument("--out", type=Path, help="write the digests there, as JSON")
    parser.add_argument("--compare", type=Path, help="a file written so; exit code 1 where a digest differs")
    given = parser.parse_args(arguments)
    try:
        runs = chosen(given.names)
    except KeyError as error:
        parser.error(f"no run is called {error.args[0]!r}; choose among {', '.join((*PRESETS, *RUNS))}")
    before = json.loads(given.compare.read_text()) if given.compare else {}
    found, differing = {}, 0
    for name, backend in runs:
        key = f"{name}/{backend}"
        found[key] = digest(name, backend)
        verdict = "" if key not in before else "same" if before[key] == found[key] else "DIFFERS"
        differing += verdict == "DIFFERS"
        print(f"{key:30s} {found[key]} {verdict}", flush=True)
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    if differing:
        print(f"{differing} of {len(runs)} runs learned other bits", file=sys.stderr)
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
