"""Your own data, network, rule, firing rate and callbacks in one call, and what a run folder can
and cannot read back of them.
"""

from __future__ import annotations

import gzip
import json
import struct
import sys

import numpy as np
import pytest

import fsp_dynamics as fsp
from fsp_dynamics.cli import main
from fsp_dynamics.errors import ConfigurationError, DatasetError, ShapeError
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.experiments.objects import rule_text
from fsp_dynamics.experiments.overview import compare_runs, list_runs
from fsp_dynamics.experiments.runner import train
from fsp_dynamics.learning.rules import RULES, Term
from fsp_dynamics.learning.rules.hebbian import contrastive_terms
from fsp_dynamics.learning.rules.update import rule_update
from fsp_dynamics.models.activations import Activation

pytestmark = pytest.mark.filterwarnings("ignore:.*(output|no compiled engine|given in Python|no import path|shuffled)")
SMALL = {"data.limit": 60, "probes.samples": 0}
OWN = '''
import numpy as np
import fsp_dynamics as fsp
from fsp_dynamics.learning.rules.hebbian import contrastive_terms
from fsp_dynamics.models.activations import Activation

class Halved(fsp.Rule):
    """Eq. 14, half as fast."""
    name = "halved"
    def terms(self, network, images, contrast):
        for term in contrastive_terms(network, images, contrast.free, contrast.change):
            yield term._replace(post=term.post / 2)

def rate(s):
    return s / (1 + abs(s))

def slope(s):
    return 1 / (1 + abs(s)) ** 2

soft = Activation("soft", rate, slope, projected=False)
'''


class Registered(fsp.Rule):
    """A rule with a setting."""

    name = "halved"

    def __init__(self, factor=0.5):
        self.factor = factor

    def terms(self, network, images, contrast):
        for term in contrastive_terms(network, images, contrast.free, contrast.change):
            yield term._replace(post=term.post * self.factor)


def local_rule():
    """The rule of OWN, as no other process finds it."""

    class Halved(fsp.Rule):
        name = "halved"

        def terms(self, network, images, contrast):
            for term in contrastive_terms(network, images, contrast.free, contrast.change):
                yield term._replace(post=term.post / 2)

    return Halved


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A module `own_parts` on the path, as an installed one would be."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "own_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    yield "own_parts"
    sys.modules.pop("own_parts", None)


@pytest.fixture
def blobs():
    """120 images of 12 pixels in 5 classes, which anything learns."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 5
    images = np.clip(0.7 * np.eye(5, 12)[labels] + 0.2 * rng.random((120, 12)), 0, 1)
    return fsp.dataset_from_arrays(images, labels, images[:40], labels[:40], validation=20)


def quietly(*source, **options):
    return train(*source, progress=False, threads=1, **options)


def same(run, other):
    pairs = zip(run.network("last").parameters().values(), other.network("last").parameters().values(), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


def test_own_data_with_what_is_not_given_from_digits(blobs, tmp_path) -> None:
    run = quietly(data=blobs, epochs=15, out=tmp_path / "a", **{"network.hidden": [12, 8]})
    assert run.metrics[-1]["test_error"] < 40, "chance is 80"
    assert run.network("last").sizes == (12, 12, 8, 5)
    assert run.config.learning.rates.forward == (30.0, 7.0)


def test_rates_are_fitted_to_the_depth(blobs, tmp_path) -> None:
    network = fsp.loop_network([12, 9, 8, 7, 5], loop_scale=0.2, rng=0)
    run = quietly(data=blobs, network=network, epochs=1, out=tmp_path / "a")
    assert run.config.learning.rates.forward == (30.0, 30.0, 7.0)
    reciprocal = fsp.reciprocal_network([12, 9, 5], tied=False, rng=0)
    found = quietly(data=blobs, network=reciprocal, epochs=1, out=tmp_path / "b").config
    assert (found.network.kind, found.learning.rates.backward, found.learning.rates.loop) == ("reciprocal", (7.0,), 0.0)


def test_a_run_of_own_parts_goes_on_to_the_same_bits(blobs, tmp_path) -> None:
    network = fsp.loop_network([12, 9, 5], loop_scale=0.2, rng=5)
    own = {"data": blobs, "rule": local_rule()(), "progress": False, "threads": 1}
    whole = train(network=network, epochs=3, out=tmp_path / "whole", **own)
    quietly(network=network, data=blobs, rule=local_rule()(), epochs=1, out=tmp_path / "a")
    run = train(tmp_path / "a", resume=True, epochs=3, **own)  # the network is in the checkpoint
    assert same(run, whole)
    assert np.array_equal(fsp.open_run(tmp_path / "a").network(0).input, network.input)


def test_given_weights_are_where_training_begins_and_stay_as_they_are(blobs, tmp_path) -> None:
    network = fsp.loop_network([12, 9, 5], rng=5)
    before = {name: w.copy() for name, w in network.parameters().items()}
    run = quietly(data=blobs, network=network, epochs=1, out=tmp_path / "a", **{"probes.keep": 1})
    for name, w in before.items():
        assert np.array_equal(run.network(0).parameters()[name], w)
        assert np.array_equal(network.parameters()[name], w)
    other = quietly(data=blobs, network=fsp.loop_network([12, 9, 5], rng=6), epochs=1, out=tmp_path / "b")
    assert "network.initial" in compare_runs(run.folder, other.folder)["configuration"]
    with pytest.raises(
        ConfigurationError, match=r"network\.initial = 'sha256:.*' stands for a network given in Python"
    ):
        quietly(run.config, data=blobs, out=tmp_path / "c")


def test_what_cannot_be_read_back_is_reported_listed_and_refused(blobs, tmp_path) -> None:
    rule = local_rule()
    with pytest.warns(
        UserWarning, match=r"learning\.rule: .*no import path leads back to it.*listed and compared"
    ) as seen:
        run = quietly(data=blobs, rule=rule, epochs=1, out=tmp_path / "a", **{"network.hidden": 6})
    assert any("data.name: the images were given in Python" in str(w.message) for w in seen)
    (listed,) = list_runs(tmp_path)
    assert (listed["data"], listed["status"]) == ("arrays", "finished")
    again = fsp.open_run(run.folder)
    assert again.metrics == run.metrics
    assert len(again.to_frame()) == 1
    with pytest.raises(
        ConfigurationError, match=r"given in Python.*in Python, give it again \(data=\.\.\.\) to train or open_run"
    ):
        again.evaluate()
    with pytest.raises(ConfigurationError, match=r"give it again \(rule=\.\.\.\)"):
        fsp.open_run(run.folder, data=blobs).evaluate()
    assert fsp.open_run(run.folder, data=blobs, rule=rule).evaluate().error == run.evaluate().error


def test_parts_of_one_name_are_not_taken_for_each_other(tmp_path) -> None:
    """Data, rule and firing rate may all be called the same; each is reported and read back."""
    rng = np.random.default_rng(0)
    data = fsp.dataset_from_arrays(rng.random((30, 4)), np.arange(30) % 3, name="mine")

    class Mine(fsp.Rule):
        name = "mine"

        def terms(self, network, images, contrast):
            yield from contrastive_terms(network, images, contrast.free, contrast.change)

    known = fsp.models.activations.ACTIVATIONS["logistic"]
    rho = Activation("mine", lambda s: known.rate(s), lambda s: known.slope(s), curvature=lambda s: known.curvature(s))
    parts = {"data": data, "rule": Mine(), "activation": rho}
    reference = {"solver.name": "reference", "network.hidden": [4], "probes.samples": 0}
    with pytest.warns(UserWarning, match="given in Python") as noted:
        quietly(**parts, out=tmp_path / "run", epochs=1, **reference)
    told = " ".join(str(each.message) for each in noted)
    assert all(key in told for key in ("data.name:", "learning.rule:", "network.rho:"))
    again = quietly(tmp_path / "run", **parts, resume=True, epochs=2)
    assert [record["epoch"] for record in again.metrics] == [1, 2]
    assert fsp.open_run(tmp_path / "run", **parts).evaluate("test").error == again.metrics[1]["test_error"]


def test_other_images_are_refused_when_a_run_is_resumed(blobs, tmp_path) -> None:
    quietly(data=blobs, epochs=1, out=tmp_path / "a", **{"network.hidden": 6})
    other = fsp.dataset_from_arrays(
        blobs.train.images * 0.5, blobs.train.labels, blobs.test.images, blobs.test.labels, validation=20
    )
    with pytest.raises(DatasetError):
        quietly(tmp_path / "a", data=other, epochs=2, resume=True)


def test_own_rule_and_firing_rate_by_import_path(own_module, tmp_path) -> None:
    """What a TOML file names is imported; what a run folder names only where that is allowed."""
    file = tmp_path / "mine.toml"
    file.write_text(
        "[data]\nname = 'digits'\nlimit = 60\n[network]\nhidden = [8]\nrho = 'own_parts:soft'\nloop_scale = 0.2\n"
        "[learning]\nepochs = 1\nrule = 'own_parts:Halved'\n[learning.rates]\ninput = 20.0\nforward = [7.0]\n"
        "[probes]\nsamples = 0\n"
    )
    run = quietly(file, out=tmp_path / "a")
    assert run.network("last").rho.name == "soft"
    stored = fsp.open_run(tmp_path / "a")
    assert stored.metrics == run.metrics
    with pytest.raises(ConfigurationError, match=r"would import the module own_parts, which was not allowed"):
        stored.network("last")
    with pytest.raises(ConfigurationError, match="not allowed"):
        quietly(tmp_path / "a", epochs=2, resume=True)
    with pytest.raises(ConfigurationError, match="not allowed"):  # the same file, by its own name
        quietly(tmp_path / "a" / "config.toml", out=tmp_path / "b")
    allowed = fsp.open_run(tmp_path / "a", allow_import=["own_parts"])
    assert np.isfinite(allowed.evaluate().error)
    assert len(quietly(tmp_path / "a", epochs=2, resume=True, allow_import=["own_parts"]).metrics) == 2


def test_what_an_argument_names_is_imported_beside_a_run_too(own_module, tmp_path) -> None:
    quietly("digits", epochs=1, out=tmp_path / "a", **SMALL)
    run = quietly(tmp_path / "a", rule=f"{own_module}:Halved", out=tmp_path / "b")
    assert run.config.learning.rule == f"{own_module}:Halved"
    with pytest.raises(ConfigurationError, match="which was not allowed"):
        quietly(tmp_path / "b", out=tmp_path / "c")


def test_objects_of_a_module_are_written_as_import_paths(own_module, tmp_path) -> None:
    import own_parts

    run = quietly(rule=own_parts.Halved, activation=own_parts.soft, epochs=1, out=tmp_path / "a", **SMALL)
    assert (run.config.learning.rule, run.config.network.rho) == ("own_parts:Halved", "own_parts:soft")
    by_object = quietly(rule=own_parts.Halved(), activation=own_parts.soft, epochs=1, out=tmp_path / "b", **SMALL)
    assert by_object.config.learning.rule == "own_parts:Halved"
    assert quietly(rule="products", epochs=1, out=tmp_path / "c", **SMALL).config.learning.rule == "products"


def test_the_current_folder_is_not_searched(tmp_path, monkeypatch) -> None:
    (tmp_path / "lies_here.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(ConfigurationError, match=r"there is no module lies_here.*current folder is not searched"):
        quietly("digits", rule="lies_here:Halved", epochs=1, out=tmp_path / "a", **SMALL)
    assert not (tmp_path / "a").exists()


def test_callbacks_end_a_run_early_and_it_stays_ended(tmp_path) -> None:
    seen = []

    def third(record, network):
        seen.append((record["epoch"], network.sizes))
        return record["epoch"] < 3

    run = quietly("digits", epochs=6, callbacks=[third], out=tmp_path / "a", **SMALL)
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    assert (run.summary["status"], len(run.metrics)) == ("finished early", 3)
    assert "third returned False" in run.summary["reason"]
    assert list_runs(tmp_path)[0]["status"] == "finished early"

    def raises(record, network):
        raise fsp.StopTraining("enough")

    run = quietly("digits", epochs=6, callbacks=[raises], out=tmp_path / "b", **SMALL)
    assert (run.summary["reason"], len(run.metrics)) == ("enough", 1)


def test_patience_is_a_key_of_the_configuration(tmp_path) -> None:
    """The run ends after `patience` epochs without a lower validation error, and again where it is
    resumed.
    """
    frozen = {**SMALL, "learning.patience": 2, "learning.rates": {"input": 0.0, "forward": [0.0, 0.0], "loop": 0.0}}
    run = quietly("digits", epochs=9, out=tmp_path / "a", **frozen)
    assert (run.summary["status"], len(run.metrics)) == ("finished early", 3)
    assert "patience 2" in run.summary["reason"]
    resumed = quietly(tmp_path / "a", resume=True)
    assert (resumed.summary["status"], len(resumed.metrics)) == ("finished early", 3)
    with pytest.raises(ConfigurationError, match=r"learning\.patience = 2, but data\.validation = 0"):
        load_config("digits", {"learning.patience": 2, "data.validation": 0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": 3}, "network is of type int, expected a Network"),
        ({"data": 3.5}, r"data is of type float, expected a Dataset"),
        ({"rule": "hebian"}, "did you mean 'hebbian'"),
        ({"rule": 3}, "rule is of type int, expected an object or class with the methods of"),
        ({"rule": "json:JSONDecoder"}, "is the class JSONDecoder, expected a rule"),
        ({"activation": 3}, "activation is of type int, expected an Activation"),
        ({"callbacks": print}, r"callbacks = <built-in function print>, expected a list of functions"),
        ({"data": "mnsit"}, r"data = 'mnsit' is neither a data set nor a path here; did you mean 'mnist'"),
        ({"activation": "logistik"}, "did you mean 'logistic'"),
        ({"callbacks": [3]}, "callbacks holds 3"),
        ({"data": "no/such/folder"}, "no/such/folder"),
        ({"data": "mnits"}, "data = 'mnits' is neither a data set nor a path here; did you mean 'mnist'"),
        ({"rule": 3}, r"rule is of type int, expected an object"),
        ({"rule": dict}, "rule is of type type, expected an object"),
        ({"rule": lambda network, images, contrast: []}, "rule is of type function"),
        ({"rule": "own_parts.Halved"}, r"expected the form package\.module:name, with a colon"),
        ({"rule": type("NoTerms", (fsp.Rule,), {"name": "x"})}, "the rule NoTerms has no terms"),
        ({"rule": type("NoName", (fsp.Rule,), {"terms": lambda *given: []})}, "the rule NoName has no name"),
        ({"rule": type("Needs", (fsp.Rule,), {"__init__": lambda self, a: None})}, "Needs"),
        ({"activation": np.tanh}, "activation is of type ufunc, expected an Activation"),
        ({"activation": Activation("bare", np.tanh, np.cos)}, "curvature"),
        ({"callbacks": lambda record, network: True}, "expected a list of functions"),
        ({"beta": 0.1}, "did you mean 'learning.beta'"),
    ],
)
def test_refusals(options, message, tmp_path) -> None:
    with pytest.raises((ConfigurationError, DatasetError), match=message):
        quietly(out=tmp_path / "a", epochs=1, **options)
    assert not (tmp_path / "a").exists()


def test_terms_that_do_not_fit_are_refused(tmp_path) -> None:
    network = fsp.loop_network([3, 4, 2], rng=0)
    images, targets = np.ones((2, 3)) / 2, np.eye(2)
    free = fsp.relax(network, images)
    nudged = fsp.relax(network, images, nudge=fsp.Nudge(0.5, targets), start=free)

    def rule(parameter, wide):
        class Odd(fsp.Rule):
            name = "odd"

            def terms(self, network, images, contrast):
                yield Term(parameter, contrast.free[wide], contrast.change[0])

        return Odd()

    rule_update(rule("loop", 1), network, images, free, nudged)
    with pytest.raises(
        ConfigurationError, match=r"rule 'odd' has a term for 'loops', which the network does not have; did you mean"
    ):
        rule_update(rule("loops", 1), network, images, free, nudged)
    with pytest.raises(ShapeError, match=r"rule 'odd': .* 4 and 4 units, but loop has the shape \(2, 4\)"):
        rule_update(rule("loop", 0), network, images, free, nudged)


def test_data_given_again_are_those_of_the_run(blobs, tmp_path) -> None:
    quietly(data=blobs, epochs=1, out=tmp_path / "a", **{"network.hidden": 6})
    other = fsp.dataset_from_arrays(
        blobs.train.images * 0.5, blobs.train.labels, blobs.test.images, blobs.test.labels, validation=20
    )
    with pytest.raises(DatasetError, match="not the images the run began with"):
        fsp.open_run(tmp_path / "a", data=other)
    quietly("digits", epochs=1, out=tmp_path / "b", **SMALL)
    with pytest.raises(ConfigurationError, match="reads its own images, digits"):
        fsp.open_run(tmp_path / "b", data=blobs)


def test_notes_point_to_the_line_that_called_train(blobs, tmp_path) -> None:
    with pytest.warns(UserWarning, match="given in Python") as seen:
        quietly(data=blobs, epochs=1, out=tmp_path / "a", **{"network.hidden": 6})
    assert {warning.filename for warning in seen} == {__file__}


def test_network_and_activation_together_are_refused(tmp_path) -> None:
    network = fsp.loop_network([64, 8, 10], rng=0)
    with pytest.raises(ConfigurationError, match="activation beside network"):
        quietly(network=network, activation="logistic", out=tmp_path / "a")


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ({"network": fsp.loop_network([64, 8, 10], rng=0)}, "network.hidden", [9]),
        ({"network": fsp.loop_network([64, 8, 10], rng=0)}, "network.rho", "logistic"),
        ({"network": fsp.loop_network([64, 8, 10], rng=0)}, "network.dtype", "float64"),
        ({"activation": "logistic"}, "network.rho", "shifted_tanh"),
        ({"rule": "products"}, "learning.rule", "gradient"),
        ({"data": "digits"}, "data.path", "elsewhere"),
    ],
)
def test_a_key_beside_the_object_that_decides_it_is_refused(given, key, value, tmp_path) -> None:
    argument = next(iter(given))
    with pytest.raises(ConfigurationError, match=rf"{key} = .* beside {argument}, which decides it"):
        quietly(out=tmp_path / "a", **given, **{key: value})
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("sizes", [[13, 8, 5], [12, 8, 4]])
def test_a_network_for_other_data_is_refused_before_anything_is_written(sizes, blobs, tmp_path) -> None:
    with pytest.raises(ConfigurationError, match="12 pixels and 5 classes; give a network for these data"):
        quietly(data=blobs, network=fsp.loop_network(sizes, rng=0), out=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_network_may_have_more_outputs_than_there_are_classes(blobs, tmp_path) -> None:
    network = fsp.loop_network([12, 8, 7], loop_scale=0.2, rng=0)
    whole = quietly(data=blobs, network=network, epochs=2, out=tmp_path / "whole")
    quietly(data=blobs, network=network, epochs=1, out=tmp_path / "a")
    assert same(quietly(tmp_path / "a", data=blobs, resume=True, epochs=2), whole)


def test_a_rule_whose_class_needs_arguments_is_refused(tmp_path) -> None:
    class Scaled(local_rule()):
        def __init__(self, scale):
            self.scale = scale

    with pytest.raises(ConfigurationError, match=r"cannot be called without arguments \(.*scale.*give an object"):
        quietly(rule=Scaled, out=tmp_path / "a")
    assert quietly(rule=Scaled(2), epochs=1, out=tmp_path / "a", **SMALL).config.learning.rule == "given:halved"


def test_a_registered_rule_with_settings_of_its_own_is_not_read_back_without_them(monkeypatch) -> None:
    monkeypatch.setitem(RULES, "halved", f"{__name__}:Registered")
    assert rule_text(Registered()) == ("halved", None)
    assert rule_text(Registered) == ("halved", None)
    assert rule_text(Registered(3.0))[0] == "given:halved"


def test_probes_of_a_firing_rate_without_curvature_are_refused_before_anything_is_written(tmp_path) -> None:
    odd = Activation("odd", lambda s: s / (1 + abs(s)), lambda s: 1 / (1 + abs(s)) ** 2)
    with pytest.raises(ConfigurationError, match=r"has no curvature.*or probes\.samples = 0"):
        quietly(activation=odd, epochs=1, out=tmp_path / "a", **{"data.limit": 60})
    assert not (tmp_path / "a").exists()


def test_data_are_not_given_to_a_run_that_reads_its_own(blobs, tmp_path) -> None:
    quietly("digits", epochs=1, out=tmp_path / "a", **SMALL)
    with pytest.raises(ConfigurationError, match="reads its own images, digits; leave data out"):
        fsp.open_run(tmp_path / "a", data=blobs)


def test_a_file_of_another_name_and_place_is_the_same_data(blobs, tmp_path) -> None:
    np.savez(tmp_path / "a.npz", images=blobs.train.images, labels=blobs.train.labels)
    quietly(data=tmp_path / "a.npz", epochs=1, out=tmp_path / "run", **{"network.hidden": [6]})
    (tmp_path / "a.npz").rename(tmp_path / "b.npz")
    run = quietly(tmp_path / "run", data=tmp_path / "b.npz", epochs=2, resume=True)
    assert (len(run.metrics), run.config.data.path) == (2, str(tmp_path / "b.npz"))


def test_what_a_run_names_is_imported_for_a_sweep_or_a_figure_only_if_allowed(own_module, tmp_path, capsys) -> None:
    quietly("digits", rule=f"{own_module}:Halved", epochs=1, out=tmp_path / "a", **SMALL)
    run, out = str(tmp_path / "a"), str(tmp_path / "sweep")
    sys.modules.pop(own_module)
    assert main(["sweep", run, "--seeds", "1", "--out", out, "--no-progress"]) == 2
    assert f"give --allow-import {own_module}" in capsys.readouterr().err
    assert main(["figure", "errors", "--train", "--preset", run, "--runs", out, "--no-progress"]) == 2
    assert "is the folder of a run; expected a preset or a TOML file" in capsys.readouterr().err
    assert own_module not in sys.modules
    assert main(["sweep", run, "--seeds", "1", "--out", out, "--no-progress", "--allow-import", own_module]) == 0


def test_a_given_data_set_is_not_split_again(blobs, tmp_path) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.limit = 5 beside data"):
        quietly(data=blobs, out=tmp_path / "a", **{"data.limit": 5})


def write_idx(path, array):
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def letters(tmp_path):
    """IDX files as EMNIST letters have them: 26 classes, labels from 1."""
    rng, folder = np.random.default_rng(1), tmp_path / "letters"
    folder.mkdir()
    for part, count in (("train", 260), ("test", 52)):
        labels = np.arange(count) % 26
        images = np.clip(200 * np.eye(26, 36)[labels] + 40 * rng.random((count, 36)), 0, 255).reshape(count, 6, 6)
        write_idx(folder / f"emnist-letters-{part}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"emnist-letters-{part}-labels-idx1-ubyte.gz", labels + 1)
    return folder


LETTERS = """
[data]
path = "letters"
validation = 26
[network]
hidden = [40]
loop_scale = 0.2
[learning]
epochs = 2
[learning.rates]
input = 20.0
forward = [7.0]
[probes]
samples = 0
"""


def test_26_classes_from_the_command_line(letters, tmp_path, capsys) -> None:
    file = tmp_path / "MY.toml"
    file.write_text(LETTERS)
    assert main(["train", str(file), "--out", str(tmp_path / "a"), "--no-progress", "--json", "--threads", "1"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["epochs"] == 2
    environment = RunFolder(tmp_path / "a").read_json("environment.json")
    assert len(environment["data"]) == 4
    assert all(len(digest) == 64 for digest in environment["data"].values())
    assert fsp.open_run(tmp_path / "a").network("last").sizes == (36, 40, 26)
    assert main(["evaluate", str(tmp_path / "a"), "--threads", "1"]) == 0
    # another image set under the same path is not the run's
    write_idx(letters / "emnist-letters-train-labels-idx1-ubyte.gz", (np.arange(260) * 7) % 26 + 1)
    assert main(["train", str(tmp_path / "a"), "--resume", "--epochs", "3"]) == 3
    assert "emnist-letters-train-labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "data.name and data.path: neither of them given"),
        ('name = "digits"\npath = "letters"', "data.name and data.path: both given"),
        ('path = "nowhere"', "nowhere"),
        ('pat = "letters"', "data.pat"),
    ],
)
def test_exactly_one_of_name_and_path(data, message, letters, tmp_path, capsys) -> None:
    file = tmp_path / "MY.toml"
    file.write_text(LETTERS.replace('path = "letters"', data))
    assert main(["train", str(file), "--out", str(tmp_path / "a")]) in (2, 3)
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[-1]
    assert not (tmp_path / "a").exists()


def test_the_command_line_imports_what_a_run_names_only_if_allowed(own_module, tmp_path, capsys) -> None:
    out = str(tmp_path / "a")
    given = ["--learning.rule", "own_parts:Halved", "--data.limit", "60", "--probes.samples", "0", "--threads", "1"]
    assert main(["train", "digits", *given, "--epochs", "1", "--out", out, "--no-progress"]) == 0
    assert main(["evaluate", out]) == 2
    assert "give --allow-import own_parts" in capsys.readouterr().err
    assert main(["evaluate", out, "--allow-import", "own_parts"]) == 0
    assert main(["train", out, "--resume", "--epochs", "2", "--allow-import", "own_parts", "--no-progress"]) == 0
    assert main(["runs", str(tmp_path)]) == 0


def test_an_activation_of_ones_own_that_has_no_import_path(tmp_path) -> None:
    odd = Activation("odd", lambda s: s / (1 + abs(s)), lambda s: 1 / (1 + abs(s)) ** 2, projected=False)
    run = quietly(activation=odd, epochs=1, out=tmp_path / "a", **SMALL)
    assert run.config.network.rho == "given:odd"
    with pytest.raises(ConfigurationError, match=r"give it again \(activation=\.\.\.\)"):
        fsp.open_run(run.folder).network("last")
    assert fsp.open_run(run.folder, activation=odd).network("last").rho is odd
