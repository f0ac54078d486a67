"""A network that stays on its device, and how its products with weights are computed there.

======== ===========================================================================================
products rates @ weight
======== ===========================================================================================
``full`` in the network's own precision
``tf32`` both rounded to 10 bits of mantissa, summed in float32: tensor cores on a GPU; on the CPU
         the operands are rounded
``bf16`` both rounded to bfloat16 (7 bits), summed in float32
======== ===========================================================================================

Only wide products are rounded, those with the images and between hidden layers. Products from or
to the output are thin and cost next to nothing; and a fixed point is sought in the outputs, which
could move in steps only if these products were rounded. Sums of outer products, which weights
learn from, are full.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from fsp_dynamics.errors import ConfigurationError, check_choice
from fsp_dynamics.models.network import Array, Network, cut_layers
from fsp_dynamics.models.rate import State
from fsp_dynamics.solvers import PRODUCTS
from fsp_dynamics.torch_backend.tensors import tensor, tensor_network

TF32_DROPPED = (1 << 13) - 1  # the bits of a float32 that tf32 does not have


def check_products(products: str, network: Network) -> None:
    """Refuse rounded products of a network that is not float32. Raises ConfigurationError."""
    check_choice("products", products, PRODUCTS)
    if products != "full" and network.dtype.itemsize != 4:
        raise ConfigurationError(
            f"products = {products!r} with {network.dtype} weights, expected float32; use products = 'full'"
        )


def rounded(x: torch.Tensor, products: str) -> torch.Tensor:
    """The float32 numbers rounded as for such products: to the nearest, ties to even; what is not
    finite stays so.
    """
    if products == "bf16":
        return x.bfloat16().float()
    bits = x.view(torch.int32)
    near = (bits + (TF32_DROPPED >> 1) + ((bits >> 13) & 1)) & ~TF32_DROPPED
    return torch.where(x.isfinite(), near.view(torch.float32), x)


@contextlib.contextmanager
def precision(wanted: str) -> Iterator[None]:
    """torch's float32 products inside the block: "highest" (IEEE) or "high" (tf32 on a GPU). It is
    a setting of the whole process, restored afterwards.
    """
    matmul = torch.backends.cuda.matmul
    try:
        before, put = torch.get_float32_matmul_precision(), torch.set_float32_matmul_precision
    except RuntimeError:  # once a process has used torch's newer setting it may not ask the older one
        before, wanted = matmul.fp32_precision, {"highest": "ieee", "high": "tf32"}[wanted]
        put = functools.partial(setattr, matmul, "fp32_precision")
    if before == wanted:
        yield
        return
    put(wanted)
    try:
        yield
    finally:
        put(before)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Where products keep the precision of the weights: autocast, if it is on, is off inside."""
    kind = device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if on else nullcontext()


@dataclass(slots=True, eq=False)
class Link:
    """A matrix by which the rates of layer `pre` enter another: `weight` (n_pre, n_post), and as
    wide products take it (None: `weight` itself).
    """

    pre: int
    weight: torch.Tensor
    taken: torch.Tensor | None = None


class DeviceNetwork:
    """A network whose weights are tensors on one device. `weights` holds them; they may be changed
    in place, and `refresh` is to be called after.

    rho, sizes (n_1, ..., n_L), leaks (1 / r_k), cut : facts of the network. incoming : the links
    into each layer.
    """

    def __init__(self, weights: Network, products: str = "full") -> None:
        self.weights, self.products = weights, products
        self.device: torch.device = weights.input.device
        self.dtype = weights.dtype
        self.sizes, self.rho, self.cut = weights.sizes[1:], weights.rho, cut_layers(weights)
        self.leaks = tuple(1 / r for r in weights.time_constants)
        last = weights.depth - 1
        self.incoming: list[list[Link]] = [[] for _ in self.sizes]
        for pre, post, weight in weights.connections():
            self.incoming[post].append(Link(pre, weight, None if last in (pre, post) else self._taken(weight)))
        self.images = Link(-1, weights.input, self._taken(weights.input))

    @classmethod
    def of(cls, network: Network, device: torch.device, products: str) -> DeviceNetwork:
        """A network of arrays on the device; on the CPU the tensors share the arrays. Raises
        ConfigurationError for products that do not fit it.
        """
        check_products(products, network)
        return cls(tensor_network(network, device), products)

    def refresh(self) -> None:
        """Round the weights anew."""
        if self.products == "full" or (self.products == "tf32" and self.device.type != "cpu"):
            return
        for link in (self.images, *(link for links in self.incoming for link in links)):
            if link.taken is not None:
                link.taken = self._taken(link.weight)

    def drive(self, images: torch.Tensor) -> torch.Tensor:
        """images @ input + biases[0] (B, n_1)."""
        return self.add(self.weights.biases[0], images, self.images)

    def entering(self, k: int, drive: torch.Tensor, rates: Sequence[Any]) -> torch.Tensor:
        """The drive or bias plus the weighted rates that enter layer k (B, n_k)."""
        a = drive if k == 0 else self.weights.biases[k]
        for link in self.incoming[k]:
            a = self.add(a, rates[link.pre], link)
        return a

    def add(self, constant: torch.Tensor, rates: torch.Tensor, link: Link) -> torch.Tensor:
        """constant + rates @ weight (B, n_post)."""
        if link.taken is None:
            return torch.addmm(constant, rates, link.weight)
        if self.device.type == "cpu":
            return torch.addmm(constant, rounded(rates, self.products), link.taken)
        if self.products == "tf32":
            with precision("high"):
                return torch.addmm(constant, rates, link.taken)
        return constant + torch.mm(rates.bfloat16(), link.taken, out_dtype=torch.float32)

    def tensors(self, arrays: State | tuple[Array, ...]) -> tuple[torch.Tensor, ...]:
        """The arrays on the device, in the network's precision."""
        return tuple(tensor(each, self.device, self.dtype) for each in arrays)

    def _taken(self, weight: torch.Tensor) -> torch.Tensor | None:
        """The matrix as wide products take it."""
        if self.products == "full":
            return None
        if self.device.type == "cpu":
            return rounded(weight.contiguous(), self.products)
        return weight if self.products == "tf32" else weight.bfloat16()
