"""A probe reports what the functions it calls return, and omits what does not apply."""

from __future__ import annotations

import json

import numpy as np
import pytest
from problems import random_network

import fsp_dynamics as fsp
from fsp_dynamics.analysis.alignment import loop_alignment, sample_alignment
from fsp_dynamics.analysis.gradients import compare
from fsp_dynamics.analysis.probe import SHOWN, Probe
from fsp_dynamics.analysis.stability import stability
from fsp_dynamics.experiments.records import plain
from fsp_dynamics.learning.optimisers import LearningRates, Sgd
from fsp_dynamics.models.rate import drive
from fsp_dynamics.solvers import relax
from fsp_dynamics.solvers.equilibrium import Tolerance
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.solvers.reference import ReferenceSolver
from fsp_dynamics.training.recipe import Recipe

RECIPE = Recipe(Sgd(LearningRates(1.0, (1.0, 1.0), 1.0)), FixedPointSolver(), Tolerance(1e-10), beta=0.5)
IMAGES, LABELS = np.random.default_rng(0).random((12, 5)), np.arange(12) % 3


def test_it_reports_what_the_functions_return() -> None:
    network = random_network(1, [5, 8, 7, 3], 0.8)
    found, equilibrium = (
        Probe(IMAGES, LABELS, RECIPE).measure(network),
        relax(network, IMAGES, tolerance=Tolerance(1e-12)),
    )
    alignment, samples, held = (
        loop_alignment(network),
        sample_alignment(network, equilibrium),
        stability(network, IMAGES, equilibrium),
    )
    assert found["converged"] == 12
    assert found["alignment"]["degrees"] == alignment.degrees
    assert found["alignment"]["inside"] == alignment.inside
    assert found["samples"]["mean"] == pytest.approx(samples.mean, nan_ok=True)
    assert found["samples"]["std"] == pytest.approx(samples.std, nan_ok=True)
    assert found["gradient"]["degrees"] == compare(network, IMAGES, np.eye(3)[LABELS], RECIPE).degrees
    assert found["stability"]["loop_norm"] == pytest.approx(held.loop_norm.mean())
    assert found["stability"]["loop_norm_max"] == pytest.approx(held.loop_norm.max())
    assert found["stability"]["abscissa"] == pytest.approx(held.abscissa.max())
    assert found["stability"]["settle_time"] == pytest.approx(held.settle_time.mean())
    assert found["stability"]["kink_margin"] == pytest.approx(np.median(held.kink_margin), abs=1e-6)
    shown = np.array(found["stability"]["eigenvalues"])
    np.testing.assert_allclose(shown[:, 0] + 1j * shown[:, 1], held.spectrum.values[:SHOWN].ravel(), atol=1e-4)


def test_unconverged_samples_are_left_out() -> None:
    """A solver with too few steps; the record covers only the samples that converged."""
    network, hasty = random_network(1, [5, 8, 7, 3], 0.8), ReferenceSolver("euler", dt=0.5, max_steps=14)
    equilibrium = hasty.relax(network, drive(network, IMAGES), None, None, Tolerance(1e-3))
    kept = equilibrium.converged
    assert 0 < kept.sum() < 12
    found = Probe(IMAGES, LABELS, Recipe(RECIPE.optimiser, hasty, Tolerance(1e-3))).measure(network)
    assert found["converged"] == kept.sum()
    alone = Probe(IMAGES[kept], LABELS[kept], Recipe(RECIPE.optimiser, hasty, Tolerance(1e-3))).measure(network)
    assert found["samples"] == alone["samples"]
    for part in (found, alone):
        del part["stability"]["eigenvalues"]  # twins on the circle stand in any order
    assert found["stability"] == pytest.approx(alone["stability"])


def test_records_of_other_networks() -> None:
    smooth = Probe(IMAGES, LABELS, RECIPE).measure(
        fsp.loop_network([5, 8, 7, 3], rho="logistic", dtype=np.float64, rng=0)
    )
    assert set(smooth) == {"converged", "alignment", "samples", "gradient"}
    reciprocal = Probe(IMAGES, LABELS, RECIPE).measure(fsp.reciprocal_network([5, 8, 7, 3], dtype=np.float64, rng=0))
    assert set(reciprocal) == {"converged", "gradient"}
    assert max(reciprocal["gradient"]["sources"]["non-reciprocity"].values()) < 1e-9


def test_zero_matrices_and_perfect_outputs() -> None:
    network = random_network(1, [5, 8, 7, 3], 0.8)
    cut = network.with_parameters({"loop": np.zeros_like(network.loop)})
    assert all(np.isnan(value) for value in Probe(IMAGES, LABELS, RECIPE).measure(cut)["alignment"]["degrees"].values())
    perfect = network.with_parameters({"biases[2]": np.array([50.0, -50.0, -50.0])})
    assert "gradient" not in Probe(IMAGES, np.zeros(12, int), RECIPE).measure(perfect)


def test_it_can_be_written_as_json() -> None:
    found = plain(Probe(IMAGES, LABELS, RECIPE).measure(random_network(1, [5, 8, 7, 3], 0.8)))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
