"""Compiled passes of reciprocal networks: against the passes in NumPy and the oracles; the same
bits for any neighbours in the batch and any number of threads.
"""

from __future__ import annotations

import dataclasses

import numba
import numpy as np
import oracles
import problems
import pytest

from fsp_dynamics.kernels.layer_relaxation import FROM_CUT, FROM_INPUTS, relax_layers
from fsp_dynamics.kernels.loop_arrays import PASSES, RESIDUAL, STATUS
from fsp_dynamics.kernels.status import Limits
from fsp_dynamics.kernels.team import Team
from fsp_dynamics.models.builders import reciprocal_network
from fsp_dynamics.models.rate import Nudge, flatten, residual
from fsp_dynamics.solvers.equilibrium import Status, Tolerance
from fsp_dynamics.solvers.fixed_point import FixedPointSolver, _Relaxation
from fsp_dynamics.solvers.packed_layers import LayerWorkspace, PackedLayers, relax_layers_together
from fsp_dynamics.solvers.passes import CutPasses

SIZES = [[5, 7, 3], [5, 33, 18, 4], [4, 9, 20, 6, 5], [3, 8, 5, 17, 6, 2]]
compiled = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="bits and threads are those of the compiled kernels"
)
TIGHT = Tolerance(1e-12)


def case(sizes, tied, dtype=np.float64, batch=7, scale=0.35):
    """(network, images, drive, nudge): biases that saturate units at both ends, time constants
    that differ.
    """
    rng = np.random.default_rng(len(sizes))
    slow = tuple(rng.uniform(0.5, 1.2, len(sizes) - 1))
    network = reciprocal_network(sizes, tied=tied, time_constants=slow, forward_scale=scale, dtype=np.float64, rng=rng)
    network = network.with_parameters(
        {f"biases[{k}]": rng.uniform(-0.5, 1.2, n) for k, n in enumerate(sizes[1:])}
    ).astype(dtype)
    images = rng.random((batch, sizes[0])).astype(dtype)
    p = problems.Problem("", network, images, {})
    return network, images, p.drive, Nudge(0.6, problems.one_hot(np.arange(batch), sizes[-1]).astype(dtype))


def by_numpy(network, drive, nudge, tolerance, start=None):
    """The same relaxation through solvers/passes.py and kernels/anderson.py."""
    zero = tuple(np.zeros((len(drive), n), network.dtype) for n in network.sizes[1:])
    relaxation = _Relaxation(network, drive, zero if start is None else start, nudge, tolerance)
    relaxation.iterate(CutPasses(network, drive, relaxation.start, nudge), 5, 60, start is not None)
    return relaxation.recovery.finish(None)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("nudged", [False, True])
def test_it_makes_the_passes_of_the_numpy_code(sizes, tied, nudged) -> None:
    """From zero: as many passes, and nearly the same states even far from equilibrium; once
    converged, the oracle's equilibrium.
    """
    network, images, drive, nudge = case(sizes, tied)
    nudge = nudge if nudged else None
    for tolerance in (Tolerance(1e-2), Tolerance(0.0, 1e-4), TIGHT):
        found, slow = (
            FixedPointSolver().relax(network, drive, None, nudge, tolerance),
            by_numpy(network, drive, nudge, tolerance),
        )
        assert found.converged.all()
        if tolerance is not TIGHT:
            assert found.steps.tolist() == slow.steps.tolist()
            np.testing.assert_allclose(flatten(found.state), flatten(slow.state), atol=1e-8)
        np.testing.assert_allclose(
            found.residual, oracles.residual(network, images, found.state, nudge), rtol=1e-7, atol=1e-13
        )
    np.testing.assert_allclose(flatten(found.state), flatten(oracles.equilibrium(network, images, nudge)), atol=1e-11)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
def test_a_given_start_is_checked_as_a_whole(sizes, tied) -> None:
    """A start with one unit outside the cut off its equilibrium has not converged; one at the
    equilibrium is kept to the bit. The start is not changed.
    """
    network, images, drive, nudge = case(sizes, tied)
    rest = FixedPointSolver().relax(network, drive, None, nudge, TIGHT)
    assert FixedPointSolver().relax(network, drive, rest.state, nudge, Tolerance(2e-12)).steps.tolist() == [0] * len(
        images
    )
    for k in range(network.depth):
        start = tuple(s.copy() for s in rest.state)
        start[k][2, 0] += 0.25
        before = flatten(start).copy()
        found = FixedPointSolver().relax(network, drive, start, nudge, Tolerance(2e-12))
        assert (found.steps > 0).tolist() == [i == 2 for i in range(len(images))]
        np.testing.assert_allclose(flatten(found.state), flatten(rest.state), atol=1e-11)
        np.testing.assert_array_equal(flatten(start), before)
        assert found.residual[2] == pytest.approx(residual(network, drive, found.state, nudge)[2], rel=1e-3, abs=1e-13)


@compiled
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bits_depend_neither_on_company_nor_on_threads(tied, dtype) -> None:
    network, _, drive, nudge = case([5, 70, 41, 4], tied, dtype, batch=23)
    zero = tuple(np.zeros((len(drive), n), dtype) for n in network.sizes[1:])
    tolerance = Tolerance(1e-4)
    whole, doubts = relax_layers_together(network, drive, zero, False, nudge, tolerance, 60, 5)
    for rows in (np.arange(23)[::-1], np.array([3]), np.array([20, 5, 6, 7])):
        part, doubted = relax_layers_together(
            network, drive[rows], tuple(s[rows] for s in zero), False, nudge.rows(rows), tolerance, 60, 5
        )
        assert flatten(part.state).tobytes() == flatten(whole.state)[rows].tobytes()
        assert part.residual.tobytes() == whole.residual[rows].tobytes()
        assert doubted.tolist() == doubts[rows].tolist()
    packed = PackedLayers.of(network)
    limits = Limits(1e-4, 0.0, 60)
    for threads in (2, 3, 30):
        with Team(threads) as team:
            work = LayerWorkspace(packed, network.sizes[1:], 23, team.threads, 5)
            work.drive[:, :70], work.targets[:, :4] = drive, nudge.target
            team.run(relax_layers, packed.net, work.buffers, work.scratch, FROM_CUT, float(nudge.beta), limits)
            assert flatten(tuple(np.array(s) for s in work.state())).tobytes() == flatten(whole.state).tobytes()


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_nudge_from_known_inputs_leads_where_any_other_start_leads(sizes, tied) -> None:
    network, images, drive, nudge = case(sizes, tied)
    packed, limits = PackedLayers.of(network), Limits(1e-12, 0.0, 60)
    work = LayerWorkspace(packed, network.sizes[1:], len(images), 1, 3)
    work.drive[:, : drive.shape[1]], work.targets[:, : sizes[-1]] = drive, nudge.target
    for start, beta, pull in ((FROM_CUT, 0.0, None), (FROM_INPUTS, 0.6, nudge)):
        work.begin(np.arange(len(images)))
        relax_layers(0, 1, np.zeros(32, np.int64), packed.net, work.buffers, work.scratch, start, beta, limits)
        assert (work.statistics[STATUS] == Status.CONVERGED).all()
        found = flatten(tuple(np.array(s) for s in work.state()))
        np.testing.assert_allclose(found, flatten(oracles.equilibrium(network, images, pull)), atol=1e-11)
        np.testing.assert_allclose(
            work.progress[RESIDUAL],
            oracles.residual(network, images, oracles.split(network, found), pull),
            rtol=1e-6,
            atol=1e-13,
        )
    assert work.statistics[PASSES].min() >= 1


def test_what_is_not_finite_and_what_takes_too_long_is_reported(dtype) -> None:
    network, _, drive, _ = case([5, 33, 18, 4], True, dtype)
    drive = drive.copy()
    drive[1, 2], drive[4, 0] = np.nan, np.inf
    found = FixedPointSolver(max_passes=2).relax(network, drive, None, None, Tolerance(1e-9))
    assert found.status.tolist() == [1, 2, 1, 1, 1, 1, 1]  # infinite drive only saturates
    assert found.steps.tolist() == [2, 1, 2, 2, 2, 2, 2]
    start = tuple(np.full((7, n), 0.5, dtype) for n in network.sizes[1:])
    start[1][3, 0] = np.nan
    assert FixedPointSolver().relax(network, drive, start).status.tolist() == [0, 2, 0, 2, 0, 0, 0]


def test_which_networks_it_takes() -> None:
    network = case([5, 7, 3], True)[0]
    assert network.is_hard_sigmoid_reciprocal
    assert case([5, 7, 3], False)[0].is_hard_sigmoid_reciprocal
    assert not problems.problem("strong").network.is_hard_sigmoid_reciprocal
    assert not reciprocal_network([5, 7, 3], rho="logistic").is_hard_sigmoid_reciprocal
    assert FixedPointSolver("anderson").uses_compiled_layers(network)
    assert not FixedPointSolver("picard").uses_compiled_layers(network)
    assert not dataclasses.replace(FixedPointSolver(), method="picard").uses_compiled_layers(network)


@compiled
def test_more_threads_than_samples() -> None:
    network, _, drive, _ = case([5, 7, 3], True, batch=2)
    packed = PackedLayers.of(network)
    with Team(4) as team:
        work = LayerWorkspace(packed, network.sizes[1:], 2, team.threads, 5)
        work.drive[:, :7] = drive
        team.run(relax_layers, packed.net, work.buffers, work.scratch, FROM_CUT, 0.0, Limits(1e-9, 0.0, 60))
    assert (work.statistics[STATUS] == Status.CONVERGED).all()
