"""Forward signal propagation in NumPy, written out: the slow, obvious twin of one step's losses.

Parameters are {name: array} as in the network's `state_dict`; images (B, channels, height, width).
"""

from __future__ import annotations

import numpy as np
from scipy.signal import correlate2d

SLOPE, EPS = 0.01, 1e-5


def leaky(z):
    return np.where(z > 0, z, SLOPE * z)


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def cross_entropy(logits, labels):
    return -np.mean([np.log(softmax(logits)[j, c]) for j, c in enumerate(labels)])


def normalised(z, scale, shift):
    """Batch norm of z (N, units, ...) by the statistics of all N."""
    axes = (0, *range(2, z.ndim))
    shape = (1, -1, *[1] * (z.ndim - 2))
    z = (z - z.mean(axes, keepdims=True)) / np.sqrt(z.var(axes, keepdims=True) + EPS)
    return z * scale.reshape(shape) + shift.reshape(shape)


def pooled(h, side):
    if side == 1:
        return h
    b, c, height, width = h.shape
    found = np.zeros((b, c, height // side, width // side))
    for y in range(found.shape[2]):
        for x in range(found.shape[3]):
            found[:, :, y, x] = h[:, :, y * side : (y + 1) * side, x * side : (x + 1) * side].max((2, 3))
    return found


def weighted(h, w, b, mode="same"):
    """A layer of units, or a convolution padded by one (valid: not padded)."""
    if w.ndim == 2:
        return h.reshape(len(h), -1) @ w.T + b

    def channel(image, o):
        return sum(correlate2d(image[i], w[o, i], mode) for i in range(w.shape[1])) + b[o]

    return np.stack([np.stack([channel(image, o) for o in range(len(w))]) for image in h])


def filled(t, size):
    found = np.zeros((len(t), size))
    found[:, : t.shape[1]] = t
    return found


def block(p, k, h, pool):
    """The activity of block k."""
    name = f"blocks.{k}"
    z = weighted(pooled(h, pool), p[f"{name}.weights.weight"], p[f"{name}.weights.bias"])
    return leaky(normalised(z, p[f"{name}.norm.weight"], p[f"{name}.norm.bias"]))


def target_block(p, k, t, pool, sparse):
    """The targets (classes, ...) that block k makes of those before it."""
    name = f"blocks.{k}"
    w, b = p[f"{name}.weights.weight"], p[f"{name}.weights.bias"]
    if not sparse:
        t = pooled(t, pool)
    if w.ndim == 2:
        z = weighted(filled(t.reshape(len(t), -1), w.shape[1]), w, b)
    else:
        z = weighted(t, w, b, "valid" if sparse and t.shape[-1] == 3 else "same")
    return leaky(normalised(z, p[f"{name}.norm.weight"], p[f"{name}.norm.bias"]))


def layer_norm(z):
    return (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + EPS)


def generated(p, name, given, normed):
    z = given @ p[f"generator.{name}.weight"].T + p[f"generator.{name}.bias"]
    return leaky(layer_norm(z) if normed else z)


def first_targets(p, kind, h, size, classes, context, *, normed, eta):
    """One array of targets for all samples, (classes, ...), or a list of one for each sample."""
    c = np.eye(classes)

    def shaped(t):
        if len(size) == 1:
            return filled(t, size[0])
        side = size[1] if t.shape[1] == np.prod(size) else 3
        return t.reshape(len(t), size[0], side, side)

    if kind == "target-only":
        return shaped(generated(p, "scale", c, normed))
    if kind == "target-input":
        found = []
        for sample in h:
            scale, shift = generated(p, "scale", c, normed), generated(p, "shift", c, normed)
            found.append(shaped(sample.reshape(1, -1)[:, : scale.shape[1]] * scale + shift))
        return found
    y, top, head = context
    if kind == "target-loop":
        return [shaped(generated(p, "scale", y[j] + c, normed)) for j in range(len(h))]
    return [shaped(generated(p, "scale", top[j] - eta * (y[j] - c) @ head, normed)) for j in range(len(h))]


def scores(h, t, kind, temperature):
    """(B, classes); t as `first_targets` gives them."""
    found = np.zeros((len(h), len(t[0]) if isinstance(t, list) else len(t)))
    for j in range(len(h)):
        for c in range(found.shape[1]):
            target = t[j][c] if isinstance(t, list) else t[c]
            activity = h[j]
            if activity.shape != target.shape:  # averaged to the size of the target
                rows, columns = target.shape[1:]
                activity = np.stack(
                    [
                        [
                            [part.mean() for part in np.array_split(row, columns, 1)]
                            for row in np.array_split(channel, rows, 0)
                        ]
                        for channel in activity
                    ]
                )
            u, v = activity.ravel(), target.ravel()
            if kind == "scaled_dot":
                found[j, c] = u @ v / np.sqrt(len(u))
            elif kind == "l2":
                found[j, c] = -((u - v) ** 2).sum()
            else:
                if kind == "centred_cosine":
                    u, v = u - u.mean(), v - v.mean()
                found[j, c] = temperature * (u @ v) / np.sqrt((u @ u) * (v @ v))
    return found


def losses(
    p, images, labels, *, frozen, pools, last_pool, classes, kind, score, temperature, sparse, context, normed, eta
):
    """The loss of every layer and of the classification layer. frozen : the parameters from which
    the inputs of each stage come, through which no gradient passes.
    """
    found, h, t = [], images, None
    for k, pool in enumerate(pools):
        own_h, own_t = block(p, k, h, pool), None
        if k == 0:
            own_t = first_targets(
                p, kind, block(frozen, 0, h, pool), own_h.shape[1:], classes, context, normed=normed, eta=eta
            )
        else:
            own_t = _through(p, k, t, pool, sparse)
        found.append(cross_entropy(scores(own_h, own_t, score, temperature), labels))
        before = h
        h = block(frozen, k, before, pool)
        if k == 0:
            t = first_targets(frozen, kind, h, h.shape[1:], classes, context, normed=normed, eta=eta)
        else:
            t = _through(frozen, k, t, pool, sparse)
    if "head.weight" in p:
        top = pooled(h, last_pool).reshape(len(h), -1)
        found.append(cross_entropy(top @ p["head.weight"].T + p["head.bias"], labels))
    return found


def _through(p, k, t, pool, sparse):
    if isinstance(t, list):
        return [target_block(p, k, each, pool, sparse) for each in t]
    return target_block(p, k, t, pool, sparse)
