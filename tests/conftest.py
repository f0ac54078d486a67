"""What every test shares. `import oracles` and `import problems` work in all of them (pythonpath
in pyproject.toml).
"""

from __future__ import annotations

import os
import signal

import problems
import pytest

# Which test is the first to need a kernel is chance; what is said then has tests of its own.
os.environ["FSP_QUIET"] = "1"

# Files that come first where two processes share the tests, each file in one of them (`make test`):
# those that compile most, in an order in which the two seldom compile the same kernels at a time,
# then the longest.
FIRST = (
    "tests/training/test_epoch.py",  # the loop's kernels in float64, while
    "tests/learning/test_mirror.py",  # this one compiles them in float32
    "tests/solvers/test_numba_ode.py",
    "tests/solvers/test_fixed_point.py",
    "tests/training/test_loop_engine.py",
    "tests/kernels/test_field.py",
    "tests/kernels/test_panels.py",
    "tests/solvers/test_packed_layers.py",
    "tests/test_solvers_agree.py",
    "tests/experiments/sweeps/test_sweep.py",
    "tests/test_notebooks.py",
    "tests/test_cli.py",
    "tests/test_face.py",
    "tests/experiments/jobs/test_job.py",
    "tests/experiments/test_runner.py",
    "tests/torch_backend/test_torch_ode.py",
    "tests/test_backends_agree.py",
)


def pytest_configure() -> None:
    """Ctrl-C means what it does at a prompt, also where a shell started the tests in the background
    and had it ignored: tests send it, and one would wait for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files of FIRST come first."""
    rank = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: rank.get(item.nodeid.split("::")[0], len(FIRST)))


@pytest.fixture(params=["rows leave", "rows are masked"])
def cut(request, monkeypatch) -> bool:
    """Both treatments of rows converged, whichever the device would have."""
    from fsp_dynamics.torch_backend import passes

    leave = request.param == "rows leave"
    monkeypatch.setattr(passes, "cuts_down", lambda device: leave)
    return leave


@pytest.fixture
def one_thread() -> None:
    """Numba, when it starts, gives torch as many threads as it takes itself: slow, for what is as
    small as in tests.
    """
    import numba
    import torch

    numba.get_num_threads()
    torch.set_num_threads(1)


@pytest.fixture(params=problems.DTYPES, ids=lambda dtype: dtype.__name__)
def dtype(request):
    """float32, then float64."""
    return request.param
