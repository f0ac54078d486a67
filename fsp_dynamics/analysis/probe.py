"""What is read off a network while it learns: the same images looked at again and again."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fsp_dynamics.analysis.alignment import loop_alignment, sample_alignment
from fsp_dynamics.analysis.gradients import NothingToCompareError, compare
from fsp_dynamics.analysis.spectra import eigenvalues, is_hard_loop, linearise
from fsp_dynamics.analysis.stability import kink_margin, settle_time
from fsp_dynamics.models import rate
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.solvers.equilibrium import Equilibrium
from fsp_dynamics.solvers.response import loop_matrix
from fsp_dynamics.training.recipe import Recipe

SHOWN = 10  # samples whose eigenvalues are written down

Record = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """The images that are looked at, and how the network learns.

    images (B, n_in), labels (B,). recipe : its solver and tolerance bring them to convergence; its rule
    and beta are compared with the gradient.
    """

    images: Array
    labels: Array
    recipe: Recipe

    def __repr__(self) -> str:
        return f"<Probe of {len(self.labels)} images, {type(self.recipe.rule).__name__}>"

    def look(self, network: Network) -> Record:
        """Everything there is to say, as plain numbers by name.

        alignment : degrees, bound, inside, z_score by matrix, and trace
            (`alignment.loop_alignment`); loops only
        samples : mean, std, undefined by matrix (`alignment.sample_alignment`), over the images at
            rest; loops only
        gradient : degrees, norm_ratio, sources, stages by matrix, and used (`gradients.compare`);
            left out where nothing has an error and rests
        stability : loop_norm, loop_norm_max (of G_D), abscissa, settle_time (to a thousandth),
            kink_margin (median), eigenvalues [[re, im], ...] of the field in the first samples;
            loops with a hard sigmoid only
        converged : how many of the images
        """
        constant = rate.drive(network, self.images)
        free = self.recipe.solver.relax(network, constant, None, None, self.recipe.tolerance)
        kept = np.flatnonzero(free.converged)
        images, rest = self.images[kept], free.rows(kept)
        found: Record = {"converged": int(kept.size)}
        with warnings.catch_warnings():
            # matrices that are zero have no angle; NaN says so
            warnings.simplefilter("ignore", RuntimeWarning)
            if network.loop is not None:
                found["alignment"] = asdict(loop_alignment(network))
                samples = sample_alignment(network, rest)
                found["samples"] = {"mean": samples.mean, "std": samples.std, "undefined": samples.undefined}
            with contextlib.suppress(NothingToCompareError):
                targets = np.eye(network.sizes[-1], dtype=network.dtype)[self.labels]
                found["gradient"] = asdict(compare(network, self.images, targets, self.recipe))
            if is_hard_loop(network) and kept.size:
                found["stability"] = _stability(network, images, rest)
        return found


def _stability(network: Network, images: Array, rest: Equilibrium) -> Record:
    linear = linearise(network, images, rest)
    norms = np.linalg.norm(loop_matrix(linear.network, linear.gains), 2, axis=(1, 2))
    spectrum = eigenvalues(linear)
    shown = spectrum.values[:SHOWN].ravel()
    return {
        "loop_norm": float(norms.mean()),
        "loop_norm_max": float(norms.max()),
        "abscissa": float(spectrum.abscissa.max()),
        "settle_time": float(settle_time(spectrum.abscissa).mean()),
        "kink_margin": float(np.median(kink_margin(network, images, rest))),
        "eigenvalues": [[round(float(v.real), 4), round(float(v.imag), 4)] for v in shown],
    }
