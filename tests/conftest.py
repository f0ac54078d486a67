"""What every test shares. `import oracles` and `import problems` work in all of them (pythonpath
in pyproject.toml).
"""

from __future__ import annotations

import problems
import pytest


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
