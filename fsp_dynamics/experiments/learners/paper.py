"""Tables I to V of the paper beside what is stored of the presets that repeat them.

The paper's "+-" in tables I and III are variances over the seven layers, not standard deviations:
they follow from tables II and IV. Its times are seconds of an epoch of one layer (of the whole
network for backpropagation); `fsp cost` measures such times, and bytes, on one's own machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fsp_dynamics.experiments.stored import Stored
from fsp_dynamics.experiments.sweeps.table import interval
from fsp_dynamics.layerwise.paper import VGG8B, VGG8B_2X

LEARNERS = ("bp", "ll-bp", "ll-fa", "fsp")
DATA = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "SVHN": "svhn"}
_I: dict[str, dict[str, tuple[float, ...]]] = {
    "seconds": {
        "CIFAR-10": (12.29, 8.11, 8.50, 5.91),
        "CIFAR-100": (15.34, 10.20, 9.44, 6.25),
        "SVHN": (148.70, 95.51, 89.32, 69.74),
    },
    "MiB": {
        "CIFAR-10": (22.00, 8.85, 13.03, 6.19),
        "CIFAR-100": (27.16, 11.45, 5.51, 5.19),
        "SVHN": (28.04, 11.41, 5.43, 4.91),
    },
    "best epoch": {"CIFAR-10": (319, 266, 309, 313), "CIFAR-100": (350, 380, 339, 329), "SVHN": (98, 41, 93, 88)},
    "test error (%)": {
        "CIFAR-10": (5.99, 5.58, 9.02, 8.34),
        "CIFAR-100": (26.20, 29.31, 38.41, 34.30),
        "SVHN": (2.19, 1.77, 2.55, 2.15),
    },
}
_III = {"seconds": (14.48, 9.56), "MiB": (14.04, 10.74), "best epoch": (273, 340), "test error (%)": (7.60, 7.71)}
_LAYERS = {
    "II": {"ll-bp": VGG8B["ll-bp"], "ll-fa": VGG8B["ll-fa"], "fsp": VGG8B["fsp-sparse"]},
    "IV": {"fsp": VGG8B_2X["fsp"], "fsp-sparse": VGG8B_2X["fsp-sparse"]},
}
_V = {"Fashion-MNIST": (6.70, 16.42, 9.51, 10.68), "MNIST": (0.84, 7.24, 1.01, 2.63)}
_SPIKING = {"Fashion-MNIST": "fashion", "MNIST": "mnist"}
SPIKING_LEARNERS = ("bp", "shallow", "fsp-surrogate", "fsp-voltage")
NARROW = "test error (%), 16 channels"
MEASURED = {"best epoch": "best_epoch", "test error (%)": "test_error", NARROW: "test_error"}
"""The quantities that a stored summary has, and their names there."""
TITLES = {
    "I": "VGG8b, mean over layers",
    "II": "VGG8b on CIFAR-10, layer by layer",
    "III": "VGG8b(2x) on CIFAR-10, dense and sparse targets",
    "IV": "VGG8b(2x) on CIFAR-10, layer by layer",
    "V": "a spiking convolutional network of 128 channels, and of 16 beside it",
}


class Number(NamedTuple):
    """One number of the paper. preset : that repeats it."""

    quantity: str
    data: str
    layer: str
    learner: str
    paper: float
    preset: str


def numbers_of(table: str) -> list[Number]:
    """The numbers of a table, "I" to "V". Each of table V stands there twice: for presets of the
    paper's 128 channels, and for those of 16.

    Returns
    -------
    list of Number : in the order of the paper.

    >>> [number.paper for number in numbers_of("III") if number.quantity == "MiB"]
    [14.04, 10.74]
    """
    sparse = {"fsp": "cifar10-vgg8b-2x-fsp", "fsp-sparse": "cifar10-vgg8b-2x-fsp-sparse"}
    if table == "I":
        return [
            Number(quantity, data, "", learner, value, f"{DATA[data]}-vgg8b-{learner}")
            for quantity, rows in _I.items()
            for data, values in rows.items()
            for learner, value in zip(LEARNERS, values, strict=True)
        ]
    if table == "III":
        return [
            Number(quantity, "CIFAR-10", "", learner, value, preset)
            for quantity, values in _III.items()
            for (learner, preset), value in zip(sparse.items(), values, strict=True)
        ]
    if table == "V":
        return [
            Number(quantity, data, "", learner, value, f"{_SPIKING[data]}-{network}-{learner}")
            for quantity, network in (("test error (%)", "snn128"), (NARROW, "snn"))
            for data, values in _V.items()
            for learner, value in zip(SPIKING_LEARNERS, values, strict=True)
        ]
    presets = {each: f"cifar10-vgg8b-{each}" for each in LEARNERS} if table == "II" else sparse
    return [
        Number(quantity, "CIFAR-10", str(k + 1), learner, getattr(layers, quantity.lower())[k], presets[learner])
        for quantity in ("seconds", "MiB")
        for k in range(7)
        for learner, layers in _LAYERS[table].items()
    ]


def paper_rows(table: str, stored: Mapping[str, Stored]) -> list[dict[str, Any]]:
    """A row for each number of the table: quantity, data, layer, learner, paper; ours (mean over
    seeds at the best epoch), low, high (its 95 % interval), difference (ours minus the paper's) and
    seeds, None where it was not run. stored : {preset: its summary}.

    Returns
    -------
    list of dict : in the order of the paper.
    """
    rows = []
    for number in numbers_of(table):
        summary = stored.get(number.preset)
        values = summary.values(MEASURED[number.quantity]) if summary and number.quantity in MEASURED else []
        mean, _, low, high = interval(values) if values else (None, None, None, None)
        rows.append(
            {
                **number._asdict(),
                "ours": mean,
                "low": low,
                "high": high,
                "difference": None if mean is None else mean - number.paper,
                "seeds": [record["seed"] for record in summary.seeds] if values and summary else [],
            }
        )
    return rows
