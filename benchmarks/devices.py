"""Training on a device through torch, compared with backpropagation there and with the compiled
kernels of this machine's cores.

    python -m benchmarks.devices --device auto --preset mnist-2x1500 --batches 20,256,1024

A whole epoch each, after one that warms up; bringing images and labels to the device counts, on
both sides. Shares are of the largest float32 product's speed on the same device (of the products
that were asked for: tf32 and bf16 have their own), and count what samples need: on a GPU those at
rest are multiplied along with the others. On the CPU ours has the threads that it chooses,
backpropagation all cores. `--limit` makes epochs shorter.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import App, Parameter

from benchmarks import counting
from benchmarks.counting import FLOPS
from fsp_dynamics.datasets import Split, load_dataset
from fsp_dynamics.experiments.backend import Backend
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.execution import thread_limit
from fsp_dynamics.experiments.rate.building import build_network, build_recipe
from fsp_dynamics.kernels.team import available
from fsp_dynamics.solvers import PRODUCTS
from fsp_dynamics.tables import print_table
from fsp_dynamics.training.epoch import train_epoch
from fsp_dynamics.training.recipe import Learner

app = App(name="benchmarks.devices", help=(__doc__ or "").partition("\n")[0])


@dataclass(frozen=True, slots=True)
class Row:
    """One epoch. products : multiplications for one image, counted; peak_share : of `peak`, both
    as additions and multiplications per second.
    """

    method: str
    device: str
    factors: str
    batch: int
    seconds: float
    images_per_second: float
    train_error: float
    passes_free: float
    passes_nudged: float
    products: float
    peak_share: float


def wait_for(device: str) -> None:
    """Wait until the device has finished."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def peak(device: str, factors: str, size: int = 8192, seconds: float = 1.0) -> float:
    """Floating-point operations per second of a large product on the device."""
    import torch

    size = size if device.startswith("cuda") else 1536
    kind = torch.bfloat16 if factors == "bf16" else torch.float32
    a, b = (torch.rand(size, size, device=device).to(kind) for _ in range(2))
    before, best = torch.backends.cuda.matmul.allow_tf32, np.inf
    torch.backends.cuda.matmul.allow_tf32 = factors == "tf32"
    try:
        a @ b
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            wait_for(device)
            begin = time.perf_counter()
            a @ b
            wait_for(device)
            best = min(best, time.perf_counter() - begin)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return FLOPS * size**3 / best


def ours(preset: str, backend: Backend, batch: int, limit: int | None, epochs: int, peaks: dict[str, float]) -> Row:
    """Train for `epochs` epochs; the row of the last."""
    config = load_config(preset, {"learning.batch": batch, **({} if limit is None else {"data.limit": limit})})[1]
    data = load_dataset(config.data.name, validation=config.data.validation, limit=config.data.limit)
    network, rng = build_network(config, data.train.images.shape[1], data.classes)
    recipe = build_recipe(config, backend)
    learner = Learner.start(network, recipe, rng)
    with thread_limit(None):
        for _ in range(epochs):
            report = train_epoch(learner, data.train, recipe)
    device = "cpu" if backend.name == "numba" else backend.device_name()
    factors = backend.products or "full"
    products = counting.equilibrium(network.sizes, report.passes_free, report.passes_nudged, report.nudged_share)
    share = FLOPS * products * report.images_per_second / peaks[device, factors]  # type: ignore[index]
    return Row(
        f"eq. 14, {backend.name}",
        device,
        factors,
        batch,
        report.seconds,
        report.images_per_second,
        report.train_error,
        report.passes_free,
        report.passes_nudged,
        products,
        share,
    )


def backprop(
    sizes: tuple[int, ...], split: Split, device: str, batch: int, epochs: int, peaks: dict[str, float]
) -> Row:
    """The row of the last of several epochs of eager PyTorch: ReLU, cross-entropy, plain SGD."""
    import torch

    torch.manual_seed(0)
    layers: list[Any] = []
    for pre, post in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(pre, post), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1]).to(device)
    optimiser, rng = torch.optim.SGD(model.parameters(), lr=0.05), np.random.default_rng(0)
    for _ in range(epochs):
        order, wrong = torch.from_numpy(rng.permutation(len(split.labels))).to(device), torch.zeros((), device=device)
        wait_for(device)
        begin = time.perf_counter()
        images, labels = torch.from_numpy(split.images).to(device), torch.from_numpy(split.labels).to(device)
        for first in range(0, len(order), batch):
            index = order[first : first + batch]
            optimiser.zero_grad()
            scores = model(images[index])
            torch.nn.functional.cross_entropy(scores, labels[index]).backward()
            optimiser.step()
            wrong += (scores.argmax(1) != labels[index]).sum()
        wait_for(device)
        seconds = time.perf_counter() - begin
    rate, products = len(labels) / seconds, counting.backprop(sizes)
    share = FLOPS * products * rate / peaks[device, "full"]  # type: ignore[index]
    return Row(
        "backpropagation",
        device,
        "full",
        batch,
        seconds,
        rate,
        100 * float(wrong) / len(labels),
        0.0,
        0.0,
        products,
        share,
    )


def measure(
    preset: str, device: str, batches: tuple[int, ...], factors: tuple[str, ...], limit: int | None, epochs: int
) -> dict[str, Any]:
    """Rows of all methods, and the peaks to which they are related."""
    from fsp_dynamics.torch_backend.engine import one_number_of_threads

    where = Backend("torch", device).device_name()
    peaks: Any = {
        (on, kind): peak(on, kind)
        for on, kind in {("cpu", "full"), *((where, kind) for kind in factors), (where, "full")}
    }
    config = load_config(preset, {} if limit is None else {"data.limit": limit})[1]
    data = load_dataset(config.data.name, validation=config.data.validation, limit=config.data.limit)
    sizes = (data.train.images.shape[1], *config.network.hidden, data.classes)
    rows = [ours(preset, Backend(), config.learning.batch, limit, epochs, peaks)]
    for batch in batches:
        print(f"measuring: batch {batch} on {where}", file=sys.stderr, flush=True)
        rows += [ours(preset, Backend("torch", where, kind), batch, limit, epochs, peaks) for kind in factors]
        with one_number_of_threads(available()):
            rows.append(backprop(sizes, data.train, where, batch, epochs, peaks))
    named = {f"{on}, {kind}": value for (on, kind), value in peaks.items()}
    return {
        "preset": preset,
        "described": Backend("torch", where).described(),
        "peaks": named,
        "rows": [dataclasses.asdict(row) for row in rows],
    }


@app.default
def main(
    *,
    preset: str = "mnist-2x1500",
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1")] = "auto",
    batches: str = "20,256,1024",
    products: Annotated[str, Parameter(help=f"of {', '.join(PRODUCTS)}, with commas")] = "full",
    limit: Annotated[int | None, Parameter(help="number of training images; default all")] = None,
    epochs: Annotated[int, Parameter(help="number of epochs; the last is measured")] = 2,
    out: Annotated[Path | None, Parameter(help="a JSON file for the results")] = None,
) -> None:
    """Train on a device, compared with backpropagation there and with this machine's cores."""
    found = measure(preset, device, tuple(map(int, batches.split(","))), tuple(products.split(",")), limit, epochs)
    shown = [
        {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items()}
        for row in found["rows"]
    ]
    print_table(f"{preset}, epoch {epochs}; {found['described']}", shown)
    if out is not None:
        out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    app()
