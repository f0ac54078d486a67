"""A network comes back from its file to the bit, or is refused; nothing is unpickled or imported
without leave.
"""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from fsp_dynamics.errors import CheckpointError, ConfigurationError, NotFiniteError
from fsp_dynamics.experiments.network_file import load_network, save_network
from fsp_dynamics.models.activations import ACTIVATIONS, Activation
from fsp_dynamics.models.builders import loop_network, reciprocal_network
from fsp_dynamics.models.network import Network

MODULE = """
from fsp_dynamics.models.activations import Activation

def rate(s):
    return s / (1 + abs(s))

def slope(s):
    return 1 / (1 + abs(s)) ** 2

softsign = Activation("softsign", rate, slope)
number = 3
"""


def feedforward() -> Network:
    return dataclasses.replace(loop_network([5, 4, 3], rng=0), loop=None)


NETWORKS = {
    "loop": lambda: loop_network([5, 4, 3], rng=0, rho="logistic", time_constants=[0.1, 2.5]),
    "deep": lambda: loop_network([5, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 3], rng=0, dtype=np.float64),
    "tied": lambda: reciprocal_network([5, 4, 3], rng=0),
    "reciprocal": lambda: reciprocal_network([5, 4, 4, 3], tied=False, rng=0, rho="shifted_tanh"),
    "feedforward": feedforward,
}


def same(a: Network, b: Network) -> bool:
    left, right = a.parameters(), b.parameters()
    return (
        list(left) == list(right)
        and all(
            left[name].tobytes() == right[name].tobytes() and left[name].dtype == right[name].dtype for name in left
        )
        and (a.tied, a.time_constants, a.rho, a.sizes) == (b.tied, b.time_constants, b.rho, b.sizes)
    )


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_comes_back_to_the_bit(tmp_path, kind) -> None:
    network = NETWORKS[kind]()
    path = save_network(tmp_path / "new" / "folder" / "network.safetensors", network)
    assert same(load_network(path), network)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_other_readers_find_the_arrays(tmp_path) -> None:
    network = NETWORKS["loop"]()
    arrays = safetensors.numpy.load_file(save_network(tmp_path / "n.safetensors", network))
    assert set(arrays) == set(network.parameters())
    np.testing.assert_array_equal(arrays["loop"], network.loop)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """An activation of one's own in the module own_rates."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "own_rates.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    import own_rates

    yield own_rates.softsign
    sys.modules.pop("own_rates", None)


def test_an_activation_of_ones_own_is_an_import_path(tmp_path, own) -> None:
    network = loop_network([5, 4, 3], rng=0, rho=own)
    path = save_network(tmp_path / "n.safetensors", network)
    assert same(load_network(path, allow_import=("own_rates",)), network)
    del sys.modules["own_rates"]
    for allowed in ((), ("own",)):
        with pytest.raises(ConfigurationError, match=r"n\.safetensors: rho = 'own_rates:softsign'.*allow_import"):
            load_network(path, allow_import=allowed)
    assert "own_rates" not in sys.modules


def test_an_activation_that_takes_a_known_name_is_not_the_known_one(tmp_path, own) -> None:
    import own_rates

    impostor = dataclasses.replace(own, name="logistic")
    own_rates.impostor = impostor
    path = save_network(tmp_path / "n.safetensors", loop_network([5, 4, 3], rng=0, rho=impostor))
    assert load_network(path, allow_import=("own_rates",)).rho is impostor != ACTIVATIONS["logistic"]


def test_an_activation_without_a_path_is_refused_before_anything_is_written(tmp_path) -> None:
    local = Activation("local", lambda s: s, lambda s: 1 + 0 * s)
    with pytest.raises(ConfigurationError, match="Activation 'local' has no name in"):
        save_network(tmp_path / "x" / "n.safetensors", loop_network([5, 4, 3], rng=0, rho=local))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("rho", "said"), [("own_rates:number", "is of type int"), ("own_rates:none", "has no none")])
def test_a_path_to_something_else_is_refused(tmp_path, own, rho, said) -> None:
    path = rewritten(tmp_path, rho=rho)
    with pytest.raises(ConfigurationError, match=said):
        load_network(path, allow_import=("own_rates",))


def rewritten(folder, arrays=None, **changed):
    """A file whose metadata or arrays were changed, with a SHA-256 that fits them."""
    from fsp_dynamics.experiments import network_file

    network = NETWORKS["loop"]()
    arrays = network.parameters() if arrays is None else arrays
    fields = {
        "format": network_file.FORMAT,
        "topology": "loop",
        "time_constants": json.dumps(network.time_constants),
        "rho": network.rho.name,
    } | changed
    fields |= {"sha256": network_file._digest(fields, arrays)}
    safetensors.numpy.save_file(arrays, folder / "changed.safetensors", metadata=fields)
    return folder / "changed.safetensors"


def test_what_is_rewritten_for_these_tests_is_read(tmp_path) -> None:
    assert same(load_network(rewritten(tmp_path)), NETWORKS["loop"]())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"format": "other/1"}, "has the format 'other/1', expected 'fsp_dynamics.network/1'"),
        ({"topology": "ring"}, "has the topology 'ring'"),
        ({"topology": "tied"}, "does not hold a network"),
        ({"topology": "feedforward"}, "other arrays"),
        ({"time_constants": "[1.0]"}, "does not hold a network .time_constants has 1 values"),
        ({"time_constants": "[1.0, "}, "does not hold a network"),
        ({"time_constants": "[1.0, -1.0]"}, "does not hold a network"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(tmp_path, changed, said) -> None:
    with pytest.raises(CheckpointError, match=said):
        load_network(rewritten(tmp_path, **changed))
    with pytest.raises(ConfigurationError, match=r"rho = 'relu', expected one of hard_sigmoid, "):
        load_network(rewritten(tmp_path, rho="relu"))


@pytest.mark.parametrize("drop", ["input", "loop", "biases[1]", "forward[0]"])
def test_arrays_that_do_not_fit_are_refused(tmp_path, drop) -> None:
    arrays = NETWORKS["loop"]().parameters()
    with pytest.raises(CheckpointError, match="changed"):
        load_network(rewritten(tmp_path, {name: w for name, w in arrays.items() if name != drop}))
    with pytest.raises(CheckpointError, match="other arrays"):
        load_network(rewritten(tmp_path, arrays | {"extra": np.zeros(2)}))


@given(place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_a_changed_byte_is_refused(tmp_path_factory, place, change) -> None:
    path = save_network(tmp_path_factory.mktemp("byte") / "n.safetensors", loop_network([3, 2, 2], rng=0))
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= change
    path.write_bytes(content)
    with pytest.raises((CheckpointError, ConfigurationError)):
        load_network(path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04}.", b"\xff" * 64])
def test_what_is_no_network_is_refused(tmp_path, content) -> None:
    path = tmp_path / "n.safetensors"
    with pytest.raises(CheckpointError, match="the network is missing: no file"):
        load_network(path)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"n\.safetensors is not a safetensors file"):
        load_network(path)


def test_a_file_without_metadata_is_refused(tmp_path) -> None:
    safetensors.numpy.save_file(NETWORKS["loop"]().parameters(), tmp_path / "n.safetensors")
    with pytest.raises(CheckpointError, match="has the format None"):
        load_network(tmp_path / "n.safetensors")


def test_nothing_that_is_not_finite_is_saved_and_the_former_file_stays(tmp_path) -> None:
    network = NETWORKS["loop"]()
    path = save_network(tmp_path / "n.safetensors", network)
    broken = network.with_parameters({"loop": np.full_like(network.loop, np.nan)})
    with pytest.raises(NotFiniteError, match="loop is not finite"):
        save_network(path, broken)
    assert same(load_network(path), network)
    message = r"network is of type str, expected a Network.*save_network\(path, network\)"
    with pytest.raises(ConfigurationError, match=message):
        save_network(path, "network")
