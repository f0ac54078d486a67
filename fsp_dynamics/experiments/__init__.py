"""Runs: their configuration, their folders, how they are trained and resumed. The only floor that
touches files and processes.

=============  ===================================================================================
module         holds
=============  ===================================================================================
config         what every configuration has; config_io: presets, files, overrides, refusals
former_names   what keys, values and records were called before
trainer        `Trainer`: what the runner needs of a family of networks; the registry of families
layerwise/     discrete networks as a family: configuration, trainer, checkpoints
rate/          rate networks as a family: configuration, network and recipe, trainer, probes
runner         `train`: epoch by epoch, resumable after each; run: `open_run` and the record `Run`
folder         a run folder: its lock, its files, its metrics
checkpoint     states on disk: written aside and renamed, verified when read
execution      data, threads, signals, and a record of the machine
backend        what computes: kernels or torch, and on which device
progress       what is shown while a run goes on
overview       runs listed and compared: records for tables
quickstart     a first run, on digits
analysis       `fsp stability`, `fsp gradients`
check          `fsp check`: solvers and rules measured against what must be true
sweeps/        `sweep`: a grid and seeds side by side, one table
figures/       `fsp figure`: picture, numbers and caption, from the records of runs
jobs/          the processes of one training, and the memory that those of one machine share
=============  ===================================================================================
"""
