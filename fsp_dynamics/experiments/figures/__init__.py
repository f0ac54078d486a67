"""Figures of what learning does to the loop: their runs, their numbers, their files."""
