"""`fsp spikes`: what becomes of a spiking network on hardware that has less."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fsp_dynamics.cli.formatted import Formatted, print_formatted
from fsp_dynamics.cli.messages import report
from fsp_dynamics.cli.options import DataDir, Device, Json, RunPath, loading
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.config_io import read_value
from fsp_dynamics.tables import print_json

Checkpoint = Annotated[Literal["best", "last"], Parameter(help="Which network.")]


def spikes(
    run: RunPath,
    /,
    *,
    bits: Annotated[str | None, Parameter(metavar="N,N,...", help="Bits of the weights, 1 to 16.")] = None,
    steps: Annotated[str | None, Parameter(metavar="N,N,...", help="Steps of time.")] = None,
    threshold: Annotated[str | None, Parameter(metavar="X,X,...", help="Thresholds of all units.")] = None,
    split: Annotated[Literal["train", "valid", "test"], Parameter(help="Which images.")] = "test",
    limit: Annotated[int | None, Parameter(help="Only the first so many images (default: all).")] = None,
    checkpoint: Checkpoint = "best",
    export: Annotated[
        Path | None, Parameter(metavar="FILE.nir", help="Write the network as trained there, as a graph of NIR.")
    ] = None,
    data_dir: DataDir = None,
    threads: Annotated[int | None, Parameter(help="Of torch on the CPU (default: one).")] = None,
    device: Device = None,
    format: Formatted = "text",
    as_json: Json = False,
) -> None:
    """Evaluate a trained spiking network and count its spikes, as it is, and with weights of fewer
    bits, with other steps of time, or with other thresholds, one at a time; write it as NIR.

    A row for each: the error, spikes of each layer and synaptic operations per image, units that
    never spike, and that always do.
    """
    given = {"bits": _values("bits", bits), "steps": _values("steps", steps)}
    thresholds = _values("threshold", threshold)
    with loading():
        from fsp_dynamics.experiments.layerwise.nir_file import check_nir, write_nir
        from fsp_dynamics.experiments.layerwise.variations import notes_of, spiking_learner, variations_of
        from fsp_dynamics.experiments.run import open_run
        from fsp_dynamics.layerwise.nir_export import nir_graph

    opened = open_run(run)
    if export is not None:  # what would be refused later is refused now
        check_nir(export)
        nir_graph(spiking_learner(opened, checkpoint))
    rows = variations_of(
        opened,
        **given,  # type: ignore[arg-type]
        thresholds=thresholds,
        which=checkpoint,
        split=split,
        limit=limit,
        data_dir=data_dir,
        threads=threads,
        device=device,
        say=lambda text: report(f"evaluating: {text}"),
    )
    if export is not None:
        report(f"written: {write_nir(export, spiking_learner(opened, checkpoint))}")
    flat = [row.flat(split) for row in rows]
    if as_json or format == "json":
        about = {"run": str(run), "split": split, "checkpoint": checkpoint}
        seen = rows[0].spikes
        return print_json({**about, "images": seen.images, "multiply_adds": seen.multiply_adds, "rows": flat})
    title = f"{run}: {checkpoint} network, {split} images"
    layout = {"expendable": ["saturated", "silent"], "one_line": True}
    print_formatted(format, title, [row.cells(split) for row in rows], flat, notes_of(rows), "tab:spikes", **layout)


def _values(field: str, text: str | None) -> tuple[float, ...]:
    """The numbers of a list with commas, in order; none for none given. Raises
    ConfigurationError.
    """
    if text is None:
        return ()
    value = read_value(text)
    found = value if isinstance(value, list) else [value]
    if not found or any(isinstance(each, bool) or not isinstance(each, (int, float)) for each in found):
        raise ConfigurationError(f"{field} = {text!r}, expected numbers with commas between them, such as 1,2,4")
    return tuple(sorted(set(found)))
