"""The errors of every exit of a discrete network through training: what each layer would predict by
itself (eq. 8), and the classification layer.

    python figures/exits.py [--out figures] RUN [RUN ...]      python figures/exits.py --redraw

See figures/curves.py.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import curves

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.run import Run


def errors_of(run: Run, record: Mapping[str, Any]) -> Mapping[str, float]:
    """{exit: test error}. Raises ConfigurationError for a run without exits."""
    errors: dict[str, float] | None = record.get("exit_errors", {}).get("test")
    if not errors:
        raise ConfigurationError(f"{run.folder} has no errors of exits; give runs of family = 'layerwise'")
    return errors


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    return curves.main("exits", "Errors of every exit through training (docs/layerwise.md).", errors_of, arguments)


if __name__ == "__main__":
    sys.exit(main())
