"""`fsp check` passes, and fails where the code it measures is broken."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments import check
from fsp_dynamics.experiments.backend import Backend
from fsp_dynamics.experiments.check import Measured, agreement, closed_form, orders, run_checks, theorem


def failing(group):
    return [measured.what for measured in group if not measured.passed]


def test_every_figure_passes():
    received = []
    found = list(run_checks(nets=5, report=received.append))
    assert [m.what for m in found if not m.passed] == []
    assert received == ["order", "agreement", "eq. 14", "equilibrium propagation"]
    assert {m.group for m in found} == set(received)
    methods = {m.what.split(",")[0] for m in found if m.group == "order"}
    assert methods == set(check.TABLEAUX)


def test_a_wrong_coefficient_costs_the_order(monkeypatch):
    spoilt = dataclasses.replace(check.TABLEAUX["rk4"], b=(1 / 6, 1 / 3, 1 / 3 - 1e-3, 1 / 6 + 1e-3))
    monkeypatch.setitem(check.TABLEAUX, "rk4", spoilt)
    assert failing(orders()) == ["rk4, reference", "rk4, numba_ode"]


def test_a_solver_that_is_off_is_noticed(monkeypatch):
    real = check._relax

    def off(network, images, way="anderson", nudge=None, device=None):
        rest = real(network, images, way, nudge, device)
        if way == "picard":
            rest.state[0][0, 0] += 2e-5
        return rest

    monkeypatch.setattr(check, "_relax", off)
    assert failing(agreement(2)) == ["picard - anderson, 2 nets, float64", "picard - anderson, 2 nets, float32"]


def test_unconverged_samples_are_noticed(monkeypatch):
    monkeypatch.setitem(check.SETTINGS, "numba", ("numba_ode", {"method": "dopri5", "max_steps": 2}))
    assert "unconverged samples, float64" in failing(agreement(1))


@pytest.mark.parametrize("name", ["input", "loop", "biases[0]", "forward[0]"])
def test_a_wrong_rule_is_noticed(monkeypatch, name):
    real = check.hebbian_update

    class Spoilt:
        def __init__(self, update):
            self.update = update

        def parameters(self):
            return {key: w * (1 + 1e-3 * (key == name)) for key, w in self.update.parameters().items()}

    monkeypatch.setattr(check, "hebbian_update", lambda *arguments, **options: Spoilt(real(*arguments, **options)))
    assert len(failing(closed_form())) == 2
    if name != "loop":
        assert any("-dC/dW" in what for what in failing(theorem()))


def test_limits_in_words():
    assert Measured("", "", np.nan, 0, 1).passed is False
    assert Measured("", "", 2.0, 1.9, 2.1).expected == "2 +- 0.1"
    assert Measured("", "", 0, 0, 0).expected == "<= 0"


def test_every_figure_passes_on_torch():
    pytest.importorskip("torch")
    found = list(run_checks(nets=3, backend=Backend("torch", "cpu")))
    assert [(m.what, m.value) for m in found if not m.passed] == []
    assert {m.what.split(",")[0] for m in found if m.group == "order"} == set(check.TORCH_ORDERS)
    beside = {m.what.split(" - ")[0] for m in found if " - anderson" in m.what}
    assert beside == {"reference", *check.TORCH_SETTINGS}


def test_a_torch_solver_that_is_off_is_noticed(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setitem(check.TORCH_SETTINGS, "torch dopri5", ("torch_ode", {"method": "dopri5", "max_steps": 2}))
    assert "unconverged samples, float64" in failing(agreement(1, "cpu"))
    monkeypatch.setitem(check.TORCH_SETTINGS, "torch anderson", ("torch_fixed_point", {"products": "bf16"}))
    with pytest.raises(ConfigurationError, match="products"):  # of a float64 network
        list(agreement(1, "cpu"))
