"""The pictures in the folder of a run, drawn while it runs and when it ends.

=================  ===========================================================================
file               what it shows
=================  ===========================================================================
``learning.png``   errors and angles by epoch
``confusion.png``  which classes the network of the best epoch takes for which, on the test
                   images; ``confusion.csv`` holds the numbers
=================  ===========================================================================
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsp_dynamics import settings
from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.experiments.progress import EpochReporter
from fsp_dynamics.experiments.run import open_run
from fsp_dynamics.reading import MEGABYTE, read_file
from fsp_dynamics.writing import write_aside

# of the time it takes to draw passes before the pictures are drawn again, so that drawing costs at
# most a twentieth
DRAW_EVERY = 20
CONFUSION = "confusion.csv"


@dataclass(slots=True)
class Pictures:
    """The pictures of one run. ready, took : when the last ones were drawn, and how long that took;
    infinite where nothing can be drawn.
    """

    folder: RunFolder
    reporter: EpochReporter
    ready: float = 0.0
    took: float = 0.0

    def keep(self, evaluation: Any, epoch: int) -> None:
        """Keep the confusion matrix of the best epoch, where the family has one."""
        confusion = getattr(evaluation, "confusion", ())
        if len(confusion):
            self.folder.figures.mkdir(exist_ok=True)
            names = getattr(evaluation, "class_names", ())
            write_aside(self.folder.figures / CONFUSION, as_csv(confusion, names, epoch))

    def draw(self, *, now: bool = False) -> None:
        """Draw them, if `now` or if the last drawing was long ago."""
        begin = time.monotonic()
        if self.took == math.inf or (not now and begin - self.ready < DRAW_EVERY * self.took):
            return
        self.reporter.stage("drawing the pictures")
        try:
            from fsp_dynamics.plotting.confusion import plot_confusion
            from fsp_dynamics.plotting.showing import apart
        except Exception as error:
            trouble = settings.explained(error)
            if trouble is None:
                raise
            self.reporter.note(f"no pictures are drawn: {trouble}")
            self.took = math.inf
            return

        with apart():
            open_run(self.folder.path).plot(path=self.folder.figures / "learning.png")
            if (found := read_confusion(self.folder.figures / CONFUSION)) is not None:
                plot_confusion(*found, path=self.folder.figures / "confusion.png")
        self.ready, self.took = time.monotonic(), time.monotonic() - begin


def as_csv(confusion: Sequence[Sequence[int]], names: Sequence[str], epoch: int) -> bytes:
    """The matrix as a table: a row for each class, a column for each output it is taken for; the
    first cell names the epoch.
    """
    labels = [names[k] if k < len(names) else str(k) for k in range(len(confusion))]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([f"epoch {epoch}", *labels])
    table.writerows([label, *row] for label, row in zip(labels, confusion, strict=True))
    return text.getvalue().encode()


def read_confusion(path: Path) -> tuple[list[list[int]], list[str]] | None:
    """(matrix, names of the classes) of such a table; None where there is none, and for a file that
    is none any more.
    """
    try:
        rows = list(csv.reader(io.StringIO(read_file(path, MEGABYTE).decode())))
        names = rows[0][1:]
        matrix = [[int(cell) for cell in row[1:]] for row in rows[1:]]
    except (OSError, ValueError, IndexError, csv.Error):
        return None
    square = len(matrix) == len(names) > 0 and all(len(row) == len(names) for row in matrix)
    return (matrix, names) if square and min(map(min, matrix)) >= 0 and any(map(any, matrix)) else None
