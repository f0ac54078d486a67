"""The widget answers every message once, and moves with its parameters; no browser is needed to
see that.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import fsp_dynamics as fsp
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.explorer.model import PIECES, Model
from fsp_dynamics.explorer.replies import respond
from fsp_dynamics.explorer.sources import script, style
from fsp_dynamics.explorer.widget import Explorer


@pytest.fixture
def sent(model: Model, monkeypatch: pytest.MonkeyPatch):
    """(the widget, what it sends)."""
    widget = Explorer(model)
    messages: list = []
    monkeypatch.setattr(widget, "send", lambda content, buffers=None: messages.append((content, buffers)))
    return widget, messages


def send(widget: Explorer, **content) -> None:
    """What arrives when the script sends a message."""
    widget._handle_custom_msg(content, [])


def test_a_frame_is_answered_with_its_id_and_one_buffer(sent) -> None:
    widget, messages = sent
    send(widget, kind="frame", id=7, parameters={"sample": 3})
    ((content, (buffer,)),) = messages
    assert (content["kind"], content["id"]) == ("frame", 7)
    name, shape, offset = next(entry for entry in content["layout"] if entry[0] == "output")
    output = np.frombuffer(buffer, np.float32)[offset : offset + int(np.prod(shape))].reshape(shape)
    np.testing.assert_array_equal(output, widget.model.frame({"sample": 3})[name])
    assert widget.parameters["sample"] == 3
    json.dumps(content, allow_nan=False)


def test_pieces_of_a_sweep_are_answered_one_by_one(sent) -> None:
    widget, messages = sent
    for piece in range(2):
        send(widget, kind="sweep", id=piece, parameters={}, name="gain", piece=piece)
    assert [content["piece"] for content, _ in messages] == [0, 1]
    assert {content["pieces"] for content, _ in messages} == {PIECES}
    assert widget.parameters == widget.model.defaults, "a sweep moves no control"


def test_learning_and_forgetting_are_answered_with_frames(sent) -> None:
    widget, messages = sent
    for k, kind in enumerate(["learn", "learn", "forget"]):
        send(widget, kind=kind, id=k, parameters={})
    assert [(content["kind"], content["readouts"]["learned"]) for content, _ in messages] == [
        ("frame", 1),
        ("frame", 2),
        ("frame", 0),
    ]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            {"kind": "frame", "parameters": {"beta": -0.9, "r": 2.0}},
            "beta = -0.9, expected above -0.5 (-1/r of the output)",
        ),
        ({"kind": "frame", "parameters": {"nonsense": 1}}, "the explorer has no parameter 'nonsense' here"),
        ({"kind": "sweep", "parameters": {}, "name": "rho", "piece": 0}, "sweep over 'rho', expected one of: sample"),
        ({"kind": "sweep", "parameters": {}, "name": "gain", "piece": 99}, "piece = 99, expected 0 to"),
        ({"kind": "learn", "parameters": {"beta": 0.0}}, "choose a beta other than 0"),
        ({"kind": "dance", "parameters": {}}, "internal error, ValueError: message of kind 'dance'"),
        ({"kind": "frame"}, "internal error, KeyError: 'parameters'"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(model: Model, content: dict, text: str) -> None:
    reply, buffers = respond(model, {"id": 5, **content})
    assert reply["kind"] == "refused"
    assert reply["id"] == 5
    assert text in reply["text"]
    assert "\n" not in reply["text"]
    assert buffers == []


def test_controls_are_moved_from_python(sent) -> None:
    widget, _ = sent
    widget.set(gain=2.0, sample=3)
    assert widget.parameters == {**widget.model.defaults, "gain": 2.0, "sample": 3}
    np.testing.assert_allclose(widget.network.loop, 2 * widget.model.network({}).loop)
    np.testing.assert_array_equal(widget.trajectory.rates[-1], widget.model.path(widget.parameters).rates[-1])
    with pytest.raises(ConfigurationError, match="no parameter 'gian' here; did you mean 'gain'"):
        widget.set(gian=1.0)
    assert widget.parameters["gain"] == 2.0


def test_explore_shows_what_it_is_given() -> None:
    network = fsp.loop_network([64, 9, 10], rng=0)
    explorer = fsp.explore(network, sample=5)
    assert explorer.about["sizes"] == [64, 9, 10]
    assert explorer.parameters["sample"] == 5
    np.testing.assert_array_equal(explorer.network.forward[0], network.forward[0].astype(np.float64))
    assert explorer._esm == script()
    assert explorer._css == style()


def test_the_script_is_one_module_of_its_own() -> None:
    """It imports nothing; its export is the last statement."""
    text = script()
    assert text.count("export default") == 1
    assert text.rstrip().splitlines()[-1].startswith("export default")
    assert not any(line.startswith("import ") for line in text.splitlines())
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text  # noqa: PT018
    assert "@import" not in style()
    assert "url(" not in style()


WITHOUT = """
import sys
sys.modules["anywidget"] = None
import fsp_dynamics as fsp
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.explorer.model import Model
from fsp_dynamics.explorer.session import Session
try:
    fsp.explore()
except ConfigurationError as error:
    print(error)
print(Model(Session.of(None)).about["title"])
"""


@pytest.mark.cli
def test_the_model_needs_no_widget() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines() == [
        "explore needs anywidget, which is not installed; install fsp_dynamics[notebook]",
        "64-48-32-10",
    ], done.stderr
