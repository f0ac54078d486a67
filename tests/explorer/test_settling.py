"""How long a phase takes to settle, and how much longer one would need that has not."""

from __future__ import annotations

import pytest

from fsp_dynamics.explorer.model import Model


@pytest.mark.parametrize("given", [{}, {"gain": 3.0}, {"r": 2.0}, {"rho": "logistic"}], ids=str)
@pytest.mark.parametrize("phase", ["free", "nudged"])
def test_the_missing_time_is_what_the_phase_would_need(model: Model, given: dict, phase: str) -> None:
    long = model.frame({**given, "free": 60.0, "nudged": 60.0}).readouts
    short = model.frame({**given, "free": 60.0, phase: 5.0}).readouts
    assert long[f"missing_{phase}"] is None
    assert short[f"settle_{phase}"] is None
    assert 5 + short[f"missing_{phase}"] == pytest.approx(long[f"settle_{phase}"], rel=0.2)
    assert f"does not settle in this time (needs about {short[f'missing_{phase}']:.2g} more)" in short["text"]


def test_what_never_settles_needs_no_time(model: Model) -> None:
    limit = model.frame({"integrator": "euler"}).readouts["limits"]["dt"]["above"]
    lost = model.frame({"integrator": "euler", "dt": 1.3 * limit, "start": "random"}).readouts
    assert lost["settle_free"] is lost["missing_free"] is None
    assert "does not settle in this time," in lost["text"]
