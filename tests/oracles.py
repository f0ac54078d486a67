"""Slow, obvious twins of what the package computes: python loops, `np.linalg.solve`, `expm`.

Everything is float64 and starts from images and the network's arrays; nothing here comes from
kernels/ or solvers/, nor from the equations in models/rate.py. States are tuples of (B, n_k); flat
states stand the layers side by side, (B, N). An oracle that does not apply to the problem it was
given raises ValueError.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import expm
from scipy.optimize import root


def rho(name, s):
    """Firing rate of one unit with state s (a float)."""
    if name == "hard_sigmoid":
        return min(max(s, 0.0), 1.0)
    return 1 / (1 + math.exp(-s)) if name == "logistic" else (1 + math.tanh(s)) / 2


def slope(name, s):
    """rho'(s) of one unit; 1 on the closed interval [0, 1] for the hard sigmoid."""
    if name == "hard_sigmoid":
        return 1.0 if 0 <= s <= 1 else 0.0
    return rho(name, s) * (1 - rho(name, s)) if name == "logistic" else (1 - math.tanh(s) ** 2) / 2


def links(network):
    """{(pre, post): float64 matrix} over all pairs of layers that are connected."""
    last = network.depth - 1
    found = {(k, k + 1): w for k, w in enumerate(network.forward)}
    if network.loop is not None:
        found[last, 0] = network.loop
    for k in range(last):
        if network.tied:
            found[k + 1, k] = network.forward[k].T
        elif network.backward is not None:
            found[k + 1, k] = network.backward[k]
    return {pair: np.asarray(w, np.float64) for pair, w in found.items()}


def total_input(network, images, state):
    """a of every unit, one product at a time."""
    a = [np.zeros(np.shape(s)) for s in state]
    for sample, image in enumerate(images):
        for k in range(network.depth):
            for i in range(network.sizes[k + 1]):
                a[k][sample, i] = float(network.biases[k][i])
        for i in range(network.sizes[1]):
            for p, pixel in enumerate(image):
                a[0][sample, i] += float(pixel) * float(network.input[p, i])
        for (pre, post), w in links(network).items():
            for i in range(w.shape[1]):
                for j in range(w.shape[0]):
                    a[post][sample, i] += rho(network.rho.name, float(state[pre][sample, j])) * w[j, i]
    return tuple(a)


def field(network, images, state, nudge=None):
    """ds/dt of eq. 13, unit by unit: rho'(s) a - s / r - beta (s - d), the last on outputs only."""
    a = total_input(network, images, state)
    change = [np.zeros(np.shape(s)) for s in state]
    for k, layer in enumerate(state):
        for index in np.ndindex(np.shape(layer)):
            s = float(layer[index])
            change[k][index] = slope(network.rho.name, s) * a[k][index] - s / network.time_constants[k]
            if nudge is not None and k == network.depth - 1:
                change[k][index] -= nudge.beta * (s - float(nudge.target[index]))
    return tuple(change)


def rate_field(network, images, state, nudge=None):
    """ds/dt of the rate form, unit by unit: clip((a + beta d) / (1/r + beta)) (1/r + beta) - s
    (1/r + beta); smooth rho: `field`.
    """
    if network.rho.name != "hard_sigmoid":
        return field(network, images, state, nudge)
    a = total_input(network, images, state)
    change = [np.zeros(np.shape(s)) for s in state]
    for k, layer in enumerate(state):
        for index in np.ndindex(np.shape(layer)):
            leak, pull = 1 / network.time_constants[k], 0.0
            if nudge is not None and k == network.depth - 1:
                leak, pull = leak + nudge.beta, nudge.beta * float(nudge.target[index])
            change[k][index] = rho("hard_sigmoid", (a[k][index] + pull) / leak) * leak - float(layer[index]) * leak
    return tuple(change)


def residual(network, images, state, nudge=None):
    """(B,) 2-norm over all units of a sample of the rate form over each unit's decay rate."""
    way = [np.array(f) for f in rate_field(network, images, state, nudge)]
    for k, r in enumerate(network.time_constants):
        way[k] /= 1 / r + (nudge.beta if nudge is not None and k == network.depth - 1 else 0.0)
    return np.linalg.norm(np.concatenate(way, axis=1), axis=1)


def euler_path(network, images, state, nudge, h, steps):
    """[s_0, s_1, ...] of the projected Euler method: s <- s + h field(s), then clip to [0, 1] (no
    clip for smooth rho).
    """
    path = [tuple(np.asarray(s, np.float64) for s in state)]
    for _ in range(steps):
        moved = [s + h * f for s, f in zip(path[-1], field(network, images, path[-1], nudge), strict=True)]
        path.append(tuple(np.clip(s, 0, 1) if network.rho.name == "hard_sigmoid" else s for s in moved))
    return path


def coupling(network):
    """(W, ends): the (N, N) pre x post matrix over all units, and where each layer ends."""
    ends = np.concatenate([[0], np.cumsum(network.sizes[1:])])
    whole = np.zeros((ends[-1], ends[-1]))
    for (pre, post), w in links(network).items():
        whole[ends[pre] : ends[pre + 1], ends[post] : ends[post + 1]] = w
    return whole, ends


def split(network, flat):
    """The layers of a flat state (..., N)."""
    ends = np.cumsum(network.sizes[1:])
    return tuple(np.split(flat, ends[:-1], axis=-1))


def _linear_parts(network, images, nudge):
    """(W, constant (B, N), leak (N,)) of ds/dt = s W + constant - leak s inside the box."""
    whole, ends = coupling(network)
    constant = np.tile(np.concatenate(network.biases).astype(np.float64), (len(images), 1))
    constant[:, : ends[1]] += np.asarray(images, np.float64) @ np.asarray(network.input, np.float64)
    leak = np.repeat(1 / np.array(network.time_constants), network.sizes[1:])
    if nudge is not None:
        constant[:, ends[-2] :] += nudge.beta * np.asarray(nudge.target, np.float64)
        leak[ends[-2] :] += nudge.beta
    return whole, constant, leak


def masks(network, images, state, nudge=None):
    """(B, N) of -1, 0, 1: units that rest at 0, inside, at 1, given the rates of the others (hard
    sigmoid).
    """
    whole, constant, leak = _linear_parts(network, images, nudge)
    rest = (np.clip(np.concatenate(state, axis=1), 0, 1) @ whole + constant) / leak
    return np.where(rest <= 0, -1, np.where(rest >= 1, 1, 0))


def solve_masked(network, images, mask, nudge=None):
    """The state in which units of mask -1 and 1 stand at 0 and 1, and the others solve their
    linear system.
    """
    whole, constant, leak = _linear_parts(network, images, nudge)
    flat = np.where(mask == 1, 1.0, 0.0)
    for s, m, c in zip(flat, mask, constant, strict=True):
        inside = m == 0
        matrix = np.diag(leak[inside]) - whole[np.ix_(inside, inside)].T
        s[inside] = np.linalg.solve(matrix, (s @ whole + c)[inside])
    return split(network, flat)


def equilibrium(network, images, nudge=None):
    """Where the network rests: masks from a long slow relaxation, then one linear solve that must
    reproduce them.

    A smooth rho has no masks: scipy's `root` on `field`, sample by sample, from the zero state.
    """
    if network.rho.name != "hard_sigmoid":
        return _smooth_equilibrium(network, images, nudge)
    whole, constant, leak = _linear_parts(network, images, nudge)
    flat = np.zeros_like(constant)
    for _ in range(100):
        for _ in range(100):
            flat += 0.05 * (np.clip((flat @ whole + constant) / leak, 0, 1) - flat)
        mask = masks(network, images, split(network, flat), nudge)
        found = solve_masked(network, images, mask, nudge)
        if (masks(network, images, found, nudge) == mask).all() and np.max(
            residual(network, images, found, nudge)
        ) < 1e-13:
            return found
    raise ValueError("the masks never reproduce: the slow relaxation does not come near to rest")


class _Row:
    """The nudge of one sample."""

    def __init__(self, nudge, sample):
        self.beta, self.target = nudge.beta, nudge.target[sample : sample + 1]


def _smooth_equilibrium(network, images, nudge):
    rows = []
    for sample in range(len(images)):
        row = None if nudge is None else _Row(nudge, sample)
        image = images[sample : sample + 1]

        def flat_field(s, image=image, row=row):
            return np.concatenate(field(network, image, split(network, s[None]), row), axis=1)[0]

        answer = root(flat_field, np.zeros(sum(network.sizes[1:])), tol=1e-15)
        if np.linalg.norm(answer.fun) > 1e-13:
            raise ValueError(f"no equilibrium found: {answer.message}")
        rows.append(answer.x)
    return split(network, np.array(rows))


def interior_path(network, images, start, times, nudge=None):
    """(T, B, N): s(t) = s* + (s0 - s*) expm((W - leak) t), times counted from the start, all of it
    inside the box (model fact 6).
    """
    whole, constant, leak = _linear_parts(network, images, nudge)
    matrix = whole - np.diag(leak)
    rest = np.linalg.solve(matrix.T, -constant.T).T
    begin = np.concatenate(start, axis=1).astype(np.float64)
    path = np.array([rest + (begin - rest) @ expm(matrix * t) for t in times])
    aim = (path @ whole + constant) / leak
    if min(path.min(), aim.min()) < 0 or max(path.max(), aim.max()) > 1:
        raise ValueError("the path leaves the interior, where the field is not linear")
    return path


def nudged_equilibrium(network, images, free, nudge):
    """The nudged equilibrium of a loop network in closed form, masks fixed (model fact 4; leak =
    1/r of the output).

    y^b = y^0 + beta ((leak + beta) I - G_D)^-1 D (d - y^0) in columns, G the product of the masked
    matrices round the loop; every hidden layer moves by the image of y^b - y^0. Raises ValueError
    where a mask changes.
    """
    mask = masks(network, images, free)
    leak = 1 / network.time_constants[-1]
    moved = [np.array(s, np.float64) for s in free]
    for sample in range(len(images)):
        open_units = [np.diag((m == 0).astype(float)) for m in split(network, mask[sample])]
        paths = []  # output -> layer k, in rows: dy @ paths[k] is the move of hidden layer k
        matrix = np.asarray(network.loop, np.float64)
        for k, w in enumerate(network.forward):
            paths.append(matrix @ open_units[k] * network.time_constants[k])
            matrix = paths[-1] @ np.asarray(w, np.float64)
        gain = matrix @ open_units[-1]
        pull = nudge.beta * (np.asarray(nudge.target[sample], np.float64) - moved[-1][sample]) @ open_units[-1]
        change = np.linalg.solve(((leak + nudge.beta) * np.eye(len(gain)) - gain).T, pull)
        for k, path in enumerate(paths):
            moved[k][sample] += change @ path
        moved[-1][sample] += change
    if (masks(network, images, moved, nudge) != mask).any():
        raise ValueError("the nudge changes a mask")
    return tuple(moved)


def gradient(network, images, state, target):
    """{parameter name: -dC/dW}, C = 1/2 mean_B ||s_L - d||^2 at the equilibrium `state` of a
    hard-sigmoid network, masks fixed.

    In rows, the open units obey s (leak - W) = constant, so a change of w_ij (i -> j) moves the
    cost by s_i lambda_j with lambda = (leak - W)^-1 (s_L - d), both restricted to the open units.
    """
    whole, ends = coupling(network)
    mask, rates = masks(network, images, state), np.clip(np.concatenate(state, axis=1), 0, 1)
    leak = np.repeat(1 / np.array(network.time_constants), network.sizes[1:])
    adjoint = np.zeros_like(rates)
    for sample in range(len(images)):
        open_units = mask[sample] == 0
        error = np.zeros(ends[-1])
        error[ends[-2] :] = rates[sample, ends[-2] :] - target[sample]
        matrix = (np.diag(leak) - whole)[np.ix_(open_units, open_units)]
        adjoint[sample, open_units] = np.linalg.solve(matrix, error[open_units])
    rate, pull, batch = split(network, rates), split(network, -adjoint), len(images)
    found = {"input": np.asarray(images, np.float64).T @ pull[0] / batch}
    for k in range(network.depth - 1):
        found[f"forward[{k}]"] = rate[k].T @ pull[k + 1] / batch
        if network.tied:
            found[f"forward[{k}]"] += pull[k].T @ rate[k + 1] / batch
        elif network.backward is not None:
            found[f"backward[{k}]"] = rate[k + 1].T @ pull[k] / batch
    if network.loop is not None:
        found["loop"] = rate[-1].T @ pull[0] / batch
    return found | {f"biases[{k}]": p.mean(0) for k, p in enumerate(pull)}


def hebbian(network, images, free, nudged, beta):
    """{parameter name: eq. 14}, one connection at a time: 1/beta mean_B rho(s_i^0) (rho(s_j^beta)
    - rho(s_j^0)).
    """
    name, batch = network.rho.name, len(images)
    before = [np.vectorize(lambda x: rho(name, float(x)))(s) for s in free]
    after = [np.vectorize(lambda x: rho(name, float(x)))(s) for s in nudged]

    def rule(pre, k):
        found = np.zeros((pre.shape[1], before[k].shape[1]))
        for sample in range(batch):
            for i, j in np.ndindex(found.shape):
                found[i, j] += pre[sample, i] * (after[k][sample, j] - before[k][sample, j]) / (beta * batch)
        return found

    found = {"input": rule(np.asarray(images, np.float64), 0)}
    for k in range(network.depth - 1):
        found[f"forward[{k}]"] = rule(before[k], k + 1)
        if network.tied:
            found[f"forward[{k}]"] += rule(before[k + 1], k).T
        elif network.backward is not None:
            found[f"backward[{k}]"] = rule(before[k + 1], k)
    if network.loop is not None:
        found["loop"] = rule(before[-1], 0)
    return found | {f"biases[{k}]": rule(np.ones((batch, 1)), k)[0] for k in range(network.depth)}


def jacobian(network, images, state, nudge=None):
    """(B, N, N) J[j, i] = d(ds_j/dt) / d s_i at the equilibrium `state`, unit by unit.

    Hard sigmoid: between units inside their box the weight, elsewhere nothing, minus leak + beta
    on the diagonal. Smooth rho: central differences of `field`.
    """
    if network.rho.name != "hard_sigmoid":
        return _differences(network, images, state, nudge)
    whole, _, leak = _linear_parts(network, images, nudge)
    mask = masks(network, images, state, nudge)
    found = np.zeros((len(images), len(leak), len(leak)))
    for sample in range(len(images)):
        for j, i in np.ndindex(whole.shape):
            found[sample, j, i] = (whole[i, j] if mask[sample, i] == mask[sample, j] == 0 else 0.0) - (
                leak[j] if i == j else 0.0
            )
    return found


def _differences(network, images, state, nudge, h=1e-5):
    flat = np.concatenate(state, axis=1).astype(np.float64)
    columns = []
    for i in range(flat.shape[1]):
        ends = []
        for sign in (1, -1):
            moved = flat.copy()
            moved[:, i] += sign * h
            ends.append(np.concatenate(field(network, images, split(network, moved), nudge), axis=1))
        columns.append((ends[0] - ends[1]) / (2 * h))
    return np.stack(columns, axis=2)
