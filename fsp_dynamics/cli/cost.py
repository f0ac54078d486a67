"""`fsp cost`: what a batch costs the learners of a discrete network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from fsp_dynamics.cli.formatted import Format, Formatted
from fsp_dynamics.cli.messages import report
from fsp_dynamics.cli.options import SEVERAL, Device, Json, loading, overrides, with_fields
from fsp_dynamics.experiments.config_io import read_value
from fsp_dynamics.tables import print_json, print_table

if TYPE_CHECKING:
    from fsp_dynamics.experiments.layerwise.costs import Costs

NOTES = (
    "mean layer: without the classification layer, as in tables I and III; BP is the whole network",
    "in brackets: the paper, whose FSP is taken to be sparse (section III-E): tables I and II; FSP sparse / FSP: "
    "VGG8b(2x), tables III and IV",
)


@with_fields
def cost(
    source: Annotated[str, Parameter(help="A preset or a TOML file of family layerwise; its data are not needed.")],
    /,
    *,
    batch: Annotated[int | None, Parameter(help="Images (default: learning.batch).")] = None,
    rounds: Annotated[int, Parameter(show_default=True, help="How often everything is timed, in turns.")] = 5,
    learners: Annotated[
        tuple[Literal["bp", "ll-bp", "ll-fa", "fsp", "fsp-sparse"], ...],
        SEVERAL,
        Parameter(help="Which of them (default: all that there are)."),
    ] = (),
    image_shape: Annotated[
        str | None, Parameter(metavar="C,H,W", help="Channels, height and width (default: those of the data set).")
    ] = None,
    classes: Annotated[int | None, Parameter(help="How many (default: those of the data set).")] = None,
    device: Device = None,
    threads: Annotated[int | None, Parameter(help="Of torch on the CPU (default: one).")] = None,
    format: Formatted = "text",
    as_json: Json = False,
    **given: str | None,
) -> None:
    """Measure what a batch costs each learner of a discrete network, stage by stage: bytes kept for
    the backward pass, and seconds.

    Random images; bytes are counted exactly, seconds are medians over rounds in which all learners
    take turns. On a GPU also its memory at most. Ratios stand beside those of tables I to IV of the
    paper for VGG8b.
    """
    with loading():
        from fsp_dynamics.experiments.config_io import load_config
        from fsp_dynamics.experiments.layerwise.costs import costs_of

    found = costs_of(
        load_config(source, overrides(given))[1],
        batch=batch,
        rounds=rounds,
        learners=learners,
        image_shape=None if image_shape is None else _sizes(image_shape),
        classes=classes,
        device=device,
        threads=threads,
        say=lambda text: report(f"measuring: {text}"),
    )
    if as_json or format == "json":
        return print_json(
            {"network": found.network, "device": found.device, "batch": found.batch, "rows": found.flat()}
        )
    _show(found, format)


def _sizes(text: str) -> tuple[Any, ...]:
    value = read_value(text)
    return tuple(value) if isinstance(value, list) else (value,)


def _show(found: Costs, format: Format) -> None:
    from fsp_dynamics.tables import formats

    notes = NOTES if found.is_vgg8b else NOTES[:1]
    tables = {
        "MiB kept for the backward pass": ("kept", found.kept()),
        "MiB of the device at most": ("peak", found.peaks()),
        "milliseconds of a batch, median (and range)": ("seconds", found.seconds()),
        "ratios": ("ratios", found.ratios()),
    }
    shown = {f"{what}: {found.title}": each for what, each in tables.items() if each[1]}
    if format == "csv":
        from fsp_dynamics.experiments.sweeps.table import to_csv

        print(to_csv(found.flat()).decode(), end="")
    elif format == "markdown":
        print("\n\n".join([*(f"{title}\n\n{formats.markdown(rows)}" for title, (_, rows) in shown.items()), *notes]))
    elif format == "latex":
        labelled = [(rows, title, f"tab:cost-{label}", ()) for title, (label, rows) in shown.items()]
        print("\n".join([*(f"% {note}" for note in notes), *(formats.latex(*each) for each in labelled)]))
    else:
        for title, (_, rows) in shown.items():
            print_table(title, rows, continued=True)
        for note in notes:
            report(f"note: {note}")
