"""What a discrete network refuses says what to do, and that helps."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from fsp_dynamics.errors import FspError
from fsp_dynamics.experiments.backend import NUMBA
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.execution import load_data
from fsp_dynamics.experiments.layerwise.trainer import LayerwiseTrainer
from fsp_dynamics.experiments.rate.building import require_rate
from fsp_dynamics.experiments.trainer import Resources
from fsp_dynamics.layerwise.learners import Settings, make_learner
from fsp_dynamics.layerwise.networks import conv, mlp, snn
from fsp_dynamics.training.ranks import ALONE

TABLE = {
    "family": "layerwise",
    "data": {"name": "digits", "limit": 60, "validation": 200},
    "network": {"hidden": [20, 20]},
    "learning": {"epochs": 1, "batch": 20},
}
IMAGE = (1, 8, 8)
MAPS = {"network.kind": "conv", "network.channels": [4, "M", 4]}


def configured(**changes):
    """A trainer of the table with these changes; keys are written with __ for dots."""
    _, config = load_config(TABLE, {key.replace("__", "."): value for key, value in changes.items()})
    LayerwiseTrainer.check(config, Resources(NUMBA, ALONE))
    return LayerwiseTrainer.build(config, load_data(config.data), Resources(NUMBA, ALONE))


def built(**given):
    """A trainer of the table."""
    _, config = load_config(TABLE)
    return LayerwiseTrainer.build(config, load_data(config.data), Resources(NUMBA, ALONE), **given)


def restored(change):
    """A trainer that goes on in the middle of an epoch, from arrays changed like that."""
    trainer = built()

    def stop(done, total, wrong):
        if done == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.epoch(stop)
    state = trainer.state()
    change(state.arrays)
    other = built()
    other.restore(state)
    assert other.epoch()["train_error"] == trainer.epoch()["train_error"]


def learning(shape, *, learner="fsp", classes=10, image=IMAGE, steps=1, **settings):
    """Steps of a learner of that shape."""
    found = make_learner(learner, shape, image, classes, Settings(**settings))
    images = torch.rand(6, int(np.prod(image)), generator=torch.Generator().manual_seed(0))
    for _ in range(steps):
        found.learn(images, torch.arange(6) % classes)


@pytest.mark.parametrize(
    ("meet", "says", "follow"),
    [
        (
            lambda: configured(network__hidden=None),
            "network.hidden is missing, which network.kind = 'mlp' needs; give it",
            lambda: configured(network__hidden=[9]),
        ),
        (
            lambda: configured(learning__learner="bp", targets__eta=0.5),
            "targets.eta = 0.5 belongs to learning.learner = 'fsp', not to 'bp'; leave it out (targets.eta=None)",
            lambda: configured(learning__learner="bp", targets__eta=None),
        ),
        (
            lambda: configured(learning__learner="sg", network__hidden=None, **MAPS),
            "is for networks of units, and network.kind has convolutions; choose network.kind = 'mlp'",
            lambda: configured(learning__learner="sg", network__kind="mlp"),
        ),
        (
            lambda: configured(learning__precision="float16"),
            "'float16' on a CPU, whose convolutions are far slower in it; choose bfloat16",
            lambda: configured(learning__precision="bfloat16").epoch(),
        ),
        (
            lambda: learning(conv(["M", "M"], [5])),
            "network.channels names no convolution; give such as 16,M,32, or network.kind = mlp",
            lambda: learning(conv([16, "M", 32])),
        ),
        (
            lambda: learning(conv([4, "M", 4, "M", 4, "M", 4, "M"])),
            "which are larger; give larger images or fewer pools",
            lambda: learning(conv([4, "M", 4, "M", 4, "M", 4])),
        ),
        (
            lambda: learning(mlp([7, 6]), version="2a", generator="target-loop"),
            "which version 2a lacks; choose targets.version = '2b' or another generator",
            lambda: learning(mlp([7, 6]), version="2b", generator="target-loop"),
        ),
        (
            lambda: learning(mlp([7, 6]), sparse=7),
            "targets.sparse = 7, expected less than the 7 units of the first layer; give a smaller number",
            lambda: learning(mlp([7, 6]), sparse=6),
        ),
        (
            lambda: learning(conv([4, "M", 4]), sparse=9, generator="target-input"),
            "is not sparse in a convolution; choose another generator",
            lambda: learning(conv([4, "M", 4]), sparse=9, generator="target-loop"),
        ),
        (
            lambda: learning(snn([4, "M", 4]), generator="target-input"),
            "and a spiking network (network.kind = 'snn') has membranes; choose another generator",
            lambda: learning(snn([4, "M", 4]), generator="target-loop"),
        ),
        (
            lambda: learning(snn([4, "M", 4]), learner="dfa"),
            "is not defined for spiking networks (network.kind = 'snn'); choose fsp, bp or shallow",
            lambda: [learning(snn([4, "M", 4]), learner=name) for name in ("fsp", "bp", "shallow")],
        ),
        (
            lambda: configured(network__kind="snn", network__hidden=None),
            "network.channels and network.hidden are empty, expected layers in either; give them",
            lambda: configured(network__kind="snn", network__hidden=[9]),
        ),
        (
            lambda: configured(targets__compared="surrogate"),
            "belongs to network.kind = 'snn', not to 'mlp'; leave it out (targets.compared=None)",
            lambda: configured(targets__compared=None),
        ),
        (
            lambda: configured(network__threshold=0.5),
            "network.threshold = 0.5 belongs to network.kind = 'snn', not to 'mlp'; leave it out",
            lambda: configured(network__threshold=None),
        ),
        (
            lambda: learning(conv([4], [3]), sparse=9, image=(1, 2, 2)),
            "targets have 36 numbers, the next weights take 16; give a smaller sparse size",
            lambda: learning(conv([4], [3]), image=(1, 2, 2)),
        ),
        (
            lambda: learning(mlp([7, 6]), classes=1),
            "targets of one class alone cannot be normalised; give two or more classes",
            lambda: learning(mlp([7, 6]), classes=2),
        ),
        (
            lambda: learning(mlp([7, 6]), rate=1e30, steps=3),
            "is not finite (nan); lower learning.rate (now 1e+30)",
            lambda: learning(mlp([7, 6])),
        ),
        (
            lambda: require_rate(load_config(TABLE)[1], "stability"),
            "which has phases and equilibria; give a run or a preset of one",
            lambda: require_rate(load_config("digits")[1], "stability"),
        ),
        (
            lambda: configured(data__limit=1),
            "data has 1 training image, expected 2 or more for batch norm; give more",
            lambda: configured(data__limit=2),
        ),
        (
            lambda: configured(learning__augmentation__crop=8),
            "learning.augmentation.crop = 8, expected a whole number from 0 to 7",
            lambda: configured(learning__augmentation__crop=7).epoch(),
        ),
        (
            lambda: built(network=np.zeros(3)),
            "expected what Run.network() gives of a run of family = 'layerwise'; leave it out",
            lambda: built(),
        ),
        (
            lambda: restored(lambda arrays: arrays.pop("dropout/0")),
            "the state of dropout/0 is missing; resume from another checkpoint",
            lambda: restored(lambda arrays: None),
        ),
        (
            lambda: restored(lambda arrays: arrays.update({"epoch/order": np.arange(3)})),
            "epoch/order does not fit the training images; resume with the data of the run",
            lambda: restored(lambda arrays: None),
        ),
    ],
    ids=lambda value: value[-40:] if isinstance(value, str) else "",
)
def test_advice_that_is_followed_helps(meet, says, follow):
    with pytest.raises(FspError, match=re.escape(says)):
        meet()
    follow()


@pytest.mark.parametrize(
    "command",
    [
        ("train", "mnist-mlp-fsp"),
        ("train", "mnist-mlp-fsp", "--dry-run"),
        ("table", "figure1"),
        ("cost", "fashion-conv-fsp"),
    ],
    ids=" ".join,
)
def test_without_torch_every_command_says_what_installs_it(command, tmp_path):
    code = f"""
import sys
sys.modules["torch"] = None
from fsp_dynamics.cli import main
sys.exit(main({[*command]!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == (
        "fsp: torch is not installed, which this needs; pip install 'fsp_dynamics[torch]'"
    )
    assert not list(tmp_path.iterdir())
