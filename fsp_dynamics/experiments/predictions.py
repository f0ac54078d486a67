"""Predictions written to a file: CSV, JSON or .npz."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.records import plain
from fsp_dynamics.experiments.trainer import PredictionRecord
from fsp_dynamics.folders import expanded
from fsp_dynamics.writing import write_aside

SUFFIXES = (".csv", ".json", ".npz")


def check_suffix(path: Path) -> str:
    """The suffix, if predictions can be written under it. Raises ConfigurationError."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigurationError(f"out = {str(path)!r} ends in {path.suffix!r}, expected one of: {', '.join(SUFFIXES)}")
    return path.suffix.lower()


def contents(prediction: PredictionRecord, about: Mapping[str, str]) -> dict[str, Any]:
    """{about..., column: a value for each image}, as JSON holds it; columns as in
    `Prediction.to_frame`.
    """
    found: dict[str, Any] = plain({**about, "images": len(prediction.classes), **prediction.table()})
    return found


def write_prediction(path: str | Path, prediction: PredictionRecord, about: Mapping[str, str]) -> Path:
    """Write a row for each image as CSV, or the columns as JSON or as arrays of an .npz, with the
    texts `about` in the last two. The file is the old one or the new one, never half. Raises
    ConfigurationError for another suffix, OSError.
    """
    path = expanded(path, "out")
    suffix, table = check_suffix(path), prediction.table()
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".json":
        content = json.dumps(contents(prediction, about), indent=1, allow_nan=False).encode() + b"\n"
    elif suffix == ".csv":
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["image", *table])
        columns = [plain(values) for values in table.values()]
        rows.writerows([k, *row] for k, row in enumerate(zip(*columns, strict=True)))
        content = text.getvalue().encode()
    else:
        archive = io.BytesIO()
        arrays: dict[str, Any] = {key: np.asarray(values) for key, values in {**about, **table}.items()}
        np.savez_compressed(archive, **arrays)
        content = archive.getvalue()
    write_aside(path, content)
    return path
