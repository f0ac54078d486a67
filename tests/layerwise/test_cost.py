"""The bytes of `layerwise.cost`, where shapes decide them: by hand, and by a twin that walks the
graph. No time is tested.
"""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from fsp_dynamics.layerwise.cost import kept_bytes, measure
from fsp_dynamics.layerwise.learners import Settings, make_learner
from fsp_dynamics.layerwise.names import LEARNERS
from fsp_dynamics.layerwise.networks import conv, mlp
from fsp_dynamics.layerwise.paper import VGG8B, VGG8B_2X

FLOAT, LABEL, BOOL = 4, 8, 1
BATCH, CLASSES = 7, 3


def batch(pixels, count=BATCH, classes=CLASSES):
    stream = torch.Generator().manual_seed(0)
    return torch.rand(count, pixels, generator=stream), torch.arange(count) % classes


def bytes_of(learner, images, labels):
    (cost,) = measure({"it": learner}, images, labels, rounds=1).values()
    return {stage.name: stage.bytes for stage in cost.stages}


def block(inputs, units):
    """What goes in; batch norm: its input, running and batch mean and variance; the leaky ReLU's
    input; the mask of the dropout. What comes out is kept by whoever takes it.
    """
    return FLOAT * BATCH * inputs + FLOAT * BATCH * units + FLOAT * 4 * units + FLOAT * BATCH * units + BATCH * units


def cross_entropy():
    """Logarithms of probabilities, labels, and the sum of the samples' weights."""
    return FLOAT * BATCH * CLASSES + LABEL * BATCH + FLOAT


def cosine_of(rows, features):
    """The centred rows, their norms, the norms away from 0, the normalised rows."""
    return FLOAT * (rows * features + rows + rows + rows * features)


def test_backpropagation_keeps_all_layers_at_once() -> None:
    learner = make_learner("bp", mlp([5, 4]), (1, 2, 2), CLASSES, Settings())
    whole = block(4, 5) + block(5, 4) + FLOAT * BATCH * 4 + cross_entropy()
    assert bytes_of(learner, *batch(4)) == {"output": whole} == {"output": 1219}


def test_a_layer_of_forward_signal_propagation_keeps_itself_and_its_targets() -> None:
    learner = make_learner("fsp", mlp([5, 4]), (1, 2, 2), CLASSES, Settings())
    # one-hot vectors; S1's output and its mean and variance in each class; the leaky ReLU's input
    generator = FLOAT * (CLASSES * CLASSES + CLASSES * 5 + 2 * CLASSES + CLASSES * 5)
    first = block(4, 5) + generator + cosine_of(BATCH, 5) + cosine_of(CLASSES, 5) + cross_entropy()
    # the targets that go in; batch norm: its input, mean and variance of the classes, and scale and
    # shift as they are repeated for the samples; the leaky ReLU's input
    targets = FLOAT * (CLASSES * 5 + CLASSES * 4 + 3 * 4 + CLASSES * 4)
    second = block(5, 4) + targets + cosine_of(BATCH, 4) + cosine_of(CLASSES, 4) + cross_entropy()
    output = FLOAT * BATCH * 4 + cross_entropy()
    expected = {"layer1": first, "layer2": second, "output": output}
    assert bytes_of(learner, *batch(4)) == expected == {"layer1": 1311, "layer2": 1204, "output": 256}


def test_what_does_not_learn_keeps_nothing() -> None:
    found = bytes_of(make_learner("shallow", mlp([5, 4]), (1, 2, 2), CLASSES, Settings()), *batch(4))
    assert found == {"layer1": 0, "layer2": 0, "output": FLOAT * BATCH * 4 + cross_entropy()}


def saved_in(graph, known):
    """{address: bytes} of all tensors that the nodes of a graph have saved."""
    found, waiting, seen = {}, [graph], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [each for each, _ in node.next_functions]
        for name in dir(node):
            value = getattr(node, name) if name.startswith("_saved_") else None
            for each in value if isinstance(value, tuple) else [value]:
                if not isinstance(each, torch.Tensor) or each.dtype == torch.float64:  # a number of Python
                    continue
                if each.untyped_storage().data_ptr() not in known:
                    found[each.untyped_storage().data_ptr()] = each.untyped_storage().nbytes()
    return found


def twin(learner, images, labels):
    """The same, read from the graph of each loss."""
    known = {p.untyped_storage().data_ptr() for p in [*learner.network.parameters(), *learner.auxiliary.parameters()]}
    signal, found = learner.begin(images), {}
    for stage in learner.stages:
        with torch.set_grad_enabled(stage.optimiser is not None):
            signal = stage.forward(signal.detach())
            loss = stage.loss(signal, labels)
        found[stage.name] = 0 if loss is None else sum(saved_in(loss.grad_fn, known).values())
    return found


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("name", sorted(set(LEARNERS) & {"fsp", "bp", "shallow", "ll-bp"}))
def test_hooks_and_graph_agree(name, kind, sparse) -> None:
    if sparse and name != "fsp":
        pytest.skip("has no targets")
    settings = Settings(sparse=(9 if kind == "conv" else 3) if sparse else None)
    shape = conv([4, "M", 6, "M"], [8]) if kind == "conv" else mlp([8, 6])
    made = [make_learner(name, shape, (1, 8, 8), CLASSES, settings) for _ in range(2)]
    assert bytes_of(made[0], *batch(64)) == twin(made[1], *batch(64))


def test_a_sparse_target_keeps_less_and_a_layer_less_than_the_whole() -> None:
    shape = conv([8, "M", 16, "M"], [32])
    learners = {
        "bp": make_learner("bp", shape, (3, 16, 16), 10),
        "dense": make_learner("fsp", shape, (3, 16, 16), 10),
        "sparse": make_learner("fsp", shape, (3, 16, 16), 10, Settings(sparse=9)),
    }
    cost = measure(learners, *batch(768, 8, 10), rounds=2)
    assert cost["sparse"].mean(kept_bytes) < cost["dense"].mean(kept_bytes) < cost["bp"].mean(kept_bytes)
    assert [len(each.layers) for each in cost.values()] == [1, 3, 3]
    assert cost["dense"].total(kept_bytes) == sum(each.bytes for each in cost["dense"].stages)
    assert cost["bp"].total(kept_bytes) == cost["bp"].mean(kept_bytes) == cost["bp"].largest(kept_bytes)
    assert {len(each.seconds) for found in cost.values() for each in found.stages} == {2}


def test_measuring_leaves_the_learner_as_it_would_be() -> None:
    """It learns one batch for the bytes and one for each round, and nothing else is different."""
    measured, plain = (make_learner("fsp", mlp([8, 6]), (1, 8, 8), CLASSES) for _ in range(2))
    images, labels = batch(64)
    measure({"it": measured}, images, labels, rounds=2)
    for _ in range(3):
        plain.learn(images, labels)
    for name, value in plain.network.state_dict().items():
        assert torch.equal(measured.network.state_dict()[name], value), name
    assert "step" not in vars(measured.stages[0])


def test_tables_i_and_iii_are_the_means_of_tables_ii_and_iv() -> None:
    """To the last digit, or one off where tables II and IV are rounded."""
    known = {"ll-bp": (8.11, 8.85), "ll-fa": (8.50, 13.03), "fsp-sparse": (5.91, 6.19)}
    twice = {"fsp": (14.48, 14.04), "fsp-sparse": (9.56, 10.74)}
    for table, means in ((VGG8B, known), (VGG8B_2X, twice)):
        for name, (seconds, mib) in means.items():
            assert sum(table[name].seconds) / 7 == pytest.approx(seconds, abs=0.011), name
            assert sum(table[name].mib) / 7 == pytest.approx(mib, abs=0.011), name
    assert (VGG8B["bp"].seconds, VGG8B["bp"].mib) == ((12.29,), (22.00,))
