"""The built wheel where no source tree is: its commands run, or say in one line what they lack."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("fsp_dynamics", "pyproject.toml", "setup.cfg", "README.md", "LICENSE")  # what a build reads

pytestmark = [
    pytest.mark.rare,
    pytest.mark.slow,
    pytest.mark.cli,
    pytest.mark.skipif(sys.platform == "win32", reason="the folders of a virtual environment"),
    pytest.mark.timeout(3000),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment `bare` in which the wheel is installed, and an empty folder
    `here`. Other packages are those of this environment; the sources are out of reach.
    """
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    tree.mkdir()
    for name in SOURCES:
        path = ROOT / name
        hidden = shutil.ignore_patterns("__pycache__")
        shutil.copytree(path, tree / name, ignore=hidden) if path.is_dir() else shutil.copy(path, tree / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder), str(tree)]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run(build, check=True, capture_output=True, timeout=600, env=alone)
    shutil.rmtree(tree)
    (wheel,) = folder.glob("fsp_dynamics-*.whl")
    venv.create(folder / "bare", with_pip=False, symlinks=True)
    python = folder / "bare" / "bin" / "python"
    install = [*pip[:3], "--python", str(python), *pip[3:], "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=600, env=alone)
    (packages,) = (folder / "bare" / "lib").glob("python*/site-packages")
    present = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "present.pth").write_text("\n".join(present) + "\n")
    (folder / "here").mkdir()
    return folder


def command(place: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """(command, environment) of `fsp` there, for a user who has nothing yet."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FSP_", "NUMBA_", "PYTHON"))}
    own = {"HOME": str(place), "XDG_CACHE_HOME": str(place / "cache"), "MPLBACKEND": "Agg", "COLUMNS": "100"}
    return [str(place / "bare" / "bin" / "fsp"), *arguments], kept | own


def fsp(place: Path, *arguments: str, code: int = 0) -> str:
    """Run `fsp` in the empty folder; what it wrote."""
    line, environment = command(place, *arguments)
    done = subprocess.run(
        line, cwd=place / "here", env=environment, capture_output=True, text=True, timeout=2000, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_the_package_is_that_of_the_wheel_with_its_data(place: Path) -> None:
    code = (
        "import json, fsp_dynamics as f, matplotlib.pyplot as p, pathlib as l;"
        "from fsp_dynamics.experiments.config_io import presets;"
        "p.style.use('fsp_dynamics.plotting.fsp');"
        "w = f.explore(f.loop_network([64, 20, 10], rng=0));"
        "r = l.Path(f.__file__).parent;"
        "print(json.dumps([str(r), f.__version__, presets(), len(w._esm), len(w._css), (r / 'py.typed').is_file()]))"
    )
    _, environment = command(place)
    line = [str(place / "bare" / "bin" / "python"), "-c", code]
    done = subprocess.run(
        line, cwd=place / "here", env=environment, capture_output=True, text=True, timeout=600, check=True
    )
    folder, version, names, script, style, typed = json.loads(done.stdout)
    assert Path(folder).is_relative_to(place)
    assert version in fsp(place, "--version")
    assert sorted(path.stem for path in (ROOT / "fsp_dynamics" / "experiments" / "presets").glob("*.toml")) == names
    assert min(script, style) > 1000
    assert typed


def test_quickstart_trains_and_draws(place: Path) -> None:
    assert "test error" in fsp(place, "quickstart")
    assert (place / "here" / "quickstart" / "quickstart.png").stat().st_size > 10_000


@pytest.fixture(scope="module")
def run(place: Path) -> str:
    """A short run, trained there."""
    fsp(place, "train", "digits", "--epochs", "1", "--out", "runs/a")
    return "runs/a"


def test_a_run_is_evaluated_listed_and_drawn(place: Path, run: str) -> None:
    assert "%" in fsp(place, "evaluate", run)
    assert "a" in fsp(place, "runs")
    assert "figures/errors.png" in fsp(place, "figure", "errors", "--runs", run)
    assert (place / "here" / "figures" / "errors.png").stat().st_size > 10_000


def test_check_passes(place: Path) -> None:
    assert ", 0 failed" in fsp(place, "check")


@pytest.fixture
def explorer(place: Path, run: str) -> Iterator[str]:
    """The address of the explorer's page, which is open for one test."""
    line, environment = command(place, "explore", run, "--no-browser")
    server = subprocess.Popen(line, cwd=place / "here", env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        address = next(found[0] for text in server.stderr if (found := re.search(r"http://127\S+", text)))
        yield address
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=60)


def test_the_explorer_opens(explorer: str) -> None:
    for name, content in {"": "<html", "explorer.js": "function", "model.json": '"controls"'}.items():
        with urllib.request.urlopen(explorer + name, timeout=60) as answer:
            assert content in answer.read().decode()


@pytest.mark.parametrize(("arguments", "lacks"), [(["bench"], "benchmarks"), (["explore", "--notebook"], "notebooks")])
def test_what_needs_the_sources_says_so_in_one_line(arguments: list[str], lacks: str, place: Path) -> None:
    written = fsp(place, *arguments, code=2).strip()
    assert lacks in written
    assert "source" in written or "clone" in written
    assert len(written.splitlines()) == 1
