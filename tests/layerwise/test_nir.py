"""A spiking network as a graph of NIR: read back equal, and run by an interpreter of a few lines,
which knows the graph alone, it gives the same spikes.
"""

from __future__ import annotations

import io

import numpy as np
import pytest

nir = pytest.importorskip("nir")

import torch
from scipy.signal import correlate

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.layerwise.nir_file import write_nir
from fsp_dynamics.layerwise.augmentation import Normalisation
from fsp_dynamics.layerwise.learners import Settings, make_learner
from fsp_dynamics.layerwise.networks import conv, snn
from fsp_dynamics.layerwise.neurons import Neuron
from fsp_dynamics.layerwise.nir_export import nir_bytes, nir_graph

CLASSES = 5


def learned(shape, image_shape=(1, 8, 8), *, name="bp", dtype=torch.float64, normalisation=None, **settings):
    """A learner after a few steps, so that batch norm has statistics, and images (7, pixels)."""
    learner = make_learner(name, shape, image_shape, CLASSES, Settings(**settings), seed=3, dtype=dtype)
    if normalisation is not None:
        learner.network.normalise(normalisation)
    images = torch.rand(40, int(np.prod(image_shape)), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    images = images.to(dtype)
    for k in range(6):
        learner.learn(images, (torch.arange(40) + k) % CLASSES)
    return learner, images[:7]


def convolved(x, node):
    """Conv2d of x (channels, height, width), channel by channel."""
    assert tuple(node.stride) == tuple(node.dilation) == (1, 1)
    x = np.pad(x, ((0, 0), *((each, each) for each in node.padding)))
    assert node.groups == 1
    maps = [correlate(x, weight, "valid")[0] + bias for weight, bias in zip(node.weight, node.bias, strict=True)]
    return np.stack(maps)


def summed(x, node):
    """SumPool2d of x (channels, height, width)."""
    high, wide = node.kernel_size
    shape = (len(x), x.shape[1] // high, x.shape[2] // wide)
    found = np.zeros(shape)
    for c, i, j in np.ndindex(shape):
        found[c, i, j] = x[c, i * high : (i + 1) * high, j * wide : (j + 1) * wide].sum()
    return found


def interpret(graph, image, steps):
    """{node: what it gives in each step} of an image that enters in every step."""
    after, voltage = dict(graph.edges), {}
    found = {name: [] for name in graph.nodes}
    for _ in range(steps):
        name, x = "input", image.reshape(graph.nodes["input"].input_type["input"])
        while True:
            node = graph.nodes[name]
            match type(node).__name__:
                case "Conv2d":
                    x = convolved(x, node)
                case "Affine":
                    x = node.weight @ x + node.bias
                case "SumPool2d":
                    x = summed(x, node)
                case "Threshold":
                    x = (x > node.threshold) * 1.0
                case "Flatten":
                    x = x.reshape(node.output_type["output"])
                case "IF":
                    v = voltage.get(name, node.v_reset) + node.r * x
                    x = (v > node.v_threshold) * 1.0
                    voltage[name] = np.where(x == 1, node.v_reset, v)
                case "Input" | "Output":
                    pass
                case other:
                    raise AssertionError(other)
            found[name].append(x)
            if name == "output":
                break
            name = after[name]
    return {name: np.stack(each) for name, each in found.items()}


def spikes_of(learner, images):
    """[spikes (steps, B, ...) of each layer], and the scores."""
    network = learner.network
    with learner.predicting(), torch.no_grad():
        membranes = network.activities(network.images(images))
        fired = [network.shape.neuron.fire(v).numpy() for v in membranes]
        return fired, learner.scores(images)["output"].numpy()


def equal(one, other, place=""):
    """Two graphs as nested mappings hold the same, arrays to the bit and of the same type."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            equal(one[key], other[key], f"{place}/{key}")
    else:
        assert np.array_equal(one, other), place
        assert np.asarray(one).dtype.kind == np.asarray(other).dtype.kind, place
        if np.asarray(one).dtype.kind == "f":
            assert np.asarray(one).dtype == np.asarray(other).dtype, place


COLOURS = Normalisation(mean=np.array([0.5, 0.25, 0.4]), deviation=np.array([0.25, 0.5, 0.3]))
NETWORKS = {
    "table V": (snn([4, "M", 6, "M"], [12], Neuron(threshold=0.5)), (1, 8, 8), {}),
    "units alone": (snn([], [9, 8], Neuron(steps=6)), (1, 5, 4), {}),
    "odd sides, no units": (snn([3, "M", 4, "M"], [], Neuron(steps=3, threshold=0.3)), (1, 9, 7), {}),
    "colours, pools of four": (
        snn([3, "M", "M", 4], [6], Neuron(threshold=0.3)),
        (3, 8, 8),
        {"normalisation": COLOURS},
    ),
    "no batch norm": (snn([4, "M", 6], [5], Neuron(threshold=0.1)), (1, 8, 8), {"normalised": False}),
    "fsp": (snn([4, "M", 6, "M"], [12], Neuron(threshold=0.5)), (1, 8, 8), {"name": "fsp"}),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_an_independent_interpreter_has_the_same_spikes_and_scores(kind, tmp_path):
    shape, image_shape, more = NETWORKS[kind]
    learner, images = learned(shape, image_shape, **more)
    graph = nir.read(write_nir(tmp_path / "network.nir", learner))
    expected, scores = spikes_of(learner, images)
    assert all(0.01 < each.mean() < 0.99 for each in expected)
    for b, image in enumerate(images.numpy()):
        found = interpret(graph, image, graph.metadata["steps"])
        for k, fired in enumerate(expected, 1):
            np.testing.assert_array_equal(found[f"layer{k}_spikes"], fired[:, b])
        np.testing.assert_allclose(found["output"].mean(0), scores[b], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_file_read_back_is_the_graph_in_the_precision_of_the_network(dtype):
    shape, image_shape, more = NETWORKS["colours, pools of four"]
    graph = nir_graph(learned(shape, image_shape, dtype=dtype, **more)[0])
    equal(graph.to_dict(), nir.read(io.BytesIO(nir_bytes(graph))).to_dict())
    arrays = [graph.nodes["layer1"].weight, graph.nodes["layer1_spikes"].v_threshold, graph.nodes["classifier"].bias]
    assert {each.dtype.name for each in arrays} == {str(dtype).removeprefix("torch.")}
    assert nir_bytes(graph) == nir_bytes(graph)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threshold", [0.5, 0.3, 1.0, 1e-3])
def test_a_membrane_at_the_threshold_fires_and_the_number_below_does_not(threshold, dtype):
    """Ours fires at it, NIR above it: what is written is the number between the two."""
    learner = make_learner("bp", snn([], [2], Neuron(steps=1, threshold=threshold)), (1, 1, 1), 2, dtype=dtype)
    at = torch.tensor(threshold, dtype=dtype)
    below = torch.nextafter(at, torch.zeros_like(at))
    with torch.no_grad():
        learner.network.blocks[0].weights.weight.copy_(torch.stack([at, below])[:, None])
        learner.network.blocks[0].weights.bias.zero_()
    fired, _ = spikes_of(learner, torch.ones(1, 1, dtype=dtype))
    found = interpret(nir_graph(learner), np.ones(1, str(dtype).removeprefix("torch.")), 1)
    assert fired[0].tolist() == [[[1.0, 0.0]]]
    assert found["layer1_spikes"].tolist() == [[1.0, 0.0]]


REFUSED = [
    (snn([4], [5], Neuron(leak=0.9)), {}, "network.leak = 0.9 has no exact form in NIR", snn([4], [5])),
    (snn([4], [5], Neuron(reset="soft")), {}, "network.reset = 'soft' has no form in NIR", snn([4], [5])),
    (snn(["M", 4], [5]), {}, "network.channels begins with M, a pool of pixels", snn([4, "M"], [5])),
    (conv([4], [5]), {}, "the network has no spiking units", snn([4], [5])),
    (snn([4], [5]), {"name": "fsp", "version": "2a"}, "targets.version = '2a' predicts by closeness", snn([4], [5])),
]


@pytest.mark.parametrize(("shape", "given", "says", "follow"), REFUSED)
def test_what_nir_cannot_say_exactly_is_refused_and_the_advice_helps(shape, given, says, follow, tmp_path):
    path = tmp_path / "network.nir"
    with pytest.raises(ConfigurationError, match=says):
        write_nir(path, learned(shape, **given)[0])
    assert not path.exists()
    assert write_nir(path, learned(follow, **(given | {"version": "2b"}))[0]).is_file()


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"export = '.*network.h5' ends in '.h5', expected .nir"):
        write_nir(tmp_path / "network.h5", learned(snn([], [4]))[0])
