"""`fsp explore --notebook`: what is started, and what is refused before anything is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fsp_dynamics.cli import main
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments import notebook

ROOT = Path(__file__).parents[2]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list:
    """(command, environment) of every process that would have been started; each ends with 0."""
    calls: list = []
    monkeypatch.setattr(notebook.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(notebook.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(subprocess, "call", lambda command, env: calls.append((command, env)) or 0)
    return calls


def test_it_opens_the_notebook_of_the_source_tree(started: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(notebook.RUN, "of an earlier call")
    assert main(["explore", "--notebook"]) == 0
    ((command, environment),) = started
    assert command == [
        sys.executable,
        "-m",
        "jupyterlab",
        str(ROOT / "notebooks" / "02_explore.ipynb"),
        "--LabApp.default_url=/doc/tree/02_explore.ipynb",
    ]
    assert notebook.RUN not in environment


def test_root_is_let_in(started: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook.os, "geteuid", lambda: 0)
    assert notebook.explore() == 0
    assert started[0][0][-1] == "--allow-root"


def test_the_notebook_is_given_the_run(started: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    (run / "config.toml").touch()
    monkeypatch.chdir(tmp_path)
    assert main(["explore", "runs/a", "--notebook", "--port", "9999", "--no-browser"]) == 0
    ((command, environment),) = started
    assert command[-2:] == ["--ServerApp.port=9999", "--no-browser"]
    assert Path(environment[notebook.RUN]) == run
    assert f'os.environ.get("{notebook.RUN}")' in (ROOT / notebook.NOTEBOOK).read_text(encoding="utf-8").replace(
        '\\"', '"'
    )


def test_what_is_no_run_is_refused(started: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", str(tmp_path), "--notebook"]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert started == []


def test_without_jupyterlab_the_message_names_what_to_install(started: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook.importlib.util, "find_spec", lambda name: None if name == "jupyterlab" else object())
    with pytest.raises(
        ConfigurationError,
        match=r"the explorer in a notebook needs jupyterlab, which is not installed; install fsp_dynamics\[notebook\]",
    ):
        notebook.explore()
    assert started == []


def test_without_a_source_tree_the_message_names_the_alternative(
    started: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "NOTEBOOK", Path("notebooks") / "nowhere.ipynb")
    with pytest.raises(ConfigurationError, match=r"fsp\.explore\(\)"):
        notebook.explore()
    assert started == []


def test_ctrl_c_is_a_good_end(started: list, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(command: list, env: dict) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "call", interrupted)
    assert notebook.explore() == 0
