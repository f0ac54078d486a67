"""The compiled field is the field of models/rate.py, for every topology, activation, form and
precision.
"""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsp_dynamics.kernels import field as kernels
from fsp_dynamics.kernels.exponential import twin
from fsp_dynamics.kernels.steps import add_inputs
from fsp_dynamics.models import rate
from fsp_dynamics.models.activations import ACTIVATIONS, Activation
from fsp_dynamics.models.builders import loop_network, reciprocal_network
from fsp_dynamics.models.rate import Nudge, flatten, layers
from fsp_dynamics.solvers.numba_ode import pack_inputs, pack_net, pad, unpad

ROUNDING = {np.float32: 2e-5, np.float64: 2e-14}
KINDS = ("loop", "tied", "untied")


def field_of_batch(flat, net, inputs, literal, rates, slopes, total, out):
    """The templates under test: `fill_rates`, `add_inputs`, then `fill_field`."""
    numbers = np.arange(flat.shape[0])
    for b in range(flat.shape[0]):
        fill_rates(flat, b, rates, slopes, b)  # noqa: F821 - bound by compiled_for
    add_inputs(rates, total, net.weights, net.connections, numbers)
    for b in range(flat.shape[0]):
        fill_field(flat, b, total, slopes, b, inputs, net.leak, net.output, literal, out, b)  # noqa: F821


def compiled(rho):
    return kernels.compiled_for(rho.rate, rho.slope, (*kernels.FIELD, field_of_batch), twin(rho.rate, rho.slope))


def kernel_field(network, drive, flat, nudge, literal):
    net, inputs = pack_net(network)[0], pack_inputs(network, drive, nudge)
    rows = pad(network, layers(network, flat), np.zeros_like(inputs.constant))
    block = np.zeros((3, len(rows) + 1, rows.shape[1]), flat.dtype)
    out = np.zeros_like(rows)
    compiled(network.rho)(rows, net, inputs, literal, *block, out)
    return unpad(network, out)


def random_network(kind, rng, rho, dtype):
    sizes = rng.integers(1, 12, rng.integers(3, 7))
    options = {"rho": rho, "dtype": dtype, "rng": rng, "time_constants": tuple(rng.uniform(0.3, 3, len(sizes) - 1))}
    network = (
        loop_network(sizes, **options) if kind == "loop" else reciprocal_network(sizes, tied=kind == "tied", **options)
    )
    return network.with_parameters(
        {f"biases[{k}]": rng.normal(size=n).astype(dtype) for k, n in enumerate(network.sizes[1:])}
    )


def random_case(kind, rho, dtype, seed, nudged):
    """(network, drive, flat state, nudge); states lie inside, outside and exactly on the ends of
    [0, 1].
    """
    rng = np.random.default_rng(seed)
    network = random_network(kind, rng, rho, dtype)
    batch = int(rng.integers(1, 5))
    drive = rng.normal(size=(batch, network.sizes[1])).astype(dtype)
    flat = rng.choice([0.0, 1.0, np.nan], (batch, sum(network.sizes[1:])), p=[0.2, 0.2, 0.6])
    flat = np.where(np.isnan(flat), rng.uniform(-0.5, 1.5, flat.shape), flat).astype(dtype)
    nudge = Nudge(rng.choice([-0.2, 0.7]), rng.random((batch, network.sizes[-1])).astype(dtype)) if nudged else None
    return network, drive, flat, nudge


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rho", ACTIVATIONS)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**32), nudged=st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_kernel_is_the_equation(rho, dtype, kind, seed, nudged):
    network, drive, flat, nudge = random_case(kind, rho, dtype, seed, nudged)
    literal = flatten(rate.field(network, drive, layers(network, flat), nudge))
    np.testing.assert_allclose(
        kernel_field(network, drive, flat, nudge, True), literal, rtol=ROUNDING[dtype], atol=ROUNDING[dtype]
    )
    if network.rho.projected:
        expected = flatten(rate.rate_field(network, drive, layers(network, flat), nudge))
        np.testing.assert_allclose(
            kernel_field(network, drive, flat, nudge, False), expected, rtol=ROUNDING[dtype], atol=ROUNDING[dtype]
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_number_goes_where_its_connections_lead_and_nowhere_else(kind):
    network, drive, flat, _ = random_case(kind, "hard_sigmoid", np.float64, 3, False)
    flat[0, 0] = np.nan
    expected = flatten(rate.rate_field(network, drive, layers(network, flat)))
    found = kernel_field(network, drive, flat, None, False)
    assert np.isnan(found[0]).any()
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))


def test_clip_keeps_nan():
    s = np.array([[3.0] * 8, [-1.0, 0.0, 0.3, 1.0, 7.0, np.nan, np.inf, -np.inf]])
    getattr(kernels.clip, "py_func", kernels.clip)(s, 1)
    np.testing.assert_array_equal(s, [[3.0] * 8, [0, 0, 0.3, 1, 1, np.nan, 1, 0]])


def test_rows_are_padded_with_zeros_and_back(dtype):
    network = loop_network([3, 5, 17, 2], dtype=dtype, rng=0)
    flat = np.random.default_rng(0).normal(size=(4, 24)).astype(dtype)
    wide = 64 // dtype().itemsize
    rows = pad(network, layers(network, flat), np.zeros((4, 4 * wide if dtype == np.float32 else 5 * wide), dtype))
    np.testing.assert_array_equal(unpad(network, rows), flat)
    assert (rows != 0).sum() == flat.size


def test_an_activation_of_ones_own_takes_part():
    rho = Activation("square", lambda s: s * s / (1 + s * s), lambda s: 2 * s / (1 + s * s) ** 2)
    network, drive, flat, nudge = random_case("loop", rho, np.float64, 5, True)
    expected = flatten(rate.field(network, drive, layers(network, flat), nudge))
    np.testing.assert_allclose(kernel_field(network, drive, flat, nudge, True), expected, rtol=1e-13, atol=1e-13)


def test_no_folder_for_the_cache_is_no_failure(monkeypatch):
    monkeypatch.setattr(
        numba.config, "CACHE_LOCATOR_CLASSES", "ZipCacheLocator"
    )  # finds a folder for zipped modules only
    if not numba.config.DISABLE_JIT:
        with pytest.raises(RuntimeError, match="cannot cache"):
            numba.njit(cache=True)(rate.unit_target)
    assert kernels.jitted(rate.unit_target, kept=True)(1.0, 1.0, 0.5, 2.0) == pytest.approx(4 / 3)


def test_a_compiled_function_is_taken_as_it_is():
    function = numba.njit(rate.unit_target)
    assert kernels.jitted(function) is function or numba.config.DISABLE_JIT
