"""A network that stays on its device, and how its products with weights are made there.

=========  =====================================================================================================================
products   rates @ weight
=========  =====================================================================================================================
``full``   in the network's own precision
``tf32``   both rounded to 10 bits of mantissa, added up in float32: tensor cores on a GPU; on the CPU the operands are rounded
``bf16``   both rounded to bfloat16 (7 bits), added up in float32
=========  =====================================================================================================================

Only wide products are rounded, those with the images and between hidden layers. Products from or
to the output are thin, cost next to nothing, and a fixed point is sought in the outputs, which
rounding would leave only steps to move in. Sums of outer products, which weights learn from, are
full.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fsp_dynamics.errors import ConfigurationError, check_choice
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import State
from fsp_dynamics.solvers import PRODUCTS
from fsp_dynamics.torch_backend.tensors import tensor, tensor_network

TF32_REST = (1 << 13) - 1  # the bits of a float32 that tf32 does not have


def check_products(products: str, network: Network) -> None:
    """Refuse rounded products of a network that is not float32. Raises ConfigurationError."""
    check_choice("products", products, PRODUCTS)
    if products != "full" and network.dtype.itemsize != 4:
        raise ConfigurationError(
            f"products = {products!r} with {network.dtype} weights, expected float32; use products = 'full'"
        )


def rounded(x: torch.Tensor, products: str) -> torch.Tensor:
    """The float32 numbers as such products see them: the nearest ones, ties to even; what is not
    finite stays so.
    """
    if products == "bf16":
        return x.bfloat16().float()
    bits = x.view(torch.int32)
    near = (bits + (TF32_REST >> 1) + ((bits >> 13) & 1)) & ~TF32_REST
    return torch.where(x.isfinite(), near.view(torch.float32), x)


@contextlib.contextmanager
def precision(wanted: str) -> Iterator[None]:
    """torch's float32 products inside the block: "highest" (IEEE) or "high" (tf32 on a GPU). It is
    a setting of the whole process: put back after.
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


@dataclass(slots=True, eq=False)
class Link:
    """A matrix by which the rates of layer `pre` enter another: `weight` (n_pre, n_post), and as
    wide products take it (None: `weight` itself).
    """

    pre: int
    weight: torch.Tensor
    taken: torch.Tensor | None = None


class DeviceNetwork:
    """A network on a device. `network` holds tensors, which may be changed in place; `refresh` is
    to be called after.

    On the CPU the tensors share the arrays of the network that was given. Raises
    ConfigurationError for products that do not fit it.
    """

    def __init__(self, network: Network, device: torch.device, products: str) -> None:
        check_products(products, network)
        self.network, self.device, self.products = tensor_network(network, device), device, products
        self.sizes, self.rho, self.arrays = network.sizes[1:], network.rho, network
        self.leaks = tuple(1 / r for r in network.time_constants)
        self.dtype = self.network.input.dtype
        last = network.depth - 1
        self.incoming: list[list[Link]] = [[] for _ in self.sizes]
        for pre, post, weight in self.network.connections():
            self.incoming[post].append(Link(pre, weight, None if last in (pre, post) else self._taken(weight)))
        self.images = Link(-1, self.network.input, self._taken(self.network.input))

    def refresh(self) -> None:
        """Round the weights anew."""
        if self.products == "full" or (self.products == "tf32" and self.device.type != "cpu"):
            return
        for link in (self.images, *(link for links in self.incoming for link in links)):
            if link.taken is not None:
                link.taken = self._taken(link.weight)

    def drive(self, images: torch.Tensor) -> torch.Tensor:
        """images @ input + biases[0] (B, n_1)."""
        return self.add(self.network.biases[0], images, self.images)

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
