"""The state of a random generator, as a checkpoint holds it."""

from __future__ import annotations

from typing import Any

import numpy as np

from fsp_dynamics.errors import CheckpointError

REMEDY = "restore the checkpoint, or train again into another folder"


def restore_generator(rng: np.random.Generator, found: Any) -> None:
    """Put the generator into a state that it was in. Raises CheckpointError for what is none of its
    own.
    """
    expected = rng.bit_generator.state
    kind = found.get("bit_generator") if isinstance(found, dict) else None
    if kind != expected["bit_generator"]:
        what = "no state of its generator" if kind is None else f"the state of the generator {kind!r}"
        raise CheckpointError(f"the checkpoint holds {what}, expected {expected['bit_generator']}; {REMEDY}")
    limits = {"has_uint32": 2, "uinteger": 1 << 32}
    inner = found.get("state")
    whole = set(found) == set(expected) and all(_is_below(found[key], limit) for key, limit in limits.items())
    if not whole or not isinstance(inner, dict) or set(inner) != set(expected["state"]):
        raise CheckpointError(f"the state of the generator is not whole; {REMEDY}")
    if not all(_is_below(value, 1 << 128) for value in inner.values()) or not inner["inc"] % 2:
        raise CheckpointError(f"the state of the generator has numbers that it cannot have; {REMEDY}")
    rng.bit_generator.state = found


def _is_below(value: Any, limit: int) -> bool:
    return type(value) is int and 0 <= value < limit
