"""The properties of figure 1, measured on a learner by one step on a small network; the module
`fsp_dynamics.layerwise.properties` has the definitions.

Nothing is moved: optimisers note what they would follow. Activities stay what they are where only
weights are changed that serve learning alone, or any weights when the forward pass has ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

import torch
from torch import nn

from fsp_dynamics.layerwise.learners import Settings, learner_class, make_learner
from fsp_dynamics.layerwise.networks import conv, mlp
from fsp_dynamics.layerwise.properties import Properties

SHAPES = {"units": mlp([7, 6, 8]), "maps": conv([3, "M", 4], [6])}
HIDDEN = ("layer1", "layer2", "layer3")
LAYERS = (*HIDDEN, "output")
CLASSES, SAMPLES = 5, 12


def nothing(*_):
    return None


@dataclass
class Seen:
    """events : ("forward", layer), ("auxiliary", layer, what enters it) or ("update", layer, part).
    updates : {(layer, part, name): what a step would follow}. losses : for each loss, the layers
    that it trains.
    """

    events: list = field(default_factory=list)
    updates: dict = field(default_factory=dict)
    losses: list = field(default_factory=list)

    def of(self, *layers, part="block"):
        return {key: value for key, value in self.updates.items() if key[0] in layers and key[1] == part}


class Subject:
    """A learner, taken apart by layers."""

    def __init__(self, name, shape="units", **settings):
        settings = Settings(dropout=0.0, **settings)
        self.learner = make_learner(name, SHAPES[shape], (1, 8, 8), CLASSES, settings, seed=3, dtype=torch.float64)
        rng = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for layer in LAYERS:  # what begins at 0 would hide what depends on it
                for tensor in tensors(self.auxiliary(layer)):
                    if not tensor.any():
                        tensor.normal_(generator=rng)

    def block(self, layer):
        network = self.learner.network
        return network.head if layer == "output" else network.blocks[HIDDEN.index(layer)]

    def auxiliary(self, layer):
        """What serves the learning of a layer alone."""
        network = self.learner.network
        found = [owner[layer] for owner in (self.learner.auxiliary, network.exits) if layer in owner]
        return found + ([network.generator] if layer == "layer1" and network.generator is not None else [])

    def owners(self):
        return {
            id(p): (layer, part, name)
            for layer in LAYERS
            for part, modules in (("block", [self.block(layer)]), ("auxiliary", self.auxiliary(layer)))
            for k, module in enumerate(modules)
            for name, p in ((f"{k}.{name}", p) for name, p in module.named_parameters())
        }

    def step(self, *, images=0, ended=nothing, at="output", output=None):
        """What is seen while it learns from one batch. ended : called when the forward pass has
        come to the layer `at`. output : what takes the place of the logits.
        """
        seen, owners = Seen(), self.owners()

        def forward(layer):
            def hook(module, given, made):
                first = ("forward", layer) not in seen.events
                seen.events.append(("forward", layer))
                if first and layer == at:
                    ended()
                return None if output is None or layer != "output" else made + (output(made) - made).detach()

            return hook

        def entered(layer):
            return lambda module, given: seen.events.append(("auxiliary", layer, given[0].detach().clone()))

        def noted(stage):
            def note():
                for p in (p for group in stage.optimiser.param_groups for p in group["params"] if p.grad is not None):
                    layer, part, name = owners[id(p)]
                    seen.events.append(("update", layer, part))
                    seen.updates.setdefault((layer, part, name), []).append(p.grad.clone())

            return note

        def lost(stage, real):
            def loss(signal, labels):
                found = real(signal, labels)
                if found is not None:
                    trained = {owners[id(p)][:2] for module in stage.modules for p in module.parameters()}
                    seen.losses.append({layer for layer, part in trained if part == "block"})
                return found

            return loss

        for layer in LAYERS:
            self.block(layer).register_forward_hook(forward(layer))
            for module in leaves(self.auxiliary(layer)):
                module.register_forward_pre_hook(entered(layer))
        for stage in self.learner.stages:
            stage.loss = lost(stage, stage.loss)
            if stage.optimiser is not None:
                stage.optimiser.step = noted(stage)
        rng = torch.Generator().manual_seed(images)
        self.learner.learn(torch.rand(SAMPLES, 64, generator=rng, dtype=torch.float64), torch.arange(SAMPLES) % CLASSES)
        return seen


def tensors(modules):
    return [t for module in modules for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]


def leaves(modules):
    """The parts of auxiliary modules that have weights of their own."""
    return [m for module in modules for m in module.modules() if [*m.parameters(False), *m.buffers(False)]]


def change(modules):
    """Change all numbers, unseen by what would refuse it."""
    rng = torch.Generator().manual_seed(9)
    for tensor in tensors(modules):
        tensor.data.add_(torch.rand(tensor.shape, generator=rng, dtype=tensor.dtype) + 0.5)


def changed_outside_forward(changed, watched):
    """Keep tensors right only from the start to the first forward pass of a watched module, and in
    each of their forward passes.
    """
    kept = [(t, t.detach().clone(), t.detach() + 0.7) for t in changed]

    def put(place):
        for kept_tensor in kept:
            kept_tensor[0].data.copy_(kept_tensor[place])

    for module in watched:
        module.register_forward_pre_hook(lambda *_: put(1))
        module.register_forward_hook(lambda *_: put(2))


def same(one, other):
    return one.keys() == other.keys() and all(
        len(a) == len(other[key]) and all(torch.equal(x, y) for x, y in zip(a, other[key], strict=True))
        for key, a in one.items()
    )


@cache
def base(name, shape):
    return Subject(name, shape).step()


def first(events, *event):
    return next(place for place, each in enumerate(events) if each[: len(event)] == event)


def forward_locked(name, shape="units", **settings):
    """When each block has learned."""
    seen = Subject(name, shape, **settings).step()
    waits = [
        first(seen.events, "update", layer, "block") > first(seen.events, "forward", after)
        for layer, after in pairwise(LAYERS)
    ]
    if any(waits):
        output = first(seen.events, "forward", "output")
        assert all(first(seen.events, "update", layer, "block") > output for layer in HIDDEN)
        return "global"
    other = Subject(name, shape, **settings).step(images=1)
    read = [any_read(seen, layer) != any_read(other, layer) for layer in HIDDEN]
    assert len(set(read)) == 1
    return "local" if read[0] else "none"


def any_read(seen, layer):
    """What entered the auxiliary network of a layer before its block learned, as text."""
    until = first(seen.events, "update", layer, "block")
    return [each[2].tolist() for each in seen.events[:until] if each[:2] == ("auxiliary", layer)]


def backward_locked(name, shape="units"):
    """What changes the update of a block, when the forward pass of its layer has ended."""
    early = forward_locked(name, shape) != "global"
    for place, layer in enumerate(HIDDEN):
        subject, expected = Subject(name, shape), base(name, shape).of(layer)
        earlier, later = (
            [m for each in part for m in (subject.block(each), *subject.auxiliary(each))]
            for part in (LAYERS[:place], LAYERS[place + 1 :])
        )
        if early:  # later layers are changed before anything runs, since they run when the block has learned
            change(later)
        modules = earlier if early else earlier + later
        found = subject.step(ended=lambda modules=modules: change(modules), at=layer if early else "output")
        if not same(found.of(layer), expected):
            return "global"
    inside = []
    for layer in HIDDEN:
        subject = Subject(name, shape)
        auxiliary = subject.auxiliary(layer)
        changed_outside_forward(tensors(auxiliary), leaves(auxiliary))
        inside.append(not same(subject.step().of(layer), base(name, shape).of(layer)))
    assert len(set(inside)) == 1
    return "local" if inside[0] else "none"


def backprop_error(name, shape="units"):
    """Whether any weights serve in the other direction."""
    count = len(weighted(Subject(name, shape)))
    for k in range(count):
        subject = Subject(name, shape)
        module = weighted(subject)[k]
        own = subject.owners()[id(module.weight)]
        changed_outside_forward([module.weight], [module])
        others = [
            {key: value for key, value in seen.updates.items() if key != own}
            for seen in (subject.step(), base(name, shape))
        ]
        if not same(*others):
            return True
    return False


def weighted(subject):
    owners = [subject.learner.network, subject.learner.auxiliary]
    return [m for owner in owners for m in owner.modules() if isinstance(m, nn.Linear | nn.Conv2d)]


def depends(name, shape, layer, *, on):
    """Whether the update of a block depends on the output, or on what belongs to other layers."""
    expected, subject = base(name, shape).of(layer), Subject(name, shape)
    if on == "output":
        found = subject.step(output=lambda z: z + torch.arange(CLASSES))
    else:
        place = LAYERS.index(layer)
        others = LAYERS[:place] if on == "earlier" else LAYERS[place + 1 :]
        change([m for each in others for m in subject.auxiliary(each)])
        blocks = [subject.block(each) for each in others]
        ended = forward_locked(name, shape) == "global"
        found = subject.step(ended=(lambda: change(blocks)) if ended else nothing)
    return not same(found.of(layer), expected)


def local_loss(name, shape="units"):
    losses = base(name, shape).losses
    return all({layer} in losses for layer in HIDDEN)


def vanishes(name, shape="units"):
    """Whether no block learns anything where the output is right, but for rounding."""
    right = 1000 * torch.eye(CLASSES, dtype=torch.float64)[torch.arange(SAMPLES) % CLASSES]
    found = Subject(name, shape).step(output=lambda z: right).of(*HIDDEN)
    return all(gradient.abs().max() < 1e-12 for each in found.values() for gradient in each)


@cache
def measured(name, shape="units"):
    """{property: as measured}."""
    earlier = any(depends(name, shape, layer, on="earlier") for layer in HIDDEN)
    later = any(depends(name, shape, layer, on="later") for layer in HIDDEN)
    assert not (earlier and later)
    path = "forprop" if earlier else "backprop" if later else "direct"
    own = local_loss(name, shape)
    kind = "error" if vanishes(name, shape) and not own else "target"
    elsewhere = [any(depends(name, shape, each, on=on) for on in ("output", "earlier", "later")) for each in HIDDEN[1:]]
    assert len(set(elsewhere)) == 1
    found = {
        f"{way}_{what}": (way, what) == (path, kind) for way in ("direct", "forprop") for what in ("error", "target")
    }
    return {
        "forward_locked": forward_locked(name, shape),
        "backward_locked": backward_locked(name, shape),
        "backprop_error": backprop_error(name, shape),
        "backprop_target": (path, kind) == ("backprop", "target"),
        **found,
        "local_loss": own,
        "global_signal": elsewhere[0],
    }


def declared(name) -> Properties:
    found = learner_class(name).properties
    assert found is not None
    return found
