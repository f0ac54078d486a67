"""The table of figure 1: what each learner needs of the rest of the network, without torch. Every
learner declares its `Properties`; tests/layerwise/test_figure1.py measures each of them on the
code, by the definitions below.

===============  ==============================================================================
property         what is measured
===============  ==============================================================================
forward locked   global: a block learns when the whole network has run; local: when an auxiliary
                 network of its layer has run on its activity; none: before anything else runs
backward locked  global: changing what belongs to other layers, when the forward pass has ended,
                 changes what a block learns; local: changing the auxiliary network of its layer
                 does, outside its forward passes; none: no bit changes
backprop error   weights serve in the other direction: changing them outside their forward passes
                 changes what another layer or module learns
any target       a layer has a loss of its own, or learns from the labels without the output
any error        it has none, and learns nothing where the output is right
any backprop     the signal depends on what belongs to later layers and serves learning alone
any direct       on nothing of other hidden layers
any forprop      on what belongs to earlier layers and serves learning alone, or on their weights
                 when the forward pass has ended
local loss       every block learns from a loss that trains its layer alone
global signal    what a block learns depends on the output, or on what serves learning elsewhere
===============  ==============================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal

Lock = Literal["global", "local", "none"]

FOOTNOTES = {
    "†": "locked within its layer: the auxiliary network learns by backpropagation, in ll-fa by feedback alignment",
    "*": "unlocked where the synthetic gradient is good: the module that predicts it learns from what the next layer "
    "passes back",
    "°": "the target may be replaced by a direct error, or for a while by backpropagation",
}
"""Those of the paper, as they apply here."""


@dataclass(frozen=True, slots=True)
class Properties:
    """One column of figure 1. title : as the paper calls the learner. figure : its letter there.
    marks : (property, footnote) pairs.
    """

    title: str
    figure: str
    forward_locked: Lock
    backward_locked: Lock
    backprop_error: bool = False
    backprop_target: bool = False
    direct_error: bool = False
    forprop_error: bool = False
    forprop_target: bool = False
    direct_target: bool = False
    local_loss: bool = False
    global_signal: bool = False
    marks: tuple[tuple[str, str], ...] = ()


PROPERTIES = tuple(field.name for field in fields(Properties))[2:-1]
"""The rows of the paper's table, in its order."""


def cells(name: str, given: Properties) -> dict[str, str]:
    """The row of a table for the learner of that name: yes, no, or what is locked, with marks."""
    marks, found = dict(given.marks), {"learner": name, "figure": f"1{given.figure}, {given.title}"}
    for key in PROPERTIES:
        value = getattr(given, key)
        text = value if isinstance(value, str) else "yes" if value else "no"
        found[key.replace("_", " ")] = text + marks.get(key, "")
    return found


def record(name: str, given: Properties) -> dict[str, object]:
    """The row for programs: true and false, and the marks apart."""
    return {"learner": name, **asdict(given), "marks": dict(given.marks)}


def notes(given: Sequence[Properties]) -> list[str]:
    """The footnotes that these rows have."""
    used = {mark for each in given for _, mark in each.marks}
    return [f"{mark} {text}" for mark, text in FOOTNOTES.items() if mark in used]
