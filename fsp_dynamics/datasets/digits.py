"""The 1,797 digits of 8 x 8 pixels that scikit-learn carries, in the order in which they are
split.
"""

from __future__ import annotations

import hashlib
import importlib.util
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fsp_dynamics.datasets.published import Pixels
from fsp_dynamics.errors import DatasetError

PARTS = (1197, 200, 400)  # training, validation, test images


def read_digits() -> Pixels:
    """The digits, shuffled and taking turns. scikit-learn is located, not imported (that would
    take seconds). Raises DatasetError.
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise DatasetError("digits come with scikit-learn, which is not installed; pip install scikit-learn")
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        if path.is_file():
            table = np.loadtxt(path, np.uint8, delimiter=",")
        else:
            from sklearn.datasets import load_digits

            table = np.column_stack(load_digits(return_X_y=True)).astype(np.uint8)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); reinstall scikit-learn") from error
    if table.shape != (sum(PARTS), 65) or table[:, :64].max() > 16 or table[:, 64].max() > 9:
        raise DatasetError(
            f"{path}: is not the table of {sum(PARTS)} digits (64 pixels of 0 to 16, label); reinstall scikit-learn"
        )
    table = table[taking_turns(table[:, 64])]
    images, labels, end = table[:, :64].reshape(-1, 8, 8), table[:, 64], -PARTS[2]
    parts = images[:end], labels[:end], images[end:], labels[end:]
    digest = hashlib.sha256()
    for array in parts:
        digest.update(array.tobytes())
    return Pixels(*parts, 16, str(path), {"digits": digest.hexdigest()})


def taking_turns(labels: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """A fixed shuffled order in which the k-th images of all classes stand together."""
    shuffled = np.argsort(np.random.PCG64(0).random_raw(len(labels)), kind="stable")
    turn = np.empty(len(labels), np.intp)
    for label in np.unique(labels):
        own = labels[shuffled] == label
        turn[own] = np.arange(own.sum())
    return shuffled[np.argsort(turn, kind="stable")]
