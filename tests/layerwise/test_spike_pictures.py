"""Pictures of spiking networks show what was recorded, and can be read in one column."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import assert_legible, drawn, texts

from fsp_dynamics.errors import ConfigurationError, ShapeError
from fsp_dynamics.layerwise.neurons import Neuron
from fsp_dynamics.layerwise.spikes import SpikeRecord
from fsp_dynamics.plotting import new_figure
from fsp_dynamics.plotting.spikes import plot_rates

COLUMN = 8.5 / 2.54


FOUR = Neuron(steps=4, threshold=0.5)


def made(neuron=FOUR, images=3):
    """A record of random currents into 2 x 5 x 6 units, then 130, then 3."""
    rng = np.random.default_rng(2)
    found = {}
    for k, size in enumerate(((2, 5, 6), (130,), (3,)), 1):
        current = rng.normal(0.1, 0.4, (neuron.steps, images, *size))
        v = np.zeros_like(current[0])
        steps = []
        for z in current:
            v = neuron.leak * v + z
            steps.append(v)
            v = np.where(v >= neuron.threshold, 0 if neuron.reset == "hard" else v - neuron.threshold, v)
        found[f"layer{k}"] = np.stack(steps)
    return SpikeRecord(found, neuron)


def test_membranes_are_drawn_as_they_were():
    seen = made()
    figure = seen.plot(layer="layer2", image=1, units=[7, 0, 129])
    assert len(figure.axes) == 3
    for ax, unit in zip(figure.axes, (7, 0, 129), strict=True):
        before, fired = seen.membranes["layer2"][:, 1, unit], seen.spikes["layer2"][:, 1, unit]
        lines = drawn(ax)
        np.testing.assert_array_equal(lines["spike"], (1 + np.flatnonzero(fired), before[fired]))
        np.testing.assert_array_equal(lines["no spike"], (1 + np.flatnonzero(~fired), before[~fired]))
        assert set(lines["threshold"][1]) == {0.5}
        low, high = ax.get_ylim()
        assert low < before.min()
        assert high > max(before.max(), 0.5)
        spikes = int(fired.sum())
        assert ax.get_title(loc="left") == f"layer2, unit {unit}: {spikes} spike{'' if spikes == 1 else 's'}"
    assert figure.axes[-1].get_xlabel() == "step (image 1)"


@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_between_steps_a_membrane_stays_where_its_reset_put_it(reset):
    seen = made(Neuron(steps=4, threshold=0.5, reset=reset))
    (ax,) = seen.plot(layer="layer3", units=[int(seen.rates["layer3"].argmax())]).axes
    x, y = max((line.get_data() for line in ax.lines), key=lambda data: len(data[0]))
    unit = int(seen.rates["layer3"].argmax())
    for step in range(1, 5):
        at = np.asarray(y)[np.asarray(x) == step]
        left = seen.after["layer3"][step - 2, 0, unit] if step > 1 else 0
        np.testing.assert_array_equal(
            at, [left, seen.membranes["layer3"][step - 1, 0, unit], seen.after["layer3"][step - 1, 0, unit]]
        )


def test_units_that_are_chosen_differ_in_spikes_and_have_the_highest_membrane():
    seen = made()
    titles = [ax.get_title(loc="left") for ax in seen.plot(layer="layer1", image=2).axes]
    spikes, highest = seen.spikes["layer1"][:, 2].sum(0), seen.membranes["layer1"][:, 2].max(0)
    expected = []
    for number in sorted(set(spikes.ravel().tolist()), reverse=True)[:4]:
        own = np.where(spikes == number, highest, -np.inf)
        c, y, x = np.unravel_index(own.argmax(), own.shape)
        expected.append(f"layer1, channel {c}, row {y}, column {x}: {number} spike{'' if number == 1 else 's'}")
    assert len(expected) > 2
    assert titles == expected


def test_a_raster_has_a_row_for_each_unit_and_the_steps_of_each_image_in_turn():
    seen = made()
    figure = seen.plot_raster(images=2)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "layer1: 60 units",
        "layer2: 100 of 130 units",
        "layer3: 3 units",
    ]
    pictures = [ax.images[0].get_array() for ax in figure.axes]
    assert [picture.shape for picture in pictures] == [(60, 8), (100, 8), (3, 8)]
    for name, picture in (("layer1", pictures[0]), ("layer3", pictures[2])):
        fired = seen.spikes[name].reshape(4, 3, -1)
        for unit, column in np.ndindex(*picture.shape):
            image, step = divmod(column, 4)
            assert picture[unit, column] == fired[step, image, unit]
    assert [tick.get_text() for tick in figure.axes[-1].get_xticklabels()] == ["0", "1"]
    assert len(seen.plot_raster(images=99).axes[0].images[0].get_array()[0]) == 3 * 4, "all images there are"


def test_rates_are_shares_of_units_and_those_that_never_or_always_spike_are_told():
    rates = {"layer1": np.array([0, 0, 0.05, 0.5, 0.55, 1.0, 1, 1, 1, 0.999]), "layer2": np.zeros((2, 3, 4))}
    one, other = plot_rates(rates).axes
    share, edges, _ = one.patches[0].get_data()
    np.testing.assert_allclose(edges, np.linspace(0, 1, 21))
    expected = np.zeros(21)
    for rate in rates["layer1"]:
        expected[int(rate * 20 + 1e-9)] += 10
    expected[19] += expected[20]  # a rate of 1 stands in the last bin
    np.testing.assert_allclose(share, expected[:20])
    assert one.get_title(loc="left") == "layer1: mean 0.610, 20.0 % silent, 40.0 % saturated"
    assert other.get_title(loc="left") == "layer2: mean 0.000, 100.0 % silent, 0.0 % saturated"
    assert other.patches[0].get_data().values[0] == 100
    for ax in (one, other):
        assert ax.get_ylim()[0] < 10 < 100 < ax.get_ylim()[1]


PICTURES = {
    "membranes": lambda seen: seen.plot(),
    "membranes of one unit": lambda seen: seen.plot(layer="layer3", units=[1]),
    "raster": lambda seen: seen.plot_raster(),
    "rates": lambda seen: seen.plot_rates(),
}


@pytest.mark.parametrize("steps", [1, 4, 16, 100])
@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_nothing_overlaps_in_one_column(draw, steps):
    figure = draw(made(Neuron(steps=steps, threshold=0.5), images=8))
    assert figure.get_figwidth() == pytest.approx(COLUMN)
    assert_legible(figure)
    for ax in figure.axes:
        for text in (ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels()):
            assert text.get_fontsize() >= 7


def test_left_titles_lie_apart_from_the_axes_above():
    """The titles stand at the left, where `pictures.texts` does not look."""
    for draw in PICTURES.values():
        figure = draw(made())
        figure.canvas.draw()
        others = [box for _, box in texts(figure)]
        for ax in figure.axes:
            own = ax._left_title.get_window_extent()
            assert own.x1 <= figure.canvas.get_width_height()[0]
            assert not any(own.overlaps(box) for box in others)


def test_pictures_are_drawn_into_given_axes_one_for_each(tmp_path):
    seen = made()
    figure = new_figure(6, 6)
    axes = figure.subplots(3)
    assert seen.plot_raster(list(axes), path=tmp_path / "raster.png") is figure
    assert (tmp_path / "raster.png").read_bytes().startswith(b"\x89PNG")
    assert all(ax.images for ax in axes)
    single = new_figure(4, 3).subplots()
    seen.plot(single, units=[(1, 4, 5)])
    assert "spike" in drawn(single)
    with pytest.raises(ConfigurationError, match="ax holds 1 Axes, expected 3, one for each layer"):
        seen.plot_rates(single)
    with pytest.raises(ConfigurationError, match="ax holds 1 Axes, expected 2, one for each unit"):
        seen.plot(single, layer="layer3", units=[0, 1])
    with pytest.raises(ShapeError, match="ax has shape"):
        seen.plot(list(axes), layer="layer3", units=[0, 1])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"layer": "layer4"}, r"layer = 'layer4' is unknown; .*layer3"),
        ({"image": 3}, "image = 3, expected 0 to 2"),
        ({"image": -1}, "image = -1, expected 0 to 2"),
        ({"units": []}, "units is empty"),
        ({"units": [(2, 0, 0)]}, r"units holds \(2, 0, 0\), expected \(channel, row, column\) below \(2, 5, 6\)"),
        ({"units": [4]}, r"units holds 4, expected \(channel, row, column\)"),
        ({"layer": "layer3", "units": [3]}, "units holds 3, expected 0 to 2"),
        ({"layer": "layer3", "units": [-1]}, "units holds -1, expected 0 to 2"),
        ({"layer": "layer3", "units": ["first"]}, "units holds 'first', expected 0 to 2"),
    ],
)
def test_what_is_not_there_is_refused(given, says):
    with pytest.raises(ConfigurationError, match=says):
        made().plot(**given)


def test_pictures_of_nothing_are_refused():
    with pytest.raises(ConfigurationError, match="images = 0, expected a whole number, 1 or more"):
        made().plot_raster(images=0)
    with pytest.raises(ConfigurationError, match="rates is empty"):
        plot_rates({})
