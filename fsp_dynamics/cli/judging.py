"""`fsp evaluate`, `fsp predict`: what a trained network makes of images."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from fsp_dynamics.cli.options import (
    AllowImport,
    BackendName,
    DataDir,
    Device,
    Json,
    Products,
    RunPath,
    Threads,
)
from fsp_dynamics.tables import print_json, print_table, shown

Checkpoint = Annotated[Literal["best", "last"], Parameter(help="Which network.")]
MOST_CLASSES = 30  # of which a confusion matrix is printed
MOST_ROWS = 20  # of a table of predictions


def evaluate(
    run: RunPath,
    /,
    *,
    split: Annotated[Literal["train", "valid", "test"], Parameter(help="Which images.")] = "test",
    checkpoint: Checkpoint = "best",
    data_dir: DataDir = None,
    threads: Threads = None,
    backend: BackendName = "numba",
    device: Device = None,
    products: Products = None,
    allow_import: AllowImport = (),
    as_json: Json = False,
) -> None:
    """Evaluate a trained network on a part of the data: error, also of each class, which classes
    are taken for which, convergence, saturation, units that are stuck, dead outputs.
    """
    from fsp_dynamics.experiments.runner import open_run

    where: dict[str, Any] = {
        "data_dir": data_dir,
        "threads": threads,
        "backend": backend,
        "device": device,
        "products": products,
    }
    evaluation = open_run(run, allow_import=allow_import).evaluate(split, checkpoint, **where)
    found, errors = dataclasses.asdict(evaluation), list(getattr(evaluation, "class_errors", ()))
    if as_json:
        more = {"class_errors": errors} if errors else {}
        return print_json({"run": str(run), "split": split, "checkpoint": checkpoint, **found, **more})
    saturation, stuck = found.pop("saturation", {}), found.pop("stuck", {})
    confusion, names = found.pop("confusion", ()), found.pop("class_names", ())
    rows = [{"": key, "value": shown(value)} for key, value in found.items()]
    rows += [
        {"": f"{layer}: share at 0, at 1", "value": f"{zero:.3f}, {one:.3f}"}
        for layer, (zero, one) in saturation.items()
    ]
    rows += [
        {"": f"{layer}: units at 0, at 1 on every image", "value": f"{zero}, {one}"}
        for layer, (zero, one) in stuck.items()
    ]
    print_table(f"{run}: {checkpoint} network, {split} images", rows)
    if len(confusion):
        _print_classes(confusion, errors, names)


def predict(
    run: RunPath,
    images: Annotated[
        Path, Parameter(help="NAME.npy, NAME.npz or an IDX file (.gz or not) of images, without labels.")
    ],
    /,
    *,
    array: Annotated[str | None, Parameter(help="Of an .npz: which array holds the images (default: images).")] = None,
    checkpoint: Checkpoint = "best",
    out: Annotated[
        Path | None, Parameter(help="Write every image's class and scores there: .csv, .json or .npz.")
    ] = None,
    data_dir: DataDir = None,
    threads: Threads = None,
    backend: BackendName = "numba",
    device: Device = None,
    products: Products = None,
    allow_import: AllowImport = (),
    as_json: Json = False,
) -> None:
    """Classify images with a trained network: class, score of each output, whether it converged.
    They are scaled as in training.
    """
    from fsp_dynamics.datasets.array_files import read_images
    from fsp_dynamics.errors import ConfigurationError, DatasetError, NotFiniteError, ShapeError
    from fsp_dynamics.experiments.predictions import check_suffix, contents, write_prediction
    from fsp_dynamics.experiments.runner import open_run

    if out is not None:
        check_suffix(out)
    opened, pixels = open_run(run, allow_import=allow_import), read_images(images, array)
    where: dict[str, Any] = {
        "data_dir": data_dir,
        "threads": threads,
        "backend": backend,
        "device": device,
        "products": products,
    }
    known = opened.image_format(data_dir)
    try:
        known.inputs(pixels)
    except (ShapeError, NotFiniteError, ConfigurationError) as error:
        raise DatasetError(f"{images}: {error}") from None
    found = opened.predict(pixels, checkpoint, **where)
    about = {"run": str(run), "checkpoint": checkpoint, "source": str(images)}
    if out is not None:
        write_prediction(out, found, about)
    if as_json:
        return print_json(contents(found, about))
    columns = {key: values for key, values in found.table().items() if not key.startswith("score.")}
    count = len(found.classes)
    rows = [
        {"image": str(k), **{key: _cell(values[k]) for key, values in columns.items()}}
        for k in range(min(count, MOST_ROWS))
    ]
    print_table(f"{images}: {count} images, {checkpoint} network of {run}", rows)
    print(repr(found))
    if count > MOST_ROWS and out is None:
        print(f"the first {MOST_ROWS} of {count} images; --out FILE.csv writes all, with the score of each output")
    if out is not None:
        print(f"written    {out}")


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return ("yes" if value else "no") if str(value) in ("True", "False") else shown(value.item())


def _print_classes(confusion: Any, errors: list[float | None], names: Any) -> None:
    """The error of each class that occurs, and what it is taken for."""
    shown_classes = [k for k, row in enumerate(confusion) if any(row) or any(each[k] for each in confusion)]
    label = [names[k] if k < len(names) else str(k) for k in range(len(confusion))]
    if len(shown_classes) > MOST_CLASSES:
        worst = sorted((k for k in shown_classes if errors[k]), key=lambda k: -(errors[k] or 0))[:MOST_CLASSES]
        rows = [{"class": label[k], "images": str(sum(confusion[k])), "error (%)": _percent(errors[k])} for k in worst]
        print_table(f"the {len(worst)} classes with the largest errors; --json gives all and the matrix", rows)
        return
    rows = [
        {"class": label[k], "error (%)": _percent(errors[k])}
        | {label[other]: str(confusion[k][other] or "") for other in shown_classes}
        for k in shown_classes
    ]
    print_table("how many of a class (row) are taken for which (column)", rows)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
