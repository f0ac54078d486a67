"""The arrays and settings of the compiled integrator (kernels/steps.py, kernels/relax.py).

B samples in all, G of them step together; a state is a row of P units (kernels/field.py). Arrays
of several functions:

    states    (5, B, P), for each sample: S the state, X the attempted one, FIRST and LAST the
              fields of both, MIDDLE the state half-way
    clock     (8, B) float64: H the step size to try, STEP the one tried, LEFT the time to where
              the sample must land, RESIDUAL the distance left, SIZE ||s||, FOUND the residual after
              the attempt; ERROR and the row after it, by turns, the mean square of error / allowed
    count     (4, B): TRIED and STEPS_IN_ALL, steps since the last saved time and in all; REACHED,
              saved times; REJECTED, whether the last step failed
    spans     (L, 3), of each layer: where it BEGINS in a padded row, its FIRST_UNIT among the N
              units, its WIDTH in units
"""

from __future__ import annotations

from typing import NamedTuple

from fsp_dynamics.kernels.field import Array

S, X, FIRST, LAST, MIDDLE = 0, 1, 2, 3, 4
RATES, SLOPES, TOTAL = 0, 1, 2  # of StepScratch.block
PRE, POST, UNITS, PANELS, PLACE, ADDS = 0, 1, 2, 3, 4, 5  # of StepNet.connections
H, STEP, LEFT, RESIDUAL, SIZE, FOUND, ERROR = 0, 1, 2, 3, 4, 5, 6
TRIED, STEPS_IN_ALL, REACHED, REJECTED = 0, 1, 2, 3
BEGINS, FIRST_UNIT, WIDTH = 0, 1, 2  # of spans


class StepNet(NamedTuple):
    """The weights of a network.

    weights : every matrix in panels (kernels/panels.py), laid end to end. connections (C, 6) : of
        each where its layers PRE and POST begin, UNITS of PRE, PANELS, PLACE in `weights`, and
        ADDS: 0 where it is the first into POST.
    leak (P,). output : where the output begins.
    """

    weights: Array
    connections: Array
    leak: Array
    output: int


class StepForm(NamedTuple):
    """literal : eq. 13 as it stands, else the rate form. boxed : clip every state to [0, 1].
    rate_norm : residuals are those of the rate form, also where the field is that of eq. 13.
    """

    literal: bool
    boxed: bool
    rate_norm: bool


class StepTableau(NamedTuple):
    """k_i = field(s + h sum_j A_ij k_j); the last row of A leads to the new state, so that the last
    k is the first of the next step.

    The error is h sum_i error_i k_i (empty: the step is constant), s + h sum_i middle_i k_i the
    state half-way; the local error is O(h^(order + 1)).
    """

    A: Array
    error: Array
    middle: Array
    order: int


class StepScratch(NamedTuple):
    """Of the G samples that step together.

    k (stages - 2, G, P) : the stages between the first and the last. block (3, G + 1, P) : RATES,
        SLOPES and the TOTAL rates @ W, with a row of zeros at the end.
    numbers (G,) : 0 ... G - 1. scaled (stages,) : h times coefficients.
    """

    k: Array
    block: Array
    numbers: Array
    scaled: Array


class StepControl(NamedTuple):
    """The error allowed in a step.

    motion = 0: for each unit absolute + relative |s|, as root mean square over the units; else for
    the 2-norm max(absolute + relative ||s||, motion RESIDUAL). longest, shortest : step.
    """

    absolute: float
    relative: float
    motion: float
    longest: float
    shortest: float


class StopBound(NamedTuple):
    """A sample has converged when RESIDUAL <= absolute + relative ||s||; absolute < 0: it is
    integrated to the last saved time.
    """

    absolute: float
    relative: float


class SavedTimes(NamedTuple):
    """T saved times.

    after (T,) : the time from each to the last. spans (T-1,) : between them. dt (T-1,) : the step
        to take in each span, or 0 to continue with the last one.
    dense : steps run over saved times, else they land on each. limit : steps tried between two.
    """

    after: Array
    spans: Array
    dt: Array
    dense: bool
    limit: int


class IntegrationScratch(NamedTuple):
    """`StepScratch`, lists (., B) of samples and spare (., 1, P), each with an axis for the threads
    before its own.
    """

    k: Array
    block: Array
    numbers: Array
    scaled: Array
    lists: Array
    spare: Array
