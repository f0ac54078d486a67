"""Line charts of letters, for terminals: each letter is a field of two by four dots (braille)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

Line = Sequence[tuple[float, float]]
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # by column and row
_LABEL = 10  # letters of the values at the left


class Cell(NamedTuple):
    """A letter of a chart, and the number of the line that it belongs to; -1 for none."""

    letter: str
    line: int = -1


def chart(lines: Sequence[Line], width: int, height: int, *, logarithmic: bool = False) -> list[list[Cell]]:
    """The rows of a chart, from the top: `height` rows and one with the epochs, of `width` letters.
    Lines are (x, y) in order of x; later ones are drawn over earlier ones. A logarithmic chart
    needs y > 0. Without any point the rows are empty.

    >>> ["".join(cell.letter for cell in row) for row in chart([[(1, 0.0), (2, 1.0)]], 13, 2)]
    ['       1 │ ⢀⠎', '       0 │⡰⠁ ', '          1 2']
    """
    points = [point for line in lines for point in line]
    if not points:
        return [[Cell(" ")] * width for _ in range(height + 1)]
    scale = math.log10 if logarithmic else float
    across, down = 2 * max(width - _LABEL, 1), 4 * height
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(scale(y) for _, y in points), max(scale(y) for _, y in points)
    dots: dict[tuple[int, int], list[int]] = {}

    def place(x: float, y: float) -> tuple[int, int]:
        column = round((across - 1) * (x - left) / (right - left)) if right > left else 0
        row = round((down - 1) * (high - scale(y)) / (high - low)) if high > low else down // 2
        return column, row

    for number, line in enumerate(lines):
        places = [place(x, y) for x, y in line]
        for column, row in _joined(places):
            cell = dots.setdefault((column // 2, row // 4), [0, number])
            cell[0] |= _DOTS[column % 2][row % 4]
            cell[1] = number
    rows = []
    for row in range(height):
        text = _number(high if row == 0 else low, logarithmic) if row in (0, height - 1) else ""
        head = [Cell(letter) for letter in f"{text:>{_LABEL - 2}} │"]
        rows.append([*head, *(_cell(dots.get((column, row))) for column in range(width - _LABEL))])
    last = f"{right:g}" if right > left else ""
    foot = f"{left:g}" + last.rjust(width - _LABEL - len(f"{left:g}"))
    return [*rows, [Cell(letter) for letter in " " * _LABEL + foot]]


def _cell(found: list[int] | None) -> Cell:
    return Cell(" ") if found is None else Cell(chr(0x2800 + found[0]), found[1])


def _joined(places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The places with those between neighbours."""
    found = list(places[:1])
    for (a, b), (c, d) in itertools.pairwise(places):
        steps = max(abs(c - a), abs(d - b), 1)
        found += [(round(a + (c - a) * k / steps), round(b + (d - b) * k / steps)) for k in range(1, steps + 1)]
    return found


def _number(value: float, logarithmic: bool) -> str:
    return f"{10**value if logarithmic else value:.3g}"
