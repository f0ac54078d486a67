"""Sweeps: one configuration with a grid of values and several seeds, run side by side."""
