"""Spiking networks written to files of NIR."""

from __future__ import annotations

from pathlib import Path

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.folders import expanded
from fsp_dynamics.layerwise.learners import Learner
from fsp_dynamics.layerwise.nir_export import nir_bytes, nir_graph
from fsp_dynamics.writing import write_aside

SUFFIX = ".nir"


def check_nir(path: Path) -> Path:
    """The path, if a graph can be written under it. Raises ConfigurationError."""
    if path.suffix.lower() != SUFFIX:
        raise ConfigurationError(f"export = {str(path)!r} ends in {path.suffix!r}, expected {SUFFIX}")
    return path


def write_nir(path: str | Path, learner: Learner) -> Path:
    """Write the network of a learner as a graph of NIR (`layerwise.nir_export`), for `nir.read`.
    The file is the old one or the new one, never half. Raises ConfigurationError for another suffix
    and for what NIR cannot say exactly, ModuleNotFoundError without `nir`, OSError.

    Returns
    -------
    Path : the file.
    """
    path = check_nir(expanded(path, "export"))
    content = nir_bytes(nir_graph(learner))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, content)
    return path
