"""Where the columns of a table go: as many as the width holds, each whole. A number is never
broken: text is wrapped between its words, and columns that do not fit are left out and named.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

Row = Mapping[str, str]

GAP = "  "
ROOM = 12  # letters below which no text is wrapped
_NUMBER = re.compile(r"[-+<>≥≤~]?[\d.,]+([eE][-+]?\d+)?( ?%| s)?( (to|of|±) .*| \(.*\))?|-|nan|inf")


@dataclass(frozen=True, slots=True)
class Laid:
    """A table as lines of text. head, rule, body : without spaces at their ends. left_out : columns
    for which there was no room, in the order of the table.
    """

    head: list[str]
    rule: str
    body: list[str]
    left_out: tuple[str, ...]


def laid(rows: Sequence[Row], width: int | None, *, expendable: Sequence[str] = (), wrap: bool = True) -> Laid:
    """The rows, of which the keys of the first are the columns, in lines of at most `width`
    letters; None: as wide as they are.

    expendable : columns to leave out, the first of them first, before any others, which go from
        the right. The first column always stays; where there is no room for it, the middle of its
        texts makes way.
    wrap : whether text may take several lines; else every row is one line.
    """
    columns = list(rows[0])
    widths = {key: max(map(_letters, (key, *(row.get(key, "") for row in rows)))) for key in columns}
    least = {key: _least(rows, key) if wrap else widths[key] for key in columns}
    kept = list(columns)
    if width is not None:
        order = [key for key in expendable if key in kept] + [key for key in reversed(columns) if key not in expendable]
        gone = []
        for key in order:
            if _total(kept, least) <= width:
                break
            if key != columns[0]:
                kept.remove(key)
                gone.append(key)
        for key in reversed(gone):  # a narrow one may fit where a wide one did not
            if _total([*kept, key], least) <= width:
                kept.append(key)
        kept.sort(key=columns.index)
        widths = _narrowed(kept, widths, least, width)
    right = {key for key in kept if _is_numeric(rows, key)}
    cells = [{key: _cell(row.get(key, ""), widths[key], wrap) for key in kept} for row in rows]
    head = {key: _cell(key, widths[key], wrap) for key in kept}
    lines = [line for row in cells for line in _lines(row, kept, widths, right)]
    rule = "─" * _total(kept, widths)
    return Laid(_lines(head, kept, widths, right), rule, lines, tuple(key for key in columns if key not in kept))


def blocks(rows: Sequence[Row], width: int | None) -> list[list[Row]]:
    """The rows in as many tables as it takes for every column to fit, the first column in each."""
    first, *others = rows[0]
    least = {key: _least(rows, key) for key in rows[0]}
    found: list[list[str]] = [[]]
    for key in others:
        if width is not None and found[-1] and _total([first, *found[-1], key], least) > width:
            found.append([])
        found[-1].append(key)
    return [[{key: row.get(key, "") for key in (first, *keys)} for row in rows] for keys in found]


def left_out(names: Sequence[str], width: int | None) -> str:
    """One line that names columns for which there was no room, as many of them as it holds.

    >>> left_out(["seconds", "epochs", "status"], 41)
    'no room for seconds, ... (3); see --json'
    """
    for count in range(len(names), -1, -1):
        more = "" if count == len(names) else f"{', ' * bool(count)}... ({len(names)})"
        text = f"no room for {', '.join(names[:count])}{more}; see --json"
        if width is None or _letters(text) <= width:
            break
    return text


def wrapped(text: str, width: int | None) -> list[str]:
    """The text in lines of at most `width` letters, broken between words and in paths; None: in
    one.
    """
    return [text] if width is None else _cell(text, width, True)


def shortened(text: str, width: int) -> str:
    """The text with its middle left out, in `width` letters.

    >>> shortened("beta=0.5-seed=0", 9)
    'beta…ed=0'
    """
    if _letters(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"


def _letters(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _total(kept: Collection[str], widths: Mapping[str, int]) -> int:
    return sum(widths[key] for key in kept) + len(GAP) * (len(kept) - 1)


def _is_numeric(rows: Sequence[Row], key: str) -> bool:
    """Whether a column holds numbers alone, or nothing."""
    return all(_NUMBER.fullmatch(text) for row in rows if (text := row.get(key, "")))


def _least(rows: Sequence[Row], key: str) -> int:
    """The fewest letters in which a column is legible: all of a number, the longest word of text,
    or `ROOM` where that is longer.
    """
    texts = [key, *(row.get(key, "") for row in rows)]
    if _is_numeric(rows, key):
        return max(map(_letters, texts))
    longest = max(_letters(word) for text in texts for word in _words(text))
    return min(max(map(_letters, texts)), max(longest, ROOM))


def _words(text: str) -> list[str]:
    """What is not broken: words, and the parts of a path."""
    return [part for word in text.split() for part in re.findall(r"[^/]*/|[^/]+", word)] or [""]


def _narrowed(kept: Sequence[str], widths: Mapping[str, int], least: Mapping[str, int], width: int) -> dict[str, int]:
    """Widths of which the sum fits: the widest column that may gives way, letter by letter."""
    found = {key: widths[key] for key in kept}
    while _total(kept, found) > width:
        may = [key for key in kept if found[key] > least[key]]
        if not may:
            break
        found[max(may, key=found.__getitem__)] -= 1
    first = kept[0]
    found[first] -= max(0, min(_total(kept, found) - width, found[first] - 1))
    return found


def _cell(text: str, width: int, wrap: bool) -> list[str]:
    """The lines of a cell."""
    if _letters(text) <= width:
        return [text]
    if not wrap or max(map(_letters, _words(text))) > width:
        return [shortened(text, width)]
    parted = re.sub(r"(?<=\S/)(?=[^\s/])", "\N{ZERO WIDTH SPACE}", text)
    lines = textwrap.wrap(parted.replace("\N{ZERO WIDTH SPACE}", " \N{ZERO WIDTH SPACE}"), width)
    return [re.sub(r" ?\N{ZERO WIDTH SPACE}", "", line) for line in lines]


def _lines(
    cells: Mapping[str, Sequence[str]], kept: Sequence[str], widths: Mapping[str, int], right: Collection[str]
) -> list[str]:
    """The lines of one row."""
    found = []
    for place in range(max(len(cells[key]) for key in kept)):
        parts = []
        for key in kept:
            text = cells[key][place] if place < len(cells[key]) else ""
            space = " " * (widths[key] - _letters(text))
            parts.append(space + text if key in right else text + space)
        found.append(GAP.join(parts).rstrip())
    return found
