"""The same as the pictures, in words and numbers, and as code that makes them again."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np

from fsp_dynamics.datasets import DATASETS
from fsp_dynamics.explorer.controls import RANDOM, Parameters
from fsp_dynamics.explorer.scene import SETTLED, Scene
from fsp_dynamics.explorer.subject import LOOP_SCALE, TRAINED, Subject
from fsp_dynamics.learning.simulation import Trajectory


def answers(path: Trajectory, label: int | None) -> dict[str, Any]:
    """What the outputs say at the end of each phase: {prediction_free, margin_free, status_free,
    the same nudged}.

    prediction : the class with the highest rate. margin : rate of the target's class less the
        highest of the others; without a target the highest
    less the second. status : converged where the residual is at most SETTLED.
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


def sentence(scene: Scene, readouts: dict[str, Any]) -> str:
    """One or two sentences that say what the pictures show."""
    given, label = scene.parameters, scene.label
    what = "Drawing" if given.drawing is not None else f"Image {readouts['parameters']['sample']}"
    target = "" if label is None else f", class {label}"
    parts = [f"{what}{target}. Free: {_phase(readouts, 'free')}."]
    if given.nudged:
        positive = "Second phase, free" if scene.nudge is None else f"Nudged towards {label} with β = {given.beta:g}"
        parts.append(f"{positive}: {_phase(readouts, 'nudged')}.")
    angles = [f"{each['label']} {each['degrees']:.0f}°" for each in readouts["updates"] if each["degrees"] is not None]
    if angles:
        parts.append(f"Update to gradient: {', '.join(angles)}.")
    limit = readouts["limits"]["dt"]["above"]
    if limit is not None and given.dt > limit:
        parts.append(f"dt = {given.dt:g} is above {limit:.3g}, where {given.integrator} stops being stable converged.")
    if readouts["obstacle"] and given.nudged:
        parts.append(f"No update: {readouts['obstacle']}.")
    return re.sub(r"(?<![\w])-(?=\d)", "−", " ".join(parts))


def _phase(readouts: dict[str, Any], name: str) -> str:
    status, settle, abscissa = readouts[f"status_{name}"], readouts[f"settle_{name}"], readouts[f"abscissa_{name}"]
    if status == "not finite":
        return "the path leaves every bound"
    said = f"says {readouts[f'prediction_{name}']} (margin {readouts[f'margin_{name}']:.2f})"
    rest = f"settles after {settle:.1f}" if settle is not None else "does not settle in this time"
    if abscissa is None:
        return f"{said}, {rest}, no point of rest found"
    return f"{said}, {rest}, slowest mode {abscissa:.2f}" + ("" if abscissa < 0 else ": unstable")


def code(subject: Subject, scene: Scene, updates: int) -> str:
    """Python that makes the same network, image and path with the public names."""
    given = scene.parameters
    lines = ["import dataclasses", "", "import numpy as np", "", "import fsp_dynamics as fsp", ""]
    lines += _images(subject, scene)
    lines += _network(subject, given, scene, updates)
    pieces = [f"({given.free:g}, None)"]
    if given.nudged:
        pieces.append(f"({given.nudged:g}, {'None' if scene.nudge is None else f'fsp.Nudge({given.beta:g}, target)'})")
    start = f"start = {_start(given, scene)}"
    edges = np.cumsum([0.0, *(duration for duration, _ in scene.pieces)])
    grids = ", ".join(f"np.arange({begin:g}, {end:g}, {scene.stride!r})" for begin, end in itertools.pairwise(edges))
    save = f"save = np.unique(np.concatenate([{grids}, [{', '.join(f'{edge:g}' for edge in edges)}]]))  # after whole steps"
    lines += ["", start, save]
    lines.append(
        f"path = fsp.simulate(network, image, [{', '.join(pieces)}], solver={given.integrator!r}, dt={given.dt!r}, start=start, save=save)"
    )
    lines.append("path.plot()")
    return "\n".join(lines) + "\n"


def _images(subject: Subject, scene: Scene) -> list[str]:
    given = scene.parameters
    if given.drawing is not None:
        lines = [f"image = np.array([{list(given.drawing)}])"]
    else:
        name = subject.data.name
        data = (
            f"data = fsp.load_dataset({name!r})"
            if name in DATASETS
            else "# data is the Dataset that was given to explore"
        )
        lines = [data, f"image = data.test.images[[{scene.row}]].astype(float)"]
    if given.noise:
        lines.append(
            f"image = np.clip(image + {given.noise!r} * np.random.default_rng({scene.row}).normal(size={scene.images.shape[1]}), 0, 1)"
        )
    if scene.label is not None:
        lines.append(f"target = np.eye({subject.classes})[[{scene.label}]]")
    return lines


def _network(subject: Subject, given: Parameters, scene: Scene, updates: int) -> list[str]:
    network = scene.network
    dtype, like = f"np.{network.dtype}", subject.template
    shared = f"time_constants={like.time_constants}, dtype=np.{like.dtype}, rng={given.seed}"
    rho = subject.rho.name
    if given.source == TRAINED and subject.run is not None:
        lines = [
            f"network = fsp.open_run({str(subject.run.folder)!r}).network({subject.which(given.epoch)!r}).astype({dtype})"
        ]
    elif given.source == RANDOM:
        rho = "hard_sigmoid"
        if like.loop is None:
            made = f"fsp.reciprocal_network({list(like.sizes)}, tied={like.tied}, {shared})"
        else:
            made = f"fsp.loop_network({list(like.sizes)}, loop_scale={LOOP_SCALE}, {shared})"
        lines = [f"network = {made}.astype({dtype})"]
    else:
        lines = [f"network = network.astype({dtype})  # the network that was given to explore"]
    if updates:
        lines.append(f"# the explorer applied {updates} update(s) to these weights; its `network` has them")
    changed = []
    if given.gain != 1:
        changed.append(f"loop={given.gain!r} * network.loop")
    if given.r != 1:
        changed.append(f"time_constants=tuple({given.r!r} * r for r in network.time_constants)")
    if given.rho != rho:
        changed.append(f"rho={given.rho!r}")
    return lines + ([f"network = dataclasses.replace(network, {', '.join(changed)})"] if changed else [])


def _start(given: Parameters, scene: Scene) -> str:
    sizes, (low, high) = list(scene.network.sizes[1:]), scene.bounds
    if given.start == "saturated":
        return f"[np.full((1, n), {high}.0) for n in {sizes}]"
    if given.start == "random":
        return f"[rng.uniform({low}, {high}, (1, n)) for rng in [np.random.default_rng({given.seed})] for n in {sizes}]"
    return "None"
