"""One truth across backends: NumPy, compiled kernels and torch find the same equilibria, learn the
same from a batch, and learn the same in an epoch.

The promises of each solver are held in tests/test_solvers_agree.py; here they stand beside each
other, on every device there is.
"""

from __future__ import annotations

import dataclasses

import numba
import numpy as np
import problems
import pytest
from epochs import trained
from problems import problem, random_problem

torch = pytest.importorskip("torch")

import fsp_dynamics as fsp
from fsp_dynamics.learning.optimisers import LearningRates, Sgd
from fsp_dynamics.models.rate import flatten
from fsp_dynamics.solvers import make_solver
from fsp_dynamics.solvers.equilibrium import Tolerance
from fsp_dynamics.training.recipe import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
DEVICES = ["cpu", pytest.param("cuda", marks=CUDA)]
EVERY_DEVICE = pytest.mark.parametrize("device", DEVICES)
EVERY_PHASE = pytest.mark.parametrize("phase", problems.PHASES)
OURS = {"reference": ("reference", {}), "numba_ode": ("numba_ode", {}), "fixed_point": ("fixed_point", {})}
TORCH = {
    "passes": ("torch_fixed_point", {}),
    "dopri5": ("torch_ode", {"method": "dopri5"}),
    "bosh3": ("torch_ode", {"method": "bosh3"}),
    "rk4": ("torch_ode", {"method": "rk4", "dt": 0.5}),
    "implicit_adams": ("torch_ode", {"method": "implicit_adams", "dt": 0.2}),
}
UPDATE = {np.float32: 1e-4, np.float64: 1e-10}  # of the largest change
# Rests that differ by the tolerance move weights by tolerance / beta of their own change, and the
# next rests with them. In float32 a state is no surer than 6e-8, so that after seventeen batches
# weights may differ by some 1e-4 of what they moved; 1e-3 leaves room for other processors.
EPOCH = {np.float32: 1e-3, np.float64: 1e-8}
compiled_only = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="a whole epoch takes minutes as plain Python")


def tight(dtype) -> Tolerance:
    """Well below the agreement asked for and above rounding."""
    return Tolerance(2e-6 if dtype == np.float32 else 2e-14)


def apart(one, other) -> float:
    """The largest difference of any unit."""
    return float(np.abs(flatten(one).astype(np.float64) - flatten(other)).max())


def solver_of(name, device):
    kind, settings = (OURS | TORCH)[name]
    return make_solver(kind, **settings, **({"device": device} if name in TORCH else {}))


@pytest.mark.parametrize(  # every problem on the CPU: tests/test_solvers_agree.py
    ("where", "device"),
    [("saturated", "cpu"), ("untied", "cpu"), *(pytest.param(name, "cuda", marks=CUDA) for name in problems.NAMES)],
)
@EVERY_PHASE
def test_equilibria_are_the_same(where, phase, device, dtype) -> None:
    """Saturated, strong, smooth, reciprocal: within 1e-12 (float64) and 1e-5 (float32) of each
    other, and of what the oracles know.
    """
    p = problem(where, dtype)
    nudge, limit = p.nudges[phase], tight(dtype)
    found = {
        name: solver_of(name, device).relax(p.network, p.drive, None, nudge, limit).require_converged()
        for name in OURS | TORCH
    }
    for name, rest in found.items():
        assert apart(rest.state, p.known[phase]) <= p.agreement, name
        assert apart(rest.state, found["fixed_point"].state) <= p.agreement, name
        assert rest.beta == (0 if nudge is None else nudge.beta)


@EVERY_DEVICE
def test_equilibria_of_a_hundred_random_nets_are_the_same(device, dtype) -> None:
    """A third each freely, positive and negative; loop gains up to .95, biases that saturate."""
    for seed in range(100):
        p = random_problem(seed, dtype)
        nudge = p.nudges[problems.PHASES[seed % 3]]
        found = {
            name: solver_of(name, device).relax(p.network, p.drive, None, nudge, tight(dtype))
            for name in ("fixed_point", "passes")
        }
        if seed % 10 == 0:
            found |= {
                name: solver_of(name, device).relax(p.network, p.drive, None, nudge, tight(dtype))
                for name in ("dopri5", "reference")
            }
        for name, rest in found.items():
            assert rest.converged.all(), (seed, name)
            assert apart(rest.state, found["fixed_point"].state) <= p.agreement, (seed, name)


@EVERY_DEVICE
@pytest.mark.parametrize("kind", ["one-sided", "centred"])
@pytest.mark.parametrize("where", ["saturated", "deep", "one-hidden", "time-constants", "untied", "logistic"])
def test_one_update_is_the_same(where, kind, device, dtype) -> None:
    """Eq. 14 from the equilibria of each backend, relative to the largest change of a parameter."""
    p = problem(where, dtype)

    def learned(name):
        solver, limit = solver_of(name, device), tight(dtype)
        free = fsp.relax(p.network, p.images, solver=solver, tolerance=limit)
        pull = fsp.Nudge(0.5, p.nudges["nudged"].target)
        nudged = fsp.relax(p.network, p.images, nudge=pull, start=free, solver=solver, tolerance=limit)
        push = fsp.Nudge(-0.5, pull.target)
        opposite = (
            fsp.relax(p.network, p.images, nudge=push, start=free, solver=solver, tolerance=limit)
            if kind == "centred"
            else None
        )
        return fsp.hebbian_update(p.network, p.images, free, nudged, opposite=opposite).parameters()

    expected = learned("reference")
    whole = max(float(np.abs(change).max()) for change in expected.values())
    assert whole > 0
    for name in ("fixed_point", "numba_ode", "passes", "dopri5"):
        for parameter, change in learned(name).items():
            assert np.abs(change - expected[parameter]).max() <= UPDATE[dtype] * whole, (name, parameter)


DIGITS = fsp.load_dataset("digits")


def recipe_for(network, kind, name, device, dtype, **optimiser) -> Recipe:
    reciprocal = network.depth - 1 if network.backward is not None else 0
    rates = LearningRates(3.0, (4.0,) * (network.depth - 1), 0.5, (2.0,) * reciprocal)
    limit = Tolerance(1e-6 if dtype == np.float32 else 1e-13)
    return Recipe(Sgd(rates, **optimiser), solver_of(name, device), limit, beta=0.5, phases=kind)


NETWORKS = {
    "loop": lambda dtype: fsp.loop_network([64, 30, 20, 10], rng=1, dtype=dtype, loop_scale=0.5),
    "tied": lambda dtype: fsp.reciprocal_network([64, 30, 10], rng=1, dtype=dtype),
    "logistic": lambda dtype: fsp.loop_network([64, 20, 10], rng=1, dtype=dtype, rho="logistic"),
}


@compiled_only
@EVERY_DEVICE
@pytest.mark.parametrize("kind", ["one-sided", "random-sign", "centred"])
@pytest.mark.parametrize("which", NETWORKS)
def test_one_batch_teaches_the_same(which, kind, device, dtype) -> None:
    """`train_epoch` with a single batch: kernels, tensors and the plain loop."""
    check_epochs(which, kind, device, dtype, DIGITS.train.limit(20), UPDATE[dtype])


@compiled_only
@EVERY_DEVICE
@pytest.mark.parametrize("which", NETWORKS)
def test_one_epoch_teaches_the_same(which, device, dtype) -> None:
    """340 images in batches of 20: weights, training error and who was nudged."""
    check_epochs(which, "one-sided", device, dtype, DIGITS.train.limit(340), EPOCH[dtype], output_step=0.2)


def check_epochs(which, kind, device, dtype, data, limit, **optimiser) -> None:
    network = NETWORKS[which](dtype)
    recipes = {name: recipe_for(network, kind, name, device, dtype, **optimiser) for name in ("fixed_point", "passes")}
    found = {name: trained(network, recipe, data, epochs=1) for name, recipe in recipes.items()}
    (kernels, (seen,)), (tensors, (told,)) = found["fixed_point"], found["passes"]
    assert (seen.unconverged, told.unconverged) == (0, 0)
    border = 0 if dtype == np.float64 else 100 / len(data.labels)  # one image may lie on it
    assert told.train_error == pytest.approx(seen.train_error, abs=border)
    assert told.dead_outputs == seen.dead_outputs
    for name, w in kernels.network.parameters().items():
        moved = float(np.abs(w - network.parameters()[name]).max())
        assert moved > 0, name
        assert np.abs(tensors.network.parameters()[name].astype(np.float64) - w).max() <= limit * moved, name


@compiled_only
@EVERY_DEVICE
def test_a_learner_may_change_its_backend_between_epochs(device) -> None:
    """Weights, velocity and memory go from the kernels to tensors and back; in float64 no epoch
    differs from one that stayed.
    """
    network, data, dtype = NETWORKS["loop"](np.float64), DIGITS.train.limit(100), np.float64
    stay, change = (
        recipe_for(network, "one-sided", name, device, dtype, momentum=0.5) for name in ("fixed_point", "passes")
    )
    stayed, _ = trained(network, stay, data, epochs=3)
    from fsp_dynamics.training.epoch import train_epoch

    moved, _ = trained(network, stay, data, epochs=1)
    for recipe in (change, stay):
        train_epoch(moved, data, recipe)
    assert dataclasses.astuple(moved.warm_start)[0].shape == dataclasses.astuple(stayed.warm_start)[0].shape
    for name, w in stayed.network.parameters().items():
        assert (
            np.abs(moved.network.parameters()[name] - w).max() <= 1e-8 * np.abs(w - network.parameters()[name]).max()
        ), name
