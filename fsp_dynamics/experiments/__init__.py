"""Runs: what is to be trained, where it is written, how it goes on after a stop. The only floor
that touches files and processes.

=============  =====================================================================================
room           holds
=============  =====================================================================================
config         the frozen configuration and its ranges
sources        where one comes from: presets, TOML files, run folders, overrides; what is said of a
bad one checkpoint     weights on disk: written aside and renamed, verified when read folder
a run folder: its lock, its files, its metrics execution      networks and recipes from a
configuration; signals, threads progress       what is shown while a run goes on run
`open_run`, and the record `Run` runner         `train`: epoch by epoch, resumable after each
backend        what computes: kernels or torch, and on which device ranks          the processes of
one training; shared_memory: the memory through which those of one machine talk sweep
`sweep`: a grid and seeds side by side, one table sweep_plan     its members, their names,
sweep.json sweep_work     how members run: here, in processes, on a cluster; retries, stops
sweep_table    statistics over seeds sweep_tell     what is told meanwhile quickstart the first run,
on digits overview       what was run, what came out, what differs: records for tables variants
what a run is in a figure, and which runs may stand in one collecting     the runs of a figure:
found, or trained where they are missing curves         the numbers of each figure, from records
figures        `fsp figure`: picture, numbers and caption analysis       `fsp stability`, `fsp
gradients` check          `fsp check`: solvers and rules measured against what must be true
============= =====================================================================================
"""
