"""What a user gives to `train` as Python objects, written into a configuration: a network, a data
set, a learning rule, a firing rate of one's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsp_dynamics.datasets import DATASETS, Dataset
from fsp_dynamics.errors import ConfigurationError, nearest
from fsp_dynamics.experiments.config import Config, flatten
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.objects import DATA, GIVEN, RHO, RULE, Objects, rho_text, rule_text
from fsp_dynamics.folders import expanded
from fsp_dynamics.learning.optimisers import LearningRates
from fsp_dynamics.models.activations import Activation
from fsp_dynamics.models.network import Network

DEFAULT = "digits"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class OwnObjects:
    """Arguments of `runner.train`. allowed : modules that may be imported; None: any."""

    network: Network | None = None
    data: Dataset | str | Path | None = None
    rule: Any = None
    activation: Any = None
    allowed: Sequence[str] | None = ()

    def configure(
        self, source: str | Path | Config | Mapping[str, Any] | None, overrides: Mapping[str, Any]
    ) -> tuple[str, Config]:
        """(name, configuration) of a source with these objects in it. None: the preset `digits`,
        its rates fitted to the network's layers. Raises ConfigurationError.
        """
        self._check()
        changes: dict[str, Any] = {}
        if self.network is not None:
            changes |= _network_keys(self.network)
        if self.data is not None:
            changes |= self._data_keys()
        if self.rule is not None:
            changes[RULE] = rule_text(self.rule)[0]
        if self.activation is not None:
            changes[RHO] = rho_text(self.activation)[0]
        _refuse_both(self, changes, flatten(overrides))
        if source is not None:
            name, config = load_config(source, {**changes, **overrides})
            return name, config
        _, config = load_config(fitted(self.network, overrides), {**changes, **overrides})
        return ("own" if self.network is not None else config.data.label), config

    def objects(self, config: Config) -> Objects:
        """Where the objects of the configuration come from."""
        given: dict[tuple[str, str], Any] = {}
        unreadable = {}
        parts = ((RULE, self.rule, rule_text), (RHO, self.activation, rho_text), (RHO, self._rho, rho_text))
        for key, value, describe in parts:
            if value is not None and not isinstance(value, str):
                text, problem = describe(value)
                given[key, text] = value
                if problem is not None:
                    unreadable[key] = (
                        f"{problem}. The run can be listed and compared; give the object again to resume or evaluate it"
                    )
        if isinstance(self.data, Dataset):
            given[DATA, str(config.data.name)] = self.data
            unreadable[DATA] = (
                f"{DATA}: the images were given in Python and are not kept in the run folder. The run can be listed "
                "and compared; to resume or evaluate it, give the data again (data=...)"
            )
        return Objects(self.allowed, given, unreadable)

    @property
    def _rho(self) -> Any:
        return None if self.network is None else self.network.rho

    def _check(self) -> None:
        if self.network is not None and not isinstance(self.network, Network):
            raise ConfigurationError(f"network is of type {type(self.network).__name__}, expected a Network")
        if self.network is not None and self.activation is not None:
            raise ConfigurationError("activation beside network, which has one of its own; leave activation out")
        if self.activation is not None and not isinstance(self.activation, Activation | str):
            raise ConfigurationError(
                f"activation is of type {type(self.activation).__name__}, expected an Activation, its name "
                "or import path"
            )
        if self.rule is not None and not isinstance(self.rule, str) and not hasattr(self.rule, "terms"):
            raise ConfigurationError(
                f"rule is of type {type(self.rule).__name__}, expected an object or class with the methods of "
                "learning.rules.Rule, its name or import path"
            )
        if self.data is not None and not isinstance(self.data, Dataset | str | Path):
            raise ConfigurationError(
                f"data is of type {type(self.data).__name__}, expected a Dataset (dataset_from_arrays), "
                "the name of a data set, or a path"
            )

    def _data_keys(self) -> dict[str, Any]:
        if isinstance(self.data, Dataset):
            return {"data.name": GIVEN + (self.data.name or "arrays"), "data.path": None, "data.limit": None}
        if isinstance(self.data, str) and self.data in DATASETS:
            return {"data.name": self.data, "data.path": None}
        if isinstance(self.data, str) and "/" not in self.data and not Path(self.data).exists():
            raise ConfigurationError(
                f"data = {self.data!r} is neither a data set nor a path here; {nearest(self.data, DATASETS)}"
            )
        return {"data.path": str(expanded(str(self.data), "data").resolve()), "data.name": None}


def _refuse_both(own: OwnObjects, changes: Mapping[str, Any], flat: Mapping[str, Any]) -> None:
    """Refuse keys beside the object that decides them. Raises ConfigurationError."""
    if isinstance(own.data, Dataset):
        for key in ("data.limit", "data.validation", "data.name", "data.path"):
            if flat.get(key) is not None:
                raise ConfigurationError(
                    f"{key} = {flat[key]!r} beside data, a Dataset that is split already; leave {key} out, "
                    "or give it when the Dataset is made"
                )
    for key in changes:
        if flat.get(key) is not None:
            argument = {RULE: "rule", RHO: "activation"}.get(key, key.partition(".")[0])
            argument = "network" if own.network is not None and key == RHO else argument
            raise ConfigurationError(
                f"{key} = {flat[key]!r} beside {argument}, which decides it; leave one of the two out"
            )


def fitted(network: Network | None, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The preset `digits` as a table, fitted to the layers of a network, or to as many hidden
    layers as `network.hidden` of the overrides asks for.
    """
    _, config = load_config(DEFAULT)
    table = config.table(exclude_none=True)
    table.pop("notes")
    asked = overrides.get("network.hidden", (overrides.get("network") or {}).get("hidden"))
    if network is None and asked is None:
        return table
    hidden = len(network.forward) if network is not None else len(np.atleast_1d(asked))
    has_loop = network is None or network.loop is not None
    backward = 0 if network is None or network.backward is None else hidden
    rates = fitted_rates(hidden, has_loop, backward)
    table["learning"]["rates"] = {
        "input": rates.input, "forward": rates.forward, "loop": rates.loop, "backward": rates.backward
    }  # fmt: skip
    if network is not None:
        table["network"] = {}
    return table


def fitted_rates(hidden: int, has_loop: bool = True, backward: int = 0) -> LearningRates:
    """The learning rates of the preset `digits` for so many hidden layers: that of its first
    forward matrix for all but the output's.
    """
    given = load_config(DEFAULT)[1].learning.rates  # type: ignore[attr-defined]
    forward = tuple([given.forward[0]] * (hidden - 1) + [given.forward[-1]])
    return LearningRates(given.input, forward, given.loop if has_loop else 0.0, forward[:backward])


def _network_keys(network: Network) -> dict[str, Any]:
    """{dotted key: value} of the topology, the layers and the digest of a network's weights."""
    if network.loop is None and network.backward is None and not network.tied:
        raise ConfigurationError(
            f"network = {network!r} has neither a loop nor backward connections, so a nudge of the output would reach "
            "no hidden layer; give one of loop_network or reciprocal_network"
        )
    kind = "loop" if network.loop is not None else "reciprocal"
    digest = hashlib.sha256()
    for name, weight in sorted(network.parameters().items()):
        digest.update(name.encode() + np.ascontiguousarray(weight).tobytes())
    return {
        "network.kind": kind,
        "network.hidden": list(network.sizes[1:-1]),
        "network.rho": rho_text(network.rho)[0],
        "network.time_constants": list(network.time_constants),
        "network.dtype": network.dtype.name,
        "network.tied": network.tied if kind == "reciprocal" else None,
        "network.forward_scale": None,
        "network.loop_scale": None,
        "network.initial": f"sha256:{digest.hexdigest()[:32]}",
    }
