"""The explorer starts with, and offers, images on which something moves; on the others it says why
nothing does.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import fsp_dynamics as fsp
from fsp_dynamics.explorer.informative import SMALL, margins
from fsp_dynamics.explorer.model import Model
from fsp_dynamics.explorer.replies import respond
from fsp_dynamics.explorer.session import Session


def always(label: int, rate: float = 1.0) -> fsp.Network:
    """A loop network that answers every image with this class at this rate, the others at 0."""
    network = fsp.loop_network([64, 6, 10], loop_scale=0.2, dtype=np.float64, rng=0)
    forward = (np.zeros((6, 10)),)
    bias = np.where(np.arange(10) == label, rate, -1.0)
    return dataclasses.replace(network, forward=forward, biases=(*network.biases[:-1], bias))


@pytest.fixture(scope="module")
def exact() -> Model:
    """Of class 3 every image is classified exactly, of the others none."""
    return Model(Session.of(always(3)))


def test_it_starts_with_an_informative_image(exact: Model) -> None:
    labels = exact.session.data.test.labels
    assert labels[exact.sample] != 3
    assert exact.defaults["sample"] == exact.sample == int(np.flatnonzero(labels != 3)[0])
    seven = int(labels[0])
    moved = Model(Session.of(always(seven)))
    assert moved.sample > 0
    assert moved.frame({}).readouts["margin_free"] <= SMALL
    assert Model(Session.of(always(seven)), 0).sample == 0, "a chosen image stays"


def inhibited(strength: float, rate: float) -> Model:
    """Class 3 is inhibited by what is active in the hidden layer, more by some images than by
    others.
    """
    weights = np.where(np.arange(10) == 3, -strength, 0.0) * np.ones((6, 1))
    return Model(Session.of(dataclasses.replace(always(3, rate), forward=(weights,))))


def test_the_next_informative_image_is_the_next_one_with_a_small_margin() -> None:
    model = inhibited(0.3, 1.0)
    images = len(model.session.rows("3"))
    given: dict = {"label": "3", "nudged": 0.0}
    shown = [model.frame({**given, "sample": k}).readouts["margin_free"] for k in range(images)]
    expected = [k for k, margin in enumerate(shown) if margin <= SMALL]
    assert 3 <= len(expected) < images
    for sample in [*expected, expected[0]]:
        given = model.next_informative({**given, "sample": given.get("sample", images - 1)})
        assert given["sample"] == sample


def test_it_stays_in_the_class_and_drops_a_drawing(exact: Model) -> None:
    rows = exact.session.rows("5")
    given = exact.next_informative({"sample": 2, "label": "5", "drawing": [0.5] * 64, "noise": 0.1})
    assert given == {"sample": 3, "label": "5", "drawing": None, "noise": 0.1}
    assert exact.next_informative({"sample": len(rows) - 1, "label": "5"})["sample"] == 0, "after the last the first"


def test_where_every_image_is_exact_it_goes_on(exact: Model) -> None:
    assert exact.next_informative({"sample": 2, "label": "3"})["sample"] == 3


def test_without_informative_images_the_smallest_margin_is_next() -> None:
    model = inhibited(0.01, 0.7)
    found = margins(model.session, model.parameters({"label": "3"}), model.session.rows("3"))
    assert np.ptp(found) > 0
    assert found.min() > SMALL
    assert model.next_informative({"label": "3", "sample": 0})["sample"] == found.argmin()


def test_the_page_gets_a_frame_of_that_image(exact: Model) -> None:
    reply, buffers = respond(exact, {"kind": "next", "id": 1, "parameters": {"sample": 0}})
    assert reply["kind"] == "frame"
    assert reply["readouts"]["parameters"]["sample"] == exact.next_informative({"sample": 0})["sample"]
    assert len(buffers) == 1


def test_on_an_exact_image_it_is_said_why_nothing_moves(exact: Model) -> None:
    frame = exact.frame({"label": "3"})
    assert frame.readouts["remark"].startswith("Nothing moves: this image is already classified exactly.")
    assert "class 3" in frame.readouts["remark"]
    assert [(each["degrees"], each["norm"]) for each in frame.readouts["updates"]] == [(None, 0.0)] * 3
    moving = exact.frame({"label": "5"}).readouts
    assert max(each["norm"] for each in moving["updates"]) > 0


@pytest.mark.parametrize("distance", [1e-13, 1e-11])
def test_rounding_is_not_shown_as_an_update(distance: float) -> None:
    """The output is off its target by less than an equilibrium is known."""
    model = Model(Session.of(always(3, 1 - distance)))
    frame = model.frame({"label": "3", "beta": 0.5})
    assert all(not frame[f"update_{i}"].any() for i in range(3))
    assert {each["norm"] for each in frame.readouts["updates"]} == {0.0}


def test_a_small_update_is_shown() -> None:
    frame = Model(Session.of(always(3, 1 - 1e-6))).frame({"label": "3", "beta": 0.5})
    assert frame["update_1"].any()
    assert "Nothing moves" not in (frame.readouts["remark"] or "")


def test_matrices_without_an_update_are_named(exact: Model) -> None:
    """Without a loop the nudge does not reach the hidden layer."""
    readouts = exact.frame({"label": "5", "gain": 0.0}).readouts
    assert [each["label"] for each in readouts["updates"] if each["norm"] > 0] == ["W1"]
    assert readouts["remark"].startswith("No update of input, loop: the nudge changes no rate there")
