"""Sessions to explore."""

from __future__ import annotations

import pytest

from fsp_dynamics.experiments.runner import Run, train
from fsp_dynamics.explorer.model import Model
from fsp_dynamics.explorer.session import Session


@pytest.fixture(scope="session")
def explored_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small run with a network kept after every second epoch."""
    learning = {"epochs": 5, "rates": {"input": 20.0, "forward": [30.0, 7.0], "loop": 0.5}}
    return train(
        "digits",
        out=tmp_path_factory.mktemp("runs") / "explored",
        progress=False,
        data={"name": "digits", "limit": 300},
        network={"hidden": [20, 15], "loop_scale": 0.2},
        learning={**learning, "output_step": 0.2},
        probes={"samples": 0, "keep": 2},
    )


@pytest.fixture
def model() -> Model:
    """The random network that is explored when nothing is given."""
    return Model(Session.of(None))
