"""A figure shows the numbers of its runs' records and nothing else, says where they are from, and
refuses runs that do not belong together.
"""

from __future__ import annotations

import csv
import json
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from fsp_dynamics.cli import main
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.checkpoint import _digest, _text
from fsp_dynamics.experiments.config_io import load_config, presets, read_value
from fsp_dynamics.experiments.figures import collecting, curves, variants
from fsp_dynamics.experiments.figures import drawing as figures
from fsp_dynamics.experiments.figures.drawing import FIGURES, command, make, train_missing
from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.experiments.pictures import Pictures
from fsp_dynamics.experiments.progress import Output, RunReporter
from fsp_dynamics.experiments.records import mark

pytestmark = [
    pytest.mark.filterwarnings("ignore:epoch .* output"),
    pytest.mark.xdist_group("figures"),
]  # their runs are trained once
ROOT = Path(__file__).parents[3]
SMALL = {
    "data.limit": 120,
    "data.validation": 200,
    "network.hidden": [10],
    "learning.rates.forward": [7.0],
    "epochs": 2,
    "probes.samples": 12,
}


def small(**changes):
    return load_config("digits", {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}})[1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of all runs that the figures of one small network need: two seeds each, one of
    those that only `errors` shows.
    """
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Pictures, "draw", lambda self, now=False: None)
        train_missing("alignment", small(), folder, [0, 1], RunReporter(Output()))
        train_missing("errors", small(), folder, [0], RunReporter(Output()))
    return folder


@pytest.fixture(scope="module")
def made(runs, tmp_path_factory):
    """{name: the figure of all these runs}."""
    return {name: make(name, [runs], tmp_path_factory.mktemp(name)) for name in FIGURES}


@pytest.fixture
def copied(runs, tmp_path):
    """The same, to be spoilt."""
    return Path(shutil.copytree(runs, tmp_path / "copied"))


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures take the time and are not looked at here."""
    monkeypatch.setattr(figures, "_draw", lambda *given: None)


def probes(folder, name):
    """[{epoch: record} of each seed], read without the package."""
    lines = [(folder / f"{name}-{seed}" / "probes.jsonl").read_text().splitlines() for seed in (0, 1)]
    return [{record["epoch"]: record for record in map(json.loads, each)} for each in lines]


def table(path):
    """The rows of a CSV file, numbers as numbers."""
    with path.open(newline="") as file:
        return [{key: _number(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def _number(text):
    try:
        return float(text)
    except ValueError:
        return text


def spoil(path, of):
    """Let every record of a .jsonl file be what `of` makes of it; None: left out."""
    records = [of(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(record) + "\n" for record in records if record is not None))
    as_recorded(path)


def as_recorded(path):
    """Let the checkpoints of a run be those of its records as they are now."""
    for file in (path.parent / "checkpoints").glob("*.json"):
        manifest = json.loads(file.read_text())
        if path.name in manifest["run"]["records"]:
            manifest["run"]["records"][path.name] = mark(path)
            del manifest["manifest_sha256"]
            file.write_bytes(_text({**manifest, "manifest_sha256": _digest(manifest)}))


def edit(folder, old, new):
    path = folder / "config.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# Variants


@pytest.mark.parametrize(
    "more",
    [
        {},
        {
            "learning__mirror": 0.05,
            "learning__rate_factor": None,
            "learning__schedule__kind": "cosine",
            "learning__schedule__epochs": 9,
            "learning__rates__biases": [3.0, 2.0, 1.0],
        },
    ],
)
@pytest.mark.parametrize("name", [*variants.LEARNERS, "W1 fixed", "W2 fixed"])
def test_a_variant_is_known_by_its_configuration_and_differs_in_nothing_else(name, more):
    base = small(network__hidden=[10, 10], learning__rates__forward=[30.0, 7.0], **more)
    config = variants.variant(base, name)
    assert variants.variant_of(config) == name
    assert variants.unlike(base, config, tuned=True) == {}
    if name != variants.RECIPROCAL:
        assert variants.unlike(base, config) == {}


def test_equilibrium_propagation_learns_at_the_rates_of_its_preset():
    own = {"learning__rates__input": 60.0, "learning__rates__biases": [3.0, 2.0, 1.0]}
    base = small(network__hidden=[10, 10], learning__rates__forward=[30.0, 7.0], **own)
    preset = load_config("mnist-ep-2x500")[1]
    assert variants.variant(base, variants.RECIPROCAL).learning.rates == preset.learning.rates


@pytest.mark.parametrize("name", [name for name in presets() if name.endswith("-fixed-loop")])
def test_presets_with_a_fixed_and_a_learned_loop_may_stand_in_one_figure(name):
    learned, fixed = (load_config(each)[1] for each in (name.removesuffix("-fixed-loop"), name))
    variants.require_alike([("learned", learned), ("fixed", fixed)])


def test_what_is_no_variant_is_none():
    for changes in (
        {"learning.frozen": ["biases[0]"]},
        {"learning.frozen": ["loop", "forward[0]"]},
        {"learning.rule": "gradient", "network.loop_scale": 0.0},
    ):
        assert variants.variant_of(load_config(small(), changes)[1]) is None


def test_keys_may_differ_only_where_they_define_a_variant():
    base = small()
    fixed = variants.variant(base, variants.FIXED)
    exact = variants.variant(base, variants.EXACT)
    assert variants.unlike(base, small(seed=3)) == {}
    assert set(variants.unlike(base, load_config(exact, {"network.loop_scale": 0.5})[1])) == {"network.loop_scale"}
    assert set(variants.unlike(fixed, load_config(exact, {"learning.beta": 0.5})[1])) == {"learning.beta"}
    assert variants.unlike(fixed, load_config(exact, {"learning.beta": 0.5})[1], tuned=True) == {}
    assert set(variants.unlike(fixed, load_config(exact, {"solver.absolute": 1e-3})[1], tuned=True)) == {
        "solver.absolute"
    }
    assert set(variants.unlike(base, small(learning__beta=0.5), tuned=True)) == {"learning.beta"}, (
        "seeds of one variant are averaged"
    )


# Numbers


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_four_files(made, name):
    files = made[name].files
    assert sorted(path.name for path in files["png"].parent.iterdir()) == sorted(
        f"{name}.{end}" for end in ("png", "svg", "csv", "txt")
    )
    assert made[name].last == 2
    assert files["png"].read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in files["svg"].read_bytes()
    assert table(files["csv"])


def test_angles_are_those_of_the_records(runs, made):
    rows = table(made["alignment"].files["csv"])
    expected = {}
    for variant in ("loop learned", "loop fixed", "W1 fixed"):
        seeds = probes(runs, variant.replace(" ", "-"))
        for epoch in set(seeds[0]) & set(seeds[1]):
            for matrix in ("W1", "loop"):
                expected["network", variant, matrix, epoch] = np.mean(
                    [r[epoch]["alignment"]["degrees"][matrix] for r in seeds]
                )
                if epoch == int(epoch):
                    expected["sample", variant, matrix, epoch] = np.mean(
                        [r[epoch]["samples"]["mean"][matrix] for r in seeds]
                    )
    found = {(row["quantity"], row["variant"], row["matrix"], row["epoch"]): row["value"] for row in rows}
    assert found.keys() == expected.keys()
    assert len({epoch for *_, epoch in found}) == 1 + 2 * 6, "angles within epochs are there too"
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-12)


def test_bands_are_one_standard_deviation_over_all_samples(runs, made):
    (row,) = (
        r
        for r in table(made["alignment"].files["csv"])
        if (r["quantity"], r["variant"], r["matrix"], r["epoch"]) == ROW
    )
    seeds = [records[2]["samples"] for records in probes(runs, "loop-learned")]
    mean, std = curves.pooled([s["mean"]["W1"] for s in seeds], [s["std"]["W1"] for s in seeds])
    assert (row["value"], row["std"]) == pytest.approx((mean, std))
    assert (row["low"], row["high"]) == pytest.approx((mean - std, mean + std))
    last = [records[2] for records in probes(runs, "loop-learned")]
    assert row["converged"] == sum(r["converged"] for r in last)
    assert row["samples"] == row["converged"] - sum(r["samples"]["undefined"]["W1"] for r in last)
    counted = f"loop learned: angles of {row['samples']:g} of {row['converged']:g} samples at epoch 2\n"
    assert counted in made["alignment"].files["txt"].read_text()


ROW = ("sample", "loop learned", "W1", 2.0)


def test_the_pooled_deviation_is_that_of_all_samples_together():
    samples = np.random.default_rng(0).normal([[80], [85], [70]], [[1], [4], [2]], (3, 50))
    mean, std = curves.pooled(samples.mean(1).tolist(), samples.std(1).tolist())
    assert (mean, std) == pytest.approx((samples.mean(), samples.std()), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "variant", "keys", "chosen"),
    [
        (
            "subspace",
            "loop-fixed",
            ("alignment", "inside", "loop"),
            {"quantity": "inside", "variant": "loop fixed", "matrix": "loop"},
        ),
        (
            "subspace",
            "W1-fixed",
            ("alignment", "bound", "W1"),
            {"quantity": "bound", "variant": "W1 fixed", "matrix": "W1"},
        ),
        (
            "subspace",
            "loop-learned",
            ("alignment", "degrees", "W1"),
            {"quantity": "raw", "variant": "loop learned", "matrix": "W1"},
        ),
        (
            "gradients",
            "loop-learned",
            ("gradient", "stages", "finite beta", "loop"),
            {"quantity": "angle", "source": "finite beta", "matrix": "loop"},
        ),
        (
            *("gradients", "loop-learned", ("gradient", "sources", "non-reciprocity", "input")),
            {"quantity": "share", "source": "non-reciprocity", "matrix": "input"},
        ),
        (
            "gradients",
            "loop-learned",
            ("gradient", "norm_ratio", "forward[0]"),
            {"quantity": "norm", "matrix": "forward[0]"},
        ),
        ("spectra", "loop-learned", ("stability", "loop_norm_max"), {"quantity": "loop_norm_max"}),
        ("spectra", "loop-learned", ("stability", "settle_time"), {"quantity": "settle_time"}),
    ],
)
def test_means_and_extremes_are_those_of_the_records(runs, made, name, variant, keys, chosen):
    rows = [r for r in table(made[name].files["csv"]) if all(r.get(key) == value for key, value in chosen.items())]
    assert [row["epoch"] for row in rows] == ([1, 2] if chosen["quantity"] in ("share", "norm") else [0, 1, 2])
    for row in rows:
        values = []
        for found in (records[row["epoch"]] for records in probes(runs, variant)):
            for key in keys:
                found = found[key]
            values.append(found)
        assert (row["value"], row["low"], row["high"], row["runs"]) == pytest.approx(
            (np.mean(values), min(values), max(values), 2)
        )


def test_eigenvalues_are_those_of_first_middle_and_last_epoch(runs, made):
    rows = [r for r in table(made["spectra"].files["csv"]) if r["quantity"] == "eigenvalue"]
    expected = [
        (epoch, seed, *value)
        for epoch in (0, 1, 2)
        for seed, records in enumerate(probes(runs, "loop-learned"))
        for value in records[epoch]["stability"]["eigenvalues"]
    ]
    assert [(r["epoch"], r["seed"], r["real"], r["imaginary"]) for r in rows] == expected


def test_errors_are_those_of_the_metrics(runs, made):
    rows = table(made["errors"].files["csv"])
    assert list(dict.fromkeys(row["variant"] for row in rows)) == list(variants.LEARNERS)
    for row in rows:
        folders = sorted(runs.glob(f"{row['variant'].replace(' ', '-')}-*"))
        values = [RunFolder(folder).metrics()[int(row["epoch"]) - 1][row["quantity"]] for folder in folders]
        assert (row["value"], row["low"], row["high"], row["runs"]) == pytest.approx(
            (np.mean(values), min(values), max(values), len(folders))
        )


@pytest.mark.usefixtures("undrawn")
def test_an_undefined_angle_is_left_out_and_counted(copied, tmp_path):
    def undefined(record):
        if record["epoch"] == 1:
            record["samples"]["mean"]["W1"] = record["samples"]["std"]["W1"] = None
        return record

    spoil(copied / "loop-learned-0" / "probes.jsonl", undefined)
    rows = table(make("alignment", [copied], tmp_path).files["csv"])
    found = [r for r in rows if (r["quantity"], r["variant"], r["matrix"]) == ROW[:3]]
    assert [row["runs"] for row in found] == [2, 1, 2]
    assert found[1]["value"] == probes(copied, "loop-learned")[1][1]["samples"]["mean"]["W1"]


def test_samples_are_counted_at_that_epoch_over_all_matrices():
    def row(samples, matrix="W1", variant="loop learned", epoch=2, quantity="sample"):
        key = {"quantity": quantity, "variant": variant, "matrix": matrix, "epoch": epoch}
        return {**key, "samples": samples, "converged": 300}

    other = [row(9, epoch=1), row(8, quantity="network"), row(7, "loop", "loop fixed")]
    rows = [row(151), row(140, "W2"), row(145, "loop"), *other]
    assert curves.counts(rows, 2) == {"loop learned": "140 to 151 of 300", "loop fixed": "7 of 300"}


@pytest.mark.parametrize("name", ["alignment", "subspace"])
def test_matrices_need_not_be_fixed_in_turn(runs, tmp_path, name):
    """As for runs of a preset and of its twin with a fixed loop."""
    made = make(name, [runs / f"loop-{which}-{seed}" for which in ("learned", "fixed") for seed in (0, 1)], tmp_path)
    rows = table(made.files["csv"])
    assert {row["variant"] for row in rows} == {"loop learned", "loop fixed"}
    text = made.files["txt"].read_text()
    assert "W1 fixed" not in text
    assert f"Made by: fsp figure {name} --runs FOLDER" in text, "--train would make more than was drawn"


@pytest.mark.usefixtures("undrawn")
def test_epochs_that_not_all_have_are_not_drawn_as_the_caption_notes(copied, tmp_path):
    for name in ("metrics.jsonl", "probes.jsonl"):
        spoil(copied / "W1-fixed-1" / name, lambda record: record if record["epoch"] <= 1 else None)
    made = make("alignment", [copied], tmp_path)
    assert made.last == 1
    assert max(row["epoch"] for row in table(made.files["csv"])) == 1
    assert "Epochs: 1; the runs have 1, 2 epochs, drawn is what all of them have" in made.files["txt"].read_text()


# The caption


@pytest.mark.usefixtures("undrawn")
def test_the_caption_names_what_is_drawn_and_no_folder(runs, tmp_path):
    text = make("errors", [runs], tmp_path, seeds=[0]).files["txt"].read_text()
    commit = RunFolder(runs / "loop-learned-0").read_json("environment.json")["commit"]
    for words in (
        "errors: Test error",
        "hidden layers 10,",
        "data digits",
        "preset digits",
        "Epochs: 2",
        f"Commit: {commit or 'unknown'}",
    ):
        assert words in text
    assert "equilibrium propagation: seed 0; network.kind reciprocal" in text
    assert "learning.beta 0.5" in text
    assert str(runs) not in text
    assert not re.search(r"(^|\s)/", text)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"learning__output_step": 0.1, "seed": 4},
        {"network__hidden": [9, 8], "learning__rates__forward": [20.0, 7.0]},
    ],
)
def test_the_command_of_the_caption_makes_the_same_configuration(changes):
    config = small(**changes)
    member = collecting.FigureRun(Path("x"), config, variants.LEARNED, [], [], {})
    words = shlex.split(command("gradients", [member]))
    assert words[:4] == ["fsp", "figure", "gradients", "--train"]
    given = {key.removeprefix("--"): value for key, value in zip(words[4::2], words[5::2], strict=True)}
    assert given.pop("preset") == "digits"
    again = load_config(
        "digits", {"seed": int(given.pop("seeds")), **{key: read_value(value) for key, value in given.items()}}
    )[1]
    assert again.differences(config) == {}
    assert again.learning.epochs == config.learning.epochs


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_drawn_again_from_its_numbers_alone(made, tmp_path, name):
    again = figures.redraw(made[name].files["csv"], tmp_path)
    for kind, path in made[name].files.items():
        if kind != "svg":  # in which the names of clips are random
            assert again.files[kind].read_bytes() == path.read_bytes(), kind
    assert again.last == made[name].last


def test_numbers_of_before_are_drawn_as_figures_are_now(made, tmp_path):
    """Without how many samples converged, in another order of columns, and with norms before
    learning.
    """
    with made["alignment"].files["csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    old = [{key: row[key] for key in reversed(row) if key != "converged"} for row in rows]
    with (tmp_path / "alignment.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [key for key in reversed(curves.COLUMNS["alignment"]) if key != "converged"])
        writer.writeheader()
        writer.writerows(old)
    (tmp_path / "alignment.txt").write_text("alignment: as it was.\n\nEpochs: 2\nCommit: 0123\nMade by: hand\n")
    again = figures.redraw(tmp_path / "alignment.csv", tmp_path / "new")
    found, _ = figures.read_rows(again.files["csv"], "alignment")
    assert curves.counts(found, 2)["loop learned"].isdecimal()
    text = again.files["txt"].read_text()
    assert "as it was" not in text
    assert "loop learned, epoch 2: single samples W1" in text
    assert text.endswith("Commit: 0123\nMade by: hand\n")
    early = [{"quantity": q, "source": "", "matrix": "loop", "epoch": e} for q in ("angle", "norm") for e in (0, 1)]
    assert [(row["quantity"], row["epoch"]) for row in curves.drawn_gradients(early)] == [
        *(("angle", 0), ("angle", 1)), ("norm", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content", ["", "quantity,epoch\n", "a,b\n1,2\n", "quantity,epoch\nraw,x\n", "quantity\nraw\n"]
)
def test_what_holds_no_numbers_of_a_figure_is_refused(tmp_path, content):
    (tmp_path / "errors.csv").write_text(content)
    with pytest.raises(ConfigurationError, match=r"does not hold the numbers of figure errors; give the errors\.csv"):
        figures.redraw(tmp_path / "errors.csv", tmp_path)


def test_the_command_draws_again(made, tmp_path, capsys):
    file = str(made["errors"].files["csv"])
    assert main(["figure", "errors", "--redraw", file, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "errors.png").read_bytes() == made["errors"].files["png"].read_bytes()
    capsys.readouterr()
    for more, says in ((["--train"], "takes no runs"), (["--seeds", "1"], "takes no runs")):
        assert main(["figure", "errors", "--redraw", file, *more]) == 2
        assert says in capsys.readouterr().err
    assert main(["figure", "alignment", "--redraw", file]) == 2
    assert "is not alignment.csv, the numbers of figure alignment; give that file" in capsys.readouterr().err


def test_the_caption_gives_the_angles_of_samples_and_of_matrices(made):
    rows = table(made["alignment"].files["csv"])

    def at_the_end(quantity):
        of = {"quantity": quantity, "variant": "loop learned", "epoch": 2}
        found = [row for row in rows if all(row.get(key) == value for key, value in of.items())]
        return ", ".join(f"{row['matrix']} {row['value']:.1f}" for row in found)

    expected = f"epoch 2: single samples {at_the_end('sample')}; matrices {at_the_end('network')} degrees"
    assert f"loop learned, {expected}" in made["alignment"].files["txt"].read_text()


# Refusals


@pytest.mark.parametrize(
    ("figure", "spoiling", "words"),
    [
        (
            "alignment",
            lambda f: edit(f / "W1-fixed-1", "beta = 1.0", "beta = 0.5"),
            ["learning.beta is 1.0 and 0.5", "W1-fixed-1"],
        ),
        (
            "alignment",
            lambda f: edit(f / "loop-fixed-0", "limit = 120", "limit = 110"),
            ["data.limit is 120 and 110", "loop-fixed-0"],
        ),
        (
            "alignment",
            lambda f: edit(f / "loop-fixed-0", "hidden = [10]", "hidden = [11]"),
            ["network.hidden is [10] and [11]"],
        ),
        (
            "errors",
            lambda f: edit(f / "loop-learned-1", "batch = 20", "batch = 10"),
            ["learning.batch is 20 and 10", "loop-learned-1"],
        ),
        (
            "alignment",
            lambda f: [shutil.rmtree(f / f"loop-fixed-{seed}") for seed in (0, 1)],
            ["lacks loop fixed", "train_missing()", "learning.frozen = loop"],
        ),
        (
            "alignment",
            lambda f: shutil.copytree(f / "W1-fixed-0", f / "twice"),
            ["are the same experiment (W1 fixed, seed 0)"],
        ),
        (
            "alignment",
            lambda f: spoil(f / "W1-fixed-0" / "probes.jsonl", lambda record: None),
            ["W1-fixed-0 has no records of samples.mean", "probes.samples = 100"],
        ),
        (
            "spectra",
            lambda f: spoil(f / "loop-learned-1" / "probes.jsonl", lambda r: {"epoch": r["epoch"]}),
            ["no records of stability.loop_norm"],
        ),
        (
            "errors",
            lambda f: spoil(f / "loop-learned-1" / "metrics.jsonl", lambda record: None),
            ["loop-learned-1 has finished no epoch"],
        ),
        (
            "alignment",
            lambda f: (f / "loop-fixed-0" / "config.toml").write_text("seed = "),
            ["loop-fixed-0", "not valid TOML"],
        ),
        ("errors", lambda f: [shutil.rmtree(each) for each in f.iterdir()], ["no run", "train_missing()"]),
        ("errors", shutil.rmtree, ["is no folder", "train_missing()"]),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(copied, tmp_path, figure, spoiling, words):
    spoiling(copied)
    with pytest.raises(ConfigurationError) as caught:
        make(figure, [copied], tmp_path / "out")
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_is_itself_given_must_belong(runs, tmp_path):
    learned, exact = runs / "loop-learned-0", runs / "exact-gradient-0"
    assert make("gradients", [learned, learned], tmp_path).runs == [learned]
    with pytest.raises(ConfigurationError, match="exact-gradient-0 is exact gradient, expected one of: loop learned"):
        make("gradients", [learned, exact], tmp_path)
    with pytest.raises(ConfigurationError, match="no run of seed 7"):
        make("gradients", [runs], tmp_path, seeds=[7])
    with pytest.raises(ConfigurationError, match="did you mean 'errors'"):
        make("error", [runs], tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_a_single_variant_is_enough_for_errors(runs, tmp_path):
    made = make("errors", [runs / "equilibrium-propagation-0"], tmp_path)
    assert {row["variant"] for row in table(made.files["csv"])} == {"equilibrium propagation"}
    assert "fsp figure errors --runs" in made.files["txt"].read_text()


# Training what is missing


def states(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in sorted(folder.rglob("*.jsonl"))}


def test_finished_runs_are_used_again_and_shorter_ones_go_on(copied):
    before, begun = states(copied), []
    paths = train_missing("alignment", small(), copied, [0, 1], RunReporter(Output()), report=begun.append)
    assert (states(copied), begun) == (before, [])
    assert [path.name for path in paths] == [
        f"{name}-fixed-{seed}".replace("learned-fixed", "learned") for seed in (0, 1) for name in ORDER
    ]
    (copied / "loop-learned-1").rename(copied / "mine")
    train_missing("gradients", small(epochs=3), copied, [1], RunReporter(Output()), report=begun.append)
    assert len(begun) == 1
    assert "mine" in begun[0]
    assert len(RunFolder(copied / "mine").metrics()) == 3
    assert not (copied / "loop-learned-1").exists()


ORDER = ("loop-learned", "loop", "W1")


def test_runs_are_watched_about_ten_times_an_epoch(runs):
    assert RunFolder(runs / "loop-learned-0").config().probes.every == 1  # six batches in an epoch
    assert len(RunFolder(runs / "loop-learned-0").probes()) == 1 + 2 * 6


def test_only_a_learned_loop_has_variants(tmp_path):
    with pytest.raises(ConfigurationError, match="the configuration is loop fixed, expected a learned loop"):
        train_missing("alignment", small(learning__frozen=["loop"]), tmp_path, [0], RunReporter(Output()))
    assert not list(tmp_path.iterdir())


def test_each_configuration_has_a_default_folder_of_its_own():
    plain = collecting.default_folder("digits", {})
    assert plain == Path("runs/figure-digits")
    assert collecting.default_folder("digits", {"seed": 3, "epochs": 2, "probes.every": 5}) == plain
    others = {collecting.default_folder("digits", {"learning.beta": beta}) for beta in (0.5, 0.6)}
    assert len(others | {plain}) == 3
    assert len({collecting.default_folder(name, {}) for name in presets()}) == len(presets())


# Scripts


def test_there_is_a_script_for_each_figure():
    assert {path.stem for path in (ROOT / "figures").glob("*.py")} >= set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_the_scripts_draw_their_figures(runs, tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--runs", str(runs), "--out", str(tmp_path), "--seeds", "0"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "figures" / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 0
    assert (tmp_path / f"{name}.png").is_file()
    assert f"{name}.csv" in capsys.readouterr().out
