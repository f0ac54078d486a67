"""The network record: how it is drawn, what it refuses, what it says about itself."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsp_dynamics.errors import ConfigurationError, ShapeError
from fsp_dynamics.models.activations import ACTIVATIONS
from fsp_dynamics.models.builders import loop_network, reciprocal_network
from fsp_dynamics.models.network import Network, loop_gain

SIZES = [6, 5, 4, 3]
MAKERS = pytest.mark.parametrize(
    "make",
    [loop_network, reciprocal_network, lambda *a, **k: reciprocal_network(*a, tied=False, **k)],
    ids=["loop", "tied", "untied"],
)
layer_sizes = st.lists(st.integers(1, 7), min_size=3, max_size=6)


def parts(sizes=(3, 2, 2), dtype=np.float64, **changed):
    """The fields of a small valid network of zeros."""
    pairs = list(itertools.pairwise(sizes))
    fields = {
        "input": np.zeros(pairs[0], dtype),
        "forward": tuple(np.zeros(pair, dtype) for pair in pairs[1:]),
        "biases": tuple(np.zeros(n, dtype) for n in sizes[1:]),
    }
    return fields | changed


def test_weights_are_kept_in_c_order_whatever_order_they_came_in() -> None:
    """Products that add in place need it: BLAS would change a copy of anything else, and nothing
    would be learned.
    """
    given = loop_network(SIZES, dtype=np.float64, rng=0)
    turned = given.with_parameters({name: np.asfortranarray(w) for name, w in given.parameters().items()})
    assert all(w.flags.c_contiguous for w in turned.parameters().values())
    np.testing.assert_array_equal(turned.forward[0], given.forward[0])


@pytest.mark.parametrize("dtype", [np.int64, np.float16, complex])
def test_other_dtypes_are_refused(dtype) -> None:
    with pytest.raises(ConfigurationError, match="expected float32 or float64"):
        loop_network(SIZES, dtype=dtype, rng=0)


# Drawing


@MAKERS
def test_glorot_uniform(make) -> None:
    """Every matrix fills (-c, c), c = sqrt(6 / (n_pre + n_post)), with mean 0 and variance c^2 / 3
    (five standard errors).
    """
    network = make([300, 200, 150, 100], forward_scale=1.0, dtype=np.float64, rng=0)
    for name, w in network.parameters().items():
        if name.startswith("biases"):
            assert not w.any()
            continue
        c = np.sqrt(6 / sum(w.shape))
        assert abs(w).max() <= c
        assert abs(w).max() > (1 - 50 / w.size) * c
        assert abs(w.mean()) < 5 * c / np.sqrt(3 * w.size)
        # (kurtosis 9/5 of the uniform) - 1
        assert abs(w.var() * 3 / c**2 - 1) < 5 * np.sqrt(0.8 / w.size)


def test_matrices_are_drawn_independently() -> None:
    network = loop_network([60, 60, 60, 60], dtype=np.float64, rng=0)
    matrices = [w.ravel() for w in (network.input, *network.forward, network.loop)]
    correlation = np.corrcoef(matrices) - np.eye(4)
    assert abs(correlation).max() < 5 / 60


@MAKERS
def test_a_scale_is_no_number_below_zero(make) -> None:
    for scale in (-1.0, np.inf, np.nan, "a"):
        with pytest.raises(
            ConfigurationError, match=r"forward_scale or loop_scale = .*, expected a finite number, 0 or more"
        ):
            make(SIZES, forward_scale=scale)


def test_loop_scale_scales_the_loop_alone() -> None:
    one, weak = (loop_network(SIZES, loop_scale=c, dtype=np.float64, rng=3) for c in (1.0, 0.25))
    for name, w in one.parameters().items():
        np.testing.assert_array_equal(weak.parameters()[name], 0.25 * w if name == "loop" else w)


@MAKERS
def test_forward_scale_scales_every_matrix_between_layers_but_the_loop(make) -> None:
    one, weak = (make(SIZES, forward_scale=c, dtype=np.float64, rng=3).parameters() for c in (1.0, 0.25))
    for name, w in one.items():
        scaled = name.startswith(("forward", "backward"))
        np.testing.assert_array_equal(weak[name], 0.25 * w if scaled else w)


@MAKERS
def test_same_seed_same_bits(make) -> None:
    """float32 weights are the rounded float64 ones, so a study may change precision and keep its
    network.
    """
    first, again, other, wide = (
        make(SIZES, rng=7),
        make(SIZES, rng=7),
        make(SIZES, rng=8),
        make(SIZES, rng=7, dtype=np.float64),
    )
    for name, w in first.parameters().items():
        assert w.tobytes() == again.parameters()[name].tobytes()
        assert w.tobytes() == wide.parameters()[name].astype(np.float32).tobytes()
    assert not np.array_equal(first.input, other.input)


@MAKERS
def test_random_numbers_come_from_rng_alone(make) -> None:
    np.random.seed(0)  # noqa: NPY002 - the global state is what must not matter
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    generator = np.random.default_rng(5)
    from_generator, next_one, from_int = make(SIZES, rng=generator), make(SIZES, rng=generator), make(SIZES, rng=5)
    unseeded = [make(SIZES) for _ in range(2)]
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.testing.assert_array_equal(from_generator.input, from_int.input)
    assert not np.array_equal(from_generator.input, next_one.input)
    assert not np.array_equal(unseeded[0].input, unseeded[1].input)


@MAKERS
@given(sizes=layer_sizes)
def test_sizes_and_depth(make, sizes: list[int]) -> None:
    network = make(sizes, rng=0)
    assert network.sizes == tuple(sizes)
    assert network.depth == len(sizes) - 1
    assert network.dtype == np.float32
    assert network.rho is ACTIVATIONS["hard_sigmoid"]
    assert network.time_constants == (1.0,) * network.depth


def test_time_constants_and_rho_are_taken() -> None:
    assert loop_network(SIZES, time_constants=2).time_constants == (2.0, 2.0, 2.0)
    network = reciprocal_network(SIZES, time_constants=[1, 2, 3], rho="logistic")
    assert network.time_constants == (1.0, 2.0, 3.0)
    assert network.rho is ACTIVATIONS["logistic"]


# Topologies


@given(sizes=layer_sizes)
def test_connections_of_the_loop(sizes: list[int]) -> None:
    network = loop_network(sizes, rng=0)
    last = network.depth - 1
    assert [c[:2] for c in network.connections()] == [(k, k + 1) for k in range(last)] + [(last, 0)]
    assert network.connections()[-1].weight is network.loop
    assert all(c.weight is w for c, w in zip(network.connections(), network.forward, strict=False))


@given(sizes=layer_sizes, tied=st.booleans())
def test_connections_of_the_reciprocal_network(sizes: list[int], tied: bool) -> None:
    network = reciprocal_network(sizes, tied=tied, rng=0)
    last = network.depth - 1
    found = network.connections()
    assert [c[:2] for c in found] == [(k, k + 1) for k in range(last)] + [(k + 1, k) for k in range(last)]
    for k, w in enumerate(network.forward):
        back = found[last + k].weight
        assert back.shape == w.T.shape
        assert np.shares_memory(back, w) == tied
        assert np.array_equal(back, w.T) == tied


@MAKERS
@given(sizes=layer_sizes)
def test_every_connection_fits_its_layers(make, sizes: list[int]) -> None:
    network = make(sizes, rng=0)
    for pre, post, weight in network.connections():
        assert weight.shape == (network.sizes[pre + 1], network.sizes[post + 1])


# Records


def test_parameters_are_named_in_order() -> None:
    assert list(loop_network(SIZES).parameters()) == [
        "input",
        "forward[0]",
        "forward[1]",
        "loop",
        "biases[0]",
        "biases[1]",
        "biases[2]",
    ]
    assert list(reciprocal_network(SIZES).parameters()) == [
        "input",
        "forward[0]",
        "forward[1]",
        "biases[0]",
        "biases[1]",
        "biases[2]",
    ]
    untied = reciprocal_network(SIZES, tied=False)
    assert list(untied.parameters())[3:5] == ["backward[0]", "backward[1]"]


@MAKERS
def test_with_parameters_changes_what_is_named_and_nothing_else(make) -> None:
    network = make(SIZES, rho="logistic", time_constants=[1, 2, 3], rng=0)
    for name, w in network.parameters().items():
        changed = network.with_parameters({name: w + 1})
        for other, value in changed.parameters().items():
            if other == name:
                np.testing.assert_array_equal(value, w + 1)
            else:
                assert value is network.parameters()[other]
        assert (changed.tied, changed.rho, changed.time_constants) == (
            network.tied,
            network.rho,
            network.time_constants,
        )
        assert network.parameters()[name] is w


def test_with_parameters_refuses_strangers_and_misfits() -> None:
    network = reciprocal_network(SIZES, rng=0)
    with pytest.raises(
        ConfigurationError, match=r"no parameter 'loop'; it has input, forward\[0\], forward\[1\], biases"
    ):
        network.with_parameters({"loop": np.zeros((3, 5), np.float32)})
    with pytest.raises(ShapeError, match=r"forward\[1\] has shape \(3, 4\), expected \(4, 3\)"):
        network.with_parameters({"forward[1]": np.zeros((3, 4), np.float32)})
    with pytest.raises(ConfigurationError, match=r"biases\[0\] is float64, expected float32"):
        network.with_parameters({"biases[0]": np.zeros(5)})


@MAKERS
def test_copies_share_nothing(make) -> None:
    network = make(SIZES, rng=0)
    for twin, dtype in ((network.copy(), np.float32), (network.astype(np.float64), np.float64)):
        assert twin.dtype == dtype
        assert twin.tied == network.tied
        for name, w in twin.parameters().items():
            assert w.dtype == dtype
            np.testing.assert_array_equal(w, network.parameters()[name])
            assert not np.shares_memory(w, network.parameters()[name])


def test_the_record_is_frozen() -> None:
    network = loop_network(SIZES, rng=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        network.loop = None  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        network.energy = 0  # type: ignore[attr-defined]


def test_lists_become_tuples() -> None:
    fields = parts()
    network = Network(
        **{k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()},
        backward=[np.zeros((2, 2))],
        rho="logistic",
    )
    assert isinstance(network.forward, tuple)
    assert isinstance(network.biases, tuple)
    assert isinstance(network.backward, tuple)
    assert network.rho is ACTIVATIONS["logistic"]


# Loop gain


@given(sizes=st.lists(st.integers(1, 9), min_size=3, max_size=5), seed=st.integers(0, 2**16))
def test_loop_gain_is_the_product_of_largest_singular_values(sizes: list[int], seed: int) -> None:
    network = loop_network(sizes, dtype=np.float64, rng=seed)
    largest = [np.sqrt(np.linalg.eigvalsh(w.T @ w)[-1]) for w in (*network.forward, network.loop)]
    assert loop_gain(network) == pytest.approx(np.prod(largest), rel=1e-9)


def test_loop_gain_of_a_ring() -> None:
    """One unit in each layer: the gain is the product of the weights, whatever their signs; the
    input has no part in it.
    """
    network = Network(
        input=np.full((2, 1), 100.0),
        forward=(np.full((1, 1), -2.0),),
        biases=(np.zeros(1), np.zeros(1)),
        loop=np.full((1, 1), 0.25),
    )
    assert loop_gain(network) == pytest.approx(0.5, rel=1e-15)


def test_loop_gain_needs_a_loop() -> None:
    with pytest.raises(ConfigurationError, match=r"no loop \(loop = None\); give one made by loop_network"):
        loop_gain(reciprocal_network(SIZES))


# Refusals


@MAKERS
@pytest.mark.parametrize("sizes", [4, "64,10"])
def test_sizes_that_are_no_list(make, sizes) -> None:
    with pytest.raises(ConfigurationError, match=r"sizes = .*, expected a list: input, hidden layers, output"):
        make(sizes)


@MAKERS
@pytest.mark.parametrize("sizes", [[], [4], [4, 3], [4, 0, 3], [4, 5, -1]])
def test_impossible_sizes(make, sizes: list[int]) -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"sizes = \[.*\], expected input, one hidden layer or more, output, each whole and at least 1",
    ):
        make(sizes)


@MAKERS
@pytest.mark.parametrize("bad", [0, -1.0, np.nan, np.inf])
def test_impossible_time_constants(make, bad: float) -> None:
    with pytest.raises(ConfigurationError, match=r"time_constants\[0\] = .*, expected a finite number above 0"):
        make(SIZES, time_constants=bad)
    with pytest.raises(ConfigurationError, match=r"time_constants\[2\] = .*, expected a finite number above 0"):
        make(SIZES, time_constants=[1, 1, bad])
    with pytest.raises(ConfigurationError, match=r"time_constants has 2 values, expected 3, one for each layer"):
        make(SIZES, time_constants=[1, 1])


@MAKERS
def test_unknown_rho(make) -> None:
    with pytest.raises(ConfigurationError, match=r"rho = 'logistics' is unknown; did you mean 'logistic'\?"):
        make(SIZES, rho="logistics")


LOOP, BACK = np.zeros((2, 2)), (np.zeros((2, 2)),)


@pytest.mark.parametrize(
    "changed", [{"loop": LOOP, "backward": BACK}, {"loop": LOOP, "tied": True}, {"backward": BACK, "tied": True}]
)
def test_contradicting_topologies(changed: dict) -> None:
    with pytest.raises(
        ConfigurationError, match=r"a loop, or backward matrices, or tied = True; more than one was given"
    ):
        Network(**parts(**changed))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"input": np.zeros((3, 5))}, ShapeError, r"input has shape \(3, 5\), expected \(any, 2\)"),
        ({"input": np.zeros(3)}, ShapeError, r"input has shape \(3,\), expected \(any, 2\)"),
        ({"forward": (np.zeros((2, 5)),)}, ShapeError, r"forward\[0\] has shape \(2, 5\), expected \(2, 2\)"),
        ({"loop": np.zeros((2, 3))}, ShapeError, r"loop has shape \(2, 3\), expected \(2, 2\)"),
        ({"backward": (np.zeros((1, 2)),)}, ShapeError, r"backward\[0\] has shape \(1, 2\), expected \(2, 2\)"),
        ({"backward": BACK * 2}, ConfigurationError, r"2 backward matrices, expected 1"),
        (
            {"forward": ()},
            ConfigurationError,
            r"0 forward matrices and 2 biases, expected one matrix fewer than biases",
        ),
        (
            {"biases": (np.zeros(2),)},
            ConfigurationError,
            r"1 layer\(s\), expected one hidden layer or more and the output",
        ),
        (
            {"loop": LOOP.astype(np.float32)},
            ConfigurationError,
            r"loop is float32, expected float64 as the input matrix",
        ),
    ],
)
def test_parts_that_do_not_fit(changed: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Network(**parts(**changed))
