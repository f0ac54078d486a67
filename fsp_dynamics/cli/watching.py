"""`fsp watch`: curves of runs while they are trained."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fsp_dynamics.cli.messages import report
from fsp_dynamics.cli.options import SEVERAL, Json
from fsp_dynamics.errors import ConfigurationError, check_positive
from fsp_dynamics.tables import print_json


def watch(
    runs: Annotated[
        tuple[Path, ...], SEVERAL, Parameter(help="Folders of runs, or folders that hold some (default: runs).")
    ] = (),
    /,
    *,
    browser: Annotated[
        bool, Parameter(negative="", help="A page in the browser, on this machine, in place of the terminal.")
    ] = False,
    open_browser: Annotated[
        bool, Parameter(name="--open", help="With --browser: open a window; else only its address is shown.")
    ] = True,
    port: Annotated[int | None, Parameter(help="With --browser: of the page (default: its own choice).")] = None,
    every: Annotated[float, Parameter(help="Seconds from one look to the next.", show_default=True)] = 2.0,
    once: Annotated[bool, Parameter(negative="", help="Show the runs as they are now, and end.")] = False,
    as_json: Json = False,
) -> None:
    """Watch runs that are being trained, or are finished: curves of errors, angles, residual and
    images per second, in the terminal or as a page in the browser (--browser).

    Runs are read, never locked or changed. Ends with Ctrl-C; in the terminal also when every run
    that was named has ended. Not on a terminal, and with --json, it shows the runs once.
    """
    from fsp_dynamics.experiments.watching import Watch

    check_positive("every", every)
    for option, given in (("--port", port is not None), ("--no-open", not open_browser)):
        if given and not browser:
            raise ConfigurationError(f"{option} belongs to --browser; add that, or leave {option} out")
    for option, given in (("--once", once), ("--json", as_json)):
        if given and browser:
            raise ConfigurationError(f"{option} is for the terminal, --browser is not; leave one of the two out")
    watched = Watch(runs or (Path("runs"),))
    if browser:
        from fsp_dynamics.loopback import serve
        from fsp_dynamics.watch.server import WatchServer

        with WatchServer(watched, port or 0, every) as server:
            return serve(server, "the runs are", report, browser=open_browser)
    if as_json:
        return print_json([run.as_record() for run in watched.look()])
    from rich.console import Console

    from fsp_dynamics.watch import terminal

    if once or not sys.stdout.isatty():
        console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
        return console.print(terminal.screen(watched.look(), console.width, 60, hint=False))
    terminal.follow(watched, Console(highlight=False), every)
