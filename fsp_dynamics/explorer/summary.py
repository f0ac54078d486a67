"""A text summary of the views, and Python code that reproduces them."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np

from fsp_dynamics.datasets import DATASETS
from fsp_dynamics.explorer.controls import RANDOM, Parameters
from fsp_dynamics.explorer.session import LOOP_SCALE, TRAINED, Session
from fsp_dynamics.explorer.trial import SETTLED, Trial
from fsp_dynamics.learning.simulation import Trajectory

EXACT = 1e-3  # distance of a margin from 1 at which an image counts as classified exactly


def predictions(path: Trajectory, label: int | None) -> dict[str, Any]:
    """Prediction, margin and status at the end of each phase: {prediction_free, margin_free,
    status_free, ..._nudged}.

    prediction : the class with the highest rate. margin : rate of the target class minus the
        highest other rate; without a target the highest rate minus the second highest.
    status : "converged" if the residual is at most SETTLED.
    """
    found: dict[str, Any] = {}
    for name, piece in (("free", 0), ("nudged", len(path.betas) - 1)):
        last = np.flatnonzero(path.phase == piece)[-1]
        rates, residual = path.rates[-1][last, 0], path.residual[last, 0]
        if not np.isfinite(rates).all():
            found |= {f"prediction_{name}": None, f"margin_{name}": None, f"status_{name}": "not finite"}
            continue
        own = int(rates.argmax()) if label is None else label
        margin = float(rates[own] - np.delete(rates, own).max())
        status = "converged" if residual <= SETTLED else "not converged"
        found |= {f"prediction_{name}": int(rates.argmax()), f"margin_{name}": margin, f"status_{name}": status}
    return found


def description(trial: Trial, readouts: dict[str, Any]) -> str:
    """One or two sentences that summarise the views."""
    given, label = trial.parameters, trial.label
    what = "Drawing" if given.drawing is not None else f"Image {readouts['parameters']['sample']}"
    target = "" if label is None else f", class {label}"
    parts = [f"{what}{target}. Free: {_phase(readouts, 'free')}."]
    if given.nudged:
        phase = "Second phase, free" if trial.nudge is None else f"Nudged towards {label} with β = {given.beta:g}"
        parts.append(f"{phase}: {_phase(readouts, 'nudged')}.")
    angles = [f"{each['label']} {each['degrees']:.0f}°" for each in readouts["updates"] if each["degrees"] is not None]
    if angles:
        parts.append(f"Update to gradient: {', '.join(angles)}.")
    limit = readouts["limits"]["dt"]["above"]
    if limit is not None and given.dt > limit:
        parts.append(
            f"dt = {given.dt:g} is above {limit:.3g}, the stability limit of {given.integrator} at the equilibrium."
        )
    if readouts["obstacle"] and given.nudged:
        parts.append(f"No update: {readouts['obstacle']}.")
    return re.sub(r"(?<![\w])-(?=\d)", "−", " ".join(parts))


def remark(trial: Trial, readouts: dict[str, Any]) -> str | None:
    """Why matrices have no update although there is a nudge; None if all have one."""
    still = [each["label"] for each in readouts["updates"] if each["norm"] == 0]
    if readouts["obstacle"] is not None or not still:
        return None
    if len(still) < len(readouts["updates"]):
        return (
            f"No update of {', '.join(still)}: the nudge changes no rate there by more than rounding, since "
            "units with rate 0 or 1 stay where they are."
        )
    if readouts["prediction_free"] == trial.label and readouts["margin_free"] > 1 - EXACT:
        return (
            f"Nothing moves: this image is already classified exactly. The free output is the target d (rate 1 for "
            f"class {trial.label}, 0 for the others), so the nudge β (d − s) and the update are 0, and 0 has no angle."
        )
    return "Nothing moves: the nudge changes no rate by more than rounding, so there is no update and no angle."


def _phase(readouts: dict[str, Any], name: str) -> str:
    status, settle, abscissa = readouts[f"status_{name}"], readouts[f"settle_{name}"], readouts[f"abscissa_{name}"]
    if status == "not finite":
        return "the trajectory diverges"
    prediction = f"predicts {readouts[f'prediction_{name}']} (margin {readouts[f'margin_{name}']:.2f})"
    settling = f"settles after {settle:.1f}" if settle is not None else _unsettled(readouts, name)
    if abscissa is None:
        return f"{prediction}, {settling}, no equilibrium found"
    return f"{prediction}, {settling}, slowest mode {abscissa:.2f}" + ("" if abscissa < 0 else ": unstable")


def _unsettled(readouts: dict[str, Any], name: str) -> str:
    missing = readouts[f"missing_{name}"]
    more = (
        ""
        if missing is None
        else f" (needs about {np.format_float_positional(missing, 2, fractional=False, trim='-')} more)"
    )
    return f"does not settle in this time{more}"


def code(session: Session, trial: Trial, updates: int) -> str:
    """Python code that reproduces network, image and trajectory with the public API."""
    given = trial.parameters
    lines = ["import dataclasses", "", "import numpy as np", "", "import fsp_dynamics as fsp", ""]
    lines += _images(session, trial)
    lines += _network(session, given, trial, updates)
    pieces = [f"({given.free:g}, None)"]
    if given.nudged:
        pieces.append(f"({given.nudged:g}, {'None' if trial.nudge is None else f'fsp.Nudge({given.beta:g}, target)'})")
    start = f"start = {_start(given, trial)}"
    edges = np.cumsum([0.0, *(duration for duration, _ in trial.pieces)])
    grids = ", ".join(f"np.arange({begin:g}, {end:g}, {trial.stride!r})" for begin, end in itertools.pairwise(edges))
    ends = ", ".join(f"{edge:g}" for edge in edges)
    save = f"save = np.unique(np.concatenate([{grids}, [{ends}]]))  # after whole steps"
    lines += ["", start, save]
    lines.append(
        f"path = fsp.simulate(network, image, [{', '.join(pieces)}], "
        f"solver={given.integrator!r}, dt={given.dt!r}, start=start, save=save)"
    )
    lines.append("path.plot()")
    return "\n".join(lines) + "\n"


def _images(session: Session, trial: Trial) -> list[str]:
    given = trial.parameters
    if given.drawing is not None:
        lines = [f"image = np.array([{list(given.drawing)}])"]
    else:
        name = session.data.name
        data = f"data = fsp.load_dataset({name!r})" if name in DATASETS else "# data is the Dataset passed to explore"
        lines = [data, f"image = data.test.images[[{trial.row}]].astype(float)"]
    if given.noise:
        lines.append(
            f"image = np.clip(image + {given.noise!r} * "
            f"np.random.default_rng({trial.row}).normal(size={trial.images.shape[1]}), 0, 1)"
        )
    if trial.label is not None:
        lines.append(f"target = np.eye({session.classes})[[{trial.label}]]")
    return lines


def _network(session: Session, given: Parameters, trial: Trial, updates: int) -> list[str]:
    network = trial.network
    dtype, like = f"np.{network.dtype}", session.template
    shared = f"time_constants={like.time_constants}, dtype=np.{like.dtype}, rng={given.seed}"
    rho = session.rho.name
    if given.source == TRAINED and session.run is not None:
        lines = [
            f"network = fsp.open_run({str(session.run.folder)!r})"
            f".network({session.which(given.epoch)!r}).astype({dtype})"
        ]
    elif given.source == RANDOM:
        rho = "hard_sigmoid"
        if like.loop is None:
            made = f"fsp.reciprocal_network({list(like.sizes)}, tied={like.tied}, {shared})"
        else:
            made = f"fsp.loop_network({list(like.sizes)}, loop_scale={LOOP_SCALE}, {shared})"
        lines = [f"network = {made}.astype({dtype})"]
    else:
        lines = [f"network = network.astype({dtype})  # the network passed to explore"]
    if updates:
        lines.append(f"# the explorer applied {updates} update(s) to these weights; they are in its `network`")
    changed = []
    if given.gain != 1:
        changed.append(f"loop={given.gain!r} * network.loop")
    if given.r != 1:
        changed.append(f"time_constants=tuple({given.r!r} * r for r in network.time_constants)")
    if given.rho != rho:
        changed.append(f"rho={given.rho!r}")
    return lines + ([f"network = dataclasses.replace(network, {', '.join(changed)})"] if changed else [])


def _start(given: Parameters, trial: Trial) -> str:
    sizes, (low, high) = list(trial.network.sizes[1:]), trial.bounds
    if given.start == "saturated":
        return f"[np.full((1, n), {high}.0) for n in {sizes}]"
    if given.start == "random":
        return f"[rng.uniform({low}, {high}, (1, n)) for rng in [np.random.default_rng({given.seed})] for n in {sizes}]"
    return "None"
