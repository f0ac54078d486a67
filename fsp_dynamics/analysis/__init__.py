"""Measurements on networks and runs: alignment, gradients, stability, spectra, attractors."""
