"""The explorer's numbers equal those of the library."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import threading

import numpy as np
import pytest
import xarray

import fsp_dynamics as fsp
from fsp_dynamics.analysis.alignment import angle
from fsp_dynamics.analysis.gradients import true_gradient
from fsp_dynamics.analysis.spectra import spectrum
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.explorer import trial, views
from fsp_dynamics.explorer.controls import Parameters, controls_of
from fsp_dynamics.explorer.frame import Frame
from fsp_dynamics.explorer.model import PIECES, Model
from fsp_dynamics.explorer.session import RANDOM, TRAINED, Session
from fsp_dynamics.learning.phases import Phases
from fsp_dynamics.learning.rules.hebbian import HEBBIAN
from fsp_dynamics.models import rate
from fsp_dynamics.models.activations import Activation
from fsp_dynamics.models.rate import flatten

PAD = [round(float(v), 3) for v in np.random.default_rng(4).random(64)]
SETTINGS = {
    "as it starts": {},
    "another image": {"sample": 7, "label": "3"},
    "noise": {"noise": 0.2, "sample": 5},
    "no loop": {"gain": 0.0},
    "strong loop": {"gain": 3.0},
    "slow": {"r": 1.5},
    "logistic": {"rho": "logistic", "start": "random", "seed": 3},
    "saturated": {"start": "saturated"},
    "tanh": {"rho": "shifted_tanh", "start": "saturated"},
    "no nudge": {"beta": 0.0},
    "negative nudge": {"beta": -0.5},
    "one phase": {"nudged": 0.0},
    "drawing": {"drawing": PAD, "label": "2"},
    "drawing of nothing": {"drawing": PAD},
    "dopri5": {"integrator": "dopri5", "dt": 0.7},
    "uneven": {"free": 7.0, "nudged": 3.0, "dt": 0.13},
    "two units": {"plane": "two units", "unit_x": 3, "unit_y": 85},
}


class Never(dict):
    """Threads that were started already, whichever is asked for."""

    def __contains__(self, name: object) -> bool:
        return True


def uncompiled(session: Session) -> Model:
    """A model whose kernels never become ready."""
    return Model(session, ready=set(), compiling=Never())


EACH_SETTING = pytest.mark.parametrize("given", SETTINGS.values(), ids=SETTINGS)


@EACH_SETTING
def test_copied_code_makes_the_same_path(model: Model, given: dict) -> None:
    frame = model.frame(given)
    names: dict = {}
    exec(compile(frame.readouts["code"], "copied", "exec"), names)
    path = names["path"]
    np.testing.assert_array_equal(frame["times"], path.times.astype(np.float32))
    np.testing.assert_allclose(frame["output"], path.rates[-1][:, 0], atol=1e-6)
    np.testing.assert_allclose(frame["rates"], np.concatenate([r[:, 0] for r in path.rates], axis=1), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(frame["norms"], axis=1), path.residual[:, 0], rtol=1e-3, atol=1e-6)


@EACH_SETTING
def test_numpy_and_compiled_code_agree(model: Model, given: dict) -> None:
    compiled, plain = model.frame(given), uncompiled(model.session).frame(given)
    assert [entry[:2] for entry in compiled.layout] == [entry[:2] for entry in plain.layout]
    for name in ("output", "equilibria", "eigen_free", "update_0", "norms"):
        np.testing.assert_allclose(compiled[name], plain[name], rtol=2e-3, atol=2e-5)
    assert compiled.readouts["prediction_free"] == plain.readouts["prediction_free"]


@EACH_SETTING
def test_what_is_sent_is_plain_and_small(model: Model, given: dict) -> None:
    frame = model.frame(given)
    assert json.loads(json.dumps(frame.readouts, allow_nan=False)) is not None
    assert sum(int(np.prod(shape)) for _, shape, _ in frame.layout) * 4 == len(frame.buffer) < 400_000
    assert len(frame["times"]) <= 165
    assert frame["rates"].shape[1] == sum(layer["shown"] for layer in model.about["layers"])
    json.dumps([model.about, model.controls, model.defaults], allow_nan=False)


@pytest.mark.parametrize("given", [{}, {"gain": 2.0}, {"rho": "logistic"}, {"beta": -0.5, "sample": 9}], ids=str)
def test_equilibrium_spectrum_and_update_are_those_of_the_library(model: Model, given: dict) -> None:
    frame, seen = model.frame(given), model.trial(given)
    network, images = seen.network, seen.images
    nudge = fsp.Nudge(given.get("beta", 1.0), seen.target)
    free = fsp.relax(network, images)
    nudged = fsp.relax(network, images, nudge=nudge, start=free)
    equilibria = np.stack([flatten(free.state)[0], flatten(nudged.state)[0]])
    moved = np.concatenate([s[:, 0] for s in model.path(given).states], axis=1)
    _, _, axes = np.linalg.svd(moved - moved.mean(0))
    np.testing.assert_allclose(
        np.abs(frame["equilibria"]), np.abs((equilibria - moved.mean(0)) @ axes[:2].T), atol=1e-5
    )

    values = spectrum(network, images, free, method="dense").values[0]
    found = frame["eigen_free"] @ (1, 1j)
    assert all(np.abs(found - value).min() < 1e-5 for value in values)
    assert all(np.abs(values - value).min() < 1e-5 for value in found)
    assert frame.readouts["abscissa_free"] == pytest.approx(values.real.max(), abs=1e-8)

    update = fsp.hebbian_update(network, images, free, nudged).parameters()
    gradient = true_gradient(network, images, seen.target, free).parameters()
    for i, entry in enumerate(frame.readouts["updates"]):
        assert entry["degrees"] == pytest.approx(angle(update[entry["name"]], gradient[entry["name"]]), abs=1e-3)
        assert entry["norm"] == pytest.approx(np.linalg.norm(update[entry["name"]]), rel=1e-6)
        assert frame[f"update_{i}"].sum() != 0


def test_the_loop_at_zero_is_a_feedforward_network(model: Model) -> None:
    seen, frame = model.trial({"gain": 0.0}), model.frame({"gain": 0.0})
    rates = np.clip(seen.images @ seen.network.input, 0, 1)
    for w in seen.network.forward:
        rates = np.clip(rates @ w, 0, 1)
    border = np.flatnonzero(frame["phase"] == 0)[-1]
    np.testing.assert_allclose(frame["output"][border], rates[0], atol=1e-6)
    assert [each["degrees"] for each in frame.readouts["alignment"]] == [None] * 3


def test_settle_time_is_the_last_time_above_the_tolerance(model: Model) -> None:
    frame, path = model.frame({"nudged": 30.0}), model.path({"nudged": 30.0})
    for piece, name in ((0, "free"), (1, "nudged")):
        inside = path.phase == piece
        above = path.times[inside][path.residual[inside, 0] > frame.readouts["tolerance"]]
        after = path.times[inside & (path.times > above[-1])][0]
        assert frame.readouts[f"settle_{name}"] == pytest.approx(after - path.borders[piece])
    assert model.frame({"free": 2.0}).readouts["settle_free"] is None


@pytest.mark.parametrize("integrator", ["euler", "heun", "rk4", "bosh3", "dopri5"])
def test_the_marked_limit_of_dt_is_that_of_stability(model: Model, integrator: str) -> None:
    given = {"integrator": integrator, "free": 60.0, "gain": 2.0, "nudged": 0.0}
    limit = model.frame(given).readouts["limits"]["dt"]["above"]
    assert model.frame({**given, "dt": 0.6 * limit}).readouts["status_free"] == "converged"
    lost = model.frame({**given, "dt": 1.2 * limit, "start": "random"})
    assert lost.readouts["status_free"] != "converged"
    assert "the stability limit of" in lost.readouts["text"]
    # the equilibrium is the same
    assert lost.readouts["limits"]["dt"]["above"] == pytest.approx(limit, rel=1e-6)


def test_the_region_is_that_of_the_step(model: Model) -> None:
    frame = model.frame({"integrator": "euler", "dt": 0.5})
    x0, x1, y0, y1 = frame["window"]
    x, y = np.linspace(x0, x1, views.REGION), np.linspace(y0, y1, views.REGION)
    np.testing.assert_allclose(frame["region"], np.abs(1 + 0.5 * (x + 1j * y[:, None])), rtol=1e-5)
    points = np.concatenate([frame["eigen_free"], frame["eigen_nudged"]])
    assert ((points > (x0, y0)) & (points < (x1, y1))).all()


def test_the_flow_vanishes_at_the_equilibrium(model: Model) -> None:
    given = {"plane": "two units", "unit_x": 2, "unit_y": 60}
    frame = model.frame(given)
    for name, row in (("flow_free", 0), ("flow_nudged", 1)):
        for c in (0, 1):
            i = np.abs(frame["grid_y"] - frame["equilibria"][row, 1]).argmin()
            j = np.abs(frame["grid_x"] - frame["equilibria"][row, 0]).argmin()
            spacing = max(np.diff(frame["grid_x"])[0], np.diff(frame["grid_y"])[0])
            assert abs(frame[name][c, i, j]) < 2 * spacing
            assert np.abs(frame[name][c]).max() > 5 * spacing
    assert frame.readouts["plane"] == {"x": "state of hidden 1, unit 2", "y": "state of hidden 2, unit 12"}


def test_pictures_of_updates_are_means_of_blocks() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(100, 7))
    picture = views.picture(matrix)
    edges = np.linspace(0, 100, views.BLOCKS + 1).round().astype(int)
    np.testing.assert_allclose(picture, [matrix[a:b].mean(0) for a, b in itertools.pairwise(edges)])
    np.testing.assert_array_equal(views.picture(matrix[:5]), matrix[:5])
    assert picture.shape == views.picture_shape(matrix)


def test_one_update_is_one_step_of_the_optimiser(model: Model) -> None:
    given = {"sample": 4, "gain": 1.5, "learning_rate": 0.5}
    seen, session = model.trial(given), model.session
    before = session.weights(model.parameters(given))[0].copy()
    free = fsp.relax(seen.network, seen.images)
    nudged = fsp.relax(seen.network, seen.images, nudge=fsp.Nudge(1.0, seen.target), start=free)
    rates = session.optimiser.rates
    factor = 0.5 / session.batch
    smaller = dataclasses.replace(
        rates, input=factor * rates.input, forward=tuple(factor * r for r in rates.forward), loop=factor * rates.loop
    )
    expected = before.copy()
    step = dataclasses.replace(session.optimiser, rates=smaller)
    step.step(
        expected, {}, HEBBIAN, seen.images, Phases(1.0, free, np.arange(1), nudged), float((seen.images**2).sum()), 0
    )

    first = model.frame(given).readouts
    model.learn(given)
    after = session.weights(model.parameters(given))[0]
    for name, w in expected.parameters().items():
        np.testing.assert_allclose(after.parameters()[name], w, atol=1e-7)
        assert name.startswith("biases") or (after.parameters()[name] != before.parameters()[name]).any()
    second = model.frame(given).readouts
    assert (first["learned"], second["learned"]) == (0, 1)
    assert second["margin_free"] > first["margin_free"]
    assert model.frame({**given, "seed": 1}).readouts["learned"] == 0, "other weights have learned nothing"
    model.forget(given)
    assert model.frame(given).readouts | {"milliseconds": 0} == first | {"milliseconds": 0}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"beta": 0.0}, "a beta other than 0"),
        ({"drawing": PAD}, "a class for the drawing"),
        ({"gain": 10.0, "seed": 5}, "has no equilibrium"),
    ],
    ids=["no nudge", "no target", "no equilibrium"],
)
def test_a_missing_update_is_explained(model: Model, given: dict, why: str) -> None:
    if "gain" in given:  # a loop that oscillates
        network = model.session.template
        ring = np.zeros((10, 48)), np.zeros((48, 32)), np.zeros((32, 10))
        for w in ring:
            w[0, 0] = 2.5
        ring[0][0, 0] = -2.5
        loop = dataclasses.replace(
            network.astype(np.float64), loop=ring[0], forward=ring[1:], input=np.full((64, 48), 0.03), rho=network.rho
        )
        model, given = Model(Session.of(loop)), {}
    frame = model.frame(given)
    assert why in frame.readouts["text"]
    assert [each["degrees"] for each in frame.readouts["updates"]] == [None] * 4
    with pytest.raises(ConfigurationError, match=why):
        model.learn(given)


def test_a_run_is_scrubbed_through(explored_run) -> None:
    model = Model(Session.of(explored_run))
    assert set(explored_run.kept) == {0, 2, 4} <= set(model.session.epochs)
    (slider,) = [control for control in model.controls if control["name"] == "epoch"]
    assert (slider["low"], slider["high"], slider["default"]) == (0, 5, explored_run.summary["best"]["epoch"])
    for epoch in model.session.epochs:
        frame = model.frame({"epoch": epoch})
        assert frame.readouts["parameters"]["epoch"] == epoch
        which = "last" if epoch == 5 and epoch not in explored_run.kept else epoch
        network = explored_run.network(which)
        np.testing.assert_array_equal(model.network({"epoch": epoch}).loop, network.loop.astype(np.float64))
        angles = fsp.loop_alignment(network).degrees
        assert {each["label"]: each["degrees"] for each in frame.readouts["alignment"]} == pytest.approx(
            angles, abs=1e-4
        )
    assert model.frame({"epoch": 1}).readouts["parameters"]["epoch"] in model.session.epochs
    history = model.frame({})["history"]
    assert history[:, 0].tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(
        history[:, 3], [record["alignment_degrees"]["loop"] for record in explored_run.metrics], rtol=1e-6
    )
    assert len(model.frame({"source": RANDOM})["history"]) == 0
    names: dict = {}
    frame = model.frame({"epoch": 2, "sample": 3})
    exec(compile(frame.readouts["code"], "copied", "exec"), names)
    np.testing.assert_allclose(frame["output"], names["path"].rates[-1][:, 0], atol=1e-6)


def test_a_run_is_found_by_its_folder(explored_run) -> None:
    assert Session.of(str(explored_run.folder)).source == TRAINED
    assert Session.of(explored_run.folder).optimiser == Session.of(explored_run).optimiser


def test_a_given_network(explored_run) -> None:
    own = Activation(
        "own", lambda s: s * ((s > 0) & (s < 1)) + (s >= 1), lambda s: ((s >= 0) & (s <= 1)) + 0 * s, projected=True
    )
    network = fsp.loop_network([64, 12, 10], rho=own, loop_scale=0.2, rng=2)
    model = Model(Session.of(network))
    assert model.defaults["rho"] == "own"
    standard = Model(Session.of(dataclasses.replace(network, rho="hard_sigmoid")))
    np.testing.assert_allclose(model.frame({})["output"], standard.frame({})["output"], atol=1e-6)


@pytest.mark.parametrize("tied", [True, False])
def test_a_reciprocal_network_has_no_dials(tied: bool) -> None:
    model = Model(Session.of(fsp.reciprocal_network([64, 12, 8, 10], tied=tied, rng=0)))
    assert "gain" not in model.defaults
    frame = model.frame({})
    assert frame.readouts["alignment"] == []
    assert len(frame.readouts["updates"]) == (3 if tied else 5)
    names: dict = {"network": model.session.template}
    exec(compile(frame.readouts["code"], "copied", "exec"), names)
    np.testing.assert_allclose(frame["output"], names["path"].rates[-1][:, 0], atol=1e-6)
    model.learn({})
    assert model.frame({}).readouts["learned"] == 1


@pytest.mark.parametrize("name", ["gain", "beta", "dt", "sample", "seed"])
def test_a_sweep_agrees_with_frames(model: Model, name: str) -> None:
    pieces = [model.sweep({"free": 10.0}, name, piece) for piece in range(PIECES)]
    values = np.concatenate([piece["values"] for piece in pieces])
    (control,) = [control for control in model.controls if control["name"] == name]
    assert (np.diff(values) > 0).all()
    assert (values[0], values[-1]) == pytest.approx((control["low"], control["high"]))
    piece = pieces[4]
    value = float(piece["values"][1])
    frame = model.frame({"free": 10.0, name: int(value) if control["integer"] else value})
    phase = "nudged" if name == "beta" else "free"
    assert piece.readouts["phase"] == phase
    assert piece["abscissa"][1] == pytest.approx(frame.readouts[f"abscissa_{phase}"], rel=1e-4)
    settle = frame.readouts[f"settle_{phase}"]
    assert piece["settle"][1] == pytest.approx(np.nan if settle is None else settle, nan_ok=True, rel=1e-5)
    network = model.network({name: frame.readouts["parameters"][name]})
    nudge = fsp.Nudge(value, frame["target"][None]) if name == "beta" else None
    equilibrium = fsp.relax(network, frame["image"][None], nudge=nudge)
    np.testing.assert_allclose(piece["rates"][1], equilibrium.output[0], atol=1e-5)


def test_impossible_values_are_gaps_in_a_sweep(model: Model) -> None:
    pieces = [model.sweep({"r": 2.0}, "beta", piece) for piece in range(PIECES)]
    values, abscissa = (np.concatenate([piece[name] for piece in pieces]) for name in ("values", "abscissa"))
    np.testing.assert_array_equal(np.isnan(abscissa), values <= -0.5)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"betta": 1.0}, "no parameter 'betta' here; did you mean 'beta'"),
        ({"beta": 3.0}, r"beta = 3.0, expected -0.9 to 2"),
        ({"beta": -0.9, "r": 2.0}, r"beta = -0.9, expected above -0.5"),
        ({"dt": "fast"}, "dt = 'fast', expected a finite number"),
        ({"dt": float("nan")}, "dt = nan, expected a finite number"),
        ({"sample": 1.5}, "sample = 1.5, expected a whole number"),
        ({"sample": True}, "sample = True, expected a whole number"),
        ({"integrator": "rk5"}, "integrator = 'rk5' is unknown; did you mean 'rk4'"),
        ({"drawing": [0.5] * 63}, r"drawing has shape \(63,\), expected 64 pixels"),
        ({"drawing": [2.0] * 64}, "expected 64 pixels in"),
        ({"epoch": 3}, "no parameter 'epoch' here"),
    ],
)
def test_invalid_values_are_refused(model: Model, given: dict, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        model.frame(given)


@pytest.mark.parametrize(
    ("given", "dataset", "complaint"),
    [
        (fsp.loop_network([65, 5, 10], rng=0), None, "the network is 65 - 10, expected 64 pixels and 10 classes"),
        (fsp.loop_network([64, 5, 3], rng=0), "digits", "64 - 3, expected 64"),
        (3, None, "explore was given a int"),
        ("nowhere", None, "nowhere is no folder"),
    ],
)
def test_what_does_not_fit_is_refused(given, dataset, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Session.of(given, dataset)


def test_a_sample_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="sample = 400, expected 0 to 399"):
        Model(Session.of(None), 400)


def test_every_parameter_has_one_control(explored_run) -> None:
    names = [control.name for control in controls_of(Session.of(explored_run))]
    assert sorted(names) == sorted(field.name for field in dataclasses.fields(Parameters))


def test_images_in_colour_are_three_planes_that_nobody_draws_on() -> None:
    rng = np.random.default_rng(0)
    data = fsp.dataset_from_arrays(rng.random((30, 3, 4, 4)), np.arange(30) % 3)
    coloured = Model(Session.of(fsp.loop_network([48, 5, 3], rng=0), data))
    assert (coloured.about["side"], coloured.about["coloured"]) == (4, True)
    np.testing.assert_array_equal(coloured.frame({"sample": 2})["image"], data.test.images[2])
    grey = Model(Session.of(None))
    assert (grey.about["side"], grey.about["coloured"]) == (8, False)
    drawn = {control["name"] for control in grey.controls} - {control["name"] for control in coloured.controls}
    assert drawn >= {"drawing"}


def test_samples_of_a_class_end_where_the_class_ends(model: Model) -> None:
    frame = model.frame({"label": "3", "sample": 399})
    threes = np.flatnonzero(model.session.data.test.labels == 3)
    assert frame.readouts["samples"] == len(threes)
    assert frame.readouts["parameters"]["sample"] == len(threes) - 1
    np.testing.assert_array_equal(frame["image"], model.session.images[threes[-1]])


def test_no_frame_waits_for_the_compiler(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the kernels of a firing-rate function are ready NumPy follows the path; each is
    compiled once, on a thread of its own.
    """
    used: list[str] = []
    for kind in (trial.NumbaSolver, trial.ReferenceSolver):
        original = kind.follow
        monkeypatch.setattr(
            kind,
            "follow",
            lambda self, *given, follow=original: used.append(type(self).__name__) or follow(self, *given),
        )
    waiting, go = Model(model.session, ready=set()), threading.Event()
    original_compile = Model._compile
    monkeypatch.setattr(Model, "_compile", lambda self, network: go.wait(60) and original_compile(self, network))
    for _ in range(2):
        frame = waiting.frame({"rho": "logistic"})
    assert list(waiting.compiling) == ["logistic"]
    assert set(used) == {"ReferenceSolver"}
    go.set()
    waiting.compiling["logistic"].join(300)
    assert waiting.ready == {"logistic"}
    used.clear()
    np.testing.assert_allclose(waiting.frame({"rho": "logistic"})["output"], frame["output"], atol=1e-5)
    assert set(used) == {"NumbaSolver"}


def test_a_frame_gives_back_what_was_packed() -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "none": np.empty((0, 4)), "b": np.array([1e300, np.nan])}
    frame = Frame.of(arrays, {})
    np.testing.assert_array_equal(frame["a"], arrays["a"])
    assert frame["none"].shape == (0, 4)
    np.testing.assert_array_equal(frame["b"], [np.inf, np.nan])
    with pytest.raises(KeyError):
        frame["c"]


def test_the_netcdf_holds_the_path(model: Model) -> None:
    from fsp_dynamics.explorer.replies import respond

    reply, (content,) = respond(model, {"kind": "netcdf", "id": 3, "parameters": {"gain": 2.0}})
    assert reply == {"kind": "netcdf", "id": 3, "name": "path.nc"}
    with xarray.open_dataset(io.BytesIO(content)) as table:
        np.testing.assert_allclose(table["rate_output"][:, 0], model.path({"gain": 2.0}).rates[-1][:, 0])


def test_norms_hold_in_each_phase(model: Model) -> None:
    seen, path, frame = model.trial({}), model.path({}), model.frame({})
    drive = rate.drive(seen.network, seen.images)
    for t in (0, 40, len(path.times) - 1):
        nudge = seen.nudge if path.phase[t] else None
        field = rate.rate_field(seen.network, drive, tuple(s[t] for s in path.states), nudge)
        way = [np.linalg.norm(f) / k for f, k in zip(field, rate.decay_rates(seen.network, nudge), strict=True)]
        np.testing.assert_allclose(frame["norms"][t], way, rtol=1e-5, atol=1e-7)
