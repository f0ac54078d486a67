"""The errors of the learners of spiking networks through training (table V).

    python figures/spiking.py [--out figures] RUN [RUN ...]      python figures/spiking.py --redraw

See figures/curves.py.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import curves

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.learners.naming import learner_of
from fsp_dynamics.experiments.run import Run


def errors_of(run: Run, record: Mapping[str, Any]) -> Mapping[str, float]:
    """{learner: test error}. Raises ConfigurationError for a run without spikes."""
    if run.config.key("network.kind") != "snn":
        raise ConfigurationError(f"{run.folder} has no spiking network; give runs of network.kind = 'snn'")
    return {learner_of(run.config): record["test_error"]}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    return curves.main(
        "spiking", "Errors of spiking networks through training (docs/spiking.md).", errors_of, arguments
    )


if __name__ == "__main__":
    sys.exit(main())
