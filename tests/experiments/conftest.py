"""A configuration that trains in a blink."""

from __future__ import annotations

import copy
import json

import pytest

from fsp_dynamics.experiments import runner, session

TINY = {
    "data": {"name": "digits", "limit": 120, "validation": 200},
    "network": {"hidden": [12], "loop_scale": 0.3},
    "learning": {"epochs": 3, "batch": 20, "output_step": 0.2, "rates": {"input": 20.0, "forward": [7.0], "loop": 0.5}},
    "solver": {"absolute": 1e-4},
}


def merged(base, changes):
    """`base` with the nested `changes` put in."""
    out = copy.deepcopy(base)
    for key, value in changes.items():
        out[key] = merged(out.get(key, {}), value) if isinstance(value, dict) else value
    return out


@pytest.fixture(scope="session")
def tiny():
    """tiny(learning={"momentum": 0.5}) -> the nested table of a small experiment on digits."""
    return lambda **changes: merged(TINY, changes)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """unbroken(table) -> the run of three epochs without a stop (made once)."""
    made = {}

    def run(table):
        key = json.dumps(table)
        if key not in made:
            made[key] = runner.train(table, progress=False, out=tmp_path_factory.mktemp("unbroken") / "run")
        return made[key]

    return run


@pytest.fixture
def killed(monkeypatch):
    """killed(2): from now on a run dies in the second epoch, its records written and its
    checkpoint not; `monkeypatch.undo()` ends that.
    """

    def at(epoch):
        real = session.save_checkpoint

        def dies(folder, state, names, run):
            if state.epoch == epoch:
                raise KeyboardInterrupt
            real(folder, state, names, run)

        monkeypatch.setattr(session, "save_checkpoint", dies)

    return at
