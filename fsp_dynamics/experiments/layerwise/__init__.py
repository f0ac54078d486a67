"""Discrete networks, trained layer by layer, as a family of the runner."""
