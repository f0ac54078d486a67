"""`fsp watch` in a terminal: a table of the runs and their charts, drawn again and again."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fsp_dynamics.experiments.watching import ANGLE, QUANTITIES, Quantity, Watch, Watched, short_names
from fsp_dynamics.tables import rounded
from fsp_dynamics.tables.layout import laid
from fsp_dynamics.watch.charts import chart

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.text import Text

COLOURS = ("bright_blue", "red", "green", "yellow", "magenta", "cyan", "bright_red", "bright_green")
"""Of the runs, or, where there is one run, of its lines."""
WIDE = 100  # letters of a terminal from which on two charts stand beside each other
LEAST, MOST = 3, 14  # rows of a chart
EXPENDABLE = ("residual", "train_error", "written", "images / s", "valid_error", "status")


def follow(watch: Watch, console: Console, every: float) -> None:
    """Show the runs until Ctrl-C, or until all have ended, where no other can appear. What was
    shown last remains on the terminal.
    """
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        try:
            while True:
                runs = watch.look()
                live.update(screen(runs, console.width, console.height - 1), refresh=True)
                if watch.alone and all(run.ended for run in runs):
                    return
                time.sleep(every)
        except KeyboardInterrupt:
            return


def screen(runs: Sequence[Watched], width: int, height: int, *, hint: bool = True) -> Group:
    """The table and the charts in so many letters and lines; charts that do not fit are left out,
    the last first. hint : say how it ends.
    """
    from rich.console import Group
    from rich.text import Text

    lines = table(runs, width)[: max(height, 4)]
    columns = 2 if width >= WIDE else 1
    room = height - len(lines) - 1
    shown = [quantity for quantity in QUANTITIES if any(run.lines(quantity) for run in runs)]
    while shown and room // -(-len(shown) // columns) - 3 < LEAST:
        shown = shown[:-1]
    if not shown:
        return Group(*lines)
    down = -(-len(shown) // columns)
    rows = min(room // down - 3, MOST)
    blocks = [block(runs, quantity, width // columns - 2, rows) for quantity in shown]
    for first in range(0, len(blocks), columns):
        beside = blocks[first : first + columns]
        for parts in zip(*beside, strict=True):
            lines.append(Text("  ").join(parts))
    return Group(*lines, *([Text("Ctrl-C ends this, not the runs", style="dim")] if hint else []))


def table(runs: Sequence[Watched], width: int) -> list[Text]:
    """One line for each run: where it is, and its last epoch."""
    from rich.text import Text

    if not runs:
        return [Text("no runs yet")]
    rows = [{**row(run), "run": name} for run, name in zip(runs, short_names(runs), strict=True)]
    keys = [key for key in rows[0] if any(each[key] != "-" for each in rows)]
    found = laid(
        [{key: each[key] for key in keys} for each in rows],
        width - 2,
        expendable=[key for key in EXPENDABLE if key in keys],
        wrap=False,
    )
    lines = [Text(f"  {line}", style="bold") for line in found.head] + [Text(f"  {found.rule}")]
    for number, (line, run) in enumerate(zip(found.body, runs, strict=True)):
        mark = "red" if run.problem else _colour(number) if len(runs) > 1 else ""
        lines.append(Text.assemble(("━ ", mark), line))
        if run.problem:
            lines.append(Text(f"    {run.problem}"[:width], style="red"))
    return [*lines, Text("")]


def row(run: Watched) -> dict[str, str]:
    """The line of a run in a table."""
    last: dict[str, Any] = run.metrics[-1] if run.metrics else {}
    angles = {f"angle_{name}": rounded(value, 1) for name, value in (last.get(ANGLE) or {}).items()}
    residual, speed = last.get("residual"), last.get("images_per_second")
    return {
        "run": run.name,
        "status": run.status,
        "epoch": f"{len(run.metrics)}/{run.asked}" if run.asked else "-",
        **{key: rounded(last.get(key), 2) for key in ("train_error", "valid_error", "test_error")},
        "angle_loop": angles.get("angle_loop", "-"),
        "residual": "-" if residual is None else f"{residual:.1e}",
        "images / s": "-" if speed is None else f"{speed:.0f}",
        "written": _ago(run.age),
    }


def block(runs: Sequence[Watched], quantity: Quantity, width: int, rows: int) -> list[Text]:
    """A chart below its title, `rows` + 3 lines."""
    from rich.text import Text

    lines, title = _lines(runs, quantity, width)
    text = [title]
    for cells in chart([each for each, _ in lines], width, rows, logarithmic=quantity.logarithmic):
        drawn = Text()
        for cell in cells:
            drawn.append(cell.letter, style=lines[cell.line][1] if cell.line >= 0 else "dim")
        text.append(drawn)
    return [*text, Text(" " * width)]


def _lines(runs: Sequence[Watched], quantity: Quantity, width: int) -> tuple[list[tuple[Any, str]], Text]:
    """([(points, colour), ...], title): all lines of a single run, or one of each of several."""
    from rich.text import Text

    unit = f" ({quantity.unit})" if quantity.unit else ""
    found = [run.lines(quantity) for run in runs]
    if len(runs) == 1:
        names = list(found[0])
        title = Text(f"{quantity.name}{unit}", style="bold")
        if len(names) > 1:
            for number, name in enumerate(names):
                title.append(f"  {name}", style=_colour(number))
        lines = [(found[0][name], _colour(number)) for number, name in enumerate(names)]
    else:
        names = list(dict.fromkeys(name for each in found for name in each))
        one = "loop" if "loop" in names else names[0] if names else ""
        title = Text(f"{quantity.name}{f': {one}' if len(names) > 1 else ''}{unit}", style="bold")
        lines = [(each[one], _colour(number)) for number, each in enumerate(found) if one in each]
    title.truncate(width, pad=True)
    return lines, title


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _ago(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
