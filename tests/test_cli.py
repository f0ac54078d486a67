"""The command line: one line for every failure, the documented exit code, results on stdout and
nothing else there.
"""

from __future__ import annotations

import ast
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fsp_dynamics import cli
from fsp_dynamics.cli import main
from fsp_dynamics.cli.messages import in_options
from fsp_dynamics.datasets import DATASETS
from fsp_dynamics.errors import (
    CheckpointError,
    DatasetError,
    NotAFileError,
    NotFiniteError,
    RunExistsError,
    RunLockedError,
    ShapeError,
)
from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.experiments.runner import open_run, train

pytestmark = pytest.mark.filterwarnings("ignore:epoch .* output")
ROOT = Path(__file__).parents[1]
BARE = ["--data.limit", "120", "--network.hidden", "12", "--no-progress"]
SMALL = [*BARE, "--learning.rates.forward", "7.0"]
TINY = [*SMALL, "--epochs", "2"]


def command(*arguments):
    return [sys.executable, "-m", "fsp_dynamics", *map(str, arguments)]


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def fsp(*arguments, **options):
    """Run the command line in a process of its own."""
    env = environment(**options.pop("env", {}))
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=240, check=False, env=env, **options
    )


def refused(done, code, *words):
    """It ended with that code, one line with these words on stderr, and printed no result and no
    traceback.
    """
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    line = [line for line in done.stderr.splitlines() if line.startswith("fsp: ")]
    assert len(line) == 1, done.stderr
    for word in words:
        assert word in line[0]
    assert done.stdout == ""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a small finished run."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", "digits", "--out", str(folder), *TINY]) == 0
    return folder


def spoil(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["figure", "--help"],
        ["--version"],
        ["train", "digits", "--learning.bach", "3"],
        ["runs", "nowhere"],
    ],
)
def test_help_and_refusals_import_nothing_heavy(arguments):
    code = f"""
import sys
from fsp_dynamics.cli import main
from fsp_dynamics.cli.messages import in_options
main({arguments})
heavy = {{"numba", "scipy", "matplotlib", "torch", "sklearn", "xarray", "pandas", "safetensors", "tqdm"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=environment()
    )
    loaded = set(json.loads(done.stdout.splitlines()[-1].replace("'", '"')))
    assert not loaded - ({"safetensors"} if arguments[0] == "runs" else set())


def test_the_list_of_commands_says_how_the_help_of_each_begins():
    assert list(cli.COMMANDS) == sorted(name for name in cli.app if not name.startswith("-"))
    for name, (_, does) in cli.COMMANDS.items():
        assert f"{' '.join(cli.app[name].help.split()).rstrip('.')}. ".startswith(f"{does} "), name


def test_the_list_of_commands_imports_none_of_them():
    code = "import sys; from fsp_dynamics.cli import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "fsp_dynamics.cli" in loaded
    assert not {f"fsp_dynamics.cli.{module}" for module, _ in cli.COMMANDS.values()} & loaded
    assert not {"pydantic", "fsp_dynamics.experiments"} & loaded


@pytest.mark.parametrize("words", [["--help"], ["-h"], []])
def test_help_lists_every_command_and_exit_code(words, capsys):
    assert main(words) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for _, does in cli.COMMANDS.values():
        assert does in shown
    for code in (
        "0 success",
        "2 usage",
        "3 data",
        "4 diverged",
        "5 checkpoint",
        "6 run folder locked",
        "7 disk",
        "8 another process",
        "130, 143 interrupted",
    ):
        assert code in shown


def test_training_help_lists_presets_and_every_configuration_key(capsys):
    assert main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    for word in (
        "mnist-2x1500",
        "--learning.batch",
        "--network.hidden",
        "--solver.absolute",
        "--epochs",
        "--resume",
        "--data-dir",
        "--threads",
    ):
        assert word in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tran"], ['Did you mean "train"']),
        (["train", "digits", "--epoch", "3"], ["--epoch", "Did you mean --epochs"]),
        (["train", "digits", "--learning.bach", "3"], ["Did you mean --learning.batch"]),
        (["train", "digts"], ["did you mean 'digits'"]),
        (["train", "digits", "--learning.batch", "0"], ["learning.batch = 0", "greater than or equal to 1"]),
        (["train", "digits", "--seed", "x"], ["seed = 'x'", "a valid integer"]),
        (["train", "digits", "--threads", "0"], ["threads = 0"]),
        (["train", "digits", "--threads", "many"], ["--threads"]),
        (["train", "nowhere/mine.toml"], ["no such file"]),
        (["train", "digits", "--out", ""], ["--out = ''", "expected a folder"]),
        (["sweep", "digits", "--out", ""], ["--out = ''", "expected a folder"]),
        (["train"], ["SOURCE"]),
        (["evaluate", "nowhere"], ["is no folder"]),
        (["evaluate", "RUN", "--split", "tst"], ['Did you mean "test"']),
        (["evaluate", "RUN", "RUN"], ["too many arguments: ", "fsp evaluate --help"]),
        (["compare", "RUN", "nowhere"], ["is no folder"]),
        (["train", "digits", "--out", "RUN"], ["already holds a run", "--resume"]),
        (["train", "digits", "--out", "RUN", "--resume"], ["network.hidden was [12], now [100, 100]"]),
        (["quickstart", "--out", "RUN"], ["no quickstart"]),
        (["data", "fetch", "mnst"], ["did you mean 'mnist'"]),
        (["figure", "alignmnt"], ['Did you mean "alignment"']),
        (["figure", "alignment", "--runs", "RUN"], ["lacks loop fixed among its 1 runs", "--train"]),
        (["figure", "alignment", "--runs", "nowhere"], ["nowhere is no folder", "--train"]),
        (["figure", "errors", "--runs", "RUN", "--seeds", "1,x"], ["seeds = '1,x'", "0,1,2"]),
        (["figure", "errors", "--runs", "RUN", "--seeds", "5"], ["no run of seed 5"]),
        (["figure", "errors", "--runs", "RUN", "--epochs", "3"], ["epochs", "--train"]),
        (["figure", "errors", "--runs", "RUN", "elsewhere", "--train"], ["--runs names 2"]),
        (
            ["figure", "errors", "--train", "--preset", "mnist-ep-2x500"],
            ["equilibrium propagation, expected a learned loop"],
        ),
        (["figure", "errors", "--preset", "digts"], ["did you mean 'digits'"]),
        (["stability", "nowhere"], ["is no folder"]),
        (["stability", "RUN", "--samples", "0"], ["samples = 0"]),
        (["gradients", "RUN", "--samples", "0"], ["samples = 0"]),
        (["gradients", "RUN", "--checkpoint", "lst"], ['Did you mean "last"']),
    ],
)
def test_usage_and_configuration_end_with_2(trained, capsys, arguments, words):
    assert main([str(trained) if each == "RUN" else each for each in arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("fsp: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DatasetError("x"), 3),
        (NotFiniteError("x"), 4),
        (CheckpointError("x"), 5),
        (RunLockedError("x"), 6),
        (RunExistsError("x"), 2),
        (ShapeError("x"), 2),
        (PermissionError(13, "Permission denied"), 7),
        (OSError(28, "No space left on device"), 7),
        (KeyboardInterrupt(), 130),
        (TypeError("two\nlines"), 1),
        (NotAFileError("x"), 7),
        (MemoryError(), 7),
        (RecursionError(), 1),
    ],
)
def test_every_error_has_its_exit_code(monkeypatch, capsys, error, code):
    def fails(*arguments, **options):
        raise error

    monkeypatch.setattr(cli, "app", fails)
    assert main(["check"]) == code
    assert len(capsys.readouterr().err.splitlines()) == 1
    monkeypatch.setenv("FSP_DEBUG", "1")
    with pytest.raises(type(error)):
        main(["check"])


def test_an_internal_error_is_called_one(monkeypatch, capsys):
    def fails(*arguments, **options):
        raise TypeError("two\nlines")

    monkeypatch.setattr(cli, "app", fails)
    assert main(["check"]) == 1
    assert capsys.readouterr().err.startswith("fsp: internal error, TypeError: two lines; please report it")


def test_messages_of_python_functions_name_arguments_and_the_command_line_options(trained, capsys):
    with pytest.raises(RunExistsError, match=re.escape("resume it (resume=True) or give another folder (out=...)")):
        train("digits", out=trained)
    assert main(["train", "digits", "--out", str(trained)]) == 2
    shown = capsys.readouterr().err
    assert "resume it (--resume) or give another folder (--out)" in shown
    assert in_options("give allow_import=('mine',)") == "give --allow-import mine"
    assert in_options("(data_dir=...), which='last', tied=True, out = 3") == (
        "(--data-dir), fsp evaluate RUN --checkpoint last, tied=True, out = 3"
    )


def test_no_error_of_the_package_names_an_option():
    """The command line alone knows options."""
    for path in (ROOT / "fsp_dynamics" / "experiments").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise):
                texts = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
                assert not [
                    text for text in texts if isinstance(text, str) and re.search(r"(^|[\s(])--(?!nthreads)[a-z]", text)
                ], path


@pytest.mark.cli
def test_2_in_a_process():
    refused(fsp("train", "digits", "--learning.batch", "0"), 2, "learning.batch = 0")
    refused(fsp("tran"), 2, 'Did you mean "train"')


@pytest.mark.cli
def test_3_for_damaged_data(tmp_path):
    (tmp_path / "mnist").mkdir()
    for name in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ):
        (tmp_path / "mnist" / name).write_bytes(b"\x00\x00\x08\x03\x00")
    refused(
        fsp("train", "mnist-2x500", "--data-dir", tmp_path, "--out", tmp_path / "run"), 3, "train-images-idx3-ubyte"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.cli
def test_4_for_divergence(tmp_path):
    explosive = ["--learning.rates.input", "1e60", "--learning.rates.forward", "1e60", "--learning.normalised", "false"]
    done = fsp("train", "digits", "--out", tmp_path, *BARE, *explosive)
    refused(done, 4, "not finite")
    assert all(np.isfinite(w).all() for w in open_run(tmp_path).network("last").parameters().values())


@pytest.mark.cli
def test_5_for_a_damaged_checkpoint(tmp_path):
    assert main(["train", "digits", "--out", str(tmp_path), *TINY]) == 0
    for path in (tmp_path / "checkpoints").glob("*.safetensors"):
        spoil(path)
    refused(fsp("evaluate", tmp_path), 5, "it is damaged", "fsp evaluate")
    refused(fsp("train", tmp_path, "--resume", "--epochs", "3"), 5, "it is damaged")


@pytest.mark.cli
def test_6_for_a_locked_run(trained):
    with RunFolder(trained).locked():
        refused(fsp("train", trained, "--resume", "--epochs", "3", "--no-progress"), 6, f"process {os.getpid()}")
        refused(fsp("train", "digits", "--out", trained), 6)


def no_large_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))


@pytest.mark.cli
def test_7_for_a_disk_that_refuses(tmp_path):
    (tmp_path / "file").write_text("")
    refused(fsp("train", "digits", "--out", tmp_path / "file" / "run", *TINY), 7, "Not a directory")
    refused(
        fsp(
            "train",
            "digits",
            "--out",
            tmp_path / "full",
            *TINY,
            preexec_fn=no_large_files,
            env={"NUMBA_DISABLE_JIT": "0", "GIT_OPTIONAL_LOCKS": "0"},  # git would leave half an index.lock
        ),
        7,
        "File too large",
    )
    assert not list((tmp_path / "full" / "checkpoints").glob(".*"))


@pytest.mark.cli
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_130_and_143_after_saving_and_the_run_goes_on_to_the_same_bits(tmp_path, number, code):
    arguments = command("train", "digits", "--out", tmp_path / "a", *SMALL, "--epochs", "2000")
    process = subprocess.Popen(arguments, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "a" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and metrics.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert out == ""
    assert re.search(r"fsp: stopped by a signal in epoch \d+; .* resume with --resume", err)
    done = len(open_run(tmp_path / "a").metrics)
    epochs = str(done + 1)
    assert main(["train", str(tmp_path / "a"), "--resume", "--epochs", epochs, "--no-progress"]) == 0
    assert main(["train", "digits", "--out", str(tmp_path / "b"), *SMALL, "--epochs", epochs]) == 0
    here, there = (open_run(tmp_path / name).network("last").parameters() for name in ("a", "b"))
    assert all(np.array_equal(here[name], there[name]) for name in here)


def test_130_while_it_is_still_being_loaded():
    code = """
import sys
class Stop:
    def find_spec(self, name, *rest):
        if name == "fsp_dynamics.cli":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stop())
from fsp_dynamics.__main__ import main
raise SystemExit(main())
"""
    refused(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=environment()
        ),
        130,
        "stopped",
    )


def test_results_are_json_on_stdout_and_notes_are_not(trained, tmp_path, capsys):
    tables = {
        "train": ["train", "digits", "--out", str(tmp_path / "j"), *TINY],
        "evaluate": ["evaluate", str(trained), "--split", "valid", "--checkpoint", "last"],
        "runs": ["runs", str(trained.parent)],
        "compare": ["compare", str(trained), str(trained)],
        "data": ["data", "list", "--data-dir", str(tmp_path)],
    }
    found = {}
    for name, arguments in tables.items():
        assert main([*arguments, "--json"]) == 0
        found[name] = json.loads(capsys.readouterr().out)
    assert found["train"]["last"]["epoch"] == 2
    assert found["evaluate"]["error"] == open_run(trained).metrics[-1]["valid_error"]
    assert found["runs"][0]["epochs"] == 2
    assert found["compare"]["configuration"] == {}
    assert {record["name"] for record in found["data"]} == set(DATASETS)


def test_tables_and_json_agree(trained, capsys):
    run = open_run(trained)
    assert main(["runs", str(trained.parent)]) == 0
    assert f"{run.summary['best']['test_error']:.4g}" in capsys.readouterr().out
    assert main(["evaluate", str(trained)]) == 0
    shown = capsys.readouterr().out
    assert "hidden1: share at 0, at 1" in shown
    stuck = run.evaluate("test").stuck
    assert re.search(rf"hidden1: units at 0, at 1 on every image +{stuck['hidden1'][0]}, {stuck['hidden1'][1]}", shown)
    assert main(["compare", str(trained), str(trained)]) == 0
    assert "configuration: nothing to show" in capsys.readouterr().out
    assert main(["data", "list"]) == 0
    assert "digits" in capsys.readouterr().out
    assert main(["data", "fetch", "digits", "--no-progress"]) == 0
    assert Path(capsys.readouterr().out.strip()).exists()


def test_overrides_reach_the_configuration(tmp_path, capsys):
    arguments = [
        "--learning.beta=-0.5",
        "--learning.frozen",
        "loop,forward[0]",
        "--learning.normalised",
        "false",
        "--seed",
        "3",
    ]
    assert main(["train", "digits", "--out", str(tmp_path), *TINY, *arguments]) == 0
    config = open_run(tmp_path).config
    assert config.network.hidden == (12,)
    assert (config.learning.beta, config.learning.frozen, config.learning.normalised, config.seed) == (
        -0.5,
        ("loop", "forward[0]"),
        False,
        3,
    )
    assert "a negative beta alone" in capsys.readouterr().err


def test_quickstart_prints_the_result_and_what_to_try(monkeypatch, capsys, tmp_path, trained):
    def instead(out, reporter, threads=None):
        return open_run(trained), Path(out) / "quickstart.png"

    monkeypatch.setattr("fsp_dynamics.experiments.quickstart.quickstart", instead)
    assert main(["quickstart", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert f"test error {open_run(trained).summary['best']['test_error']:.2f} %" in shown
    assert f"{tmp_path}/quickstart.png" in shown
    assert f"{open_run(trained).summary['seconds']:.2f} s of training" in shown, "less than a second is not none"
    assert "fsp train mnist-2x500" in shown


@pytest.mark.parametrize(("value", "code", "verdict"), [(1.0, 0, "pass"), (2.0, 4, "FAIL")])
def test_check_ends_with_4_where_a_figure_fails(monkeypatch, capsys, value, code, verdict):
    from fsp_dynamics.experiments import check

    monkeypatch.setattr(
        check, "run_checks", lambda report, backend: iter([check.Measured("order", "euler", value, 0.95, 1.05)])
    )
    assert main(["check"]) == code
    assert verdict in capsys.readouterr().out
    assert main(["check", "--json"]) == code
    assert json.loads(capsys.readouterr().out)[0]["passed"] == (code == 0)


@pytest.mark.cli
def test_a_reader_that_leaves_is_no_failure(trained):
    shell = f"set -o pipefail; {' '.join(command('runs', trained.parent, '--json'))} | true"
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, timeout=60, check=False, env=environment()
    )
    assert done.returncode == 0
    assert done.stderr == ""


# What learning does to the loop


def test_a_figure_is_trained_drawn_and_found_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["figure", "gradients", "--preset", "digits", "--out", "pictures", *TINY[:-2], "--epochs", "1"]
    assert main(arguments) == 2
    assert "--train makes what is missing" in capsys.readouterr().err
    assert main([*arguments, "--train"]) == 0
    shown = capsys.readouterr()
    assert "training: loop learned, seed 0, in runs/figure-digits-" in shown.err
    assert [line.split()[1] for line in shown.out.splitlines()] == [
        f"pictures/gradients.{end}" for end in ("png", "svg", "csv", "txt")
    ]
    assert main([*arguments, "--train", "--json"]) == 0
    shown = capsys.readouterr()
    assert "training" not in shown.err
    found = json.loads(shown.out)
    assert (found["figure"], found["epochs"], len(found["runs"])) == ("gradients", 1, 1)
    assert all(Path(path).is_file() for path in found["files"].values())
    assert main([*arguments, "--seeds", "0"]) == 0


def test_the_command_knows_every_figure():
    from typing import get_args

    from fsp_dynamics.cli.analysis import Name
    from fsp_dynamics.experiments.figures.drawing import FIGURES

    assert get_args(Name) == tuple(FIGURES)


def test_stability_agrees_with_the_analysis(trained, capsys):
    from fsp_dynamics.analysis.stability import stability
    from fsp_dynamics.datasets import load_dataset
    from fsp_dynamics.solvers import relax
    from fsp_dynamics.solvers.equilibrium import Tolerance

    assert main(["stability", str(trained), "--samples", "6", "--checkpoint", "last", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["samples"], found["converged"], found["unstable"]) == ("valid", 6, 6, 0)
    network, given = open_run(trained).network("last").astype(np.float64), open_run(trained).config.data
    images = load_dataset("digits", limit=given.limit).valid.images[:6]
    truth = stability(network, images, relax(network, images, tolerance=Tolerance(1e-12)))
    for name, expected in (
        ("abscissa (per unit time)", truth.abscissa),
        ("longest stable dt, Euler", truth.dt),
        ("kink margin", truth.kink_margin),
    ):
        assert found["numbers"][name] == pytest.approx(
            {"mean": expected.mean(), "min": expected.min(), "max": expected.max()}, rel=1e-6
        )
    assert found["settle_time"]["predicted"] == pytest.approx(truth.settle_time[:3].tolist())
    assert found["settle_time"]["measured"] == pytest.approx(found["settle_time"]["predicted"], rel=0.01)
    assert main(["stability", str(trained), "--samples", "6"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "6 of 6 valid images converged" in shown
    assert "least stable beta" in shown


def test_gradients_agree_with_the_analysis(trained, capsys):
    from fsp_dynamics.analysis.gradients import compare
    from fsp_dynamics.datasets import load_dataset
    from fsp_dynamics.experiments.rate.building import build_recipe

    assert main(["gradients", str(trained), "--samples", "20", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    run = open_run(trained)
    split = load_dataset("digits", limit=run.config.data.limit).valid
    truth = compare(
        run.network(), split.images[:20], np.eye(10, dtype=np.float32)[split.labels[:20]], build_recipe(run.config)
    )
    assert (found["used"], list(found["degrees"])) == (truth.used, ["input", "forward[0]", "loop"])
    assert found["degrees"] == pytest.approx(truth.degrees)
    assert found["sources"]["finite beta"] == pytest.approx(truth.sources["finite beta"])
    assert main(["gradients", str(trained), "--samples", "20"]) == 0
    shown = capsys.readouterr().out
    assert f"{found['degrees']['loop']:.4g}" in shown
    assert "non-reciprocity" in shown


def test_networks_without_a_loop_are_analysed_as_far_as_that_goes(tmp_path, capsys):
    reciprocal = [
        "--network.kind",
        "reciprocal",
        "--network.forward_scale",
        "0.4",
        "--learning.rates.loop",
        "0",
        "--learning.beta",
        "0.5",
    ]
    table = tmp_path / "ep.toml"
    table.write_text(
        (ROOT / "fsp_dynamics" / "experiments" / "presets" / "digits.toml")
        .read_text()
        .replace("loop_scale = 0.2\n", "")
    )
    assert main(["train", str(table), "--out", str(tmp_path / "run"), *TINY, *reciprocal]) == 0
    capsys.readouterr()
    assert main(["stability", str(tmp_path / "run"), "--samples", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["numbers"]["gain of one turn ||G_D||"] == {
        "mean": None,
        "min": None,
        "max": None,
    }
    assert main(["gradients", str(tmp_path / "run"), "--samples", "30"]) == 0
    assert "forward[0]" in capsys.readouterr().out
