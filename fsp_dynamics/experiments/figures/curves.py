"""The numbers of each figure, in long form, from the records of its runs: those that are drawn and
no others.

A row is a mapping with the columns of its figure (`COLUMNS`). `epoch` is one of which every run of
the variant has a record; `runs` is how many of them have the number there (an angle may be
undefined); `value` is their mean, and `low` and `high` are the smallest and the largest of them,
except for angles by sample, where they are one pooled standard deviation below and above: see
`pooled`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.figures import variants
from fsp_dynamics.experiments.figures.collecting import FigureRun
from fsp_dynamics.experiments.folder import Record

Row = dict[str, Any]

SPREAD = ("epoch", "value", "low", "high", "runs")
COLUMNS = {
    "alignment": ("quantity", "variant", "matrix", *SPREAD, "std", "samples", "converged"),
    "subspace": ("quantity", "variant", "matrix", *SPREAD),
    "gradients": ("quantity", "source", "matrix", *SPREAD),
    "spectra": ("quantity", *SPREAD, "seed", "real", "imaginary"),
    "errors": ("quantity", "variant", *SPREAD),
}


def alignment(members: Sequence[FigureRun], last: int) -> list[Row]:
    """`sample`: the angles as samples see them, at whole epochs, and how many `samples` of the
    `converged` have one; `network`: those of the matrices themselves, between them too.
    """
    rows: list[Row] = []
    for name, matrix, group in _by_matrix(members):
        for epoch, records in _records(group, last):
            here = {"variant": name, "matrix": matrix, "epoch": epoch}
            raw = _defined(records, "alignment", "degrees", matrix)
            if raw:
                rows.append({"quantity": "network", **here, "value": _mean(raw), "runs": len(raw)})
            seen = [r for r in records if _number(r, "samples", "mean", matrix) is not None]
            if seen:
                mean, std = pooled(_defined(seen, "samples", "mean", matrix), _defined(seen, "samples", "std", matrix))
                samples = sum(r["converged"] - r["samples"]["undefined"][matrix] for r in seen)
                row = {
                    **here,
                    "value": mean,
                    "std": std,
                    "low": mean - std,
                    "high": mean + std,
                    "runs": len(seen),
                    "samples": samples,
                    "converged": sum(r["converged"] for r in seen),
                }
                rows.append({"quantity": "sample", **row})
    return _sorted(rows)


def counts(rows: Sequence[Row], epoch: int) -> dict[str, str]:
    """{variant: how many samples have an angle at that epoch}, such as "151 of 300", or "140 to 151
    of 300" where not every matrix has one in the same samples.
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["quantity"] == "sample" and row["epoch"] == epoch:
            found.setdefault(row["variant"], []).append(row)
    shown = {}
    for variant, of_matrices in found.items():
        number = sorted({row["samples"] for row in of_matrices})
        between = " to ".join(map(str, dict.fromkeys((number[0], number[-1]))))
        # figures of before did not record of how many
        shown[variant] = between + (f" of {max(all_of)}" if (all_of := _converged(of_matrices)) else "")
    return shown


def _converged(rows: Sequence[Row]) -> list[int]:
    return [row["converged"] for row in rows if "converged" in row]


def subspace(members: Sequence[FigureRun], last: int) -> list[Row]:
    """`inside`, `bound`, `raw`: the angle in the subspace of rank n_L, the least raw angle it
    allows, and the raw angle, at whole epochs.
    """
    names = {"inside": "inside", "bound": "bound", "raw": "degrees"}
    return [
        {"quantity": quantity, "variant": name, "matrix": matrix, **row}
        for quantity, key in names.items()
        for name, matrix, group in _by_matrix(members)
        for row in _spread(group, last, "alignment", key, matrix)
        if row["epoch"] == int(row["epoch"])
    ]


def gradients(members: Sequence[FigureRun], last: int) -> list[Row]:
    """`angle`: between update and gradient with the effects of a source and of those before it;
    `share`: the norm of what the source adds; `norm`: that of the update; both divided by the
    gradient's norm, and from the first epoch on.
    """
    known = [record["gradient"] for m in members for record in m.probes if "gradient" in record]
    stages, names = (list(known[0][key]) if known else [] for key in ("stages", "norm_ratio"))
    rows = [
        {"quantity": quantity, "source": source, "matrix": name, **row}
        for quantity, key in (("angle", "stages"), ("share", "sources"))
        for source in stages
        for name in names
        for row in _spread(members, last, "gradient", key, source, name)
    ]
    return drawn_gradients(rows) + drawn_gradients(
        [
            {"quantity": "norm", "source": "", "matrix": name, **row}
            for name in names
            for row in _spread(members, last, "gradient", "norm_ratio", name)
        ]
    )


def drawn_gradients(rows: Sequence[Row]) -> list[Row]:
    """The rows without shares and norms before learning, where unfinished relaxation adds next to
    nothing: decades of a logarithmic axis for one point.
    """
    return [row for row in rows if row["quantity"] == "angle" or row["epoch"] > 0]


def spectra(members: Sequence[FigureRun], last: int) -> list[Row]:
    """`eigenvalue`: those of the field at the first, the middle and the last epoch, each seed's;
    the others: numbers of `stability` by epoch.
    """
    rows: list[Row] = []
    for epoch in dict.fromkeys((0, last // 2, last)):
        for m in members:
            record = next((r for r in m.probes if r["epoch"] == epoch), {})
            for real, imaginary in record.get("stability", {}).get("eigenvalues", ()):
                rows.append(
                    {
                        "quantity": "eigenvalue",
                        "epoch": epoch,
                        "seed": m.config.seed,
                        "real": real,
                        "imaginary": imaginary,
                    }
                )
    for quantity in ("loop_norm", "loop_norm_max", "settle_time"):
        rows += [{"quantity": quantity, **row} for row in _spread(members, last, "stability", quantity)]
    return rows


def errors(members: Sequence[FigureRun], last: int) -> list[Row]:
    """`test_error` and `train_error`, in percent."""
    return [
        {"quantity": quantity, "variant": name, **row}
        for quantity in ("test_error", "train_error")
        for name, group in by_variant(members).items()
        for row in _spread(group, last, quantity, source="metrics")
    ]


def pooled(means: Sequence[float], stds: Sequence[float]) -> tuple[float, float]:
    """(mean, standard deviation) over the samples of all seeds from those of each seed, every seed
    counted alike.

    The mean of the means; the root of the mean variance plus the variance of the means.

    >>> pooled([1.0, 3.0], [0.0, 0.0])
    (2.0, 1.0)
    """
    mean = _mean(means)
    return mean, math.sqrt(_mean([s * s for s in stds]) + _mean([(m - mean) ** 2 for m in means]))


def require_records(members: Sequence[FigureRun], *keys: str) -> None:
    """Raises ConfigurationError for a run without any record of what `keys` lead to."""
    for m in members:
        if not any(_reach(record, *keys) for record in m.probes):
            if keys[0] == "stability" and not m.has_gain:
                raise ConfigurationError(
                    f"{m.folder}: {'.'.join(keys)} is measured in a loop with a hard sigmoid alone, and its network "
                    f"has network.kind = {m.config.network.kind!r}, network.rho = {m.config.network.rho!r}; "
                    "leave it out"
                )
            why = "probes.samples is 0" if m.config.probes.samples == 0 else f"{len(m.probes)} records"
            what = f"{m.folder} has no records of {'.'.join(keys)} in its probes.jsonl ({why})"
            raise ConfigurationError(
                f"{what}; train it again with probes.samples = 100, or elsewhere (train_missing())"
            )


def by_variant(members: Sequence[FigureRun]) -> dict[str, list[FigureRun]]:
    """{variant: its runs}, in the order of figures."""
    names = [*variants.LEARNERS, *(m.variant for m in members)]
    groups = {name: [m for m in members if m.variant == name] for name in dict.fromkeys(names)}
    return {name: group for name, group in groups.items() if group}


def _by_matrix(members: Sequence[FigureRun]) -> Iterator[tuple[str, str, list[FigureRun]]]:
    """(variant, matrix, runs) of each curve."""
    for name, group in by_variant(members).items():
        for matrix in variants.matrices(group[0].config):
            yield name, matrix, group


def _records(group: Sequence[FigureRun], last: int, source: str = "probes") -> Iterator[tuple[float, list[Record]]]:
    """(epoch, the record of each run) at the epochs up to `last` of which every run has one."""
    found = [{record["epoch"]: record for record in getattr(m, source)} for m in group]
    for epoch in sorted(set.intersection(*map(set, found))):
        if epoch <= last:
            yield epoch, [records[epoch] for records in found]


def _spread(group: Sequence[FigureRun], last: int, *keys: str, source: str = "probes") -> Iterator[Row]:
    for epoch, records in _records(group, last, source):
        values = _defined(records, *keys)
        if values:
            yield {"epoch": epoch, "value": _mean(values), "low": min(values), "high": max(values), "runs": len(values)}


def _reach(record: Record, *keys: str) -> Any:
    """The value at nested keys; None where there is none."""
    found: Any = record
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _number(record: Record, *keys: str) -> float | None:
    found = _reach(record, *keys)
    return float(found) if isinstance(found, int | float) else None


def _defined(records: Sequence[Record], *keys: str) -> list[float]:
    """The numbers that are there."""
    return [value for value in (_number(record, *keys) for record in records) if value is not None]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _sorted(rows: list[Row]) -> list[Row]:
    """Quantity by quantity, otherwise as they are."""
    return sorted(rows, key=lambda row: str(row["quantity"]))
