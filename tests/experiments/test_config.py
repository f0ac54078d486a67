"""A configuration is accepted whole or refused in one line that names source, key, value,
expectation and remedy.
"""

from __future__ import annotations

import re
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments import config_io
from fsp_dynamics.experiments.backend import NUMBA
from fsp_dynamics.experiments.config import PRESET_NOTES, NotesConfig, all_fields, fields, flatten
from fsp_dynamics.experiments.config_io import PRESETS, config_kind, load_config, presets, read_value, to_toml
from fsp_dynamics.experiments.layerwise.trainer import LayerwiseTrainer
from fsp_dynamics.experiments.rate.building import build_network, build_recipe
from fsp_dynamics.experiments.rate.config import RateConfig
from fsp_dynamics.experiments.toml_file import read_toml
from fsp_dynamics.experiments.trainer import Resources
from fsp_dynamics.learning.schedules import CosineSchedule, FactorSchedule, StepSchedule, WarmUp
from fsp_dynamics.training.ranks import ALONE


def refusal(source, overrides=None):
    with pytest.raises(ConfigurationError) as caught:
        load_config(source, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", presets("rate"))
def test_every_preset_describes_a_network_and_a_recipe_that_fit(name):
    _, config = load_config(name)
    network, _ = build_network(config, 64, 10)
    build_recipe(config).check(network)
    assert network.sizes[1:-1] == config.network.hidden
    assert config.notes.about


@pytest.mark.parametrize("name", presets("layerwise"))
def test_every_preset_describes_a_learner_that_can_be_built(name):
    _, config = load_config(name)
    LayerwiseTrainer.check(config, Resources(NUMBA, ALONE))
    assert config.notes.about


MLP = ("fsp", "bp", "fa", "dfa", "ll-bp", "ll-fa", "shallow")


def test_the_promised_presets_exist():
    promised = {
        *(f"{data}-mlp-{learner}" for data in ("mnist", "fashion") for learner in MLP),
        *(f"fashion-conv-{learner}" for learner in ("fsp", "fsp-sparse", "bp")),
        *(f"cifar10-vgg8b-{learner}" for learner in ("fsp", "fsp-sparse", "bp", "ll-bp", "ll-fa")),
        *(f"cifar10-vgg8b-2x-{learner}" for learner in ("fsp", "fsp-sparse")),
        "digits",
        "mnist-2x500",
        "mnist-2x1500",
        "mnist-3x1500",
        "fashion-2x1500",
        "mnist-2x1500-best",
        "mnist-2x1500-fixed-loop",
        "mnist-3x1500-fixed-loop",
        "fashion-2x1500-fixed-loop",
        "mnist-ep-2x500",
    }
    assert promised <= set(presets())
    assert load_config("mnist-ep-2x500")[1].network.tied


@pytest.mark.parametrize("name", [name for name in presets() if name.endswith("-fixed-loop")])
def test_a_fixed_loop_differs_from_the_learned_one_in_nothing_else(name):
    learned, fixed = (load_config(each)[1] for each in (name.removesuffix("-fixed-loop"), name))
    assert fixed.learning.frozen == ("loop",)
    assert set(learned.differences(fixed)) == {"learning.frozen", "learning.mirror", "learning.rates.loop"}


@pytest.mark.parametrize("name", presets())
def test_a_resolved_configuration_written_as_toml_is_itself(name):
    _, config = load_config(name)
    assert load_config(tomllib.loads(to_toml(config)))[1] == config


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_any_text_survives_toml(text):
    _, config = load_config("digits", {"notes.about": text})
    assert tomllib.loads(to_toml(config))["notes"].get("about", "") == text


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("seed", -1, "greater than or equal to 0"),
        ("data.limit", 0, "greater than or equal to 1"),
        ("data.name", "mnst", "did you mean 'mnist'?"),
        ("network.hidden", [5, 0], "network.hidden[1] = 0, expected greater than or equal to 1"),
        ("network.hidden", [], "at least 1 item"),
        ("network.hidden", 2.5, "a valid integer"),
        ("network.rho", "hard_sigmod", "did you mean 'hard_sigmoid'?"),
        ("network.kind", "lop", "did you mean 'loop'?"),
        ("network.dtype", "float16", "did you mean 'float"),
        ("network.time_constants", [1.0, -1.0, 1.0], "greater than 0"),
        ("network.time_constants", [1.0, 1.0], "expected 1 or 3"),
        ("network.tied", True, "belongs to network.kind = 'reciprocal'"),
        ("learning.epochs", 0, "greater than or equal to 1"),
        ("learning.epochs", True, "a valid integer"),
        ("learning.batch", "many", "a valid integer"),
        ("learning.beta", 0.0, "nothing would be learned"),
        ("learning.beta", -1.0, "expected above -1 (-1/r of the output)"),
        ("learning.beta", float("nan"), "a finite number"),
        ("learning.phases", "onesided", "did you mean 'one-sided'?"),
        ("learning.phases", "centred", "is also used as -1.0"),
        ("learning.rule", "gradent", "did you mean 'gradient'?"),
        ("family", "rates", "did you mean 'rate'?"),
        ("learning.mirror", 1.5, "less than or equal to 1"),
        ("learning.weight_noise", -0.1, "greater than or equal to 0"),
        ("learning.augmentation.shift", -1, "greater than or equal to 0"),
        ("learning.augmentation.shift", 1.0, "a valid integer"),
        ("learning.augmentation.rotation", 181.0, "less than or equal to 180"),
        ("learning.augmentation.noise", -0.1, "greater than or equal to 0"),
        ("learning.augmentation.flip", 1.1, "less than or equal to 1"),
        ("probes.samples", -1, "greater than or equal to 0"),
        ("probes.every", 2.5, "a valid integer"),
        ("probes.keep", -1, "greater than or equal to 0"),
        ("learning.rates.forward", [1.0], "expected 2"),
        (
            "learning.rates.forward",
            [1.0, -2.0],
            "learning.rates.forward[1] = -2.0, expected greater than or equal to 0",
        ),
        ("learning.rates.backward", [1.0], "expected 0"),
        ("learning.rates.biases", [1.0, 1.0], "expected 3: one for each hidden layer and the output"),
        ("learning.rates.biases", [1.0, -1.0, 1.0], "learning.rates.biases[1] = -1.0, expected greater than"),
        ("learning.momentum", 1.0, "less than 1"),
        ("learning.rate_factor", 0.0, "greater than 0"),
        ("learning.frozen", ["lop"], "did you mean 'loop'?"),
        ("solver.name", "fixedpoint", "did you mean 'fixed_point'?"),
        ("solver.dt", 0.1, "is no setting of solver.name = 'fixed_point'"),
        ("solver.absolute", 0.0, "can never be met"),
    ],
)
def test_impossible_values_are_refused_in_one_line(key, value, expected):
    message = refusal("digits", {key: value})
    assert key in message
    assert expected in message


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"kind": "cosin"}, "learning.schedule.kind = 'cosin' is unknown; did you mean 'cosine'?"),
        ({"kind": "cosine"}, "learning.schedule.epochs is missing, which learning.schedule.kind = 'cosine' needs"),
        ({"kind": "steps", "by": 0.1}, "learning.schedule.at is missing, which learning.schedule.kind = 'steps' needs"),
        ({"kind": "steps", "at": [3]}, "learning.schedule.by is missing"),
        ({"kind": "cosine", "epochs": 9, "by": 0.1}, "learning.schedule.by = 0.1 belongs to learning.schedule.kind = "
         "'steps', not to 'cosine'; leave it out (learning.schedule.by=None)"),
        ({"epochs": 9}, "learning.schedule.epochs = 9 belongs to learning.schedule.kind = 'cosine', not to 'factor'"),
        ({"kind": "steps", "at": [5, 3], "by": 0.1}, "learning.schedule.at = (5, 3), expected"),
        ({"kind": "steps", "at": [0], "by": 0.1}, "learning.schedule.at[0] = 0, expected greater than or equal to 1"),
        ({"kind": "steps", "at": 3, "by": 1.0}, "learning.schedule.by = 1.0, expected less than 1"),
        ({"warm_up": -1}, "learning.schedule.warm_up = -1"),
    ],
)  # fmt: skip
def test_schedules_that_make_no_sense_are_refused(given, expected):
    overrides = {"learning.rate_factor": None} | {f"learning.schedule.{key}": value for key, value in given.items()}
    assert expected in refusal("digits", overrides)


def test_the_rate_factor_belongs_to_its_own_schedule():
    cosine = {"learning.schedule.kind": "cosine", "learning.schedule.epochs": 9}
    assert "learning.rate_factor = 0.95 belongs to learning.schedule.kind = 'factor', not to 'cosine'" in refusal(
        "digits", cosine
    )
    _, config = load_config("digits", {**cosine, "learning.rate_factor": None})
    assert build_recipe(config).optimiser.schedule == CosineSchedule(9)


@pytest.mark.parametrize(
    ("given", "schedule"),
    [
        ({}, FactorSchedule(0.95)),
        ({"warm_up": 2}, WarmUp(2, FactorSchedule(0.95))),
        ({"kind": "factor"}, FactorSchedule(0.95)),
        ({"kind": "cosine", "epochs": 9, "rate_factor": None}, CosineSchedule(9)),
        ({"kind": "steps", "at": [3, 8], "by": 0.5, "rate_factor": None}, StepSchedule((3, 8), 0.5)),
    ],
)
def test_every_schedule_reaches_the_recipe_and_survives_toml(given, schedule):
    where = {key: "learning." if key == "rate_factor" else "learning.schedule." for key in given}
    _, config = load_config("digits", {where[key] + key: value for key, value in given.items()})
    _, again = load_config(tomllib.loads(to_toml(config)))
    assert build_recipe(again).optimiser.schedule == build_recipe(config).optimiser.schedule == schedule


def test_limits_that_are_just_met_are_accepted():
    load_config(
        "digits",
        {"learning.beta": -0.99, "learning.momentum": 0.0, "learning.rate_factor": 1.0, "seed": 0, "data.limit": 1},
    )
    load_config("digits", {"learning.beta": 0.99, "learning.phases": "centred"})
    load_config("digits", {"learning.beta": -1.5, "network.time_constants": [1.0, 1.0, 0.5]})


def test_everything_frozen_is_refused():
    names = ["input", "forward[0]", "forward[1]", "loop", "biases[0]", "biases[1]", "biases[2]"]
    assert "nothing would learn" in refusal("digits", {"learning.frozen": names})
    load_config("digits", {"learning.frozen": names[:-1]})


def test_a_reciprocal_network_has_no_loop_to_learn(tiny):
    assert "has no loop" in refusal(tiny(network={"kind": "reciprocal", "loop_scale": None}))
    assert "belongs to network.kind = 'loop'" in refusal(
        tiny(network={"kind": "reciprocal"}, learning={"rates": {"loop": 0.0}})
    )
    untied = tiny(network={"kind": "reciprocal", "tied": False, "loop_scale": None}, learning={"rates": {"loop": 0.0}})
    assert "learning.rates.backward has 0 values, expected 1" in refusal(untied)


@pytest.mark.parametrize(
    ("solver", "stray"), [("numba_ode", "max_passes"), ("reference", "memory"), ("fixed_point", "max_steps")]
)
def test_settings_of_another_solver_are_refused(solver, stray):
    assert f"solver.{stray} = 5 is no setting" in refusal("digits", {"solver.name": solver, f"solver.{stray}": 5})


def test_a_method_the_solver_does_not_have_is_refused_by_its_key():
    _, config = load_config("digits", {"solver.method": "andersen"})
    with pytest.raises(ConfigurationError, match=r"solver\.method = 'andersen' is unknown; did you mean 'anderson'"):
        build_recipe(config)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"data": {"name": "digits", "nam": 1}}, "data.nam is no key of a configuration; did you mean 'name'?"),
        ({"lerning": {}}, "did you mean 'learning'?"),
        ({"data": 3}, "data = 3, expected a table; write its keys under [data]"),
        ({"network": {"hidden": None}}, "network.hidden"),
    ],
)
def test_unknown_keys_and_missing_tables_are_named(tiny, table, expected):
    assert expected in refusal({**tiny(), **table})


def test_missing_keys_are_named(tiny):
    table = tiny()
    misspelt = {("lerning" if key == "learning" else key): value for key, value in table.items()}
    assert "lerning is no key of a configuration; did you mean 'learning'?" in refusal(misspelt)
    del table["learning"]["rates"]["input"]
    assert "learning.rates.input is missing" in refusal(table)
    del table["learning"]
    assert "the table [learning] is missing" in refusal(table)


def test_several_faults_show_the_first_and_count_the_others():
    assert refusal("digits", {"learning.batch": 0, "learning.epochs": 0}).endswith("(and 1 more)")


def test_a_file_that_is_no_toml_is_named_with_its_line(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("seed = 1\n[data\n")
    assert refusal(path).startswith(f"{path}:2:")
    path.write_bytes(b"seed = \xff\n")
    assert "UTF-8" in refusal(path)
    assert "no such file" in refusal(tmp_path / "other.toml")
    assert "no such file or run folder" in refusal(tmp_path)


def test_a_path_in_a_file_is_relative_to_that_file_and_one_of_an_override_to_the_folder(tmp_path, monkeypatch):
    (tmp_path / "files").mkdir()
    (tmp_path / "elsewhere").mkdir()
    text = (PRESETS / "digits.toml").read_text()
    path = tmp_path / "files" / "mine.toml"
    path.write_text(re.sub(r'name = "digits"', 'path = "images"', text, count=1))
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_config(path)[1].data.path == str(tmp_path / "files" / "images")
    assert load_config("digits", {"data.path": "images"})[1].data.path == str(tmp_path / "elsewhere" / "images")


def test_a_fault_in_a_file_names_the_file_and_an_override_names_itself(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text((PRESETS / "digits.toml").read_text().replace("batch = 20", "batch = 0"))
    assert refusal(path).startswith(f"{path}: learning.batch = 0")
    assert load_config(path, {"learning.batch": 7})[1].learning.batch == 7
    assert refusal("digits", {"learning.batch": 0}).startswith("override: learning.batch = 0")
    assert load_config(path, {"learning.batch": 7})[0] == "mine"


def test_unknown_presets_and_options_offer_the_nearest():
    assert "did you mean 'digits'?" in refusal("digts")
    assert "did you mean 'learning.batch'?" in refusal("digits", {"learning.bach": 3})
    assert "did you mean 'epochs'?" in refusal("digits", {"epoch": 3})


def test_overrides_may_be_short_dotted_or_tables():
    for overrides in ({"epochs": 2}, {"learning.epochs": 2}, {"learning": {"epochs": 2}}):
        _, config = load_config("digits", overrides)
        assert config.learning.epochs == 2
        assert config.learning.batch == load_config("digits")[1].learning.batch


def test_the_source_is_not_changed_by_overrides(tiny):
    table = tiny()
    load_config(table, {"learning.batch": 3})
    assert table == tiny()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("50", 50),
        ("1e-4", 1e-4),
        ("-0.5", -0.5),
        (".5", 0.5),
        ("-1.", -1.0),
        (".5e-3", 0.0005),
        (".", "."),
        (".5,1.", [0.5, 1.0]),
        ("true", True),
        ("[64, 32]", [64, 32]),
        ("64,32", [64, 32]),
        ("one-sided", "one-sided"),
        ("loop,forward[0]", ["loop", "forward[0]"]),
        ("3\nseed = 4", "3\nseed = 4"),
        ("", ""),
    ],
)
def test_values_of_the_command_line(text, value):
    assert read_value(text) == value
    assert type(read_value(text)) is type(value)


def test_one_number_may_stand_for_a_list_of_one():
    _, config = load_config("digits", {"network.hidden": 30, "learning.rates.forward": 5.0})
    assert config.network.hidden == (30,)
    assert config.learning.rates.forward == (5.0,)


def test_configurations_differ_where_the_experiment_does():
    _, config = load_config("digits")
    _, other = load_config(
        "digits", {"learning.batch": 7, "epochs": 99, "notes.about": "something else", "probes.keep": 7}
    )
    assert config.differences(other) == {"learning.batch": (20, 7)}
    assert config.differences(config) == {}


def test_an_override_leaves_out_the_notes_of_the_source_but_those_it_gives():
    _, preset = load_config("digits")
    assert preset.notes.measured
    for same in ({"seed": 3}, {"epochs": 2}, {"probes.samples": 5}):
        assert load_config("digits", same)[1].notes == preset.notes
    assert load_config("digits", {"learning.beta": 0.5})[1].notes == NotesConfig()
    mine = load_config("digits", {"learning.beta": 0.5, "notes.about": "half as strong"})[1]
    assert mine.notes == NotesConfig(about="half as strong")


@pytest.mark.parametrize("key", PRESET_NOTES)
def test_what_was_measured_of_a_preset_is_no_override(key):
    with pytest.raises(ConfigurationError, match=rf"option '{key}' is a note of a preset; leave it out"):
        load_config("digits", {key: "much"})
    assert key not in all_fields()
    assert "notes.about" in all_fields()


def test_a_configuration_cannot_be_changed():
    _, config = load_config("digits")
    with pytest.raises(ValidationError):
        config.seed = 3
    with pytest.raises(ValidationError):
        config.learning.batch = 3


def test_every_field_is_described_and_is_a_key():
    _, config = load_config("digits")
    assert set(flatten(config.model_dump())) == set(fields(RateConfig))
    assert all(fields(RateConfig).values())
    assert isinstance(config, RateConfig)


def test_none_takes_back_what_a_preset_sets():
    _, config = load_config("digits", {"learning.output_step": None, "learning.rate_factor": None, "data.limit": None})
    assert (config.learning.output_step, config.learning.rate_factor, config.data.limit) == (None, 1.0, None)
    _, config = load_config("digits", {"learning": {"output_step": None}})
    assert config.learning.output_step is None
    reciprocal = {"network.kind": "reciprocal", "network.loop_scale": None, "learning.rates.loop": None}
    _, config = load_config("digits", reciprocal)
    assert (config.network.kind, config.network.loop_scale, config.learning.rates.loop) == ("reciprocal", None, 0.0)
    assert "learning.epochs is missing" in refusal("digits", {"epochs": None})
    assert "option 'learning.epoch' is unknown" in refusal("digits", {"learning.epoch": None})


def test_one_preset_is_read_from_one_file(monkeypatch):
    read = []
    monkeypatch.setattr(config_io, "read_toml", lambda path: read.append(path.name) or read_toml(path))
    load_config("digits")
    assert read == ["digits.toml"]


def every_key_of_every_preset():
    return [(name, key) for name in presets() for key in flatten(load_config(name)[1].table(exclude_none=True))]


def test_every_key_of_every_preset_can_be_taken_back():
    """It has its default then, or is named as the one that is missing, or as one of two that do not
    fit.
    """
    for name, key in every_key_of_every_preset():
        kind, message = config_kind(name), ""
        try:
            _, config = load_config(name, {key: None})
        except ConfigurationError as error:
            message = str(error)
        if message:
            assert key.rpartition(".")[2] in message
            continue
        needed = {"rates": {"input": 1.0, "forward": [1.0]}} if kind is RateConfig else {}
        learning = {"epochs": 1, **needed}
        networks = {"conv": {"kind": "conv", "channels": [1]}, "vgg8b": {"kind": "vgg8b"}}
        networks["snn"] = {"kind": "snn", "hidden" if key == "network.channels" else "channels": [1]}
        network = networks.get(config.key("network.kind"), {"hidden": [3]})
        bare = {"data": {"name": "digits"}, "network": network, "learning": learning}
        assert config.key(key) == kind.model_validate(bare).key(key)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_file_may_begin_with_a_byte_order_mark(mark, tmp_path):
    path = tmp_path / "own.toml"
    path.write_bytes(mark + to_toml(load_config("digits")[1]).encode())
    assert load_config(path)[1] == load_config("digits")[1]
    path.write_bytes(to_toml(load_config("digits")[1]).encode("utf-16"))
    assert "save the TOML file in that encoding" in refusal(path)


def test_a_misspelt_change_of_images_is_named(tiny):
    table = tiny(learning={"augmentation": {"shfit": 2}})
    assert "learning.augmentation.shfit is no key of a configuration; did you mean 'shift'?" in refusal(table)
    assert "did you mean 'learning.augmentation.rotation'?" in refusal("digits", {"rotation": 5.0})
