"""What computes: compiled kernels on the CPU, or torch on the CPU or a GPU. It is no part of the
experiment: a run may be resumed on another one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fsp_dynamics.errors import ConfigurationError, check_choice
from fsp_dynamics.solvers import PRODUCTS, make_solver

if TYPE_CHECKING:
    from fsp_dynamics.experiments.rate.config import SolverConfig
    from fsp_dynamics.solvers.equilibrium import Solver

BACKENDS = ("numba", "torch")
ON_TORCH = {"fixed_point": "torch_fixed_point", "torch_ode": "torch_ode"}
ONLY_HERE = ("newton",)  # of fixed_point


@dataclass(frozen=True, slots=True)
class Backend:
    """What trains and evaluates rate networks.

    name : "numba" or "torch". device, products : of torch alone
    (`torch_backend.fixed_point.TorchFixedPointSolver`); None: "auto", "full". Raises
    ConfigurationError for unknown names, and for a device or products with numba.
    """

    name: str = "numba"
    device: str | None = None
    products: str | None = None

    def __post_init__(self) -> None:
        check_choice("backend", self.name, BACKENDS)
        if self.device is not None:
            object.__setattr__(self, "device", str(self.device))  # a torch.device as well
        for field in ("device", "products"):
            value = getattr(self, field)
            if value is not None and self.name != "torch":
                raise ConfigurationError(
                    f"{field} = {value!r} belongs to backend torch, not to {self.name}; "
                    "choose backend torch too, or leave it out"
                )
        if self.products is not None:
            check_choice("products", self.products, PRODUCTS)

    def solver(self, given: SolverConfig, local_rank: int = 0) -> Solver:
        """The solver of a configuration, on this backend. local_rank : the GPU of this machine that
        "auto" and "cuda" denote.

        Raises ConfigurationError for a solver that torch does not have, for settings that the
        solver refuses, and for a device that does not exist.
        """
        name, settings = given.name, dict(given.settings)
        if self.name == "torch":
            _require_torch()
            if name not in ON_TORCH:
                raise ConfigurationError(
                    f"solver.name = {name!r} does not run on backend torch; "
                    f"choose one of: {', '.join(ON_TORCH)}, or backend numba"
                )
            name = ON_TORCH[name]
            if given.method in ONLY_HERE:
                raise ConfigurationError(
                    f"solver.method = {given.method!r} does not run on backend torch; "
                    "use backend numba, or leave it out"
                )
            settings["device"] = self.device_name(local_rank)
            if name == "torch_fixed_point":
                settings["products"] = self.products or "full"
            elif self.products not in (None, "full"):
                raise ConfigurationError(
                    f"products = {self.products!r} belongs to solver fixed_point, not to torch_ode; leave it out"
                )
        try:
            return make_solver(name, **settings)
        except ConfigurationError as error:
            raise ConfigurationError(f"solver.{error}") from None

    def refuse_one_gpu_for_several(self, processes: int) -> None:
        """Raises ConfigurationError for a numbered GPU that the processes of a job would share:
        each takes one of its own.
        """
        if processes > 1 and self.device is not None and self.device.startswith("cuda:"):
            raise ConfigurationError(
                f"device = {self.device!r} for {processes} processes, expected cuda: each takes a GPU of its own"
            )

    def device_name(self, local_rank: int = 0) -> str:
        """The torch device: "cpu" or "cuda:0". Raises ConfigurationError for one that does not
        exist here.
        """
        _require_torch()
        from fsp_dynamics.torch_backend.tensors import chosen_device

        device = chosen_device("auto" if self.device is None else self.device)
        return str(device) if device.type == "cpu" or device.index is not None else f"cuda:{local_rank}"

    def described(self, local_rank: int = 0, shards: int = 1) -> str:
        """What computes, as a text for environment.json: all that may change the last bits of a
        result. shards : into which every batch is divided.
        """
        cut = f", batches in {shards} shards" if shards > 1 else ""
        if self.name == "numba":
            return f"numba{cut}"
        from fsp_dynamics.torch_backend.tensors import describe_device

        return f"{describe_device(self.device_name(local_rank))}, {self.products or 'full'} products{cut}"


NUMBA = Backend()


def backend_of(given: Backend | str, device: str | None = None, products: str | None = None) -> Backend:
    """The `Backend` of that name, or the one given, with this device and these products where they
    are not None. Raises as `Backend` does.
    """
    known = given if isinstance(given, Backend) else Backend(given)
    return replace(
        known, **{key: value for key, value in (("device", device), ("products", products)) if value is not None}
    )


def _require_torch() -> None:
    import importlib.util

    missing: list[Any] = [name for name in ("torch", "torchdiffeq") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"backend torch needs {' and '.join(missing)}; pip install 'fsp_dynamics[torch]', or use backend numba"
        )
