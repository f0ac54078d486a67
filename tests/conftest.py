"""What every test shares. `import oracles` and `import problems` work in all of them (pythonpath in pyproject.toml)."""

from __future__ import annotations

import problems
import pytest


@pytest.fixture(params=problems.DTYPES, ids=lambda dtype: dtype.__name__)
def dtype(request):
    """float32, then float64."""
    return request.param
